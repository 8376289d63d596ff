"""The service beside a session, and what it refuses."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bundles import tiny_bundle, tiny_prompted
from serving import ROOT, serving

pytest.importorskip("starlette", reason="needs the extra `serve`")
pytest.importorskip("uvicorn", reason="needs the extra `serve`")
pytest.importorskip("prometheus_client", reason="needs the extra `serve`")
from starlette.testclient import TestClient

import exporters.serve
from exporters.predict import read_question, record
from exporters.serve import make_app
from exporters.session import Session

ASKED = [
    {"task": "mood", "text": "w7 w8", "id": "a"},
    {"task": "names", "tokens": ["w7", "w8", "w9"]},
    {"task": "question", "text": "w7", "text_pair": "w8 w9 w10"},
    {"task": "cause", "text": "w7", "choices": ["w8", "w9 w11"]},
    {"task": "degree", "text": "w12 w13 w14"},
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve") / "bundle"
    tiny_bundle(folder, tiny_prompted())
    return folder


@pytest.fixture(scope="module")
def session(bundle: Path) -> Session:
    return Session(bundle, threads=1)


def wanted(session: Session, asked: dict, number: int = 1) -> dict:
    question = read_question(json.dumps(asked).encode(), number, session, None)
    found = record(session.card(question.task), question.example, session.answer([question])[0])
    return json.loads(json.dumps(found))


def close(found: dict, other: dict) -> bool:
    """Equal but for the rounding of numbers."""
    if isinstance(found, dict):
        return found.keys() == other.keys() and all(close(found[key], other[key]) for key in found)
    if isinstance(found, list):
        return len(found) == len(other) and all(map(close, found, other))
    return found == (pytest.approx(other, abs=1e-4) if isinstance(other, float) else other)


def test_one_question_and_a_list(session: Session) -> None:
    with TestClient(make_app(session)) as client:
        for asked in ASKED:
            reply = client.post("/answer", json=asked)
            assert reply.status_code == 200
            assert close(reply.json(), wanted(session, asked))
        several = client.post("/answer", json=ASKED).json()
        assert close(several, [wanted(session, asked, number) for number, asked in enumerate(ASKED, 1)])
        assert client.post("/answer", json=[]).json() == []
        assert client.get("/health").json()["tasks"] == list(session.tasks)
        assert 'polyprompt_questions_total{task="mood"} 2.0' in client.get("/metrics").text
        assert client.get("/openapi.json").json()["openapi"].startswith("3.")
        assert "mood" in client.get("/").text


def test_requests_that_come_together_are_answered_together(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[set[str]] = []
    real = session.answer

    def answer(questions):
        sizes.append({question.task for question in questions})
        return real(questions)

    rows = [wanted(session, asked) for asked in ASKED]
    monkeypatch.setattr(session, "answer", answer)
    with TestClient(make_app(session, max_wait=0.5)) as client, ThreadPoolExecutor(len(ASKED)) as threads:
        replies = list(threads.map(lambda asked: client.post("/answer", json=asked).json(), ASKED))
    assert all(map(close, replies, rows))
    assert max(map(len, sizes)) > 1
    assert len(sizes) < len(ASKED)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b"[1", "not JSON"),
        (b"7", "not a JSON object"),
        (b'{"task": "modo", "text": "w7"}', "did you mean mood"),
        (b'{"text": "w7"}', "names no task"),
        (b'[{"task": "mood", "text": "w7"}, {"task": "names", "text": "w7"}]', "question 2: task names"),
        (b'{"task": "mood", "text": "\\ud800"}', "surrogate"),
    ],
)
def test_a_bad_question(session: Session, body: bytes, message: str) -> None:
    with TestClient(make_app(session)) as client:
        reply = client.post("/answer", content=body)
    assert reply.status_code == 422
    assert message in reply.json()["error"]


def test_other_addresses_are_refused_as_questions_are(session: Session) -> None:
    with TestClient(make_app(session)) as client:
        assert client.get("/answers").json() == {"error": "GET /answers: Not Found"}
        reply = client.get("/answer")
    assert (reply.status_code, reply.headers["Allow"]) == (405, "POST")
    assert reply.json() == {"error": "GET /answer: Method Not Allowed"}


def test_too_much(session: Session) -> None:
    with TestClient(make_app(session, queue=2, max_body=200)) as client:
        assert client.post("/answer", content=b" " * 201).status_code == 413
        small = {"task": "mood", "text": "w7"}
        assert client.post("/answer", json=[small] * 3).status_code == 413
        assert client.post("/answer", json=[small] * 2).status_code == 200


def test_a_full_queue(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    real = session.answer
    monkeypatch.setattr(session, "answer", lambda questions: (time.sleep(0.5), real(questions))[1])
    with TestClient(make_app(session, queue=2)) as client, ThreadPoolExecutor(6) as threads:
        replies = list(threads.map(lambda _: client.post("/answer", json=ASKED[0]), range(6)))
        assert client.post("/answer", json=ASKED[0]).status_code == 200  # there is room again
    assert sorted({reply.status_code for reply in replies}) == [200, 429]
    assert all(reply.headers["Retry-After"] for reply in replies if reply.status_code == 429)


def test_a_failure_is_told_without_a_traceback(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(make_app(session)) as client:
        with monkeypatch.context() as patch:
            patch.setattr(session, "answer", lambda questions: 1 / 0)
            reply = client.post("/answer", json=ASKED[0])
        assert (reply.status_code, reply.json()) == (500, {"error": "the answer failed"})
        assert client.post("/answer", json=ASKED[0]).status_code == 200


def test_a_process_that_is_told_to_stop_finishes_what_it_took(bundle: Path) -> None:
    with serving(bundle, "--max-wait", 1500) as service, ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(service.ask, ASKED) for _ in range(3)]
        time.sleep(0.5)
        service.process.send_signal(signal.SIGTERM)
        assert [len(one.result()) for one in waiting] == [len(ASKED)] * 3
        assert "Traceback" not in service.process.communicate(timeout=60)[1]
        with pytest.raises(OSError):
            service.ask(ASKED)


def test_a_request_that_came_in_part_does_not_keep_the_process(bundle: Path) -> None:
    with serving(bundle, "--max-stop", 1) as service:
        host, port = service.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as half:
            half.sendall(b'POST /answer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"task"')
            time.sleep(0.5)
            service.process.send_signal(signal.SIGTERM)
            assert "Traceback" not in service.process.communicate(timeout=60)[1]
            assert half.recv(1000).startswith(b"HTTP/1.1 503 ")


def test_an_address_that_is_taken(bundle: Path, command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, out, error = command(exporters.serve, bundle, "--port", port)
    assert (status, out) == (2, "")
    assert error.startswith(f"error: --host 127.0.0.1 --port {port}: cannot listen there (")
    for wrong in (("--port", 65536), ("--host", "256.0.0.1")):
        assert command(exporters.serve, bundle, *wrong)[0] == 2


@pytest.mark.parametrize("absent", ["prometheus_client", "starlette", "uvicorn"])
def test_without_the_extra(absent: str) -> None:
    start = "runpy.run_module('exporters.serve', run_name='__main__')"
    code = f"import sys, runpy; sys.modules[{absent!r}] = None; {start}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    install = r"is missing; install the extra: pip install polyprompt\[serve\]"
    assert re.fullmatch(rf"error: {absent}\S* {install}\n", done.stderr)
