"""``lacuna words --prove``: what does each word draw? The unerased model draws it, the detector looks.

In rounds, each a corpus that a run generates: first a few pictures of every word, then twice as many in all of those
words that are still open, up to eight times as many. Whatever is killed, the same command goes on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from pipeline.config.concepts import concepts_of
from pipeline.config.schema import Config
from pipeline.errors import ConfigError
from pipeline.evaluation.words.cache import WordCache
from pipeline.evaluation.words.questions import Question
from pipeline.evaluation.words.selection import selected, vocabulary
from pipeline.evaluation.words.settle import extended
from pipeline.evaluation.words.verdict import DISCOVERY, Judged, Table, Verdict, looks
from pipeline.models.load import load_model
from pipeline.prompts import Plan, open_source
from pipeline.run import run
from pipeline.session import resolve_device
from pipeline.workshop.preview import measure

SHOWN = 40  # words a line


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What became of *words* for each of *concepts*; *unreached* words lie beyond the budget.

    *exit_code* is that of the last run; where it is not 0, *table* is of what was drawn so far.
    """

    words: tuple[str, ...]
    concepts: tuple[str, ...]
    table: Table
    unreached: tuple[str, ...]
    exit_code: int

    def text(self) -> str:
        """Return what is found, a paragraph a concept."""
        verdicts = self.table.judge()
        lines = []
        for c, concept in enumerate(self.concepts):
            rate = self.table.rates[c]
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
            f"{drawn:,} pictures of {int((self.table.pictures[:, 0] > 0).sum()):,} words. A word means a concept where "
            "its pictures show it at least half as often as those of the concept's name (lower 95 % bound); it implies "
            f"it where they do more often than others' (false discoveries: {100 * DISCOVERY:.0f} %)",
        ]
        if self.unreached:
            lines.append(f"beyond the budget: {len(self.unreached):,} words, {_some(self.unreached)}")
        return "\n".join(lines)

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
            },
            "words": len(self.words),
            "pictures": int(self.table.pictures[:, 0].sum()),
            "unreached": list(self.unreached),
        }


def prove(config: Config, *, everything: bool, budget: int | None, say: Callable[[str], None]) -> Proof:
    """Draw what may mean or imply a concept of *config*, or with *everything* its whole vocabulary, and judge it.

    *config* is settled; *budget* is in pictures. Raises ``ConfigError`` where nothing is listed or nothing looks.
    """
    _check(config)
    concepts = concepts_of(config.erasure)
    model = load_model(config.model, torch.device(resolve_device(config.cluster.device)))
    words = selected(concepts, vocabulary(config), model.family, everything=everything)
    del model
    names = [concept.name for concept in concepts]
    return _drawn(config, WordCache(config, config.words.cache), names, words, budget, say)


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
    concepts = []
    for concept in extended(config, proof.words, proof.table):
        fields = {key: value for key, value in vars(concept).items() if value and key != "proven"}
        concepts.append({**fields, "aliases": [*concept.aliases, *concept.proven]})
    return yaml.safe_dump({"concepts": concepts}, sort_keys=False, allow_unicode=True, width=120)


def _drawn(
    config: Config,
    cache: WordCache,
    concepts: Sequence[str],
    words: Sequence[str],
    budget: int | None,
    say: Callable[[str], None],
) -> Proof:
    rounds = looks(config.words.pictures)
    tally, exit_code, told = cache.tally(concepts), 0, False
    left, still_open = budget, list(words)
    for look in rounds:
        asked = [Question(name, number) for name in concepts for number in range(rounds[-1])]
        asked += [Question(word, number) for word in still_open for number in range(look)]
        missing = tally.missing(asked)
        if left is not None:
            missing = _within(missing, words, left)
            left -= len(missing)
        if missing:
            sweep = cache.sweep(missing)
            if not told:
                say(_cost(sweep, words, missing, rounds[-1]))
                told = True
            outcome = run(sweep)
            tally = cache.tally(concepts)
            if exit_code := outcome.exit_code:
                say(outcome.message)
                break
        still_open = tally.table(words, len(rounds)).open_words(words)
    unreached = tally.missing(Question(word, 0) for word in words) if left is not None and not exit_code else []
    return Proof(
        words=tuple(words),
        concepts=tuple(concepts),
        table=tally.table(words, len(rounds)),
        unreached=tuple(sorted((question.word for question in unreached), key=words.index)),
        exit_code=exit_code,
    )


def _cost(sweep: Config, words: Sequence[str], missing: Sequence[Question], most: int) -> str:
    """Return what a sweep will take, in words, pictures and time."""
    measured = measure(sweep, Plan.build(sweep, open_source(sweep.prompts)))
    time = "" if measured is None else f", about {len(missing) * measured.seconds_per_image / 3600:.2f} worker-hours"
    return (
        f"{len(words):,} words, {len(missing):,} pictures to draw in the first round{time}; of words that stay open "
        f"up to {most} each, in further rounds"
    )


def _within(missing: Sequence[Question], words: Sequence[str], budget: int) -> list[Question]:
    """Return the questions of the first words that fit into *budget*."""
    place = {word: i for i, word in enumerate(words)}
    return sorted(missing, key=lambda question: (place[question.word], question.number))[:budget]


def _listed(found: Sequence[tuple[str, Judged]]) -> str:
    best = sorted(found, key=lambda item: (-item[1].low, item[0]))
    return _some([f"{word} {judged.hits}/{judged.pictures}" for word, judged in best])


def _some(words: Sequence[str]) -> str:
    more = len(words) - SHOWN
    return (", ".join(words[:SHOWN]) or "none") + (f" and {more:,} more" if more > 0 else "")
