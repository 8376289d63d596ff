"""XTREME (Hu et al. 2020, arXiv 2003.11080): trained in English if nothing else is asked, scored in many languages."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.hub import Hub
from benchmarks.readers.conll import Conll
from benchmarks.readers.mining import Mining
from benchmarks.readers.parallel import Parallel
from benchmarks.readers.rows import Columns, Row
from benchmarks.readers.squad import Question, SquadJson
from benchmarks.readers.tables import LabelsApart, Tsv
from benchmarks.sources import OfficialSource, SplitFiles
from benchmarks.suites.conll import bio
from benchmarks.suites.squad import span_card
from benchmarks.task import Kind, Published, Suite, Task, TaskCard

_HUB = "google/xtreme"
_HOW_TO_GET = (
    "scripts/download_data.sh of https://github.com/google-research/xtreme fills download/; "
    "put it under xtreme/ of the data folder."
)
_GOLD = " Test labels are not in that download: xtreme/gold/ holds them, from the task's own release."


def _blanked(what: str, release: str) -> str:
    return (
        f"{_HOW_TO_GET} It leaves the {what} of the test files out: put complete ones in their places, from {release}."
    )


def _published(*values: tuple[str, float]) -> tuple[Published, ...]:
    source = "huggingface.co/CZWin32768/xlm-align, model card"
    return tuple(Published("fine-tuning", "XLM-R base", metric, value, "test", source) for metric, value in values)


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
    published=_published(("accuracy", 75.0)),
)

_PAWSX_HUB = Hub(_HUB, Columns(text="sentence1", text_pair="sentence2", label="label"), config="PAWS-X.{language}")

PAWSX = Task(
    card=TaskCard(
        name="pawsx",
        suite="xtreme",
        kind=Kind.CLASSIFICATION,
        labels=("0", "1"),  # as in every file and submission; "1" is a paraphrase
        languages=tuple("de en es fr ja ko zh".split()),
        metrics=("accuracy",),
    ),
    source=OfficialSource(
        {
            # Of other languages than English: the release's translations.
            "train": SplitFiles(("xtreme/download/pawsx/train-{language}.tsv",), _PAIRS, _PAWSX_HUB),
            "dev": SplitFiles(("xtreme/download/pawsx/dev-{language}.tsv",), _PAIRS, _PAWSX_HUB),
            "test": SplitFiles(
                ("xtreme/download/pawsx/test-{language}.tsv", "xtreme/gold/pawsx/test-{language}.tsv"),
                LabelsApart(_PAIRS),
                _PAWSX_HUB,
            ),
        }
    ),
    title="PAWS-X",
    licence="free for any purpose; attribution to Google asked for",
    url="https://github.com/google-research-datasets/paws/tree/master/pawsx",
    how_to_get=f"{_HOW_TO_GET}{_GOLD} For xtreme/gold/pawsx/test-de.tsv, a label a line: "
    "tail -n +2 x-final/de/test_2k.tsv | cut -f 4, and likewise for the other languages. For train-de.tsv: "
    "tail -n +2 x-final/de/translated_train.tsv | cut -f 2-4.",
    eval_split="test",
    published=_published(("accuracy", 84.9)),
)

_TREEBANKS = {
    "af": "Afrikaans", "ar": "Arabic", "bg": "Bulgarian", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese",
    "kk": "Kazakh", "ko": "Korean", "mr": "Marathi", "nl": "Dutch", "pt": "Portuguese", "ru": "Russian",
    "ta": "Tamil", "te": "Telugu", "th": "Thai", "tl": "Tagalog", "tr": "Turkish", "ur": "Urdu",
    "vi": "Vietnamese", "yo": "Yoruba", "zh": "Chinese",
}  # fmt: skip
_TRAINED_TREEBANKS = tuple(language for language in _TREEBANKS if language not in ("kk", "th", "tl", "yo"))
_UDPOS_HUB = Hub(_HUB, Columns(tokens="tokens", tags="pos_tags"), config="udpos.{language}", languages=_TREEBANKS)

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
            split: SplitFiles((f"xtreme/download/udpos/{split}-{{language}}.tsv",), Conll(), _UDPOS_HUB, languages)
            for split, languages in (("train", _TRAINED_TREEBANKS), ("dev", _TRAINED_TREEBANKS), ("test", ()))
        }
    ),
    title="Parts of speech",
    averaged=("f1_seqeval",),
    licence="differs by treebank: CC BY-SA 3.0 or 4.0, some CC BY-NC-SA (not for commercial use)",
    url="https://universaldependencies.org/",
    how_to_get=_blanked("tags", "Universal Dependencies 2.5, https://universaldependencies.org/"),
    eval_split="test",
    published=_published(("f1_seqeval", 75.6)),
)

_PANX_HUB = Hub(_HUB, Columns(tokens="tokens", tags="ner_tags"), config="PAN-X.{language}")

PANX = Task(
    card=TaskCard(
        name="panx",
        suite="xtreme",
        kind=Kind.TAGGING,
        labels=bio("LOC", "ORG", "PER"),
        languages=tuple(
            "af ar bg bn de el en es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr ms my nl pt ru sw ta te th tl "
            "tr ur vi yo zh".split()
        ),
        metrics=("f1",),
    ),
    source=OfficialSource(
        {
            split: SplitFiles((f"xtreme/download/panx/{split}-{{language}}.tsv",), Conll(), _PANX_HUB)
            for split in ("train", "dev", "test")
        }
    ),
    title="PAN-X (WikiANN)",
    licence="ODC-BY; the text is Wikipedia's, CC BY-SA",
    url="https://github.com/afshinrahimi/mmner",
    how_to_get=_blanked("tags", 'the archive of WikiANN that the script unpacks, "de:" cut off in front of each token'),
    eval_split="test",
    published=_published(("f1", 61.8)),
)

_SQUAD_HUB = Hub("rajpurkar/squad", Question())

XQUAD = Task(
    card=span_card("xquad", "xtreme", tuple("ar de el en es hi ru th tr vi zh".split()), ("f1", "em", "chrf")),
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
    how_to_get=_blanked("answers", "https://github.com/google-deepmind/xquad"),
    eval_split="test",
    averaged=("f1", "em"),
    published=_published(("f1", 71.9), ("em", 56.4)),
)

_MLQA_HUB = Hub(_HUB, Question(), config="MLQA.{language}.{language}")
_MLQA_README = "github.com/facebookresearch/MLQA, README; the mean of its seven languages"

MLQA = Task(
    card=span_card(
        "mlqa", "xtreme", tuple("ar de en es hi vi zh".split()), ("f1_mlqa", "em_mlqa", "chrf"), head="xquad"
    ),
    source=OfficialSource(
        {
            split: SplitFiles(
                (f"xtreme/download/mlqa/MLQA_V1/{split}/{split}-context-{{language}}-question-{{language}}.json",),
                SquadJson(),
                _MLQA_HUB,
            )
            for split in ("dev", "test")
        }
    ),
    title="MLQA",
    licence="CC BY-SA 3.0",
    url="https://github.com/facebookresearch/MLQA",
    how_to_get=_blanked("answers", "MLQA_V1.zip, linked on https://github.com/facebookresearch/MLQA"),
    eval_split="test",
    averaged=("f1_mlqa", "em_mlqa"),
    published=(
        *_published(("f1_mlqa", 65.1), ("em_mlqa", 47.2)),
        Published("fine-tuning", "mBERT", "f1_mlqa", 57.7, "test", _MLQA_README),
        Published("fine-tuning", "XLM", "f1_mlqa", 61.6, "test", _MLQA_README),
    ),
)


@dataclass(frozen=True)
class _NamedById(Hub):
    """A configuration that holds all languages: the name of a row's language begins its `id`."""

    def records(self, split: str, language: str) -> list[tuple[str, Row]]:
        """See `Hub`; `languages` has the names."""
        start = f"{self.languages[language]}-"
        return [record for record in super().records(split, language) if record[1]["id"].startswith(start)]


