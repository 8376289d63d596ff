"""Published runs and their summary: nothing of the data's text, the same numbers, and means as loops compute them."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_runs import WORDS, write_run

from benchmarks.errors import PolypromptError
from benchmarks.records import Prediction
from benchmarks.registry import find_suite, find_task
from benchmarks.results import Manifest, Results, read_model, read_predictions, write_predictions
from benchmarks.scoring import chance, score
from benchmarks.task import Kind, TaskCard
from leaderboard import distil, summary
from leaderboard.build import build
from leaderboard.examples import Drilldown
from leaderboard.runs import read_run
from leaderboard.tables import make_board
from leaderboard.veil import is_veiled, veiled, veiled_card

ROOT = Path(__file__).parents[1]
SPLITS = {task.name: task.eval_split for task in find_suite("glue").tasks}
RTE, STSB, COLA = (find_task(name).card for name in ("rte", "stsb", "cola"))
SPAN = TaskCard(name="span", suite="own", kind=Kind.SPAN, metrics=("f1", "em", "chrf"), languages=("en",))
XNLI = find_task("xnli").card.model_copy(update={"languages": ("en", "de", "sw")})
TEXTS = {
    "en": "the cat sat, on a mat: An apple; the ÉCLAIR co-op 3.5% naïve cat".split(" "),
    "de": "der Die das Größe einem Straße, Öl-Preis „Zitat“ 42".split(" "),
    "zh": ["北京", "上海市", "中国人民 银行", "a 的", "3.5%", "。", "银行"],
    "ar": "البيت في كتاب، الكتاب ال سلام".split(" "),
    "vi": "của là cái nhà Hà Nội những".split(" "),
    "hi": "भारत की राजधानी। दिल्ली है".split(" "),
}


def answers(language: str, rows: int = 300) -> list[Prediction]:
    """Answers put together of a few words, so that many are equal, alike, or nothing once articles are gone."""
    rng = random.Random(language)

    def text() -> str:
        return " ".join(rng.choices(TEXTS[language], k=rng.randint(1, 3)))

    return [
        Prediction(str(number), text() if rng.random() < 0.9 else "", (text(), text()), (0.5, 0.1))
        for number in range(rows)
    ]


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("name", ["xquad", "mlqa", "squad2"])
def test_signs_have_the_scores_of_the_words(name: str, language: str) -> None:
    card = veiled_card(find_task(name).card)
    rows = [Prediction(row.id, row.value, row.gold, row.scores, str(row.value)) for row in answers(language)]
    if card.no_answer:
        rows[::3] = [Prediction(row.id, row.value, (), row.scores, row.best) for row in rows[::3]]
    found = veiled(card, rows, language)
    before = score(card, rows, language)
    assert before == pytest.approx(score(card, found, language))
    assert chance(card, rows, language) == pytest.approx(chance(card, found, language))
    assert 0 < before[card.metrics[0]] < 100
    kept = "".join(f"{row.value}{''.join(row.gold or ())}{row.best}" for row in found)  # type: ignore[arg-type]
    assert all(0xE000 <= ord(letter) <= 0xF8FF for letter in kept.replace(" ", ""))


def test_more_words_than_the_basic_plane_has_signs_for() -> None:
    card = veiled_card(SPAN)
    rows = [Prediction(str(number), f"w{number}", (f"w{number}", f"v{number}")) for number in range(5000)]
    found = veiled(card, rows, "en")
    assert len({row.value for row in found} | {gold for row in found for gold in row.gold}) == 10_000  # type: ignore[union-attr]
    assert score(card, found, "en") == {"f1": 100.0, "em": 100.0}


def test_metrics_that_read_characters_are_left_out() -> None:
    assert veiled_card(SPAN).metrics == ("f1", "em")
    assert veiled_card(find_task("mlqa").card).metrics == ("f1_mlqa", "em_mlqa")
    with pytest.raises(PolypromptError, match="jaquad: f1_characters cannot be computed"):
        veiled_card(find_task("jaquad").card)
    assert is_veiled(find_task("record").card)
    assert not is_veiled(find_task("copa").card)


def alone(folder: Path, card: TaskCard, method: str = "ptuning-v2", seed: int = 0, **more: object) -> Path:
    """A run of one task."""
    config = f'method = "{method}"\nseed = {seed}\nsuite = ["{card.suite}"]\ntasks = ["{card.name}"]\nmax_train = 9\n'
    prompt = "2 slots" if method == "ptuning-v2" else "none"
    facts: dict[str, object] = {
        "prompt": prompt,
        "code": "0.1.0 1a",
        "trained": {card.name: ["en"]},
        "limits": {"max_train": 9},
        **more,
    }
    return write_run(folder, [card], method=method, seed=seed, splits=SPLITS, config=config, **facts)  # type: ignore[arg-type]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two methods, two seeds, three tasks, each alone; and both seeds of a run of two tasks together."""
    for number, card in enumerate((RTE, STSB, SPAN)):
        for seed in (0, 1):
            alone(tmp_path / "runs" / f"p{number}-{seed}", card, seed=seed, skill=0.8, train_seconds=10.0 + number)
            alone(tmp_path / "runs" / f"f{number}-{seed}", card, "fine-tune", seed, skill=0.6, code=f"0.1.0 {seed}")
    for seed in (0, 1):
        trained = {"rte": ["en"], "stsb": ["en"]}
        config = f'method = "ptuning-v2"\nseed = {seed}\nsharing = "specialise"\n'
        write_run(
            tmp_path / "runs" / f"m-{seed}", [RTE, STSB], seed=seed, splits=SPLITS, config=config, trained=trained
        )
    return tmp_path / "runs"


