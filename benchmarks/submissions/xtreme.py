"""XTREME: a folder a task, in it a file a language, test-xx.json of question answering and test-xx.tsv of the others.

Source: README.md and evaluate.py of https://github.com/google-research/xtreme, which reads them so: a label a line; a
tag a line with blank lines between sentences; SQuAD's objects; the ids of a pair a line (BUCC); for each English
sentence, in the order of its file, the 0-based row of the other language's sentence (Tatoeba; which side is looked for
is told by the labels in mock_test_data and by third_party/evaluate_retrieval.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.submissions.format import Format, LeftOut, Predicted, Writer, label, label_number, lines, tags, text
from benchmarks.submissions.squad import answers


def _file(ending: str, content: Callable[[Predicted], str]) -> Writer:
    def write(predicted: Predicted) -> Mapping[str, str]:
        return {f"{predicted.card.name}/test-{predicted.language}.{ending}": content(predicted)}

    return write


def _labels(predicted: Predicted) -> str:
    return lines(label(predicted.card, row) for row in predicted.rows)


def _label_numbers(predicted: Predicted) -> str:
    return lines(label_number(predicted.card, row) for row in predicted.rows)


def _tags(predicted: Predicted) -> str:
    return "\n".join(lines(tags(predicted.card, row)) for row in predicted.rows)


def _pairs(predicted: Predicted) -> str:
    given = [(row.id, text(predicted.card, row)) for row in predicted.rows]
    return lines(f"{sentence}\t{partner}" for sentence, partner in given if partner)


def _rows(predicted: Predicted) -> str:
    if predicted.official and not predicted.official.files[0].name.removesuffix(".gz").endswith("-en.en"):
        raise LeftOut(
            "the run looks for English sentences; XTREME wants for each English one that of the other language"
        )
    return lines(text(predicted.card, row) for row in predicted.rows)


XTREME = Format(
    "xtreme",
    tasks={
        "xnli": _file("tsv", _labels),
        "pawsx": _file("tsv", _label_numbers),
        "udpos": _file("tsv", _tags),
        "panx": _file("tsv", _tags),
        "xquad": _file("json", answers),
        "mlqa": _file("json", answers),
        "tydiqa": _file("json", answers),
        "bucc2018": _file("tsv", _pairs),
        "tatoeba": _file("tsv", _rows),
    },
)
