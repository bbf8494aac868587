"""From what a person chose on the page of words to an erasure list."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.config.concepts import check_concepts
from pipeline.config.schema import ConceptConfig
from pipeline.errors import ConfigError, nearest

MEANS, IMPLIES, LEAVE = CHOICES = ("means", "implies", "leave")
PARTS = {MEANS: "aliases", IMPLIES: "implied", LEAVE: "ignore"}


def chosen(concepts: Sequence[ConceptConfig], shown: Mapping[str, Sequence[str]], choices: Any) -> list[ConceptConfig]:
    """Return *concepts* with every word where a person put it: among the aliases, the implied or the ignored words.

    *choices* is what the page sends, a list of mappings with concept, word and choice; *shown* are the words of each
    concept that it lets one move. Whatever of these has no choice is no longer listed; what is confirmed is an alias,
    and proven no more. Raises ``ConfigError`` for what is no such list, and where the concepts contradict themselves.
    """
    moved: dict[str, dict[str, list[str]]] = {name: {part: [] for part in PARTS.values()} for name in shown}
    if not isinstance(choices, list):
        raise ConfigError("choices: expected a list")
    for i, choice in enumerate(choices):
        told: list[Any] = (
            [choice.get(key) for key in ("concept", "word", "choice")] if isinstance(choice, dict) else [None]
        )
        if not all(isinstance(text, str) for text in told):
            raise ConfigError(f"choices[{i}]: expected concept, word and choice, each a text")
        concept, word, where = told
        part = PARTS.get(where)
        if concept not in shown:
            raise ConfigError(f"choices[{i}]: unknown concept {concept!r}{nearest(concept, shown)}")
        if word not in shown[concept]:
            raise ConfigError(f"choices[{i}]: {word!r} is no word of {concept!r} on this page")
        if part is None:
            raise ConfigError(f"choices[{i}]: unknown choice {where!r}; expected one of {', '.join(CHOICES)}")
        moved[concept][part].append(word)
    listed = []
    for concept in concepts:
        aliases, implied, ignore = (moved[concept.name][part] for part in PARTS.values())
        listed.append(replace(concept, aliases=aliases, proven=[], implied=implied, ignore=ignore))
    check_concepts(listed)
    return listed
