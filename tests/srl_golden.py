"""`python tests/srl_golden.py SRL-EVAL.PL`: write golden/srl.json, how the official script scores made-up predictions.

The script is srl-eval.pl of srlconll-1.1, https://www.cs.upc.edu/~srlconll/soft.html; it needs perl.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import seqeval.metrics

GOLDEN = Path(__file__).with_name("golden") / "srl.json"

Tags = list[str]


def cells(tags: Sequence[str]) -> list[str]:
    """A column of arguments in brackets; a chunk begins at a B- and wherever the role changes."""
    column = []
    for at, tag in enumerate(tags):
        before = tags[at - 1] if at else "O"
        after = tags[at + 1] if at + 1 < len(tags) else "O"
        begins = tag != "O" and (tag[0] == "B" or before[2:] != tag[2:])
        ends = tag != "O" and (after[0] == "B" or after[2:] != tag[2:])
        column.append(f"({tag[2:]}" * begins + "*" + ")" * ends)
    return column


def official(script: str, gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> tuple[float, str]:
    """F1 in points from the script's counts, and as it prints it; every predicate is a sentence of its own."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, side in (("gold", gold), ("predicted", predicted)):
            path = Path(folder) / name
            sentences = (
                "\n".join(f"{'be' if at == 0 else '-'} {cell}" for at, cell in enumerate(cells(tags))) for tags in side
            )
            path.write_text("\n\n".join(sentences) + "\n\n")
            paths.append(str(path))
        output = subprocess.run(["perl", script, *paths], capture_output=True, text=True, check=True).stdout
    right, excess, missed, *_, printed = next(line for line in output.split("\n") if "Overall" in line).split()[1:]
    both = 2 * int(right) + int(excess) + int(missed)
    return (200 * int(right) / both if both else 0.0), printed


CASES: list[tuple[str, str, str]] = [
    ("right", "B-V O B-ARG1 I-ARG1", "B-V O B-ARG1 I-ARG1"),
    ("the verb does not count", "B-V B-ARG1", "O B-ARG1"),
    ("nor does a verb too many", "B-V B-ARG1 O", "B-V B-ARG1 B-V"),
    ("nor does its continuation", "B-V B-ARG1 B-C-V", "B-V B-ARG1 O"),
    ("a continuation without a verb is a verb", "O B-ARG1 B-C-V", "O B-ARG1 O"),
    ("a half is wrong", "B-V B-ARG1 I-ARG1", "B-V B-ARG1 O"),
    ("another role is wrong", "B-V B-ARG1 B-ARG0", "B-V B-ARG1 B-ARG2"),
    ("whole discontinuous", "B-ARG1 B-V B-C-ARG1 I-C-ARG1", "B-ARG1 B-V B-C-ARG1 I-C-ARG1"),
    ("a piece is missing", "B-ARG1 B-V B-C-ARG1 I-C-ARG1", "B-ARG1 B-V O O"),
    ("a piece is too short", "B-ARG1 B-V B-C-ARG1 I-C-ARG1", "B-ARG1 B-V B-C-ARG1 O"),
    ("a piece too many", "B-ARG1 B-V O O", "B-ARG1 B-V B-C-ARG1 O"),
    ("two arguments are not two pieces", "B-ARG1 B-V B-ARG1 I-ARG1", "B-ARG1 B-V B-C-ARG1 I-C-ARG1"),
    ("same ends, other pieces", "B-ARG1 B-C-ARG1 O B-C-ARG1", "B-ARG1 O B-C-ARG1 I-C-ARG1"),
    ("same ends, one piece", "B-ARG1 I-ARG1 I-ARG1", "B-ARG1 B-C-ARG1 I-C-ARG1"),
    ("three pieces", "B-ARG1 O B-C-ARG1 B-V B-C-ARG1", "B-ARG1 O B-C-ARG1 B-V B-C-ARG1"),
    ("a piece joins the nearest", "B-ARG1 B-ARG1 B-V B-C-ARG1", "B-ARG1 B-ARG1 B-V B-C-ARG1"),
    ("the first one stays right", "B-ARG1 B-ARG1 B-V B-C-ARG1", "B-ARG1 B-ARG1 B-V O"),
    ("a piece alone is an argument", "B-V O B-C-ARG1 I-C-ARG1", "B-V O B-ARG1 I-ARG1"),
    ("and pieces join it", "B-V B-C-ARG1 O B-C-ARG1", "B-V B-ARG1 O B-C-ARG1"),
    ("a piece does not join what follows", "B-C-ARG1 B-V B-ARG1", "B-ARG1 B-V B-C-ARG1"),
    ("over another role", "B-ARG1 B-ARG0 B-V B-C-ARG1", "B-ARG1 B-ARG0 B-V B-C-ARG1"),
    ("no piece of another role", "B-ARG0 B-V B-C-ARG1", "B-ARG0 B-V B-ARG1"),
    ("references are arguments", "B-ARG0 B-R-ARG0 B-V", "B-ARG0 B-ARG0 B-V"),
    ("no piece of a reference", "B-R-ARG0 B-V B-C-ARG0", "B-R-ARG0 B-V B-ARG0"),
    ("neighbours of one role", "B-ARG1 B-ARG1 B-V", "B-ARG1 I-ARG1 B-V"),
    ("I- begins an argument", "B-V O B-ARG1 I-ARG1", "B-V O I-ARG1 I-ARG1"),
    ("I- of another role begins one", "B-V B-ARG0 B-ARG1 I-ARG1", "B-V B-ARG0 I-ARG1 I-ARG1"),
    ("I- of a piece begins one", "B-ARG1 B-V B-C-ARG1", "B-ARG1 B-V I-C-ARG1"),
    ("nothing on both sides", "B-V O O", "B-V O O"),
    ("nothing predicted", "B-V B-ARG1 O", "B-V O O"),
    ("nothing in gold", "B-V O O", "B-V B-ARG1 O"),
    ("over the verb", "B-ARG1 B-V O", "B-ARG1 I-ARG1 O"),
    ("a modifier", "B-ARGM-TMP I-ARGM-TMP B-V B-ARGM-LOC", "B-ARGM-TMP I-ARGM-TMP B-V B-ARGM-TMP"),
]


