"""``lacuna words --prove``: what does each word draw? The unerased model draws it, the detector looks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pipeline.config.concepts import concepts_of
from pipeline.config.schema import Config
from pipeline.errors import ConfigError
from pipeline.evaluation.words.budget import Budget
from pipeline.evaluation.words.cache import WordCache
from pipeline.evaluation.words.selection import selected, vocabulary
from pipeline.evaluation.words.settle import extended
from pipeline.evaluation.words.verdict import RULES, Judged, Table, Verdict
from pipeline.models.load import load_model
from pipeline.session import resolve_device
from pipeline.terminal import wrapped
from pipeline.workshop.drawing import Drawing
from pipeline.workshop.lists import list_yaml

SHOWN = 40  # words a line
WITHIN = 10  # columns of the labels of a concept


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What became of *words* for each of *concepts*; *unreached* words lie beyond the budget, and
    *undecided* ones would have been drawn on within a larger one. No detector looks for the concepts *unjudged*, and
    nothing is drawn for them.

    *exit_code* is that of the last run; where it is not 0, *table* is of what was drawn so far.
    """

    words: tuple[str, ...]
    concepts: tuple[str, ...]
    table: Table
    unreached: tuple[str, ...]
    undecided: tuple[str, ...]
    exit_code: int
    unjudged: tuple[str, ...] = ()

    def text(self, width: int) -> str:
        """Return what is found, a paragraph a concept, no line of it longer than *width* columns, but for one word."""
        return "\n".join(wrapped(line, width, WITHIN if line.startswith(" ") else 2) for line in self._lines())

    def _lines(self) -> list[str]:
        verdicts = self.table.judge()
        lines = []
        for c, concept in enumerate(self.concepts):
            rate = self.table.rates[c]
            if concept in self.unjudged:
                lines.append(
                    f"{concept}: no detector looks for it, so it is not drawn: list, dictionary and score decide"
                )
                continue
            if not self.table.pictures[self.words.index(concept), c]:
                lines.append(f"{concept}: of its own name nothing is drawn yet")
                continue
            lines.append(f"{concept}: shows in {100 * rate:.0f} % of the pictures of its own name")
            if not self.table.provable[c]:
                lines.append("  not provable with this model and detector: list, dictionary and score decide")
                continue
            of_words = [(word, row[c]) for word, row in zip(self.words, verdicts, strict=True) if word != concept]
            for verdict in (Verdict.means, Verdict.implies):
                found = [(word, judged) for word, judged in of_words if judged.verdict is verdict]
                lines.append(f"  {verdict:8}{_listed(found)}")
        drawn = int(self.table.pictures[:, 0].sum())
        lines += [
            f"{drawn:,} pictures of {int((self.table.pictures[:, 0] > 0).sum()):,} words. {RULES}",
        ]
        if self.unreached:
            lines.append(f"beyond the budget: {len(self.unreached):,} words, {_some(self.unreached)}")
        if self.undecided:
            lines.append(f"undecided within the budget: {len(self.undecided):,} words, {_some(self.undecided)}")
        return lines

    def record(self) -> dict[str, Any]:
        """Return what is found as plain containers: for each concept and word its counts, bounds and verdict."""
        verdicts = self.table.judge()
        return {
            "concepts": {
                concept: {
                    "rate": float(self.table.rates[c]),
                    "provable": bool(self.table.provable[c]),
                    "words": {
                        word: {**vars(row[c]), "verdict": row[c].verdict.value}
                        for word, row in zip(self.words, verdicts, strict=True)
                        if row[c].hits
                    },
                }
                for c, concept in enumerate(self.concepts)
                if concept not in self.unjudged
            },
            "unjudged": list(self.unjudged),
            "words": len(self.words),
            "pictures": int(self.table.pictures[:, 0].sum()),
            "unreached": list(self.unreached),
            "undecided": list(self.undecided),
        }


def prove(
    config: Config, *, everything: bool, budget: Budget | None, price: float | None, say: Callable[[str], None]
) -> Proof:
    """Draw what may mean or imply a concept of *config*, or with *everything* its whole vocabulary, and judge it.

    *config* is settled; *price* is of one worker per hour. Raises ``ConfigError`` where nothing is listed or nothing
    looks.
    """
    _check(config)
    cache = WordCache(config)
    concepts = [concept for concept in concepts_of(config.erasure) if concept.name in cache.judged_names]
    if not concepts:
        raise ConfigError("audit.detectors: judge no concept of the list, and words are proved by what they see")
    model = load_model(config.model, torch.device(resolve_device(config.cluster.device)))
    words = selected(concepts, vocabulary(config), model.family, everything=everything)
    del model
    return draw(cache, words, budget, price, say)


def draw(
    cache: WordCache, words: Sequence[str], budget: Budget | None, price: float | None, say: Callable[[str], None]
) -> Proof:
    """Draw *words*, the ones that matter most first, and the names of the concepts that *cache* has judged, and judge
    them."""
    concepts = [concept.name for concept in cache.concepts]
    drawing = Drawing(cache, words, budget, price, say)
    exit_code = drawing.rounds()
    short = budget is not None and not exit_code
    return Proof(
        words=tuple(words),
        concepts=tuple(concepts),
        table=drawing.table(),
        unreached=tuple(drawing.unreached() if short else ()),
        undecided=tuple(drawing.undecided() if short else ()),
        exit_code=exit_code,
        unjudged=cache.auditor.unjudged,
    )


def _check(config: Config) -> None:
    """Raise ``ConfigError`` where nothing is listed or nothing looks."""
    if not config.erasure.concepts:
        raise ConfigError("erasure.concepts: is empty; expected the concepts whose words are to be found")
    if not config.audit.detectors:
        raise ConfigError("audit.detectors: is empty, and words are proved by what a detector sees; expected one")


def as_list(config: Config, proof: Proof) -> str:
    """Return the concepts of *config*, with what *proof* found, as an erasure list: YAML for ``erasure.lists``.

    Words that mean a concept are among its aliases, so that who has looked the list through has confirmed them.
    """
    found = extended(config, proof.words, proof.table)
    return list_yaml([replace(c, aliases=[*c.aliases, *c.proven], proven=[]) for c in found])


def _listed(found: Sequence[tuple[str, Judged]]) -> str:
    best = sorted(found, key=lambda item: (-item[1].low, item[0]))
    return _some([f"{word} {judged.hits}/{judged.pictures}" for word, judged in best])


def _some(words: Sequence[str]) -> str:
    more = len(words) - SHOWN
    return (", ".join(words[:SHOWN]) or "none") + (f" and {more:,} more" if more > 0 else "")
