"""The demo suite: the same everywhere, every kind and language, balanced, disjoint names, exact offsets."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import unicodedata
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import babel
import pytest
from seqeval.metrics.sequence_labeling import get_entities

from benchmarks.demo.names import KINDS, LANGUAGES, name, names
from benchmarks.demo.templates import FACT_KINDS, TEMPLATES
from benchmarks.errors import MissingData
from benchmarks.records import Example, Split
from benchmarks.suites.demo import SUITE
from benchmarks.task import Kind

ROOT = Path(__file__).parents[1]
TASKS = {task.card.kind: task for task in SUITE.tasks}
GOLDEN = ("2.18.0", "7a7abaee834c92216a565316c41fdf0eca1ec9b811e33355bb2554cf363b3851")
"""Version of Babel and SHA-256 of all rows: change the hash only when the suite is meant to change."""


def read(kind: Kind, split: str = "test", language: str = "en") -> Split:
    task = TASKS[kind]
    return task.source.read(task.card, split, language, None)


def _said(example: Example) -> dict[str, object]:
    """What is set of an example, so that a new field of the record does not change the hash."""
    return {name: value for name, value in asdict(example).items() if value not in ("", (), None) or name == "answers"}


def fingerprint(languages: tuple[str, ...]) -> str:
    """SHA-256 of every row of the suite; languages are generated in the order given and hashed in a fixed one."""
    splits = {}
    for language in languages:
        for task in SUITE.tasks:
            for split in ("train", "dev", "test"):
                try:
                    rows = task.source.read(task.card, split, language, None)
                except MissingData:
                    continue
                splits[task.name, split, language] = [_said(example) for example in rows.examples], rows.candidates
    return hashlib.sha256(json.dumps(sorted(splits.items())).encode()).hexdigest()


@pytest.mark.parametrize(
    ("hash_seed", "code"),
    [
        ("0", "print(fingerprint(LANGUAGES))"),
        # Babel shares data between locales, so those loaded before, and the order, must not matter.
        ("4711", "[Locale.parse(c).months for c in ('ja', 'tr', 'fr')]; print(fingerprint(LANGUAGES[::-1]))"),
    ],
)
def test_rows_are_the_same_in_every_process_and_order(hash_seed: str, code: str) -> None:
    imports = "from babel import Locale; from tests.test_demo_suite import LANGUAGES, fingerprint; "
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", imports + code]
    printed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == fingerprint(LANGUAGES)


@pytest.mark.skipif(babel.__version__ != GOLDEN[0], reason="another version of Babel has other names")
def test_rows_are_those_of_the_golden_hash() -> None:
    assert fingerprint(LANGUAGES) == GOLDEN[1]


def test_every_kind_eight_languages_and_six_scripts() -> None:
    assert [task.card.kind for task in SUITE.tasks] == list(Kind)
    assert all(task.name.startswith("demo-") and task.eval_split == "test" for task in SUITE.tasks)
    scripts = set()
    for task in SUITE.tasks:
        assert len(task.card.languages) >= 7
        for language in task.card.languages:
            split = task.source.read(task.card, "test", language, None)
            assert len({row.id for row in split.examples}) == len(split.examples) >= 150
            text = "".join(row.text + "".join(row.tokens) for row in split.examples)
            letters = Counter(unicodedata.name(c).split()[0] for c in text if unicodedata.category(c).startswith("L"))
            scripts.add(letters.most_common(1)[0][0])
    assert scripts == {"LATIN", "ARABIC", "GREEK", "DEVANAGARI", "CYRILLIC", "CJK"}


def test_there_are_training_rows_in_every_language() -> None:
    for kind in set(Kind) - {Kind.RETRIEVAL}:
        assert 1000 <= len(read(kind, "train").examples) <= 2000
        assert read(kind, "dev").examples
        for split in ("train", "dev"):
            english, german = (read(kind, split, language).examples for language in ("en", "de"))
            assert [(row.id, row.label, row.target) for row in german] == [
                (row.id, row.label, row.target) for row in english
            ]
            assert german != english
    with pytest.raises(MissingData, match="no split 'train' in 'de'"):
        read(Kind.RETRIEVAL, "train", "de")
    with pytest.raises(MissingData, match="no split 'test' in 'en'"):
        read(Kind.RETRIEVAL)
    with pytest.raises(MissingData, match="no split 'test' in 'fr'"):
        read(Kind.SPAN, "test", "fr")


def test_no_name_is_in_two_splits_or_of_two_kinds() -> None:
    for language in LANGUAGES:
        seen: dict[str, tuple[str, str, str]] = {}
        for kind in KINDS:
            for split in ("train", "dev", "test"):
                codes = names(kind, split)
                assert len(codes) >= (40 if split != "dev" else 4)
                for code in codes:
                    origin = (kind, split, code)
                    assert seen.setdefault(name(kind, code, language).casefold(), origin) == origin


def test_rows_mention_only_names_of_their_split() -> None:
    """Read the names back out of the rows, by tag, by answer and by choice, and look where they come from."""
    for language in LANGUAGES:
        found = {
            split: {choice for row in read(Kind.CHOICE, split, language).examples for choice in row.choices}
            | {answer.text for row in read(Kind.SPAN, split, language).examples for answer in row.answers or ()}
            | {
                " ".join(row.tokens[start : end + 1])
                for row in read(Kind.TAGGING, split, language).examples
                for _, start, end in get_entities(list(row.tags or ()))
            }
            for split in ("train", "dev", "test")
        }
        for split, texts in found.items():
            assert texts <= {name(kind, code, language) for kind in KINDS for code in names(kind, split)}


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_model_that_ignores_its_input_scores_at_chance(split: str) -> None:
    topics = read(Kind.CLASSIFICATION, split).examples
    assert len(set(Counter(row.label for row in topics).values())) == 1
    assert {row.label for row in topics} == set(TASKS[Kind.CLASSIFICATION].card.labels)
    targets = Counter(row.target for row in read(Kind.REGRESSION, split).examples)
    assert set(targets) == {0.0, 1.0, 2.0, 3.0, 4.0} and len(set(targets.values())) == 1
    choices = read(Kind.CHOICE, split).examples
    assert set(Counter(row.label for row in choices)) == {"0", "1", "2", "3"}
    assert len(set(Counter(row.label for row in choices).values())) == 1
    answered = [bool(row.answers) for row in read(Kind.SPAN, split).examples]
    assert 0.2 <= 1 - sum(answered) / len(answered) <= 0.25


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_every_candidate_is_the_translation_of_one_sentence(language: str) -> None:
    split = read(Kind.RETRIEVAL, "test", language)
    assert len(set(split.candidates)) == len(split.candidates) == len(split.examples) == 300
    assert sorted(int(row.label or "") for row in split.examples) == list(range(300))
    assert sum(row.label == row.id for row in split.examples) < 10  # the order of the candidates gives nothing away

    def said(text: str, spoken: str) -> set[tuple[str, str, str]]:
        """Every (fact, person, code) whose sentence is the text: an independent look-up in place of the generator."""
        words = TEMPLATES[spoken]
        return {
            (fact, str(person), code)
            for fact, kind in FACT_KINDS.items()
            for person, given in enumerate(words.persons)
            if given in text
            for code in names(kind, "test")
            if text == words.facts[fact].statement.format(person=given, name=name(kind, code, spoken))
        }

    for row in split.examples[:40]:
        assert len(said(row.text, language)) == 1
        assert said(row.text, language) == said(split.candidates[int(row.label or "")], "en")


def test_sentences_do_not_tell_the_class() -> None:
    """With the name taken out, every sentence of demo-topic stands with every class equally often."""
    shells: dict[str, Counter[str]] = {}
    kind_of = {name(kind, code, "en"): kind for kind in KINDS for code in names(kind, "test")}
    for row in read(Kind.CLASSIFICATION).examples:
        inside = [text for text in kind_of if text in row.text and kind_of[text] == row.label]
        shell = row.text.replace(max(inside, key=len), "")
        for person in TEMPLATES["en"].persons:
            shell = shell.replace(person, "")
        shells.setdefault(shell, Counter())[row.label or ""] += 1
    assert len(shells) == len(TEMPLATES["en"].topics)
    assert all(set(classes) == set(KINDS) and len(set(classes.values())) == 1 for classes in shells.values())


def test_targets_count_the_countries() -> None:
    for split in ("train", "test"):
        countries = {name("country", code, "en") for code in names("country", split)}
        for row in read(Kind.REGRESSION, split).examples:
            listed = row.text.rstrip(".").partition(" are " if row.text.startswith("The") else ": ")[2].split(", ")
            assert len(set(listed)) == 4
            assert sum(text in countries for text in listed) == row.target


def test_the_right_choice_is_of_the_kind_asked_for() -> None:
    for language in LANGUAGES:
        kind_of = {name(kind, code, language): kind for kind in KINDS for code in names(kind, "test")}
        questions = {
            question.format(category=noun): kind
            for question in TEMPLATES[language].choices
            for kind, noun in TEMPLATES[language].categories.items()
        }
        for row in read(Kind.CHOICE, "test", language).examples:
            assert sorted(kind_of[choice] for choice in row.choices) == sorted(KINDS)
            assert kind_of[row.choices[int(row.label or "")]] == questions[row.text]


@pytest.mark.parametrize("language", LANGUAGES)
def test_tags_are_well_formed_and_mark_whole_names(language: str) -> None:
    labels = set(TASKS[Kind.TAGGING].card.labels)
    types = {"city": "LOC", "country": "LOC", "currency": "CUR", "language": "LANG"}
    type_of = {name(kind, code, language): types[kind] for kind in KINDS for code in names(kind, "test")}
    spread: Counter[str] = Counter()
    for row in read(Kind.TAGGING, "test", language).examples:
        tags = row.tags or ()
        assert len(tags) == len(row.tokens) and set(tags) <= labels
        assert all(b[0] != "I" or (a != "O" and a[2:] == b[2:]) for a, b in zip(("O", *tags), tags, strict=False))
        assert all(token and not any(c.isspace() for c in token) for token in row.tokens)
        assert not any(
            tag != "O" for token, tag in zip(row.tokens, tags, strict=True) if token in TEMPLATES[language].persons
        )
        entities = get_entities(list(tags))
        assert len(entities) == 3
        for type_, start, end in entities:
            assert type_of[" ".join(row.tokens[start : end + 1])] == type_
            spread[type_] += 1
    assert max(spread.values()) - min(spread.values()) <= 12


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_stand_where_they_are_said_to_stand(language: str) -> None:
    words = TEMPLATES[language]
    for row in read(Kind.SPAN, "test", language).examples:
        asked = [
            (fact, person) for fact in words.facts for person in words.persons
            if words.facts[fact].question.format(person=person) == row.text
        ]  # fmt: skip
        assert len(asked) == 1 and row.text_pair is not None and row.answers is not None
        fact, person = asked[0]
        start, end = words.facts[fact].statement.format(person=person, name="\0").split("\0")
        assert (start in row.text_pair) == bool(row.answers)
        for answer in row.answers:
            assert row.text_pair[answer.start : answer.start + len(answer.text)] == answer.text
            assert row.text_pair[: answer.start].endswith(start)
            assert row.text_pair[answer.start + len(answer.text) :].startswith(end)


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages_say_the_same_and_have_the_same_slots(language: str) -> None:
    words, english = TEMPLATES[language], TEMPLATES["en"]

    def slots(sentence: str) -> list[str]:
        return sorted(
            slot for slot in ("person", "name", "names", "category", "a", "b", "c") if f"{{{slot}}}" in sentence
        )

    assert len(set(words.persons)) == len(english.persons)
    for field in ("topics", "counts", "choices", "mentions"):
        assert [slots(s) for s in getattr(words, field)] == [slots(s) for s in getattr(english, field)]
    assert list(words.facts) == list(FACT_KINDS) and set(words.categories) == set(KINDS)
    for fact in words.facts.values():
        assert slots(fact.statement) == ["name", "person"] and slots(fact.question) == ["person"]
    assert [row.label for row in read(Kind.CHOICE, "test", language).examples] == [
        row.label for row in read(Kind.CHOICE, "test", "en").examples
    ]


def test_rows_have_only_the_fields_of_their_kind() -> None:
    fields = {
        Kind.CLASSIFICATION: {"text", "label"},
        Kind.REGRESSION: {"text", "target"},
        Kind.CHOICE: {"text", "choices", "label"},
        Kind.TAGGING: {"tokens", "tags"},
        Kind.SPAN: {"text", "text_pair", "answers"},
        Kind.RETRIEVAL: {"text", "label"},
    }
    empty = Example(id="")
    for kind, expected in fields.items():
        rows = read(kind, "test", "de").examples
        set_ = {field for row in rows for field in Example.__slots__ if getattr(row, field) != getattr(empty, field)}
        assert set_ - {"id"} == expected
