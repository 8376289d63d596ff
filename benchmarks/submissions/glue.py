"""GLUE: one zip archive with a table a task, the diagnostic set among them.

Each table has the columns "index" and "prediction". Labels are numbers where the official files have numbers and names
else; similarities are between 0 and 5, with three decimals. Sources: the FAQ of https://gluebenchmark.com/faq and the
writer of its authors' toolkit (github.com/nyu-mll/jiant, `_write_glue_preds` of version 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.errors import PolypromptError
from benchmarks.records import Prediction
from benchmarks.submissions.format import Format, Predicted, Writer, index, label, label_number, lines
from benchmarks.task import TaskCard


def _table(file: str, spelling: Callable[[TaskCard, Prediction], object]) -> Writer:
    def write(predicted: Predicted) -> Mapping[str, str]:
        card = predicted.card
        rows = (f"{index(card, row)}\t{spelling(card, row)}" for row in predicted.rows)
        return {file: lines(["index\tprediction", *rows])}

    return write


def _similarity(card: TaskCard, row: Prediction) -> str:
    if not isinstance(row.value, int | float):
        raise PolypromptError(f"{card.name}: prediction {row.id!r}: {row.value!r} is not a number")
    return f"{min(max(row.value, 0.0), 5.0):.3f}"


GLUE = Format(
    "glue",
    tasks={
        "cola": _table("CoLA.tsv", label_number),
        "sst2": _table("SST-2.tsv", label_number),
        "mrpc": _table("MRPC.tsv", label_number),
        "stsb": _table("STS-B.tsv", _similarity),
        "qqp": _table("QQP.tsv", label_number),
        "mnli": _table("MNLI-m.tsv", label),
        "mnli-mm": _table("MNLI-mm.tsv", label),
        "qnli": _table("QNLI.tsv", label),
        "rte": _table("RTE.tsv", label),
        "wnli": _table("WNLI.tsv", label_number),
        "ax": _table("AX.tsv", label),
    },
)