def synthetic(draw: random.Random, roles: Sequence[str], count: int) -> tuple[list[Tags], list[Tags]]:
    """Gold tags with many discontinuous arguments, and predictions that err in every way."""
    gold, predicted = [], []
    for _ in range(count):
        tags: Tags = []
        while len(tags) < draw.randint(3, 24):
            role = draw.choice(roles) if draw.random() < 0.6 else ""
            width = draw.choice((1, 1, 2, 5))
            tags += [f"{'I' if more else 'B'}-{role}" if role else "O" for more in range(width)]
        given = [draw.choice((tag, "O", f"{draw.choice('BI')}-{draw.choice(roles)}")) for tag in tags]
        gold.append(tags)
        predicted.append([tag if draw.random() < 0.85 else other for tag, other in zip(tags, given, strict=True)])
    return gold, predicted


ROLES = {
    "propbank": "V C-V ARG0 C-ARG0 R-ARG0 ARG1 C-ARG1 C-ARG1 R-ARG1 ARGM-TMP C-ARGM-TMP".split(),
    "conll05": "V C-V A0 C-A0 R-A0 A1 C-A1 C-A1 R-A1 AM-LOC C-AM-LOC R-AM-LOC".split(),
}


def main(script: str) -> None:
    """Ask the script, and seqeval for the number that P-Tuning v2's code gives."""
    sets = [(name, "propbank", [gold.split()], [given.split()]) for name, gold, given in CASES]
    draw = random.Random(2005)
    for task, roles in ROLES.items():
        sets += [("drawn", task, *synthetic(draw, roles, count)) for count in (1, 1, 1, 2, 2, 5, 10, 40)]
    rows = []
    for name, task, gold, given in sets:
        numbers = {
            "f1_official": (official(script, gold, given)[0], f"srl-eval.pl of srlconll-1.1, from its counts: {name}"),
            "f1_paper": (
                100 * seqeval.metrics.f1_score(gold, given, zero_division=0),
                f"seqeval, as P-Tuning v2's code uses it: {name}",
            ),
        }
        for metric, (number, source) in numbers.items():
            rows.append({"task": task, "metric": metric, "language": "en", "gold": gold, "predicted": given})
            rows[-1] |= {"official": float(number), "source": source}
    text = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    GOLDEN.write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main(sys.argv[1])
