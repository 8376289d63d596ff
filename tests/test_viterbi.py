"""Constrained tags, compiled and in numpy, beside all paths tried one by one and beside a plain loop."""

import threading
from itertools import pairwise, product

import numpy as np
import pytest

from benchmarks.errors import PolypromptError
from benchmarks.records import Example
from benchmarks.registry import suites
from benchmarks.task import Kind, TaskCard
from harness import viterbi
from harness.config import make_config
from harness.data import chosen_tasks
from harness.decode import decode
from harness.features import Feature
from harness.options import command_line
from harness.viterbi import best, constraints, decoded

BIO = ("O", "B-X", "I-X", "B-Y", "I-Y")
IOBES = ("O", "B-X", "I-X", "E-X", "S-X", "B-Y", "I-Y", "E-Y", "S-Y")
ODD = ("I-X", "S-Y", "B-X", "E-Y", "E-X")  # no O, one type without a beginning: E-Y can be nowhere


@pytest.fixture(params=["compiled", "numpy"])
def way(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(viterbi, "compiled", lambda: None)
    elif viterbi.compiled() is None:
        pytest.skip("the compiled part was not built")
    return request.param


def sequences(words, labels):
    """Scores of sentences one behind the other, and where they begin."""
    return np.concatenate([np.zeros((0, labels), np.float32), *words]), np.cumsum([0, *map(len, words)])


def may_be(tags, closed):
    """Whether a sequence of tags can be, read as a person would; `closed`: what begins has to end."""
    inside = None
    for tag in tags:
        prefix, _, kind = tag.partition("-")
        if prefix in ("I", "E") and inside != kind:
            return False
        if prefix not in ("I", "E") and closed and inside is not None:
            return False
        inside = kind if prefix in ("B", "I") else None
    return not closed or inside is None


def all_paths(logits, labels, closed):
    """The best of all sequences, of equal ones that with the first tag in the last word in which they differ."""
    scores = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return min(
        (-sum(scores[word, tag] for word, tag in enumerate(path)), path[::-1])
        for path in product(range(len(labels)), repeat=len(logits))
        if may_be([labels[tag] for tag in path], closed)
    )[1][::-1]


def loop(logits, labels, closed):
    """Viterbi's algorithm for one sentence without arrays."""

    def follows(one, other):
        (first, _, kind), (second, _, its) = one.partition("-"), other.partition("-")
        if second in ("I", "E"):
            return first in ("B", "I") and kind == its
        return not closed or first not in ("B", "I")

    scores = [[float(x) - float(max(row)) for x in row] for row in logits]
    sums = [score if tag[0] not in "IE" else -np.inf for score, tag in zip(scores[0], labels, strict=True)]
    back = []
    for row in scores[1:]:
        links = []
        for tag in labels:
            able = [sums[one] if follows(labels[one], tag) else -np.inf for one in range(len(labels))]
            links.append(max(range(len(labels)), key=able.__getitem__))
        sums = [
            row[tag] + (sums[links[tag]] if follows(labels[links[tag]], labels[tag]) else -np.inf)
            for tag in range(len(labels))
        ]
        back.append(links)
    able = [total if not closed or tag[0] not in "BI" else -np.inf for total, tag in zip(sums, labels, strict=True)]
    path = [max(range(len(labels)), key=able.__getitem__)]
    for links in reversed(back):
        path.append(links[path[-1]])
    return path[::-1]


@pytest.mark.parametrize(("labels", "closed"), [(BIO, False), (IOBES, True), (ODD, True)], ids=["BIO", "IOBES", "odd"])
@pytest.mark.parametrize("seed", range(6))
def test_the_best_of_all_paths(way, labels, closed, seed):
    """Whole numbers too, so that many paths are equal."""
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 4 if len(labels) > 5 else 6, 8)
    words = [random.normal(size=(length, len(labels))).astype(np.float32) for length in lengths]
    if seed % 2:
        words = [np.rint(rows * 1.2).astype(np.float32) for rows in words]
    logits, starts = sequences(words, len(labels))
    got = best(logits, starts, constraints(labels))
    for rows, start in zip(words, starts, strict=False):
        assert tuple(got[start : start + len(rows)]) == (all_paths(rows, labels, closed) if len(rows) else ())


