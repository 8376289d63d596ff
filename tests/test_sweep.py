"""The command `python -m harness.sweep`: what is planned, done, skipped, continued, and what goes wrong."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.errors import PolypromptError
from benchmarks.results import Manifest, Results, read_model
from harness import execute, jobs, plan, sweep
from harness.data import chosen_tasks
from harness.lock import NAME, Busy, locked
from harness.methods import METHODS
from harness.plan import read_plan

ROOT = Path(__file__).parents[1]
SMALL = """
code = "of the tests"  # others may change the code between two commands of a test
suite = ["demo"]
languages = ["en"]
prompt-length = 3
max-train = 16
max-eval = 5
batch = 8
max-steps = 2
"""


@pytest.fixture
def write(backbone, tmp_path):
    """Writes a sweep file; its runs go to `runs` beside it."""

    def write(text, name="plan.toml", small=SMALL) -> Path:
        file = tmp_path / name
        file.write_text(f'backbone = "{backbone}"\nout = "{tmp_path / "runs"}"\n{small}{text}')
        return file

    return write


def chosen(jobs):
    return [(*job.config.tasks, job.config.method, job.config.seed) for job in jobs]


def starts(folder):
    return (folder / jobs.STARTS).read_text().splitlines()


def test_a_grid_is_a_product_with_exceptions_and_additions(write):
    file = write("""
