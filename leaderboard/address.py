"""Where things lie on the site: names of pages, data files and anchors, safe whatever the names on the board are."""

from __future__ import annotations

from leaderboard.board import Board
from leaderboard.names import slugs


class Addresses:
    """Paths relative to the site's folder, and anchors."""

    def __init__(self, board: Board) -> None:
        tasks = {(suite.name, task.card.name) for suite in board.suites for task in suite.tasks}
        places = frozenset[tuple[str, str, str]]().union(*(run.places for run in board.runs))
        tasks |= {(suite, task) for suite, task, _ in places}
        codes = {language.code for language in board.languages}
        codes |= {language for _, _, language in places}
        self._suites = slugs(suite.name for suite in board.suites)
        self._tasks = slugs(f"{suite}.{task}" for suite, task in tasks)
        self._languages = slugs(codes)
        self._pages = {language.code for language in board.languages}

    def suite(self, name: str) -> str:
        """The page of a suite."""
        return f"suites/{self._suites[name]}/index.html"

    def cost(self, name: str) -> str:
        """What the systems of a suite cost."""
        return f"suites/{self._suites[name]}/cost.html"

    def task(self, suite: str, name: str) -> str:
        """The page of a task."""
        return f"tasks/{self._tasks[f'{suite}.{name}']}/index.html"

    def examples(self, suite: str, name: str) -> str:
        """The predictions of a task, side by side."""
        return f"tasks/{self._tasks[f'{suite}.{name}']}/examples.html"

    def language(self, code: str) -> str:
        """The page of a language; "" where it has none."""
        return f"languages/{self._languages[code]}.html" if code in self._pages else ""

    def run(self, run: str, suite: str = "", task: str = "", language: str = "") -> str:
        """The page of a run, at one of its scores where one is named."""
        return f"runs/{run}/index.html" + (f"#{self.anchor(suite, task, language)}" if task else "")

    def anchor(self, suite: str, task: str, language: str = "") -> str:
        """Where a score stands on the page of a run."""
        of_task = f"s-{self._tasks[f'{suite}.{task}']}"
        return f"{of_task}--{self._languages[language]}" if language else of_task

    def data_of_suite(self, name: str) -> str:
        """Name of the data file of a suite's table."""
        return f"suite-{self._suites[name]}"

    def data_of_task(self, suite: str, name: str) -> str:
        """Name of the data file of a task's table."""
        return f"task-{self._tasks[f'{suite}.{name}']}"

    def data_of_language(self, code: str) -> str:
        """Name of the data file of a language's table."""
        return f"language-{self._languages[code]}"
