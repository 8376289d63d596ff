"""GLUE (Wang et al. 2019, arXiv 1804.07461): English sentences and pairs of sentences, one file layout a task."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.hub import Hub
from benchmarks.readers.rows import Columns, Row
from benchmarks.readers.tables import Tsv
from benchmarks.records import Example
from benchmarks.sources import OfficialSource, SplitFiles, in_all_splits
from benchmarks.task import Kind, Published, Source, Suite, Task, TaskCard

_HUB = "nyu-mll/glue"
_HOW_TO_GET = (
    "The archive of each task is linked on https://gluebenchmark.com/tasks; unpack it into glue/ of the data folder."
)
_FINE_TUNED = "github.com/huggingface/transformers, examples/pytorch/text-classification/README.md"
_ENTAILMENT = ("entailment", "not_entailment")
_NLI = ("entailment", "neutral", "contradiction")


def _task(
    name: str,
    title: str,
    source: Source,
    licence: str,
    url: str,
    labels: Sequence[str] = (),
    metrics: Sequence[str] = ("accuracy",),
    published: Sequence[float] = (),
    eval_split: str = "dev",
    head: str = "",
    how_to_get: str = _HOW_TO_GET,
) -> Task:
    """A task of GLUE.

    Args:
        name, title, source, licence, url, eval_split, how_to_get: as in `Task`.
        labels, metrics, head: as in `TaskCard`; without labels it is a regression.
        published: fine-tuned BERT-base on the dev set, a number for each metric.
    """
    return Task(
        card=TaskCard(
            name=name,
            suite="glue",
            kind=Kind.CLASSIFICATION if labels else Kind.REGRESSION,
            labels=tuple(labels),
            train_language=None if head else "en",
            metrics=tuple(metrics),
            head=head,
        ),
        source=source,
        title=title,
        licence=licence,
        url=url,
        how_to_get=how_to_get,
        eval_split=eval_split,
        published=tuple(
            Published("fine-tuning", "bert-base-cased", metric, value, "dev", _FINE_TUNED)
            for metric, value in zip(metrics, published, strict=bool(published))
        ),
    )


def _numbered(labels: Sequence[str]) -> dict[str, str]:
    """How files write labels as numbers."""
    return {str(number): label for number, label in enumerate(labels)}


def _source(folder: str, config: str, columns: Columns, hub: Columns, torn: bool = False) -> OfficialSource:
    """Files whose first line names the columns, and the hub's dataset."""
    return in_all_splits(f"glue/{folder}/{{split}}.tsv", Tsv(columns, torn=torn), Hub(_HUB, hub, config=config))


_SENTENCE = Columns(text="sentence", label="label", id="idx")
_PAIR = Columns(text="sentence1", text_pair="sentence2", label="label", id="idx")

_ACCEPTABLE = ("unacceptable", "acceptable")
_COLA = Columns(text="sentence", label="label", id="index", names=_numbered(_ACCEPTABLE))
_COLA_LABELLED = Tsv(_COLA, header=("source", "label", "author's label", "sentence"))
_COLA_HUB = Hub(_HUB, _SENTENCE, config="cola")

COLA = _task(
    "cola",
    "CoLA",
    OfficialSource(
        {
            "train": SplitFiles(("glue/CoLA/train.tsv",), _COLA_LABELLED, _COLA_HUB),
            "dev": SplitFiles(("glue/CoLA/dev.tsv",), _COLA_LABELLED, _COLA_HUB),
            "test": SplitFiles(("glue/CoLA/test.tsv",), Tsv(_COLA), _COLA_HUB),
        }
    ),
    licence="none stated; sentences quoted from the linguistics literature, research use",
    url="https://nyu-mll.github.io/CoLA/",
    labels=_ACCEPTABLE,
    metrics=("matthews",),
    published=(56.53,),
)

_SENTIMENT = ("negative", "positive")

SST2 = _task(
    "sst2",
    "SST-2",
    _source(
        "SST-2", "sst2", Columns(text="sentence", label="label", id="index", names=_numbered(_SENTIMENT)), _SENTENCE
    ),
    licence="none stated by the authors; research use",
    url="https://nlp.stanford.edu/sentiment/",
    labels=_SENTIMENT,
    published=(92.32,),
)

_EQUIVALENT = ("not_equivalent", "equivalent")

MRPC = _task(
    "mrpc",
    "MRPC",
    _source(
        "MRPC",
        "mrpc",
        Columns(text="#1 String", text_pair="#2 String", label="Quality", id="index", names=_numbered(_EQUIVALENT)),
        _PAIR,
    ),
    licence="Microsoft Shared Source licence (not for commercial use)",
    url="https://www.microsoft.com/en-us/download/details.aspx?id=52398",
    labels=_EQUIVALENT,
    metrics=("accuracy", "f1"),
    published=(84.07, 88.85),
    how_to_get="download_glue_data.py of https://github.com/nyu-mll/GLUE-baselines makes the three files out of "
    "Microsoft's; put them into glue/MRPC/ of the data folder.",
)

STSB = _task(
    "stsb",
    "STS-B",
    _source(
        "STS-B",
        "stsb",
        Columns(text="sentence1", text_pair="sentence2", target="score", id="index"),
        Columns(text="sentence1", text_pair="sentence2", target="label", id="idx", unlabelled=-1.0),
    ),
    licence="differs by source corpus; free for research",
    url="https://ixa2.si.ehu.eus/stswiki",
    metrics=("pearson", "spearman"),
    published=(88.64, 88.48),
)

