"""A bundle over HTTP: questions that wait are answered together, whatever their tasks."""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from html import escape
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from benchmarks.errors import PolypromptError, run_command
from benchmarks.records import Example
from exporters.opening import add_session_options, open_session
from exporters.predict import read_question, record
from exporters.session import Answer, Question, Session

try:
    import uvicorn
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise SystemExit(f"error: {error.name} is missing; install the extra: pip install polyprompt[serve]") from None

TOGETHER = 256
"""Questions that are answered in one call at most."""

RETRY = "1"
"""Seconds until a client that was turned away may try again."""

KEYS = ("text", "text_pair", "choices", "tokens", "marked", "id")
"""Fields of `Example` that ask; the others hold gold answers and are read and not used."""


class Full(Exception):
    """No room for more questions now."""


class TooLarge(Exception):
    """A request that no waiting makes smaller; says why."""


class Waiting(NamedTuple):
    """Questions of a request, and where their answers are to go."""

    questions: Sequence[Question]
    answers: asyncio.Future[list[Answer]]


class Batcher:
    """Collects the questions of requests and answers them together on a thread of its own.

    Args:
        session: the bundle. limit: questions that may wait or be under way. wait: seconds to wait for more of them.
        answered: is told how many questions were answered together.

    Attributes:
        held: questions that wait or are under way.
    """

    def __init__(self, session: Session, limit: int, wait: float, answered: Callable[[int], None]) -> None:
        self._session, self._limit, self._wait, self._answered = session, limit, wait, answered
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "answer")
        self.held = 0

    async def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers in order.

        Raises:
            Full: as many questions wait as may. TooLarge: there are more than may ever wait.
        """
        if len(questions) > self._limit:
            raise TooLarge(f"{len(questions)} questions in a request; at most {self._limit} are taken (--queue)")
        if self.held + len(questions) > self._limit:
            raise Full
        if not questions:
            return []
        self.held += len(questions)
        try:
            waiting = Waiting(questions, asyncio.get_running_loop().create_future())
            self._queue.put_nowait(waiting)
            return await asyncio.shield(waiting.answers)
        finally:
            self.held -= len(questions)

    async def run(self) -> None:
        """Answer until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._collect()
            asked = [question for waiting in batch for question in waiting.questions]
            try:
                found = iter(await loop.run_in_executor(self._thread, self._session.answer, asked))
            except Exception as error:  # whatever it is, the next requests are to be answered
                print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
                for waiting in batch:
                    waiting.answers.set_exception(RuntimeError("the answer failed"))
                continue
            self._answered(len(asked))
            for waiting in batch:
                waiting.answers.set_result([next(found) for _ in waiting.questions])

    async def _collect(self) -> list[Waiting]:
        batch = [await self._queue.get()]
        count = len(batch[0].questions)
        end = time.monotonic() + self._wait
        while count < TOGETHER:
            try:
                batch.append(await asyncio.wait_for(self._queue.get(), max(0.0, end - time.monotonic())))
            except TimeoutError:
                break
            count += len(batch[-1].questions)
        return batch