def test_seconds_that_say_nothing_are_left_out(runs: Path, tmp_path: Path) -> None:
    """And then no page has any: not the rows', nor the runs'."""
    out, site = tmp_path / "results", tmp_path / "site"
    assert distil.main([str(runs), "--out", str(out), "--no-seconds"]) == 0
    manifests = [read_model(path, Manifest) for path in out.glob("*/manifest.json")]
    assert {(one.train_seconds, one.evaluate_seconds) for one in manifests} == {(None, None)} and len(manifests) == 6
    assert all(row.cost.train_seconds is None for row in make_board([out]).rows.values())
    report = build([out], site)
    assert not report.complaints
    page = (site / "runs" / manifests[0].run / "index.html").read_text(encoding="utf-8")
    assert "steps," in page and "<dt>Evaluation</dt>" not in page and not re.search(r"examples, [\d.]+ s", page)
    cell = r'<td class="cost" data-order="([^"]*)">([^<]*)</td>\s*<td>fp32'
    assert set(re.findall(cell, (site / "runs.html").read_text(encoding="utf-8"))) == {("", "")}


def test_a_method_is_one_run_of_all_its_tasks(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results"
    assert distil.main([str(runs), "--out", str(out)]) == 0
    assert "14 runs as 6 in" in capsys.readouterr().out
    board = make_board([out])
    assert not board.complaints
    rows = [row for row in board.rows.values() if row.runs]
    assert {(row.method, row.prompt.endswith("each task alone"), row.seeds) for row in rows} == {
        ("ptuning-v2", True, (0, 1)), ("fine-tune", True, (0, 1)), ("ptuning-v2", False, (0, 1)),
    }  # fmt: skip
    folder = next(out.glob("ptuning-v2-alone-*-s1"))
    manifest = read_model(folder / "manifest.json", Manifest)
    assert [card.name for card in manifest.tasks] == ["rte", "stsb", "span"]
    assert manifest.train_seconds == pytest.approx(10 + 11 + 12)
    assert manifest.command.count("\n") == 2
    assert manifest.trainable == read_model(runs / "p0-1/manifest.json", Manifest).trainable
    assert read_model(next(out.glob("fine-tune-*-s0")) / "manifest.json", Manifest).code == "0.1.0 0, 0.1.0 1"
    stored = {record.task: record for record in read_model(folder / "results.json", Results).records}
    for number, name in enumerate(("rte", "stsb", "span")):
        (before,) = read_model(runs / f"p{number}-1/results.json", Results).records
        assert stored[name].scores == pytest.approx(before.scores, abs=2e-4)
    assert manifest.tasks[-1].metrics == ("f1", "em")
    tuned = read_model(next(out.glob("fine-tune-*-s1")) / "manifest.json", Manifest)
    assert (manifest.prompt, tuned.prompt) == ("2 slots, each task alone", "each task alone")
    assert not read_run(folder).digest.doubts


def test_no_word_of_the_data_is_left(runs: Path, tmp_path: Path) -> None:
    assert distil.main([str(runs), "--out", str(tmp_path / "results")]) == 0
    files = list((tmp_path / "results").rglob("predictions/span.*"))
    assert len(files) == 4
    for file in files:
        text = gzip.decompress(file.read_bytes()).decode()
        assert "\ue000" in text
        assert not re.search("|".join(WORDS), text)


@pytest.mark.parametrize("published", [False, True])
def test_the_page_of_examples_shows_no_signs(published: bool, tmp_path: Path) -> None:
    card = SPAN.model_copy(update={"suite": "squad", "name": "squadshifts"})  # whose texts may be shown
    folder = alone(tmp_path / "run", card)
    if published:
        assert distil.main([str(folder), "--out", str(tmp_path / "results")]) == 0
        folder = tmp_path / "results"
    board = make_board([folder])
    (suite,) = board.suites
    (columns,) = (part for _, part in Drilldown(board).task(suite, suite.tasks[0], "index") if "ids" in part)
    assert ("value" in columns, "gold" in columns) == (not published, not published)
    assert 0 < sum(columns["right"]) < len(columns["ids"])


def test_publishing_again_gives_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    def published() -> dict[str, bytes]:
        assert distil.main([str(runs), "--out", str(tmp_path / "results")]) == 0
        found = sorted((tmp_path / "results").rglob("*"))
        return {str(file.relative_to(tmp_path)): file.read_bytes() for file in found if file.is_file()}

    assert published() == published()


def test_what_cannot_be_published_is_named(runs: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "results")]
    alone(runs / "again", RTE)
    with pytest.raises(PolypromptError, match=r"again and .*p0-0 are alike and both of rte"):
        distil.main([str(runs), *out])
    one = runs / "f0-0"
    (one / "config.toml").rename(tmp_path / "config.toml")
    with pytest.raises(PolypromptError, match=r"f0-0/config\.toml: no such file"):
        distil.main([str(one), *out])
    (tmp_path / "config.toml").rename(one / "config.toml")
    place = next(one.glob("predictions/*"))
    rows = read_predictions(place)
    write_predictions(place, [*rows[1:], rows[0]])
    with pytest.raises(PolypromptError, match="not the predictions that were scored"):
        distil.main([str(one), *out])
    assert not list((tmp_path / "results").glob("*"))  # nothing half written
    write_predictions(place, rows)
    stored = (one / "results.json").read_text()
    for task, wrong in (("other", "'other' is not among the tasks"), ("../../rte", "is not among the tasks")):
        (one / "results.json").write_text(stored.replace('"task": "rte"', f'"task": "{task}"'))
        with pytest.raises(PolypromptError, match=wrong):
            distil.main([str(one), *out])
    (one / "results.json").write_text(stored.replace('"predictions": "', '"predictions": "../p0-0/'))
    with pytest.raises(PolypromptError, match="outside of the run folder"):
        distil.main([str(one), *out])
    assert not list((tmp_path / "results").glob("*"))
    with pytest.raises(PolypromptError, match="no finished run"):
        distil.main([str(tmp_path / "results"), *out])


