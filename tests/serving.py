"""The service in a process of its own."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Service:
    """A service that is ready."""

    process: subprocess.Popen[str]
    address: str

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.address}/{path}") as reply:
            return reply.read().decode()

    def ask(self, body: Any) -> Any:
        request = urllib.request.Request(f"{self.address}/answer", json.dumps(body).encode())
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(bundle: Path, *options: object, environment: Mapping[str, str] | None = None) -> Iterator[Service]:
    """`python -m exporters.serve` with these options, until the block ends; `environment` comes on top of this one."""
    port = free_port()
    command = [sys.executable, "-m", "exporters.serve", bundle, "--port", port, *options]
    around = os.environ | (environment or {})
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True, env=around)
    service = Service(process, f"http://127.0.0.1:{port}")
    try:
        for _ in range(1200):
            if process.poll() is not None:
                raise AssertionError(process.communicate()[1])
            try:
                service.get("health")
                break
            except OSError:
                time.sleep(0.1)
        yield service
    finally:
        process.kill()
        process.communicate()
