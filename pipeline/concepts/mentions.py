"""Does a text name a concept? Whole words, any case, simple plurals; no understanding.

What it cannot see: misspellings, other languages, and things implied but not said. Those are the detector's part.
"""

import re
from functools import lru_cache

from pipeline.concepts.concept import Concept
from pipeline.concepts.words import folded, forms, word_pattern


def mentions(prompt: str, concept: Concept) -> bool:
    """Tell whether *prompt* has the concept's name or an alias in it, in the singular or the plural."""
    return concept_pattern(concept).search(prompt) is not None


@lru_cache(maxsize=1024)
def concept_pattern(concept: Concept) -> re.Pattern[str]:
    """Return the pattern of any word of the concept (``word_pattern``)."""
    return word_pattern(concept.words)


def is_plural(text: str, concept: Concept) -> bool:
    """Tell whether *text*, found by ``concept_pattern``, is a plural of one of the concept's words."""
    singulars = {folded(word) for word in concept.words}
    return folded(text) not in singulars and any(folded(text) in forms(word) for word in concept.words)
