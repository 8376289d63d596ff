"""The training loop, beside one written out with the formulas of the papers."""

import errno

import pytest
import torch
from tiny import LAYERS, tiny_model, tiny_tokenizer
from transformers import get_linear_schedule_with_warmup

import harness.attention
import harness.checkpoint
import harness.kernel
from benchmarks.errors import PolypromptError
from benchmarks.records import Example, Split
from benchmarks.task import Kind, Task, TaskCard
from harness.backbone import Backbone
from harness.checkpoint import load_checkpoint
from harness.config import RunConfig
from harness.data import TaskRows
from harness.device import find_device
from harness.features import TextEncoder, pad
from harness.initial import make_model
from harness.methods import METHODS, find_method
from harness.model import PromptedModel
from harness.screen import Screen
from harness.train import encode_training, train

LABELS = ("a", "b", "c")


def examples(count: int) -> tuple[Example, ...]:
    return tuple(
        Example(str(n), " ".join(f"w{5 + (7 * n + k) % 55}" for k in range(3 + n % 6)), label=LABELS[7 * n % 55 // 19])
        for n in range(count)
    )


def rows_of(name):
    card = TaskCard(name=name, suite="test", kind=Kind.CLASSIFICATION, labels=LABELS, metrics=("accuracy",))
    task = Task(card, source=None, title="", licence="", url="", how_to_get="")  # rows are given, none are read
    return TaskRows(task, {"en": Split(examples(22))}, {}, {}, {}, frozenset())


def prepare(method_name, tmp_path, tasks=("task",), **settings):
    rows = [rows_of(name) for name in tasks]
    settings = {"seed": 3, "prompt_length": 3, "pooling": "mean", "max_steps": 9, "epochs": 9} | settings
    settings = settings if "tokens_per_batch" in settings else {"batch": 4} | settings
    config = RunConfig(method=method_name, **settings)
    backbone = Backbone("tiny", tiny_model("bert"), tiny_tokenizer("bert"))
    encoder = TextEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, backbone.max_positions)
    training = encode_training(rows, encoder, config.batch, config.seed, config.tokens_per_batch)
    method = find_method(method_name)
    model = make_model(config, method, backbone, rows, training)

    def go(**more):
        rate = next(iter(config.learning_rate), None)
        device = find_device("fp32")
        return train(model, training, config, method, device, tmp_path / "c", "id", Screen(True), rate, **more)

    return model, training, config, go


def adamw(weight, gradient, first, second, step, rate, decay):
    """One step of AdamW as in arXiv 1711.05101, algorithm 2, with the defaults of its authors' code."""
    weight = weight - rate * decay * weight
    first.mul_(0.9).add_(0.1 * gradient)
    second.mul_(0.999).add_(0.001 * gradient**2)
    return weight - rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)


