"""A server on this machine that speaks what `datasets.load_dataset("owner/name")` asks of the hub."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "5" * 40
"""At which every dataset of the server is."""


class FakeHub(ThreadingHTTPServer):
    """Serves folders owner/name/... as datasets.

    Attributes:
        root: the folder that holds them.
        asked: "METHOD path" of each request.
        last: name of the data file after which the server is gone; empty: none.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.asked: list[str] = []
        self.last = ""
        self.gone = False

    @property
    def endpoint(self) -> str:
        """The address for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def downloads(self) -> list[str]:
        """Names of the data files that were given, in order."""
        return [Path(line).name for line in self.asked if line.startswith("GET ") and line.endswith(".parquet")]


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        place = unquote(urlsplit(self.path).path)
        self.close_connection = self.close_connection or self.server.gone
        if self.server.gone:
            return
        self.server.asked.append(f"{self.command} {place}")
        match place.strip("/").split("/"):
            case ["api", "datasets", owner, name]:
                self._dataset(owner, name)
            case ["api", "datasets", owner, name, "revision", commit] if commit == COMMIT:
                self._dataset(owner, name)
            case ["api", "datasets", owner, name, "tree", commit, *folder] if commit == COMMIT:
                self._folder(owner, name, folder)
            case ["datasets", owner, name, "resolve", commit, *file] if commit == COMMIT:
                self._file(self.server.root.joinpath(owner, name, *file))
            case _:
                self._missing("RepoNotFound")

    do_HEAD = do_GET

    def _dataset(self, owner: str, name: str) -> None:
        folder = self.server.root / owner / name
        if not folder.is_dir():
            return self._missing("RepoNotFound")
        files = [{"rfilename": path.relative_to(folder).as_posix()} for path in folder.rglob("*") if path.is_file()]
        return self._json({"id": f"{owner}/{name}", "sha": COMMIT, "siblings": files})

    def _folder(self, owner: str, name: str, inside: list[str]) -> None:
        dataset = self.server.root / owner / name
        folder = dataset.joinpath(*inside)
        if not folder.is_dir():
            return self._missing("EntryNotFound")
        return self._json(
            [
                {
                    "type": "directory" if path.is_dir() else "file",
                    "path": path.relative_to(dataset).as_posix(),
                    "oid": "0" * 40,
                    "size": 0 if path.is_dir() else path.stat().st_size,
                }
                for path in sorted(folder.iterdir())
            ]
        )

    def _file(self, path: Path) -> None:
        if not path.is_file():
            return self._missing("EntryNotFound")
        content = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self._send(200, content, headers)
        self.server.gone = self.command == "GET" and path.name == self.server.last
        return None

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _missing(self, code: str) -> None:
        self._send(404, b"{}", {"X-Error-Code": code, "X-Repo-Commit": COMMIT})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def fake_hub(root: Path) -> Iterator[FakeHub]:
    """A running server."""
    server = FakeHub(root)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
