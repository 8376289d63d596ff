"""The cache of parsed splits: equal rows, and new ones when what they depend on changes or a file is not whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import subprocess
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType

import numpy as np
import pytest

from benchmarks import cache, data
from benchmarks.columns import from_batch, to_batch
from benchmarks.errors import DataError, PolypromptError
from benchmarks.readers.rows import Columns
from benchmarks.readers.tables import Tsv
from benchmarks.records import Answer, Example, Split
from benchmarks.registry import suites
from benchmarks.sources import OfficialSource, SplitFiles
from benchmarks.suites.demo import SUITE as DEMO
from benchmarks.suites.glue import SST2
from benchmarks.suites.squad import SQUAD
from benchmarks.task import Task

ROOT = Path(__file__).parents[1]
TEXTS = ("", " ", "a", "ü", "日本", "👩‍🚀", "\x00", "\r\n", "\u2028", "\ud800", "e\u0301", "é", "x" * 5000)
NUMBERS = (0.0, -0.0, 1.5, -3.0, 1e300, 5e-324, float("inf"))


def drawn(hint: typing.Any, chance: random.Random) -> typing.Any:
    """A random value of a type, by the type alone, so that a new field is drawn too."""
    inner = typing.get_args(hint)
    if NoneType in inner:
        return None if chance.random() < 0.3 else drawn(inner[0], chance)
    if typing.get_origin(hint) is tuple:
        return tuple(drawn(inner[0], chance) for _ in range(chance.choice((0, 1, 2, 7))))
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return hint(**{field.name: drawn(hints[field.name], chance) for field in dataclasses.fields(hint)})
    choices: dict[typing.Any, Callable[[], typing.Any]] = {
        str: lambda: "".join(chance.choice(TEXTS) for _ in range(chance.randrange(4))),
        int: lambda: chance.choice((0, -1, 7, 2**62)),
        float: lambda: chance.choice(NUMBERS),
        bool: lambda: chance.random() < 0.5,
    }
    return choices[hint]()


def there_and_back(split: Split) -> Split:
    result: Split = from_batch(Split, to_batch(Split, split))
    return result


@pytest.mark.parametrize("seed", range(40))
def test_random_splits_come_back(seed: int) -> None:
    split = drawn(Split, random.Random(seed))
    back = there_and_back(split)
    assert back == split
    assert repr(back) == repr(split)  # tells 1 from 1.0 and 0.0 from -0.0


@pytest.mark.parametrize("task", DEMO.tasks, ids=lambda task: task.card.kind.value)
def test_every_kind_comes_back(task: Task) -> None:
    split = task.source.read(task.card, "test", "de", None)
    assert there_and_back(split) == split
    assert len({type(example) for example in there_and_back(split).examples}) == 1


def test_none_and_nothing_stay_apart() -> None:
    rows = [Example("a", answers=None, tags=()), Example("b", answers=(), tags=None), Example("c", text_pair="")]
    back = there_and_back(Split(tuple(rows), ("",)))
    assert [(row.answers, row.tags, row.text_pair) for row in back.examples] == [
        (None, (), None),
        ((), None, None),
        (None, None, ""),
    ]
    assert back.candidates == ("",)
    assert back.candidate_ids == ()
    assert there_and_back(Split(())) == Split(())


@dataclass(frozen=True)
class _Other:
    """What records do not have yet."""

    flags: tuple[bool, ...]
    lists: list[tuple[Answer | None, ...]]
    arrays: tuple[np.ndarray[typing.Any, np.dtype[np.int16]], ...]
    deep: int | None


def test_other_records_come_back() -> None:
    arrays = tuple(np.arange(2 * 3 * n, dtype=np.int16).reshape(n, 2, 3) for n in (4, 0, 1))
    value = _Other((True, False), [(), (None, Answer("x", 3))], arrays, None)
    back = from_batch(_Other, to_batch(_Other, value))
    assert (back.flags, back.lists, back.deep) == (value.flags, value.lists, None)
    assert len(back.arrays) == 3
    for old, new in zip(arrays, back.arrays, strict=True):
        assert new.dtype == np.int16
        assert new.shape == old.shape
        assert np.array_equal(new, old)
    with pytest.raises(TypeError, match="have no column"):
        to_batch(set[str], {"a"})


# --- splits of files ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    place = tmp_path / "cache"
    monkeypatch.setenv("POLYPROMPT_CACHE", str(place))
    return place


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that a table reader read since the test began."""
    seen: list[Path] = []
    read = Tsv.__call__

    def spy(self: Tsv, card: typing.Any, paths: typing.Any) -> Split:
        seen.extend(paths)
        return read(self, card, paths)

    monkeypatch.setattr(Tsv, "__call__", spy)
    return seen


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "glue" / "SST-2" / "dev.tsv"
    path.parent.mkdir(parents=True)
    path.write_text('sentence\tlabel\na "fine" film\t1\nmäßig \u2028\t0\n', encoding="utf-8")
    return path


