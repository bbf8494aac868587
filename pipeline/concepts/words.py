"""The forms of a listed word: itself and its regular English plurals."""

from pipeline.concepts.normal import normal


def forms(word: str) -> set[str]:
    """Return the normal forms (``normal``) in which *word* is found in a text: itself and its plurals."""
    return {normal(form) for form in (word, *plurals(word))}


def plurals(word: str) -> tuple[str, ...]:
    """Return the regular English plurals that *word* may have ("knife": knifes, knives).

    What ends in a sign, or in a letter of a script without capitals, is its own plural.
    """
    lower = word.lower()
    if not lower[-1:].isdigit() and lower[-1:] == word[-1:].upper():
        return (word,)
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
