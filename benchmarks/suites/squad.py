"""SQuAD 1.1 and 2.0 (arXiv 1606.05250, 1806.03822) and SQuADShifts (arXiv 2004.14444): answers as spans of a text."""

from __future__ import annotations

from benchmarks.hub import Hub
from benchmarks.readers.squad import Question, SquadJson
from benchmarks.sources import OfficialSource, SplitFiles
from benchmarks.task import Kind, Suite, Task, TaskCard


def span_card(name: str, suite: str, languages: tuple[str, ...] = ("en",), no_answer: bool = False) -> TaskCard:
    """The card of a task in SQuAD's format, with the windows of its paper's baselines: 384 pieces, 128 shared."""
    return TaskCard(
        name=name,
        suite=suite,
        kind=Kind.SPAN,
        languages=languages,
        metrics=("f1", "em"),
        max_length=384,
        stride=128,
        no_answer=no_answer,
    )


def _squad(name: str, title: str, version: str, hub: Hub) -> Task:
    return Task(
        card=span_card(name, "squad", no_answer=version == "2.0"),
        source=OfficialSource(
            {split: SplitFiles((f"squad/{split}-v{version}.json",), SquadJson(), hub) for split in ("train", "dev")}
        ),
        title=title,
        licence="CC BY-SA 4.0",
        url="https://rajpurkar.github.io/SQuAD-explorer/",
        how_to_get=f"{{train,dev}}-v{version}.json are linked on https://rajpurkar.github.io/SQuAD-explorer/; "
        "put them into squad/ of the data folder.",
    )


SQUAD = _squad("squad", "SQuAD 1.1", "1.1", Hub("rajpurkar/squad", Question()))
SQUAD2 = _squad("squad2", "SQuAD 2.0", "2.0", Hub("rajpurkar/squad_v2", Question(unanswerable=True)))

SQUADSHIFTS = Task(
    card=span_card("squadshifts", "squad"),
    source=OfficialSource(
        {
            "train": SplitFiles(("squad/squadshifts/new_wiki_v1.0.json",), SquadJson()),
            "test": SplitFiles(("squad/squadshifts/amazon_reviews_v1.0.json",), SquadJson()),
        }
    ),
    title="SQuADShifts, from new Wikipedia articles to Amazon reviews",
    licence="CC BY 4.0",
    url="https://modestyachts.github.io/squadshifts-website/",
    how_to_get="The files are linked on https://modestyachts.github.io/squadshifts-website/; "
    "put them into squad/squadshifts/ of the data folder.",
    eval_split="test",
)

SUITE = Suite(name="squad", title="SQuAD", tasks=(SQUAD, SQUAD2, SQUADSHIFTS), categories={})
