"""XTREME (Hu et al. 2020, arXiv 2003.11080): trained in English, scored in many languages."""

from __future__ import annotations

from benchmarks.hub import Hub
from benchmarks.readers.conll import Conll
from benchmarks.readers.parallel import Parallel
from benchmarks.readers.rows import Columns
from benchmarks.readers.squad import Question, SquadJson
from benchmarks.readers.tables import LabelsApart, Tsv
from benchmarks.sources import OfficialSource, SplitFiles
from benchmarks.suites.squad import span_card
from benchmarks.task import Kind, Suite, Task, TaskCard

_HOW_TO_GET = (
    "scripts/download_data.sh of https://github.com/google-research/xtreme fills download/; "
    "put it under xtreme/ of the data folder."
)
_GOLD = " Test labels are not in that download: xtreme/gold/ holds them, from the task's own release."

_PAIRS = Tsv(Columns(text="premise", text_pair="hypothesis", label="label"), header=("premise", "hypothesis", "label"))
_XNLI_HUB = Hub("facebook/xnli", Columns(text="premise", text_pair="hypothesis", label="label"), config="{language}")

XNLI = Task(
    card=TaskCard(
        name="xnli",
        suite="xtreme",
        kind=Kind.CLASSIFICATION,
        labels=("entailment", "neutral", "contradiction"),
        languages=tuple("ar bg de el en es fr hi ru sw th tr ur vi zh".split()),
        metrics=("accuracy",),
    ),
    source=OfficialSource(
        {
            "train": SplitFiles(("xtreme/download/xnli/train-{language}.tsv",), _PAIRS, _XNLI_HUB, languages=("en",)),
            "dev": SplitFiles(("xtreme/download/xnli/dev-{language}.tsv",), _PAIRS, _XNLI_HUB),
            "test": SplitFiles(
                ("xtreme/download/xnli/test-{language}.tsv", "xtreme/gold/xnli_test_labels.txt"),
                LabelsApart(_PAIRS),
                _XNLI_HUB,
            ),
        }
    ),
    title="XNLI",
    licence="CC BY-NC 4.0 (not for commercial use)",
    url="https://github.com/facebookresearch/XNLI",
    how_to_get=_HOW_TO_GET + _GOLD,
    eval_split="test",
)

_TREEBANKS = {
    "af": "Afrikaans", "ar": "Arabic", "bg": "Bulgarian", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese",
    "kk": "Kazakh", "ko": "Korean", "mr": "Marathi", "nl": "Dutch", "pt": "Portuguese", "ru": "Russian",
    "ta": "Tamil", "te": "Telugu", "th": "Thai", "tl": "Tagalog", "tr": "Turkish", "ur": "Urdu",
    "vi": "Vietnamese", "yo": "Yoruba", "zh": "Chinese",
}  # fmt: skip
_UDPOS_HUB = Hub(
    "google/xtreme", Columns(tokens="tokens", tags="pos_tags"), config="udpos.{language}", languages=_TREEBANKS
)

UDPOS = Task(
    card=TaskCard(
        name="udpos",
        suite="xtreme",
        kind=Kind.TAGGING,
        labels=tuple("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split()),
        languages=tuple(_TREEBANKS),
        metrics=("accuracy", "f1_seqeval"),
    ),
    source=OfficialSource(
        {
            "train": SplitFiles(("xtreme/download/udpos/train-{language}.tsv",), Conll(), _UDPOS_HUB, ("en",)),
            "dev": SplitFiles(("xtreme/download/udpos/dev-{language}.tsv",), Conll(), _UDPOS_HUB),
            "test": SplitFiles(("xtreme/download/udpos/test-{language}.tsv",), Conll(), _UDPOS_HUB),
        }
    ),
    title="Parts of speech",
    averaged=("f1_seqeval",),
    licence="differs by treebank: CC BY-SA 3.0 or 4.0, some CC BY-NC-SA (not for commercial use)",
    url="https://universaldependencies.org/",
    how_to_get=_HOW_TO_GET,
    eval_split="test",
)

_SQUAD_HUB = Hub("rajpurkar/squad", Question())

XQUAD = Task(
    card=span_card("xquad", "xtreme", languages=tuple("ar de el en es hi ru th tr vi zh".split())),
    source=OfficialSource(
        {
            split: SplitFiles(
                (f"squad/{split}-v1.1.json|xtreme/download/squad/{split}-v1.1.json",),
                SquadJson(),
                _SQUAD_HUB,
                languages=("en",),
            )
            for split in ("train", "dev")
        }
        | {
            "test": SplitFiles(
                ("xtreme/download/xquad/xquad.{language}.json",),
                SquadJson(),
                Hub("google/xquad", Question(), config="xquad.{language}", split="validation"),
            )
        }
    ),
    title="XQuAD",
    licence="CC BY-SA 4.0",
    url="https://github.com/google-deepmind/xquad",
    how_to_get=_HOW_TO_GET
    + " It blanks the answers of the test files: take those of https://github.com/google-deepmind/xquad.",
    eval_split="test",
)

_ISO_639_3 = {
    "af": "afr", "ar": "ara", "bg": "bul", "bn": "ben", "de": "deu", "el": "ell", "es": "spa", "et": "est",
    "eu": "eus", "fa": "pes", "fi": "fin", "fr": "fra", "he": "heb", "hi": "hin", "hu": "hun", "id": "ind",
    "it": "ita", "ja": "jpn", "jv": "jav", "ka": "kat", "kk": "kaz", "ko": "kor", "ml": "mal", "mr": "mar",
    "nl": "nld", "pt": "por", "ru": "rus", "sw": "swh", "ta": "tam", "te": "tel", "th": "tha", "tl": "tgl",
    "tr": "tur", "ur": "urd", "vi": "vie", "zh": "cmn",
}  # fmt: skip

TATOEBA = Task(
    card=TaskCard(
        name="tatoeba",
        suite="xtreme",
        kind=Kind.RETRIEVAL,
        languages=tuple(_ISO_639_3),
        train_language=None,
        metrics=("accuracy",),
    ),
    source=OfficialSource(
        {
            "test": SplitFiles(
                (
                    "xtreme/download/tatoeba/{language}-en.{language}",
                    "xtreme/download/tatoeba/{language}-en.en",
                    "xtreme/gold/tatoeba/{language}-en.gold",
                ),
                Parallel(),
                Hub(
                    "google/xtreme",
                    Columns(text="source_sentence", text_pair="target_sentence"),
                    config="tatoeba.{language}",
                    split="validation",
                    languages=_ISO_639_3,
                ),
            )
        }
    ),
    title="Tatoeba",
    licence="CC BY 2.0 FR",
    url="https://github.com/facebookresearch/LASER/tree/main/data/tatoeba/v1",
    how_to_get=_HOW_TO_GET + _GOLD,
    eval_split="test",
)

SUITE = Suite(
    name="xtreme",
    title="XTREME (4 of its 9 tasks)",
    tasks=(XNLI, UDPOS, XQUAD, TATOEBA),
    categories={
        "classification": ("xnli",),
        "structured": ("udpos",),
        "qa": ("xquad",),
        "retrieval": ("tatoeba",),
    },
)
