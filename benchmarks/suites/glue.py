"""GLUE (Wang et al. 2019, arXiv 1804.07461): English sentences and pairs of sentences, one file layout a task."""

from __future__ import annotations

from benchmarks.hub import Hub
from benchmarks.readers.rows import Columns
from benchmarks.readers.tables import Tsv
from benchmarks.sources import in_all_splits
from benchmarks.task import Kind, Suite, Task, TaskCard

_HOW_TO_GET = (
    "The archive of each task is linked on https://gluebenchmark.com/tasks; unpack it into glue/ of the data folder."
)

SST2 = Task(
    card=TaskCard(
        name="sst2",
        suite="glue",
        kind=Kind.CLASSIFICATION,
        labels=("negative", "positive"),
        metrics=("accuracy",),
    ),
    source=in_all_splits(
        "glue/SST-2/{split}.tsv",
        Tsv(Columns(text="sentence", label="label", id="index", names={"0": "negative", "1": "positive"})),
        Hub("nyu-mll/glue", Columns(text="sentence", label="label", id="idx"), config="sst2"),
    ),
    title="SST-2",
    licence="none stated by the authors; research use",
    url="https://nlp.stanford.edu/sentiment/",
    how_to_get=_HOW_TO_GET,
)

STSB = Task(
    card=TaskCard(name="stsb", suite="glue", kind=Kind.REGRESSION, metrics=("pearson", "spearman")),
    source=in_all_splits(
        "glue/STS-B/{split}.tsv",
        Tsv(Columns(text="sentence1", text_pair="sentence2", target="score", id="index")),
        Hub(
            "nyu-mll/glue",
            Columns(text="sentence1", text_pair="sentence2", target="label", id="idx", unlabelled=-1.0),
            config="stsb",
        ),
    ),
    title="STS-B",
    licence="differs by source corpus; free for research",
    url="https://ixa2.si.ehu.eus/stswiki",
    how_to_get=_HOW_TO_GET,
)

RTE = Task(
    card=TaskCard(
        name="rte",
        suite="glue",
        kind=Kind.CLASSIFICATION,
        labels=("entailment", "not_entailment"),
        metrics=("accuracy",),
    ),
    source=in_all_splits(
        "glue/RTE/{split}.tsv",
        Tsv(Columns(text="sentence1", text_pair="sentence2", label="label", id="index")),
        Hub("nyu-mll/glue", Columns(text="sentence1", text_pair="sentence2", label="label", id="idx"), config="rte"),
    ),
    title="RTE",
    licence="none stated by the authors; research use",
    url="https://gluebenchmark.com/tasks",
    how_to_get=_HOW_TO_GET,
)

SUITE = Suite(name="glue", title="GLUE (3 of its 9 tasks)", tasks=(SST2, STSB, RTE), categories={})
