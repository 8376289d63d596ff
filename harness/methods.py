"""What a method trains."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from benchmarks.errors import PolypromptError


class PromptOf(StrEnum):
    """Which prompt is trained.

    `none`. `deep`: keys and values in front of those of the layers. `input`: vectors in front of the word embeddings.
    """

    NONE = "none"
    DEEP = "deep"
    INPUT = "input"


class Weights(StrEnum):
    """Which weights of the encoder are trained.

    `none`. `all`. `biases`: of its linear maps and normalisations. `lora`: low-rank additions to its maps to queries
    and values.
    """

    NONE = "none"
    ALL = "all"
    BIASES = "biases"
    LORA = "lora"


@dataclass(frozen=True)
class Method:
    """One way to adapt a backbone. Heads are always trained.

    Attributes:
        name: as on the command line.
        prompt: which prompt is trained. backbone: which weights of the encoder are.
        learning_rate: default of AdamW. weight_decay: default. epochs: default passes over the training data.
        about: one line for `--help` and the page.
    """

    name: str
    prompt: PromptOf
    backbone: Weights
    learning_rate: float
    weight_decay: float
    epochs: float
    about: str


METHODS = {
    method.name: method
    for method in (
        Method(
            *("ptuning-v2", PromptOf.DEEP, Weights.NONE, 2e-2, 0.0, 4),
            "keys and values in front of every layer, arXiv 2110.07602",
        ),
        Method(
            *("prompt-tuning", PromptOf.INPUT, Weights.NONE, 3e-2, 0.0, 4),
            "vectors in front of the word embeddings, arXiv 2104.08691",
        ),
        Method(
            *("bitfit", PromptOf.NONE, Weights.BIASES, 1e-3, 0.0, 4),
            "the biases of the encoder, arXiv 2106.10199",
        ),
        Method(
            *("lora", PromptOf.NONE, Weights.LORA, 5e-4, 0.0, 4),
            "low-rank additions to the maps to queries and values, arXiv 2106.09685",
        ),
        Method(
            *("linear-probe", PromptOf.NONE, Weights.NONE, 1e-2, 0.0, 4),
            "heads alone over the frozen encoder",
        ),
        Method(
            *("fine-tune", PromptOf.NONE, Weights.ALL, 5e-5, 0.01, 3),
            "every weight of the encoder",
        ),
    )
}


def find_method(name: str) -> Method:
    """A method by name.

    Raises:
        PolypromptError: unknown.
    """
    if name not in METHODS:
        raise PolypromptError(f"--method {name}: unknown; choose one of {', '.join(METHODS)}")
    return METHODS[name]