def read(table: Path, task: Task = SST2) -> Split:
    return data.load(task, "dev", "en", table.parents[2])


EXPECTED = Split(
    (Example("0", 'a "fine" film', label="positive"), Example("1", "mäßig \u2028", label="negative")),
)


def test_a_file_is_parsed_once(folder: Path, parsed: list[Path], table: Path) -> None:
    assert read(table) == read(table) == read(table) == EXPECTED
    assert parsed == [table]
    assert len(list(folder.iterdir())) == 1


def test_hashes_are_those_of_the_files(folder: Path, table: Path) -> None:
    for _ in range(2):
        loaded = data.load_hashed(SST2, "dev", "en", table.parents[2])
        assert loaded.hashes == {table: hashlib.sha256(table.read_bytes()).hexdigest()}


def _byte(table: Path) -> Task:
    table.write_bytes(table.read_bytes().replace(b"fine", b"fime"))
    return SST2


def _name(table: Path) -> Task:
    table.rename(table.with_name("other.tsv"))
    assert isinstance(SST2.source, OfficialSource)
    part = replace(SST2.source.splits["dev"], files=("glue/SST-2/other.tsv",))
    return replace(SST2, source=OfficialSource({"dev": part}))


def _reader(table: Path) -> Task:
    assert isinstance(SST2.source, OfficialSource)
    names = {"1": "negative", "0": "positive"}
    part = SplitFiles(("glue/SST-2/dev.tsv",), Tsv(Columns(text="sentence", label="label", id="index", names=names)))
    return replace(SST2, source=OfficialSource({"dev": part}))


def _card(table: Path) -> Task:
    return replace(SST2, card=SST2.card.model_copy(update={"max_length": 17}))


@pytest.mark.parametrize("change", [_byte, _name, _reader, _card])
def test_a_change_is_seen(folder: Path, parsed: list[Path], table: Path, change: Callable[[Path], Task]) -> None:
    before = read(table)
    changed = change(table)
    after = read(table, changed)
    assert len(parsed) == 2
    assert read(table, changed) == after
    assert len(parsed) == 2
    assert (after == before) is (change in (_card, _name))


