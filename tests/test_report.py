"""What a person reads after a run."""

from benchmarks.results import ResultRecord
from benchmarks.suites import demo, glue, xtreme
from harness.report import averages_table, score_table


def record(task: str, suite: str, language: str, **scores: float) -> ResultRecord:
    split = next(t.eval_split for s in (glue.SUITE, xtreme.SUITE, demo.SUITE) for t in s.tasks if t.name == task)
    return ResultRecord(
        task=task,
        suite=suite,
        language=language,
        split=split,
        examples=100,
        limited=False,
        scores=scores,
        chance=dict.fromkeys(scores, 10.0),
        predictions="p",
        sha256="0",
    )


def test_averages_are_shown_when_nothing_is_missing_and_gaps_by_task():
    languages = next(task for task in xtreme.SUITE.tasks if task.name == "pawsx").card.languages
    records = [record("pawsx", "xtreme", code, accuracy=90.0 if code == "en" else 80.0) for code in languages]
    lines = averages_table([xtreme.SUITE], records, {"pawsx": ["en"]}).splitlines()
    assert lines[2:] == ["xtreme   pawsx: lost from en to the other languages      10.0"]
    two = averages_table([xtreme.SUITE], records, {"pawsx": ["en", "de"]}).splitlines()
    assert two[2:] == ["xtreme   pawsx: lost from en de to the other languages       5.0"]
    assert averages_table([xtreme.SUITE], records, {"pawsx": list(languages)}) == "", "nothing is zero-shot"
    assert averages_table([xtreme.SUITE], records[:-1], {"pawsx": ["en"]}) == ""
    topics = [record("sst2", "glue", "en", accuracy=90.0)]
    assert averages_table([glue.SUITE], topics, {"sst2": ["en"]}) == "", "an average over fewer tasks would not compare"


def test_every_metric_is_in_the_table():
    table = score_table([record("mrpc", "glue", "en", accuracy=81.25, f1=86.5)])
    assert table.splitlines()[-1].split() == [
        "glue", "mrpc", "en", "dev", "100", "accuracy", "81.2", "10.0", "f1", "86.5",
    ]  # fmt: skip
