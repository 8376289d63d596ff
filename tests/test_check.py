"""Whether a data folder holds the official files: what is said, and the exit status."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import check as checks
from benchmarks.check import Verdict, check
from benchmarks.choice import chosen_tasks
from benchmarks.errors import PolypromptError
from benchmarks.lock import Lock, Origin, measured, read_lock, write_lock
from benchmarks.registry import find_task

ROOT = Path(__file__).parents[1]
TRAIN = "sentence\tlabel\nfine film\t1\ndull\t0\nwarm\t1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Train and dev of SST-2, and beside the folder a lock of them."""
    place = tmp_path / "data" / "glue" / "SST-2"
    place.mkdir(parents=True)
    (place / "train.tsv").write_text(TRAIN)
    (place / "dev.tsv.gz").write_bytes(gzip.compress(TRAIN.replace("warm", "cold").encode()))
    write_lock(tmp_path / "own.lock", measured(Lock(), [find_task("sst2")], tmp_path / "data"))
    return tmp_path / "data"


def command(folder: Path, *more: str) -> list[str]:
    return ["--data-dir", str(folder), "--tasks", "sst2", "--lock", str(folder.parent / "own.lock"), *more]


def verdicts(folder: Path) -> dict[str, tuple[Verdict, int | None]]:
    (report,) = check([find_task("sst2")], folder, read_lock(folder.parent / "own.lock"))
    return {Path(file.file).stem: (file.verdict, file.line) for file in report.files}


def test_all_agree(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agrees = (Verdict.AGREES, None)
    assert verdicts(folder) == {"train": agrees, "dev": agrees, "test": (Verdict.MISSING, None)}
    assert checks.main(command(folder)) == 0
    out = capsys.readouterr().out
    row = next(line.split() for line in out.splitlines() if line.startswith("glue "))
    assert row[:5] == ["glue", "sst2", "2", "1", "unclear"]
    assert "differs:" not in out and "not in the lock:" not in out
    assert "missing:\n  sst2: glue/SST-2/test.tsv\n" in out and find_task("sst2").how_to_get in out


@pytest.mark.parametrize("compressed", [False, True])
def test_a_changed_byte_is_named_by_file_and_line(
    folder: Path, capsys: pytest.CaptureFixture[str], compressed: bool
) -> None:
    name, changed = ("dev.tsv.gz", TRAIN.replace("warm", "colD")) if compressed else ("train.tsv", TRAIN[:-2] + "0\n")
    path = folder / "glue" / "SST-2" / name
    path.write_bytes(gzip.compress(changed.encode()) if compressed else changed.encode())
    assert verdicts(folder)[name.partition(".")[0]] == (Verdict.DIFFERS, 4)
    assert checks.main(command(folder)) == 1
    assert f"differs:\n  {path}: line 4\n" in capsys.readouterr().out


def test_a_lost_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "glue" / "SST-2" / "train.tsv").write_text(TRAIN.replace("dull\t0\n", ""))
    assert checks.main(command(folder)) == 1
    assert "train.tsv: 3 lines where 4 are expected; the first difference is in line 3" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_differs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "glue" / "SST-2" / "dev.tsv.gz"
    path.write_bytes(path.read_bytes()[:-9])
    assert checks.main(command(folder)) == 1
    assert f"{path}: it cannot be read (" in capsys.readouterr().out


