"""Which words a sweep draws, the ones that matter most first, so that a budget reaches those.

First what the list says, and words drawn at random, whose pictures tell what chance is; then what the dictionary has
for each concept, and what of a vocabulary comes nearest to one for the model's own text encoder; last, where all is
asked for, the rest of the vocabulary.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.concepts.concept import Concept
from pipeline.concepts.dictionary import dictionary
from pipeline.concepts.everyday import everyday
from pipeline.concepts.normal import normal
from pipeline.config.schema import Config
from pipeline.errors import ConfigError
from pipeline.evaluation.words.candidates import encoded, nearest, nearness
from pipeline.evaluation.words.vocabulary import read_vocabulary, words_of_prompts
from pipeline.models.family import Family
from pipeline.prompts import Plan, open_source
from pipeline.prompts.report import surveyed
from pipeline.prompts.seeds import hashed

CHANCE = 100  # words drawn at random
KINDS = 200  # of the dictionary, for each concept, the nearest kinds first


def vocabulary(config: Config) -> list[str]:
    """Return the words of ``words.vocabulary``. Raises ``ConfigError`` where there are none."""
    if config.words.vocabulary == "builtin":
        return list(everyday())
    if config.words.vocabulary == "prompts":
        plan = Plan.build(config, open_source(config.prompts))
        words = words_of_prompts(row.prompt for row in surveyed(plan))
        if not words:
            raise ConfigError("words.vocabulary: the prompts have no words of three letters or more; expected some")
        return words
    return read_vocabulary(Path(config.words.vocabulary))


def selected(concepts: Sequence[Concept], words: Sequence[str], family: Family, *, everything: bool) -> list[str]:
    """Return what of the vocabulary *words*, and beside it, is to be drawn for *concepts*; each word once."""
    by_chance = sorted(words, key=lambda word: hashed("chance", word))[:CHANCE]
    basis = encoded(family, words)
    listed = [encoded(family, concept.words) for concept in concepts]
    order = nearest(nearness(basis, listed, basis))
    chosen = [
        *(word for concept in concepts for word in (*concept.words, *concept.preserve)),
        *by_chance,
        *(word for concept in concepts for word in of_dictionary(concept)),
        *(words[i] for i in order),
        *(words if everything else ()),
    ]
    once: dict[str, str] = {}
    for word in chosen:
        once.setdefault(normal(word), word)
    return list(once.values())


def of_dictionary(concept: Concept) -> Iterator[str]:
    """Yield the synonyms and kinds of what the concept's name may mean, at most ``KINDS``."""
    book = dictionary()
    found: dict[str, None] = {}
    for sense in book.senses(concept.name):
        found |= dict.fromkeys((*sense.words, *book.kinds(sense)))
    yield from list(found)[:KINDS]
