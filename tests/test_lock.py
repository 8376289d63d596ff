"""The lock of the official files: places found without the data, and what the command writes."""

from __future__ import annotations

import gzip
import hashlib
import random
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import lock as locks
from benchmarks.choice import chosen_tasks, split_places
from benchmarks.errors import DataError, PolypromptError
from benchmarks.fingerprint import P, _changed, _recurrence, difference, fingerprint
from benchmarks.lock import Dataset, Lock, Origin, measured, read_lock, write_lock
from benchmarks.registry import find_task

SST2 = "sentence\tlabel\nfine film\t1\ndull\t0\nwarm\t1\n"


def lines(count: int) -> list[bytes]:
    return [f"row {number}\t{number % 7}\n".encode() for number in range(count)]


def test_numbers_are_the_sums_of_their_definition() -> None:
    content = b'{"a": {"b": 1}, "c": 2}\nplain\n\nlast'
    pieces = [b'{"a": {"b": 1}', b', "c": 2}', b"plain", b"", b"last"]
    hashes = [int.from_bytes(hashlib.blake2b(piece, digest_size=8).digest(), "big") % P for piece in pieces]
    found = fingerprint(content)
    assert (found.lines, found.pieces) == (4, 5)
    assert found.moments == tuple(sum(h * pow(i, j, P) for i, h in enumerate(hashes, 1)) % P for j in range(8))
    assert found.blocks == tuple(hashes)


def test_blocks_are_at_most_16_and_hold_every_piece() -> None:
    hashes = [int.from_bytes(hashlib.blake2b(line[:-1], digest_size=8).digest(), "big") % P for line in lines(100)]
    blocks = fingerprint(b"".join(lines(100))).blocks
    assert len(blocks) == 16
    assert sum(blocks) % P == sum(hashes) % P
    assert blocks[0] == sum(hashes[:6]) % P  # 100 / 16 = 6.25


def test_recurrence_of_the_fibonacci_numbers() -> None:
    assert _recurrence([1, 1, 2, 3, 5, 8, 13, 21]) == [1, P - 1, P - 1]
    assert _recurrence([0] * 8) == [1]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [5, 16, 17, 3_000])
def test_up_to_four_changed_lines_are_named(count: int, size: int) -> None:
    draw = random.Random(size + count)
    known = fingerprint(b"".join(lines(size)))
    for _ in range(5):
        copy = lines(size)
        changed = sorted(draw.sample(range(size), count))
        for number in changed:
            copy[number] = copy[number].replace(b"row", b"roW")
        found = difference(known, b"".join(copy))
        assert found.text == ", ".join(f"line {number + 1}" for number in changed)
        assert found.line == changed[0] + 1


def test_a_line_that_the_file_does_not_have_is_not_named() -> None:
    """Moments of changes in lines 3 and 90 of a file of 50 lines: no such change, so more than 4 lines changed."""
    known = fingerprint(b"".join(lines(50)))
    moments = tuple((m + 3**j + 90**j) % P for j, m in enumerate(known.moments))
    assert _changed(known, replace(known, moments=moments)) == []


def test_swapped_lines_are_named() -> None:
    copy = lines(50)
    copy[9], copy[30] = copy[30], copy[9]
    assert difference(fingerprint(b"".join(lines(50))), b"".join(copy)).text == "line 10, line 31"


@pytest.mark.parametrize("changed", [range(20, 25), range(37, 99), [0, 30, 60, 90, 99]])
def test_the_first_block_with_a_change_is_named(changed: list[int]) -> None:
    copy = lines(100)
    for number in changed:
        copy[number] = b"other\n"
    found = difference(fingerprint(b"".join(lines(100))), b"".join(copy))
    first, last = map(int, found.text.removeprefix("the first difference is in lines ").split("-"))
    assert first <= changed[0] + 1 <= last < first + 7
    assert found.line == first


@pytest.mark.parametrize(("at", "gone"), [(40, 1), (40, 30), (0, 100), (93, 7)])
def test_lines_that_went(at: int, gone: int) -> None:
    copy = lines(100)
    del copy[at : at + gone]
    text = difference(fingerprint(b"".join(lines(100))), b"".join(copy)).text
    assert text.startswith(f"{100 - gone} lines where 100 are expected; ")
    if at + gone == 100:
        assert text.endswith("the copy ends too early") or f"-{at}" in text
    else:
        assert text.endswith("the first difference is in lines 38-43")  # the block of pieces 37..42, from 0


