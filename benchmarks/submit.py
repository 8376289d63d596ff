"""`python -m benchmarks.submit RUN --suite glue --out PATH`: a run's predictions as the benchmark's server takes them.

PATH becomes a zip archive where its name ends in .zip, else a folder. The exit status is 2 when nothing was written,
be it that a task is missing or anything else. docs/submissions.md says what each benchmark takes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from benchmarks.errors import PolypromptError, did_you_mean, run_command
from benchmarks.files import write_atomic
from benchmarks.submissions.conll import CONLL
from benchmarks.submissions.format import Format
from benchmarks.submissions.gather import gather
from benchmarks.submissions.glue import GLUE
from benchmarks.submissions.squad import SQUAD
from benchmarks.submissions.superglue import SUPERGLUE
from benchmarks.submissions.xtreme import XTREME

FORMATS: Mapping[str, Format] = {form.suite: form for form in (GLUE, SUPERGLUE, SQUAD, CONLL, XTREME)}
"""Suite -> how its benchmark takes predictions."""

_ALWAYS = (1980, 1, 1, 0, 0, 0)
"""The time of each file in an archive: equal predictions give equal bytes."""


def write(path: Path, files: Mapping[str, str]) -> None:
    """Write files as a zip archive or a folder that is complete or absent.

    Args:
        path: of the archive, which ends in ".zip", or of the folder.
        files: path in it -> text.

    Raises:
        PolypromptError: it exists already.
    """
    if path.exists():
        raise PolypromptError(f"--out {path}: exists already; remove it or choose another name")
    if path.suffix == ".zip":
        write_atomic(path, lambda file: _write_archive(file, files))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for name, text in files.items():
            write_atomic(aside / name, text)
        aside.chmod(0o755)  # mkdtemp's 0700 would hide it from a colleague
        aside.rename(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _write_archive(file: BinaryIO, files: Mapping[str, str]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name, _ALWAYS)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, text)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.submit", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--suite", required=True, help=f"whose format: {', '.join(FORMATS)}")
    parser.add_argument(
        "--split",
        choices=("dev", "test"),
        default="test",
        help="which predictions; of a task without such a split those of the reported one (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, help="zip archive or folder to write")
    parser.add_argument("--data-dir", type=Path, help="folder with the official files, to hold predictions against")
    parser.add_argument("--skip-missing", action="store_true", help="write it although tasks or languages are missing")
    parser.add_argument("--json", action="store_true", help="print what was written and left out as JSON")
    options = parser.parse_args()
    if options.suite not in FORMATS:
        raise PolypromptError(f"--suite {options.suite}: no such format: {did_you_mean(options.suite, FORMATS)}")
    submission = gather(options.run, FORMATS[options.suite], options.split, options.data_dir)
    for sentence in submission.left_out:
        print(f"left out: {sentence}", file=sys.stderr)
    if not submission.files:
        raise PolypromptError(f"{options.run}: nothing of it can be submitted to {options.suite}")
    if submission.left_out and not options.skip_missing:
        raise PolypromptError("the submission is not complete, nothing was written; --skip-missing writes the rest")
    write(options.out, submission.files)
    if options.json:
        written = {"suite": options.suite, "out": str(options.out), "files": list(submission.files)}
        print(json.dumps(written | {"left_out": submission.left_out}, indent=2))
    else:
        print(f"{options.out}: {len(submission.files)} files")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
