"""What a method trains."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.errors import PolypromptError


@dataclass(frozen=True)
class Method:
    """One way to adapt a backbone.

    Attributes:
        name: as on the command line.
        prompt: a deep prompt is trained. backbone: the encoder's own weights are trained. Heads always are.
        learning_rate: default of AdamW. weight_decay: default. epochs: default passes over the training data.
        about: one line for `--help` and the page.
    """

    name: str
    prompt: bool
    backbone: bool
    learning_rate: float
    weight_decay: float
    epochs: float
    about: str


METHODS = {
    method.name: method
    for method in (
        Method("ptuning-v2", True, False, 2e-2, 0.0, 4, "keys and values in front of every layer, arXiv 2110.07602"),
        Method("linear-probe", False, False, 1e-2, 0.0, 4, "heads alone over the frozen encoder"),
        Method("fine-tune", False, True, 5e-5, 0.01, 3, "every weight of the encoder"),
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
