"""`lacuna words`: what a config's list acts on, and what gate and dictionary know beside it. Draws nothing.

Of each concept its listed words and exceptions, and what pictures proved; which listed words a tokenizer of the model
reads in pieces, or not at all; what the recipe's gate makes of the words that come near, which it acts on though they
are something else (too near: siblings by the dictionary and what the list preserves, from ``OPENS`` on); and for each
sense of its name the kinds and synonyms that no concept lists, with the gloss by which a person tells one sense from
another, and siblings, which are something else. The model is loaded for its gate alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.concepts.concept import Concept
from pipeline.concepts.dictionary import Dictionary, dictionary
from pipeline.concepts.mentions import Naming
from pipeline.config.concepts import concepts_of
from pipeline.config.schema import Config
from pipeline.errors import ConfigError
from pipeline.models.find import find_model, is_here
from pipeline.terminal import wrapped
from pipeline.workshop.choices import IMPLIES, LEAVE, MEANS
from pipeline.workshop.gated import Scored, gates_of

SHOWN = 12  # words of a kind on a line
ABOUT, WITHIN = 11, 13  # columns of labels, of the report and of a concept


@dataclass(frozen=True, kw_only=True)
class SenseReport:
    """A sense of a concept's name. ``listed`` are the words of the list that are of it; ``kinds`` and ``synonyms`` are
    those that no concept lists, ``siblings`` other kinds of the same."""

    id: str
    gloss: str
    listed: list[str]
    synonyms: list[str]
    kinds: list[str]
    siblings: list[str]


@dataclass(frozen=True, kw_only=True)
class ConceptReport:
    """``pieces``: of each listed word that a tokenizer reads in several pieces or not at all, what it reads, by the
    tokenizer's name. ``gate``: what the recipe's gate makes of words that no concept lists, the highest score first;
    None where no gate has the concept. ``too_near`` are those of them that are something else, and on which it acts all
    the same. The senses are in the dictionary's order, but that of the most listed words comes first."""

    name: str
    words: list[str]
    anchor: str
    preserve: list[str]
    keep: list[str]
    proven: list[str]
    implied: list[str]
    ignore: list[str]
    pieces: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    gate: list[Scored] | None = None
    too_near: list[str] = field(default_factory=list)
    senses: list[SenseReport] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class WordsReport:
    """What ``lacuna words`` prints. ``tokenizers`` are those of the model that were asked, ``unasked`` says why none
    was; ``gate`` which scores mean what, or why no gate was asked."""

    concepts: list[ConceptReport]
    tokenizers: list[str]
    unasked: str
    gate: str

    def json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the report, a line each, plain text."""
        asked = f"tokenizers {', '.join(self.tokenizers)}" if self.tokenizers else f"tokenizers {self.unasked}"
        lines = [f"concepts   {len(self.concepts)}", asked, f"gate       {self.gate}"]
        gated = any(concept.gate is not None for concept in self.concepts)
        for concept in self.concepts:
            lines += ["", f"{concept.name}", f"  words      {', '.join(concept.words)}"]
            lines += [f"  anchor     {concept.anchor or 'nothing'}"]
            for part in ("keep", "preserve", "proven", "implied", "ignore"):
                if words := getattr(concept, part):
                    lines += [f"  {part:<9}  {', '.join(words)}"]
            for tokenizer, pieces in concept.pieces.items():
                read = ", ".join(f"{word} ({' '.join(parts) or 'nothing'})" for word, parts in pieces.items())
                lines += [f"  in pieces  {read}, by {tokenizer}"]
            if gated and concept.gate is None:
                lines += ["  no gate of the recipe has this concept"]
            for became in (MEANS, IMPLIES, LEAVE):
                if of := [_scored(own) for own in concept.gate or () if own.became == became]:
                    lines += [f"  {became:<9}  {_some(of)}"]
            if concept.too_near:
                lines += [
                    f"  too near   {_some(concept.too_near)}: something else, and the gate acts; ignore leaves them"
                ]
            if not concept.senses:
                lines += ["  dictionary has no such word"]
            for sense in concept.senses:
                lines += [f"  {sense.id}  {sense.gloss}"]
                for what in ("listed", "synonyms", "kinds", "siblings"):
                    if words := getattr(sense, what):
                        lines += [f"    {what:<9}{_some(words)}"]
        return lines

    def text(self, width: int) -> str:
        """Return ``lines``, none of them longer than *width* columns, but for one word."""
        return "\n".join(wrapped(line, width, WITHIN if line.startswith(" ") else ABOUT) for line in self.lines())


def words_report(config: Config) -> WordsReport:
    """Look over the list of *config*, which has its proved words as a run would. Raises ``ConfigError`` for a model
    that is here and cannot be read."""
    concepts = concepts_of(config.erasure)
    naming = Naming(concepts)
    here = is_here(config.model)
    away = f"not asked, as {config.model.path} is no folder on this machine"
    tokenizers = _tokenizers(config) if here else {}
    gates = gates_of(config) if here else None
    gated = gates.look() if gates else {}
    return WordsReport(
        concepts=[
            ConceptReport(
                name=concept.name,
                words=list(concept.words),
                anchor=concept.anchor,
                preserve=list(concept.preserve),
                keep=list(concept.keep),
                proven=list(concept.proven),
                implied=list(concept.implied),
                ignore=list(concept.ignore),
                pieces=_in_pieces(concept.words, tokenizers),
                gate=gated.get(concept.name),
                too_near=[own.word for own in gated.get(concept.name, []) if own.too_near],
                senses=_senses(concept, naming, dictionary()),
            )
            for concept in concepts
        ],
        tokenizers=list(tokenizers),
        unasked="" if tokenizers else away,
        gate=(gates.rule if gates else "no method of the recipe has one") if here else away,
    )


def _senses(concept: Concept, naming: Naming, known: Dictionary) -> list[SenseReport]:
    found = []
    for sense in known.senses(concept.name):
        kinds = known.kinds(sense)
        found.append(
            SenseReport(
                id=sense.id,
                gloss=sense.gloss,
                listed=_listed(concept, [*sense.words, *kinds]),
                synonyms=_unlisted(sense.words, naming),
                kinds=_unlisted(kinds, naming),
                siblings=_unlisted(known.siblings(sense), naming),
            )
        )
    return sorted(found, key=lambda sense: -len(sense.listed))


def _listed(concept: Concept, words: Sequence[str]) -> list[str]:
    """Return the aliases of *concept* that are among *words*, in any writing."""
    among = Naming.of_words(list(words))
    return [alias for alias in concept.aliases if among.is_word(alias)]


def _unlisted(words: Iterable[str], naming: Naming) -> list[str]:
    """Return those of *words* in which nothing is named: "water pistol" is found by its pistol already."""
    return [word for word in words if not naming.names(word)]


def _in_pieces(words: Sequence[str], tokenizers: dict[str, Any]) -> dict[str, dict[str, list[str]]]:
    """Return, by tokenizer, the words of which a blank-separated part is read in several pieces, or in none."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, tokenizer in tokenizers.items():
        read = {word: tokenizer.tokenize(word) for word in words}
        broken = {word: parts for word, parts in read.items() if len(parts) != len(word.split())}
        if broken:
            found[name] = {word: [part.replace("</w>", "_") for part in parts] for word, parts in broken.items()}
    return found


def _tokenizers(config: Config) -> dict[str, Any]:
    """Return the model's tokenizers by their names in its index."""
    from transformers import AutoTokenizer

    found = find_model(config.model)
    names = [part for part in found.parts() if part.startswith("tokenizer")]
    tokenizers = {}
    for name in names:
        try:
            tokenizers[name] = AutoTokenizer.from_pretrained(Path(found.location) / name)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"model.path: {config.model.path}: its {name} cannot be read: {reason[:200]}") from error
    return tokenizers


def _scored(own: Scored) -> str:
    return f"{own.word} {own.told}{f' (of {own.instead})' if own.instead else ''}"


def _some(words: Sequence[str]) -> str:
    more = len(words) - SHOWN
    return ", ".join(words[:SHOWN]) + (f" and {more:,} more (--json has all)" if more > 0 else "")
