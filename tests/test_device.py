"""One process may compute in several precisions; equal runs leave equal bytes."""

import json

import pytest
import torch
from safetensors import safe_open

from harness.device import find_device
from harness.placement import Placement
from harness.sharing import PROMPT, PromptBank


def test_two_precisions_in_one_process():
    kinds = {}
    for precision in ("fp32", "bf16", "fp32"):
        device = find_device(precision, cpu=True)
        with device.autocast():
            kinds[device.precision] = torch.nn.Linear(4, 4)(torch.ones(1, 4)).dtype
    assert kinds == {"fp32": torch.float32, "bf16": torch.bfloat16}
    assert find_device("auto", cpu=True).precision in kinds


@pytest.mark.parametrize("gated", [False, True])
def test_a_stored_prompt_has_the_same_bytes_every_time(tmp_path, gated):
    prompt = PromptBank(torch.randn(1, 2, 2, 2, 3, 4), {"": 0}, Placement(layers=(0, 2), gated=gated))
    written = set()
    for _ in range(20):  # an order that changes would show in one of them: a chance of 1 in 2 ** 19 that it does not
        prompt.write(tmp_path)
        written.add((tmp_path / PROMPT).read_bytes())
    assert len(written) == 1
    with safe_open(tmp_path / PROMPT, framework="pt") as file:
        about = file.metadata()["polyprompt"]
        assert file.metadata().keys() == {"polyprompt"}
        assert json.loads(about) == {"layers": [0, 2], "gated": gated, "positions": "own", "rows": {"": 0}}
