"""What a training keeps: nothing for an example that has passed, and nothing that grows with a frozen encoder."""

import gc
import gzip
import json
import sys
import tracemalloc
from collections import Counter
from itertools import product

import pytest
import torch
from safetensors.torch import load_file
from tiny import SHAPE, tiny_tokenizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import BertConfig, BertModel

from benchmarks.records import Example, Split
from benchmarks.task import Kind, Task, TaskCard
from harness import run
from harness.backbone import Backbone
from harness.config import RunConfig
from harness.data import TaskRows
from harness.device import find_device
from harness.features import TextEncoder
from harness.initial import make_model
from harness.methods import find_method
from harness.screen import Screen
from harness.train import encode_training, train
from tests.speed.memory import EXTRAPOLATED, WAYS, fit, known, predicted, terms
from tests.speed.workload import Case, Size

LABELS = ("a", "b", "c")
BATCH = 4

SMALL = {}
LARGE = {"num_hidden_layers": 5, "hidden_size": 64}
WIDE = {"intermediate_size": 700, "vocab_size": 6000}
"""Takes a prompt of the same shape as `SMALL`, and has many times its weights."""


def encoder_of(shape):
    torch.manual_seed(0)
    return BertModel(BertConfig(**{**SHAPE, **shape}), add_pooling_layer=False)


def prepare(shape, tmp_path, method="ptuning-v2", count=40, **settings):
    examples = tuple(
        Example(str(n), " ".join(f"w{5 + (7 * n + k) % 55}" for k in range(3 + n % 6)), label=LABELS[n % 3])
        for n in range(count)
    )
    card = TaskCard(name="task", suite="test", kind=Kind.CLASSIFICATION, labels=LABELS, metrics=("accuracy",))
    task = Task(card, source=None, title="", licence="", url="", how_to_get="")  # rows are given, none are read
    rows = [TaskRows(task, {"en": Split(examples)}, {}, {}, {}, frozenset())]
    config = RunConfig(method=method, batch=BATCH, prompt_length=3, epochs=1000, **({"max_steps": 3} | settings))
    backbone = Backbone("tiny", encoder_of(shape), tiny_tokenizer("bert"))
    encoder = TextEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, backbone.max_positions)
    training = encode_training(rows, encoder, config.batch, config.seed)
    model = make_model(config, find_method(method), backbone, rows, training)

    def go(**more):
        device = find_device("fp32", cpu=True)
        train(model, training, config, find_method(method), device, tmp_path / "c", "id", Screen(True), **more)

    return model, training, go


def tensors_alive():
    """Bytes of every storage that a tensor of this process has."""
    gc.collect()
    kinds = (torch.Tensor, torch.nn.Parameter)
    storages = [thing.untyped_storage() for thing in gc.get_objects() if type(thing) in kinds]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("method", ["ptuning-v2", "linear-probe"])
@pytest.mark.parametrize("shape", [{"hidden_size": 128}, {"hidden_size": 256, "num_hidden_layers": 5}])
def test_nothing_is_kept_of_examples_that_have_passed(shape, method, tmp_path):
    """Steps 20 and 120 of a training, 400 examples apart; `tracemalloc` follows Python and numpy."""
    _, _, go = prepare(shape, tmp_path / "long", method, max_steps=121)
    tensors, python = {}, {}

    def look(step):
        if step in (20, 120):
            tensors[step] = tensors_alive()
            python[step] = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        go(on_step=look)
    finally:
        tracemalloc.stop()
    assert tensors[120] == tensors[20]
    # Less than half of a hidden state an example; the curve grows, and torch's own Python code keeps a little.
    assert python[120] - python[20] < 400 * 4 * shape["hidden_size"] / 2
    _, _, go = prepare(shape, tmp_path / "short", method, max_steps=20)
    go()
    long, short = ((tmp_path / name / "c").stat().st_size for name in ("long", "short"))
    assert long - short < 6 * 40, "a point of the curve every 20 steps: three numbers"


def size_of(thing):
    """Bytes of everything that Python objects hold, arrays and tensors included."""
    seen, todo = {}, [thing]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type | Task):
            continue
        seen[id(thing)] = thing  # held, so that no other gets its id
        todo += gc.get_referents(thing)
    tensors = sum(thing.untyped_storage().nbytes() for thing in seen.values() if isinstance(thing, torch.Tensor))
    return tensors + sum(map(sys.getsizeof, seen.values()))


def test_what_is_kept_of_an_example_does_not_depend_on_the_encoder(tmp_path):
    """Features, targets and batches of 40 more examples."""
    grown = []
    for number, shape in enumerate((SMALL, LARGE, WIDE)):
        sizes = []
        for count in (40, 80):
            _, training, go = prepare(shape, tmp_path / f"{number}-{count}", count=count)
            go()
            sizes.append(size_of([(task.features, task.targets, task.batches) for task in training]))
        grown.append(sizes[1] - sizes[0])
    assert grown[0] > 40 * 100, "what an example holds is counted"
    assert max(grown) - min(grown) < 40  # less than a byte an example: small integers are shared


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """The folder of a run of the embedded suite, all kinds of tasks, by encoder and method; each is made once."""
    made = {}

    def make(name, method="ptuning-v2"):
        if (name, method) not in made:
            folder = tmp_path_factory.mktemp("memory")
            encoder_of({"small": SMALL, "large": LARGE, "wide": WIDE}[name]).save_pretrained(folder / "backbone")
            tiny_tokenizer("bert").save(str(folder / "backbone" / "tokenizer.json"))
            words = ["--suite", "demo", "--backbone", folder / "backbone", "--prompt-length", 3, "--languages", "en,zh"]
            words += ["--max-train", 24, "--max-eval", 9, "--batch", 8, "--max-steps", 6, "--method", method]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", ["run", *map(str, words), "--out", str(folder), "--name", "x"])
                assert run.main() == 0
            made[name, method] = folder / "x"
        return made[name, method]

    return make