@pytest.mark.parametrize(("labels", "closed"), [(BIO, False), (IOBES, True), (ODD, True)], ids=["BIO", "IOBES", "odd"])
def test_as_a_plain_loop(way, labels, closed, monkeypatch):
    """Random shapes, long rows, empty rows, in parts and by threads."""
    monkeypatch.setattr(viterbi, "TOGETHER", 1000)
    random = np.random.default_rng(1)
    words = [
        (random.normal(size=(length, len(labels))) * scale).astype(np.float32)
        for length, scale in zip([0, 1, 120, 0, 7, 2, 33, 64, 0], [1, 5, 1, 1, 30, 1, 2, 0.01, 1], strict=True)
    ]
    logits, starts = sequences(words, len(labels))
    for threads in (1, 3):
        got = best(logits, starts, constraints(labels), threads)
        for rows, start in zip(words, starts, strict=False):
            if len(rows):
                assert got[start : start + len(rows)].tolist() == loop(rows, labels, closed)


def test_the_compiled_part_finds_what_numpy_finds():
    """Of many random shapes, with what cannot be, with equal scores, and by threads."""
    if viterbi.compiled() is None:
        pytest.skip("the compiled part was not built")
    random = np.random.default_rng(2)
    for number in range(60):
        types = [f"T{kind}" for kind in range(random.integers(1, 9))]
        prefixes = "BI" if number % 2 else "BIES"
        labels = ["O", *(f"{prefix}-{kind}" for kind in types for prefix in prefixes)]
        random.shuffle(labels)
        allowed = constraints(tuple(labels))
        logits, starts = sequences(
            [random.normal(size=(length, len(labels))).astype(np.float32) for length in random.integers(0, 60, 30)],
            len(labels),
        )
        if number % 3 == 0:
            logits = np.rint(logits * 2).astype(np.float32)
        if number % 4 == 0:
            logits[random.random(logits.shape) < 0.5] = -np.inf
        threads = int(random.integers(1, 4))
        assert np.array_equal(best(logits, starts, allowed, threads), viterbi.best_by_numpy(logits, starts, allowed))
    labels = tuple(f"{prefix}-{kind}" for kind in range(40) for prefix in "BIES")
    big, rows = random.normal(size=(4000, 160)).astype(np.float32), np.array([0, 900, 900, 1000, 3990, 4000])
    found = viterbi.best_by_numpy(big, rows, constraints(labels))
    assert all(np.array_equal(best(big, rows, constraints(labels), threads), found) for threads in (1, 2, 5))


@pytest.mark.parametrize("labels", [BIO, IOBES], ids=["BIO", "IOBES"])
def test_tags_that_can_stand_together_stay(way, labels):
    """Even where their scores are next to equal, which sums of rounded numbers would not tell apart, or equal."""
    random = np.random.default_rng(3)
    allowed = constraints(labels)
    words, expected = [], []
    while len(words) < 40:
        rows = random.choice(
            np.array([0, 1e-7, 1, 1000, 1e-30, 3e4], np.float32), (int(random.integers(1, 6)), len(labels))
        )
        if may_be([labels[tag] for tag in rows.argmax(1)], labels is IOBES):
            words.append(rows)
            expected.append(rows.argmax(1))
    logits, starts = sequences(words, len(labels))
    assert np.array_equal(best(logits, starts, allowed), np.concatenate(expected))


def test_small_differences_count_beside_large_scores(way):
    """A word that cannot have its best tag leaves the others theirs, however little that is better."""
    rows = np.array([[0, 0, 1, 0, 0], [3e4, 0, 0, 0, 0], [0, 0, 0, 1e-13, 0]], np.float32)
    assert best(rows, np.array([0, 3]), constraints(BIO)).tolist() == [0, 0, 3]


