"""Metrics against golden values worked out by hand, slow independent loops and peer libraries."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import seqeval.metrics

from benchmarks.errors import PolypromptError
from benchmarks.metrics.answers import normalise
from benchmarks.metrics.chrf import UNSPACED
from benchmarks.metrics.tags import chunk_f1
from benchmarks.records import Prediction, Value
from benchmarks.results import ResultRecord
from benchmarks.scoring import METRICS, average, chance, gap, score, signatures
from benchmarks.suites import glue, squad, xcopa, xtreme
from benchmarks.suites.conll import CONLL04
from benchmarks.suites.superglue import COPA
from benchmarks.task import Kind, Suite, Task, TaskCard


def rows(gold: Sequence[Value | None], predicted: Sequence[Value]) -> list[Prediction]:
    return [Prediction(str(i), value, right) for i, (right, value) in enumerate(zip(gold, predicted, strict=True))]


def card(kind: Kind, *metrics: str, labels: tuple[str, ...] = ()) -> TaskCard:
    return TaskCard(name="t", suite="s", kind=kind, metrics=metrics, labels=labels)


# --- labels and numbers ---------------------------------------------------------------------------------------------


def test_accuracy_counts_labelled_rows_only() -> None:
    predictions = rows(["a", "b", None, "a"], ["a", "a", "b", "a"])
    assert score(card(Kind.CLASSIFICATION, "accuracy"), predictions) == {"accuracy": pytest.approx(200 / 3)}
    assert chance(card(Kind.CLASSIFICATION, "accuracy"), predictions) == {"accuracy": pytest.approx(200 / 3)}


def test_choice() -> None:
    predictions = rows(["0", "1", "1", "1"], ["0", "0", "1", "0"])
    assert score(COPA.card, predictions) == {"accuracy": 50.0}
    assert chance(COPA.card, predictions) == {"accuracy": 75.0}


def test_correlations_by_their_formula() -> None:
    draw = np.random.default_rng(3)
    gold = draw.integers(0, 6, 200).astype(float)  # many ties
    predicted = np.round(gold + draw.normal(0, 2, 200), 1)

    def pearson(x: np.ndarray, y: np.ndarray) -> float:
        x, y = x - x.mean(), y - y.mean()
        return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))

    def ranks(x: np.ndarray) -> np.ndarray:  # ties share the mean of their ranks
        return np.array([(x < value).sum() + ((x == value).sum() + 1) / 2 for value in x])

    found = score(glue.STSB.card, rows(gold.tolist(), predicted.tolist()))
    assert list(found) == ["pearson", "spearman"]
    assert found["pearson"] == pytest.approx(100 * pearson(gold, predicted), abs=1e-9)
    assert found["spearman"] == pytest.approx(100 * pearson(ranks(gold), ranks(predicted)), abs=1e-9)


def test_correlation_of_a_constant_is_zero() -> None:
    predictions = rows([1.0, 2.0, 4.5], [3.0, 3.0, 3.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score(glue.STSB.card, predictions) == {"pearson": 0.0, "spearman": 0.0}
        assert score(glue.STSB.card, rows([1.0], [1.0])) == {"pearson": 0.0, "spearman": 0.0}
        assert chance(glue.STSB.card, predictions) == {"pearson": 0.0, "spearman": 0.0}


# --- tags -----------------------------------------------------------------------------------------------------------

CHUNKS = [  # gold, predicted, right chunks, gold chunks, predicted chunks: by the rules of conlleval.pl
    ("O I-PER O", "O B-PER O", 1, 1, 1),  # an I- after O begins a chunk
    ("B-PER I-PER", "B-PER I-LOC", 0, 1, 2),  # another type begins a chunk
    ("B-PER I-PER", "I-PER I-PER", 1, 1, 1),
    ("B-PER I-PER", "B-PER B-PER", 0, 1, 2),  # a B- always begins a chunk
    ("B-PER B-PER", "I-PER I-PER", 0, 2, 1),
    ("I-PER I-LOC O", "B-PER B-LOC O", 2, 2, 2),
    ("B-PER I-PER O B-LOC", "B-PER O O B-LOC", 1, 2, 2),  # a part of a chunk is no chunk
    ("O O", "O O", 0, 0, 0),
    ("O O", "O B-LOC", 0, 0, 1),
]


@pytest.mark.parametrize(("gold", "predicted", "right", "in_gold", "in_predicted"), CHUNKS)
def test_chunk_f1_golden(gold: str, predicted: str, right: int, in_gold: int, in_predicted: int) -> None:
    expected = 100 * 2 * right / (in_gold + in_predicted) if right else 0.0
    predictions = rows([tuple(gold.split())], [tuple(predicted.split())])
    assert score(card(Kind.TAGGING, "f1"), predictions) == {"f1": pytest.approx(expected)}


def test_chunks_end_with_their_sentence() -> None:
    gold = [("O", "B-PER"), ("I-PER", "O")]
    assert score(card(Kind.TAGGING, "f1"), rows(gold, [("O", "B-PER"), ("B-PER", "O")])) == {"f1": 100.0}


TAG_SETS = [
    CONLL04.card.labels,
    xtreme.UDPOS.card.labels,
    ("O", "B-A", "I-A", "E-A", "S-A", "B-B", "I-B", "E-B", "S-B", "B-A-B"),
]


@pytest.mark.parametrize("tags", TAG_SETS, ids=["bio", "upos", "bioes"])
@pytest.mark.filterwarnings("ignore:.*seems not to be NE tag")
def test_chunk_f1_is_seqevals(tags: tuple[str, ...]) -> None:
    draw = random.Random(5)
    for _ in range(60):
        gold = [draw.choices(tags, k=draw.randint(1, 9)) for _ in range(draw.randint(1, 12))]
        predicted = [[tag if draw.random() < 0.7 else draw.choice(tags) for tag in row] for row in gold]
        expected = seqeval.metrics.f1_score(gold, predicted, zero_division=0)
        assert chunk_f1(gold, predicted) == pytest.approx(expected, abs=1e-12)


def test_udpos_reports_accuracy_and_the_number_that_seqeval_makes_of_it() -> None:
    # seqeval reads CCONJ and SCONJ as one type, and neighbours of one type as one chunk
    predictions = rows([("CCONJ", "NOUN", "NOUN")], [("SCONJ", "NOUN", "VERB")])
    found = score(xtreme.UDPOS.card, predictions)
    assert list(found) == ["accuracy", "f1_seqeval"]
    assert found == {"accuracy": pytest.approx(100 / 3), "f1_seqeval": pytest.approx(100 * 2 / 5)}


def test_token_accuracy_is_over_tokens_not_sentences() -> None:
    predictions = rows([("X",), ("X", "X", "X")], [("X",), ("NOUN", "NOUN", "X")])
    assert score(card(Kind.TAGGING, "accuracy"), predictions) == {"accuracy": 50.0}


@pytest.mark.filterwarnings("ignore:.*seems not to be NE tag")
def test_chance_of_tags_tries_every_constant_for_each_metric() -> None:
    draw = random.Random(1)
    labels = ("O", "B-A", "I-A", "NOUN", "SYM")
    gold = [draw.choices(labels, weights=(6, 2, 1, 3, 2), k=draw.randint(1, 6)) for _ in range(40)]
    tagger = card(Kind.TAGGING, "f1", "accuracy", labels=labels)
    found = chance(tagger, rows([tuple(row) for row in gold], [tuple(row) for row in gold]))
    constants = [[[tag] * len(row) for row in gold] for tag in labels]
    by_seqeval = [seqeval.metrics.f1_score(gold, constant, zero_division=0) for constant in constants]
    flat = [tag for row in gold for tag in row]
    assert found["f1"] == pytest.approx(100 * max(by_seqeval))
    assert found["accuracy"] == pytest.approx(100 * max(flat.count(tag) for tag in labels) / len(flat))
    assert 0 < found["f1"] < 100


# --- answers --------------------------------------------------------------------------------------------------------

ANSWERS = [  # gold, predicted, F1, exact: by evaluate-v1.1.py
    (("Denver Broncos",), "the Denver Broncos!", 1, 1),  # articles and punctuation do not count
    (("the Denver Broncos",), "Denver  broncos", 1, 1),
    (("Denver Broncos",), "Denver", 2 / 3, 0),  # precision 1, recall 1/2
    (("gold", "a gold anniversary"), "golden anniversary", 1 / 2, 0),  # the best of all accepted answers
    (("a b c",), "b b d", 2 * (1 / 3 * 1 / 2) / (1 / 3 + 1 / 2), 0),  # "a" is an article; one "b" is shared
    (("b b c",), "b b d", 2 / 3, 0),  # two words are shared
    (("U.S.",), "us", 1, 1),  # punctuation is cut out, not replaced
    (("anthem",), "an them", 0, 0),  # articles are whole words
    (("twenty-one",), "twenty one", 0, 0),
    (("Ünïcode «x»",), "ünïcode «x»", 1, 1),
    (("北京 大学",), "北京大学", 0, 0),  # words are what blanks divide, in every language
    (("x",), "", 0, 0),
    (("the",), "a", 0, 1),  # nothing is left of both: version 1.1 calls this exact, with F1 0
]


@pytest.mark.parametrize(("gold", "predicted", "f1", "exact"), ANSWERS)
def test_squad_1_golden(gold: tuple[str, ...], predicted: str, f1: float, exact: float) -> None:
    found = score(squad.SQUAD.card, rows([gold], [predicted]))
    assert list(found) == ["f1", "em"]
    assert found == {"f1": pytest.approx(100 * f1), "em": 100 * exact}


UNANSWERABLE = [  # by evaluate-v2.0.py
    ((), "", 1, 1),
    ((), "something", 0, 0),
    ((), "the", 1, 1),  # nothing is left of it
    (("some",), "", 0, 0),
    (("the",), "", 1, 1),  # an accepted answer of which nothing is left does not count
    (("the", "some"), "a", 0, 0),
]


@pytest.mark.parametrize(("gold", "predicted", "f1", "exact"), UNANSWERABLE)
def test_squad_2_golden(gold: tuple[str, ...], predicted: str, f1: float, exact: float) -> None:
    beside = ((), "wrong")  # one unanswerable question makes the set a version 2.0 one
    found = score(squad.SQUAD2.card, rows([gold, beside[0]], [predicted, beside[1]]))
    assert (found["f1_official"], found["em_official"]) == (pytest.approx(50 * f1), 50 * exact)
    part = "unanswerable" if not gold else "answerable"
    assert found[f"em_{part}"] == pytest.approx(100 * exact if gold else 50 * exact)
    assert ("f1_answerable" in found) == bool(gold)


def doubtful(gold: tuple[str, ...], best: str, doubt: float, threshold: float) -> Prediction:
    return Prediction(f"{gold}{best}{doubt}", best if doubt <= threshold else "", gold, (0.5, doubt), best)


def test_squad_2_at_the_chosen_threshold_and_at_zero() -> None:
    predictions = [
        doubtful(("a b",), "a b", 1.5, 2.0),  # given at 2, not at 0
        doubtful(("c d",), "c x", -1.0, 2.0),
        doubtful((), "e", 1.0, 2.0),
        doubtful((), "f", 3.0, 2.0),
    ]
    assert score(squad.SQUAD2.card, predictions) == {
        "f1_official": pytest.approx(100 * (1 + 0.5 + 0 + 1) / 4),
        "em_official": 50.0,
        "f1_paper": pytest.approx(100 * (0 + 0.5 + 1 + 1) / 4),
        "em_paper": 50.0,
        "f1_answerable": pytest.approx(100 * (1 + 0.5) / 2),
        "em_answerable": 50.0,
        "em_unanswerable": 50.0,
    }
    assert not {"f1_paper", "em_paper"} & set(
        score(squad.SQUAD2.card, rows([("x",)], ["x"]))
    )  # only the answer is told


def test_normalise_by_a_slow_loop() -> None:
    draw = random.Random(2)
    pieces = [
        "a",
        "an",
        "the",
        "The",
        "theme",
        "x",
        "É",
        "！",
        "-",
        "'s",
        ".",
        ",",
        " ",
        "\u00a0",
        "\t",
        "中",
        "_a_",
        "7",
    ]
    for _ in range(2_000):
        text = "".join(draw.choices(pieces, k=draw.randint(0, 9)))
        kept = "".join(
            c for c in text.lower() if not (c.isascii() and c.isprintable() and not c.isalnum() and c != " ")
        )
        cut = re.sub(r"(?<!\w)(?:a|an|the)(?!\w)", " ", kept)
        assert normalise(text) == " ".join(cut.split())


def test_chance_of_answers_is_to_have_none() -> None:
    predictions = rows([(), ("x",), ("y",), ()], ["z", "x", "", ""])
    found = chance(squad.SQUAD2.card, predictions)
    assert (found["f1_official"], found["em_paper"]) == (50.0, 50.0)
    assert (found["em_answerable"], found["em_unanswerable"]) == (0.0, 100.0)
    assert chance(squad.SQUAD.card, predictions[1:3]) == {"f1": 0.0, "em": 0.0}


MLQA = [  # language, gold, predicted, F1, exact: by mlqa_evaluation_v1.py
    ("en", "the Denver Broncos", "Denver Broncos!", 1, 1),
    ("en", "die Broncos", "Broncos", 2 / 3, 0),  # articles are those of the language
    ("de", "die Broncos", "Broncos", 1, 1),
    ("de", "das „Haus“", "Haus", 1, 1),  # marks of every script are cut out
    ("es", "¿las casas?", "unas casas", 1, 1),
    ("vi", "những con chó", "con mèo", 1 / 2, 0),
    ("hi", "घर।", "घर", 1, 1),
    ("ar", "الكتاب", "كتاب", 1, 1),
    ("ar", "مالي", "م ي", 1, 1),  # the letters of the article are cut out inside of words, too
    ("zh", "北京大学", "北京 大學", 3 / 4, 0),  # characters are words
    ("zh", "GDP增长", "gdp 增长", 1, 1),
    ("zh", "GDP增长", "GD增长", 2 / 3, 0),  # a run of other letters is one word
    ("zh", "大学北京", "北京大学", 1, 0),
    ("de", "die", "der", 0, 1),  # nothing is left of both
]


@pytest.mark.parametrize(("language", "gold", "predicted", "f1", "exact"), MLQA)
def test_mlqa_golden(language: str, gold: str, predicted: str, f1: float, exact: float) -> None:
    found = score(xtreme.MLQA.card, rows([(gold,), ("x", "y z")], [predicted, "y"]), language)
    assert found["f1_mlqa"] == pytest.approx(100 * (f1 + 2 / 3) / 2)
    assert found["em_mlqa"] == 50 * exact


def test_mlqa_has_rules_for_its_languages_alone() -> None:
    with pytest.raises(
        PolypromptError, match="the rules of MLQA are for ar, de, en, es, hi, vi, zh; 'ja' needs another"
    ):
        score(xtreme.MLQA.card, rows([("x",)], ["x"]), "ja")


def test_characters_by_hand() -> None:
    card_ja = card(Kind.SPAN, "f1_characters")
    assert score(card_ja, rows([("東京 大学",)], ["京 大阪"]), "ja") == {"f1_characters": pytest.approx(100 * 4 / 7)}
    assert score(card_ja, rows([("a",), ()], ["", ""]), "ja") == {"f1_characters": 50.0}


def chrf_by_hand(right: str, given: str) -> float:
    """chrF2 of sacrebleu: mean precision and recall over the n-grams that both texts are long enough for."""
    right, given = "".join(right.split()), "".join(given.split())
    precision, recall = [], []
    for n in range(1, 7):
        wanted = [right[i : i + n] for i in range(len(right) - n + 1)]
        found = [given[i : i + n] for i in range(len(given) - n + 1)]
        if wanted and found:
            left, both = list(wanted), 0
            for gram in found:
                if gram in left:
                    left.remove(gram)
                    both += 1
            precision.append(both / len(found))
            recall.append(both / len(wanted))
    if not precision or not any(precision):
        return 0.0
    p, r = sum(precision) / len(precision), sum(recall) / len(recall)
    return 5 * p * r / (4 * p + r)


def test_chrf_by_a_slow_loop() -> None:
    draw = random.Random(4)
    letters = "北京大学 abAB。"
    gold = [
        tuple("".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(draw.randint(1, 3)))
        for _ in range(80)
    ]
    given = ["".join(draw.choices(letters, k=draw.randint(0, 9))) for _ in gold]
    gold[0], given[0] = ("北京",), "北京"
    gold[1], given[1] = ("北京",), ""
    expected = [
        max(chrf_by_hand(right, answer) for right in answers) for answers, answer in zip(gold, given, strict=True)
    ]
    assert expected[:2] == [1.0, 0.0] and len(set(expected)) > 30
    for language in ("zh", "zh-Hant", "ja", "th"):
        found = score(card(Kind.SPAN, "f1", "chrf"), rows(gold, given), language)
        assert found["chrf"] == pytest.approx(100 * sum(expected) / len(expected), abs=1e-9)
    assert score(card(Kind.SPAN, "chrf"), rows([(), ()], ["", "x"]), "zh") == {"chrf": 50.0}  # no answer is wanted


def test_chrf_is_for_languages_without_blanks() -> None:
    asked = card(Kind.SPAN, "f1", "chrf"), rows([("a",)], ["a"])
    assert score(*asked, "de") == {"f1": 0.0}  # "a" is an article
    assert signatures(*asked, "de") == {}
    assert signatures(*asked, "zh") == {
        "chrf": f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version('sacrebleu')}"
    }


def test_every_answer_metric_is_a_mean_over_the_rows_that_it_counts() -> None:
    """The bootstrap takes them so: row by row, a row that is not counted is left out."""
    draw = random.Random(6)
    words = "北 京 the x y z".split()
    predictions = []
    for number in range(60):
        gold = tuple(" ".join(draw.choices(words, k=2)) for _ in range(draw.randint(0, 2)))
        best, doubt = " ".join(draw.choices(words, k=2)), draw.gauss(0, 1)
        predictions.append(Prediction(str(number), best if doubt < 0.3 else "", gold, (0.5, doubt), best))
    names = [name for name in METRICS[Kind.SPAN] if name not in ("f1", "em")]
    asked = card(Kind.SPAN, *names).model_copy(update={"no_answer": True})
    whole = score(asked, predictions, "zh")
    assert list(whole) == names
    for name, value in whole.items():
        alone = [score(asked, [row], "zh").get(name) for row in predictions]
        counted = [one for one in alone if one is not None]
        assert value == pytest.approx(sum(counted) / len(counted))
        assert (len(counted) < len(alone)) == ("answerable" in name)


# --- retrieval ------------------------------------------------------------------------------------------------------


def test_retrieval_by_a_loop() -> None:
    draw = np.random.default_rng(0)
    queries, candidates = draw.normal(size=(20, 8)), draw.normal(size=(30, 8))
    gold = draw.integers(0, 30, 20)
    queries += 1.5 * candidates[gold]
    right, predictions = 0, []
    for index, query in enumerate(queries):
        best, nearest = -2.0, -1
        for row, candidate in enumerate(candidates):
            cosine = sum(a * b for a, b in zip(query, candidate, strict=True)) / np.sqrt(
                sum(a * a for a in query) * sum(b * b for b in candidate)
            )
            if cosine > best:
                best, nearest = cosine, row
        right += nearest == gold[index]
        predictions.append(Prediction(str(index), str(nearest), str(gold[index]), (best, 30.0)))
    assert 0 < right < 20
    assert score(xtreme.TATOEBA.card, predictions) == {"accuracy": pytest.approx(100 * right / 20)}
    assert chance(xtreme.TATOEBA.card, predictions) == {"accuracy": pytest.approx(100 / 30)}


def test_mined_pairs() -> None:
    gold = ["t1", "t2", "", "", "t5"]
    predictions = rows(gold, ["t1", "t9", "t2", "t7", ""])
    # 1 of 4 given pairs is right, and 1 of 3 right ones is given
    assert score(xtreme.BUCC2018.card, predictions) == {"f1": pytest.approx(100 * 2 / (4 + 3))}
    assert score(xtreme.BUCC2018.card, rows(gold, gold)) == {"f1": 100.0}
    assert score(xtreme.BUCC2018.card, rows(["", ""], ["", ""])) == {"f1": 0.0}
    assert chance(xtreme.BUCC2018.card, predictions) == {"f1": 0.0}


# --- what cannot be scored ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [score, chance])
@pytest.mark.parametrize(
    ("task", "predictions", "words"),
    [
        (glue.SST2, [], "none of 0 rows is labelled"),
        (glue.SST2, rows([None, None], ["positive", "negative"]), "none of 2 rows is labelled"),
        (CONLL04, rows([("O", "O")], [("O",)]), "prediction '0'"),
        (CONLL04, rows([("O",)], ["O"]), "prediction '0'"),
        (glue.STSB, rows([1.0, 2.0], [1.0, float("nan")]), "prediction '1'"),
        (glue.STSB, rows([1.0], ["1.0"]), "prediction '0'"),
        (squad.SQUAD, rows(["x"], ["x"]), "prediction '0'"),
        (glue.SST2, rows([1.0], ["positive"]), "prediction '0'"),
    ],
)
def test_refused(of: type, task: Task, predictions: list[Prediction], words: str) -> None:
    with pytest.raises(PolypromptError, match=f"{task.name}: .*{words}"):
        of(task.card, predictions)


def test_unknown_metric() -> None:
    with pytest.raises(PolypromptError, match="no metric 'bleu' for classification; there are accuracy"):
        score(card(Kind.CLASSIFICATION, "bleu"), rows(["a"], ["a"]))


def test_every_metric_is_explained() -> None:
    text = (Path(__file__).parents[1] / "docs/metrics.md").read_text(encoding="utf-8")
    assert [name for metrics in METRICS.values() for name in metrics if f"`{name}`" not in text] == []
    *most, last = sorted(UNSPACED)
    assert f"for {', '.join(most)} and {last} alone" in " ".join(text.split())


def test_retrieval_needs_the_number_of_candidates() -> None:
    with pytest.raises(PolypromptError, match="prediction '0' does not say among how many"):
        chance(xtreme.TATOEBA.card, rows(["1"], ["1"]))


# --- averages -------------------------------------------------------------------------------------------------------


def record(task: Task, language: str, scores: dict[str, float], split: str | None = None) -> ResultRecord:
    return ResultRecord(
        task=task.name,
        suite=task.card.suite,
        language=language,
        split=split or task.eval_split,
        examples=1,
        limited=False,
        scores=scores,
        chance={},
        predictions="",
        sha256="",
    )


THREE = Suite("glue", "", (glue.SST2, glue.STSB, glue.RTE))


def test_the_metrics_of_a_task_are_averaged_first() -> None:
    records = [
        record(glue.SST2, "en", {"accuracy": 90.0}),
        record(glue.SST2, "en", {"accuracy": 1.0}, split="train"),
        record(glue.STSB, "en", {"pearson": 80.0, "spearman": 70.0}),
        record(glue.RTE, "en", {"accuracy": 60.0}),
        record(squad.SQUAD, "en", {"f1": 0.0, "em": 0.0}),
    ]
    assert average(THREE, records) == {"average": pytest.approx((90 + 75 + 60) / 3)}
    assert average(THREE, records[:3]) == {"average": None}
    assert average(THREE, []) == {"average": None}


def spread(task: Task, scores: dict[str, float]) -> list[ResultRecord]:
    """Records whose mean over the languages is as given, languages a point apart."""
    middle = (len(task.card.languages) - 1) / 2
    return [
        record(task, language, {name: value + number - middle for name, value in scores.items()})
        for number, language in enumerate(task.card.languages)
    ]


def test_xtreme_averages_languages_then_categories_and_all_tasks() -> None:
    records = [
        *spread(xtreme.XNLI, {"accuracy": 50.0}),
        *spread(xtreme.PAWSX, {"accuracy": 80.0}),
        *spread(xtreme.UDPOS, {"accuracy": 99.0, "f1_seqeval": 60.0}),  # XTREME counts seqeval's number
        *spread(xtreme.PANX, {"f1": 40.0}),
        *spread(xtreme.XQUAD, {"f1": 40.0, "em": 20.0, "chrf": 99.0}),
        *spread(xtreme.MLQA, {"f1_mlqa": 50.0, "em_mlqa": 30.0, "chrf": 99.0}),
        *spread(xtreme.TYDIQA, {"f1": 60.0, "em": 40.0}),
        *spread(xtreme.BUCC2018, {"f1": 10.0}),
        *spread(xtreme.TATOEBA, {"accuracy": 70.0}),
    ]
    tasks = {"classification": 65.0, "structured": 50.0, "qa": 40.0, "retrieval": 40.0}
    found = average(xtreme.SUITE, records)
    assert found == pytest.approx(tasks | {"average": (50 + 80 + 60 + 40 + 30 + 40 + 50 + 10 + 70) / 9})
    # one language less: neither that category nor the whole has an average
    assert average(xtreme.SUITE, records[1:]) == pytest.approx(tasks | {"classification": None, "average": None})


def test_the_average_is_over_tasks_not_categories() -> None:
    suite = Suite("glue", "", THREE.tasks, {"single": ("sst2",), "pairs": ("stsb", "rte")})
    records = [
        record(glue.SST2, "en", {"accuracy": 90.0}),
        record(glue.STSB, "en", {"pearson": 30.0, "spearman": 30.0}),
        record(glue.RTE, "en", {"accuracy": 60.0}),
    ]
    assert average(suite, records) == {"single": 90.0, "pairs": 45.0, "average": 60.0}


def test_gap_is_what_is_lost_in_transfer() -> None:
    records = [record(xtreme.PAWSX, language, {"accuracy": 80.0}) for language in xtreme.PAWSX.card.languages]
    assert gap(xtreme.PAWSX, records) == pytest.approx(0.0)
    german, english = (xtreme.PAWSX.card.languages.index(language) for language in ("de", "en"))
    records[english] = record(xtreme.PAWSX, "en", {"accuracy": 95.0})
    records[german] = record(xtreme.PAWSX, "de", {"accuracy": 86.0})
    records.append(record(xtreme.PAWSX, "de", {"accuracy": 0.0}, split="dev"))
    assert gap(xtreme.PAWSX, records) == pytest.approx(95 - (86 + 5 * 80) / 6)
    for missing in (german, english):
        assert gap(xtreme.PAWSX, records[:missing] + records[missing + 1 :]) is None


def test_gap_of_several_metrics_and_of_one() -> None:
    records = [
        record(xtreme.XQUAD, language, {"f1": 40.0, "em": 20.0} | ({"chrf": 99.0} if language in ("th", "zh") else {}))
        for language in xtreme.XQUAD.card.languages
        if language != "en"
    ]
    records.append(record(xtreme.XQUAD, "en", {"f1": 80.0, "em": 70.0}))
    assert gap(xtreme.XQUAD, records) == pytest.approx(75 - 30)
    assert gap(xtreme.XQUAD, records, "em") == pytest.approx(50)
    assert gap(xtreme.XQUAD, records, "chrf") is None  # not for every language


def test_no_gap_without_a_training_language() -> None:
    assert gap(xtreme.TATOEBA, spread(xtreme.TATOEBA, {"accuracy": 70.0})) is None
    assert gap(squad.SQUAD, [record(squad.SQUAD, "en", {"f1": 1.0, "em": 1.0})]) is None  # no other language
    assert gap(xcopa.XCOPA, spread(xcopa.XCOPA, {"accuracy": 60.0})) is None  # not scored in English
