"""CoNLL: columns beside the official words, for conlleval and srl-eval.pl.

Named entities are lines of token, gold tag and predicted tag with blank lines between sentences, as conlleval of
CoNLL-2000 and 2003 reads them (https://www.clips.uantwerpen.be/conll2003/ner/). Semantic roles are two files of props,
gold and predicted, as srl-eval.pl compares them (https://www.cs.upc.edu/~srlconll/soft.html): a line a word, in its
first column the verb where the word is a predicate and "-" elsewhere, behind it a column a predicate with the arguments
in brackets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from benchmarks.errors import PolypromptError
from benchmarks.readers.conll import read_sentences
from benchmarks.readers.srl import Propositions
from benchmarks.submissions.format import Format, LeftOut, Official, Predicted, lines, tags
from benchmarks.task import Kind

Tags = Sequence[str]


def _columns(predicted: Predicted) -> Mapping[str, str]:
    official = predicted.official
    if official is None:
        raise LeftOut("the words are needed; give --data-dir the folder with the official files")
    gold = [row.gold for row in predicted.rows]
    given = [tags(predicted.card, row) for row in predicted.rows]
    right = [value for value in gold if isinstance(value, tuple)]
    if len(right) < len(gold):
        raise LeftOut("the official file has no gold tags to compare with")
    for row, example, columns in zip(predicted.rows, official.examples, zip(right, given, strict=True), strict=True):
        if {len(example.tokens)} != {len(column) for column in columns}:
            raise PolypromptError(
                f"{predicted.name}: prediction {row.id!r} has not as many tags as the sentence in "
                f"{', '.join(map(str, official.files))} has words; give --data-dir the folder that the run read"
            )
    if isinstance(official.reader, Propositions):
        return {
            f"{predicted.name}.gold.props": _props(official, official.reader, right),
            f"{predicted.name}.predicted.props": _props(official, official.reader, given),
        }
    tokens = [[_in_one_column(token) for token in example.tokens] for example in official.examples]
    return {f"{predicted.name}.txt": _sentences(zip(tokens, right, given, strict=True))}


def _props(official: Official, reader: Propositions, tagged: Sequence[Tags]) -> str:
    """Props of all sentences; those without a predicate are in no example, but the script counts on them."""
    columns: dict[int, dict[int, list[str]]] = defaultdict(dict)
    for example, given in zip(official.examples, tagged, strict=True):
        sentence, predicate = map(int, example.id.split("."))
        columns[sentence][predicate] = _bracketed(given)
    sentences = []
    for number, verbs in enumerate(_verbs(official, reader)):
        targets = [verb if at in columns[number] else "-" for at, verb in enumerate(verbs)]
        sentences.append((targets, *(column for _, column in sorted(columns[number].items()))))
    return _sentences(sentences)


def _verbs(official: Official, reader: Propositions) -> list[list[str]]:
    """The column of predicates of each sentence."""
    files, column = official.files, reader.predicate
    if reader.beside:
        column -= len(read_sentences(files[0])[0].cells[0])
        files = files[len(files) // 2 :]
    return [
        [_in_one_column(cells[column].strip(" ")) for cells in sentence.cells]
        for file in files
        for sentence in read_sentences(file)
    ]


def _bracketed(given: Tags) -> list[str]:
    """BIO tags as a column of brackets; pieces begin and end by the rules of conlleval."""
    cells = ["*"] * len(given)
    for at, (before, tag) in enumerate(pairwise(("O", *given, "O"))):
        if tag[2:] == before[2:] and not tag.startswith("B-"):
            continue
        if before[2:]:
            cells[at - 1] += ")"
        if tag[2:]:
            cells[at] = f"({tag[2:]}*"
    return cells


def _sentences(sentences: Iterable[Sequence[Tags]]) -> str:
    """Columns side by side, blank lines between sentences."""
    return "\n".join(lines(map(" ".join, zip(*columns, strict=True))) for columns in sentences)


def _in_one_column(word: str) -> str:
    """A word that divides no columns: some hold blanks."""
    return "_".join(word.split()) or "_"


CONLL = Format("conll", kinds={Kind.TAGGING: _columns})
