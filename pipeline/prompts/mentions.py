"""Does a text name a concept? Whole words, any case, simple plurals; no understanding.

What it cannot see: misspellings, other languages, and things implied but not said. Those are the detector's part.
"""

import re
from functools import lru_cache

from pipeline.erasure.concept import Concept


def mentions(prompt: str, concept: Concept) -> bool:
    """Tell whether *prompt* has the concept's name or an alias in it, in the singular or the plural."""
    return concept_pattern(concept).search(prompt) is not None


@lru_cache(maxsize=1024)
def concept_pattern(concept: Concept) -> re.Pattern[str]:
    """Return the pattern of any word of the concept; blanks and hyphens inside a phrase are the same.

    "cat" is found in "Cats", "cat's" and "cat-like", not in "category".
    """
    forms = {form for word in concept.words for form in (word, *plurals(word))}
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(_flexible, longest_first))})(?!\w)", re.IGNORECASE)


def is_plural(text: str, concept: Concept) -> bool:
    """Tell whether *text*, found by ``concept_pattern``, is a plural of one of the concept's words."""
    folded = _folded(text)
    words = {_folded(word) for word in concept.words}
    return folded not in words and any(folded == _folded(form) for word in concept.words for form in plurals(word))


def plurals(word: str) -> tuple[str, ...]:
    """Return the regular English plurals that *word* may have ("knife": knifes, knives)."""
    lower = word.lower()
    if lower.endswith(("s", "x", "z", "ch", "sh")):
        return (word + "es",)
    if lower.endswith("y") and len(word) > 1 and lower[-2] not in "aeiou":
        return (word[:-1] + "ies", word + "s")
    if lower.endswith("fe"):
        return (word + "s", word[:-2] + "ves")
    if lower.endswith("f"):
        return (word + "s", word[:-1] + "ves")
    if lower.endswith("o"):
        return (word + "s", word + "es")
    if lower.endswith("man"):
        return (word + "s", word[:-3] + "men")
    return (word + "s",)


def _flexible(form: str) -> str:
    return r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", form)))


def _folded(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text).casefold().strip()
