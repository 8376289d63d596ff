"""The rows of a run: cut without tearing groups, heads that answer for others."""

from pathlib import Path

import pytest

from benchmarks.data import load
from benchmarks.errors import DataError, PolypromptError
from benchmarks.records import Example, Split
from benchmarks.registry import find_task
from harness.config import RunConfig
from harness.data import _part, load_rows


def test_a_limit_keeps_groups_whole():
    rows = tuple(Example(f"{q}-{a}", text="t", group=f"q{q}") for q in range(20) for a in range(1 + q % 5))
    whole = {f"q{q}": 1 + q % 5 for q in range(20)}
    part = _part(Split(rows), 17).examples
    found: dict[str, int] = {}
    for row in part:
        found[row.group] = found.get(row.group, 0) + 1
    assert 15 <= len(part) <= 17
    assert found == {group: whole[group] for group in found}
    assert list(part) == [row for row in rows if row in part], "in the order of the file"
    assert len(_part(Split(tuple(Example(str(n)) for n in range(50))), 7).examples) == 7


@pytest.fixture
def nli(tmp_path: Path) -> Path:
    folder = tmp_path / "glue" / "MNLI"
    folder.mkdir(parents=True)
    header = ["index", *(f"unread{n}" for n in range(7)), "sentence1", "sentence2", "label1", "gold_label"]
    labels = ("entailment", "neutral", "contradiction")
    for name, count in (("train", 30), ("dev_mismatched", 3)):
        rows = [[str(n), *"-------", f"w{n}", f"w{n + 1}", labels[n % 3], labels[n % 3]] for n in range(count)]
        (folder / f"{name}.tsv").write_text("".join("\t".join(row) + "\n" for row in [header, *rows]))
    return tmp_path


def test_a_head_is_trained_for_others_although_its_own_task_cannot_be_scored(nli):
    config = RunConfig(suite=["glue"], tasks=["mnli", "mnli-mm"], data_dir=nli, skip_missing=True)
    rows, _, missing = load_rows(config)
    assert [row.task.name for row in rows] == ["mnli", "mnli-mm"]
    assert list(rows[0].train) == ["en"] and not rows[0].evaluation
    assert len(rows[0].selecting["en"].examples) == 3
    assert not rows[1].train and len(rows[1].evaluation["dev", "en"].examples) == 3
    assert any("dev_matched" in sentence for sentence in missing)
    alone = RunConfig(suite=["glue"], tasks=["mnli-mm"], data_dir=nli, skip_missing=True)
    with pytest.raises(PolypromptError, match="the head of mnli answers it, which this run does not train"):
        load_rows(alone)


def test_ids_that_repeat_are_an_error_where_rows_are_scored_alone(nli, tmp_path, monkeypatch):
    """A training file carved out of several may repeat them; all rows are trained on, as often as it is read."""
    monkeypatch.setenv("POLYPROMPT_CACHE", str(tmp_path / "cache"))
    path = nli / "glue/MNLI/train.tsv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *rows, "3" + rows[5][1:], "3" + rows[6][1:]]) + "\n")
    task = find_task("mnli")
    for _ in range(2):  # the second time it is kept
        ids = [row.id for row in load(task, "train", "en", nli).examples]
        assert ids == [*map(str, range(30)), "3#2", "3#3"]
        with pytest.raises(
            DataError, match=r"train\.tsv:32: the id '3' stands at .*train\.tsv:5 already; make ids unique"
        ):
            load(task, "dev", "en", nli, {"mnli.dev": ["glue/MNLI/train.tsv"]})
