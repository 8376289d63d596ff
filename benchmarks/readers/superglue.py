"""SuperGLUE's records as examples: a `RowMapper` a task, for the official files and the hub's dataset alike.

Where an official record holds several questions, an `unfold` function makes of it the flat records that the hub has.
Texts are composed as P-Tuning v2's tasks/superglue/dataset.py composes them, but for COPA's questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.readers.rows import BadRow, Columns, Row, text_of, value_of
from benchmarks.records import PLACEHOLDER, Answer, Example
from benchmarks.task import TaskCard

TRUTH = {"False": "False", "True": "True"}
"""How JSON's `false` and `true` are read, and the hub's names."""

_PAIR = Columns(text="text", text_pair="text_pair", label="label", id="idx", names=TRUTH)
_MARKED_ANSWER = replace(_PAIR, names={"0": "False", "1": "True", **TRUTH})
_ENTAILMENT = Columns(text="premise", text_pair="hypothesis", label="label", id="idx")

# COPA's question is one word; encoders were trained on sentences.
_QUESTIONS = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}
_RIGHT_CHOICE = {"0": "0", "1": "1", "choice1": "0", "choice2": "1"}  # the official files and the hub's names

_HIGHLIGHT = "@highlight\n"


def copa(card: TaskCard, row: Row, index: int) -> Example:
    """A COPA record as multiple choice: the premise and the question in words, and two alternatives."""
    question = text_of(row, "question")
    if question not in _QUESTIONS:
        raise BadRow(f"question is {question!r}; it must be one of {', '.join(_QUESTIONS)}")
    label = row.get("label")
    if label is not None and str(label) not in _RIGHT_CHOICE:
        raise BadRow(f"unknown label {label!r}; it must be 0 or 1")
    return Example(
        id=str(row.get("idx", index)),
        text=f"{text_of(row, 'premise')} {_QUESTIONS[question]}",
        choices=(text_of(row, "choice1"), text_of(row, "choice2")),
        label=None if label is None else _RIGHT_CHOICE[str(label)],
    )


def wic(card: TaskCard, row: Row, index: int) -> Example:
    """A WiC record: each sentence behind the word in question.

    The word is a lemma ("go" for "went"), so what is checked is that a word stands at each pair of offsets.
    """
    word = text_of(row, "word")
    for side in "12":
        sentence, start, end = text_of(row, f"sentence{side}"), _number(row, f"start{side}"), _number(row, f"end{side}")
        if not _is_word(sentence, start, end):
            raise BadRow(
                f"start{side} {start} and end{side} {end} do not hold a word of sentence{side} but "
                f"{sentence[start:end]!r}; correct them: the first character and the one behind the last, from 0"
            )
    texts = {"text": f"{word}: {row['sentence1']}", "text_pair": f"{word}: {row['sentence2']}"}
    return _PAIR(card, {**row, **texts}, index)


def wsc(card: TaskCard, row: Row, index: int) -> Example:
    """A WSC record: the text with the pronoun between asterisks, and the noun phrase that it may stand for."""
    target = _record(row, "target") if "target" in row else row  # the hub has its fields beside the text
    text, pronoun, phrase = text_of(row, "text"), text_of(target, "span2_text"), text_of(target, "span1_text")
    words = list(re.finditer(r"\S+", text))
    read = [_letters(word[0]) for word in words]
    at = _number(target, "span2_index")
    # One pronoun of the official dev file stands one word behind its index.
    places = [place for place in (at, at + 1, at - 1) if 0 <= place < len(read) and read[place] == _letters(pronoun)]
    if not places:
        found = words[at][0] if 0 <= at < len(words) else "nothing"
        raise BadRow(f"span2_text is {pronoun!r} but word {at} of the text is {found!r}; correct span2_index")
    # The index of the phrase is not needed, and of a phrase such as "Kamenev and Zinoviev" there is no one place.
    known = {*read, *(_letters(re.sub(r"['’]s\b.*", "", word[0])) for word in words)}
    absent = [word for word in phrase.split() if _letters(word) not in known]
    if absent or not phrase.strip():
        raise BadRow(f"span1_text is {phrase!r}, which does not stand in the text; correct one of the two")
    start, end = words[places[0]].span()
    texts = {"text": f"{text[:start]}*{text[start:end]}*{text[end:]}", "text_pair": phrase}
    return _PAIR(card, {**row, **texts}, index)


def multirc(card: TaskCard, row: Row, index: int) -> Example:
    """A MultiRC answer: the paragraph, and the question with one of its answers; answers of a question are a group."""
    idx = _record(row, "idx")
    paragraph, question, answer = (_number(idx, name) for name in ("paragraph", "question", "answer"))
    texts = {
        "text": text_of(row, "paragraph"),
        "text_pair": f"{text_of(row, 'question')} {text_of(row, 'answer')}",
        "idx": f"{paragraph}-{question}-{answer}",
    }
    try:
        return replace(_MARKED_ANSWER(card, {**row, **texts}, index), group=f"{paragraph}-{question}")
    except BadRow as error:
        raise BadRow(f"answer {answer} to question {question}: {error}") from None


def multirc_answers(row: Row) -> Iterator[Row]:
    """The answers in an official MultiRC record, each with its question and paragraph."""
    passage = _record(row, "passage")
    for question in _records(passage, "questions"):
        for answer in _records(question, "answers"):
            yield {
                "paragraph": value_of(passage, "text"),
                "question": value_of(question, "question"),
                "answer": value_of(answer, "text"),
                "label": answer.get("label"),
                "idx": {
                    "paragraph": value_of(row, "idx"),
                    "question": value_of(question, "idx"),
                    "answer": value_of(answer, "idx"),
                },
            }


def record(card: TaskCard, row: Row, index: int) -> Example:
    """A ReCoRD query as multiple choice: the passage, the query with its placeholder, and the passage's entities."""
    query = text_of(row, "query")
    entities, answers = _texts(row, "entities"), _texts(row, "answers")
    if PLACEHOLDER not in query:
        raise BadRow(f"no {PLACEHOLDER} in the query {query!r}; it marks where an entity is put")
    if not entities:
        raise BadRow("no entities; the answer is chosen among them")
    if answers and not set(answers) & set(entities):
        raise BadRow(f"none of the answers is an entity of the passage: {', '.join(answers)}")
    return Example(
        id=str(_number(_record(row, "idx"), "query")),
        text=text_of(row, "passage").replace(_HIGHLIGHT, "- "),
        text_pair=query,
        choices=entities,
        answers=tuple(Answer(text, 0) for text in answers) or None,
    )