def shape_of(value):
    """A JSON value with its numbers and texts left out."""
    if isinstance(value, dict):
        return {name: shape_of(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shape_of(part) for part in value]
    return type(value).__name__.replace("int", "float")


def predictions(folder):
    files = sorted((folder / "predictions").iterdir())
    assert files
    lines = {path.name: gzip.decompress(path.read_bytes()).decode().splitlines() for path in files}
    return {name: [shape_of(json.loads(line)) for line in found] for name, found in lines.items()}


def test_stored_predictions_have_as_many_numbers_for_each_encoder(run_of):
    small = predictions(run_of("small"))
    assert sum(map(len, small.values())) > 100
    assert predictions(run_of("large")) == small
    assert predictions(run_of("wide")) == small


def files(folder):
    """Bytes of each kind of file in a run folder but its predictions; a tracker's files have times in their names."""
    sizes = Counter()
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name != "predictions":
            sizes["tracker" if ".tfevents." in path.name else path.name] += path.stat().st_size
    return sizes


def extra_weights():
    """How many weights `WIDE` has more than `SMALL`."""
    small, wide = (sum(weight.numel() for weight in encoder_of(shape).parameters()) for shape in (SMALL, WIDE))
    return wide - small


def test_a_run_folder_grows_with_what_is_trained_alone(run_of):
    small, wide = files(run_of("small")), files(run_of("wide"))
    assert small.keys() == wide.keys()
    texts = {name for name in small if not name.endswith(".safetensors")}
    assert {name: wide[name] for name in wide.keys() - texts} == {name: small[name] for name in small.keys() - texts}
    assert all(abs(wide[name] - small[name]) < 500 for name in texts), "numbers have more or fewer digits"
    # The counter-example: what is trained has the size of the encoder.
    small, wide = files(run_of("small", "fine-tune")), files(run_of("wide", "fine-tune"))
    assert sum(wide.values()) - sum(small.values()) > 4 * extra_weights()


def state_of(shape, tmp_path, method):
    """Bytes of the optimiser's state, of the gradients, of a checkpoint's tensors and of its file."""
    model, _, go = prepare(shape, tmp_path, method)
    found = {}

    def look(optimizer, *_):
        found["gradients"] = {name: w.grad.nbytes for name, w in model.named_parameters() if w.grad is not None}
        found["optimiser"] = sum(value.nbytes for state in optimizer.state.values() for value in state.values())

    hook = register_optimizer_step_pre_hook(look)
    try:
        go()
    finally:
        hook.remove()
    found["checkpoint"] = sum(tensor.nbytes for tensor in load_file(tmp_path / "c").values())
    found["file"] = (tmp_path / "c").stat().st_size
    return model, found


@pytest.mark.parametrize("method", ["ptuning-v2", "prompt-tuning", "linear-probe", "fine-tune"])
def test_state_of_a_training_grows_with_what_is_trained_alone(method, tmp_path):
    found = []
    for name, shape in (("small", SMALL), ("wide", WIDE)):
        model, state = state_of(shape, tmp_path / name, method)
        trained = {name: weight.nbytes for name, weight in model.named_parameters() if weight.requires_grad}
        counters = 4 * len(trained)  # of the optimiser's steps, one a tensor
        assert state["gradients"] == trained, "all that is trained has a gradient, and nothing else"
        assert state["optimiser"] == 2 * sum(trained.values()) + counters
        assert state["checkpoint"] == 3 * sum(trained.values()) + counters
        assert any(name.startswith("backbone.") for name in trained) is (method == "fine-tune")
        found.append(state)
    small, wide = found
    if method == "fine-tune":
        assert wide["file"] - small["file"] > 12 * extra_weights()
    else:
        assert {**wide, "file": 0} == {**small, "file": 0}
        assert abs(wide["file"] - small["file"]) < 100, "digits of the loss"


def test_the_formula_of_memory_is_found_again_and_counts_right():
    """`tests.speed.memory`: bytes made up by a formula give that formula; weights are those of the real encoders."""
    size = Size(3, 128, 2, 500)
    config = BertConfig(
        vocab_size=500, hidden_size=128, num_hidden_layers=3, num_attention_heads=2, intermediate_size=512
    )
    assert size.weights == BertModel(config, add_pooling_layer=False).num_parameters()
    made_up = dict(zip(terms(Case(WAYS[0], size, 2, 16)), (5e6, 2.0, 1.5, 41.0, 75.0, 4.0), strict=True))
    sizes = (size, Size(2, 512, 8, 500), Size(6, 512, 8, 500))
    cases = [Case(WAYS[0], size, rows, pieces) for size in sizes for rows, pieces in product((2, 4), (32, 128))]
    found = fit({case: round(predicted(made_up, case)) for case in cases})
    assert found == pytest.approx(made_up, rel=1e-3)
    large = Case(WAYS[0], EXTRAPOLATED["XLM-R-XXL"], 8, 384)
    assert predicted(found, large) == pytest.approx(predicted(made_up, large), rel=1e-3)
    # Published as 10.7 billion (arXiv 2105.00572, table 1); the prompt trains 48 x 2 x 16 x 4096 and a head.
    assert large.size.weights == pytest.approx(10.7e9, rel=0.01)
    assert known(large) == 4 * large.size.weights + 16 * (48 * 2 * 16 * 4096 + 2 * 4097)
