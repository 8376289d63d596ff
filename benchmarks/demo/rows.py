"""The rows of the demo suite: what a row says is drawn once, then said in the language asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from string import Formatter

from benchmarks.demo.draws import Draws
from benchmarks.demo.names import KINDS, name, names
from benchmarks.demo.templates import FACT_KINDS, TEMPLATES
from benchmarks.records import Answer, Example, Split

ROWS = {"train": 1200, "dev": 80, "test": 160}
"""Split -> rows of each task and language."""

CANDIDATES = 300
"""Sentences of the retrieval task, in each language."""

TAGS = ("O", "B-LOC", "I-LOC", "B-CUR", "I-CUR", "B-LANG", "I-LANG")
"""Tags of the tagging task; cities and countries are both LOC."""

_TAGGED_KINDS = {"LOC": ("city", "country"), "CUR": ("currency",), "LANG": ("language",)}
_COUNTED, _LISTED = "country", 4
_POOL = 10  # names of each kind in the retrieval task: few, so that many candidates share one
_WORD = re.compile(r"[^\s.,:;،·。：；，、।“”„«»—]+|\S")


def topics(split: str, language: str) -> Split:
    """Classification: what kind of name does the sentence mention? Kinds and templates are balanced."""
    words, draws, rows = TEMPLATES[language], Draws(f"topics:{split}"), []
    for kind in KINDS:
        for i, code in enumerate(draws.cycled(names(kind, split), ROWS[split] // len(KINDS))):
            sentence = words.topics[i % len(words.topics)]
            text = sentence.format(name=name(kind, code, language), person=draws.pick(words.persons))
            rows.append(Example(id="", text=text, label=kind))
    return _numbered(draws.shuffled(rows))


def counts(split: str, language: str) -> Split:
    """Regression: how many of the four names are countries? Targets 0 to 4 are balanced."""
    words, draws, rows = TEMPLATES[language], Draws(f"counts:{split}"), []
    others = tuple(kind for kind in KINDS if kind != _COUNTED)
    for target in range(_LISTED + 1):
        for i in range(ROWS[split] // (_LISTED + 1)):
            kinds = draws.shuffled([_COUNTED] * target + [draws.pick(others) for _ in range(_LISTED - target)])
            listed = [name(kind, code, language) for kind, code in _distinct(draws, kinds, split)]
            sentence = words.counts[i % len(words.counts)]
            text = sentence.format(names=words.between_names.join(listed), person=draws.pick(words.persons))
            rows.append(Example(id="", text=text, target=float(target)))
    return _numbered(draws.shuffled(rows))


def choices(split: str, language: str) -> Split:
    """Multiple choice: which of four names, one of each kind, is of the kind asked for? Positions are balanced."""
    words, draws, rows = TEMPLATES[language], Draws(f"choices:{split}"), []
    for kind, position in product(KINDS, range(len(KINDS))):
        for i in range(ROWS[split] // len(KINDS) ** 2):
            kinds = draws.shuffled(other for other in KINDS if other != kind)
            kinds.insert(position, kind)
            offered = tuple(name(k, code, language) for k, code in _distinct(draws, kinds, split))
            text = words.choices[i % len(words.choices)].format(category=words.categories[kind])
            rows.append(Example(id="", text=text, choices=offered, label=str(position)))
    return _numbered(draws.shuffled(rows))


def mentions(split: str, language: str) -> Split:
    """Tagging: find the three names in a sentence and say of which kind they are; persons are not to be found.

    Tokens are words and punctuation marks; a Chinese name is one word.
    """
    words, draws, rows = TEMPLATES[language], Draws(f"mentions:{split}"), []
    for i, types in enumerate(draws.cycled(list(product(_TAGGED_KINDS, repeat=3)), ROWS[split])):
        kinds = [draws.pick(_TAGGED_KINDS[type_]) for type_ in types]
        found = [name(kind, code, language) for kind, code in _distinct(draws, kinds, split)]
        values = {"person": draws.pick(words.persons), **dict(zip("abc", found, strict=True))}
        type_of = dict(zip("abc", types, strict=True))
        tokens: list[str] = []
        tags: list[str] = []
        for text, slot in _pieces(words.mentions[i % len(words.mentions)], values):
            new = _WORD.findall(text)
            tokens += new
            if slot in type_of:
                tags += [f"B-{type_of[slot]}"] + [f"I-{type_of[slot]}"] * (len(new) - 1)
            else:
                tags += ["O"] * len(new)
        rows.append(Example(id="", tokens=tuple(tokens), tags=tuple(tags)))
    return _numbered(draws.shuffled(rows))


def answers(split: str, language: str) -> Split:
    """Span extraction: three facts and a question about one of them, or, in a quarter of the rows, about none.

    In half of the rows with an answer another fact mentions a name of the same kind.
    """
    words, draws, rows = TEMPLATES[language], Draws(f"answers:{split}"), []
    for i, asked in enumerate(draws.cycled(list(FACT_KINDS), ROWS[split])):
        answerable, rival = i % 4 != 3, i % 4 == 0
        persons = draws.shuffled(words.persons)
        told = _other_facts(draws, asked)
        if rival:
            told[1] = draws.pick(
                [fact for fact, kind in FACT_KINDS.items() if kind == FACT_KINDS[asked] and fact != asked]
            )
        if answerable:
            told[0] = asked
        codes = _distinct(draws, [FACT_KINDS[fact] for fact in told], split)
        context, answer = "", None
        for j in draws.shuffled(range(len(told))):
            context += words.between_sentences if context else ""
            values = {"person": persons[j], "name": name(*codes[j], language)}
            for text, slot in _pieces(words.facts[told[j]].statement, values):
                if answerable and j == 0 and slot == "name":
                    answer = Answer(text=text, start=len(context))
                context += text
        question = words.facts[asked].question.format(person=persons[0])
        rows.append(Example(id="", text=question, text_pair=context, answers=() if answer is None else (answer,)))
    return _numbered(draws.shuffled(rows))


def translations(split: str, language: str) -> Split:
    """Retrieval: find the English sentence that states the same fact among many that differ in one word or two."""
    draws = Draws(f"translations:{split}")
    codes = {kind: draws.shuffled(names(kind, split))[:_POOL] for kind in KINDS}
    persons = range(len(TEMPLATES[language].persons))
    stated = [(f, person, code) for f, kind in FACT_KINDS.items() for person in persons for code in codes[kind]]
    chosen = draws.shuffled(stated)[:CANDIDATES]
    order = draws.shuffled(range(CANDIDATES))

    def sentence(index: int, spoken: str) -> str:
        fact, person, code = chosen[index]
        words = TEMPLATES[spoken]
        return words.facts[fact].statement.format(
            person=words.persons[person], name=name(FACT_KINDS[fact], code, spoken)
        )

    rows = [Example(id="", text=sentence(i, language), label=str(order.index(i))) for i in range(CANDIDATES)]
    return replace(_numbered(rows), candidates=tuple(sentence(i, "en") for i in order))


def _other_facts(draws: Draws, asked: str) -> list[str]:
    """Three facts that mention names of three kinds, none of them the kind that is asked for."""
    kinds = draws.shuffled(kind for kind in KINDS if kind != FACT_KINDS[asked])
    return [draws.pick([fact for fact in FACT_KINDS if FACT_KINDS[fact] == kind]) for kind in kinds]


def _distinct(draws: Draws, kinds: Sequence[str], split: str) -> list[tuple[str, str]]:
    """A (kind, code) for each of the kinds, none of them twice."""
    drawn: list[tuple[str, str]] = []
    for kind in kinds:
        unused = [code for code in names(kind, split) if (kind, code) not in drawn]
        drawn.append((kind, draws.pick(unused)))
    return drawn


def _pieces(template: str, values: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    """The parts of a filled template in order, each with the slot that it fills, None for the template's own text."""
    for text, slot, _, _ in Formatter().parse(template):
        yield text, None
        if slot is not None:
            yield values[slot], slot


def _numbered(rows: Iterable[Example]) -> Split:
    return Split(tuple(replace(row, id=str(i)) for i, row in enumerate(rows)))