def test_a_change_of_the_code_is_seen(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    file = tmp_path / "inner" / "reader.py"
    hashes = []
    for text in ("a = 1\n", "a = 2\n", "a = 1\n"):
        file.write_text(text)
        cache.source_hash.cache_clear()
        hashes.append(cache.source_hash(tmp_path))
    assert hashes[0] == hashes[2] != hashes[1]
    assert len({cache.key("a", "b"), cache.key("b", "a"), cache.key("ab"), cache.key("a", "b", "")}) == 4


def test_errors_are_the_same_every_time(folder: Path, table: Path) -> None:
    table.write_text("sentence\tlabel\nfine\t2\n")
    for _ in range(2):
        with pytest.raises(DataError, match=r"dev\.tsv:2: unknown label '2'"):
            read(table)
    assert not folder.exists()
    table.with_name("train.tsv").write_text("sentence\nfine\n")
    for _ in range(2):
        with pytest.raises(DataError, match=r"train\.tsv: row '0' has no label"):
            data.load(SST2, "train", "en", table.parents[2])


def test_every_reader_is_known_in_every_process() -> None:
    """Names and hashes of memory addresses would differ from process to process."""
    code = (
        "from benchmarks import cache; from benchmarks.registry import suites; "
        "print(*(cache.identity(part.reader) for suite in suites() for task in suite.tasks "
        "for part in getattr(task.source, 'splits', {}).values()), sep='\\n')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here = [
        cache.identity(part.reader)
        for suite in suites()
        for task in suite.tasks
        if isinstance(task.source, OfficialSource)
        for part in task.source.splits.values()
    ]
    assert len(here) > 30
    assert done.stdout.splitlines() == here


def test_readers_of_strangers_are_not_cached(folder: Path, table: Path) -> None:
    """Two functions of one name, and two that have none: the second must not get the rows of the first."""

    def rows(text: str) -> Split:
        part = SplitFiles(("glue/SST-2/dev.tsv",), Tsv(lambda card, row, index: Example(str(index), text)))
        return read(table, replace(SST2, source=OfficialSource({"dev": part})))

    assert rows("a").examples[0].text == "a"
    assert rows("b").examples[0].text == "b"
    assert not folder.exists()
    nameless = lambda card, row, index: Example(str(index))  # noqa: E731
    nameless.__module__ = "benchmarks.suites.glue"
    for row in (drawn, nameless):
        with pytest.raises(cache.Unknown):
            cache.identity(Tsv(row))  # type: ignore[arg-type]


# --- what may lie in the folder -------------------------------------------------------------------------------------


def _flip(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:64],
        lambda raw: raw[:100],
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: raw[64:],
        lambda raw: b"not ours" * 500,
        *(lambda raw, part=part: _flip(raw, len(raw) * part // 12) for part in range(12)),
        lambda raw: raw.replace("mäßig".encode(), "mäsig ".encode()),
    ],
)
def test_a_damaged_file_is_made_again(
    folder: Path, parsed: list[Path], table: Path, damage: Callable[[bytes], bytes]
) -> None:
    read(table)
    [path] = folder.iterdir()
    good = path.read_bytes()
    bad = damage(good)
    assert bad != good
    path.write_bytes(bad)
    assert read(table) == EXPECTED
    assert len(parsed) == 2
    assert path.read_bytes() == good
    assert read(table) == EXPECTED
    assert len(parsed) == 2


def test_a_file_under_the_name_of_another_is_made_again(folder: Path, table: Path) -> None:
    read(table)
    [first] = folder.iterdir()
    table.write_text("sentence\tlabel\nother\t1\n")
    other = read(table)
    [second] = set(folder.iterdir()) - {first}
    second.write_bytes(first.read_bytes())
    assert read(table) == other


def test_two_processes_at_once(folder: Path, tmp_path: Path) -> None:
    """Both make and read the same values; a file half written, or changed under a reader, would kill or mislead one."""
    code = """
import sys, time
from pathlib import Path
from benchmarks import cache
from benchmarks.records import Example, Split
start = Path(sys.argv[1])
(start / sys.argv[2]).touch()
while len(list(start.iterdir())) < 2:
    time.sleep(0.001)
for number in range(60):
    value = Split(tuple(Example(str(row), f"{number} {row}" * 5) for row in range(500)))
    for _ in range(3):
        assert cache.through(cache.key(str(number)), Split, lambda: value) == value
"""
    start = tmp_path / "start"
    start.mkdir()
    programs = [
        subprocess.Popen([sys.executable, "-c", code, str(start), name], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    for program in programs:
        _, errors = program.communicate(timeout=120)
        assert program.returncode == 0, errors
    files = sorted(path.name for path in folder.iterdir())
    assert files == sorted(f"{cache.key(str(number))}.arrow" for number in range(60))


def test_a_file_that_is_read_does_not_change(folder: Path) -> None:
    """Another process is faster; its file is mapped when ours, which here is not equal, comes over it."""
    hint, name = tuple[np.ndarray[typing.Any, typing.Any], ...], cache.key("a")
    views: list[np.ndarray[typing.Any, typing.Any]] = []

    def make() -> tuple[np.ndarray[typing.Any, typing.Any], ...]:
        for _ in range(2):
            views[:] = cache.through(name, hint, lambda: (np.arange(1000),))
        return (np.zeros(1000, int),)

    cache.through(name, hint, make)
    assert np.array_equal(views[0], np.arange(1000))
    assert np.array_equal(cache.through(name, hint, make)[0], np.zeros(1000))


def _filled(folder: Path, names: str, monkeypatch: pytest.MonkeyPatch, room: float) -> None:
    """One value of about 5,000 bytes a letter, the first letters used longest ago; there is room for so many."""
    for age, letter in enumerate(names):
        cache.through(cache.key(letter), str, lambda letter=letter: letter * 4000)  # type: ignore[misc]
        os.utime(folder / f"{cache.key(letter)}.arrow", ns=(age, age))
    size = (folder / f"{cache.key('a')}.arrow").stat().st_size
    monkeypatch.setenv("POLYPROMPT_CACHE_GB", str(room * size / 2**30))


def _kept(folder: Path) -> str:
    return "".join(letter for letter in "abcdefgh" if (folder / f"{cache.key(letter)}.arrow").exists())


def test_the_longest_unused_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    others = [folder / "notes.txt", folder / "mine.arrow"]
    for other in others:
        other.write_bytes(b"x" * 100_000)
    unfinished = folder / f".{cache.key('z')}.arrow.tmp123"
    unfinished.write_bytes(b"x" * 6000)
    os.utime(unfinished, ns=(0, 0))
    _filled(folder, "abcde", monkeypatch, 4.2)
    made: list[str] = []
    assert cache.through(cache.key("a"), str, lambda: made.append("a") or "") == "a" * 4000
    assert made == []
    cache.through(cache.key("f"), str, lambda: "f" * 4000)
    assert _kept(folder) == "adef"
    assert not unfinished.exists()
    assert all(other.exists() for other in others)
    assert cache.through(cache.key("b"), str, lambda: "again") == "again"


def test_what_is_larger_than_the_cache_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _filled(folder, "abc", monkeypatch, 3.2)
    assert cache.through(cache.key("g"), str, lambda: "g" * 40_000) == "g" * 40_000
    assert _kept(folder) == "abc"


@pytest.mark.parametrize("value", ["much", "-1", "nan"])
def test_a_size_that_is_none_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("POLYPROMPT_CACHE_GB", value)
    with pytest.raises(PolypromptError, match=r"POLYPROMPT_CACHE_GB is .* must be a number"):
        cache.through(cache.key("a"), str, lambda: "a")


def test_views_outlive_their_file(folder: Path) -> None:
    hint = tuple[np.ndarray[typing.Any, typing.Any], ...]
    made = (np.arange(100_000, dtype=np.int32), np.ones((3, 2), np.int32)[:0])
    with pytest.raises(ValueError, match="dimension"):  # axes differ: no columns, so it is not kept
        to_batch(hint, made)
    assert cache.through(cache.key("odd"), hint, lambda: made) is made
    made = (np.arange(100_000, dtype=np.int32), np.zeros(5, np.int32))
    cache.through(cache.key("a"), hint, lambda: made)
    views = cache.through(cache.key("a"), hint, lambda: ())
    for path in folder.iterdir():
        path.unlink()
    assert all(np.array_equal(old, new) for old, new in zip(made, views, strict=True))
    assert not any(view.flags.writeable or view.flags.owndata for view in views)


# --- where the folder is --------------------------------------------------------------------------------------------


def test_off(folder: Path, parsed: list[Path], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPROMPT_CACHE", "off")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)
    assert read(table) == read(table) == EXPECTED
    assert parsed == [table, table]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("POLYPROMPT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.folder() == tmp_path / ".cache" / "polyprompt"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "polyprompt"
    monkeypatch.setenv("POLYPROMPT_CACHE", "~/here")
    assert cache.folder() == tmp_path / "here"


def test_a_folder_that_cannot_be_written(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("POLYPROMPT_CACHE", str(blocked))
    assert read(table) == read(table) == EXPECTED
    assert blocked.read_text() == "no folder"


def test_lone_surrogates_of_json(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "data" / "squad" / "dev-v1.1.json"
    path.parent.mkdir(parents=True)
    question = {"id": "1", "question": "\ud83d?", "answers": [{"text": "b\udc80", "answer_start": 1}]}
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "ab\udc80", "qas": [question]}]}]}))
    first, second = (data.load(SQUAD, "dev", "en", tmp_path / "data") for _ in range(2))
    assert len(list(folder.iterdir())) == 1
    assert first == second == Split((Example("1", "\ud83d?", "ab\udc80", answers=(Answer("b\udc80", 1),)),))


def test_real_files_come_back(shared: Path, folder: Path) -> None:
    """A large one, one of words and one of answers."""
    for name, split, count in (("sst2", "train", 67_349), ("udpos", "test", 5440), ("xquad", "test", 1190)):
        [task] = [task for suite in suites() for task in suite.tasks if task.name == name]
        first, second = (data.load(task, split, "en", shared / "data") for _ in range(2))
        assert first == second
        assert len(first.examples) == count
    assert len(list(folder.iterdir())) == 3
