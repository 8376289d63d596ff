"""The leaderboard's pages as files: what they say, what they may not do, and what a hostile or broken run does to them.

`test_board.py` has the numbers, `test_pages_in_browser.py` what scripts make of the pages.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fake_board import fake_board
from fake_runs import write_run, write_runs

from benchmarks.errors import PolypromptError
from benchmarks.records import Prediction
from benchmarks.registry import find_suite
from benchmarks.results import read_predictions, write_predictions
from benchmarks.scoring import score
from benchmarks.task import Kind, TaskCard
from leaderboard import build as command
from leaderboard import plots
from leaderboard import show as show_command
from leaderboard.assets import datatables
from leaderboard.build import build, write
from leaderboard.datafiles import note
from leaderboard.examples import may_be_shown
from leaderboard.names import named, points, script_name, size, slugs
from leaderboard.summary import as_tables, summarise
from leaderboard.tables import make_board

GLUE = [task.card for task in find_suite("glue").tasks]
GLUE_SPLITS = {task.name: task.eval_split for task in find_suite("glue").tasks}
MANY = TaskCard(
    name="many", suite="own", kind=Kind.CLASSIFICATION, labels=("a", "b"), languages=("en", "de", "sw"),
    metrics=("accuracy",),
)  # fmt: skip
POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; base-uri 'none'; form-action 'none'"
HOSTILE = '</td></script><script>alert(1)</script><img src=x onerror="alert(2)">\'"{{ 7*7 }}'


class Page(HTMLParser):
    """Every element with its attributes, and the text of every table cell."""

    VOID = frozenset("meta link input br img".split())

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

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self.open or ("th" in self.open and "table" in self.open):
            self.tables[-1][-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def row_of(page: Page, method: str, column: str, table: int = 0) -> str:
    """Text of the cell of a method (text in its row heading) below a column heading."""
    heading, *rows = page.tables[table]
    place = next(i for i, text in enumerate(heading) if text.split()[:1] == [column])
    return next(row for row in rows if method in row[0])[place]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runs(tmp_path_factory.mktemp("runs"), [*GLUE[:3], MANY], GLUE_SPLITS, 3)


@pytest.fixture(scope="module")
def site(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    assert build([runs], out).complaints == []
    return out


def test_numbers_are_those_of_the_predictions(runs: Path, site: Path) -> None:
    files = [
        runs / f"prompt-s{seed}/predictions/many.{language}.test.jsonl.gz"
        for seed in range(3)
        for language in MANY.languages
    ]
    means = [np.mean([row.value == row.gold for row in read_predictions(file)]) for file in files]
    page = Page(site / "suites/own/index.html")
    assert f"{100 * np.mean(means):.1f}" in row_of(page, "ptuning-v2", "many").split()[0]
    german = [row.gold for row in read_predictions(runs / "tuned/predictions/many.de.test.jsonl.gz")]
    majority = 100 * max(german.count("a"), german.count("b")) / len(german)
    assert row_of(Page(site / "tasks/own.many/index.html"), "Chance", "de").strip() == f"{majority:.1f}"
    assert "many" in Page(site / "languages/de.html").tables[0][0][2]


def test_what_is_missing_or_partial_says_so(site: Path) -> None:
    glue, own = Page(site / "suites/glue/index.html"), Page(site / "suites/own/index.html")
    assert "not scored" in row_of(glue, "bitfit", GLUE[1].name)
    assert "not ranked" in row_of(glue, "bitfit", "Rank") and "1 of 9" in row_of(glue, "bitfit", "Average")
    assert "‡" in row_of(own, "bitfit", "many") and "★" not in row_of(own, "bitfit", "many")
    assert "†" in row_of(glue, "linear-probe", GLUE[0].name) and "†" not in row_of(glue, "fine-tune", GLUE[0].name)
    assert "only a part of the official split" in glue.text


def test_seeds_are_one_row_with_their_number(site: Path) -> None:
    page = Page(site / "suites/glue/index.html")
    assert ["ptuning-v2" in row[0] and "3 seeds:" in row[0] for row in page.tables[0]].count(True) == 1
    assert "One of 3 seeds" in Page(site / "runs/prompt-s1/index.html").text


def test_a_choice_on_the_reported_rows_is_marked(tmp_path: Path) -> None:
    cards = [task.card for task in find_suite("glue").tasks if task.name in ("sst2", "rte")]
    chosen = {"measured": {"0.02": [[10, 60.0]]}, "learning_rate": 0.02, "step": 1010}
    for name, rule, rows in (("honest", "held-out", 7), ("optimist", "paper", 60)):
        facts = {"rule": rule, "rows": {"sst2": rows}} | chosen
        write_run(tmp_path / "runs" / name, cards, prompt=name, selection=facts)
    build([tmp_path / "runs"], tmp_path / "site")
    page = Page(tmp_path / "site/suites/glue/index.html")
    assert "§" in row_of(page, "optimist", "sst2") and "§" not in row_of(page, "optimist", "rte")
    assert "§" not in row_of(page, "honest", "sst2")
    run_page = (tmp_path / "site" / "runs" / "optimist" / "index.html").read_text()
    assert "paper: step 1,010, learning rate 0.02; on 60 rows of sst2" in run_page


def test_equal_input_gives_equal_bytes_and_nothing_is_written_twice(runs: Path, site: Path, tmp_path: Path) -> None:
    again = build(sorted(runs.iterdir(), reverse=True), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(site) and again.removed == 0
    assert again.written == len(contents(site))
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "again").rglob("*")}
    assert build([runs], tmp_path / "again").written == 0
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "again").rglob("*")}
    # a byte of one, the end of another, all of a third
    names = "index.html", "results.schema.json", "languages/de.html"
    one, other, third = (tmp_path / "again" / name for name in names)
    one.write_bytes(one.read_bytes()[:-1] + b"x")
    other.write_bytes(other.read_bytes() + b"x")
    third.unlink()
    assert build([runs], tmp_path / "again").written == 3
    assert contents(tmp_path / "again") == contents(site)


def test_a_run_that_went_leaves_nothing_behind(runs: Path, tmp_path: Path) -> None:
    build([runs], tmp_path / "site")
    (tmp_path / "site/mine.txt").write_text("kept")
    without = [runs / name for name in ("tuned", "part", "short")]
    report = build(without, tmp_path / "site")
    build(without, tmp_path / "fresh")
    assert report.removed > 3 and not (tmp_path / "site/runs/prompt-s0").exists()
    kept = contents(tmp_path / "site")
    assert kept.pop("mine.txt") == b"kept" and kept == contents(tmp_path / "fresh")


def test_what_a_killed_build_left_goes_and_what_is_under_way_stays(runs: Path, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    node = platform.node()
    there = [
        f".new-{node}-{ended.pid}-abcd",
        f".new-{node}-{os.getpid()}-efgh",
        f".new-other-{ended.pid}-ijkl",
        ".new-a",
    ]
    for name in there:
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "index.html").touch()
    build([runs], tmp_path / "site")
    assert sorted(path.name for path in (tmp_path / "site").glob(".new-*")) == sorted(there[1:])


def test_a_hostile_list_removes_nothing_elsewhere(tmp_path: Path) -> None:
    board = replace(fake_board(rows=3), runs=())
    (tmp_path / "precious").write_text("x")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/files.json").write_text(json.dumps(["../precious", str(tmp_path / "precious"), 7]))
    assert write(board, tmp_path / "site")[1] == 0 and (tmp_path / "precious").exists()


def test_links_lead_to_files_and_anchors_of_the_site(site: Path) -> None:
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    anchors = {path: {a["id"] for _, a in page.elements if "id" in a} for path, page in pages.items()}
    followed = 0
    for path, page in pages.items():
        ids = [a["id"] for _, a in page.elements if "id" in a]
        assert len(ids) == len(set(ids)), path
        for _, attributes in page.elements:
            for name in ("href", "src"):
                link = attributes.get(name)
                if link is None or (link.startswith("https://") and attributes.get("rel") == "noreferrer"):
                    continue
                assert "//" not in link and not link.startswith("/")
                file, _, anchor = link.partition("#")
                target = (path.parent / file).resolve() if file else path
                assert target.is_file() and target.is_relative_to(site.resolve()), (path, link)
                assert not anchor or anchor in anchors[target], (path, link)
                followed += 1
            for name in ("aria-labelledby", "for"):
                assert name not in attributes or attributes[name] in anchors[path], (path, attributes)
    assert followed > 300


def test_pages_bring_nothing_but_their_own_files(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Page(path)
        (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv")]
        assert policy == POLICY
        assert all(re.fullmatch(r"(\.\./)*assets/[a-z]+\.js", script.get("src") or "") for script in page.all("script"))
        assert not page.all("style")
        assert not [a for _, a in page.elements if any(key == "style" or key.startswith("on") for key in a)]
    style = (site / "assets/style.css").read_text()
    assert "url(" not in style and "@import" not in style


def test_tables_are_tables(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Page(path)
        drawn = [table for table in page.all("table") if "id" not in table]  # the others are filled by scripts
        assert len(page.all("caption")) == len(drawn), path
        assert all(th.get("scope") in ("col", "row") for th in page.all("th"))
        assert all(len({len(row) for row in table}) <= 1 for table in page.tables), path
        assert len(page.all("h1")) == 1
        levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
        assert all(after - before <= 1 for before, after in pairwise(levels))


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
    harmless(tmp_path / "site")
    board = fake_board(rows=5, name=HOSTILE)
    write(replace(board, runs=tuple(replace(run, files={}) for run in board.runs)), tmp_path / "other")
    harmless(tmp_path / "other")


def harmless(site: Path) -> None:
    said = 0
    for path in site.rglob("*.html"):
        page = Page(path)
        assert all(script.get("src") for script in page.all("script")) and not page.all("img") and not page.all("b")
        assert not [a for _, a in page.elements if any(key.startswith("on") for key in a)]
        said += HOSTILE in page.text
    assert said > 5
    for path in (site / "data").rglob("*.js"):
        text = path.read_text("ascii")
        assert text.startswith("polyprompt.add(") and text.endswith(");\n") and text.count("\n") == 1


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
    page = Page(tmp_path / "site/tasks/own.many/index.html")
    assert f"{truth:.1f}" in row_of(page, "ptuning-v2", "de") and "≠" in row_of(page, "ptuning-v2", "de")
    assert "≠" not in row_of(page, "ptuning-v2", "sw")
    assert complaint in Page(tmp_path / "site/index.html").text
    assert "99.90" in Page(tmp_path / "site/runs/boasts/index.html").text


def test_languages_that_a_run_was_trained_in_are_told_from_zero_shot_ones(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/usual", [MANY])
    write_run(tmp_path / "runs/several", [MANY], method="bitfit", trained={"many": ["en", "sw"]})
    build([tmp_path / "runs"], tmp_path / "site")
    page = Page(tmp_path / "site/tasks/own.many/index.html")
    marked = {
        (method, column)
        for method in ("ptuning-v2", "bitfit")
        for column in ("Mean", "en", "de", "sw")
        if "¶" in row_of(page, method, column)
    }
    assert marked == {("bitfit", "Mean"), ("bitfit", "sw")}
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
    write_run(tmp_path / "runs/a", GLUE[:1])
    with pytest.raises(PolypromptError, match="--out"):
        build([tmp_path / "runs"], tmp_path)


def test_lengths_that_a_sweep_left_are_a_plot(tmp_path: Path) -> None:
    for length in (4, 8, 16):
        text = f"prompt_length = {length}\nseed = 0\n"
        write_run(tmp_path / f"runs/l{length}", GLUE[:1], prompt=f"{length} slots", config=text)
    write_run(tmp_path / "runs/other", GLUE[:1], prompt="32 slots", config="prompt_length = 32\nepochs = 9\n")
    build([tmp_path / "runs"], tmp_path / "site")
    page = (tmp_path / "site/tasks/glue.cola/index.html").read_text()
    assert "Prompt length" in page and "slots in each prompted layer" in page
    marks = re.findall(r'aria-label="slots in each prompted layer: (\d+)', page)
    assert sorted(map(int, set(marks))) == [4, 8, 16]


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"step": 1200}, "held-out: step 1,200, learning rate 0.02"),
        ({"step": 0}, "held-out: learning rate 0.02"),  # of runs that became one
        (
            {"step": 1200, "own": {"cola": 40, "sst2": 1200}},
            "of each task its own step (cola 40, sst2 1,200), learning",
        ),
    ],
)
def test_the_page_of_a_run_says_what_was_selected(chosen: dict[str, object], said: str, tmp_path: Path) -> None:
    selection = {"rule": "held-out", "rows": {}, "measured": {}, "learning_rate": 0.02} | chosen
    write_run(tmp_path / "runs/a", GLUE[:1], selection=selection, splits=GLUE_SPLITS)
    build([tmp_path / "runs"], tmp_path / "site")
    assert said in " ".join(Page(tmp_path / "site/runs/a/index.html").text.split())


def test_of_very_many_names_the_first_are_named() -> None:
    assert named(list("abc")) == "a, b, c"
    assert named(list("abcdefghijkl")).endswith("k, l")
    assert named(list("abcdefghijklm"), 5) == "a, b, c and 10 others"


def test_systems_that_lack_the_same_tasks_are_compared_where_none_has_all(tmp_path: Path) -> None:
    """A: 2 tasks, b and c: the same 3, of which c is the better; d: 3 others."""
    skills = {"a": (GLUE[:2], 0.9), "b": (GLUE[:3], 0.3), "c": (GLUE[:3], 0.8), "d": (GLUE[1:4], 0.9)}
    for name, (cards, skill) in skills.items():
        facts = {"trainable": 100 + ord(name), "share": float(ord(name))}
        write_run(tmp_path / f"runs/{name}", cards, method=name, skill=skill, splits=GLUE_SPLITS, **facts)
    build([tmp_path / "runs"], tmp_path / "site")
    page = Page(tmp_path / "site/suites/glue/cost.html")
    systems = [row[0].split()[0] for row in page.tables[-1][1:] if "quoted" not in row[0]]
    assert systems[-2:] == ["b", "a"], "with fewer tasks behind, and of as many the better one in front"
    assert set(systems[:2]) == {"c", "d"}
    assert "These have the same 3 of 9" in page.text and "1 of 2 systems" not in page.text
    assert "2 of 2 systems are on the front" in page.text, "b is worse and trains less"
    write_run(tmp_path / "runs/e", GLUE, method="e", splits=GLUE_SPLITS)
    build([tmp_path / "runs"], tmp_path / "site")
    assert "These have the same" in Page(tmp_path / "site/suites/glue/cost.html").text, "one alone has all"
    write_run(tmp_path / "runs/f", GLUE, method="f", splits=GLUE_SPLITS, share=1.0)
    build([tmp_path / "runs"], tmp_path / "site")
    assert "These have the same" not in Page(tmp_path / "site/suites/glue/cost.html").text


def test_a_plot_is_drawn_once_and_a_damaged_one_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPROMPT_CACHE", str(tmp_path))
    drawn = []
    draw = plots.vl_convert.vegalite_to_svg
    monkeypatch.setattr(plots.vl_convert, "vegalite_to_svg", lambda spec: (drawn.append(spec), draw(spec))[1])

    def loss(last: float) -> str:
        plots._svg.cache_clear()  # as in a new process
        return plots.loss([(20, 2.0, 0.5), (40, last, 0.7)])

    first = loss(1.0)
    assert loss(1.0) == first and len(drawn) == 1
    assert loss(1.5) != first and len(drawn) == 2
    for file in tmp_path.glob("plots/*.arrow"):
        file.write_bytes(file.read_bytes()[:-9] + b"x" * 9)
    assert loss(1.0) == first and len(drawn) == 3
    monkeypatch.setenv("POLYPROMPT_CACHE", "off")
    assert loss(1.0) == first and len(drawn) == 4


def test_the_front_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        costs, scores = rng.integers(0, 8, 12).tolist(), rng.integers(0, 8, 12).tolist()
        pairs = list(zip(costs, scores, strict=True))
        beaten = [any(c <= a and s >= b and (c, s) != (a, b) for c, s in pairs) for a, b in pairs]
        assert plots.front(costs, scores) == [not one for one in beaten]


@pytest.mark.parametrize(
    ("licence", "shown"),
    [
        ("CC BY 4.0", True), ("CC BY-SA 3.0", True), ("CC BY 2.0 FR", True), ("Apache-2.0", True), ("MIT", True),
        ("Apache-2.0 (generated by this project); names from Unicode CLDR: Unicode-3.0", True),
        ("CC BY 4.0; COPA: BSD 2-clause", True), ("CC BY-NC 4.0 (not for commercial use)", False), ("", False),
        ("LDC User Agreement", False), ("none stated by the authors; research use", False),
        ("CC BY-SA 4.0 (the annotation); words under the licence of the treebank they are taken from", False),
    ],
)  # fmt: skip
def test_texts_are_shown_where_their_licence_says_so(licence: str, shown: bool) -> None:
    assert may_be_shown(licence) is shown


def test_every_licence_of_the_suites_is_understood() -> None:
    """What is shown is a short list that somebody looked at; a new licence is not among them by accident."""
    licences = {
        task.licence
        for name in ("demo", "glue", "superglue", "xtreme", "squad", "xcopa")
        for task in find_suite(name).tasks
    }
    assert not {
        licence
        for licence in licences
        if may_be_shown(licence) and re.search("research|NC|agreement|differs", licence, re.I)
    }


def test_names_fit_files() -> None:
    found = slugs(["a", "A", "../x", "ä", "con.v1", "", "a" * 300])
    assert found["a"] != found["A"] and found["con.v1"] == "con.v1"
    assert len({slug.lower() for slug in found.values()}) == 7
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,99}", slug) for slug in found.values())


def test_rows_of_one_name_are_told_apart_by_their_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cards = [task.card for task in find_suite("glue").tasks if task.card.name == "sst2"]
    slow, fast = "learning_rate = [0.03]", "learning_rate = [0.1]\nwarmup = 0.3"
    broken, endless = "no settings", f"{fast}\nnote = '{'x' * 200}'"
    rates = {"slow": slow, "fast": fast, "same": None, "like": None, "broken": broken}
    for name, text in rates.items():
        for seed in (0, 1):
            config = f"tasks = ['sst2']\nseed = {seed}\n{text or 'learning_rate = [0.2]'}\n"
            facts = {} if text else {"code": name}  # which is no setting
            write_run(tmp_path / f"{name}-{seed}", cards, seed=seed, config=config, splits={"sst2": "dev"}, **facts)
    write_run(tmp_path / "other", cards, prompt="another", splits={"sst2": "dev"})
    board = make_board([tmp_path])
    told = {row.runs[0]: note(row) for row in board.rows.values() if row.runs}
    assert told == {
        "slow-0": "learning-rate 0.03, warmup none", "fast-0": "learning-rate 0.1, warmup 0.3",
        "same-0": "run same-0", "like-0": "run like-0", "broken-0": "run broken-0", "broken-1": "run broken-1",
        "other": "",
    }  # fmt: skip
    assert show_command.main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "learning-rate 0.1, warmup 0.3" in shown and "warmup" not in shown.split("another")[1].splitlines()[0]
    write_run(tmp_path / "endless", cards, config=endless, splits={"sst2": "dev"})
    assert "run endless" in [note(row) for row in make_board([tmp_path]).rows.values()]
    rows = {row["id"]: row for row in summarise(board)["rows"]}
    assert {row.get("apart") for row in rows.values()} >= {"learning-rate 0.03, warmup none", None}
    assert "init kv, learning-rate 0.1, warmup 0.3" in as_tables(summarise(board))


def test_numbers_are_written_alike() -> None:
    assert [points(x) for x in (12.345, -0.04, -3.21, float("nan"), None, 62.25)] == [
        "12.3",
        "0.0",
        "−3.2",
        "–",
        "–",
        "62.2",
    ]
    assert [size(x) for x in (900, 12_345, 278e6, 1.114e9)] == ["900 B", "12.3 kB", "278 MB", "1.11 GB"]
    assert [script_name(code) for code in ("ru", "sr-Latn", "zh", "qqq")] == ["Cyrillic", "Latin", "Simplified Han", ""]


def test_another_form_of_the_table_library_is_an_error() -> None:
    assert "globalThis.DataTable=$x;" in datatables("var $x=1;export{y as z,$x as default};")
    with pytest.raises(PolypromptError, match="itables"):
        datatables("module.exports = 1")


def test_pages_are_built_without_torch(runs: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from leaderboard.build import main; "
        f"main([{str(runs / 'tuned')!r}, '--out', {str(tmp_path / 'site')!r}]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
