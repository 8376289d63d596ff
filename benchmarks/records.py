"""The plain records that flow between the houses: examples, splits and predictions."""

from __future__ import annotations

from dataclasses import dataclass

Value = str | float | tuple[str, ...]
"""A gold or predicted value; what it is depends on the kind of the task, see `Prediction`."""


PLACEHOLDER = "@placeholder"
"""Where a choice is put into the `text_pair` of a multiple choice (ReCoRD's own mark)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A gold answer of span extraction: `context[start : start + len(text)] == text`.

    Where the context does not have it (CMRC 2018), start is -1: such an answer is accepted and cannot be learned.
    """

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a benchmark. Which fields are set depends on the kind of its task.

    Attributes:
        id: unique within task, language and split.
        text: the sentence, the premise, the question, or the sentence to find a translation of.
        text_pair: the second sentence, the hypothesis, or the context that holds the answer. Multiple choice: what a
            choice is read with, at its `PLACEHOLDER` or behind it; None where the choice is read alone.
        choices: multiple choice: the alternatives.
        tokens: tagging: the words.
        marked: tagging: index of the word that the question is about (the predicate of SRL); None: all alike.
        label: classification: one of the task's labels. Multiple choice: the index of the right choice, "0".."n-1".
            Retrieval: the id of the right candidate, "" when it has none. None in a test file without labels.
        target: regression: the gold number.
        tags: tagging: one tag a token.
        answers: span extraction: the accepted answers; empty when the context holds none, None when unlabelled.
            Multiple choice: the accepted choices, where they count as texts and there may be several (ReCoRD).
        group: what rows of one question or pair have in common, for metrics that count those; "" for most tasks.
    """

    id: str
    text: str = ""
    text_pair: str | None = None
    choices: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    marked: int | None = None
    label: str | None = None
    target: float | None = None
    tags: tuple[str, ...] | None = None
    answers: tuple[Answer, ...] | None = None
    group: str = ""

    @property
    def gold(self) -> Value | None:
        """The gold value in the form that `Prediction.gold` has, None when the row is not labelled."""
        if self.answers is not None:
            return tuple(answer.text for answer in self.answers)
        if self.tags is not None:
            return self.tags
        return self.target if self.target is not None else self.label


@dataclass(frozen=True, slots=True)
class Split:
    """All rows of one task, language and split, in the order of the official file.

    Attributes:
        examples: the rows.
        candidates: retrieval only: the texts among which the translation is searched, in official order.
        candidate_ids: their ids; empty: "0".."n-1".
    """

    examples: tuple[Example, ...]
    candidates: tuple[str, ...] = ()
    candidate_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model said about one example, with the gold value beside it so that it can be scored again.

    Attributes:
        id: of the example.
        value: classification: the label. Multiple choice: the index of the choice, or its text where the accepted ones
            are texts. Regression: the number. Tagging: one tag a token. Span extraction: the answer's text, "" for no
            answer. Retrieval: the id of the candidate, "" for none.
        gold: the same for the gold value; where several answers are accepted all of them (empty: no answer);
            None when the row is not labelled.
        scores: classification, multiple choice: one probability a label or choice. Tagging: the probability of each
            predicted tag. Span extraction: (probability of the best answer, score of "no answer" minus score of the
            best answer). Retrieval: (cosine of the best, number of candidates). Regression: empty.
        best: span extraction and retrieval with "no answer": the best answer, whether it was given or not.
        group: as in `Example`.
    """

    id: str
    value: Value
    gold: Value | None
    scores: tuple[float, ...] = ()
    best: str | None = None
    group: str = ""
