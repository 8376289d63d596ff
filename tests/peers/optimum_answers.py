"""Answers of Optimum's models and pipelines, and of sentence-transformers; runs in an environment of their own.

    python optimum_answers.py < REQUESTS > ANSWERS

A request is {"folder", "kind", "side", "rows"}: side "left" or "right" is where rows are padded, and a row is {"text",
"pair"}, in multiple choice lists of both, in tagging {"tokens"}. An answer is {"logits": an array a row, "answers":
what the pipeline says of each row}.
"""

import json
import sys
from typing import Any

import numpy as np
from optimum.onnxruntime import (
    ORTModelForFeatureExtraction,
    ORTModelForMultipleChoice,
    ORTModelForQuestionAnswering,
    ORTModelForSequenceClassification,
    ORTModelForTokenClassification,
)
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, pipeline

MODELS = {
    "classification": ORTModelForSequenceClassification,
    "regression": ORTModelForSequenceClassification,
    "multiple-choice": ORTModelForMultipleChoice,
    "tagging": ORTModelForTokenClassification,
    "span": ORTModelForQuestionAnswering,
    "retrieval": ORTModelForFeatureExtraction,
}

Rows = list[dict[str, Any]]


def logits_of(kind: str, model: Any, tokenizer: Any, rows: Rows) -> list[Any]:
    """What the model gives for each row, without padding."""
    settings = {"padding": True, "truncation": True, "return_tensors": "np"}
    if kind == "multiple-choice":
        given = [tokenizer(row["text"], row["pair"], **settings) for row in rows]
        return [model(**{k: v[None] for k, v in one.items()}).logits[0] for one in given]
    if kind == "tagging":
        given = tokenizer([row["tokens"] for row in rows], is_split_into_words=True, **settings)
    elif rows[0]["pair"] is None:
        given = tokenizer([row["text"] for row in rows], **settings)
    else:
        given = tokenizer([row["text"] for row in rows], [row["pair"] for row in rows], **settings)
    found, real = model(**given), given["attention_mask"] == 1
    if kind in ("classification", "regression"):
        return list(found.logits)
    if kind == "tagging":
        return [row[mask] for row, mask in zip(found.logits, real, strict=True)]
    if kind == "span":
        both = np.stack([found.start_logits, found.end_logits], -1)
        return [row[mask] for row, mask in zip(both, real, strict=True)]
    means = [row[mask].mean(0) for row, mask in zip(found.last_hidden_state, real, strict=True)]
    return [mean / np.linalg.norm(mean) for mean in means]


def answers_of(kind: str, folder: str, model: Any, tokenizer: Any, rows: Rows) -> list[Any]:
    """What the pipeline of the kind says of each row; for vectors what sentence-transformers makes of them."""
    if kind in ("classification", "regression"):
        pipe = pipeline("text-classification", model=model, tokenizer=tokenizer)
        asked = [{"text": row["text"], **({"text_pair": row["pair"]} if row["pair"] else {})} for row in rows]
        found = pipe(asked, batch_size=4, padding=True, truncation=True)
        return [row["score" if kind == "regression" else "label"] for row in found]
    if kind == "tagging":
        pipe = pipeline("token-classification", model=model, tokenizer=tokenizer, ignore_labels=[])
        found = pipe([" ".join(row["tokens"]) for row in rows])  # one by one: it counts padding on the left as pieces
        return [{str(piece["index"]): piece["entity"] for piece in row} for row in found]
    if kind == "span":
        # The pipeline takes padding on the left to mean that contexts stand in front of questions.
        tokenizer.padding_side = "right"
        pipe = pipeline("question-answering", model=model, tokenizer=tokenizer)
        settings = {"max_answer_len": 30, "align_to_words": False}
        return [pipe(question=row["text"], context=row["pair"], **settings)["answer"] for row in rows]
    if kind == "retrieval":
        encoder = SentenceTransformer(folder, backend="onnx", local_files_only=True)
        return list(encoder.encode([row["text"] for row in rows], normalize_embeddings=False))
    return []


def main() -> None:
    """Answer all requests."""
    answers = []
    for request in json.load(sys.stdin):
        kind, folder, rows = request["kind"], request["folder"], request["rows"]
        model = MODELS[kind].from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=request["side"], local_files_only=True)
        logits = logits_of(kind, model, tokenizer, rows)
        answers.append({"logits": logits, "answers": answers_of(kind, folder, model, tokenizer, rows)})
    json.dump(answers, sys.stdout, default=lambda array: array.tolist())


if __name__ == "__main__":
    main()
