"""The service on a real encoder under what schemathesis makes up and under load by wrk; run by `tox -e serve`."""

import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from bundles import demo_run
from serving import Service, free_port, serving

from benchmarks.registry import find_suite
from exporters.engines import ENGINES, installed
from exporters.export import export
from exporters.session import Session

pytest.importorskip("uvicorn", reason="needs the extra `serve`")
pytest.importorskip("starlette", reason="needs the extra `serve`")
pytest.importorskip("prometheus_client", reason="needs the extra `serve`")
import uvicorn

from exporters.serve import make_app

POST = Path(__file__).parent / "load" / "post.lua"
CONNECTIONS = 16
WARM, LOADED = 3000, 3000
"""Requests until memory is looked at for the first time, and from then to the last time, at least."""

GROWTH = 8192
"""Bytes a request by which resident memory may grow in the second part of the load."""

NOTHING_REMEMBERED = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0"}
"""OpenVINO's products remember 1,024 kernels by their shapes, more than the requests of a test bring: without them what
grows is a leak. docs/serve.md has what they take."""

pytestmark = pytest.mark.slow
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk (https://github.com/wg/wrk)")
needs_schemathesis = pytest.mark.skipif(find_spec("schemathesis") is None, reason="needs schemathesis: tox -e serve")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kinds of task over a real encoder."""
    folder = tmp_path_factory.mktemp("load")
    demo_run(folder / "run", "minilm-l6-en")
    export(folder / "run", folder / "bundle", rows=2, max_drop=100)
    return folder / "bundle"


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real rows of all tasks in turn, a line each."""
    of_tasks = []
    for task in find_suite("demo").tasks:
        split = task.source.read(task.card, "test", "de", None)
        rows = [
            {
                "task": task.card.name,
                "text": row.text,
                "text_pair": row.text_pair,
                "choices": row.choices or split.candidates[:5],
                "tokens": row.tokens,
            }
            for row in split.examples[:50]
        ]
        of_tasks.append([json.dumps({name: value for name, value in row.items() if value}) for row in rows])
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    path.write_text("".join(f"{line}\n" for lines in zip(*of_tasks, strict=True) for line in lines))
    return path


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    if request.param not in installed():
        pytest.skip(f"{request.param} cannot compute here: it needs the extra `cpu`, and bf16 a processor that has it")
    return request.param


@pytest.fixture(scope="module")
def service(bundle: Path, engine: str) -> Iterator[Service]:
    with serving(bundle, "--engine", engine, environment=NOTHING_REMEMBERED) as running:
        yield running


def wrk(service: Service, questions: Path, seconds: float, connections: int = CONNECTIONS) -> dict:
    """Load for so many seconds; what `load/post.lua` says of it."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "120s", "-s", POST]
    command += [f"{service.address}/answer", "--", questions]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def counted(service: Service) -> dict[str, int]:
    """Requests by status, as the service counts them."""
    found = re.findall(r'^polyprompt_requests_total{status="(\d+)"} (\S+)$', service.get("metrics"), re.MULTILINE)
    return {status: round(float(count)) for status, count in found}


@needs_schemathesis
def test_what_schemathesis_makes_up(service: Service, tmp_path: Path) -> None:
    """No answer differs from what the service says of itself, whether the request is right or wrong."""
    program = [sys.executable, "-c", "import schemathesis.cli as cli; cli.schemathesis()"]
    options = ["--checks", "all", "--exclude-checks", "positive_data_acceptance,negative_data_rejection"]
    options += ["--max-examples", "60", "--generation-deterministic", "--no-color"]
    # In a folder of its own: it writes reports where it runs.
    command = [*program, "run", f"{service.address}/openapi.json", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, f"{done.stdout[-4000:]}{done.stderr[-500:]}"
    print(done.stdout[-400:])
    assert {"200", "422"} <= counted(service).keys()
    assert "500" not in counted(service)


@needs_wrk
def test_load_fails_no_request_and_leaks_nothing(service: Service, questions: Path) -> None:
    memory = psutil.Process(service.process.pid)
    before, parts = counted(service), []

    def asked() -> int:
        return sum(part["statuses"]["200"] for part in parts)

    def load(least: int) -> int:
        """Bytes in memory after so many requests more."""
        end = least + asked()
        while asked() < end:
            parts.append(wrk(service, questions, 10))
        return memory.memory_info().rss

    warm = load(WARM)
    first = asked()
    after = load(LOADED)
    print(f"\n{first} requests: {warm / 1e6:.1f} MB; {asked()}: {after / 1e6:.1f} MB")
    assert all(part["failed"] == 0 and set(part["statuses"]) == {"200"} for part in parts)
    done = {status: count - before.get(status, 0) for status, count in counted(service).items()}
    # What is under way when wrk ends is answered too, to nobody.
    assert asked() <= done.pop("200") <= asked() + len(parts) * CONNECTIONS
    assert not any(done.values())
    assert after - warm < GROWTH * (asked() - first)


@needs_wrk
def test_a_bounded_queue_under_load(bundle: Path, engine: str, questions: Path) -> None:
    with serving(bundle, "--engine", engine, "--queue", 2) as service:
        found = wrk(service, questions, 6)
        print(found)
        assert found["failed"] == 0
        assert set(found["statuses"]) == {"200", "429"}
        while "polyprompt_held_questions 0.0" not in service.get("metrics"):  # the last ones, whose clients are gone
            time.sleep(0.1)
        line = json.loads(questions.read_text().splitlines()[0])
        assert service.ask(line)["task"] == line["task"]
        service.process.send_signal(signal.SIGTERM)
        assert service.process.communicate(timeout=120)[1] == ""


@contextmanager
def stopped_after(app, seconds: float) -> Iterator[str]:
    """A service in this process, told to stop after so many seconds; when the block ends it has stopped."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    timer = threading.Timer(seconds, lambda: setattr(server, "should_exit", True))
    timer.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        timer.join()
        thread.join()


def test_a_stop_under_load_loses_no_request_that_was_taken(bundle: Path, engine: str, questions: Path) -> None:
    """Every request that reaches the service is answered whole, in a stop too; the others find the door closed."""
    taken: Counter[str] = Counter()
    inner = make_app(Session(bundle, engine=engine))

    async def app(scope, receive, send):
        taken[scope["type"]] += 1
        await inner(scope, receive, send)

    lines = questions.read_bytes().splitlines()

    def ask(address: str, first: int) -> Counter[str]:
        found: Counter[str] = Counter()
        connection = http.client.HTTPConnection(address, timeout=300)
        for number in range(first, 1_000_000):
            line = lines[number % len(lines)]
            try:
                connection.request("POST", "/answer", line)
                reply = connection.getresponse()
            except (ConnectionError, http.client.RemoteDisconnected):
                return found
            body = reply.read()  # raises where the answer is cut off
            answered = reply.status == 200 and json.loads(body)["task"] == json.loads(line)["task"]
            found["answered" if answered else f"{reply.status}"] += 1
        return found

    results: list[Counter[str]] = []
    with stopped_after(app, 5) as address:
        clients = [
            threading.Thread(target=lambda first=number: results.append(ask(address, first)))
            for number in range(CONNECTIONS)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    print(taken, results)
    assert len(results) == CONNECTIONS
    assert sum(results, Counter()) == {"answered": taken["http"]}
    assert taken["http"] > 3 * CONNECTIONS