def test_a_file_that_the_lock_does_not_know(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "glue" / "SST-2" / "test.tsv"
    path.write_text("index\tsentence\n0\tfine\n")
    assert verdicts(folder)["test"] == (Verdict.UNLOCKED, None)
    assert checks.main(command(folder)) == 0
    out = capsys.readouterr().out
    assert f"there, but not in the lock:\n  {path}" in out and "missing:" not in out


def test_a_rebuilt_original_is_said_to_be_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder.parent / "own.lock"
    lock = read_lock(path)
    lock.datasets["sst2"].origins.append(Origin(files="*/train.tsv", source="x", rebuilt="columns put in order"))
    write_lock(path, lock)
    (folder / "glue" / "SST-2" / "train.tsv").write_text(TRAIN.replace("dull", "Dull"))
    assert checks.main(command(folder)) == 1
    assert "train.tsv: line 3 (the lock knows no official bytes of it: columns put in order)" in capsys.readouterr().out


def test_a_file_of_two_tasks_is_listed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "squad" / "train-v1.1.json"
    path.parent.mkdir()
    path.write_text("{}")
    assert checks.main(["--data-dir", str(tmp_path), "--suite", "squad,xtreme"]) == 0
    assert capsys.readouterr().out.count(str(path)) == 1


def test_generated_tasks_have_no_files(tmp_path: Path) -> None:
    assert check(chosen_tasks(["demo"], []), tmp_path, Lock()) == []


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "glue" / "SST-2" / "train.tsv").write_text(TRAIN.replace("dull", "Dull"))
    assert checks.main(command(folder, "--json")) == 1
    (report,) = json.loads(capsys.readouterr().out)
    train, dev, test = report["files"]
    assert (report["suite"], report["task"], report["redistribution"]) == ("glue", "sst2", "unclear")
    assert report["licence"] == find_task("sst2").licence
    assert (train["file"], train["verdict"], train["line"], train["note"]) == (
        "glue/SST-2/train.tsv",
        "differs",
        3,
        "line 3",
    )
    assert (dev["verdict"], dev["path"]) == ("agrees", str(folder / "glue" / "SST-2" / "dev.tsv.gz"))
    assert (test["verdict"], test["path"]) == ("missing", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "glu"], "unknown suite 'glu': did you mean 'glue'?"),
        (["--tasks", "sst"], "unknown task 'sst'"),
        (["--suite", "squad", "--tasks", "sst2"], "--tasks sst2: belongs to suite glue"),
        (["--data-dir", "absent"], "--data-dir absent: no such folder"),
        (["--lock", "absent"], "absent: no such lock"),
    ],
)
def test_bad_options(folder: Path, options: list[str], message: str) -> None:
    with pytest.raises(PolypromptError) as error:
        checks.main(["--data-dir", str(folder), *options])
    assert message in str(error.value)


def test_exit_statuses_of_the_program(folder: Path) -> None:
    def run(*arguments: str) -> Any:
        program = [sys.executable, "-m", "benchmarks.check", *command(folder), *arguments]
        return subprocess.run(program, cwd=ROOT, capture_output=True, text=True)

    bad = run("--tasks", "nothing")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("error: unknown task 'nothing'") and bad.stderr.count("\n") == 1
    (folder / "glue" / "SST-2" / "train.tsv").write_text("x")
    differing = run()
    assert (differing.returncode, differing.stderr) == (1, "")


def test_real_files_agree_with_the_lock(shared: Path) -> None:
    reports = check(chosen_tasks([], []), shared / "data", read_lock())
    files = [file for report in reports for file in report.files]
    assert [file for file in files if file.verdict is Verdict.DIFFERS] == []
    assert sum(file.verdict is Verdict.AGREES for file in files) > 150


def test_a_changed_byte_of_a_real_file(shared: Path, tmp_path: Path) -> None:
    """The line is found by the package's lock alone."""
    content = gzip.decompress((shared / "data" / "glue" / "RTE" / "train.tsv.gz").read_bytes())
    place = tmp_path / "glue" / "RTE"
    place.mkdir(parents=True)
    at = len(content) // 2
    (place / "train.tsv").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    (report,) = check([find_task("rte")], tmp_path, read_lock())
    assert report.files[0].line == content.count(b"\n", 0, at) + 1


def test_folders_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A task whose files have no fixed names: each is locked, named when it changed, and listed when it is gone."""
    folder = tmp_path / "data" / "conll-formatted-ontonotes-5.0/data/train/data/english/annotations/bc/cnn/00"
    folder.mkdir(parents=True)
    for number in (1, 2, 3):
        (folder / f"cnn_000{number}.gold_conll").write_text(f"one\ntwo {number}\n")
    lock = measured(Lock(), [find_task("ontonotes")], tmp_path / "data")
    assert [Path(file).name for file in lock.datasets["ontonotes"].files] == [
        f"cnn_000{number}.gold_conll" for number in (1, 2, 3)
    ]
    write_lock(tmp_path / "own.lock", lock)
    (folder / "cnn_0001.gold_conll").unlink()
    (folder / "cnn_0002.gold_conll").write_text("one\ntwo 7\n")
    (folder / "cnn_0004.gold_conll").write_text("new\n")
    options = ["--data-dir", str(tmp_path / "data"), "--tasks", "ontonotes", "--lock", str(tmp_path / "own.lock")]
    assert checks.main(options) == 1
    out = capsys.readouterr().out
    assert f"differs:\n  {folder / 'cnn_0002.gold_conll'}: line 2\n" in out
    assert f"there, but not in the lock:\n  {folder / 'cnn_0004.gold_conll'}\n" in out
    assert f"ontonotes: {folder.relative_to(tmp_path / 'data') / 'cnn_0001.gold_conll'}\n" in out
    missing = out.partition("missing:")[2]
    assert "data/train/data/english/annotations/bn/**/*gold_conll" in missing
    assert "data/train/data/english/annotations/bc/**/*gold_conll" not in missing
