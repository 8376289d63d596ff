"""The columns of the official tables that begin with their names, where the rows alone do not tell them (GLUE)."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

_MNLI = (
    "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
    "sentence1 sentence2"
)

_HEADERS: Mapping[str, tuple[str, ...]] = {
    "glue/SST-2/test.tsv": ("index", "sentence"),
    "glue/SST-2/*.tsv": ("sentence", "label"),
    "glue/MRPC/test.tsv": ("index", "#1 ID", "#2 ID", "#1 String", "#2 String"),
    "glue/MRPC/*.tsv": ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
    "glue/QQP/test.tsv": ("id", "question1", "question2"),
    "glue/QQP/*.tsv": ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
    "glue/STS-B/*.tsv": tuple("index genre filename year old_index source1 source2 sentence1 sentence2 score".split()),
    "glue/MNLI/test_*.tsv": tuple(_MNLI.split()),
    "glue/MNLI/train.tsv": tuple(f"{_MNLI} label1 gold_label".split()),
    "glue/MNLI/dev_*.tsv": tuple(f"{_MNLI} label1 label2 label3 label4 label5 gold_label".split()),
}  # the first pattern that fits counts


def header_of(file: str) -> tuple[str, ...]:
    """The names of the columns of an official file; empty where they are those of the rows, in their order."""
    return next((header for pattern, header in _HEADERS.items() if fnmatchcase(file, pattern)), ())
