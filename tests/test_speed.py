"""The parts of `tests.speed.training` that need no quiet machine: statistics, counted products, peers, the report."""

import json
from itertools import count

import pytest
import torch
from tiny import SHAPE, tiny_tokenizer
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

from benchmarks.registry import find_task
from harness import encoder
from harness.backbone import load_backbone
from tests.speed import growth, rows, training
from tests.speed.matrices import Shape, peak, row_products
from tests.speed.ours import Ours, batches
from tests.speed.peers import collator, items, peft_prefix, reference, run_trainer, whole
from tests.speed.ratios import interleave, ratios, spread
from tests.speed.rows import draw, part, random_rows

HIDDEN, INNER, SLOTS = SHAPE["hidden_size"], SHAPE["intermediate_size"], 3


@pytest.fixture(scope="module")
def long_backbone(tmp_path_factory):
    """A tiny encoder that takes rows as long as those of the benchmarks."""
    folder = tmp_path_factory.mktemp("long")
    torch.manual_seed(0)
    BertModel(BertConfig(**SHAPE | {"max_position_embeddings": 420}), add_pooling_layer=False).save_pretrained(folder)
    tiny_tokenizer("bert").save(str(folder / "tokenizer.json"))
    return folder


def test_median_and_spread():
    found = spread([5.0, 1.0, 2.0, 4.0, 3.0, 6.0, 8.0, 7.0, 11.0, 9.0, 10.0])
    assert (found.value, found.low, found.high) == (6.0, 2.0, 10.0)
    assert spread([7.0]).record == {"value": 7.0, "low": 7.0, "high": 7.0}


def test_ratios_are_those_of_each_round():
    """A machine that gets ten times slower changes none of them; the ratio of the medians would be 4.5."""
    found = ratios([3.0, 8.0, 30.0], [1.0, 2.0, 10.0])
    assert found.value == 3.0
    assert (found.low, found.high) == pytest.approx((3.0, 3.8))


def test_ways_take_turns(monkeypatch):
    order, clock = [], count()
    monkeypatch.setattr("tests.speed.ratios.time.perf_counter", lambda: next(clock))
    ways = {name: lambda name=name: order.append(name) or len(order) for name in "abc"}
    found = interleave(ways, 0, least=3)
    assert "".join(order) == "abccbaabc"
    assert found == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


def test_rounds_end_in_time(monkeypatch):
    """A round of 10 seconds: three fit 35, and the fourth would end after 40."""
    now = [0.0]
    monkeypatch.setattr("tests.speed.ratios.time.perf_counter", lambda: now[0])

    def run():
        now[0] += 10
        return 1.0

    assert len(interleave({"a": run}, 35)["a"]) == 3


def test_products_by_hand():
    """Two layers, H = 2, F = 3, one slot, two pieces, all read."""
    found = row_products(Shape(2, 2, 3, 1, reads_first=False), 2)
    # Forward a layer: 2 pieces x 2 x (16 + 12). Back: all of it in layer 1, and 2 x 2 x (4 + 12) in layer 0.
    assert found.weights == 2 * 112 + 112 + 64
    # Forward a layer: 2 x 2 pieces x 3 keys x 2 units x 2 products. Back: four products in layer 1; in layer 0 one of 3
    # keys and two of the slot.
    assert found.attention == 2 * 48 + 96 + 2 * 2 * (3 + 2) * 2
    # Only the first piece is read: layer 1 has queries, attention and what is behind for one piece.
    found = row_products(Shape(2, 2, 3, 1), 2)
    assert found.weights == (112 + 64) + 2 * (2 * (2 * 8 + 4) + 2 * (4 + 12))
    assert found.attention == 48 + 40 + 3 * 24
    # Layer 0 is cached: only layer 1 is left, without a way back to its input.
    found = row_products(Shape(2, 2, 3, 1, first=1, computed=1), 2)
    assert found.weights == 72 + 32
    assert found.attention == 24 + 2 * (3 + 2) * 2


@pytest.mark.parametrize("task", ["mrpc", "squadshifts"])
@pytest.mark.parametrize(("layers", "cached"), [("all", False), ("top:2", False), ("top:1", True)])
def test_products_with_weights_are_those_that_are_done(task, layers, cached, long_backbone, monkeypatch):
    """Against what torch counts in a training without padding; products of attention are another operator, baddbmm."""
    monkeypatch.setattr(encoder, "PACKED", 0)  # torch does not count those with packed weights
    backbone, pieces, count = load_backbone(str(long_backbone)), 9, 8
    run = Ours(
        backbone,
        [random_rows(find_task(task), backbone, [pieces] * count, 4)],
        cached,
        prompt_length=SLOTS,
        prompt_layers=layers,
    )
    run.run()  # the encoder's weights in its precision are made
    with FlopCounterMode(display=False) as counter:
        run.run()
    counted = {str(name): number for name, number in counter.get_flop_counts()["Global"].items()}
    linear = sum(number for name, number in counted.items() if name in ("aten.mm", "aten.addmm", "aten.bmm"))
    read = pieces if task == "squadshifts" else 1
    head = 3 * 2 * count * read * HIDDEN * 2  # two labels, or begin and end
    assert linear - head == count * row_products(run.shape, pieces).weights


def test_speed_of_products_is_that_of_the_operations(monkeypatch):
    """With a clock that gives each product a second."""
    clock = count()
    monkeypatch.setattr("tests.speed.matrices.time.perf_counter", lambda: next(clock))
    shape, tokens = Shape(2, 8, 16, 1), [(2, 3), (4, 5)]
    each = 2 * 2 * (3 * 64 + 64 + 2 * 128)  # forward and back
    assert peak(shape, tokens) == pytest.approx(each * (6 + 20) / 16)