_DUPLICATE = ("not_duplicate", "duplicate")

QQP = _task(
    "qqp",
    "QQP",
    _source(
        "QQP",
        "qqp",
        Columns(text="question1", text_pair="question2", label="is_duplicate", id="id", names=_numbered(_DUPLICATE)),
        Columns(text="question1", text_pair="question2", label="label", id="idx"),
        torn=True,
    ),
    licence="Quora's terms of service (not for commercial use)",
    url="https://quoradata.quora.com/First-Quora-Dataset-Release-Question-Pairs",
    labels=_DUPLICATE,
    metrics=("accuracy", "f1"),
    published=(90.71, 87.49),
)


_PREMISE_AND_HYPOTHESIS = Columns(text="premise", text_pair="hypothesis", label="label", id="idx")


def _mnli(part: str, *splits: str) -> OfficialSource:
    """The splits of MNLI's matched or mismatched part."""
    reader = Tsv(Columns(text="sentence1", text_pair="sentence2", label="gold_label", id="index"))
    names = {"train": ("train", "train"), "dev": (f"dev_{part}", f"validation_{part}"), "test": (f"test_{part}",) * 2}
    return OfficialSource(
        {
            split: SplitFiles(
                (f"glue/MNLI/{names[split][0]}.tsv",),
                reader,
                Hub(_HUB, _PREMISE_AND_HYPOTHESIS, config="mnli", split=names[split][1]),
            )
            for split in splits
        }
    )


_MNLI_LICENCE = "OANC licence, CC BY 3.0 and CC BY-SA 3.0, by genre"

MNLI = _task(
    "mnli",
    "MNLI, matched",
    _mnli("matched", "train", "dev", "test"),
    licence=_MNLI_LICENCE,
    url="https://cims.nyu.edu/~sbowman/multinli/",
    labels=_NLI,
    published=(83.91,),
)

MNLI_MM = _task(
    "mnli-mm",
    "MNLI, mismatched",
    _mnli("mismatched", "dev", "test"),
    licence=_MNLI_LICENCE,
    url="https://cims.nyu.edu/~sbowman/multinli/",
    labels=_NLI,
    published=(84.10,),
    head="mnli",
)

QNLI = _task(
    "qnli",
    "QNLI",
    _source(
        "QNLI",
        "qnli",
        Columns(text="question", text_pair="sentence", label="label", id="index"),
        Columns(text="question", text_pair="sentence", label="label", id="idx"),
    ),
    licence="CC BY-SA 4.0",
    url="https://rajpurkar.github.io/SQuAD-explorer/",
    labels=_ENTAILMENT,
    published=(90.66,),
)

RTE = _task(
    "rte",
    "RTE",
    _source("RTE", "rte", Columns(text="sentence1", text_pair="sentence2", label="label", id="index"), _PAIR),
    licence="none stated by the authors; research use",
    url="https://gluebenchmark.com/tasks",
    labels=_ENTAILMENT,
    published=(65.70,),
)

_ENTAILED = ("not_entailment", "entailment")

WNLI = _task(
    "wnli",
    "WNLI",
    _source(
        "WNLI",
        "wnli",
        Columns(text="sentence1", text_pair="sentence2", label="label", id="index", names=_numbered(_ENTAILED)),
        _PAIR,
    ),
    licence="CC BY 4.0",
    url="https://cs.nyu.edu/~davise/papers/WinogradSchemas/WS.html",
    labels=_ENTAILED,
    published=(56.34,),
)


def diagnostic(card: TaskCard, row: Row, index: int) -> Example:
    """A row of diagnostic-full.tsv, or of diagnostic.tsv, which has no labels; a `RowMapper`."""
    if "Premise" in row:
        return Columns(text="Premise", text_pair="Hypothesis", label="Label")(card, row, index)
    return Columns(text="sentence1", text_pair="sentence2", id="index")(card, row, index)


AX = _task(
    "ax",
    "GLUE diagnostics",
    OfficialSource(
        {
            "test": SplitFiles(
                ("glue/diagnostic/diagnostic-full.tsv|glue/diagnostic/diagnostic.tsv",),
                Tsv(diagnostic),
                Hub(_HUB, _PREMISE_AND_HYPOTHESIS, config="ax"),
            )
        }
    ),
    licence="none stated by the authors; research use",
    url="https://gluebenchmark.com/diagnostics",
    labels=_NLI,
    metrics=("matthews",),
    eval_split="test",
    head="mnli",
    how_to_get="diagnostic-full.tsv is linked on https://gluebenchmark.com/diagnostics (without it, or from the hub, "
    "there are no labels); put it into glue/diagnostic/ of the data folder.",
)

SUITE = Suite(
    name="glue",
    title="GLUE",
    tasks=(COLA, SST2, MRPC, STSB, QQP, MNLI, MNLI_MM, QNLI, RTE, WNLI, AX),
    averaged=(
        ("cola",),
        ("sst2",),
        ("mrpc",),
        ("stsb",),
        ("qqp",),
        ("mnli", "mnli-mm"),
        ("qnli",),
        ("rte",),
        ("wnli",),
    ),
)