def record_queries(row: Row) -> Iterator[Row]:
    """The queries in an official ReCoRD record, each with its passage; entities and answers are sorted texts."""
    passage = _record(row, "passage")
    text = text_of(passage, "text")
    entities = sorted({_entity(text, entity) for entity in _records(passage, "entities")})
    for query in _records(row, "qas"):
        answers = _records(query, "answers") if "answers" in query else []
        for answer in answers:
            if text_of(answer, "text") != _entity(text, answer):
                raise BadRow(
                    f"query {query.get('idx')}: the passage has {_entity(text, answer)!r} where the answer is "
                    f"{answer['text']!r}; correct start and end, which is the last character"
                )
        yield {
            "passage": text,
            "query": value_of(query, "query"),
            "entities": entities,
            "answers": sorted({answer["text"] for answer in answers}),
            "idx": {"passage": value_of(row, "idx"), "query": value_of(query, "idx")},
        }


def winogender(card: TaskCard, row: Row, index: int) -> Example:
    """An AX-g record; rows 2k and 2k+1 differ in the pronoun's gender alone and are a group, as jiant pairs them."""
    return replace(_ENTAILMENT(card, row, index), group=str(_number(row, "idx") // 2))


def _is_word(text: str, start: int, end: int) -> bool:
    """Whether a word of letters, apostrophes and hyphens begins and ends there; "does" of "doesn't" is one."""
    if not 0 <= start < end <= len(text):
        return False
    inside = re.sub(r"['’-]", "", text[start:end])
    behind = text[end:]
    return inside.isalpha() and not text[:start][-1:].isalnum() and (not behind[:1].isalnum() or behind[:2] == "n'")


def _letters(word: str) -> str:
    """Lower case, without the marks around and in a word; the marks themselves where there is nothing else."""
    return re.sub(r"[\W_]", "", word).lower() or word


def _entity(text: str, span: Row) -> str:
    """The text of a span whose end is its last character."""
    start, end = _number(span, "start"), _number(span, "end")
    if not 0 <= start <= end < len(text):
        raise BadRow(f"start {start} and end {end} of an entity are not in the passage of {len(text)} characters")
    return text[start : end + 1]


def _record(row: Row, name: str) -> Row:
    value = value_of(row, name)
    if not isinstance(value, dict):
        raise BadRow(f"{name!r} is {value!r:.40}; it must be an object")
    return value


def _records(row: Row, name: str) -> Sequence[Row]:
    value = value_of(row, name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadRow(f"{name!r} is {value!r:.40}; it must be a list of objects")
    return value


def _texts(row: Row, name: str) -> tuple[str, ...]:
    value = value_of(row, name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRow(f"{name!r} is {value!r:.40}; it must be a list of texts")
    return tuple(value)


def _number(row: Row, name: str) -> int:
    value = value_of(row, name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRow(f"{name!r} is {value!r:.40}; it must be a whole number")
    return value
