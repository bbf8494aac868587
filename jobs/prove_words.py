"""What ``lacuna words CONFIG --prove all`` finds on the diorama: detector A proves, detector B judges.

    python jobs/prove_words.py [--words N] [--threads 1] [--output out/prove_words] [--results FILE]

The vocabulary is that of the diorama's own world, what its lexicon names first and then every whole word of three
letters or more that its tokenizer has. Lists give ten concepts by their names alone, and no dictionary is asked, so
each synonym, and each scene that implies a concept, has to be found by its pictures. "Others" are words that the
lexicon has not for a concept and that A's pictures are said to mean or imply; B may say the same of them, as of a piece
of a scene's words. Killed and given again, it goes on; with ``--words`` it draws the first so many, and goes on from
there with more.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from pipeline.config import load_config
from pipeline.config.schema import Config
from pipeline.corpus import committed
from pipeline.corpus.encode import decode_image
from pipeline.diorama.detector import DETECTOR_PATH, DioramaDetector
from pipeline.diorama.lexicon import FAMILIES, FILLERS, IMPLIED, OBJECTS, SYNONYMS, UNKNOWN, plural
from pipeline.evaluation.results import add_results_option, machine, write_result
from pipeline.evaluation.statistics import proportion
from pipeline.evaluation.words.cache import WordCache
from pipeline.evaluation.words.candidates import encoded, nearest, nearness
from pipeline.evaluation.words.judge import read_picture
from pipeline.evaluation.words.questions import with_article, without_article
from pipeline.evaluation.words.tally import Tally
from pipeline.evaluation.words.verdict import ROUNDS, Verdict, looks
from pipeline.models.load import load_model
from pipeline.models.settle import settle
from pipeline.workshop.prove import draw

CONCEPTS = ("cat", "beer", "gun", "church", "knife", "coffee", "car", "cigarette", "ghost", "tree")
TOKENIZER = DETECTOR_PATH.parent / "tokenizer" / "tokenizer.json"
END_OF_WORD = "</w>"
CONFIG = {
    "model": {"path": "diorama", "scheduler": "UniPCMultistepScheduler"},
    "erasure": {"concepts": [{"name": name} for name in CONCEPTS], "recipe": []},
    "prompts": {"template": "a {thing}", "values": {"thing": ["picture"]}},
    "generation": {"steps": 4, "guidance": 5.0, "batch_size": 32},
    "audit": {"detectors": [{"detector": "diorama"}], "policy": "keep"},
}
BATCH = 256


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--words", type=int, default=None, metavar="N", help="only the first N of the vocabulary")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("out/prove_words"))
    add_results_option(parser)
    args = parser.parse_args()
    here = machine()
    words = vocabulary()[: args.words]
    config = written(args.output, words, args.threads)
    cache = WordCache(config)
    found = draw(cache, words, None, None, lambda line: print(line, file=sys.stderr, flush=True))
    if found.exit_code:
        return found.exit_code
    tally = cache.tally()
    figures = {
        "A": judged(words, tally),
        "B": agreement(words, tally, seen_by_b(cache)),
        "candidates": candidates(config, words),
        "cost": cost(cache, words, tally, config.words.pictures),
    }
    print(json.dumps(figures, indent=1, ensure_ascii=False))
    if args.results:
        what = "Words proved by drawing on the diorama: what is found without a dictionary, by detector A, judged by B"
        asked = {"words": len(words), "concepts": list(CONCEPTS), "steps": config.generation.steps}
        write_result(args.results, what=what, config=asked, figures=figures, environment=here)
    return 0


def vocabulary() -> list[str]:
    """Return the words and phrases of the diorama's world, then the whole words of its tokenizer."""
    named = [*OBJECTS, *(word for words in SYNONYMS.values() for word in words), *IMPLIED, *FILLERS, *UNKNOWN]
    tokens = json.loads(TOKENIZER.read_text(encoding="utf-8"))["model"]["vocab"]
    whole = sorted(token.removesuffix(END_OF_WORD) for token in tokens if token.endswith(END_OF_WORD))
    words = [*named, *(word for word in whole if word.isalpha() and len(word) >= 3)]
    once: dict[str, str] = {}
    for word in words:
        once.setdefault(with_article(word), word)  # "a party" is "party"
    return list(once.values())


