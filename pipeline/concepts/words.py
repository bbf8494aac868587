"""Words in texts: whole words, any case, simple plurals. Knows nothing of concepts, so that a config can be checked by
the same rules as prompts are."""

import re
from collections.abc import Iterable


def word_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Return the pattern of any of *words* or its plurals; blanks and hyphens inside a phrase are the same.

    "cat" is found in "Cats", "cat's" and "cat-like", not in "category".
    """
    forms = {form for word in words for form in (word, *plurals(word))}
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(_flexible, longest_first))})(?!\w)", re.IGNORECASE)


def folded(text: str) -> str:
    """Return *text* as it counts where words are compared: in lower case, blanks and hyphens all one blank."""
    return re.sub(r"[\s_-]+", " ", text).casefold().strip()


def forms(word: str) -> set[str]:
    """Return the folded forms in which ``word_pattern`` finds *word*: itself and its plurals."""
    return {folded(form) for form in (word, *plurals(word))}


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
