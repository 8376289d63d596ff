"""Optimum's export of an encoder with a head, made in the environment of `tox -e peers`."""

from __future__ import annotations

import copy
import os
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from benchmarks.errors import PolypromptError
from harness.backbone import Backbone

EXPORT = (
    "import sys; from optimum.exporters.onnx import main_export; "
    "main_export(sys.argv[1], sys.argv[2], task='text-classification', do_validation=False)"
)


def classifier(backbone: Backbone, labels: int) -> PreTrainedModel:
    """The encoder as the class of transformers that is fine-tuned for classification, which has a pooler."""
    config = copy.deepcopy(backbone.model.config)
    config.num_labels = labels
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.base_model.load_state_dict(backbone.model.state_dict(), strict=False)
    return model


def export(model: PreTrainedModel, folder: Path) -> Path:
    """The ONNX file that Optimum makes of a model.

    Raises:
        PolypromptError: there is no environment with Optimum, or the export fails in it.
    """
    python = Path(os.environ.get("POLYPROMPT_PEERS", "")) / "bin" / "python"
    if not python.is_file():
        raise PolypromptError("no environment with Optimum in POLYPROMPT_PEERS; `tox -e peers` makes one")
    model.save_pretrained(folder / "model")
    out = folder / "onnx"
    done = subprocess.run([python, "-c", EXPORT, folder / "model", out], capture_output=True, text=True)
    if done.returncode or not (out / "model.onnx").is_file():
        raise PolypromptError(f"{python} cannot export with Optimum: {done.stderr.strip().splitlines()[-1]}")
    return out / "model.onnx"


def feeds(session: InferenceSession, ids: Tensor, mask: Tensor) -> dict[str, NDArray[np.int64]]:
    """What the file is asked with: ids and mask, [batch, seq], and types where it has them."""
    given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    return {value.name: given.get(value.name, np.zeros_like(given["input_ids"])) for value in session.get_inputs()}