def written(folder: Path, words: Sequence[str], threads: int) -> Config:
    """Write vocabulary and config to *folder*; return the config, settled."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    tree = {
        **CONFIG,
        "words": {"vocabulary": "words.txt", "pictures": 4, "cache": str(folder / "cache")},
        "output": {"path": str(folder / "corpus")},
        "cluster": {"backend": "local", "threads_per_worker": threads},
    }
    (folder / "config.yaml").write_text(json.dumps(tree), encoding="utf-8")
    return settle(load_config(folder / "config.yaml"))


def groups(concept: str) -> dict[str, set[str]]:
    """Return the words that mean a concept, that imply it, and that are its siblings; plurals too, but for its own
    name's, which a list finds."""
    scenes = [scene for scene, shown in IMPLIED.items() if concept in shown]
    siblings = next(set(members) for members in FAMILIES.values() if concept in members) - {concept}
    return {
        "synonyms": with_plurals(SYNONYMS.get(concept, ())),
        "scenes": {word for scene in scenes for word in (scene, without_article(scene))},
        "siblings": with_plurals([*siblings, *(word for name in siblings for word in SYNONYMS.get(name, ()))]),
    }


def with_plurals(words: Iterable[str]) -> set[str]:
    return {form for word in words for form in (word, plural(word))}


def verdicts(words: Sequence[str], tally: Tally) -> list[dict[str, Verdict]]:
    """Return, for each concept, the verdict on each of *words*."""
    rows = tally.table(words, ROUNDS).judge()
    return [{w: row[c].verdict for w, row in zip(words, rows, strict=True)} for c in range(len(CONCEPTS))]


def judged(words: Sequence[str], tally: Tally) -> dict[str, Any]:
    """Return what was found of each group, over all concepts, and what besides."""
    figures: dict[str, Any] = {}
    by_concept = verdicts(words, tally)
    missed: dict[str, list[str]] = {"synonyms": [], "scenes": []}
    tried = {"synonyms": 0, "scenes": 0, "siblings": 0, "others": 0}
    opened, false, means = [], [], 0
    for concept, said in zip(CONCEPTS, by_concept, strict=True):
        of = groups(concept)
        for name in ("synonyms", "scenes"):
            there = of[name] & said.keys()
            tried[name] += len(there)
            missed[name] += [f"{concept}: {word}" for word in sorted(there) if said[word] is Verdict.leave]
        means += sum(said[word] is Verdict.means for word in of["synonyms"] & said.keys())
        siblings = of["siblings"] & said.keys()
        tried["siblings"] += len(siblings)
        opened += [f"{concept}: {word}" for word in sorted(siblings) if said[word] is not Verdict.leave]
        known = with_plurals([concept]).union(*of.values())
        others = [word for word in words if word not in known]
        tried["others"] += len(others)
        false += [f"{concept}: {word} ({said[word]})" for word in others if said[word] is not Verdict.leave]
    for name in ("synonyms", "scenes"):
        hits = tried[name] - len(missed[name])
        bound = proportion(hits, tried[name])
        figures[name] = {"found": [hits, tried[name]], "at least": bound.low, "missed": missed[name]}
    figures["synonyms"]["means"] = means
    figures["siblings"] = {"opened": [len(opened), tried["siblings"]], "which": opened}
    figures["others"] = {
        "found": [len(false), tried["others"]],
        "per 1,000 words of a concept": 1000 * len(false) / tried["others"],
        "which": false,
    }
    figures["names"] = dict(zip(CONCEPTS, tally.table(words, ROUNDS).rates.tolist(), strict=True))
    return figures


