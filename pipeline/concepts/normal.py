"""The one normal form of text, in which words are compared, the same for every encoder: NFKC, case folded, cut at word
borders.

A text becomes a list of ``Piece``: runs of letters, runs of digits, and single characters of all else. Between two
pieces there is nothing, or a *joint* (blanks, ``_``, dashes of every kind), which are all alike:

- "AK-47", "AK47", "ak‑47" and "AK_47" are one, as there is a border at every change between letter and digit, and none
  within a run of either: "47" is no piece of "1947".
- Case is folded in every script; full-width letters and ligatures count as plain ones, digits of any script as 0 to 9,
  every apostrophe as "'". Accents count, composed or not ("café"), but are not taken off ("rosé" is no rose).
- Soft hyphens, zero-width characters and the dot in Japanese names are *soft*: a word is found across them and at them,
  because encoders read them in either way.
- Where a script has no blanks (Chinese, Japanese, Thai, ...), and of emoji, every character is a piece, so that words
  are found anywhere in a run. Where words take articles or particles (Arabic, Hebrew, Korean) a piece is also read
  without them (``readings``).
- What writers may leave out does not count: the vowel signs of Arabic and Hebrew, Turkish dots on or off an i, marks
  that are set on letters for ornament.
"""

import re
import unicodedata
from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple


class Kind(IntEnum):
    letters = 0
    digits = 1
    single = 2  # a character of a script without blanks, a symbol or a punctuation mark


class Gap(IntEnum):
    """What stands before a piece."""

    none = 0
    soft = 1
    joint = 2  # or the beginning of the text


class Piece(NamedTuple):
    """Characters ``start:stop`` of a text, and how they count."""

    text: str
    start: int
    stop: int
    kind: Kind
    gap: Gap


_PIECE = re.compile(r"[a-z]+|[0-9]+|[^\x00-\x20\x7fa-z0-9_-]")  # of ASCII in lower case
# Of common typography, one character for one: most texts are ASCII then, and quickly read.
_PLAIN = str.maketrans(dict.fromkeys("`´‘’‛ʹʻʼ′՚＇ꞌ", "'") | dict.fromkeys("“”„", '"') | dict.fromkeys("‐‑‒–—", "-"))
_JOINTS = "_\u02d7\u2043\u2212"  # beside blanks, dashes and controls: minus signs and a hyphen among the bullets
_DOT = "\u30fb"
# First and last code points of scripts that are written without blanks.
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF), (0x2E80, 0x2FDF),
    (0x3005, 0x3007), (0x3021, 0x3029), (0x3041, 0x30FF), (0x3100, 0x312F), (0x31A0, 0x31BF), (0x31F0, 0x31FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA9E0, 0xA9FF), (0xAA60, 0xAADF), (0xF900, 0xFAFF), (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)  # fmt: skip
# Fillers and variation selectors, which no category tells; format characters (Cf) are invisible too.
_INVISIBLE = (
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x3164, 0x3164), (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0), (0xE0000, 0xE0FFF),
)  # fmt: skip
_VOWEL_SIGNS = ((0x0591, 0x05C7), (0x0610, 0x061A), (0x0640, 0x0640), (0x064B, 0x0652), (0x0670, 0x0670))
# What composes with the character before it and is no mark: jamo, half-width voicing marks.
_COMPOSING = ((0x1160, 0x11FF), (0xD7B0, 0xD7FF), (0xFF9E, 0xFFDC))
_PREFIX = re.compile(r"[وف]?(?:[بك]?ال|لل|[بكل])|[وف]|ו?(?:כש|[הבכלמש])ה?|ו")
_SUFFIX = re.compile(r"들?(?:에서는?|에게|으?로|이랑|하고|까지|부터|처럼|보다|이나|[이가은는을를의에와과도만랑나])|들")
_TAKES_PREFIX = ((0x05D0, 0x05EA), (0x0620, 0x06FF))
_TAKES_SUFFIX = ((0xAC00, 0xD7A3),)


def pieces(text: str) -> list[Piece]:
    """Cut *text* at its word borders, each piece in the normal form."""
    text = text.translate(_PLAIN)
    return _of_ascii(text) if text.isascii() else _of_any(text)


def texts_of_pieces(text: str) -> list[str] | None:
    """Return the pieces of *text* alone, in a tenth of the time; None where it is not plain enough for that."""
    text = text.translate(_PLAIN)
    return _PIECE.findall(text.lower()) if text.isascii() else None


