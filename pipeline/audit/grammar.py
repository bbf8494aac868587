"""English as prompts are written, by word lists: enough to take a noun phrase out of a text and mend the place.

Not a parser. What begins or ends a piece of text is told by a few closed classes (determiners, prepositions,
conjunctions, the verbs that captions use) and by the endings -ing and -ed; all else counts as part of a noun phrase.
"""

import re
from enum import StrEnum

DETERMINERS = (
    "a|an|the|some|any|no|one|two|three|four|five|six|seven|eight|nine|ten|several|many|few|both|various|multiple|"
    "his|her|their|my|your|our|its|this|that|these|those|another|each|every"
)
# With what was cut, such a relation is gone too, but not what it related to: "next to a house" leaves "a house".
RELATIONS = (
    "to the left of|to the right of|on the left of|on the right of|in front of|on top of|next to|close to|left of|"
    "right of|out of|away from|featuring|showing|beside|besides|between|behind|beneath|underneath|against|across|"
    "around|towards?|throughout|through|thru|along|above|below|under|over|near|with|from|into|onto|like|to|as|up|down|"
    "off|past|upon|atop|beyond|opposite|aboard|about|and its"
)
SCENES = (  # longest first, here and above: "in the style of" must be seen before "in"
    "in the style of|in the manner of|in the shape of|at the top of|at the edge of|in the middle of|without|within|"
    "inside|outside|during|before|after|among|amidst|by|of|in|on|at|for|"
    "outdoors|indoors|upside down|underwater|overhead|nearby|alone|asleep|together|here"
)
PREPOSITIONS = f"{RELATIONS}|{SCENES}"
CONJUNCTIONS = r"and|or|but|plus|&|\+|while|when|where|because|until|if"
EXPLETIVES = r"(?:there|here|this|these|that|it)\s+(?:is|are|was|were)|it['’]s|there['’]s|(?:i|we|you)\s+(?:can\s+)?see"
GROUPS = (
    r"(?:group|pair|bunch|couple|herd|flock|litter|lots?|piles?|rows?|variety|kind|type|sort|breed|piece|set|number|"
    r"series|crowd|pack|family|trio|dozens?|hundreds|thousands|all|most|some|one|many) of"
)
PARTS = "back|side|sides|edge|front|end|bottom|corner|inside|rest|tops?|cent(?:er|re)|middle|shadow|presence|base"
OF_IT = rf"(?:{PREPOSITIONS}) (?:it|them|him|itself|themselves|each other|her(?=\s*(?:$|[,.;:!?)])))(?!\w)"
# "a black and white cat" is one animal, "a dog and white cat" are two.
PAIRED = (
    "black|white|red|blue|green|yellow|orange|brown|gr[ae]y|pink|purple|silver|gold|tan|old|new|big|small|large|little|"
    "cute|tall|short|long|dark|light|young|bright|round|square|happy|sad|wild|fat|thin"
)
# A place in the frame says nothing without the thing that was there.
_POSITION = (
    r"(?:(?:on|to|at|in) (?:the |its )?(?:far )?"
    r"(?:left|right|top|bottom|front|side|foreground|background|middle|cent(?:er|re))(?: side)?(?: of (?:it|them))?)"
    r"(?! of\b)\b"
)
_AUXILIARIES = "that|which|who|is|are|was|were|be|being|been|has|have|had|can|will|would|not|just|still|also|both"
_ACTS = (  # stems that take an object
    "hold|rid|pet|pett|wear|carr|carry|carri|eat|chas|feed|hug|hugg|watch|walk|driv|play|us|pull|kiss|catch|throw|hit|"
    "hitt|cut|cutt|mak|tak|read|drink|lead|herd|touch|fac|follow|se|show|contain|depict|kick|swing|pick|push|cook|"
    "prepar|bit|lick|sniff|clean|wash|brush|photograph|hunt|fight|attack|guard|own|want|lov|hav|includ|surround|"
    "overlook|resembl|reveal|display|pass|swallow|open|fly|admir|visit|enter|leav|build|examin|inspect|serv|slic|giv|say|shar|load|rais|turn"
)
_STATES = (  # stems of what pictured things do
    "sit|sitt|stand|li|ly|lay|sleep|look|run|runn|jump|star|fl|swim|swimm|peer|peek|hid|rest|relax|pos|smil|crouch|"
    "stretch|yawn|float|hang|hover|glid|drift|ris|tower|dominat|grow|appear|seem|go|com|work|land|fall|descend|soar|"
    "liv|danc|climb|perch|wait|point|park|rac|burn|shin|lean|gaz|glow|curl|sing|talk|wav|emerg|deploy"
)
_NOUNS_IN_ING = (
    "painting|drawing|building|ring|king|wing|string|ceiling|evening|morning|wedding|clothing|lighting|spring|thing|"
    "sibling|pudding|railing|earring|duckling|engraving|etching|stocking|sling|rendering|everything|something|nothing|"
    "anything|being"
)
_NOUNS_IN_ED = "bed|red|shed|seed|weed|sled|breed|feed|steed|reed|creed|hundred|bobsled|bloodshed"
_IRREGULAR = (
    "made|seen|lying|worn|held|shown|stuck|lost|driven|flown|built|drawn|taken|eaten|lit|overgrown|grown|thrown|blown|"
    "broken|woven|hidden|written|frozen|bent|left|sat|stood|ran|slept|swam|flew|hung|ate|drank|wore|rode|drove|drew|"
    "gave|took|came|went|fell|crept|leapt|caught|fought"
)
_COPULAS = ("is", "are", "was", "were", "looks", "look", "seems", "seem", "appears")
_PREPOSITION = re.compile(rf"(?:{PREPOSITIONS})\b(?!-)", re.IGNORECASE)
_RELATION = re.compile(rf"(?:{RELATIONS})\b\s*", re.IGNORECASE)
_CONJUNCTION = re.compile(rf",?\s*(?:{CONJUNCTIONS})(?!\w)\s*", re.IGNORECASE)
_DETERMINER = re.compile(rf"(?:{DETERMINERS})\b", re.IGNORECASE)
_WORD = re.compile(r"[\w'’-]+")