def test_lines_that_came() -> None:
    known = fingerprint(b"".join(lines(100)))
    middle = difference(known, b"".join([*lines(100)[:40], b"new\n", *lines(100)[40:]]))
    assert middle.text == "101 lines where 100 are expected; the first difference is in lines 38-43"
    behind = difference(known, b"".join([*lines(100), b"new\n"]))
    assert (behind.line, behind.text) == (101, "101 lines where 100 are expected; the first difference is in line 101")
    assert difference(fingerprint(b""), b"new\n").line == 1


@pytest.mark.parametrize("change", [(b"\n", b"\r\n"), (b"last\n", b"last")])
def test_line_ends_are_told_apart_from_lines(change: tuple[bytes, bytes]) -> None:
    content = b"".join(lines(20)) + b"last\n"
    found = difference(fingerprint(content), content.replace(*change))
    assert (found.line, found.text) == (0, "line ends, or the end of the file")


def test_a_blank_last_line_is_a_line() -> None:
    assert fingerprint(b"a\n\n").lines == 2
    assert fingerprint(b"a\n").lines == fingerprint(b"a").lines == 1
    assert difference(fingerprint(b"a\n"), b"a\n\n").text.startswith("2 lines where 1 are expected; ")


def test_a_place_in_a_file_of_one_line() -> None:
    content = b'{"data": [{"q": "one"}, {"q": "two"}, {"q": "three"}]}'
    at = content.index(b"two")
    assert difference(fingerprint(content), content.replace(b"two", b"Zwei")).text == "line 1 from byte 23 on"
    assert content[22 : at + 5] == b', {"q": "two"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with two splits of SST-2, one of them compressed."""
    place = tmp_path / "data" / "glue" / "SST-2"
    place.mkdir(parents=True)
    (place / "train.tsv").write_text(SST2)
    (place / "dev.tsv.gz").write_bytes(gzip.compress(SST2.replace("warm", "cold").encode()))
    return tmp_path / "data"


def test_what_is_measured(folder: Path) -> None:
    task = find_task("sst2")
    lock = measured(Lock(), [task], folder)
    entry = lock.datasets["sst2"]
    assert list(lock.datasets) == ["sst2"]
    assert list(entry.files) == ["glue/SST-2/dev.tsv", "glue/SST-2/train.tsv"]
    assert entry.licence == task.licence and entry.url == task.url and entry.hub == ["nyu-mll/glue"]
    dev, train = entry.files.values()
    assert (train.rows, train.lines) == (3, 4)
    assert train.sha256 == hashlib.sha256(SST2.encode()).hexdigest()
    assert dev.sha256 == hashlib.sha256(SST2.replace("warm", "cold").encode()).hexdigest()