def test_probe_ends_where_a_hand_written_loop_ends(tmp_path):
    model, training, _, go = prepare("linear-probe", tmp_path, learning_rate=0.02, weight_decay=0.1)
    head = model.heads["task"]
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    go()
    moments = [torch.zeros_like(weight), torch.zeros_like(weight), torch.zeros_like(bias), torch.zeros_like(bias)]
    for step in range(9):
        batch = [row for unit in training[0].batches.rows(step) for row in unit]
        rows = pad([training[0].features[row] for row in batch], 0)
        lengths = torch.from_numpy(rows.lengths)
        with torch.no_grad():
            states = model.backbone(torch.from_numpy(rows.input_ids), lengths, torch.from_numpy(rows.type_ids))
        pooled = torch.stack([states[n, :length].mean(0) for n, length in enumerate(lengths)])
        gold = torch.nn.functional.one_hot(torch.tensor([training[0].targets[row] for row in batch]), 3)
        error = ((pooled @ weight.T + bias).softmax(-1) - gold) / len(batch)  # gradient of the mean cross-entropy
        gradients = [error.T @ pooled, error.sum(0)]
        norm = torch.sqrt(sum((g**2).sum() for g in gradients))
        gradients = [g * min(1.0, 1.0 / (norm + 1e-6)) for g in gradients]
        rate = 0.02 * (1 - step / 9)
        weight = adamw(weight, gradients[0], *moments[:2], step + 1, rate, 0.1)
        bias = adamw(bias, gradients[1], *moments[2:], step + 1, rate, 0.0)
    torch.testing.assert_close(head.weight, weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.bias, bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_only_what_the_method_names_is_changed(method, tmp_path):
    model, _, _, go = prepare(method, tmp_path)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    go()
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    of_encoder = {
        "fine-tune": lambda name: True,
        "bitfit": lambda name: name.endswith(".bias"),
        "lora": lambda name: "lora_" in name and (".query." in name or ".value." in name),
    }
    expected = {
        name for name in before if not name.startswith("backbone.") or of_encoder.get(method, lambda name: False)(name)
    }
    assert changed == expected
    assert any(name.startswith("prompt.") for name in changed) is (method in ("ptuning-v2", "prompt-tuning"))
    assert any(name.startswith("backbone.") for name in changed) is (method in of_encoder)


SETTINGS = [
    *(("ptuning-v2", {}), ("prompt-tuning", {}), ("bitfit", {}), ("lora", {}), ("linear-probe", {}), ("fine-tune", {})),
    *(("ptuning-v2", {"reparameterise": True, "prompt_dropout": 0.2}), ("prompt-tuning", {"reparameterise": True})),
    *(("ptuning-v2", {"init": "zero-gated"}), ("ptuning-v2", {"positions": "shifted"})),
    *(("ptuning-v2", {"tokens_per_batch": 24}), ("fine-tune", {"tokens_per_batch": 40})),
    *(("ptuning-v2", {"sharing": "low-rank"}), ("prompt-tuning", {"sharing": "low-rank"})),
    *(("ptuning-v2", {"sharing": "separate"}), ("prompt-tuning", {"sharing": "separate", "init": "normal"})),
]


@pytest.mark.parametrize(("method", "settings"), SETTINGS)
def test_a_broken_off_training_ends_with_the_same_weights(method, settings, tmp_path):
    """The process 'dies' before step 5, long after its last checkpoint at step 3, and another one goes on."""

    class Died(Exception):
        pass

    def die(step):
        if step == 5:
            raise Died

    whole, _, _, go = prepare(method, tmp_path / "whole", **settings)
    go()

    first, _, _, go = prepare(method, tmp_path / "parts", checkpoint_seconds=1e-9, **settings)
    kept = tmp_path / "parts" / "c"

    def copy_then_die(step):
        if step == 3:
            (tmp_path / "at3").write_bytes(kept.read_bytes())
        die(step)

    with pytest.raises(Died):
        go(on_step=copy_then_die)
    kept.write_bytes((tmp_path / "at3").read_bytes())
    second, _, _, go = prepare(method, tmp_path / "parts", **settings)
    progress = go()
    assert (progress.step, progress.interruptions) == (9, 1)
    for (name, expected), (_, got) in zip(whole.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(expected, got), name
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    model, _, _, go = prepare("ptuning-v2", tmp_path)
    go()
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    with pytest.raises(PolypromptError, match="other settings"):
        load_checkpoint(tmp_path / "c", model, optimizer, "another")
    whole = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PolypromptError, match="damaged checkpoint"):
        go()


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path):
    model, _, _, go = prepare("ptuning-v2", tmp_path)
    with torch.no_grad():
        model.prompt.shared.slots[0] = float("nan")
    with pytest.raises(PolypromptError, match="of task task is nan at step 0: lower --learning-rate"):
        go()


def test_learning_happens(tmp_path):
    """22 rows, three labels that the first word decides: far better in the end than guessing."""
    _, _, _, go = prepare("ptuning-v2", tmp_path, max_steps=300, epochs=100, learning_rate=0.02, pooling="cls")
    progress = go()
    print(progress.curve)
    assert progress.curve[-1][2] > 0.8


def weights_after(tmp_path, method="ptuning-v2", more=None, **settings):
    model, _, _, go = prepare(method, tmp_path, **settings)
    progress = go(**(more or {}))
    return [weight.detach().clone() for weight in model.parameters() if weight.requires_grad], progress, model


def close(first, second, atol=1e-6):
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=atol)


AGAIN = {"checkpoint_activations": True}
PASSES = [
    *(("ptuning-v2", {"micro_batch": 1}), ("ptuning-v2", {"micro_batch": 3}), ("prompt-tuning", {"micro_batch": 3})),
    *((method, AGAIN) for method in METHODS),
]


@pytest.mark.parametrize(("method", "settings"), PASSES)
def test_passes_and_recomputation_leave_the_result_alone(method, settings, tmp_path):
    plain, _, _ = weights_after(tmp_path / "plain", method)
    other, _, _ = weights_after(tmp_path / "other", method, **settings)
    close(plain, other, 2e-5)