seed = 3
seeds = 2
[grid]
tasks = [["demo-topic"], ["demo-count"]]
method = ["ptuning-v2", "linear-probe", "fine-tune"]
[[except]]
tasks = ["demo-count"]
method = "fine-tune"
[[except]]
method = "linear-probe"
tasks = ["demo-count"]
[[job]]
tasks = ["demo-names"]
prompt-length = 5
[[job]]
method = "fine-tune"
tasks = ["demo-topic"]
""")
    first = [
        ("demo-topic", "ptuning-v2"),
        ("demo-topic", "linear-probe"),
        ("demo-topic", "fine-tune"),
        ("demo-count", "ptuning-v2"),
        ("demo-names", "ptuning-v2"),  # the last [[job]] is a part of the grid, and equal jobs are there once
    ]
    jobs = read_plan(file)
    assert chosen(jobs) == [(*pair, seed) for seed in (3, 4) for pair in first]
    assert [job.config.prompt_length for job in jobs] == [3, 3, 3, 3, 5] * 2
    assert jobs[0].choice == {"tasks": "demo-topic", "method": "ptuning-v2", "seed": "3"}
    assert len({job.config.folder for job in jobs}) == len(jobs)


def test_each_is_a_job_for_every_task_that_is_trained(write):
    tasks = {*itertools.chain(*(job.config.tasks for job in read_plan(write('[grid]\ntasks = "each"\n'))))}
    assert tasks == {"demo-topic", "demo-count", "demo-choice", "demo-names", "demo-answers"}
    glue = 'suite = ["glue", "superglue", "demo"]\ntasks = ["mnli", "rte", "copa"]\n[grid]\ntasks = "each"\n'
    with_head = [(job.config.suite, job.config.tasks) for job in read_plan(write(glue, small=""))]
    assert with_head == [(["glue"], ["mnli"]), (["glue"], ["rte"]), (["superglue"], ["copa"])]
    ax = 'suite = ["glue"]\ntasks = ["mnli", "ax", "rte"]\n[grid]\ntasks = "each"\n'
    assert [job.config.tasks for job in read_plan(write(ax, small=""))] == [["mnli", "ax"], ["rte"]]


def test_jobs_without_a_grid(write):
    assert chosen(read_plan(write("seeds = 2\n"))) == [("ptuning-v2", 0), ("ptuning-v2", 1)]
    listed = write('[[job]]\nmethod = "linear-probe"\n[[job]]\nmethod = "fine-tune"\n')
    assert chosen(read_plan(listed)) == [("linear-probe", 0), ("fine-tune", 0)]


def test_files_of_one_task_do_not_stand_in_the_way_of_others(write, tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    head = 'suite = ["glue", "superglue"]\ntasks = ["rte", "boolq"]\n[files]\n'
    head += f'"boolq.train" = ["{tmp_path}/rows.jsonl"]\n'
    jobs = read_plan(write(head + '[grid]\ntasks = "each"\n', small=""))
    assert [(job.config.tasks, list(job.config.files)) for job in jobs] == [(["rte"], []), (["boolq"], ["boolq.train"])]
    assert all(chosen_tasks(job.config) for job in jobs)  # as each run will
    with pytest.raises(PolypromptError, match=r"--files bool.train: "):
        read_plan(write(head.replace("boolq.train", "bool.train"), small=""))


def test_languages_of_one_task_do_not_stand_in_the_way_of_others(write):
    head = 'suite = ["xtreme"]\ntasks = ["xnli", "udpos"]\nlanguages = ["de", "ja", "ur", "sw"]\n'
    jobs = read_plan(write(head + '[grid]\ntasks = "each"\n', small=""))
    assert [(job.config.tasks, job.config.languages) for job in jobs] == [
        (["xnli"], ["de", "ur", "sw"]),
        (["udpos"], ["de", "ja", "ur"]),
    ]
    assert all(chosen_tasks(job.config) for job in jobs)
    for wrong in ('"xx"', '"de", "xx"'):
        with pytest.raises(PolypromptError, match=r"--languages xx: no chosen task has it"):
            read_plan(write(head.replace('"de", "ja", "ur", "sw"', wrong) + '[grid]\ntasks = "each"\n', small=""))
    only = read_plan(write(head.replace('"de", "ja", "ur", "sw"', '"ja"') + '[[job]]\ntasks = ["udpos"]\n', small=""))
    assert [job.config.languages for job in only] == [["ja"]]


def test_a_listed_job_for_each_task(write):
    plan = 'tasks = ["mnli", "ax", "rte"]\n[[job]]\ntasks = "each"\nlearning-rate = [0.1]\n[[job]]\nmethod = "lora"\n'
    jobs = [job.config for job in read_plan(write('suite = ["glue"]\n' + plan, small=""))]
    assert [job.tasks for job in jobs] == [["mnli", "ax"], ["rte"], ["mnli", "ax", "rte"]]
    assert [job.learning_rate for job in jobs] == [[0.1], [0.1], []]
    with pytest.raises(PolypromptError, match=r'\[\[job\]\] 1 tasks = "each": .*nosuch'):
        read_plan(write('[[job]]\ntasks = "each"\nsuite = ["nosuch"]\n', small=""))


def test_the_documented_and_the_published_plan(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "sweeps.md").read_text()
    (tmp_path / "sweep.toml").write_text(text.split("```toml\n")[1].split("```")[0])
    jobs = read_plan(tmp_path / "sweep.toml")
    assert len(jobs) == 3 * (3 * (2 * 2 - 1) + 1)
    assert {job.config.prompt_length for job in jobs if job.config.method == "fine-tune"} == {8}
    published = {job[:2] for job in chosen(read_plan(ROOT / "experiments" / "methods.toml"))}
    assert published == {*itertools.product(("rte", "mrpc", "cola", "wnut17", "copa"), METHODS)}


def test_the_name_of_a_folder_tells_settings_data_and_code(write, tmp_path, monkeypatch):
    glue = tmp_path / "data" / "glue" / "RTE"
    glue.mkdir(parents=True)
    rows = "index\tsentence1\tsentence2\tlabel\n0\tw7\tw8\tentailment\n"
    for split in ("train", "dev", "test"):
        (glue / f"{split}.tsv").write_text(rows)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("x = 1\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.py").write_text("x = 2\n")
    text = f'suite = ["glue"]\ntasks = ["rte"]\ndata-dir = "{tmp_path / "data"}"\n'

    def name(more="", code="code"):
        monkeypatch.setattr(plan, "_CODE", [tmp_path / code])
        (job,) = read_plan(write(text + more, small=""))
        return job.config.folder.name

    before = name()
    assert before.startswith("rte-ptuning-v2-")
    assert name() == before
    names = {before, name("batch = 7\n"), name(code="other"), name('code = "1"\n'), name('code = "2"\n')}
    assert len(names) == 5
    assert name('code = "1"\n', "code") == name('code = "1"\n', "other")
    assert name("checkpoint-seconds = 7\n") == before
    (glue / "dev.tsv").write_text(rows + "1\tw9\tw8\tentailment\n")
    after = name()
    assert after not in names
    (glue / "test.tsv").write_text("not read by this run\n")
    assert name() == after
    (glue / "train.tsv").unlink()
    assert name() not in {*names, after}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batchs = 5\n", "plan.toml: batchs is no setting; did you mean 'batch'?"),
        ("sedes = 5\n", "plan.toml: sedes is no setting; did you mean 'seeds'?"),
        ("seeds = 0\n", "plan.toml: seeds 0: write a whole number"),
        ("code = 7\n", "plan.toml: code 7"),
        ('name = "x"\n', "plan.toml: name: the folders"),
        ("[grid]\nmetod = []\n", "plan.toml: [grid] metod is no setting; did you mean 'method'?"),
        ('[grid]\nmethod = "lora"\n', "plan.toml: [grid] method = 'lora': write a list of values"),
        ('[grid]\nmethod = ["magic"]\n', "plan.toml: --method magic: unknown"),
        ('[grid]\nbatch = [5, "many"]\n', "plan.toml: [grid]: --batch 'many'"),
        ('[grid]\ntasks = [["demo-topik"]]\n', "plan.toml: unknown task 'demo-topik': did you mean 'demo-topic'?"),
        ('grid = "each"\n', "plan.toml: grid: write its keys under [grid]"),
        ("[except]\nbatch = 8\n", "plan.toml: except: write each as a table under [[except]]"),
        ("[grid]\nbatch = [4]\n[[except]]\nbatch = 5\n", "plan.toml: [[except]] 1: no job of the grid has these"),
        ("[[except]]\nbatch = 32\n", "plan.toml: plans no job"),
        ("[[job]]\nbatc = 8\n", "plan.toml: [[job]] 1: batc is no setting; did you mean 'batch'?"),
        ("[[job]]\nbatch = 8\n[[job]]\nbatch = 0\n", "plan.toml: [[job]] 2: --batch 0"),
        ("batch = \n", "plan.toml: not valid TOML"),
    ],
)
def test_a_bad_file_gets_one_error_that_names_it_and_the_key(text, message, write, command):
    status, output, error = command(sweep, write(text, small='suite = ["demo"]\n'))
    assert status == 2
    assert output == ""
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_jobs_are_done_once(write, command, tmp_path):
    file = write('[grid]\ntasks = [["demo-topic"], ["demo-count"]]\nmethod = ["ptuning-v2", "linear-probe"]\n')
    status, output, _ = command(sweep, file, "--dry-run", "--json")
    planned = json.loads(output)
    assert status == 0
    assert [record["state"] for record in planned] == ["new"] * 4
    assert not (tmp_path / "runs").exists()
    (tmp_path / "runs").mkdir()
    status, output, error = command(sweep, file)
    assert status == 0, error
    assert "4 done" in output
    folders = [Path(record["folder"]) for record in planned]
    assert sorted(folders) == sorted((tmp_path / "runs").iterdir())
    for folder in folders:
        (record,) = read_model(folder / "results.json", Results).records
        line = next(line for line in output.splitlines() if str(folder) in line)
        assert f" {record.main[1]:.2f} " in line
        assert len(starts(folder)) == 1
        assert not (folder / NAME).exists()
    before = [(folder / "results.json").stat().st_mtime_ns for folder in folders]
    file.write_text(file.read_text().replace('"linear-probe"', '"linear-probe", "fine-tune"'))
    status, output, error = command(sweep, file, "--json")
    assert status == 0, error
    states = {record["folder"]: record["state"] for record in json.loads(output)}
    assert [states[str(folder)] for folder in folders] == ["skipped"] * 4
    assert sorted(states.values()) == ["done"] * 2 + ["skipped"] * 4
    assert [(folder / "results.json").stat().st_mtime_ns for folder in folders] == before
    assert command(sweep, file, "--print-jobs") == (0, "", "")


def test_one_failure_leaves_the_others_alone(write, command, tmp_path, monkeypatch):
    data = tmp_path / "data" / "glue"
    for name, header, row in (
        ("RTE", "index\tsentence1\tsentence2\tlabel\n", "{}\tw7 w8\tw9\tentailment\n"),
        ("CoLA", "", "gj04\t1\t\tw7 w{}\n"),
    ):
        (data / name).mkdir(parents=True)
        for split in ("train", "dev"):
            (data / name / f"{split}.tsv").write_text(header + "".join(row.format(number) for number in range(8)))
    good = (data / "RTE" / "train.tsv").read_text()
    (data / "RTE" / "train.tsv").write_text(good + "8\tw7\n")
    file = write(
        f"""