def seen_by_b(cache: WordCache) -> Tally:
    """Return what detector B sees in all pictures."""
    detector = DioramaDetector.load("b")
    columns = {name: detector.classes.index(name) for name in CONCEPTS}
    tally = Tally(CONCEPTS, CONCEPTS)
    for part in cache.parts():
        drawn = [row for row in part.rows if row.offset is not None]
        rows = []
        for i in range(0, len(drawn), BATCH):
            chunk = drawn[i : i + BATCH]
            images = torch.from_numpy(np.stack([decode_image(read_picture(part, row)) for row in chunk]))
            seen = detector.probabilities(images).numpy() >= 0.5
            for row, found in zip(chunk, seen, strict=True):
                rows.append(row.with_seen({name for name, column in columns.items() if found[column]}))
        tally.add(rows)
    return tally


def agreement(words: Sequence[str], by_a: Tally, by_b: Tally) -> dict[str, Any]:
    """Return how many of the words that A found B finds too, and what B finds beside them."""
    a, b = verdicts(words, by_a), verdicts(words, by_b)
    figures: dict[str, Any] = {}
    confirmed, refuted, only_b = 0, [], []
    others: list[str] = []
    for concept, first, second in zip(CONCEPTS, a, b, strict=True):
        known = with_plurals([concept]).union(*(groups(concept)[name] for name in ("synonyms", "scenes")))
        for word in words:
            if word != concept and first[word] is not Verdict.leave:
                confirmed += second[word] is not Verdict.leave
                if second[word] is Verdict.leave:
                    refuted.append(f"{concept}: {word}")
                elif word not in known:
                    others.append(f"{concept}: {word}")
            elif word != concept and second[word] is not Verdict.leave:
                only_b.append(f"{concept}: {word}")
    figures["confirmed"] = [confirmed, confirmed + len(refuted)]
    return figures | {"refuted": refuted, "of others confirmed": others, "found by B alone": only_b}


def candidates(config: Config, words: Sequence[str]) -> dict[str, Any]:
    """Return how many synonyms and scenes are among the nearest 1, 3 and 5 % of the vocabulary by the encoder alone."""
    family = load_model(config.model, torch.device("cpu")).family
    basis = encoded(family, words)
    scores = nearness(basis, [encoded(family, [name]) for name in CONCEPTS], basis)
    found: dict[str, dict[str, list[int]]] = {"synonyms": {}, "scenes": {}}
    for share in (0.01, 0.03, 0.05):
        for name, counts in found.items():
            hits = tried = 0
            for c, concept in enumerate(CONCEPTS):
                near = {words[i] for i in nearest(scores[:, c : c + 1], share)}
                there = groups(concept)[name] & set(words)
                hits, tried = hits + len(there & near), tried + len(there)
            counts[f"{share:.0%}"] = [hits, tried]
    return found


def cost(cache: WordCache, words: Sequence[str], tally: Tally, first: int) -> dict[str, Any]:
    """Return the pictures that the words took, those that the most of each would have taken, and worker minutes."""
    _, pictures = tally.counts(words)
    most = looks(first)[-1] * len(words)
    drawn = int(pictures[:, 0].sum())
    stores = {part.store.url: part.store for part in cache.parts()}.values()
    timings: list[Mapping[str, float]] = [record.timings for store in stores for record in committed(store).values()]
    seconds = math.fsum(timing.get("seconds", 0.0) for timing in timings)
    return {
        "words": len(words),
        "pictures": drawn,
        "pictures without the sequential rule": most,
        "saved": 1 - drawn / most,
        "all pictures of the cache": int(sum(timing.get("images", 0) for timing in timings)),
        "worker minutes": seconds / 60,
    }


if __name__ == "__main__":
    sys.exit(main())
