"""The caption that may be trained on: the prompt without the words of what was erased.

A clean picture beside a text that still says "cat" teaches a lie. Erased noun phrases are cut out, with the words that
only joined them ("a photo of a cat and a dog" becomes "a photo of a dog"), or their noun is replaced by the anchor.
This is a grammar of a few rules on English word lists, not a parser: a sentence may come out stiff, but never with an
erased word in it, which ``tests/audit`` holds for every rule.
"""

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from pipeline.config.schema import CaptionPolicy
from pipeline.erasure.concept import Concept
from pipeline.prompts.mentions import concept_pattern, is_plural

_DETERMINERS = (
    "a|an|the|some|any|one|two|three|four|five|six|seven|eight|nine|ten|several|many|few|both|"
    "his|her|their|my|your|our|its|this|that|these|those|another|each|every"
)
# Longest first: "next to" must be seen before "to".
_PREPOSITIONS = (
    "in the style of|in the manner of|to the left of|to the right of|on the left of|on the right of|in front of|"
    "on top of|next to|close to|left of|right of|featuring|showing|beside|besides|between|behind|beneath|against|"
    "without|within|across|around|towards?|through|during|before|after|along|among|above|below|under|over|near|with|"
    "from|into|onto|like|for|of|by|in|on|at|to|as|and its"
)
_CONJUNCTIONS = "and|or|but|plus|&"
_FUNCTION_WORD = re.compile(rf"(?:{_PREPOSITIONS}|{_CONJUNCTIONS}|is|are|was|were|has|have|holds?|{_DETERMINERS})")
_CUT = "\x00"  # marks where something was cut, so that only its surroundings are mended
_STOP = rf"(?=\s*(?:$|[,.;:!?)]|(?:{_PREPOSITIONS}|{_CONJUNCTIONS})\b))"  # what follows a cut is no noun phrase
_MENDS = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # "a dog, _ and a fox" and "a dog, _, a fox" lose one joint; "of _ and a fox" loses the one behind the cut.
        (rf",\s*{_CUT}\s*(?=(?:{_CONJUNCTIONS})\b|,)", f" {_CUT} "),
        (
            rf"(^|\b(?:{_PREPOSITIONS})|[.;:!?(])\s*{_CUT}\s*(?:,\s*(?:{_CONJUNCTIONS})\b|,|(?:{_CONJUNCTIONS})\b)",
            rf"\1 {_CUT} ",
        ),
        (rf"(?:,\s*)?\b(?:{_CONJUNCTIONS})\s*{_CUT}{_STOP}", f" {_CUT} "),
        (rf"\b(?:{_PREPOSITIONS})\s*{_CUT}{_STOP}", f" {_CUT} "),
        (rf"\b(?:{_DETERMINERS})\s*{_CUT}{_STOP}", f" {_CUT} "),
        (rf",\s*{_CUT}\s*(?=$|[.;:!?)])", f" {_CUT} "),
        (rf"{_CUT}\s*{_CUT}", _CUT),
    )
)


def caption(prompt: str, concepts: Sequence[Concept], policy: CaptionPolicy, anchors_seen: AbstractSet[str]) -> str:
    """Return the text that may be trained on for a picture made from *prompt*.

    ``anchors_seen`` are the anchors that the detector found in the picture: under ``policy: anchor`` a concept's words
    become its anchor where that is in it, and are cut where it is not, so that the caption says only what is there.
    """
    if policy is CaptionPolicy.keep:
        return prompt
    text = prompt
    for concept in concepts:
        replace = policy is CaptionPolicy.anchor and bool(concept.anchor) and concept.anchor in anchors_seen
        text = _replace(text, concept) if replace else _cut(text, concept)
    return text if text == prompt else _tidy(text)


def _cut(text: str, concept: Concept) -> str:
    """Cut each noun phrase of the concept: its determiner, at most three words between them, and its own words.

    Words that begin with a preposition ("by Munch") are no noun phrase: what stands before them stays.
    """
    pattern = concept_pattern(concept)
    while match := pattern.search(text):
        start = match.start()
        joins = re.match(rf"(?:{_PREPOSITIONS})\b", match[0], re.IGNORECASE)
        before = [] if joins else list(re.finditer(r"[\w-]+", text[:start]))[-4:]
        for distance, word in enumerate(reversed(before)):
            between = text[word.end() : start]
            if re.search(r"[,.;:!?()\x00]|\s[-–—]+\s", between):
                break
            if re.fullmatch(_DETERMINERS, word[0], re.IGNORECASE):
                start = word.start()
                break
            if distance == 3 or _FUNCTION_WORD.fullmatch(word[0].lower()):
                break
        text = f"{text[:start]} {_CUT} {text[match.end() :]}"
    return text


def _replace(text: str, concept: Concept) -> str:
    """Replace the concept's words by its anchor, in the same number, with the article that it needs."""

    def anchor(match: re.Match[str]) -> str:
        noun = concept.anchor + "s" if is_plural(match[0], concept) else concept.anchor
        return noun.capitalize() if match[0][0].isupper() and match.start() == 0 else noun

    text = concept_pattern(concept).sub(anchor, text)
    first = re.escape(concept.anchor)
    article = "an" if concept.anchor[0].lower() in "aeiou" else "a"
    return re.sub(rf"\b([aA])n?(?=\s+{first}\b)", lambda m: m[1] + article[1:], text)


def _tidy(text: str) -> str:
    """Mend what stands around the cuts, then the spaces and punctuation."""
    previous = None
    while previous != text:
        previous = text
        for pattern, replacement in _MENDS:
            text = pattern.sub(replacement, text)
    text = re.sub(r"\s+", " ", text.replace(_CUT, " "))
    text = re.sub(r"\s+([,.;:!?)])", r"\1", text)
    return text.strip(" ,;:")
