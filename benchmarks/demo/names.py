"""Names of cities, countries, currencies and languages in every language of the demo suite, from Unicode CLDR."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import cache

from babel import Locale
from babel.core import get_global

from benchmarks.demo.draws import hash_of

LANGUAGES = ("en", "ar", "de", "el", "es", "hi", "ru", "zh")
"""BCP-47 codes of the demo suite's languages: six scripts."""

KINDS = ("city", "country", "currency", "language")
"""What a name can be a name of."""

_LONGEST = 28  # characters: keeps rows short
_LATIN = ("en", "de", "es")
_CONTINENTS = ("Africa", "America", "Asia", "Australia", "Europe")

# CLDR names these places as the "city" of a time zone, but they are islands, peninsulas or parts of a town.
_NO_CITIES = frozenset(
    "America/Antigua America/Bahia_Banderas America/Cayman America/Grand_Turk America/Miquelon America/Noronha "
    "America/Lower_Princes America/Tortola Asia/Kamchatka Asia/Sakhalin Australia/Lindeman Australia/Lord_Howe "
    "Europe/Vatican".split()
)
# Groups of countries, uninhabited places, military bases and codes for tests.
_NO_COUNTRIES = frozenset("AC AQ BV CP CQ DG EA EU EZ GS HM IC IO QO TA TF UM UN XA XB ZZ".split())
# Funds, metals, units of account and codes for tests.
_NO_CURRENCIES = frozenset(
    "BOV CHE CHW CLF COU MXV USN USS UYI UYW XAG XAU XBA XBB XBC XBD XDR XEU XFO XFU XPD XPT XRE XSU "
    "XTS XUA XXX".split()
)


@cache
def names(kind: str, split: str) -> tuple[str, ...]:
    """The codes whose names may occur in a split; no code occurs in two splits.

    Args:
        kind: one of `KINDS`.
        split: "train", "dev" or "test".

    Returns:
        CLDR codes, sorted.
    """
    return tuple(code for code in sorted(_table()[kind]) if split_of(kind, code) == split)


def name(kind: str, code: str, language: str) -> str:
    """What the thing with this CLDR code is called in a language."""
    return _table()[kind][code][language]


def split_of(kind: str, code: str) -> str:
    """The only split in which a name occurs: 60 % of the names are for training, 10 % dev, 30 % test."""
    share = hash_of(f"{kind}:{code}") % 10
    return "train" if share < 6 else "dev" if share == 6 else "test"


@cache
def _table() -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    """Kind -> code -> language -> name, with only those codes whose name is plain and unique in every language."""
    raw = {language: _raw(language) for language in LANGUAGES}
    table = {}
    for kind in KINDS:
        codes = sorted(frozenset.intersection(*(frozenset(raw[language][kind]) for language in LANGUAGES)))
        table[kind] = {code: {language: raw[language][kind][code] for language in LANGUAGES} for code in codes}
    uses = Counter(
        (language, text.casefold())
        for kind in KINDS
        for texts in table[kind].values()
        for language, text in texts.items()
    )
    return {
        kind: {
            code: texts
            for code, texts in table[kind].items()
            if all(_plain(text) and uses[language, text.casefold()] == 1 for language, text in texts.items())
        }
        for kind in KINDS
    }


def _raw(language: str) -> dict[str, dict[str, str]]:
    """Kind -> code -> name in one language, before names that are not plain or not unique are dropped."""
    locale = Locale.parse(language)
    zones = [zone for zone in get_global("zone_territories") if zone.startswith(_CONTINENTS) and zone not in _NO_CITIES]
    cities = {zone: _city(locale, zone) for zone in zones}
    return {
        "city": {zone: text for zone, text in cities.items() if text is not None},
        "country": {c: text for c, text in locale.territories.items() if _is_alpha_2(c) and c not in _NO_COUNTRIES},
        "currency": {c: text for c, text in locale.currencies.items() if c not in _NO_CURRENCIES},
        "language": {c: text for c, text in locale.languages.items() if _is_alpha_2(c)},
    }


def _city(locale: Locale, zone: str) -> str | None:
    """The exemplar city of a time zone, None if CLDR does not name it in this language."""
    names_of_zone = locale.time_zones.get(zone, {})
    if "city" in names_of_zone:
        return str(names_of_zone["city"])
    # In Latin script CLDR lists only names that differ from the last part of the zone's id.
    return zone.rpartition("/")[2].replace("_", " ") if locale.language in _LATIN else None


def _is_alpha_2(code: str) -> bool:
    """Countries and the larger languages have codes of two letters; the others are regions and lesser-known ones."""
    return len(code) == 2 and code.isalpha()


def _plain(text: str) -> bool:
    """Whether a name has only letters, marks, spaces, hyphens and apostrophes, and is short and composed (NFC)."""
    letters = all(unicodedata.category(c)[0] in "LM" or c in " -’'&" for c in text)
    return letters and len(text) <= _LONGEST and unicodedata.is_normalized("NFC", text)