suite = ["glue"]
data-dir = "{data.parent}"
max-steps = 4
batch = 2
[grid]
tasks = [["rte"], ["cola"], ["mrpc"]]
[[job]]
tasks = ["cola"]
learning-rate = 1e37
""",
        small='code = "of the tests"\n',
    )
    status, output, error = command(sweep, file, "--json")
    records = json.loads(output)
    assert status == 1
    assert [record["state"] for record in records] == ["failed", "done", "failed", "failed"]
    torn, _, missing, diverged = (record["error"] for record in records)
    assert torn.startswith(f"{data / 'RTE' / 'train.tsv'}:10:")
    assert "MRPC/train.tsv" in missing
    assert "the loss of task cola is nan" in diverged
    for sentence in (torn, missing, diverged):
        assert "\n" not in sentence
        assert sentence in error
    folder = Path(records[0]["folder"])
    assert (folder / jobs.ERROR).read_text() == torn + "\n"
    status, output, _ = command(sweep, file)
    assert status == 1
    assert "3 failed, 1 skipped" in output
    (data / "RTE" / "train.tsv").write_text(good)
    status, output, _ = command(sweep, file, "--json")
    mended = json.loads(output)[0]
    assert mended["state"] == "done"
    assert mended["folder"] != str(folder)


def test_a_mistake_of_ours_fails_one_job_and_is_kept(write, command, monkeypatch):
    def fails_once(config, *more):
        if config.method == "linear-probe":
            raise KeyError("weight")
        return fill(config, *more)

    fill = execute.fill
    monkeypatch.setattr(execute, "fill", fails_once)
    file = write('tasks = ["demo-topic"]\n[grid]\nmethod = ["linear-probe", "ptuning-v2"]\n')
    status, output, error = command(sweep, file, "--json")
    failed, done = json.loads(output)
    assert status == 1
    assert (failed["state"], failed["error"]) == ("failed", "KeyError: 'weight'")
    assert "in fails_once" in (Path(failed["folder"]) / jobs.ERROR).read_text()
    assert done["state"] == "done"
    assert "Traceback" not in error
    monkeypatch.undo()
    status, _, _ = command(sweep, file)
    assert status == 0
    assert not (Path(failed["folder"]) / jobs.ERROR).exists()
    assert len(starts(Path(failed["folder"]))) == 2


def begin(file, *more):
    arguments = [sys.executable, "-m", "harness.sweep", str(file), *more]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for(found, process):
    end = time.monotonic() + 120
    while not found():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_killed_sweep_goes_on(write, command):
    """kill -9 in the middle of a job: its lock is gone, and it continues from its checkpoint."""
    long = SMALL.replace("max-steps = 2", "max-steps = 400\nepochs = 999\ncheckpoint-seconds = 0.02")
    file = write('[grid]\ntasks = [["demo-topic"]]\n', small=long)
    (job,) = read_plan(file)
    killed = begin(file)
    wait_for(lambda: list(job.config.folder.glob("checkpoints/*/last.safetensors")), killed)
    killed.kill()
    killed.wait()
    assert (job.config.folder / NAME).exists(), "killed while it had the folder"
    status, output, _ = command(sweep, file, "--dry-run", "--json")
    assert [record["state"] for record in json.loads(output)] == ["begun"]
    status, _, error = command(sweep, file)
    assert status == 0, error
    manifest = read_model(job.config.folder / "manifest.json", Manifest)
    assert (manifest.steps, manifest.interruptions) == (400, 1)
    assert [line.split()[2] for line in starts(job.config.folder)] == [str(killed.pid), str(os.getpid())]


def test_printed_jobs_do_what_the_sweep_does(write, command, tmp_path):
    """Run by bash, the commands leave the same bytes as the sweep itself."""
    file = write(
        '[grid]\ntasks = [["demo-topic", "demo-names"]]\nmethod = ["ptuning-v2", "linear-probe"]\nseed = [1]\n'
    )
    status, commands, error = command(sweep, file, "--print-jobs")
    assert status == 0, error
    assert len(commands.splitlines()) == 2
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    bash = ["bash", "-c", commands]
    done = subprocess.run(bash, cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status, output, _ = command(sweep, file, "--json")
    assert [record["state"] for record in json.loads(output)] == ["skipped", "skipped"]
    (tmp_path / "runs").rename(tmp_path / "by bash")
    status, output, error = command(sweep, file, "--json")
    assert status == 0, error
    folders = [Path(record["folder"]) for record in json.loads(output)]
    for folder in folders:
        for name in ("prompt.safetensors", "heads.safetensors", "results.json"):
            here, there = folder / name, tmp_path / "by bash" / folder.name / name
            assert here.exists() == there.exists()
            assert not here.exists() or here.read_bytes() == there.read_bytes(), name
    assert sum((folder / "prompt.safetensors").exists() for folder in folders) == 1


HOLD = "import time; from harness.lock import locked\nwith locked({!r}): print('mine', flush=True); time.sleep(99)"


def test_a_lock_dies_with_its_process(tmp_path, tiny_run):
    folder = tmp_path / "x"
    code = HOLD.format(folder).replace("PosixPath(", "__import__('pathlib').Path(")
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "mine\n"
    with pytest.raises(Busy, match=f"{folder}: process {holder.pid} on .* works on it"), locked(folder):
        pass
    status, output, error = tiny_run("--out", tmp_path, "--name", "x")
    assert (status, output) == (2, "")
    assert f"error: {folder}: process {holder.pid} on" in error
    assert "choose another --name" in error
    holder.kill()
    holder.wait()
    with locked(folder), pytest.raises(Busy, match=f"process {os.getpid()} "), locked(folder):
        pass
    assert not folder.exists(), "nothing came of it"


def test_a_lock_keeps_all_others_out(tmp_path):
    """Processes that take and give back the same folder all the time are never in it together."""
    code = f"""
