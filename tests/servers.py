"""Real servers for tests, each in a temporary folder and gone with the test."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def server(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a fresh "postgresql" or "redis"; "journal" is the path of a file."""
    if kind == "journal":
        yield str(folder / "a.journal")
        return
    pytest.importorskip({"postgresql": "psycopg", "redis": "redis"}[kind])
    with _postgresql(folder) if kind == "postgresql" else _redis(folder) as url:
        yield url


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs Redis: apt-get install redis-server")
    port = _free_port()
    words = [program, "--port", f"{port}", "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    with _running(words, port):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def _postgresql(folder: Path) -> Iterator[str]:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    initdb = shutil.which("initdb", path=os.pathsep.join([*map(str, reversed(folders)), os.environ["PATH"]]))
    if initdb is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    data, port = folder / "postgres", _free_port()
    user = None
    if os.geteuid() == 0:  # it refuses to run as root
        user = "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"
        data.mkdir()
        shutil.chown(data, user)
        for above in data.parents:  # which pytest makes for root alone
            if above.stat().st_uid == 0 and str(above).startswith("/tmp/"):
                above.chmod(above.stat().st_mode | 0o011)
    options = ["-D", str(data), "-U", "polyprompt", "--auth", "trust", "--no-sync"]
    made = subprocess.run([initdb, *options], user=user, cwd="/", capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    program = str(Path(initdb).resolve().with_name("postgres"))
    words = [program, "-D", str(data), "-p", f"{port}", "-h", "127.0.0.1", "-k", "", "-F"]
    with _running(words, port, user):
        yield f"postgresql://polyprompt@127.0.0.1:{port}/postgres"


@contextmanager
def _running(words: list[str], port: int, user: str | None = None) -> Iterator[None]:
    process = subprocess.Popen(words, user=user, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            assert process.poll() is None, f"{words[0]} ended with status {process.returncode}"
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        time.sleep(0.3)  # it listens a moment before it answers
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
