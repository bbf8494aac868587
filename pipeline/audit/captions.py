"""The caption that may be trained on: the prompt without the words of what was erased.

A clean picture beside a text that still says "cat" teaches a lie, and so does a torso such as "in a room". Each erased
noun phrase is cut out together with what only hung on it: joints ("a photo of a cat and a dog" becomes "a photo of a
dog"), verbs ("a cat sleeping on a sofa"), relations ("a cat next to a house" becomes "a house"). Where a place or
attributes are left alone, a stand-in becomes their subject ("a picture in a room"). Or the noun is replaced by the
anchor. The grammar is one of word lists (``grammar``), so a caption may come out stiff, but never with an erased word
in it and never without a subject, which ``tests/audit`` holds.
"""

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache

from pipeline.audit import grammar
from pipeline.audit.grammar import Edge
from pipeline.audit.syntax import set_apart, without_syntax
from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import Mention, Naming
from pipeline.concepts.words import plurals
from pipeline.config.sections.audit import CaptionPolicy

FAR = 5  # words between a determiner and its noun at most
_BOUNDARY = re.compile(r"[,.;:!?()\[\]/|\"“”]|\s[-–—]+\s")
_GROUP = re.compile(
    rf"(?:^|\s)(?:(?:{grammar.DETERMINERS})\s+(?:(?!{grammar.PREPOSITIONS})[\w-]+\s+)?)?{grammar.GROUPS}$", re.I
)
_PART = re.compile(rf"(?:^|\s)(?:{grammar.PREPOSITIONS})\s+(?:the|its)\s+(?:{grammar.PARTS})\s+of$", re.I)
_PAIR = re.compile(
    rf"(?:{grammar.DETERMINERS})\s+(?:[\w-]+\s+)?(?:{grammar.PAIRED})\s+and\s+(?:[\w-]+\s+){{1,3}}$", re.I
)
# What makes an attribute of a concept's word: "Van Gogh style painting", "cat-like creature", "horse drawn carriage".
_STYLE = re.compile(
    r"-[\w-]+|\s+(?:styled?|inspired|themed|shaped)\b"
    rf"|\s+(?!named|called|titled|labell?ed)(?:[\w-]+ed|drawn|made|driven)(?=\s+(?!(?:{grammar.PREPOSITIONS}|"
    rf"{grammar.CONJUNCTIONS}|{grammar.DETERMINERS})\b)[a-z][\w-]*(?<!ly)\b)",
    re.I,
)


# What is left of brackets and quotes whose content is gone, or all but its weight.
_NOTHING_IN_IT = re.compile(r"[(\[{]\s*[,;]?\s*(?::\s*[\d.]+\s*)?(?:[)\]}]|$)|\"\s*\"|“\s*”|‘\s*’|(?<!\w)'\s*'(?!\w)")


def caption(
    prompt: str,
    concepts: Sequence[Concept],
    policy: CaptionPolicy,
    anchors_seen: AbstractSet[str],
    subject: str | None,
) -> str | None:
    """Return the text that may be trained on for a picture made from *prompt*; None where there is none.

    ``anchors_seen`` are the anchors that the detector found in the picture: under ``policy: anchor`` a concept's words
    become its anchor where that is in it and not named already, and are cut where it is not, so that the caption says
    only what is there. ``subject`` stands where a caption has lost its own; without one such a caption is None.
    """
    if policy is CaptionPolicy.keep:
        return prompt
    naming = _naming(tuple(concepts))
    text = without_syntax(prompt, naming)
    while found := naming.mentions(text):
        mention = min(found, key=lambda mention: naming.concepts.index(mention.concept))
        apart, named = set_apart(text, mention), mention.concept
        if apart != text:
            text = apart
            continue
        may_stand = policy is CaptionPolicy.anchor and named.anchor in anchors_seen and not named.everywhere
        if may_stand and not Naming.of_words([_anchor(named)]).names(text):
            text = _replaced(text, mention)
            continue
        cut = _cut(text, mention.start, mention.stop, mention.plural, subject)
        if cut is None:
            return None
        text = _tidied(cut)
    if text == prompt:
        return prompt
    text = " ".join(text.split())
    if not re.search(r"\w", text):
        return subject
    return text[0].upper() + text[1:] if prompt.lstrip()[0].isupper() else text


