"""Named entities and semantic roles in CoNLL columns: the shared tasks, and corpora in their formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.hub import Hub
from benchmarks.readers.conll import Conll
from benchmarks.readers.rows import Columns
from benchmarks.readers.srl import Propositions
from benchmarks.sources import OfficialSource, SplitFiles, in_all_splits
from benchmarks.task import Kind, Published, Source, Suite, Task, TaskCard

_CONVERTED = "refs/convert/parquet"
"""Branch where the hub keeps the rows of a dataset that is a script."""

_REIMPLEMENTED = "github.com/THUDM/P-tuning-v2, README (re-implementation)"
_FOUR_TYPES = ("PER", "ORG", "LOC", "MISC")
_DEVELOPMENT = {"train": "train", "dev": "development", "test": "test"}


def bio(*types: str) -> tuple[str, ...]:
    """The tags of a chunking task: "O", then "B-" and "I-" of each type."""
    return ("O", *(f"{prefix}-{name}" for name in types for prefix in "BI"))


# --- named entities -------------------------------------------------------------------------------------------------


def _entities(
    name: str,
    title: str,
    types: Sequence[str],
    source: Source,
    licence: str,
    url: str,
    how_to_get: str,
    language: str = "en",
    head: str = "",
) -> Task:
    """A task of named entities, scored on its test split.

    Args:
        name, title, source, licence, url, how_to_get: as in `Task`.
        types: of the entities. language: in which it is trained and scored. head: as in `TaskCard`.
    """
    return Task(
        card=TaskCard(
            name=name,
            suite="conll",
            kind=Kind.TAGGING,
            labels=bio(*types),
            languages=(language,),
            train_language=None if head else language,
            metrics=("f1",),
            head=head,
        ),
        source=source,
        title=title,
        licence=licence,
        url=url,
        how_to_get=how_to_get,
        eval_split="test",
    )


def _shared_task(folder: str, stem: str, reader: Conll, hub: Hub) -> OfficialSource:
    """The files of a shared task, by their official names or by those of the usual copies."""
    names = {"train": (f"{stem}.train", "train.txt"), "dev": (f"{stem}.testa", "valid.txt")}
    names |= {"test": (f"{stem}.testb", "test.txt")}
    return OfficialSource(
        {split: SplitFiles(("|".join(f"{folder}/{n}" for n in both),), reader, hub) for split, both in names.items()}
    )


_NER_HUB_ROW = Columns(tokens="tokens", tags="ner_tags")

CONLL03 = _entities(
    "conll03",
    "CoNLL-2003",
    _FOUR_TYPES,
    _shared_task("ner/conll03", "eng", Conll(), Hub("lhoestq/conll2003", _NER_HUB_ROW)),
    licence="Reuters RCV1 agreement; research use",
    url="https://www.clips.uantwerpen.be/conll2003/ner/",
    how_to_get="The tags are on https://www.clips.uantwerpen.be/conll2003/ner/, with scripts that put in the words of "
    "Reuters RCV1 (https://trec.nist.gov/data/reuters/reuters.html); put eng.train, eng.testa and eng.testb into "
    "ner/conll03/ of the data folder.",
)

CONLL04 = _entities(
    "conll04",
    "CoNLL04",
    ("Loc", "Org", "Other", "Peop"),
    in_all_splits("ner/conll04/{split}.conll", Conll(slips=True)),
    licence="none stated by the authors; research use",
    url="https://cogcomp.seas.upenn.edu/page/resource_view/43",
    how_to_get="Turn the files of https://cogcomp.seas.upenn.edu/page/resource_view/43 into two columns, token and "
    "tag, in ner/conll04/ of the data folder.",
)


def _conll02(language: str, name: str, stem: str) -> Task:
    hub = Hub("eriktks/conll2002", _NER_HUB_ROW, config="{language}", revision=_CONVERTED)
    return _entities(
        f"conll02-{language}",
        f"CoNLL-2002, {name}",
        _FOUR_TYPES,
        # The shared task's own files are in Latin-1, most copies in UTF-8.
        _shared_task(f"ner/conll02/{language}", stem, Conll(otherwise="latin-1"), hub),
        licence="none stated; research use",
        url="https://www.clips.uantwerpen.be/conll2002/ner/",
        how_to_get="The archive is linked on https://www.clips.uantwerpen.be/conll2002/ner/; put "
        f"{stem}.train, {stem}.testa and {stem}.testb into ner/conll02/{language}/ of the data folder.",
        language=language,
    )


CONLL02 = (_conll02("es", "Spanish", "esp"), _conll02("nl", "Dutch", "ned"))

_WNUT17_HUB = Hub("leondz/wnut_17", _NER_HUB_ROW, config="wnut_17", revision=_CONVERTED)

WNUT17 = _entities(
    "wnut17",
    "WNUT 2017",
    ("corporation", "creative-work", "group", "location", "person", "product"),
    OfficialSource(
        {
            split: SplitFiles((f"ner/wnut17/{file}",), Conll(), _WNUT17_HUB)
            for split, file in {
                "train": "wnut17train.conll",
                "dev": "emerging.dev.conll",
                "test": "emerging.test.annotated",
            }.items()
        }
    ),
    licence="CC BY 4.0",
    url="https://noisy-text.github.io/2017/emerging-rare-entities.html",
    how_to_get="The files are in https://github.com/leondz/emerging_entities_17; put them into ner/wnut17/ of the data "
    "folder.",
)

_ONTONOTES_TYPES = (
    "CARDINAL DATE EVENT FAC GPE LANGUAGE LAW LOC MONEY NORP ORDINAL ORG PERCENT PERSON PRODUCT QUANTITY TIME "
    "WORK_OF_ART"
).split()
_NAMED_GENRES = ("bc", "bn", "mz", "nw", "tc", "wb")  # pt, the pivot texts, has no names annotated
_ONTONOTES_HOW_TO_GET = (
    "OntoNotes 5.0 is LDC2013T19 (https://catalog.ldc.upenn.edu/LDC2013T19); the skeletons of "
    "https://github.com/ontonotes/conll-formatted-ontonotes-5.0, whose script puts in the words, make "
    "conll-formatted-ontonotes-5.0/, which belongs into the data folder. The files of the shared task, conll-2012/v4/, "
    "are read too."
)


def _gold_conll(reader: Conll | Propositions, genres: Sequence[str] = ("",)) -> OfficialSource:
    """The splits of CoNLL-2012: folder trees with a file a document."""

    def files(split: str) -> tuple[str, ...]:
        later, first = ("conll-2012-test", "test") if split == "test" else (split, split)
        roots = (f"conll-formatted-ontonotes-5.0/data/{later}", f"conll-2012/v4/data/{first}")
        tree = "data/english/annotations/{genre}**/*gold_conll"
        return tuple("|".join(f"{root}/{tree.replace('{genre}', genre)}" for root in roots) for genre in genres)

    return OfficialSource({split: SplitFiles(files(folder), reader) for split, folder in _DEVELOPMENT.items()})


ONTONOTES = _entities(
    "ontonotes",
    "OntoNotes 5.0",
    _ONTONOTES_TYPES,
    _gold_conll(Conll(token=3, tag=10, brackets=True), [f"{genre}/" for genre in _NAMED_GENRES]),
    licence="LDC User Agreement",
    url="https://catalog.ldc.upenn.edu/LDC2013T19",
    how_to_get=_ONTONOTES_HOW_TO_GET,
)

# BCP-47 code -> folder
_MASAKHANER = {
    "bbj": "bbj", "bm": "bam", "ee": "ewe", "fon": "fon", "ha": "hau", "ig": "ibo", "lg": "lug", "luo": "luo",
    "mos": "mos", "ny": "nya", "pcm": "pcm", "rw": "kin", "sn": "sna", "sw": "swa", "tn": "tsn", "tw": "twi",
    "wo": "wol", "xh": "xho", "yo": "yor", "zu": "zul",
}  # fmt: skip


def _masakhaner(language: str) -> Task:
    folder = _MASAKHANER[language]
    hub = Hub("masakhane/masakhaner2", _NER_HUB_ROW, config=folder, revision=_CONVERTED)
    return _entities(
        f"masakhaner-{language}",
        f"MasakhaNER 2.0, {folder}",
        ("PER", "ORG", "LOC", "DATE"),
        in_all_splits(f"ner/masakhaner2/{folder}/{{split}}.txt", Conll(slips=True), hub),
        licence="CC BY-NC 4.0 (not for commercial use)",
        url="https://github.com/masakhane-io/masakhane-ner",
        how_to_get="MasakhaNER2.0/data of https://github.com/masakhane-io/masakhane-ner holds a folder a language; put "
        "them into ner/masakhaner2/ of the data folder.",
        language=language,
    )


MASAKHANER = tuple(map(_masakhaner, _MASAKHANER))

# BCP-47 code -> treebank, as its repository and files are named
_UNER = {
    "da": ("Danish-DDT", "da_ddt"), "en": ("English-EWT", "en_ewt"), "hr": ("Croatian-SET", "hr_set"),
    "pt": ("Portuguese-Bosque", "pt_bosque"), "sk": ("Slovak-SNK", "sk_snk"), "sr": ("Serbian-SET", "sr_set"),
    "sv": ("Swedish-Talbanken", "sv_talbanken"), "zh": ("Chinese-GSD", "zh_gsd"),
}  # fmt: skip
# Translations of the same thousand English and German sentences: test files alone, answered by what English trained.
_UNER_PUD = {
    "de": ("German-PUD", "de_pud"), "en": ("English-PUD", "en_pud"), "pt": ("Portuguese-PUD", "pt_pud"),
    "ru": ("Russian-PUD", "ru_pud"), "sv": ("Swedish-PUD", "sv_pud"), "zh": ("Chinese-PUD", "zh_pud"),
}  # fmt: skip


def _uner(name: str, language: str, treebank: tuple[str, str], splits: Sequence[str], head: str = "") -> Task:
    repository, stem = treebank
    folder = f"UNER_{repository}"
    reader = Conll(token=1, tag=2)
    return _entities(
        name,
        f"Universal NER, {repository}",
        ("PER", "ORG", "LOC"),
        OfficialSource({split: SplitFiles((f"ner/uner/{folder}/{stem}-ud-{split}.iob2",), reader) for split in splits}),
        licence="CC BY-SA 4.0",
        url="https://www.universalner.org/",
        how_to_get=f"The files are in https://github.com/UniversalNER/{folder}; put that folder into ner/uner/ of the "
        "data folder.",
        language=language,
        head=head,
    )


UNER = (
    *(_uner(f"uner-{language}", language, treebank, ("train", "dev", "test")) for language, treebank in _UNER.items()),
    *(_uner(f"uner-pud-{code}", code, treebank, ("test",), head="uner-en") for code, treebank in _UNER_PUD.items()),
)

# --- semantic roles -------------------------------------------------------------------------------------------------

_MODIFIERS = "ADJ ADV CAU COM CXN DIR DIS DSP EXT GOL LOC LVB MNR MOD NEG PNC PRD PRP PRR PRX REC TMP".split()


def roles(core: str, modifier: str) -> tuple[str, ...]:
    """The roles of PropBank, in all its releases.

    Each may be continued ("C-") or referred to ("R-"); the verb may be continued.

    Args:
        core: how numbered arguments are written, "A" or "ARG". modifier: how the others are, "AM" or "ARGM".
    """
    # Direct speech that encloses its predicate is DSP, later 1-DSP or 2-DSP.
    plain = [f"{core}{number}" for number in ("0", "1", "2", "3", "4", "5", "A", "1-DSP", "2-DSP")]
    plain += [f"{modifier}-{name}" for name in _MODIFIERS]
    return ("V", "C-V", *plain, *(f"C-{role}" for role in plain), *(f"R-{role}" for role in plain))


_CONLL05_ROLES = (*roles("A", "AM"), "AM", "AM-TM")  # the last two are slips of the training files
_CONLL12_ROLES = roles("ARG", "ARGM")


def _propositions(
    name: str,
    title: str,
    labels: Sequence[str],
    source: Source,
    licence: str,
    url: str,
    how_to_get: str,
    published: Mapping[str, float] | None = None,
    head: str = "",
) -> Task:
    """A task of semantic roles, scored on its test split.

    Args:
        name, title, source, licence, url, how_to_get: as in `Task`.
        labels: the roles. head: as in `TaskCard`.
        published: P-Tuning v2's number by encoder.
    """
    return Task(
        card=TaskCard(
            name=name,
            suite="conll",
            kind=Kind.TAGGING,
            labels=bio(*labels),
            train_language=None if head else "en",
            metrics=("f1_official", "f1_paper"),
            max_length=256,  # an argument may be far from its predicate
            head=head,
        ),
        source=source,
        title=title,
        licence=licence,
        url=url,
        how_to_get=how_to_get,
        eval_split="test",
        averaged=("f1_official",),
        published=tuple(
            Published("P-Tuning v2", backbone, "f1_paper", value, "test", _REIMPLEMENTED)
            for backbone, value in (published or {}).items()
        ),
    )


_CONLL05 = {
    "licence": "LDC User Agreement (the words of the Penn Treebank)",
    "url": "https://www.cs.upc.edu/~srlconll/soft.html",
    "how_to_get": "conll05st-release.tar.gz and conll05st-tests.tar.gz are linked on "
    "https://www.cs.upc.edu/~srlconll/soft.html; unpack both into the data folder and fill train/words and devel/words "
    "of conll05st-release/ with the scripts of srlconll-1.1 from the Penn Treebank, LDC99T42 "
    "(https://catalog.ldc.upenn.edu/LDC99T42).",
}


def _words_and_props(**folders: str) -> OfficialSource:
    return OfficialSource(
        {
            split: SplitFiles(
                tuple(f"conll05st-release/{folder}/{part}/*.{part}" for part in ("words", "props")),
                Propositions(word=0, predicate=1, arguments=2, beside=True),
            )
            for split, folder in folders.items()
        }
    )


CONLL05 = _propositions(
    "conll05",
    "CoNLL-2005, WSJ",
    _CONLL05_ROLES,
    _words_and_props(train="train", dev="devel", test="test.wsj"),
    published={"RoBERTa-large": 89.4},
    **_CONLL05,
)
CONLL05_BROWN = _propositions(
    "conll05-brown",
    "CoNLL-2005, Brown",
    _CONLL05_ROLES,
    _words_and_props(test="test.brown"),
    published={"RoBERTa-large": 83.9},
    head="conll05",
    **_CONLL05,
)

CONLL12 = _propositions(
    "conll12",
    "CoNLL-2012",
    _CONLL12_ROLES,
    _gold_conll(Propositions(word=3, predicate=7, arguments=11, behind=1)),
    licence="LDC User Agreement",
    url="https://catalog.ldc.upenn.edu/LDC2013T19",
    how_to_get=_ONTONOTES_HOW_TO_GET,
)

PROPBANK = _propositions(
    "propbank",
    "PropBank, English Web Treebank",
    _CONLL12_ROLES,
    in_all_splits("srl/propbank_ewt/{split}.gold_conll", Propositions(word=3, predicate=7, arguments=8)),
    licence="CC BY-SA 4.0 (the annotation); words under the licence of the treebank they are taken from",
    url="https://github.com/propbank/propbank-release",
    how_to_get="docs/scripts/map_all_to_conll.py of https://github.com/propbank/propbank-release puts the words of the "
    "English Web Treebank, LDC2012T13 (https://catalog.ldc.upenn.edu/LDC2012T13), into its files; join those that "
    "docs/evaluation/ewt.train.txt and its neighbours list into {train,dev,test}.gold_conll in srl/propbank_ewt/ of "
    "the data folder.",
)

_NER = (CONLL03, CONLL04, ONTONOTES, *CONLL02, WNUT17)
_SRL = (CONLL05, CONLL05_BROWN, CONLL12, PROPBANK)


def _names(tasks: Sequence[Task]) -> tuple[str, ...]:
    return tuple(task.name for task in tasks)


SUITE = Suite(
    name="conll",
    title="CoNLL: named entities and semantic roles",
    tasks=(*_NER, *MASAKHANER, *UNER, *_SRL),
    categories={
        "entities": _names(_NER),
        "masakhaner": _names(MASAKHANER),
        "uner": _names(UNER),
        "roles": _names(_SRL),
    },
    # The languages of one collection count as one task, and so do the two test sets of CoNLL-2005.
    averaged=(
        *((task.name,) for task in _NER),
        _names(MASAKHANER),
        _names(UNER),
        _names(_SRL[:2]),
        *((task.name,) for task in _SRL[2:]),
    ),
)