def test_what_cannot_be_is_never_found(way):
    """Whatever the scores are: also where all of a word, or of all sequences, are minus infinity."""
    random = np.random.default_rng(4)
    for labels, closed in ((BIO, False), (IOBES, True), (ODD, True)):
        words = [random.normal(size=(length, len(labels))).astype(np.float32) for length in random.integers(1, 9, 200)]
        for rows in words:
            rows[random.random(rows.shape) < 0.7] = -np.inf
        logits, starts = sequences(words, len(labels))
        got = best(logits, starts, constraints(labels))
        for begin, end in pairwise(starts):
            assert may_be([labels[tag] for tag in got[begin:end]], closed)
    rows = np.full((3, 5), -np.inf, np.float32)
    rows[0, 1] = rows[2, 2] = 0  # B-X, nothing known, I-X
    assert best(rows, np.array([0, 3]), constraints(BIO)).tolist() == [1, 1, 2]


def test_no_words_and_no_sentences(way):
    empty = np.zeros((0, 5), np.float32)
    for starts in ([0], [0, 0, 0]):
        assert best(empty, np.array(starts), constraints(BIO)).shape == (0,)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_refused(way, bad):
    logits = np.zeros((4, 5), np.float32)
    logits[2, 3] = bad
    with pytest.raises(PolypromptError, match="not a number"):
        best(logits, np.array([0, 4]), constraints(BIO))


@pytest.mark.parametrize("starts", [[], [1, 4], [0, 3], [0, 5], [0, 3, 2, 4]])
def test_sentences_that_do_not_fit_are_refused(way, starts):
    with pytest.raises(ValueError, match="starts"):
        best(np.zeros((4, 5), np.float32), np.array(starts, np.int64), constraints(BIO))
    with pytest.raises(ValueError, match="logits"):
        best(np.zeros((4, 4), np.float32), np.array([0, 4]), constraints(BIO))


def test_the_compiled_part_refuses_what_does_not_fit():
    """It is called with what was checked; what was not would read other memory."""
    native = viterbi.compiled()
    if native is None:
        pytest.skip("the compiled part was not built")
    allowed = constraints(BIO)
    number, members, starts = allowed.sets
    good = {
        "logits": np.zeros((4, 5), np.float32),
        "starts": np.array([0, 4]),
        "follows": allowed.follows,
        "first": allowed.first,
        "last": allowed.last,
        "set": number,
        "members": members,
        "set_starts": starts,
        "impossible": -1e30,
        "found": np.zeros(4, np.int64),
        "threads": 1,
    }
    native.viterbi(*good.values())
    bad = {
        "starts": [np.array([0, 5]), np.array([0, 6, 4]), np.array([1, 4]), np.zeros(0, np.int64)],
        "follows": [allowed.follows[:, :4].copy(), allowed.follows[:4].copy()],
        "first": [allowed.first[:3]],
        "last": [allowed.last[:3]],
        "set": [number + 1, number - 1, number[:3]],
        "members": [members + 1, members - 1, members[:3]],
        "set_starts": [starts + 1, starts[:1], starts[::-1].copy()],
        "found": [np.zeros(3, np.int64)],
        "logits": [np.zeros((4, 0), np.float32)],
    }
    for name, values in bad.items():
        for value in values:
            with pytest.raises(ValueError, match="fit"):
                native.viterbi(*(good | {name: value}).values())


def test_names_of_tags():
    bio, iobes = constraints(BIO), constraints(IOBES)
    for labels, found, closed in ((BIO, bio, False), (IOBES, iobes, True)):
        for one, tag in enumerate(labels):
            assert found.first[one] == may_be([tag], False)
            for other, behind in enumerate(labels):
                begin = [f"B-{tag[2:]}"] if tag[0] in "IE" else []
                end = [f"E-{behind[2:]}"] if closed and behind[0] in "BI" else []
                assert found.follows[one, other] == may_be([*begin, tag, behind, *end], closed)
    assert bio.last.all()
    assert [tag for tag, may in zip(IOBES, iobes.last, strict=True) if may] == ["O", "E-X", "S-X", "E-Y", "S-Y"]
    assert constraints(("O", "B-A-1", "I-A-1", "I-A-2")).follows[:, 3].tolist() == [False, False, False, True]
    for none in (("NOUN", "VERB"), ("O", "X-A"), ("O", "B-"), ("B-X", "I-X", "E-X"), ("O",), ("O", "I-X")):
        assert constraints(none) is None