class Edge(StrEnum):
    """What a piece of text begins or ends with."""

    end = "end"  # nothing, or the end of a clause
    comma = "comma"
    joint = "joint"  # a conjunction
    place = "place"  # a preposition
    verb = "verb"
    noun = "noun"  # a determiner, or any other word


def begins(text: str, plural: bool) -> Edge:
    """Tell what *text*, stripped, begins with; *plural* where it follows a plural, whose verbs have no -s."""
    if not text or text[0] in ".;:!?)]" or re.match(r"--\w", text):  # "--ar 16:9", to a drawing bot
        return Edge.end
    if _CONJUNCTION.match(text):
        return Edge.joint
    if text[0] in ",/|" or re.match(r"[-–—]+\s", text):
        return Edge.comma
    word = _WORD.match(text)
    if word is None or _PREPOSITION.match(text):
        return Edge.place
    return Edge.verb if is_verb(word[0], plural) or _auxiliary(word[0]) else Edge.noun


def ends(text: str) -> Edge:
    """Tell what *text*, stripped, ends with."""
    if not text or text[-1] in ".;:!?([" or re.search(r"(?:^|\s)[-–—]+$", text):
        return Edge.end
    if text[-1] in ",/|":
        return Edge.comma
    if re.search(rf"(?:^|[\s,])(?:{CONJUNCTIONS})$", text, re.IGNORECASE):
        return Edge.joint
    if re.search(rf"(?<![\w'’-])(?<!\bclose )(?:{PREPOSITIONS})$", text, re.IGNORECASE):  # "a close up"
        return Edge.place
    return Edge.verb if dangling(text) != text else Edge.noun


def is_verb(word: str, plural: bool) -> bool:
    """Tell whether *word* says what the noun before it does."""
    lower = word.lower()
    if lower.endswith("ing"):
        return not re.fullmatch(_NOUNS_IN_ING, lower)
    if lower.endswith("ed"):
        return not re.fullmatch(_NOUNS_IN_ED, lower)
    stems = f"{_ACTS}|{_STATES}"
    if plural and re.fullmatch(rf"(?:{stems})(?:e|y)?", lower):
        return True
    return re.fullmatch(rf"(?:{stems})(?:s|es|ies)|{_IRREGULAR}", lower) is not None


def is_act(word: str) -> bool:
    """Tell whether *word* is a verb that takes what follows as its object, also without a determiner ("man riding")."""
    lower = word.lower()
    return re.fullmatch(rf"(?!(?:{_NOUNS_IN_ING})$)(?:{_ACTS})(?:ing|s|es|ies)", lower) is not None


def dangling(text: str) -> str:
    """Cut from the end of *text* the verb, with its pronoun and auxiliaries, that has lost its object or predicate."""
    auxiliaries = rf"(?:\b(?:{_AUXILIARIES})\s+)*"
    verb = re.search(rf"(?:^|(?<=[\s,]))\s*{auxiliaries}([\w'’-]+)$", text, re.IGNORECASE)
    if verb and (is_act(verb[1]) or _auxiliary(verb[1]) or (is_verb(verb[1], False) and _open(verb[1]))):
        return text[: verb.start()].rstrip()
    return text


def _open(word: str) -> bool:
    """Whether a verb form at the end of a text waits for more: "painted (by)", "looking (at)", "looks (like)"."""
    return word.lower().endswith(("ing", "ed")) or word.lower() in ("looks", "seems", "appears", "made", "drawn")