@pytest.mark.parametrize("engine", ["own", "transformers"])
def test_activations_are_computed_again(engine, tmp_path, monkeypatch):
    """The layers' forward runs twice a step, and dropout stays off in a frozen encoder."""
    calls = []
    mix, packed = harness.attention.mix, harness.kernel.attention
    monkeypatch.setattr(harness.attention, "mix", lambda *inputs: calls.append(1) or mix(*inputs))
    monkeypatch.setattr(harness.kernel, "attention", lambda *inputs: calls.append(1) or packed(*inputs))
    runs = []
    for on in (False, True):
        model, _, _, go = prepare("ptuning-v2", tmp_path / str(on), checkpoint_activations=on, max_steps=1)
        model.backbone.engine = engine
        calls.clear()
        go()
        runs.append(len(calls))
        assert not model.backbone.model.encoder.layer[1].output.dropout.training
    assert runs == [LAYERS, 2 * LAYERS]


def test_a_batch_that_is_too_large_for_memory_is_split(tmp_path, monkeypatch):
    plain, _, _ = weights_after(tmp_path / "plain")
    forward = PromptedModel.outputs
    refused = []

    def outputs(self, card, input_ids, *more):
        if len(input_ids) > 1:
            refused.append(len(input_ids))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, card, input_ids, *more)

    monkeypatch.setattr(PromptedModel, "outputs", outputs)
    split, progress, _ = weights_after(tmp_path / "split")
    close(plain, split)
    assert refused == [4, 2], "found out once, then remembered"
    assert progress.passes == 4
    monkeypatch.setattr(PromptedModel, "outputs", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(PolypromptError, match="memory is too small for one row"):
        weights_after(tmp_path / "none")
    monkeypatch.setattr(PromptedModel, "outputs", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        weights_after(tmp_path / "other")


def test_a_full_disk_does_not_end_a_training(tmp_path, monkeypatch, capsys):
    plain, _, _ = weights_after(tmp_path / "plain")
    write, full = harness.checkpoint.write_atomic, []

    def write_or_fail(path, content):
        full.append(path)
        if len(full) < 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(harness.checkpoint, "write_atomic", write_or_fail)
    model, _, _, _ = prepare("ptuning-v2", tmp_path / "full", checkpoint_seconds=1e-9)
    model, training, config, _ = prepare("ptuning-v2", tmp_path / "full", checkpoint_seconds=1e-9)
    device, method = find_device("fp32"), find_method("ptuning-v2")
    train(model, training, config, method, device, tmp_path / "full" / "c", "id", Screen())
    close(plain, [weight for weight in model.parameters() if weight.requires_grad], 0)
    assert capsys.readouterr().err.count("No space left on device") == 3
    assert (tmp_path / "full" / "c").exists()


def test_the_best_measured_weights_are_kept(tmp_path):
    """Epochs of 6 steps; the second of four measures best, and a tie does not replace it."""
    seen = []

    def prepared(folder, **settings):
        model, _, _, go = prepare("ptuning-v2", tmp_path / folder, max_steps=None, epochs=4, **settings)
        answers = iter([1.0, 3.0, 3.0, 2.0])

        def validate():
            seen.append([weight.detach().clone() for weight in model.parameters() if weight.requires_grad])
            return {"task": next(answers)}

        return model, go, validate

    model, go, validate = prepared("a")
    progress = go(validate=validate)
    assert progress.selection == [(6, 1.0), (12, 3.0), (18, 3.0), (24, 2.0)]
    assert progress.best == 12
    close([weight for weight in model.parameters() if weight.requires_grad], seen[1], 0)
    assert not torch.equal(seen[1][0], seen[3][0])

    model, go, validate = prepared("b", patience=1)
    progress = go(validate=validate)
    assert (progress.step, progress.best) == (18, 12), "stopped after one epoch that brought nothing better"
    close([weight for weight in model.parameters() if weight.requires_grad], seen[1], 0)


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize(("method", "sharing", "apart"), [
    ("ptuning-v2", "separate", True), ("linear-probe", "shared", True), ("ptuning-v2", "shared", False),
    ("ptuning-v2", "low-rank", False),
])  # fmt: skip
def test_tasks_that_share_nothing_end_with_their_own_best_weights(method, sharing, apart, interrupted, tmp_path):
    """Of two tasks the first is best after one epoch, the second after two, and their mean after three."""
    scores = [{"one": 9.0, "two": 1.0}, {"one": 3.0, "two": 8.0}, {"one": 7.0, "two": 7.0}]
    settings = {"max_steps": None, "epochs": 3, "sharing": sharing, "checkpoint_seconds": 1e-9}
    seen = []

    def validate():
        seen.append(
            {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
        )
        if interrupted and len(seen) == 2:
            seen.pop()
            raise KeyboardInterrupt
        return scores[len(seen) - 1]

    model, _, _, go = prepare(method, tmp_path, ("one", "two"), **settings)
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            go(validate=validate)
        interrupted = False
        model, _, _, go = prepare(method, tmp_path, ("one", "two"), **settings)
    progress = go(validate=validate)
    assert [score for _, score in progress.selection] == [5.0, 5.5, 7.0]
    assert progress.own == ({"one": (12, 9.0), "two": (24, 8.0)} if apart else {})
    assert (progress.best, progress.selected) == ((24, 8.5) if apart else (36, 7.0))
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            epoch = (0 if ".one." in name else 1) if apart else 2
            assert torch.equal(weight, seen[epoch][name]), name
            assert not torch.equal(weight, seen[1 - epoch if apart else 1][name]), name


def rates_of(monkeypatch, folder, **settings):
    """What was seen before each step -> the rate of that step, by the optimiser; and the steps of measurements."""
    used = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: used.append(self.param_groups[0]["lr"]) or step(self))
    _, training, _, go = prepare("linear-probe", folder, learning_rate=0.02, **settings)
    progress = go(validate=lambda: {"task": 0.0})
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    seen = [0]
    for number in range(progress.step):
        seen.append(seen[-1] + len(training[0].batches.rows(number)))
    assert progress.examples == seen[-1] == progress.curve[-1].examples
    return dict(zip(seen, used, strict=False)), [seen[step] for step, _ in progress.selection], seen


@pytest.mark.parametrize("decay", ["linear", "exponential"])
def test_rates_and_measurements_count_examples(decay, tmp_path, monkeypatch):
    """22 rows, two and a half epochs: 55 examples, however they are packed."""
    runs = []
    for budget in (24, 50):
        settings = {"tokens_per_batch": budget, "decay": decay, "epochs": 2.5, "max_steps": None}
        rates, measured, seen = rates_of(monkeypatch, tmp_path / str(budget), **settings)
        by_hand = [0.02 * ((55 - n) / 55 if decay == "linear" else 0.95 ** (n // 22)) for n in rates]
        assert list(rates.values()) == pytest.approx(by_hand)
        assert measured == [22, 44, seen[-1]], "each epoch has whole batches, and the end"
        assert seen[-2] < 55 <= seen[-1]
        runs.append(rates)
    assert len(runs[0]) > 1.5 * len(runs[1])
    both = runs[0].keys() & runs[1].keys()
    assert {0, 22, 44} <= both
    assert [runs[0][n] for n in both] == [runs[1][n] for n in both]


@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_rates_with_a_warmup_are_those_of_transformers(warmup, tmp_path, monkeypatch):
    """6 steps an epoch, of which 4 epochs: 24 steps."""
    used = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: used.append(self.param_groups[0]["lr"]) or step(self))
    settings = {"learning_rate": 0.02, "epochs": 4, "max_steps": None, "warmup": warmup}
    prepare("linear-probe", tmp_path, **settings)[-1]()
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.02)
    peer = get_linear_schedule_with_warmup(optimizer, round(24 * warmup), 24)
    expected = []
    for _ in range(24):
        expected.append(peer.get_last_lr()[0])
        optimizer.step()
        peer.step()
    assert used[: len(expected)] == pytest.approx(expected)
    assert len(used) == 24
    used.clear()
    prepare("linear-probe", tmp_path / "exponential", **settings, decay="exponential")[-1]()
    rising = [0.02 * n / 6 for n in range(6)] if warmup else [0.02] * 6
    assert used == pytest.approx(rising + [0.02 * 0.95**epoch for epoch in (1, 2, 3) for _ in range(6)])


def test_the_last_of_a_fixed_number_of_steps_has_the_last_rate(tmp_path, monkeypatch):
    rates, _, seen = rates_of(monkeypatch, tmp_path, tokens_per_batch=24, max_steps=5)
    assert len(rates) == 5
    assert list(rates.values()) == pytest.approx([0.02 * (1 - n / seen[5]) for n in seen[:5]])


def test_a_batch_of_a_budget_is_split_as_any_other(tmp_path):
    plain, progress, _ = weights_after(tmp_path / "plain", tokens_per_batch=60)
    assert progress.examples > 4 * 9
    other, _, _ = weights_after(tmp_path / "other", tokens_per_batch=60, micro_batch=2)
    close(plain, other, 2e-5)