@pytest.mark.parametrize("task", ["mrpc", "squadshifts"])
def test_peers_train_what_they_are_meant_to(task, long_backbone, tmp_path):
    backbone = load_backbone(str(long_backbone))
    drawn = draw(find_task(task), backbone, 6, 4, tmp_path)
    assert not drawn.real
    assert (min(drawn.lengths), max(drawn.lengths)) == (rows.LENGTHS[task][0], rows.LENGTHS[task][-1])
    card = drawn.training.task.card
    layers, prompt = SHAPE["num_hidden_layers"], 2 * SHAPE["num_hidden_layers"] * SLOTS * HIDDEN
    given = items(drawn.training, range(6))
    for make, trained, length in (
        (lambda: reference(backbone, card, SLOTS), prompt + 2 * (HIDDEN + 1), card.max_length),
        (lambda: peft_prefix(backbone, card, SLOTS), prompt + 2 * (HIDDEN + 1), None),
        (lambda: whole(backbone, card), None, None),
    ):
        model, collate = make(), collator(backbone.pad_id, length)
        assert collate(given)["input_ids"].shape == (6, length or max(drawn.lengths))
        before = {name: weight.clone() for name, weight in model.named_parameters()}
        if trained is not None:
            assert sum(w.numel() for w in model.parameters() if w.requires_grad) == trained
        computed = []
        last = model.get_submodule(next(name for name, _ in model.named_modules() if name.endswith("output.dense")))
        last.register_forward_hook(lambda module, inputs, output, into=computed: into.append(output.dtype))
        assert run_trainer(model, given, collate, 4, bf16=length is None) > 0
        assert set(computed) == {torch.float32 if length else torch.bfloat16}
        changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
        if trained is None:
            assert any(f"layer.{layers - 1}." in name for name in changed)
        else:
            assert changed == {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_reference_computes_what_ours_does(long_backbone, tmp_path):
    """The same prefix and head give the same logits, positions shifted: both sides of the comparison do the same."""
    backbone = load_backbone(str(long_backbone))
    drawn = draw(find_task("mrpc"), backbone, 4, 4, tmp_path)
    card, settings = drawn.training.task.card, {"prompt_length": SLOTS, "positions": "shifted"}
    run = Ours(backbone, [drawn.training], **settings)
    peer = reference(backbone, card, SLOTS).eval()
    prefix = run.model.prompt_of(card).tensor[:, :, 0].detach()  # [layer, 2, head, slot, head_dim]
    peer.prefix.weight.data = prefix.permute(3, 0, 1, 2, 4).reshape(SLOTS, -1)
    peer.head.load_state_dict(run.model.heads["mrpc"].state_dict())
    batch = collator(backbone.pad_id, card.max_length)(items(drawn.training, range(4)))
    lengths = torch.tensor(drawn.lengths)
    with torch.no_grad():
        expected = run.model.outputs(card, batch["input_ids"], lengths, batch["token_type_ids"])
        found = peer(**batch)["logits"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_part_has_the_lengths_of_all(long_backbone, tmp_path):
    backbone = load_backbone(str(long_backbone))
    training = draw(find_task("mrpc"), backbone, 64, 8, tmp_path).training
    few = part(training, 16)
    assert len(few.features) == 16
    mean = sum(map(len, training.features)) / 64
    assert sum(map(len, few.features)) / 16 == pytest.approx(mean, rel=0.03)
    assert sum(rows for rows, _ in batches(few)) == 16


def test_report(long_backbone, tmp_path, monkeypatch, command):
    cell = training.Cell(str(long_backbone), "mrpc", 8, 16, 8, 0)
    monkeypatch.setattr(training, "QUICK_CELLS", (cell,))
    monkeypatch.setattr(training, "GOALS", {f"{cell} ours : reference": 1e9, f"{cell} ours : products": 0})
    grown = [{"axis": "slots", "value": 4, "seconds": spread([0.1]).record, "bytes": 2**20}]
    monkeypatch.setattr(growth, "measure", lambda axes, seconds: grown)
    monkeypatch.setenv("POLYPROMPT_CACHE", "off")
    status, out, _ = command(training, "--quick", "--json", "--data-dir", tmp_path)
    report = json.loads(out)
    assert status == 0
    assert set(report["ratios"]) >= {f"{cell} {a} : {b}" for a in training.OURS for b in training.QUICK_PEERS}
    for ratio in report["ratios"].values():
        assert set(ratio) == {"value", "low", "high"}
        assert 0 < ratio["low"] <= ratio["value"] <= ratio["high"]
    assert [goal["reached"] for goal in report["goals"].values()] == [False, True]
    assert report["cells"][0]["rows"] == "random pieces"
    assert report["growth"] == grown
    text = training.tables(report)
    assert "100.00" in text and "random pieces" in text


def test_plot_without_its_library(monkeypatch, command):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    status, _, error = command(training, "--quick", "--plot", "x.svg")
    assert status == 2
    assert error == "error: --plot: needs matplotlib: pip install matplotlib\n"


def test_points_change_one_thing():
    point = growth.Point("layers, the rest cached", 2)
    assert [point[axis] for axis in growth.USUAL] == [64, 1, 16, 1, 2]
    assert [growth.Point("pieces", 32)[axis] for axis in growth.USUAL] == [32, 1, 16, 1, 6]