def _auxiliary(word: str) -> bool:
    return re.fullmatch(_AUXILIARIES, word, re.IGNORECASE) is not None and word.lower() != "both"


def without_verbs(text: str, plural: bool) -> str:
    """Cut from the beginning of *text* what a subject that is gone did or was, up to the thing or place behind it."""
    copula = False
    while word := _WORD.match(text):
        lower = word[0].lower()
        if not (_auxiliary(word[0]) or is_verb(word[0], plural) or lower.endswith("ly")):
            break
        copula = lower in _COPULAS or (copula and not lower.endswith("ing"))
        text, plural = text[word.end() :].lstrip(), False
    if copula and not _DETERMINER.match(text):  # "is black and white on a sofa"
        while (word := _WORD.match(text)) and not _PREPOSITION.match(text):
            text = text[word.end() :].lstrip()
            if _DETERMINER.match(text):
                break
            text = _CONJUNCTION.sub("", text, count=1) if re.match(r"(?:and|or|but)\b", text) else text
    return re.sub(
        rf"^(?:out|up|down|around|back|away|off|over|high)\s+(?=(?:{PREPOSITIONS})\b)(?!of\b|\w+ of\b)",
        "",
        text,
        flags=re.I,
    )


def without_pronouns(text: str) -> str:
    """Cut from the first sentence of *text* what pointed back at what is gone: "on it"."""
    first, stop, rest = re.match(r"(.*?)([.!?](?=\s|$)|$)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    return re.sub(
        rf"(?<![\w'’-]){OF_IT}(?=\s*(?:$|[,.;:!?)]|(?:{PREPOSITIONS}|{CONJUNCTIONS})\b))", "", first, flags=re.I
    ) + (stop + rest)


def is_third_person(word: str, determiner: str, rest: str) -> bool:
    """Tell whether *word*, which no list knows, is a verb: "a dog gives", "the dog gives an", not "the dog ears"."""
    singular = determiner.lower() in ("a", "an", "one", "another", "each", "every", "this", "that")
    ending = re.fullmatch(r"[a-z]+[^sui]s", word) is not None
    return ending and (singular or _DETERMINER.match(rest) is not None)


def begins_with_determiner(text: str) -> bool:
    return _DETERMINER.match(text) is not None


def ends_with_determiner(text: str) -> bool:
    return re.search(rf"(?<![\w'’-])(?:{DETERMINERS})$", text, re.IGNORECASE) is not None


def without_position(text: str) -> str:
    """Cut a place in the frame ("on the left") from the beginning of *text*, with the joint behind it."""
    position = re.match(rf"{_POSITION}\s*", text, re.IGNORECASE)
    if position is None:
        return text
    rest = text[position.end() :]
    joint = _CONJUNCTION.match(rest) or re.match(r",\s*(?!$)", rest)
    return rest[joint.end() :] if joint else rest


def without_relation(text: str, of_verb: bool = False) -> str:
    """Cut a preposition that related what is gone, or what it did (*of_verb*: "looking at"), to what follows from the
    beginning of *text*."""
    relation = _RELATION.match(text) or (re.match(r"(?:by|at|of|for)\s+", text) if of_verb else None)
    rest = text[relation.end() :] if relation else text
    return rest if relation and begins(rest, False) is Edge.noun and not re.match(r"no\b", rest) else text


def without_joint(text: str) -> str:
    """Cut a conjunction or comma from the beginning of *text*."""
    joint = _CONJUNCTION.match(text) or re.match(r"(?:[,/|]|[-–—]+)\s*", text)
    return text[joint.end() :] if joint else text


def without_last(text: str, what: Edge) -> str:
    """Cut a comma, conjunction or preposition, as *what* says, from the end of *text*."""
    words = {Edge.joint: rf"(?:^|[\s,]+)(?:{CONJUNCTIONS})", Edge.place: rf"\s*(?<![\w'’-])(?:{PREPOSITIONS})"}
    return re.sub(rf"(?:{words.get(what, r'[,/|]')})$", "", text, flags=re.IGNORECASE).rstrip()


def starts_list(text: str) -> bool:
    """Tell whether *text* is a thing with its determiner, or things joined by a conjunction: no mere attribute."""
    items = r"[\w-]+(?: [\w-]+)?"
    listed = re.match(rf"{items}(?:, {items})*,? (?:and|or) \w", text, re.IGNORECASE)
    return _DETERMINER.match(text) is not None or listed is not None


def has_verb(text: str) -> bool:
    """Tell whether the last clause of *text* has a verb of its own."""
    clause = re.split(r"[.;:!?(]|\s[-–—]+\s", text)[-1]
    return any(_auxiliary(word) or is_verb(word, False) for word in _WORD.findall(clause))