def test_a_place_that_cannot_be_written_is_one_line(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for module in ("leaderboard.distil", "leaderboard.build"):
        command = [sys.executable, "-m", module, str(runs / "f0-0"), "--out", str(tmp_path / "file")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr == f"error: {tmp_path / 'file'}: File exists; name another place, or make room there\n"


def scores_of(folder: Path, task: str, language: str = "en") -> np.ndarray:
    """Whether each row is right, [rows]."""
    (file,) = folder.glob(f"predictions/{task}.{language}.*")
    return np.array([100.0 * (row.value == row.gold) for row in read_predictions(file)])


def test_means_and_differences_are_those_of_a_loop(tmp_path: Path) -> None:
    """Accuracies of two tasks, one of them in three languages; standard errors by the formula of proportions."""
    for method, skill in (("ptuning-v2", 0.7), ("fine-tune", 0.6)):
        for card in (RTE, XNLI):
            alone(tmp_path / "runs" / f"{method}-{card.name}", card, method, skill=skill, rows=400)
    assert distil.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    found = summary.summarise(make_board([tmp_path / "out"]))
    folders = {row["method"]: tmp_path / "out" / row["id"] for row in found["rows"]}
    rights = {
        method: {
            place: scores_of(folder, *place)
            for place in [("rte", "en"), *(("xnli", code) for code in ("en", "de", "sw"))]
        }
        for method, folder in folders.items()
    }

    def by_hand(right: dict[tuple[str, str], np.ndarray]) -> dict[str, tuple[float, float]]:
        """Measure -> mean and standard error."""
        mean = {place: float(rows.mean()) for place, rows in right.items()}
        square = {place: float(rows.var() / len(rows)) for place, rows in right.items()}
        transfer = (mean["xnli", "de"] + mean["xnli", "sw"]) / 2, (square["xnli", "de"] + square["xnli", "sw"]) / 4
        return {
            "english": (
                (mean["rte", "en"] + mean["xnli", "en"]) / 2, (square["rte", "en"] + square["xnli", "en"]) ** 0.5 / 2
            ),
            "transfer": (transfer[0], transfer[1] ** 0.5),
            "gap": (mean["xnli", "en"] - transfer[0], (square["xnli", "en"] + transfer[1]) ** 0.5),
        }  # fmt: skip

    for row in found["rows"]:
        for measure, (mean, error) in by_hand(rights[row["method"]]).items():
            one = row["means"][measure]
            assert one["score"] == pytest.approx(mean, abs=0.01)
            assert (one["high"] - one["low"]) / 2 == pytest.approx(1.96 * error, rel=0.12)
    assert {one["measure"] for one in found["comparisons"]} == {"english", "transfer", "gap"}
    apart = {place: rights["ptuning-v2"][place] - rights["fine-tune"][place] for place in rights["fine-tune"]}
    for one in found["comparisons"]:
        mean, error = by_hand(apart)[one["measure"]]
        assert folders["ptuning-v2"].name == one["first"]
        assert one["difference"] == pytest.approx(mean, abs=0.01)
        assert (one["high"] - one["low"]) / 2 == pytest.approx(1.96 * error, rel=0.12)


def test_a_mean_over_fewer_tasks_says_so(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distil.main([str(runs), "--out", str(tmp_path / "results")]) == 0
    capsys.readouterr()
    assert summary.main([str(tmp_path / "results"), "--out", str(tmp_path / "summary.json")]) == 0
    table = capsys.readouterr().out
    stored = json.loads((tmp_path / "summary.json").read_text())
    together = next(row for row in stored["rows"] if not row["prompt"].endswith("alone"))
    assert together["means"]["english"]["tasks"] == ["glue.stsb", "glue.rte"]
    assert "own.span" not in together["tasks"]
    (difference,) = (one for one in stored["comparisons"] if one["first"] == together["id"])
    assert difference["tasks"] == ["glue.stsb", "glue.rte"]
    assert len(re.findall(r"over 2 ", table)) == 2
