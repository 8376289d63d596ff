"""What a search varies: settings of a run, each with a range or a choice of values, narrowed or fixed by a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks.errors import PolypromptError, did_you_mean
from benchmarks.task import Kind, TaskCard
from harness.config import read_settings
from harness.heads import HeadKind, HeadLayers, Pooling
from harness.methods import Method, PromptOf
from harness.placement import Init

Value = bool | int | float | str

_SEQUENCE = (Kind.CLASSIFICATION, Kind.REGRESSION, Kind.CHOICE)
_BOUNDS = {"low", "high"}


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included.

    Attributes:
        low, high: the bounds. log: drawn evenly in their logarithm.
    """

    low: float
    high: float
    log: bool = False

    @property
    def distribution(self) -> BaseDistribution:
        """As Optuna has it; whole bounds are for whole numbers."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def nearest(self, value: Value) -> Value:
        """The value in it that is nearest to one."""
        return min(max(float(value), self.low), self.high) if isinstance(self.low, float) else self._whole(value)

    def _whole(self, value: Value) -> int:
        return int(min(max(round(float(value)), self.low), self.high))


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Value, ...]

    @property
    def distribution(self) -> BaseDistribution:
        """As Optuna has it."""
        return CategoricalDistribution(self.values)

    def nearest(self, value: Value) -> Value:
        """The value, where it is one of them; else the first."""
        return value if value in self.values else self.values[0]


Dimension = Range | Choice
Space = dict[str, Dimension]
"""Setting of a run -> what it may be. What has one value alone is fixed."""


def default_space(method: Method, layers: int, cards: Iterable[TaskCard], poolers: bool, words: bool) -> Space:
    """What a search varies where nobody says otherwise.

    Args:
        method: that is searched; a prompt of the input has no layers to choose.
        layers: of the encoder. cards: the tasks.
        poolers: the encoder comes with a pooler. words: words for labels were given, and it has a masked-LM head.
    """
    space: Space = {}
    if method.prompt is not PromptOf.NONE:
        deep = method.prompt is PromptOf.DEEP
        inits = [Init.KV, Init.NORMAL, *([Init.ZERO_GATED] if deep else [])]
        space["prompt_length"] = Range(4, 128, log=True)
        if deep:
            tops = sorted({max(1, round(layers * part)) for part in (1 / 2, 1 / 3, 1 / 6)}, reverse=True)
            space["prompt_layers"] = Choice(("all", *(f"top:{top}" for top in tops if top < layers)))
        space["init"] = Choice(tuple(init.value for init in inits))
        space["reparameterise"] = Choice((False, True))
        space["prompt_dropout"] = Range(0.0, 0.3)
    space["learning_rate"] = Range(1e-3, 1e-1, log=True)
    space["head_learning_rate"] = Range(1e-4, 1e-1, log=True)
    kinds = {card.kind for card in cards}
    if kinds & set(_SEQUENCE):
        space["pooling"] = Choice((Pooling.CLS.value, Pooling.MEAN.value))
        heads = [HeadKind.LINEAR, *([HeadKind.POOLER] if poolers else [])]
        if words and Kind.CLASSIFICATION in kinds:
            heads.append(HeadKind.VERBALISER)
        space["head"] = Choice(tuple(head.value for head in heads))
    if kinds & {Kind.TAGGING, Kind.SPAN}:
        space["head_layers"] = Choice((HeadLayers.LAST.value, HeadLayers.ALL.value))
    return space


KNOWN = (
    *("prompt_length", "prompt_layers", "init", "reparameterise", "prompt_dropout"),
    *("learning_rate", "head_learning_rate", "pooling", "head", "head_layers"),
)
"""The settings that a search may vary."""


def fixed_by(settings: Mapping[str, Any]) -> Space:
    """The settings of a run that were given and would else be varied: each with its one value."""
    found: Space = {}
    for name in KNOWN:
        if name in settings:
            value = settings[name]
            if isinstance(value, list):
                if len(value) != 1:
                    raise PolypromptError("--learning-rate: a search varies it; give one, or a range in the space file")
                value = value[0]
            found[name] = Choice((_number(value) if name in _NUMBERS else value,))
    return found


def read_space(path: Path, space: Space, given: Iterable[str] = ()) -> Space:
    """A space, narrowed by a file (docs/search.md).

    Args:
        path: TOML: setting = a value, which fixes it; a list of values; or {low = ..., high = ...}.
        space: what it narrows. given: settings that the command line fixes already.

    Raises:
        PolypromptError: names the file, the key and what to do.
    """
    narrowed = dict(space)
    for key, said in read_settings(path).items():
        shown = key.replace("_", "-")
        if key not in space:
            known = [name.replace("_", "-") for name in space]
            if key in KNOWN:
                raise PolypromptError(f"{path}: {shown}: these tasks and this method have no use for it; leave it out")
            raise PolypromptError(f"{path}: {shown} is nothing that a search varies; {did_you_mean(shown, known)}")
        if key in given:
            raise PolypromptError(f"{path}: {shown}: the command line fixes it already; leave one of the two out")
        narrowed[key] = _narrowed(f"{path}: {shown}", key, said, space[key])
    return narrowed


def _narrowed(place: str, key: str, said: object, old: Dimension) -> Dimension:
    if isinstance(said, dict):
        if not isinstance(old, Range):
            values = ", ".join(map(_shown, old.values))
            raise PolypromptError(f"{place}: has no bounds; write one of {values}, or a list of some of them")
        if not said or set(said) - _BOUNDS or not all(_is_number(bound) for bound in said.values()):
            raise PolypromptError(f"{place}: write numbers as {{low = {old.low}, high = {old.high}}}")
        low, high = (said.get(name, getattr(old, name)) for name in ("low", "high"))
        if isinstance(old.low, int):
            if not (isinstance(low, int) and isinstance(high, int)):
                raise PolypromptError(f"{place}: write whole numbers")
        else:
            low, high = float(low), float(high)
        if low > high:
            raise PolypromptError(f"{place}: low = {low} is above high = {high}; exchange them")
        if low < 0 or (old.log and low <= 0) or (key == "prompt_dropout" and high >= 1):
            bounds = "above 0" if old.log else "from 0 to below 1"
            raise PolypromptError(f"{place}: {low} to {high}: write numbers {bounds}")
        return Choice((low,)) if low == high else Range(low, high, old.log)
    values = said if isinstance(said, list) else [said]
    if not values:
        raise PolypromptError(f"{place}: an empty list; write values, or leave the key out")
    checked = []
    for value in values:
        if key in _NUMBERS:
            whole = key == "prompt_length"
            if not _is_number(value) or (whole and not isinstance(value, int)):
                raise PolypromptError(f"{place}: {_shown(value)}: write a {'whole ' if whole else ''}number")
            if value < 0 or (value == 0 and key != "prompt_dropout") or (value >= 1 and key == "prompt_dropout"):
                raise PolypromptError(f"{place}: {value}: write {'0 to below 1' if value else 'a number above 0'}")
            checked.append(value if whole else float(value))
        elif key == "prompt_layers":
            if not isinstance(value, str):
                raise PolypromptError(f'{place}: {_shown(value)}: write "all", "top:2" or the like')
            checked.append(value)  # what layers an encoder has, the encoder says
        else:
            assert isinstance(old, Choice)
            if not any(value is one or (value == one and type(value) is type(one)) for one in old.values):
                values = ", ".join(map(_shown, old.values))
                raise PolypromptError(f"{place}: {_shown(value)}: not possible here; write one or some of {values}")
            checked.append(value)
    return Choice(tuple(dict.fromkeys(checked)))


_NUMBERS = ("prompt_length", "prompt_dropout", "learning_rate", "head_learning_rate")


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """What is drawn, as Optuna has it: all that is not fixed."""
    return {name: dimension.distribution for name, dimension in space.items() if not _is_fixed(dimension)}


def settings_of(space: Space, drawn: Mapping[str, Value]) -> dict[str, Value]:
    """The settings of a trial: what was drawn and what is fixed, made to go together."""
    chosen = {
        name: dimension.values[0] if isinstance(dimension, Choice) and _is_fixed(dimension) else drawn[name]
        for name, dimension in space.items()
    }
    if chosen.get("head") == HeadKind.POOLER:
        chosen["pooling"] = Pooling.CLS.value  # it reads the first piece
    return chosen


def point(space: Space, settings: Mapping[str, Any]) -> dict[str, Value]:
    """Known settings as a point of a space: the nearest one in it, without what is fixed.

    Args:
        space: that is searched. settings: of a run; a rate of heads that they do not name is that of all.
    """
    named = dict(settings)
    if isinstance(named.get("learning_rate"), list):
        named["learning_rate"] = named["learning_rate"][0]
    named.setdefault("head_learning_rate", named.get("learning_rate"))
    return {
        name: dimension.nearest(named[name])
        for name, dimension in space.items()
        if not _is_fixed(dimension) and named.get(name) is not None
    }


def described(space: Space) -> dict[str, Any]:
    """For JSON: bounds, or a list of values."""
    return {
        name.replace("_", "-"): {"low": part.low, "high": part.high, "log": part.log}
        if isinstance(part, Range)
        else list(part.values)
        for name, part in space.items()
    }


def _is_fixed(dimension: Dimension) -> bool:
    return isinstance(dimension, Choice) and len(dimension.values) == 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: object) -> Value:
    try:
        return json.loads(value) if isinstance(value, str) else value  # of the command line all is text
    except ValueError:
        return value  # which the settings of a run refuse


def _shown(value: object) -> str:
    return json.dumps(value, default=str)
