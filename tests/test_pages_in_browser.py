"""The pages in a real Chromium: what a reader does with them, with scripts, without, from disk, and by keyboard.

Skipped where Chromium or playwright is absent; `tox -e browser` brings the second.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_board import fake_board
from fake_runs import write_run
from tabulate import tabulate

from benchmarks.registry import find_suite
from benchmarks.results import read_predictions
from leaderboard.board import Board, Replicates
from leaderboard.build import build, write
from leaderboard.ranking import compare, holm

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (tox -e browser)")
CHROMIUM = os.environ.get("POLYPROMPT_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
if not CHROMIUM:
    pytest.skip("no Chromium here; POLYPROMPT_CHROMIUM may name one", allow_module_level=True)

HOSTILE = '</script><script>document.title="run"</script><img src=x onerror=alert(1)>\'"&{{ 7*7 }}'
COLUMN = """heading => {
    const table = document.querySelector('table[data-table]');
    const at = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent.trim().startsWith(heading));
    const number = '.number a, .number span, .missing span';
    return [...table.tBodies[0].rows].map(row => (row.cells[at].querySelector(number) ?? row.cells[at]).textContent);
}"""
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def board() -> Board:
    return fake_board(rows=60)


@pytest.fixture(scope="module")
def site(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(board, tmp_path_factory.mktemp("board"))


def built(board: Board, folder: Path) -> Path:
    write(replace(board, runs=tuple(replace(run, files={}) for run in board.runs)), folder)  # these have none to copy
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


class Tab:
    """A page from disk; whatever it logs, and whatever it asks for outside its folder, is an error."""

    def __init__(self, browser: object, site: Path, **options: object) -> None:
        self.site = site
        self.wrong: list[str] = []
        self.context = browser.new_context(viewport={"width": 1300, "height": 900}, **options)  # type: ignore[attr-defined]
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog {dialog.message}"))
        self.page.on("request", self._asked)

    def _asked(self, request: object) -> None:
        url = request.url  # type: ignore[attr-defined]
        if not url.startswith((self.site.as_uri(), "blob:")):
            self.wrong.append(f"asked for {url}")

    def open(self, path: str, ready: str = "table[data-ready]") -> object:
        self.page.goto("about:blank")
        self.page.goto(f"{self.site.as_uri()}/{path}")
        if ready:
            self.page.wait_for_selector(ready)
        return self.page

    def column(self, heading: str) -> list[str]:
        """Texts of a column's numbers on show."""
        return self.page.evaluate(COLUMN, heading)  # type: ignore[no-any-return]


@pytest.fixture
def tab(browser: object, site: Path) -> Iterator[Tab]:
    opened = Tab(browser, site)
    yield opened
    opened.context.close()
    assert opened.wrong == []


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace("−", "-")) for text in texts if text != "–"]


def test_every_page_is_quiet_and_accessible(tab: Tab, board: Board) -> None:
    """axe-core finds nothing on any kind of page, light and dark, and nothing leaves the folder."""
    axe = Path(pytest.importorskip("axe_playwright_python").__file__).with_name("axe.min.js").read_text()
    pages = {
        "index.html": "",
        "runs.html": "table[data-ready]",
        "suites/fake/index.html": "table[data-ready]",
        "suites/fake/cost.html": "table[data-ready]",
        "tasks/fake.task0/index.html#shade=1": "table[data-ready]",
        "languages/de.html": "table[data-ready]",
        "runs/run1-s0/index.html": "",
        "compare.html#a=row0&b=row5": "#pairs[data-ready]",
    }
    for scheme in ("light", "dark"):
        tab.page.emulate_media(color_scheme=scheme)
        for path, ready in pages.items():
            page = tab.open(path, ready)
            tab.context.new_cdp_session(page).send("Runtime.evaluate", {"expression": axe})
            found = page.evaluate(
                "async () => (await axe.run({preload: false})).violations.map(v => [v.id, v.nodes[0].html])"
            )
            assert found == [], (path, scheme)


def test_sorting_puts_what_is_missing_last(tab: Tab) -> None:
    tab.open("tasks/fake.task0/index.html")
    button = tab.page.locator("th:has-text('de') .dt-column-order").first
    button.click()
    falling = numbers(tab.column("de"))
    assert falling == sorted(falling, reverse=True)
    button.click()
    rising = tab.column("de")
    assert numbers(rising) == sorted(numbers(rising))
    assert tab.page.locator("th[aria-sort=ascending]").count() == 1
    tab.page.get_by_role("navigation", name="systems by language").get_by_text("2", exact=True).click()
    assert tab.column("de")[-1] == "–"