_TYDI_NAMES = {
    "ar": "arabic", "bn": "bengali", "en": "english", "fi": "finnish", "id": "indonesian", "ko": "korean",
    "ru": "russian", "sw": "swahili", "te": "telugu",
}  # fmt: skip

TYDIQA = Task(
    card=span_card("tydiqa", "xtreme", tuple(_TYDI_NAMES)),
    source=OfficialSource(
        {
            "train": SplitFiles(
                ("xtreme/download/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.{language}.train.json",),
                SquadJson(Question(numbered=True)),
                _NamedById(_HUB, Question(numbered=True), "tydiqa", languages=_TYDI_NAMES),
            ),
            # XTREME reports what TyDi QA calls its development set, and has no other.
            "test": SplitFiles(
                ("xtreme/download/tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.{language}.dev.json",),
                SquadJson(),
                _NamedById(_HUB, Question(), "tydiqa", "validation", _TYDI_NAMES),
            ),
        }
    ),
    title="TyDi QA, gold passage",
    licence="Apache-2.0",
    url="https://github.com/google-research-datasets/tydiqa",
    how_to_get=_blanked(
        "answers",
        "tydiqa-goldp-v1.1-dev.tgz, linked on https://github.com/google-research-datasets/tydiqa, "
        "tydiqa-goldp-dev-german.json as tydiqa.goldp.de.dev.json and so on",
    ),
    eval_split="test",
    published=_published(("f1", 55.4), ("em", 38.3)),
)

