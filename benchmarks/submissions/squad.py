"""SQuAD and sets of its form: a JSON object from the ids of questions to answers, "" for "no answer".

For a task with "no answer" a second object gives its probability, for `--na-prob-file` of evaluate-v2.0.py. Sources:
the scripts evaluate-v1.1.py and evaluate-v2.0.py of https://rajpurkar.github.io/SQuAD-explorer/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from scipy.special import expit

from benchmarks.errors import PolypromptError
from benchmarks.records import Prediction
from benchmarks.submissions.format import Format, Predicted, text
from benchmarks.task import Kind, TaskCard


def answers(predicted: Predicted) -> str:
    """The JSON object of the answers."""
    return json.dumps({row.id: text(predicted.card, row) for row in predicted.rows}) + "\n"


def _files(predicted: Predicted) -> Mapping[str, str]:
    files = {f"{predicted.name}.json": answers(predicted)}
    if predicted.card.no_answer:
        probabilities = {row.id: _no_answer(predicted.card, row) for row in predicted.rows}
        files[f"{predicted.name}.na_prob.json"] = json.dumps(probabilities) + "\n"
    return files


def _no_answer(card: TaskCard, row: Prediction) -> float:
    """The probability of "no answer" where the best answer is the only other choice; it grows with what is stored."""
    if len(row.scores) < 2:
        raise PolypromptError(f"{card.name}: prediction {row.id!r} lacks the score of no answer")
    return float(expit(row.scores[1]))


SQUAD = Format("squad", kinds={Kind.SPAN: _files})