def test_tasks_of_the_suites():
    """All of names and roles can be searched, parts of speech cannot."""
    tasks = [task for suite in suites() for task in suite.tasks if task.card.kind is Kind.TAGGING]
    able = {task.name: constraints(task.card.labels) is not None for task in tasks}
    assert able and not able["udpos"] and all(may for name, may in able.items() if name != "udpos")


def test_others_go_on_meanwhile():
    """The compiled part does not hold Python's lock."""
    if viterbi.compiled() is None:
        pytest.skip("the compiled part was not built")
    labels = tuple(f"{prefix}-{kind}" for kind in range(100) for prefix in "BI")
    logits = np.random.default_rng(5).normal(size=(20000, 200)).astype(np.float32)
    running, counted = threading.Event(), 0
    allowed, starts = constraints(labels), np.array([0, len(logits)])

    def search():
        running.set()
        best(logits, starts, allowed)

    worker = threading.Thread(target=search)
    worker.start()
    running.wait()
    while worker.is_alive():
        counted += 1
    assert counted > 10


def test_tasks_choose_sequences_that_can_be(way):
    """Windows of several sentences come together; a word that is read nowhere is outside, whatever is around it."""
    labels = ("O", "B-X", "I-X")
    task = TaskCard(name="t", suite="s", kind=Kind.TAGGING, labels=labels, metrics=("f1",))

    def row(example, words, positions):
        return Feature(example, np.zeros(9, np.int32), np.zeros(9, np.int32), np.array(words), np.array(positions))

    rows = [row(0, [0, 1], [1, 3]), row(0, [2], [4]), row(1, [0, 2], [1, 2])]
    outputs = [np.zeros((9, 3), np.float32) for _ in rows]
    outputs[0][1], outputs[0][3], outputs[1][4] = [2, 1, 0], [0, 1, 3], [0, 0, 5]  # O I-X I-X
    outputs[2][1], outputs[2][2] = [0, 9, 0], [3, 2, 4]  # B-X, unread, I-X
    examples = [Example("1", tokens=("a", "b", "c")), Example("2", tokens=("a", "\x00", "c"))]
    greedy = decode(task, examples, rows, outputs)
    assert [found.value for found in greedy] == [("O", "I-X", "I-X"), ("B-X", "O", "I-X")]
    [one, other] = decode(decoded([task], "viterbi")[0], examples, rows, outputs)
    assert (one.value, other.value) == (("B-X", "I-X", "I-X"), ("B-X", "O", "O"))
    chances = np.exp([1, 3, 5]) / np.exp([[2, 1, 0], [0, 1, 3], [0, 0, 5]]).sum(1)
    assert one.scores == pytest.approx(chances)
    assert other.scores == pytest.approx((np.exp(9) / (np.exp(9) + 2), 0, np.exp(3) / np.exp([3, 2, 4]).sum()))


def test_the_option_of_runs():
    """It reaches the cards of the tasks that it is for, and runs of before keep their identity."""
    plain = make_config({"suite": ["demo"]}, "test")
    config = make_config({"suite": ["demo"], "decode": "viterbi"}, "test")
    before = {card.name: card for card in (task.card for task in chosen_tasks(plain))}
    after = {task.name: task.card for task in chosen_tasks(config)}
    assert [name for name in after if after[name] != before[name]] == ["demo-names"]
    assert after["demo-names"].decoding == "viterbi"
    assert TaskCard.model_validate_json(after["demo-names"].model_dump_json()) == after["demo-names"]
    assert "decoding" not in before["demo-names"].model_dump_json()
    assert plain.identity != config.identity
    assert make_config({"suite": ["demo"], "decode": "greedy"}, "test").identity == plain.identity
    assert "--decode viterbi" in command_line(config)
    with pytest.raises(PolypromptError, match="--decode viterbi: no task of BIO or IOBES tags is among demo-topic"):
        chosen_tasks(make_config({"suite": ["demo"], "tasks": ["demo-topic"], "decode": "viterbi"}, "test"))
    with pytest.raises(PolypromptError, match="--decode"):
        make_config({"suite": ["demo"], "decode": "beam"}, "test")