BUCC2018 = Task(
    card=TaskCard(
        name="bucc2018",
        suite="xtreme",
        kind=Kind.RETRIEVAL,
        languages=("de", "fr", "ru", "zh"),
        train_language=None,
        metrics=("f1",),
        no_answer=True,
    ),
    # On the hub are the pairs alone, without the sentences that they are to be found among.
    source=OfficialSource(
        {
            split: SplitFiles(
                (
                    f"xtreme/download/bucc2018/{{language}}-en.{split}.{{language}}",
                    f"xtreme/download/bucc2018/{{language}}-en.{split}.en",
                    f"xtreme/{folder}/bucc2018/{{language}}-en.{split}.gold",
                ),
                Mining(),
            )
            for split, folder in (("dev", "download"), ("test", "gold"))
        }
    ),
    title="BUCC 2018",
    licence="research use (shared task)",
    url="https://comparable.limsi.fr/bucc2018/bucc2018-task.html",
    how_to_get=f"{_HOW_TO_GET}{_GOLD} xtreme/gold/bucc2018/de-en.test.gold is BUCC's de-en.training.gold, "
    "and likewise for the other languages.",
    eval_split="test",
    tuned_on="dev",
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
                # XTREME searches the other language's sentence for each English one (third_party/evaluate_retrieval.py)
                (
                    "xtreme/download/tatoeba/{language}-en.en",
                    "xtreme/download/tatoeba/{language}-en.{language}",
                    "xtreme/gold/tatoeba/{language}-en.gold",
                ),
                Parallel(gold_of_candidates=True),
                Hub(
                    _HUB,
                    Columns(text="target_sentence", text_pair="source_sentence"),
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
    title="XTREME",
    tasks=(XNLI, PAWSX, UDPOS, PANX, XQUAD, MLQA, TYDIQA, BUCC2018, TATOEBA),
    categories={
        "classification": ("xnli", "pawsx"),
        "structured": ("udpos", "panx"),
        "qa": ("xquad", "mlqa", "tydiqa"),
        "retrieval": ("bucc2018", "tatoeba"),
    },
)