import os, pathlib
from harness.lock import Busy, locked
run = pathlib.Path({str(tmp_path / "x")!r})
done = 0
while done < 300:
    try:
        with locked(run):
            os.close(os.open(run / "alone", os.O_CREAT | os.O_EXCL))
            (run / "alone").unlink()
            done += 1
    except Busy:
        pass
"""
    begun = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(3)]
    assert [process.wait(60) for process in begun] == [0, 0, 0]


def test_a_locked_job_is_passed_over_and_looked_at_again(write, command, monkeypatch):
    monkeypatch.setattr(jobs, "PAUSE", 0.02)
    file = write('tasks = ["demo-topic"]\n[grid]\nmethod = ["linear-probe", "ptuning-v2"]\n')
    first, second = (job.config.folder for job in read_plan(file))
    held = threading.Event()

    def hold():
        with locked(first):
            held.set()
            while not (second / "results.json").exists():
                time.sleep(0.01)

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    status, output, error = command(sweep, file, "--json")
    other.join()
    assert status == 0, error
    assert [record["state"] for record in json.loads(output)] == ["done", "done"]
    assert error.index(f"{second.name}: done") < error.index(f"{first.name}: done")
    assert "jobs left to other processes: 1" in error


def test_two_sweeps_at_once_share_the_work(write):
    file = write('tasks = ["demo-topic"]\nseeds = 6\n')
    both = [begin(file), begin(file)]
    assert [process.wait(120) for process in both] == [0, 0]
    done = [starts(job.config.folder) for job in read_plan(file)]
    assert [len(lines) for lines in done] == [1] * 6
    assert all((job.config.folder / "results.json").exists() for job in read_plan(file))