def cut_off(text: str) -> str:
    """Return *text*, whose rest is gone, without what waits for more at its end: "a cat and a" becomes "a cat"."""
    while True:
        left = re.sub(r"[\s,;:/|([{\"“‘&+–—-]+$", "", text)
        while grammar.ends_with_determiner(left):
            left = re.sub(r"\s*\S+$", "", left)
        edge = grammar.ends(left)
        if edge in (Edge.joint, Edge.place):
            left = grammar.without_last(left, edge)
        if left == text:
            return text
        text = left


def without(text: str, spans: Sequence[tuple[int, int]], subject: str | None) -> str | None:
    """Return *text* without the characters *spans* (ascending, apart), with what only hung on them, as ``caption``
    cuts an erased word: nothing where nothing else is in it, None where a subject is wanted and *subject* is None."""
    if not spans:
        return text
    mark = next(letter for code in range(0x9FA5, 0x4E00, -1) if (letter := chr(code)) not in text)  # a word of its own
    marked, at, plural = "", 0, list[bool]()
    for start, stop in spans:
        words = text[start:stop].strip()
        is_noun = _is_noun(words, text[:start].rstrip())
        marked += text[at:start] + (f" {mark} " if is_noun else " ")
        plural += [words.lower().endswith("s")] if is_noun else []
        at = stop
    left: str | None = _tidied(marked + text[at:])
    while left is not None and mark in left:
        if not re.search(r"\w", left.replace(mark, "")):
            return ""
        at = left.rindex(mark)
        left = _cut(left, at, at + 1, plural[left.count(mark) - 1], subject)
        left = None if left is None else _tidied(left)
    if left and text.lstrip()[0].isupper():
        return left[0].upper() + left[1:]
    return left


def _is_noun(words: str, left: str) -> bool:
    """Tell whether *words* behind *left* are a thing, and not what is said of one or joined to it, which takes nothing
    along: "a dog" stays where "wearing a hat" or "and a cat" goes."""
    edge = grammar.begins(words.lstrip("\"'“”‘’(["), False)
    if edge is Edge.verb:  # of what stands before it, or as "sleeping" of a cat
        return grammar.ends(left) is not Edge.noun or grammar.ends_with_determiner(left)
    return edge is Edge.noun


def _cut(text: str, begin: int, stop: int, plural: bool, subject: str | None) -> str | None:
    """Cut the noun phrase around characters ``begin:stop``, a noun, out of *text* and mend the place."""
    tail = re.match(r"['’ʼ`´′]s?(?!\w)", text[stop:]) or _STYLE.match(text[stop:])
    end = stop + (tail.end() if tail else 0)
    right = grammar.without_pronouns(text[end:].lstrip())
    start = _start_of_phrase(text, begin, stop)
    determiner = (text[start:begin].split() or [""])[0]
    after = grammar.begins(right, plural)
    if after is Edge.noun and not grammar.begins_with_determiner(right):
        verb, _, rest = right.partition(" ")
        if not grammar.is_third_person(verb, determiner, rest):  # of another noun: "a church tower" is a tower
            return _agreeing(text[:begin], right)
        right, after = rest, Edge.verb
    left = text[:start].rstrip()
    for pattern in (_GROUP, _PART):
        if found := pattern.search(left):
            left = grammar.dangling(left[: found.start()].rstrip())
    if expletive := re.search(rf"(?:^|(?<=[.;:!?,]))\s*(?:{grammar.EXPLETIVES})$", left, re.IGNORECASE):
        left = left[: expletive.start()].rstrip()
    if after is Edge.verb:
        rest = grammar.without_verbs(right, plural)
        shared = grammar.ends(left) is Edge.joint and not grammar.has_verb(left)  # "a dog and _ sleeping on a sofa"
        if not shared or grammar.begins(rest, False) is Edge.noun:
            right = grammar.without_relation(rest, of_verb=True) if grammar.ends(left) is Edge.end else rest
    right = grammar.without_position(right)
    if text[start : start + 1].isupper() and re.search(r"[.!?]$", left):
        right = right[:1].upper() + right[1:]
    return _joined(left, right, subject)