def test_by_keyboard(tab: Tab) -> None:
    page = tab.open("suites/fake/index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(60):
        page.keyboard.press("Tab")
        if "task1" in (page.evaluate("document.activeElement.getAttribute('aria-label')") or ""):
            break
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("task1")
    page.locator("summary", has_text="Filters").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.locator(".chips li").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("details[open]").count() == 0
    assert page.evaluate("document.activeElement.textContent") == "Filters"


def test_a_link_shows_the_same_view(tab: Tab, browser: object, site: Path) -> None:
    page = tab.open("suites/fake/index.html")
    page.locator("#filter").fill("xlm-roberta")
    page.locator("summary", has_text="Filters").click()
    page.get_by_label("bitfit", exact=True).check()
    page.get_by_label("lora", exact=True).check()
    page.locator("summary", has_text="Columns").click()
    page.get_by_label("task2", exact=True).uncheck()
    page.keyboard.press("Escape")
    page.get_by_label("Shade by score").check()
    page.locator("th:has-text('task0') .dt-column-order").click()
    page.locator("tbody input").first.check()
    content = "document.querySelector('table').innerText + document.querySelectorAll('[data-shade]').length"
    before, address = page.evaluate(content), page.evaluate("location.hash")
    assert {part.split("=")[0] for part in address[1:].split("&")} == {"q", "sort", "method", "cols", "shade", "pick"}
    again = Tab(browser, site)
    other = again.open(f"suites/fake/index.html{address}")
    assert other.evaluate(content) == before
    assert other.locator("tbody input").first.is_checked()
    assert other.locator(".chips li").count() == 2
    again.context.close()
    assert again.wrong == []


def test_filters_and_chips(tab: Tab, board: Board) -> None:
    page = tab.open("suites/fake/index.html#method=lora")
    ours = [row for row in board.rows.values() if row.method == "lora"]
    assert page.locator("table[data-table] tbody tr").count() == len(ours)
    assert f"{len(ours)} rows" in page.locator("#status").inner_text()
    page.locator(".chips button").click()
    assert page.locator(".dt-info").inner_text().endswith(f"of {len(board.rows)}")
    page.locator("#filter").fill("no such name")
    assert "Nothing matches" in page.locator("tbody").inner_text()


def test_a_language_filter_filters_results(tab: Tab, board: Board) -> None:
    """Means are over the chosen languages, on the page of a task and of a suite; who lacks one has none."""
    view = board.suites[0].tasks[0].by_language
    at = [n for n, column in enumerate(view.columns) if column.id in ("de", "ar")]
    expected = view.score[:50, at].mean(axis=1)
    wanted = ["–" if np.isnan(mean) else f"{mean:.1f}" for mean in expected]
    tab.open("tasks/fake.task0/index.html#lang=de,ar")
    headings = tab.page.locator("table[data-table] thead th").all_inner_texts()
    assert [text.split()[0] for text in headings] == ["System", "Mean", "de", "ar"], (
        "ranks and gaps are of all languages"
    )
    found = tab.column("Mean")
    assert all(a == b or abs(float(a) - float(b)) < 0.11 for a, b in zip(found, wanted, strict=True))
    assert found[3] == "–", "the fourth system has no score in German"
    tab.open("suites/fake/index.html#lang=de,ar")
    rows = {row.id: number for number, row in enumerate(view.rows)}
    overview = board.suites[0].overview.rows[:50]
    for text, row in zip(tab.column("task0"), overview, strict=True):
        mean = view.score[rows[row.id], at].mean()
        assert text == "–" if np.isnan(mean) else abs(float(text) - mean) < 0.11


def saved(tab: Tab, title: str) -> str:
    tab.page.locator("summary", has_text="Download").click()
    with tab.page.expect_download() as waiting:
        tab.page.get_by_role("button", name=title, exact=True).click()
    tab.page.keyboard.press("Escape")
    return Path(waiting.value.path()).read_text(encoding="utf-8")


def test_downloads_are_what_is_shown(tab: Tab, board: Board) -> None:
    tab.open("suites/fake/index.html#method=lora&sort=task1 asc&cols=average,task1")
    table = board.suites[0].overview
    place = {row.id: number for number, row in enumerate(table.rows)}
    rows = sorted((row for row in table.rows if row.method == "lora"), key=lambda row: table.score[place[row.id], 2])
    parsed = list(csv.DictReader(io.StringIO(saved(tab, "CSV"))))
    assert list(parsed[0]) == ["method", "backbone", "prompt", "origin", "Average", "Average low", "Average high",
                               "task1", "task1 low", "task1 high"]  # fmt: skip
    assert [line["backbone"] for line in parsed] == [row.backbone for row in rows]
    for line, row in zip(parsed, rows, strict=True):
        assert float(line["task1"]) == pytest.approx(table.score[place[row.id], 2], abs=0.006)
        assert float(line["Average low"]) == pytest.approx(table.low[place[row.id], 0], abs=0.006)
    read = json.loads(saved(tab, "JSON"))
    assert [line["backbone"] for line in read["rows"]] == [row.backbone for row in rows]
    assert read["rows"][0]["task1"]["value"] == float(parsed[0]["task1"])

    def text(row: object, column: int) -> str:
        figure = table.figure(place[row.id], column)  # type: ignore[attr-defined]
        assert figure is not None
        signs = "§" if figure.flags & 4 else "‡" if figure.flags & 2 else ""
        return f"{figure.score:.1f} ({figure.low:.1f}–{figure.high:.1f}){signs}"

    body = [[row.method, row.backbone, row.prompt, "verified", text(row, 0), text(row, 2)] for row in rows]
    heads = ["method", "backbone", "prompt", "origin", "Average", "task1"]
    align = ("left",) * 4 + ("right",) * 2
    expected = tabulate(body, heads, tablefmt="latex_booktabs", colalign=align, disable_numparse=True)
    assert [line.split() for line in saved(tab, "LaTeX").splitlines()] == [
        line.split() for line in expected.splitlines()
    ]
    expected = tabulate(body, heads, tablefmt="pipe", colalign=align, disable_numparse=True)

    def cells_of(markdown: str) -> list[list[str]]:
        return [[cell.strip().strip(":-") for cell in line.strip("|").split("|")] for line in markdown.splitlines()]

    assert cells_of(saved(tab, "Markdown")) == cells_of(expected)


def test_comparison_is_that_of_the_statistics(tab: Tab, board: Board) -> None:
    page = tab.open("suites/fake/index.html")
    for key in ("row0", "row4"):
        row = board.rows[key]
        page.get_by_label(f"Compare {row.method} · {row.backbone}", exact=False).first.check()
    page.locator("a.compare").click()
    page.wait_for_selector("#pairs[data-ready]")
    a, b = page.evaluate("['first', 'second'].map(id => document.getElementById(id).value)")
    shown = {line["compared in"]: line for line in csv.DictReader(io.StringIO(saved(tab, "CSV")))}
    first, second = board.replicates[a], board.replicates[b]
    places = [n for n, score in enumerate(first.score - second.score) if not np.isnan(score)]
    found = {n: compare(first.score[n], second.score[n], drawn(first, n), drawn(second, n)) for n in places}
    tested = [n for n in places if board.keys[n].column not in ("mean", "average", "gap")]
    adjusted = dict(zip(tested, holm(np.array([found[n].p for n in tested])), strict=True))
    assert len(shown) == len(places) and 0 < len(tested) < len(places)
    for number, one in found.items():
        line = shown[board.keys[number].title]
        for name, value in (("difference", one.difference), ("difference low", one.low), ("win", one.win)):
            assert float(line[name]) == pytest.approx(value, abs=1e-5), (number, name)
        wanted = adjusted.get(number)
        assert line["p, Holm"] == "" if wanted is None else float(line["p, Holm"]) == pytest.approx(wanted, abs=1e-5)


def drawn(found: Replicates, key: int) -> np.ndarray:
    return found.score[key] + found.scale[key] * found.values[key].astype(float)


def test_the_normal_tail(tab: Tab) -> None:
    from scipy import stats

    tab.open("compare.html", "")
    at = [0.0, 0.3, 1.0, 1.959964, 2.9999, 3.0, 4.5, 8.0]
    found = tab.page.evaluate("at => at.map(statistics.tail)", at)
    assert np.allclose(found, stats.norm.sf(at), rtol=1e-9)


def test_without_scripts_the_tables_are_there(browser: object, site: Path, tab: Tab) -> None:
    """The rows that both show are drawn alike by templates and by scripts."""
    bare = Tab(browser, site, java_script_enabled=False)
    # Scripts are off for the page, not for what a test evaluates in a world of its own.
    page = bare.open("suites/fake/index.html", "table")
    assert page.locator("table[data-table] tbody tr").count() >= 20
    assert not page.locator(".tools").is_visible()
    static = [row.split() for row in page.locator("table[data-table] tbody tr").all_inner_texts()]
    bare.context.close()
    assert bare.wrong == []
    tab.open("suites/fake/index.html")
    drawn = [row.split() for row in tab.page.locator("table[data-table] tbody tr").all_inner_texts()]
    assert drawn[: len(static)] == static[: len(drawn)]


def test_search(tab: Tab) -> None:
    page = tab.open("index.html", "")
    page.locator("#search").fill("task1")
    page.locator("#found a").first.click()
    assert "task1" in page.locator("h1").inner_text()


def test_examples_side_by_side(browser: object, tmp_path: Path) -> None:
    """Rows of two systems, filtered and found; texts with a data folder, where the licence lets them be shown."""
    cards = [task.card for task in find_suite("superglue").tasks if task.card.name in ("boolq", "cb")]
    splits = dict.fromkeys(("boolq", "cb"), "dev")
    for method, skill in (("one", 0.7), ("other", 0.5)):
        write_run(tmp_path / "runs" / method, cards, method=method, skill=skill, splits=splits)
    passages = [{"question": "is it?", "passage": f"{HOSTILE} {n}", "label": True, "idx": f"en-{n}"} for n in range(60)]
    file = tmp_path / "data/superglue/BoolQ/val.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in passages))
    first, second = (
        {row.id: row for row in read_predictions(tmp_path / f"runs/{method}/predictions/boolq.en.dev.jsonl.gz")}
        for method in ("one", "other")
    )
    for data_dir, headings in ((None, 4), (tmp_path / "data", 5)):
        site = tmp_path / f"site{headings}"
        build([tmp_path / "runs"], site, data_dir=data_dir)
        tab = Tab(browser, site)
        page = tab.open("tasks/superglue.boolq/examples.html", "#rows[data-ready]")
        shown = page.locator("#rows tbody tr")
        assert shown.count() == 60 and page.locator("#rows thead th").count() == headings
        assert page.get_by_text(HOSTILE).count() == (60 if data_dir else 0)
        page.locator("#kind").select_option("first")
        chosen = [name for name, row in first.items() if row.value == row.gold != second[name].value]
        assert shown.locator("th").all_inner_texts() == chosen != []
        assert page.locator("#count").inner_text().startswith(f"{len(chosen)} of 60 examples")
        address = page.evaluate("location.hash")
        page.locator("#words").fill(chosen[0])
        assert chosen[0] in shown.locator("th").all_inner_texts()
        page = tab.open(f"tasks/superglue.boolq/examples.html{address}", "#rows[data-ready]")
        assert shown.locator("th").all_inner_texts() == chosen
        page = tab.open("tasks/superglue.cb/examples.html", "#rows[data-ready]")
        assert "Texts are not shown" in page.locator(".lead").inner_text()
        assert page.locator("#rows thead th").count() == 4
        tab.context.close()
        assert tab.wrong == []


def test_hostile_names_stay_text(browser: object, tmp_path: Path) -> None:
    site = built(fake_board(rows=8, name=HOSTILE), tmp_path)
    tab = Tab(browser, site)
    paths = [str(path.relative_to(site)) for path in sorted(site.rglob("*.html"))]
    chosen = [path for path in paths if not path.startswith(("runs/run", "languages/"))] + [
        "runs/run1-s0/index.html",
        "languages/de.html",
    ]
    for path in chosen:
        page = tab.open(path, "")
        page.wait_for_timeout(100)
        assert page.locator("img, main script, td script").count() == 0, path
        assert page.title() != "run"
    page = tab.open("compare.html#a=row0&b=row1", "#pairs[data-ready]")
    page = tab.open(next(path for path in chosen if path.startswith("suites/") and path.endswith("index.html")))
    page.locator("summary", has_text="Filters").click()
    assert page.locator("img").count() == 0
    assert HOSTILE in page.locator("table").inner_text()
    assert HOSTILE[2:20] in saved(tab, "CSV")
    tab.context.close()
    assert tab.wrong == []


def test_phone_width_and_print(browser: object, site: Path) -> None:
    tab = Tab(browser, site)
    tab.page.set_viewport_size({"width": 390, "height": 844})
    for path in (
        "index.html",
        "suites/fake/index.html",
        "tasks/fake.task0/index.html",
        "suites/fake/cost.html",
        "compare.html",
    ):
        page = tab.open(path, "")
        page.wait_for_timeout(200)
        if path.startswith("tasks/"):
            page.wait_for_selector(".errors select")  # names of systems may be wider than a phone
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    tab.page.set_viewport_size({"width": 1050, "height": 700})
    page.emulate_media(media="print")
    for path in ("suites/fake/index.html", "tasks/fake.task0/index.html"):
        page = tab.open(path)
        assert not page.locator(".tools").first.is_visible() and page.locator("table").first.is_visible()
        narrowest = "Math.min(...[...document.querySelectorAll('tbody th.label')].map(cell => cell.clientWidth))"
        assert page.evaluate(narrowest) > 80, path  # a name is not broken letter by letter
    tab.context.close()
    assert tab.wrong == []


def test_replicates_travel_unchanged(site: Path, board: Board) -> None:
    text = (site / "data/replicates/row0.js").read_text()
    name, data = json.loads(f"[{text.removeprefix('polyprompt.add(').removesuffix(');' + chr(10))}]")
    assert name == "replicates/row0"
    values = np.frombuffer(base64.b64decode(data["values"]), np.int8).reshape(len(board.keys), -1)
    assert np.array_equal(values, board.replicates["row0"].values)
