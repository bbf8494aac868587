"""What is written in prompts to weigh or choose words, taken off: a caption says what is there.

Of A1111's web UI, NovelAI, compel and dynamic prompts: ``(cat:1.3)``, ``((cat))``, ``{cat}``, ``(a cat)1.2``,
``(a cat)++``, ``{cat|dog}``, ``[cat|dog]``, ``[cat:dog:0.5]``, ``BREAK``, ``<lora:name:0.8>``. Single brackets stay:
prose has them too.
"""

import re
from collections.abc import Callable

from pipeline.audit import grammar
from pipeline.concepts.mentions import Mention, Naming

_NUMBER = r"\s*\d*\.?\d+\s*"
_EXTRA = re.compile(r"<[a-z]+:[^<>]*>")
_WEIGHTED = re.compile(rf"\(([^()\[\]{{}}:]+):{_NUMBER}\)|\(([^()]+)\)(?:[+-]+|\d*\.\d+|\d+)(?!\w)")
_EMPHASISED = re.compile(r"\({2,}([^()]*)\){2,}|\[{2,}([^\[\]]*)\]{2,}|\{([^{}|]*)\}")
_CHOICE = re.compile(rf"\{{([^{{}}|]*(?:\|[^{{}}|]*)+)\}}|\[([^\[\]|]*(?:\|[^\[\]|]*)+)\]|\[([^\[\]]*):{_NUMBER}\]")
_BREAK = re.compile(r"\s*,?\s*\bBREAK\b\s*,?\s*")
_ESCAPED = re.compile(r"\\([()\[\]{}])")
_DASH = "‐‑‒–—"


def without_syntax(text: str, naming: Naming) -> str:
    """Return *text* without it. Of things to choose from, those stay in which *naming* finds nothing, if any do."""

    def chosen(match: re.Match[str]) -> str:
        options = [option.strip() for option in re.split(r"[|:]", next(filter(None, match.groups()), ""))]
        options = [option for option in options if option]
        return " or ".join([option for option in options if not naming.names(option)] or options)

    def inside(match: re.Match[str]) -> str:
        return next((group for group in match.groups() if group is not None), "")

    text = _EXTRA.sub("", text)
    if not text.isupper():
        text = _BREAK.sub(", ", text).strip(", ") if _BREAK.search(text) else text
    rules: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]]
    rules = [(_WEIGHTED, inside), (_EMPHASISED, inside), (_CHOICE, chosen)]
    before = None
    while before != text:  # they stand in each other
        before = text
        for pattern, replacement in rules:
            text = pattern.sub(replacement, text)
    return _ESCAPED.sub(r"\1", text)


def set_apart(text: str, mention: Mention) -> str:
    """Return *text* with what clings to *mention* taken off: quotes, brackets in a noun phrase, numbers, weights; and
    with blanks where underscores or signs join its words to each other or to more."""
    left, right = _unwrapped(text[: mention.start], text[mention.stop :])
    own = re.sub(rf"[{_DASH}]", "-", text[mention.start : mention.stop]).replace("_", " ")
    if own[0].isalpha():
        left = re.sub(r"(?<![\w.,])\d+$", "", left)
    if own[-1].isalpha():
        right = re.sub(r"^(?:\d+(?![\w.,]\w)|\+{2,}|-{2,}(?!\w))", "", right)
    if joined := re.search(rf"(?:[^\W_]|[_'’{_DASH}-])*_$", left):
        left = left[: joined.start()] + joined[0].replace("_", " ")
    if joined := re.match(r"(?:['’]s)?_[\w'’-]*", right):
        right = joined[0].replace("_", " ") + right[joined.end() :]
    left = re.sub(r"(?<=\w)/$", " or ", re.sub(rf"(?<=\w)[{_DASH}]$", "-", left))
    right = re.sub(r"^/(?=\w)", " or ", re.sub(rf"^[{_DASH}](?=\w)", "-", right))
    left, right = re.sub(r"\s*([+&])\s*$", r" \1 ", left), re.sub(r"^\s*([+&])\s*", r" \1 ", right)
    return left + own + right


def _unwrapped(left: str, right: str) -> tuple[str, str]:
    """Take off quotes round a few words, and brackets round the rest of a noun phrase: "a (black cat)"."""
    opening = re.search(r"([(\[{]|[\"“„«‘`]|(?<!\w)')([\w\s-]{0,40})$", left)
    closing = re.match(r"([\w\s-]{0,40})([)\]}]|[\"”“»’`'](?!\w))", right)
    if opening is None or closing is None:
        return left, right
    if opening[1] in "([{" and not grammar.ends_with_determiner(left[: opening.start()].rstrip()):
        return left, right
    if (opening[1] in "([{") != (closing[2] in ")]}"):
        return left, right
    return left[: opening.start()] + opening[2], closing[1] + right[closing.end() :]
