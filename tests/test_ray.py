"""Jobs of a sweep on a real Ray cluster: two nodes on this machine, one of which is killed in the middle."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import psutil
import pytest

from benchmarks.results import Manifest, read_model
from harness import jobs, sweep
from harness.lock import locked
from harness.plan import read_plan

pytest.importorskip("ray", reason="needs the extra `cluster`")

ROOT = Path(__file__).parents[1]
HEAD, SECOND = "127.0.0.2", "127.0.0.3"  # addresses of this machine alone
HEARTBEAT = {"period_ms": 500, "timeout_ms": 2000, "initial_delay_ms": 500, "failure_threshold": 3}


@pytest.fixture
def cluster(monkeypatch):
    """Address of a cluster of two nodes with one CPU each, and the processes of both."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # nobody else on this machine may use it
    monkeypatch.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex * 2)
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")  # other programs of this machine may need its memory
    for name, value in HEARTBEAT.items():
        monkeypatch.setenv(f"RAY_health_check_{name}", str(value))
    with socket.socket() as free:
        free.bind((HEAD, 0))
        address = f"{HEAD}:{free.getsockname()[1]}"
    nodes = []
    # Not below pytest's folder: paths of Unix sockets are short.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:

        def start(host, *options):
            words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
            words += [f"--node-ip-address={host}", "--num-cpus=1", "--object-store-memory=80000000", *options]
            log = (Path(folder) / f"{host}.log").open("w")
            nodes.append(subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log))
            return Path(log.name)

        try:
            port = f"--port={address.rpartition(':')[2]}"
            said = start(HEAD, "--head", port, "--include-dashboard=false", f"--temp-dir={folder}/s")
            wait_for(lambda: "Ray runtime started" in said.read_text(), nodes[0], said)
            said = start(SECOND, f"--address={address}", '--resources={"second": 1}')
            wait_for(lambda: "Ray runtime started" in said.read_text(), nodes[1], said)
            yield address, *nodes
        finally:
            for node in nodes:
                kill(node.pid)
                node.wait()


def wait_for(found, process, log):
    end = time.monotonic() + 120
    while not found():
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.01)


def kill(node):
    """kill -9 of a process and all below it, as when a machine goes."""
    try:
        root = psutil.Process(node)
        below = root.children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for process in (root, *below):
        if process.is_running():
            process.kill()


def begun_by(folder, node):
    """Whether a process of a node has begun the job of a folder and trains."""
    started = folder / jobs.STARTS
    if not started.exists() or not list(folder.glob("checkpoints/*/last.safetensors")):
        return False
    pid = int(started.read_text().splitlines()[-1].split()[2])
    return pid in {process.pid for process in psutil.Process(node.pid).children(recursive=True)}


@pytest.mark.slow
def test_jobs_survive_a_node_and_a_worker(backbone, cluster, command, request, tmp_path):
    """Every job is done, none twice, and each as by one process."""
    address, head, second = cluster
    text = f"""
code = "of the tests"
suite = ["demo"]
tasks = ["demo-topic"]
languages = ["en"]
backbone = "{backbone}"
max-train = 16
max-eval = 5
batch = 8
max-steps = 400
epochs = 999
checkpoint-seconds = 0.05
seeds = 5
"""
    file, log = tmp_path / "plan.toml", tmp_path / "log.txt"
    file.write_text(text + f'out = "{tmp_path / "ray"}"\n')
    folders = [job.config.folder for job in read_plan(file)]
    words = [sys.executable, "-m", "harness.sweep", str(file), "--ray", address, "--json"]
    with log.open("w") as errors:
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
    request.addfinalizer(lambda: kill(process.pid))
    with locked(folders[-1]):  # as if another sweep were at it
        wait_for(lambda: any(begun_by(folder, second) for folder in folders), process, log)
        lost = next(folder for folder in folders if begun_by(folder, second))
        kill(second.pid)
        others = [folder for folder in folders if folder != lost]
        wait_for(lambda: any(begun_by(folder, head) for folder in others), process, log)
        wounded = next(folder for folder in others if begun_by(folder, head))
        worker = int((wounded / jobs.STARTS).read_text().split()[2])
        kill(worker)
        wait_for(lambda: all((folder / "results.json").exists() for folder in folders[:-1]), process, log)
        assert not (folders[-1] / jobs.STARTS).exists()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, log.read_text()
    assert [(record["state"], record["folder"]) for record in json.loads(output)] == [
        ("done", str(folder)) for folder in folders
    ]
    for folder in folders:
        starts = (folder / jobs.STARTS).read_text().splitlines()
        interruptions = read_model(folder / "manifest.json", Manifest).interruptions
        assert (len(starts), interruptions) == ((2, 1) if folder in (lost, wounded) else (1, 0))
    file.write_text(text + f'out = "{tmp_path / "alone"}"\n')
    status, _, error = command(sweep, file)
    assert status == 0, error
    for folder in folders:
        alone = tmp_path / "alone" / folder.name
        for name in ("prompt.safetensors", "heads.safetensors", "results.json"):
            assert (folder / name).read_bytes() == (alone / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "message"), [("auto", "Could not find any running Ray"), ("127.0.0.1:9", "refused")]
)
def test_a_cluster_that_is_not_there(address, message, backbone, command, tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(f'suite = ["demo"]\nbackbone = "{backbone}"\nout = "{tmp_path}"\n')
    status, output, error = command(sweep, file, "--ray", address)
    assert (status, output) == (2, "")
    assert f"error: --ray {address}: " in error
    assert message in error
