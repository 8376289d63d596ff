"""SQuAD (arXiv 1606.05250, 1806.03822) and other sets of its form: answers as spans of a text."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.hub import Hub
from benchmarks.readers.squad import Question, SquadJson
from benchmarks.sources import OfficialSource, SplitFiles
from benchmarks.task import Kind, Published, Suite, Task, TaskCard

_PTUNING = "github.com/THUDM/P-tuning-v2, README, released results; the best epoch on this split"


def span_card(
    name: str,
    suite: str,
    languages: tuple[str, ...] = ("en",),
    metrics: tuple[str, ...] = ("f1", "em"),
    train_language: str = "en",
    no_answer: bool = False,
    head: str = "",
) -> TaskCard:
    """The card of a task in SQuAD's form, with the windows of its paper's baselines: 384 pieces, 128 shared."""
    return TaskCard(
        name=name,
        suite=suite,
        kind=Kind.SPAN,
        languages=languages,
        train_language=train_language,
        metrics=metrics,
        max_length=384,
        stride=128,
        no_answer=no_answer,
        head=head,
    )


def _squad(version: str, card: TaskCard, hub: Hub, published: Sequence[tuple[str, float]]) -> Task:
    return Task(
        card=card,
        source=OfficialSource(
            {split: SplitFiles((f"squad/{split}-v{version}.json",), SquadJson(), hub) for split in ("train", "dev")}
        ),
        title=f"SQuAD {version}",
        licence="CC BY-SA 4.0",
        url="https://rajpurkar.github.io/SQuAD-explorer/",
        how_to_get=f"{{train,dev}}-v{version}.json are linked on https://rajpurkar.github.io/SQuAD-explorer/; "
        "put them into squad/ of the data folder.",
        averaged=card.metrics[:2],
        published=tuple(
            Published("P-Tuning v2", "RoBERTa-large", metric, value, "dev", _PTUNING) for metric, value in published
        ),
    )


SQUAD = _squad("1.1", span_card("squad", "squad"), Hub("rajpurkar/squad", Question()), (("f1", 94.2), ("em", 88.1)))

SQUAD2 = _squad(
    "2.0",
    span_card(
        "squad2",
        "squad",
        metrics=(
            "f1_official",
            "em_official",
            "f1_paper",
            "em_paper",
            "f1_answerable",
            "em_answerable",
            "em_unanswerable",
        ),
        no_answer=True,
    ),
    Hub("rajpurkar/squad_v2", Question(unanswerable=True)),
    (("f1_paper", 84.7), ("em_paper", 81.3)),
)


def _shifts(card: TaskCard, title: str, **files: str) -> Task:
    return Task(
        card=card,
        source=OfficialSource(
            {split: SplitFiles((f"squad/squadshifts/{file}_v1.0.json",), SquadJson()) for split, file in files.items()}
        ),
        title=title,
        licence="CC BY 4.0",
        url="https://modestyachts.github.io/squadshifts-website/",
        how_to_get="The files are linked on https://modestyachts.github.io/squadshifts-website/; "
        "put them into squad/squadshifts/ of the data folder.",
        eval_split="test",
    )


SQUADSHIFTS = _shifts(
    span_card("squadshifts", "squad"),
    "SQuADShifts, from new Wikipedia articles to Amazon reviews",
    train="new_wiki",
    test="amazon_reviews",
)

# How SQuADShifts is meant: trained on SQuAD, scored elsewhere. Its Wikipedia part is what the task above learns from.
FROM_SQUAD = tuple(
    _shifts(span_card(f"squadshifts-{name}", "squad", head="squad"), f"SQuADShifts, from SQuAD to {title}", test=file)
    for name, title, file in (
        ("nyt", "New York Times articles", "nyt"),
        ("reddit", "Reddit comments", "reddit"),
        ("amazon", "Amazon reviews", "amazon_reviews"),
    )
)

JAQUAD = Task(
    card=span_card("jaquad", "squad", ("ja",), ("f1_characters", "em", "f1", "chrf"), train_language="ja"),
    source=OfficialSource(
        {
            split: SplitFiles(
                tuple(f"squad/jaquad/{split}/jaquad_{split}_{number:04}.json" for number in range(count)), SquadJson()
            )
            for split, count in (("train", 30), ("dev", 4))
        }
    ),
    title="JaQuAD",
    licence="CC BY-SA 3.0",
    url="https://github.com/SkelterLabsInc/JaQuAD",
    how_to_get="data/ of https://github.com/SkelterLabsInc/JaQuAD is squad/jaquad/ of the data folder.",
    averaged=("f1_characters", "em"),
    published=(
        Published("fine-tuning", "BERT-Japanese", "f1_characters", 77.35, "dev", "github.com/SkelterLabsInc/JaQuAD"),
    ),
)

CMRC2018 = Task(
    card=span_card("cmrc2018", "squad", ("zh",), ("f1_mlqa", "em_mlqa", "f1", "em", "chrf"), train_language="zh"),
    source=OfficialSource(
        {
            split: SplitFiles((f"squad/cmrc2018/cmrc2018_{split}.json",), SquadJson(Question(misplaced=True)))
            for split in ("train", "dev")
        }
    ),
    title="CMRC 2018",
    licence="CC BY-SA 4.0",
    url="https://github.com/ymcui/cmrc2018",
    how_to_get="squad-style-data/ of https://github.com/ymcui/cmrc2018 is squad/cmrc2018/ of the data folder.",
    averaged=("f1_mlqa", "em_mlqa"),
)

SUITE = Suite(
    name="squad", title="SQuAD and its kin", tasks=(SQUAD, SQUAD2, SQUADSHIFTS, *FROM_SQUAD, JAQUAD, CMRC2018)
)
