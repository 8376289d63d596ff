"""Text to rows, beside what the tokenizers of transformers give."""

import numpy as np
import pytest
from tiny import tiny_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from benchmarks.records import Answer, Example
from benchmarks.task import Kind, TaskCard
from harness.decode import decode
from harness.features import TextEncoder, pad
from harness.objectives import IGNORED, collate, make_targets


def card(kind: Kind, **more: object) -> TaskCard:
    return TaskCard(name="task", suite="test", kind=kind, metrics=("f1",), **more)


def words(count: int, begin: int = 5) -> list[str]:
    return [f"w{5 + (begin + n) % 50}" for n in range(count)]


@pytest.fixture
def encoder() -> TextEncoder:
    return TextEncoder(tiny_tokenizer("bert"), 0, True, 512)


def test_pairs_as_transformers_makes_them(encoder):
    peer = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer("bert"), pad_token="[PAD]")
    first, second = " ".join(words(30)), " ".join(words(25, 7))
    task = card(Kind.CLASSIFICATION, labels=("a", "b"), max_length=20)
    rows = encoder.features(task, [Example("1", first, second), Example("2", "w7 w8", "w9"), Example("3", "w9")])
    expected = peer(first, second, truncation="longest_first", max_length=20, return_token_type_ids=True)
    assert rows[0].input_ids.tolist() == expected["input_ids"]
    assert rows[0].type_ids.tolist() == expected["token_type_ids"]
    assert rows[1].input_ids.tolist() == peer("w7 w8", "w9")["input_ids"]
    assert rows[2].input_ids.tolist() == peer("w9")["input_ids"]
    padded = pad(rows, 0)
    assert padded.input_ids.shape == (3, 20)
    assert padded.lengths.tolist() == [20, 6, 3]
    assert padded.input_ids[2].tolist() == [*rows[2].input_ids.tolist(), *[0] * 17]


def test_choices_are_neighbouring_rows(encoder):
    rows = encoder.features(card(Kind.CHOICE), [Example("1", "w7", choices=("w8", "w9 w9")), Example("2", "w6")])
    assert [row.example for row in rows] == [0, 0]
    assert len(rows[1]) == len(rows[0]) + 1


@pytest.mark.parametrize(("length", "stride"), [(12, 3), (16, 4), (60, 8)])
def test_every_word_of_a_long_sentence_is_read_once(encoder, length, stride):
    tokens = tuple(words(137))
    task = card(Kind.TAGGING, labels=("O", "B-X"), max_length=length, stride=stride)
    example = Example("1", tokens=tokens, tags=tuple("B-X" if n % 3 == 0 else "O" for n in range(137)))
    rows = encoder.features(task, [example])
    assert all(len(row) <= length for row in rows)
    read = np.concatenate([row.words for row in rows])
    assert sorted(read.tolist()) == list(range(137))
    for row in rows:  # the piece at each position is that of the word
        for word, position in zip(row.words, row.positions, strict=True):
            assert encoder.tokenizer.id_to_token(row.input_ids[position]) == tokens[word]
    targets = make_targets(task, [example], rows)
    tensor = collate(task, rows, targets, max(len(row) for row in rows))
    assert (tensor != IGNORED).sum() == 137
    assert (tensor == 1).sum() == sum(tag == "B-X" for tag in example.tags)


@pytest.mark.parametrize("at", [0, 9, 40, 79])
@pytest.mark.parametrize("length", [30, 128])
def test_a_marked_word_is_told_in_every_window(encoder, at, length):
    """The predicate stands between marks and once more as a second text; the marks are no words of the sentence."""
    tokens = tuple(words(80))
    task = card(Kind.TAGGING, labels=("O", "B-X"), max_length=length, stride=8)
    rows = encoder.features(task, [Example("1", tokens=tokens, marked=at), Example("2", tokens=("w9", "w9"), marked=1)])
    name = encoder.tokenizer.id_to_token
    for row in rows:
        pieces = [name(piece) for piece in row.input_ids]
        assert len(row) <= length
        assert pieces[-2:] == [tokens[at] if row.example == 0 else "w9", "[SEP]"]
        assert row.type_ids[-2] == 1
        sentence = tokens if row.example == 0 else ("w9", "w9")
        assert [pieces[position] for position in row.positions] == [sentence[word] for word in row.words]
    read = np.concatenate([row.words for row in rows if row.example == 0])
    assert sorted(read.tolist()) == list(range(80))
    assert len(rows) == (2 if length == 128 else 5)
    [short] = [row for row in rows if row.example == 1]
    star = encoder.tokenizer.token_to_id("[UNK]")  # the tiny vocabulary has no piece for the mark
    w9 = encoder.tokenizer.token_to_id("w9")
    assert short.input_ids[1:-1].tolist() == [w9, star, w9, star, encoder.tokenizer.token_to_id("[SEP]"), w9]


def test_a_very_long_marked_word_leaves_room_for_the_sentence(encoder):
    tokens = ("w7", "x" * 1_000_000, "w8")
    [row] = encoder.features(card(Kind.TAGGING, labels=("O",)), [Example("1", tokens=tokens, marked=1)])
    assert row.words.tolist() == [0, 1, 2]


