"""Processes that work together, forked from one that has imported everything, and notes of what each of them does."""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).parents[1]
FAREWELL = 60.0
"""Seconds that a process waits for another one that does not end: longer than any run of these tests takes."""


@dataclass(frozen=True)
class Started:
    """Processes that were started. `folder` has what each wrote to stdout and stderr, and its notes."""

    server: Ranks
    folder: Path
    pids: list[int]

    def wait(self) -> list[int]:
        """Exit statuses by rank, negative for signals."""
        return self.server.ask(wait=self.pids)

    def output(self, rank: int) -> tuple[str, str]:
        return (self.folder / f"{rank}.out").read_text(), (self.folder / f"{rank}.err").read_text()

    def notes(self, rank: int) -> dict[str, Any]:
        return json.loads((self.folder / f"{rank}.json").read_text())


class Ranks:
    """Starts commands in several processes each."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **request: object) -> Any:
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def start(
        self,
        folder: Path,
        *arguments: object,
        world: int = 2,
        command: str = "run",
        act: str = "",
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Started:
        """Start a command of `COMMANDS` with `world` processes; `act` is one of `ACTS`."""
        folder.mkdir(parents=True, exist_ok=True)
        words = [str(word) for word in arguments]
        request = {"folder": str(folder), "arguments": words, "world": world, "command": command, "act": act}
        return Started(self, folder, self.ask(**request, environment=dict(environment)))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def evaluate_again() -> int:
    """Predict with what is stored in a run folder (the first argument), into another one (the second).

    Batches are small, so that there are several of each split.
    """
    from harness import evaluate
    from harness.config import load_config
    from harness.data import load_rows
    from harness.device import find_device
    from harness.features import TextEncoder
    from harness.screen import Screen
    from harness.store import load_run

    evaluate.PIECES = 256
    stored, fresh = map(Path, sys.argv[1:])
    model = load_run(stored)
    backbone = model.backbone
    encoder = TextEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, backbone.max_positions)
    rows, _, _ = load_rows(load_config(stored / "config.toml"))
    evaluate.evaluate(fresh, model, encoder, rows, find_device("fp32"), Screen())
    return 0


def divide() -> int:
    """Load an encoder (the first argument) and divide it, and note in a folder (the second) what this process holds.

    In MiB, without files that are mapped into memory, which are those of all processes.
    """
    from harness.backbone import load_backbone
    from harness.device import find_device

    def own() -> float:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) / 1024

    source, notes = sys.argv[1:]
    device, held = find_device("fp32"), [own()]
    backbone = load_backbone(source)
    held.append(own())
    device.shard(backbone)
    held.append(own())
    (Path(notes) / f"{device.rank}.memory").write_text(json.dumps([mib - held[0] for mib in held[1:]]))
    return 0


def fail(rank: int, step: int) -> None:
    """Something goes wrong in one process alone, while the other waits for it."""
    from benchmarks.errors import PolypromptError

    if step == 3 and os.environ.get("RANK") == str(rank):
        raise PolypromptError("nothing left on this machine")


def stick(step: int) -> None:
    """The second process does not go on, but lives."""
    if step == 3 and os.environ.get("RANK") == "1":
        time.sleep(60)


def _run() -> int:
    from harness import run

    return run.main()


def tell(step: int) -> None:
    """Note in the file STEPS that a step begins, and give who reads it the time to act."""
    with Path(os.environ["STEPS"]).open("a") as file:
        file.write(f"{step}\n")
    time.sleep(0.01)


COMMANDS = {"run": _run, "evaluate": evaluate_again, "divide": divide}
ACTS = {
    "": lambda step: None,
    "the first fails": partial(fail, 0),
    "the second fails": partial(fail, 1),
    "stick": stick,
    "tell": tell,
}


def _observe(folder: Path, act: Callable[[int], None]) -> None:
    """Take notes: rows computed, seeds of passes, files written, bytes of the backbone held in a layer and later."""
    import torch
    from torch.distributed.tensor import DTensor

    import harness.execute
    import harness.train
    from harness import processes
    from harness.backbone import Backbone

    notes: dict[str, Any] = {"trained rows": 0, "evaluated rows": 0, "seeds": [], "written": [], "held": []}
    forward, evaluate, backward = Backbone.forward, harness.execute.evaluate, harness.train._backward

    def counting(self: Backbone, input_ids: torch.Tensor, *more: object) -> torch.Tensor:
        training = torch.is_grad_enabled()
        notes["trained rows" if training else "evaluated rows"] += len(input_ids)
        notes["seeds"] += [torch.initial_seed()] if training else []
        return forward(self, input_ids, *more)

    def weighing(run: Path, model: Any, *more: object) -> Any:
        def weigh() -> None:
            held = [w.to_local() if isinstance(w, DTensor) else w for w in model.backbone.parameters()]
            notes["held"].append(sum(weight.numel() * weight.element_size() for weight in held))

        inside = model.backbone.model.encoder.layer[1].attention.register_forward_hook(lambda *_: weigh())
        result = evaluate(run, model, *more)
        inside.remove()
        weigh()
        return result

    def acting(*arguments: Any) -> Any:
        act(arguments[-1])
        return backward(*arguments)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            notes["written"] += [] if arguments[0].startswith("/proc/") else [arguments[0]]  # no file on a disk
        elif event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            notes["written"].append(str(arguments[0]))

    Backbone.forward, harness.execute.evaluate, harness.train._backward = counting, weighing, acting
    processes.FAREWELL = processes.timedelta(seconds=FAREWELL)
    if act is stick:
        processes.PATIENCE = processes.timedelta(seconds=2)
    sys.addaudithook(watch)
    atexit.register(lambda: (folder / f"{os.environ.get('RANK', 0)}.json").write_text(json.dumps(notes)))


def _child(rank: int, port: int, folder: Path, request: dict[str, Any]) -> int:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{rank}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    os.environ |= request["environment"]
    if request["world"] > 1:
        places = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": request["world"],
            "LOCAL_WORLD_SIZE": request["world"],
        }
        os.environ |= {name: str(value) for name, value in places.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sys.argv = ["program", *request["arguments"]]
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    try:
        from harness.launcher import together

        _observe(folder, ACTS[request["act"]])
        return together(COMMANDS[request["command"]])
    except SystemExit as error:
        return int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1


def _serve() -> None:
    import harness.execute  # noqa: F401 (what takes long, once)

    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in request["wait"]]
            print(json.dumps(statuses), flush=True)
            continue
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        pids = []
        for rank in range(request["world"]):
            pid = os.fork()
            if pid == 0:
                status = _child(rank, port, Path(request["folder"]), request)
                atexit._run_exitfuncs()
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
            pids.append(pid)
        print(json.dumps(pids), flush=True)


if __name__ == "__main__":
    _serve()