class Meters:
    """What /metrics shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = {"registry": self.registry, "namespace": "polyprompt"}
        self.requests = Counter("requests", "Requests for answers by status", ["status"], **own)
        self.questions = Counter("questions", "Questions by task", ["task"], **own)
        self.seconds = Histogram("request_seconds", "Seconds from a request to its answer", **own)
        self.together = Histogram(
            "batch_questions", "Questions answered together", buckets=[2**n for n in range(10)], **own
        )
        self.held = Gauge("held_questions", "Questions that wait or are under way", **own)


def make_app(session: Session, queue: int = 1024, max_body: int = 1 << 20, max_wait: float = 0.002) -> Starlette:
    """The service.

    Args:
        session: the bundle. queue: questions that may wait or be under way. max_body: bytes of a request.
        max_wait: seconds that a question waits for others at most.
    """
    meters = Meters()
    batcher = Batcher(session, queue, max_wait, meters.together.observe)
    meters.held.set_function(lambda: batcher.held)
    schema = openapi(session)

    async def answer(request: Request) -> Response:
        start = time.monotonic()
        response = await _answered(request, session, batcher, meters, max_body)
        meters.requests.labels(str(response.status_code)).inc()
        meters.seconds.observe(time.monotonic() - start)
        return response

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "tasks": list(session.tasks)})

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(meters.registry), media_type="text/plain; version=0.0.4")

    async def described(request: Request) -> Response:
        return JSONResponse(schema)

    async def page(request: Request) -> Response:
        return HTMLResponse(_page(session, schema))

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(batcher.run())
        yield
        running.cancel()

    async def refused(request: Request, error: Exception) -> Response:
        known = error if isinstance(error, HTTPException) else HTTPException(500)
        return _refusal(known.status_code, f"{request.method} {request.url.path}: {known.detail}", known.headers)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/answer", answer, methods=["POST"]),
            Route("/health", health),
            Route("/metrics", metrics),
            Route("/openapi.json", described),
        ],
        lifespan=life,
        exception_handlers={HTTPException: refused},
    )


async def _answered(request: Request, session: Session, batcher: Batcher, meters: Meters, max_body: int) -> Response:
    try:
        body = await _body(request, max_body)
        questions, single = _questions(body, session)
        answers = await batcher.answer(questions)
    except PolypromptError as error:
        return _refusal(422, str(error))
    except TooLarge as error:
        return _refusal(413, str(error))
    except Full:
        return _refusal(429, "too many questions wait; try again", {"Retry-After": RETRY})
    except ClientDisconnect:
        return _refusal(400, "the request was cut off")
    except asyncio.CancelledError:  # by uvicorn, which has waited for it long enough
        return _refusal(503, "the service stops")
    except RuntimeError as error:
        return _refusal(500, str(error))
    records = []
    for asked, found in zip(questions, answers, strict=True):
        meters.questions.labels(asked.task).inc()
        records.append(record(session.card(asked.task), asked.example, found))
    return JSONResponse(records[0] if single else records)


def _refusal(status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": why}, status, headers)


async def _body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise TooLarge(f"a request of more than {limit} bytes (--max-body)")
    return bytes(body)


def _questions(body: bytes, session: Session) -> tuple[list[Question], bool]:
    """The questions of a request, and whether it is one outside of a list."""
    only = next(iter(session.tasks)) if len(session.tasks) == 1 else None
    if not body.lstrip().startswith(b"["):
        return [read_question(body, 1, session, only)], True
    try:
        rows = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PolypromptError(f"not JSON ({error})") from None
    questions = []
    for number, row in enumerate(rows, 1):
        try:
            questions.append(read_question(json.dumps(row).encode(), number, session, only))
        except PolypromptError as error:
            raise PolypromptError(f"question {number}: {error}") from None
    return questions, False


def openapi(session: Session) -> dict[str, Any]:
    """The description of the service in OpenAPI 3.1."""
    known = TypeAdapter(Example).json_schema()["properties"]
    asking = {key: known[key] for key in KEYS}
    question = {
        "type": "object",
        "properties": {"task": {"type": "string", "enum": list(session.tasks)}, "language": {"type": "string"}}
        | asking,
        "required": ["task"] if len(session.tasks) > 1 else [],
    }
    answer = {
        "type": "object",
        "properties": {"id": {"type": "string"}, "task": {"type": "string"}},
        "required": ["id", "task", "prediction"],
    }
    error = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}

    def response(what: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"description": what, "content": {"application/json": {"schema": schema}}}

    def some(name: str) -> dict[str, Any]:
        reference = {"$ref": f"#/components/schemas/{name}"}
        return {"anyOf": [reference, {"type": "array", "items": reference}]}

    refusals = {
        "400": "cut off",
        "413": "larger than this service takes",
        "422": "not a question, or not what its task reads",
        "429": "too many questions wait",
        "500": "the answer failed",
        "503": "the service stops",
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Polyprompt", "version": "1"},
        "paths": {
            "/answer": {
                "post": {
                    "summary": "Answer a question, or several in a list",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": some("Question")}}},
                    "responses": {"200": response("the answer, or a list of them in order", some("Answer"))}
                    | {status: response(what, error) for status, what in refusals.items()},
                }
            },
            "/health": {"get": {"summary": "Ready", "responses": {"200": response("ready", {"type": "object"})}}},
            "/metrics": {
                "get": {
                    "summary": "Counts and times for Prometheus",
                    "responses": {"200": {"description": "metrics", "content": {"text/plain": {}}}},
                }
            },
        },
        "components": {"schemas": {"Question": question, "Answer": answer}},
    }


def _page(session: Session, schema: dict[str, Any]) -> str:
    tasks = "".join(
        f"<tr><td>{escape(name)}<td>{escape(card.kind)}<td>{escape(', '.join(card.labels))}"
        for name, card in session.tasks.items()
    )
    return (
        "<!doctype html><meta charset=utf-8><title>Polyprompt</title><h1>Polyprompt</h1>"
        f"<table><tr><th>task<th>kind<th>labels{tasks}</table>"
        "<p><a href=health>health</a>, <a href=metrics>metrics</a>, <a href=openapi.json>openapi.json</a>:"
        f"<pre>{escape(json.dumps(schema, indent=2))}</pre>"
    )


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address that nothing else listens on; it does not listen yet.

    Raises:
        PolypromptError: the address is taken, or is none of this machine.
    """
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        found.close()
        raise PolypromptError(f"--host {host} --port {port}: cannot listen there ({error})") from None
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m exporters.serve", description=__doc__)
    add_session_options(parser)
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--queue", type=int, default=1024, metavar="N", help="questions that may wait or be under way (default: 1024)"
    )
    parser.add_argument("--max-body", type=int, default=1 << 20, metavar="BYTES", help="of a request (default: 1 MiB)")
    parser.add_argument(
        "--max-wait", type=float, default=2.0, metavar="MS", help="a question waits for others (default: %(default)s)"
    )
    parser.add_argument(
        "--max-stop",
        type=int,
        default=30,
        metavar="SECONDS",
        help="when told to stop, wait so long for requests that came in part or have no answer (default: %(default)s)",
    )
    options = parser.parse_args()
    if options.queue < 1 or options.max_body < 1 or not 0 <= options.max_wait < 60_000:
        raise PolypromptError("--queue and --max-body must be at least 1, --max-wait from 0 to 60000 milliseconds")
    if options.max_stop < 1:
        raise PolypromptError(f"--max-stop {options.max_stop}: must be at least 1 second")
    listener = bound(options.host, options.port)  # before anything is loaded
    session = open_session(options)
    app = make_app(session, options.queue, options.max_body, options.max_wait / 1000)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=options.max_stop)
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"http://{host}:{listener.getsockname()[1]}: {', '.join(session.tasks)}; {session.engine}", flush=True)
    with listener, suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([listener])
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