def _start_of_phrase(text: str, begin: int, stop: int) -> int:
    """Where the noun phrase of ``begin:stop`` begins: at its determiner, or at the first of the words that describe it.

    Words that begin with a preposition ("by Munch") are no noun phrase: what stands before them stays.
    """
    if re.match(rf"(?:{grammar.PREPOSITIONS})\s", text[begin:stop], re.IGNORECASE):
        return begin
    if pair := _PAIR.search(text[:begin]):
        return pair.start()
    start, end = begin, begin
    words = list(re.finditer(r"[\w'’-]+|[&+]", text[:begin]))
    for word in reversed(words[-FAR - 1 :]):
        if _BOUNDARY.search(text[word.end() : end]):
            return start
        before = text[: word.start()].rstrip()
        if re.fullmatch(grammar.DETERMINERS, word[0], re.IGNORECASE) and not grammar.ends_with_determiner(before):
            return word.start()
        if grammar.is_act(word[0]) and not grammar.ends_with_determiner(before):
            return start
        if grammar.ends(text[: word.end()]) not in (Edge.noun, Edge.verb):
            return start
        if grammar.ends(text[: word.end()]) is Edge.verb and not _describes(text, word):
            return start
        start = end = word.start()
    return start if len(words) <= FAR else begin


def _describes(text: str, word: re.Match[str]) -> bool:
    """Whether a verb form stands before its noun as an adjective does: "a sleeping cat", but not "is a cat"."""
    return word[0].lower().endswith(("ing", "ed"))


def _joined(left: str, right: str, subject: str | None) -> str | None:
    """Join what stood on both sides of a noun phrase, or None where a subject is wanted and there is none."""
    while True:
        before, after = grammar.ends(left), grammar.begins(right, False)
        if before is Edge.end:
            return _begun(left, right, subject)
        if before is Edge.noun and after is not Edge.noun and grammar.ends_with_determiner(left):  # "his and her cats"
            left = left.rpartition(" ")[0].rstrip()
            continue
        if before is Edge.noun or after is Edge.noun:
            return f"{left} {right}"
        if before is Edge.comma or (before is Edge.joint and after is not Edge.joint):
            left = grammar.without_last(left, before)
            if grammar.ends(left) is Edge.verb:  # of the clause before: it waits for nothing
                return f"{left} {right}"
        elif after is Edge.joint or (after is Edge.comma and grammar.starts_list(grammar.without_joint(right))):
            rest = grammar.without_joint(right)
            if before is Edge.joint or grammar.begins(rest, False) is Edge.noun:
                right = rest
            else:
                left = _shortened(left, before)
        else:
            left = _shortened(left, before)


def _shortened(left: str, before: Edge) -> str:
    """Cut the preposition or verb at the end of *left*, and the verb that waited for that preposition."""
    return grammar.dangling(left if before is Edge.verb else grammar.without_last(left, before))


def _begun(left: str, right: str, subject: str | None) -> str | None:
    """Begin a clause behind *left* with what is left of it."""
    after = grammar.begins(right, False)
    if after is Edge.joint or (after is Edge.comma and grammar.starts_list(grammar.without_joint(right))):
        return _begun(left, grammar.without_joint(right), subject)
    if after is Edge.verb:
        return _begun(left, grammar.without_verbs(right, False), subject)
    if after is Edge.place:
        right = grammar.without_relation(right)
        after = grammar.begins(right, False)
    if after is Edge.noun or (after is Edge.end and left):
        return f"{left} {right}"
    if subject is None:
        return None
    return f"{left} {subject} {right}"


def _anchor(concept: Concept) -> str:
    return re.sub(r"^(?:a|an|the)\s+", "", concept.anchor, flags=re.IGNORECASE)


def _replaced(text: str, mention: Mention) -> str:
    """Put the concept's anchor in the place of *mention*, in the same number, with the article that it needs."""
    anchor = _anchor(mention.concept)
    noun = plurals(anchor)[0] if mention.plural else anchor
    return _agreeing(text[: mention.start], noun + text[mention.stop :])


_naming = lru_cache(maxsize=64)(Naming)


def _agreeing(left: str, right: str) -> str:
    """Join *left* and *right*, with the article at the end of *left* as *right* needs it."""
    article = "an" if right[:1].lower() in tuple("aeiou") else "a"
    return re.sub(r"\b([aA])n?\s+$", lambda m: m[1] + article[1:] + " ", left) + right


def _tidied(text: str) -> str:
    """Mend spaces and punctuation, and drop sentences of which nothing is left."""
    text = _NOTHING_IN_IT.sub(" ", " ".join(text.split()))
    text = re.sub(r"\s+([,.;:!?)])", r"\1", text)
    text = re.sub(r"([.;:!?])(?:\s*[,.;:!?])+", r"\1", text)
    return re.sub(r"\s+", " ", text).strip(" ,;:-–—").lstrip(".!?) ")
