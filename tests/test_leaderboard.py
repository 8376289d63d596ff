"""The leaderboard: the pages as a browser and a hostile run see them, and intervals against scipy and exact values."""

from __future__ import annotations

import json
import random
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
from fake_runs import draw, write_run
from scipy import stats

from benchmarks.errors import PolypromptError
from benchmarks.records import Prediction
from benchmarks.registry import find_suite
from benchmarks.results import ResultRecord, read_predictions, write_predictions
from benchmarks.scoring import average, score
from benchmarks.task import Kind, TaskCard
from leaderboard import build as command
from leaderboard.build import build
from leaderboard.statistics import interval, mean, replicates, rows_of

GLUE = [task.card for task in find_suite("glue").tasks]
GLUE_SPLITS = {task.name: task.eval_split for task in find_suite("glue").tasks}
MANY = TaskCard(
    name="many", suite="own", kind=Kind.CLASSIFICATION, labels=("a", "b"), languages=("en", "de", "sw"),
    metrics=("accuracy",),
)  # fmt: skip
TAGS = TaskCard(name="tags", suite="own", kind=Kind.TAGGING, labels=("B-X", "I-X", "B-Y", "O"), metrics=("f1",))
SPAN = TaskCard(name="span", suite="own", kind=Kind.SPAN, metrics=("f1", "em"))
RETRIEVAL = TaskCard(name="retrieval", suite="own", kind=Kind.RETRIEVAL, train_language=None, metrics=("accuracy",))
MINED = RETRIEVAL.model_copy(update={"name": "mined", "metrics": ("f1",), "no_answer": True})
TEXTS = TaskCard(name="texts", suite="own", kind=Kind.CHOICE, metrics=("f1", "em"))
THREE = TaskCard(
    name="three", suite="own", kind=Kind.CLASSIFICATION, labels=("x", "y", "z"), metrics=("f1", "f1_macro", "matthews"),
)  # fmt: skip
GROUPED = TaskCard(
    name="grouped", suite="own", kind=Kind.CLASSIFICATION, labels=("no", "yes"),
    metrics=("f1a", "em", "parity", "accuracy", "matthews"),
)  # fmt: skip