def normal(text: str) -> str:
    """Return *text* in the normal form: its pieces, with a blank wherever a word may end.

    >>> normal("AK‑47"), normal("Hot_Dogs"), normal("C++")
    ('ak 47', 'hot dogs', 'c++')
    """
    return "".join(steps(text))


def steps(text: str) -> list[str]:
    """Return the pieces of a listed word, each but the first with a blank before it where a joint or a change between
    letter and digit is. What is soft in it counts as nothing."""
    found: list[str] = []
    last: Piece | None = None
    for piece in pieces(text):
        if last is None:
            found.append(piece.text)
        elif piece.gap is Gap.soft and piece.kind is last.kind is not Kind.single:
            found[-1] += piece.text
        else:
            found.append(" " + piece.text if parted(last, piece) else piece.text)
        last = piece
    return found


def parted(before: Piece, piece: Piece) -> bool:
    """Tell whether a border between words lies before *piece*, beside what is soft."""
    return piece.gap is Gap.joint or (before.kind is not piece.kind and Kind.single not in (before.kind, piece.kind))


def readings(text: str) -> Iterator[str]:
    """Yield *text*, a piece, and what it may be beside its article, preposition or particle."""
    yield text
    first = text[0]
    if first < "\u05d0":
        return
    if _within(first, _TAKES_PREFIX):
        yield from (text[i:] for i in range(1, min(5, len(text) - 1)) if _PREFIX.fullmatch(text[:i]))
    elif _within(first, _TAKES_SUFFIX):
        yield from (text[:-i] for i in range(1, min(5, len(text))) if _SUFFIX.fullmatch(text[-i:]))


def _of_ascii(text: str) -> list[Piece]:
    found = []
    end = -1
    for match in _PIECE.finditer(text.lower()):
        start, stop = match.span()
        part = match[0]
        kind = Kind.letters if part.isalpha() else Kind.digits if part.isdigit() else Kind.single
        found.append(Piece(part, start, stop, kind, Gap.none if start == end else Gap.joint))
        end = stop
    return found


def _of_any(text: str) -> list[Piece]:
    found: list[Piece] = []
    gap = Gap.joint
    for start, stop in _clusters(text):
        units = _units(text[start:stop])
        if not units:
            gap = max(gap, Gap.soft)
        for part, kind in units:
            if kind is None:
                gap = Gap.joint
                continue
            last = found[-1] if gap is Gap.none else None
            if last is not None and kind is last.kind and kind is not Kind.single:
                found[-1] = last._replace(text=last.text + part, stop=stop)
            else:
                found.append(Piece(part, start, stop, kind, gap))
            gap = Gap.none
    return found


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of what is normalised together: a character and what composes with it."""
    start = 0
    for i in range(1, len(text)):
        if not _composes(text[i]):
            yield start, i
            start = i
    if text:
        yield start, len(text)


@lru_cache(maxsize=1 << 14)
def _composes(character: str) -> bool:
    return unicodedata.category(character)[0] == "M" or _within(character, _COMPOSING)


@lru_cache(maxsize=1 << 16)
def _units(cluster: str) -> tuple[tuple[str, Kind | None], ...]:
    """Return the characters that *cluster* counts as and their kinds, None for a joint; nothing for what is soft."""
    folded = unicodedata.normalize("NFKC", cluster)
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", folded.casefold()).casefold())
    units: list[tuple[str, Kind | None]] = []
    for character in folded:
        category = unicodedata.category(character)
        if category == "Cf" or character == _DOT or _within(character, (*_INVISIBLE, *_VOWEL_SIGNS)):
            continue
        if category[0] == "M":
            base, kind = units[-1] if units else ("", None)
            # No letter of a script with case needs a mark that does not compose with it.
            if kind in (Kind.letters, Kind.single) and base.upper() == base.lower():
                units[-1] = base + character, kind
        elif category[0] == "Z" or category in ("Cc", "Pd") or character in _JOINTS:
            units.append(("", None))
        elif category == "Nd":
            units.append((str(unicodedata.decimal(character)), Kind.digits))
        elif category[0] == "L" and not _within(character, _UNSPACED):
            units.append(("i" if character == "ı" else character, Kind.letters))
        else:
            units.append((character, Kind.single))
    return tuple(units)


def _within(character: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= ord(character) <= last for first, last in ranges)