def test_plain_and_compressed_agree(folder: Path) -> None:
    before = measured(Lock(), [find_task("sst2")], folder)
    plain = folder / "glue" / "SST-2" / "train.tsv"
    plain.with_name("train.tsv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert measured(Lock(), [find_task("sst2")], folder) == before


def test_what_is_not_there_and_what_a_person_wrote_is_kept(folder: Path, tmp_path: Path) -> None:
    lock = measured(Lock(), [find_task("sst2")], folder)
    origin = Origin(files="*.tsv", source="https://example.org", rebuilt="columns put in order")
    by_hand = {"redistribution": "no", "origins": [origin], "left_out": {"*/dev.tsv": "a part"}}
    lock.datasets["sst2"] = lock.datasets["sst2"].model_copy(update=by_hand)
    train = lock.datasets["sst2"].files["glue/SST-2/train.tsv"]
    (folder / "glue" / "SST-2" / "train.tsv").unlink()
    write_lock(tmp_path / "data.lock", lock)
    again = measured(read_lock(tmp_path / "data.lock"), [find_task("sst2")], folder).datasets["sst2"]
    assert again.files == {"glue/SST-2/train.tsv": train}
    assert again.redistribution == "no" and again.origins == [origin]
    assert again.rebuilt("glue/SST-2/train.tsv") == "columns put in order" and not again.rebuilt("x.json")


def test_other_tasks_are_kept_and_shared_files_are_measured_once(folder: Path) -> None:
    first = measured(Lock(), [find_task("sst2")], folder)
    squad = folder / "squad" / "dev-v1.1.json"
    squad.parent.mkdir()
    answers = '[{"text": "Rhine", "answer_start": 0}]'
    question = '{"id": "q", "question": "Q?", "answers": ' + answers + "}"
    squad.write_text('{"data": [{"paragraphs": [{"context": "Rhine", "qas": [' + question + "]}]}]}")
    lock = measured(first, chosen_tasks(["squad", "xtreme"], []), folder)
    assert lock.datasets["sst2"] == first.datasets["sst2"]
    assert lock.datasets["squad"].files["squad/dev-v1.1.json"].rows == 1
    assert not lock.datasets["xquad"].files
    assert lock.find(["xtreme/download/squad/dev-v1.1.json", "squad/dev-v1.1.json"]) == (
        lock.datasets["squad"],
        "squad/dev-v1.1.json",
    )


def test_a_file_that_cannot_be_read_does_not_go_in(folder: Path) -> None:
    (folder / "glue" / "SST-2" / "train.tsv").write_text("sentence\tlabel\nfine\t7\n")
    with pytest.raises(DataError, match=r"train.tsv:2: unknown label '7'"):
        measured(Lock(), [find_task("sst2")], folder)


def test_the_written_lock_is_equal_and_has_no_text_of_the_data(folder: Path, tmp_path: Path) -> None:
    lock = measured(Lock(), [find_task("sst2")], folder)
    write_lock(tmp_path / "a", lock)
    assert read_lock(tmp_path / "a") == lock
    write_lock(tmp_path / "b", read_lock(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert "fine" not in (tmp_path / "a").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version = 1\ndatasets = 3", "datasets: "),
        ("version = 2", "version: "),
        ("version =", "not TOML"),
        ('[datasets.a]\ntitle = ""\nurl = ""\nlicence = ""\nredistribution = "perhaps"', "datasets.a.redistribution: "),
        (
            '[datasets.a]\ntitle = ""\nurl = ""\nlicence = ""\n[datasets.a.files.x]\n'
            'sha256 = ""\nlines = 1\npieces = 1\nmoments = "AAAA"\nblocks = ""',
            "datasets.a.files.x.moments: ",
        ),
    ],
)
def test_a_malformed_lock_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "data.lock"
    path.write_text(text)
    with pytest.raises(PolypromptError, match=message) as error:
        read_lock(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.lock"
    assert locks.main(["--data-dir", str(folder), "--suite", "glue", "--lock", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: 2 files of ")
    assert sorted(read_lock(path).datasets["sst2"].files) == ["glue/SST-2/dev.tsv", "glue/SST-2/train.tsv"]
    with pytest.raises(PolypromptError, match="--data-dir"):
        locks.main(["--data-dir", str(tmp_path / "absent")])


def test_the_package_lock_is_small_and_names_files_of_tasks() -> None:
    assert locks.LOCK.stat().st_size < 300 * 1024
    lock = read_lock()
    tasks = {task.name: task for task in chosen_tasks([], [])}
    for name, dataset in lock.datasets.items():
        known = {file for place in split_places(tasks[name]) for files in place.files for file in files.split("|")}
        assert set(dataset.files) <= known
        assert dataset.licence == tasks[name].licence
        assert all(dataset.why_left_out(file) == "" for file in dataset.files)
        assert not dataset.files or dataset.origins, f"{name}: say where its files came from"


def test_counts_are_those_of_the_publications() -> None:
    """Rows as the papers and data cards count them."""
    files = {file: entry for dataset in read_lock().datasets.values() for file, entry in dataset.files.items()}
    expected = {
        "glue/SST-2/train.tsv": 67_349,
        "glue/SST-2/dev.tsv": 872,
        "glue/RTE/train.tsv": 2_490,
        "glue/STS-B/dev.tsv": 1_500,
        "superglue/COPA/train.jsonl": 400,
        "xtreme/download/xnli/test-de.tsv": 5_010,
        "xtreme/download/xquad/xquad.de.json": 1_190,
        "xtreme/download/tatoeba/de-en.en": 1_000,  # the side whose sentences are searched for
        "squad/squadshifts/new_wiki_v1.0.json": 7_938,
        "xtreme/gold/xnli_test_labels.txt": None,  # it goes with the rows of every language
    }
    assert {file: files[file].rows for file in expected} == expected


def test_dataset_defaults_are_unclear() -> None:
    assert Dataset(title="", url="", licence="").redistribution == "unclear"