class Page(HTMLParser):
    """Every element with its attributes, and the text of every table cell."""

    VOID = frozenset("meta link input br img rect".split())

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self.open or ("th" in self.open and "table" in self.open):
            self.tables[-1][-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    cards = [*GLUE, MANY, TAGS, SPAN, RETRIEVAL]
    for seed in range(3):
        write_run(folder / f"prompt-s{seed}", cards, seed=seed, skill=0.8, splits=GLUE_SPLITS)
    write_run(folder / "tuned", cards, method="fine-tune", skill=0.5, splits=GLUE_SPLITS)
    write_run(folder / "part", [GLUE[0], MANY], method="bitfit", languages=["en"], skill=0.9, splits=GLUE_SPLITS)
    write_run(folder / "short", cards, method="linear-probe", rows=20, limited=True, splits=GLUE_SPLITS)
    return folder


@pytest.fixture(scope="module")
def site(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    assert build([runs], out).complaints == []
    return out


def row_of(page: Page, method: str, column: str, table: int) -> str:
    """Text of the cell of a method (text in its row heading) below a column heading."""
    heading, *rows = page.tables[table]
    place = next(i for i, text in enumerate(heading) if text.split()[:1] == [column])
    return next(row for row in rows if method in row[0])[place]


def test_numbers_are_those_of_the_predictions(runs: Path, site: Path) -> None:
    page = Page(site / "index.html")
    files = [
        runs / f"prompt-s{seed}/predictions/many.{language}.test.jsonl.gz"
        for seed in range(3)
        for language in MANY.languages
    ]
    means = [np.mean([row.value == row.gold for row in read_predictions(file)]) for file in files]
    cell = row_of(page, "ptuning-v2", "many", 1)
    assert f"{100 * np.mean(means):.1f}" in cell.split()[0].lstrip("★")

    records = [json.loads((runs / f"prompt-s{seed}/results.json").read_text())["records"] for seed in range(3)]
    weights = dict.fromkeys((card.name for card in GLUE), 1.0) | {"mnli": 0.5, "mnli-mm": 0.5, "ax": 0.0}
    by_hand = np.mean(
        [
            sum(weights.get(record["task"], 0) * np.mean(list(record["scores"].values())) for record in of_run) / 9
            for of_run in records
        ]
    )
    assert f"{by_hand:.1f}" in row_of(page, "ptuning-v2", "Average", 0)

    german = [row.gold for row in read_predictions(runs / "tuned/predictions/many.de.test.jsonl.gz")]
    majority = 100 * max(german.count("a"), german.count("b")) / len(german)
    by_language = next(i for i, table in enumerate(page.tables) if "de" in [cell.split()[0] for cell in table[0][1:]])
    assert row_of(page, "Chance", "de", by_language).strip() == f"{majority:.1f}"


def test_missing_is_shown_and_never_averaged_away(site: Path) -> None:
    page = Page(site / "index.html")
    assert "not scored" in row_of(page, "bitfit", "Average", 0)
    assert "not scored" in row_of(page, "bitfit", GLUE[1].name, 0)
    assert "‡" in row_of(page, "bitfit", "many", 1)  # one language of three
    assert "★" not in row_of(page, "bitfit", "many", 1)  # though it is the highest


def test_a_choice_on_the_reported_rows_is_marked(tmp_path: Path) -> None:
    cards = [task.card for task in find_suite("glue").tasks if task.name in ("sst2", "rte")]
    chosen = {"measured": {"0.02": [[10, 60.0]]}, "learning_rate": 0.02, "step": 1010}
    for name, rule, rows in (("honest", "held-out", 7), ("optimist", "paper", 60)):
        facts = {"rule": rule, "rows": {"sst2": rows}} | chosen
        write_run(tmp_path / "runs" / name, cards, prompt=name, selection=facts)
    build([tmp_path / "runs"], tmp_path / "site")
    page = (tmp_path / "site" / "index.html").read_text()
    marked = [row for row in re.split("<tr>", page) if 'class="signs"' in row and "§" in row]
    assert marked and all("optimist" in row and "honest" not in row for row in marked)
    assert all(row.count("§") == 1 for row in marked), "only the task whose rows were looked at"
    run_page = (tmp_path / "site" / "runs" / "optimist" / "index.html").read_text()
    assert "paper: step 1,010, learning rate 0.02; on 60 rows of sst2" in run_page


def test_limited_is_marked_and_not_best(site: Path) -> None:
    page = Page(site / "index.html")
    assert "†" in row_of(page, "linear-probe", GLUE[0].name, 0)
    assert "†" not in row_of(page, "fine-tune", GLUE[0].name, 0)
    best = [row[0] for row in page.tables[1] if any("★" in cell for cell in row)]
    assert len(best) == 1 and "ptuning-v2" in best[0]
    assert "only a part of the official split" in page.text


def test_seeds_are_one_row_with_their_number(site: Path) -> None:
    page = Page(site / "index.html")
    assert ["ptuning-v2" in row[0] and "3 seeds:" in row[0] for row in page.tables[0]].count(True) == 1
    assert "One of 3 seeds" in Page(site / "runs/prompt-s1/index.html").text


def test_another_setting_is_another_row(tmp_path: Path) -> None:
    for name, rate, seed in [("a", 1e-2, 0), ("b", 1e-3, 1), ("c", 1e-2, 1)]:
        write_run(tmp_path / name, GLUE, seed=seed, config=f"learning_rate = {rate}\nseed = {seed}\nname = '{name}'\n")
    assert build([tmp_path], tmp_path / "site").rows == 2
    rows = Page(tmp_path / "site/index.html").tables[0][1:3]
    assert ["run a" in row[0] for row in rows].count(True) == ["run b" in row[0] for row in rows].count(True) == 1


def test_other_label_words_are_another_row(tmp_path: Path) -> None:
    for name, word, seed in [("a", "w7", 0), ("b", "w8", 1), ("c", "w7", 1)]:
        words = f'[label_words.sst2]\nnegative = "{word}"\npositive = "w9"\n'
        write_run(tmp_path / name, GLUE, seed=seed, config=f'head = "verbaliser"\nseed = {seed}\n{words}')
    assert build([tmp_path], tmp_path / "site").rows == 2


def test_where_files_and_weights_lay_is_no_other_row(tmp_path: Path) -> None:
    for name, seed, begun in [("a", 0, 'start_from = "/x"\n'), ("b", 1, 'start_from = "/y"\nshard_backbone = true\n')]:
        write_run(tmp_path / name, GLUE, seed=seed, config=f"{begun}seed = {seed}\n")
    assert build([tmp_path], tmp_path / "site").rows == 1


def test_an_exact_repeat_is_no_seed(tmp_path: Path) -> None:
    write_run(tmp_path / "a", GLUE)
    write_run(tmp_path / "b", GLUE, created="2032-01-01T00:00:00Z")
    report = build([tmp_path], tmp_path / "site")
    assert report.rows == 1 and "a is repeated by b" in report.complaints[0]
    assert "1 seed:" in Page(tmp_path / "site/index.html").text
    assert (tmp_path / "site/runs/a/index.html").exists()


def test_equal_input_gives_equal_bytes(runs: Path, site: Path, tmp_path: Path) -> None:
    build(sorted(runs.iterdir(), reverse=True), tmp_path / "again")

    def contents(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert contents(tmp_path / "again") == contents(site)


def test_links_lead_to_files_and_anchors_of_the_site(site: Path) -> None:
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    anchors = {path: {a["id"] for _, a in page.elements if "id" in a} for path, page in pages.items()}
    followed = 0
    for path, page in pages.items():
        ids = [a["id"] for _, a in page.elements if "id" in a]
        assert len(ids) == len(set(ids))
        for _, attributes in page.elements:
            for name in ("href", "src"):
                if (link := attributes.get(name)) is None:
                    continue
                assert "//" not in link and not link.startswith("/")
                file, _, anchor = link.partition("#")
                target = (path.parent / file).resolve() if file else path
                assert target.is_file() and target.is_relative_to(site.resolve())
                assert not anchor or anchor in anchors[target]
                followed += 1
            for name in ("aria-labelledby", "for"):
                assert name not in attributes or attributes[name] in anchors[path]
    assert followed > 100


def test_every_score_leads_to_its_place_on_the_run_page(site: Path) -> None:
    html = (site / "index.html").read_text(encoding="utf-8")
    link = re.search(r'href="runs/(tuned)/index.html#(score-\d+)" title="many: 60 examples">(\d+\.\d)</a>', html)
    assert link is not None
    place = (site / f"runs/{link[1]}/index.html").read_text(encoding="utf-8").split(f'id="{link[2]}"')[1]
    assert place.index(link[3]) < place.index("</tr>")


def test_pages_bring_nothing_but_their_own_files(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Page(path)
        (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv")]
        assert policy == "default-src 'none'; style-src 'self'; script-src 'self'; base-uri 'none'; form-action 'none'"
        assert [script.get("src", "").rsplit("/")[-1] for script in page.all("script")] == ["board.js"]
        assert not page.all("style")
        assert not [a for _, a in page.elements if any(key == "style" or key.startswith("on") for key in a)]
    assert "url(" not in (site / "style.css").read_text() and "@import" not in (site / "style.css").read_text()


def test_tables_are_tables(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Page(path)
        assert page.all("table") and len(page.all("caption")) == len(page.all("table"))
        assert all(th.get("scope") in ("col", "row") for th in page.all("th"))
        assert all(len({len(row) for row in table}) == 1 for table in page.tables)
        assert len(page.all("h1")) == 1
        levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
        assert all(after - before <= 1 for before, after in pairwise(levels))


HOSTILE = '</td><script>alert(1)</script><img src=x onerror="alert(2)">\'"{{ 7*7 }}'


def test_scripts_in_every_field_stay_text(tmp_path: Path) -> None:
    cards = [
        TaskCard(name=HOSTILE.replace("/", "|"), suite=HOSTILE, kind=Kind.CLASSIFICATION, labels=(HOSTILE, "b"),
                 languages=("en", "<b>de", '"onclick=x'), metrics=("accuracy",)),
    ]  # fmt: skip
    write_run(
        tmp_path / "runs/a", cards, method=HOSTILE, backbone=HOSTILE, prompt=HOSTILE, config=f"x = 1\n# {HOSTILE}",
        created=HOSTILE, command=HOSTILE, code=HOSTILE, packages={HOSTILE: HOSTILE}, processor=HOSTILE,
        precision=HOSTILE, data={HOSTILE: HOSTILE}, limits={HOSTILE: 3}, splits={cards[0].name: '"><script>'},
    )  # fmt: skip
    manifest = json.loads((tmp_path / "runs/a/manifest.json").read_text())
    manifest["backbone"] |= {"family": HOSTILE, "sha256": HOSTILE}
    (tmp_path / "runs/a/manifest.json").write_text(json.dumps(manifest))
    results = json.loads((tmp_path / "runs/a/results.json").read_text())
    results["records"][0] |= {"sha256": HOSTILE, "scores": {HOSTILE: 1.0}}
    (tmp_path / "runs/a/results.json").write_text(json.dumps(results))
    assert build([tmp_path / "runs"], tmp_path / "site").runs == ["a"]
    for path in (tmp_path / "site").rglob("*.html"):
        page = Page(path)
        assert len(page.all("script")) == 1 and not page.all("img") and not page.all("b")
        assert not [a for _, a in page.elements if any(key.startswith("on") for key in a)]
        assert HOSTILE in page.text


def test_broken_runs_are_named_and_the_rest_is_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, out = tmp_path / "runs", tmp_path / "site"
    write_run(runs / "good", GLUE)
    (write_run(runs / "not-json", GLUE) / "manifest.json").write_text("{")
    (write_run(runs / "no-results", GLUE) / "results.json").unlink()
    next((write_run(runs / "no-predictions", GLUE) / "predictions").iterdir()).unlink()
    next((write_run(runs / "damaged", GLUE) / "predictions").iterdir()).write_bytes(b"\x1f\x8b???")
    write_run(runs / "climbs", GLUE, run="../../climbs")
    folder = write_run(runs / "elsewhere", GLUE[:1])
    results = json.loads((folder / "results.json").read_text())
    results["records"][0]["predictions"] = f"../good/predictions/{GLUE[0].name}.en.test.jsonl.gz"
    (folder / "results.json").write_text(json.dumps(results))
    rows = [Prediction("1", "0", ("a", "b"))]
    write_predictions(write_run(runs / "other-form", GLUE[:1]) / f"predictions/{GLUE[0].name}.en.test.jsonl.gz", rows)

    assert command.main([str(runs), "--out", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["runs"] == ["good"]
    for name in "not-json no-results no-predictions damaged climbs elsewhere other-form".split():
        assert any(line.startswith("warning: left out: ") and name in line for line in printed.err.splitlines()), name
    assert [path.name for path in (out / "runs").iterdir()] == ["good"]


def test_a_score_that_its_predictions_do_not_give_is_reported_and_marked(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs/boasts", [MANY])
    truth = score(MANY, read_predictions(folder / "predictions/many.de.test.jsonl.gz"))["accuracy"]
    results = json.loads((folder / "results.json").read_text())
    results["records"][1]["scores"]["accuracy"] = 99.9
    (folder / "results.json").write_text(json.dumps(results))
    (complaint,) = build([tmp_path / "runs"], tmp_path / "site").complaints
    assert "boasts" in complaint and "many, de: accuracy is 99.90 in results.json" in complaint
    page = Page(tmp_path / "site/index.html")
    assert f"{truth:.1f}" in row_of(page, "ptuning-v2", "de", 1) and "≠" in row_of(page, "ptuning-v2", "de", 1)
    assert "≠" not in row_of(page, "ptuning-v2", "sw", 1)
    assert "99.90" in Page(tmp_path / "site/runs/boasts/index.html").text


def test_changed_predictions_are_noticed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [MANY])
    path = folder / "predictions/many.en.test.jsonl.gz"
    write_predictions(path, [*read_predictions(path)[1:], Prediction("new", "a", "a", (0.5, 0.5))])
    assert any("hash" in complaint for complaint in build([tmp_path / "a"], tmp_path / "site").complaints)


def test_languages_that_a_run_was_trained_in_are_told_from_zero_shot_ones(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/usual", [MANY])
    write_run(tmp_path / "runs/several", [MANY], method="bitfit", trained={"many": ["en", "sw"]})
    build([tmp_path / "runs"], tmp_path / "site")
    page = Page(tmp_path / "site/index.html")
    marked = {
        (method, column)
        for method in ("ptuning-v2", "bitfit")
        for column in ("Mean", "en", "de", "sw")
        if "¶" in row_of(page, method, column, 1)
    }
    assert marked == {("bitfit", "Mean"), ("bitfit", "sw")}
    assert "¶" in row_of(page, "bitfit", "many", 0) and "¶" not in row_of(page, "ptuning-v2", "many", 0)
    headings = [heading.split() for heading in page.tables[1][0][1:]]
    assert {heading[0] for heading in headings if "trained" in heading} == {"en"}
    pages = {name: Page(tmp_path / f"site/runs/{name}/index.html").text for name in ("usual", "several")}
    assert "many: en, sw; all others are zero-shot" in pages["several"]
    assert "zero-shot" not in pages["usual"]


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PolypromptError, match="no usable run"):
        build([tmp_path], tmp_path / "site")
    with pytest.raises(PolypromptError, match="no such folder"):
        build([tmp_path / "absent"], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_the_site_is_not_written_over_the_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/a", GLUE)
    with pytest.raises(PolypromptError, match="--out"):
        build([tmp_path / "runs"], tmp_path)


def test_sixty_records_of_twenty_runs_take_seconds(tmp_path: Path) -> None:
    wide = MANY.model_copy(update={"languages": tuple(f"x{number}" for number in range(60))})
    write_run(tmp_path / "runs/a", [wide], rows=300)
    began = time.process_time()
    build([tmp_path / "runs"], tmp_path / "site")
    assert time.process_time() - began < 3  # a twentieth of a minute


# Statistics


def rows_for(card: TaskCard, skill: float, seed: int, rows: int) -> list[Prediction]:
    """Drawn predictions; of one card in groups, of one with sentences that have no partner or were given none."""
    if card is TEXTS:
        return draw(SPAN.model_copy(update={"name": "texts"}), "en", skill, seed, rows)
    drawn = draw(card, "en", skill, seed, rows)
    if card.no_answer:
        return [
            replace(row, gold=row.gold if number % 3 else "", value=row.value if number % 4 else "")
            for number, row in enumerate(drawn)
        ]
    return [replace(row, group=str(int(number**0.7))) for number, row in enumerate(drawn)] if card is GROUPED else drawn


def units_of(rows: list[Prediction]) -> list[list[Prediction]]:
    """What is drawn as a whole."""
    return [list(unit) for _, unit in groupby(rows, lambda row: row.group or row.id)]


def together(units: list[list[Prediction]]) -> list[Prediction]:
    """The rows of a resample, where a group that was drawn twice is two groups."""
    return [replace(row, group=f"{row.group}#{number}") for number, unit in enumerate(units) for row in unit]


def made(card: TaskCard, rows: list[Prediction], metric: str) -> tuple[float, float]:
    found = interval(replicates([rows_of(rows, card, metric, lambda part: score(card, part)[metric])], "cell"))
    assert found is not None
    return found.low, found.high


def reference(card: TaskCard, rows: list[Prediction], metric: str) -> tuple[float, float]:
    """By scipy, unit by unit, through the official scorer."""
    units = units_of(rows)

    def of_resample(indices: np.ndarray) -> float:
        return score(card, together([units[i] for i in indices]))[metric]

    found = stats.bootstrap(
        (np.arange(len(units)),), of_resample, vectorized=False, n_resamples=1000, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return found.low, found.high


@pytest.mark.parametrize(
    ("card", "metric", "rows"),
    [
        (MANY, "accuracy", 80),
        (TAGS, "f1", 40),
        (TAGS.model_copy(update={"metrics": ("accuracy",)}), "accuracy", 40),
        (SPAN, "f1", 60),
        (SPAN, "em", 60),
        (TEXTS, "f1", 60),
        (RETRIEVAL, "accuracy", 60),
        (MINED, "f1", 60),
        (THREE, "f1", 60),
        (THREE, "f1_macro", 60),
        (THREE, "matthews", 60),
        (GROUPED, "f1a", 90),
        (GROUPED, "em", 90),
        (GROUPED, "parity", 90),
        (GROUPED, "accuracy", 90),
        (next(card for card in GLUE if card.kind is Kind.REGRESSION), "pearson", 60),
        (next(card for card in GLUE if card.kind is Kind.REGRESSION), "spearman", 60),
    ],
    ids=lambda value: value.name if isinstance(value, TaskCard) else str(value),
)
def test_interval_equals_scipys(card: TaskCard, metric: str, rows: int) -> None:
    card = card.model_copy(update={"metrics": (metric,)})
    predictions = rows_for(GROUPED if card.name == "grouped" else TEXTS if card.name == "texts" else card, 0.6, 1, rows)
    found, expected = made(card, predictions, metric), reference(card, predictions, metric)
    width = expected[1] - expected[0]
    assert width > 5
    assert np.allclose(found, expected, atol=0.12 * width)


@pytest.mark.parametrize(
    "card", [MANY, TAGS, SPAN, TEXTS, RETRIEVAL, MINED, THREE, GROUPED, *GLUE], ids=lambda card: card.name
)
def test_rows_drawn_once_give_the_official_score(card: TaskCard) -> None:
    """For random counts too: against the scorer on rows repeated as often."""
    predictions = rows_for(card, 0.5, 3, 50)
    units = units_of(predictions)
    rng = np.random.default_rng(5)
    for metric in card.metrics:
        rows = rows_of(predictions, card, metric, lambda part, metric=metric: score(card, part)[metric])
        assert rows.budget > 10**6, "the fast way must be taken"
        assert len(rows.values) == len(units)
        counts = rng.multinomial(len(units), [1 / len(units)] * len(units), size=5)
        repeated = [together([units[i] for i in np.repeat(np.arange(len(units)), drawn)]) for drawn in counts]
        found = rows.score(rows.values, counts.astype(float))
        assert np.allclose(found, [score(card, part)[metric] for part in repeated])


@pytest.mark.parametrize("metric", ["f1", "f1_macro", "matthews"])
def test_labels_that_a_resample_lacks(metric: str) -> None:
    """One row drawn alone: a label that does not occur counts in no mean, a constant side has no correlation."""
    predictions = rows_for(THREE, 0.5, 3, 20)
    rows = rows_of(predictions, THREE, metric, lambda part: score(THREE, part)[metric])
    alone = [score(THREE, [row])[metric] for row in predictions]
    assert len(set(alone)) > 1 or metric == "matthews"
    assert np.allclose(rows.score(rows.values, np.eye(20)), alone)


def test_rows_of_a_group_are_drawn_together() -> None:
    """Three answers that are right together say no more than one: the interval is the binomial one of 200 groups."""
    right = [number < 140 for number in range(200) for _ in range(3)]
    rows = [
        Prediction(str(number), "yes" if hit else "no", "yes", group=f"q{number // 3}")
        for number, hit in enumerate(right)
    ]
    for metric in ("accuracy", "em"):
        expected = 100 * stats.binom.ppf([0.025, 0.975], 200, 0.7) / 200
        assert np.allclose(made(GROUPED, rows, metric), expected, atol=1.0)

    def odd(part: list[Prediction]) -> float:  # a metric that nothing is known of, and that counts groups
        return score(GROUPED, part)["em"] / 2

    unknown = rows_of(rows, GROUPED, "half", odd)
    found = interval(replicates([unknown], "cell"))
    assert found is not None and unknown.budget < 10**6
    assert np.allclose([2 * found.low, 2 * found.high], expected, atol=1.5)


def test_ranks_are_of_rows() -> None:
    """Grouped numbers are no sums over groups: each resample is given to the scorer."""
    card = next(card for card in GLUE if card.kind is Kind.REGRESSION)
    rows = [replace(row, group=str(number // 2)) for number, row in enumerate(draw(card, "en", 0.6, 1, 40))]
    kept = rows_of(rows, card, "spearman", lambda part: score(card, part)["spearman"])
    assert kept.budget < 10**6
    counts = np.array([[2.0] * 10 + [0.0] * 10])
    assert np.allclose(kept.score(kept.values, counts), score(card, rows[:20])["spearman"])


def test_rows_that_a_metric_does_not_count() -> None:
    """Exact match over the questions that have an answer: the others are drawn too, and count in no resample."""
    card = TaskCard(name="half", suite="own", kind=Kind.SPAN, metrics=("em_answerable",), no_answer=True)
    rows = [
        Prediction(str(n), "x" if n % 3 else "y", ("x",) if n % 2 else (), (0.5, 0.0), best="x") for n in range(120)
    ]
    kept = rows_of(rows, card, "em_answerable", lambda part: score(card, part).get("em_answerable", np.nan))
    assert kept.budget > 10**6
    counts = np.random.default_rng(2).multinomial(120, [1 / 120] * 120, size=4)
    repeated = [[rows[i] for i in np.repeat(np.arange(120), drawn)] for drawn in counts]
    found = kept.score(kept.values, counts.astype(float))
    assert np.allclose(found, [score(card, part)["em_answerable"] for part in repeated])


def test_an_unknown_metric_goes_through_its_scorer() -> None:
    predictions = draw(MANY, "en", 0.7, 1, 60)

    def odd(part: list[Prediction]) -> float:
        return 100 * np.mean([row.value == row.gold for row in part]) ** 2

    rows = rows_of(predictions, MANY, "squared", odd)
    found = interval(replicates([rows], "cell"))
    plain = made(MANY, predictions, "accuracy")
    assert found is not None
    assert np.allclose([found.low, found.high], [end**2 / 100 for end in plain], atol=4)
    # A known name with another meaning is noticed.
    assert rows_of(predictions, MANY, "accuracy", odd).budget < 10**6


def test_accuracy_interval_is_the_binomial_one() -> None:
    rows = [Prediction(str(i), "a" if i < 140 else "b", "a", (0.5, 0.5)) for i in range(200)]
    low, high = made(MANY, rows, "accuracy")
    assert np.allclose([low, high], 100 * stats.binom.ppf([0.025, 0.975], 200, 0.7) / 200, atol=1.0)


def test_seeds_share_the_examples() -> None:
    """The mean of two equal runs varies as one; drawn apart, its variance would be half."""
    rows = draw(MANY, "en", 0.6, 1, 100)
    other = [Prediction(f"other-{row.id}", row.value, row.gold, row.scores) for row in rows]
    one, twin, stranger = (
        rows_of(part, MANY, "accuracy", lambda p: score(MANY, p)["accuracy"]) for part in (rows, rows, other)
    )
    alone = replicates([one], "cell").std()
    assert replicates([one, twin], "cell").std() == pytest.approx(alone, rel=0.1)
    assert replicates([one, stranger], "cell").std() == pytest.approx(alone / 2**0.5, rel=0.1)


def test_languages_are_drawn_apart() -> None:
    rows = rows_of(draw(MANY, "en", 0.6, 1, 100), MANY, "accuracy", lambda p: score(MANY, p)["accuracy"])
    one, other = replicates([rows], "many.en.test"), replicates([rows], "many.de.test")
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.15
    assert mean([one, other]).std() == pytest.approx(one.std() / 2**0.5, rel=0.15)


def test_intervals_cover_the_truth() -> None:
    """Simulation: the true accuracy lies in 93-97 % of the intervals."""
    rng = random.Random(7)
    covered = 0
    for _ in range(400):
        rows = [Prediction(str(i), "a" if rng.random() < 0.7 else "b", "a", (0.5, 0.5)) for i in range(150)]
        low, high = made(MANY, rows, "accuracy")
        covered += low <= 70 <= high
    assert 0.92 <= covered / 400 <= 0.975


def test_the_average_is_the_suites_own(runs: Path, site: Path) -> None:
    records = [
        record
        for record in json.loads((runs / "tuned/results.json").read_text())["records"]
        if record["suite"] == "glue"
    ]
    official = average(find_suite("glue"), [ResultRecord.model_validate(record) for record in records])["average"]
    assert f"{official:.1f}" in row_of(Page(site / "index.html"), "fine-tune", "Average", 0)