def test_a_choice_is_read_with_its_question(encoder):
    example = Example("1", "w7", "w8 @placeholder w9", choices=("w10", "w11 w12"))
    decoded = [
        encoder.tokenizer.decode(row.input_ids.tolist(), skip_special_tokens=False)
        for row in encoder.features(card(Kind.CHOICE), [example, Example("2", "w7", "w8", choices=("w10",))])
    ]
    assert [text.replace(" ", "") for text in decoded] == [
        "[CLS]w7[SEP]w8w10w9[SEP]",
        "[CLS]w7[SEP]w8w11w12w9[SEP]",
        "[CLS]w7[SEP]w8w10[SEP]",
    ]


def test_words_of_several_pieces_across_windows(shared):
    """Real tokenizer, words of many pieces: all words read once, at their first piece."""
    folder = shared / "models" / "me5-small-multilingual"
    peer = AutoTokenizer.from_pretrained(folder)
    encoder = TextEncoder(peer.backend_tokenizer, 1, False, 512)
    tokens = tuple("Donaudampfschifffahrtsgesellschaft Straßenverkehrsordnung und Überraschung in Berlin".split() * 12)
    task = card(Kind.TAGGING, labels=("O",), max_length=32, stride=8)
    rows = encoder.features(task, [Example("1", tokens=tokens)])
    assert len(rows) > 5
    read = np.concatenate([row.words for row in rows])
    assert sorted(read.tolist()) == list(range(len(tokens)))
    peer.backend_tokenizer.no_truncation()
    first = {word: peer([word], is_split_into_words=True)["input_ids"][1] for word in set(tokens)}
    for row in rows:
        for word, position in zip(row.words, row.positions, strict=True):
            assert row.input_ids[position] == first[tokens[word]]


def test_a_word_is_read_at_its_first_piece_with_text(shared):
    """Chinese words begin with SentencePiece's mark as a piece of its own, English ones mostly do not."""
    peer = AutoTokenizer.from_pretrained(shared / "models" / "me5-small-multilingual")
    tokens = ("我们", "在", "Berlin", "喝", "茶", "。")
    [row] = TextEncoder(peer.backend_tokenizer, 1, False, 512).features(
        card(Kind.TAGGING, labels=("O",)), [Example("1", tokens=tokens)]
    )
    pieces = peer.convert_ids_to_tokens(row.input_ids.tolist())
    assert pieces.count("▁") > 2, "the words were chosen for this"
    read = [pieces[position].lstrip("▁") for position in row.positions]
    assert row.words.tolist() == list(range(6))
    assert all(piece and word.startswith(piece) for piece, word in zip(read, tokens, strict=True))


def test_a_word_without_pieces_is_outside(encoder):
    task = card(Kind.TAGGING, labels=("B-X", "O"))
    example = Example("1", tokens=("w7", " ", "w8"))
    rows = encoder.features(task, [example])
    outputs = [np.tile(np.array([5.0, 0.0], np.float32), (len(rows[0]), 1))]
    assert decode(task, [example], rows, outputs)[0].value == ("B-X", "O", "B-X")


def test_document_windows_as_transformers_makes_them(shared):
    folder = shared / "models" / "minilm-l6-en"
    peer = AutoTokenizer.from_pretrained(folder)
    context = "Ada Lovelace wrote the first program. It was for a machine that was never built. " * 20
    question = "Who wrote the first program?"
    expected = peer(
        question,
        context,
        truncation="only_second",
        max_length=64,
        stride=16,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    encoder = TextEncoder(AutoTokenizer.from_pretrained(folder).backend_tokenizer, 0, True, 512)
    rows = encoder.features(card(Kind.SPAN, max_length=64, stride=16), [Example("1", question, context)])
    assert [row.input_ids.tolist() for row in rows] == expected["input_ids"]
    for row, offsets, number in zip(rows, expected["offset_mapping"], range(99), strict=False):
        inside = [place == 1 for place in expected.encodings[number].sequence_ids]
        assert row.spans.tolist() == [
            list(span) if here else [-1, -1] for span, here in zip(offsets, inside, strict=True)
        ]


def test_span_targets_point_at_the_answer(encoder):
    context = " ".join(words(100))
    start = context.index("w40 w41")
    example = Example("1", "w7 w8", context, answers=(Answer("w40 w41", start),))
    task = card(Kind.SPAN, max_length=40, stride=10)
    rows = encoder.features(task, [example])
    hits = 0
    for row, (first, last) in zip(rows, make_targets(task, [example], rows), strict=True):
        if (first, last) != (0, 0):
            hits += 1
            assert context[row.spans[first, 0] : row.spans[last, 1]] == "w40 w41"
    read = [row.spans[row.spans[:, 0] >= 0] for row in rows]
    assert hits == sum(spans.min() <= start and spans.max() >= start + 7 for spans in read) == 2
    unanswerable = make_targets(task, [Example("1", "w7", context, answers=())], rows)
    assert set(unanswerable) == {(0, 0)}


def test_a_long_question_leaves_room_for_the_context(encoder):
    example = Example("1", " ".join(words(80)), " ".join(words(80, 3)))
    rows = encoder.features(card(Kind.SPAN, max_length=40, stride=10), [example])
    covered = {int(begin) for row in rows for begin in row.spans[:, 0] if begin >= 0}
    assert len(covered) == 80
    assert all(len(row) <= 40 for row in rows)
