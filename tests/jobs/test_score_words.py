"""What a score finds of kinds, on vectors that are made up: the same in any scale, all where kinds are copies."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.concepts.everyday import everyday
from pipeline.diorama.lexicon import SYNONYMS

SCRIPT = Path(__file__).resolve().parents[2] / "jobs" / "score_words.py"
# Names of one thing each, by WordNet: two concepts with kinds, a sibling, what is above all.
KNOWN = {
    "cat": "cat.n.01", "kitty": "kitty.n.04", "tabby": "tabby.n.01", "siamese cat": "siamese_cat.n.01",
    "dog": "dog.n.01", "poodle": "poodle.n.01", "corgi": "corgi.n.01", "feline": "feline.n.01",
}  # fmt: skip
KINDS = {"cat": ["tabby", "siamese cat"], "dog": ["poodle", "corgi"]}


@pytest.fixture(scope="module")
def job() -> ModuleType:
    spec = importlib.util.spec_from_file_location("score_words", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["score_words"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def made(same: float) -> tuple[list[str], list[str], Tensor]:
    """Return names, synsets and vectors ``(N, 16)``, those of kinds *same* of their concept's, else by chance."""
    others = [word for word in everyday() if word.isascii() and word not in KNOWN][:250]  # of which 1 % are two
    names = [*KNOWN, *others]
    vectors = torch.randn(len(names), 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for concept, kinds in KINDS.items():
        for kind in kinds:
            own = names.index(kind)
            vectors[own] = same * vectors[names.index(concept)] + (1 - same) * vectors[own]
    return names, [*KNOWN.values(), *(f"{word}.n.01" for word in others)], vectors


def concept(words: object, name: str) -> tuple[set[str], set[str]]:
    c = words.concepts.index(words.names.index(name))
    return tuple({words.names[i] for i in group[c].nonzero().flatten()} for group in (words.kinds, words.siblings))


def test_kinds_and_siblings_are_those_of_the_sense_that_is_given(job: ModuleType) -> None:
    words = job.by_wordnet(*made(1.0))
    kinds, _ = concept(words, "cat")
    assert {"tabby", "siamese cat"} <= kinds
    assert not kinds & {"cat", "dog", "poodle", "feline"}
    assert {"tabby", "siamese cat", "cat"} <= concept(words, "feline")[0]
    of_cat = words.concepts.index(words.names.index("cat"))
    assert words.aside[of_cat, words.names.index("feline")], "what is above a concept is not asked"
    assert not words.negatives[of_cat, words.names.index("cat")]
    assert job.sense_of("artillery.n.01").words == ("artillery", "heavy weapon", "gun", "ordnance")
    assert job.sense_of("no_such_word.n.01") is None


def of_two(job: ModuleType, names: list[str], synsets: list[str], vectors: Tensor) -> object:
    """Return the words with the concepts of ``KINDS`` alone, and no kinds but those."""
    words = job.by_wordnet(names, synsets, vectors)
    rows = [words.concepts.index(words.names.index(name)) for name in KINDS]
    kinds = torch.zeros(len(rows), len(words.names), dtype=torch.bool)
    for row, own in zip(kinds, KINDS.values(), strict=True):
        row[[words.names.index(kind) for kind in own]] = True
    aside = words.aside[rows] | (words.kinds[rows] & ~kinds)
    concepts = [words.concepts[row] for row in rows]
    return replace(words, concepts=concepts, kinds=kinds, siblings=words.siblings[rows], aside=aside)


def test_kinds_that_are_copies_are_all_found(job: ModuleType) -> None:
    words = of_two(job, *made(1.0))
    for name, found in job.compared(words).items():
        recall = {key: value for key, value in found.items() if "siblings" not in key}
        assert recall == dict.fromkeys(recall, 1.0), name
    found = job.decided(words)
    for how in ("cosine of 0.85", "1 in 1,000 pooled", "1 in 1,000 pooled, dictionary", "the gate"):
        assert (found[how]["recall"], found[how]["median"], found[how]["worst"]) == (1.0, 1.0, 1.0), how


def test_scale_and_shift_change_nothing_of_the_gates_scores_and_all_of_a_cosines(job: ModuleType) -> None:
    names, synsets, vectors = made(0.5)
    generator = torch.Generator().manual_seed(1)
    scale = torch.randn(vectors.shape[1], generator=generator, dtype=torch.float64).exp()
    before = of_two(job, names, synsets, vectors)
    after = of_two(job, names, synsets, vectors * scale + 30 * scale)
    (cosine, *scores), (other, *same) = job.all_scores(before), job.all_scores(after)
    for one, two in zip(scores, same, strict=True):
        torch.testing.assert_close(one, two)
    assert (cosine - other).abs().max() > 0.2
    assert torch.equal(job.by_gate(before), job.by_gate(after)), "of rounded scores"
    assert job.decided(before)["the gate"]["recall"] > 0


@pytest.mark.slow
def test_the_diorama_has_its_synonyms_and_families(job: ModuleType) -> None:
    words = job.of_diorama()
    kinds, siblings = concept(words, "cat")
    assert kinds == set(SYNONYMS["cat"])
    assert siblings == {"tiger", "lion"}
    assert len(words.names) > 400
    assert 0.5 < words.same <= 1


def test_a_file_is_read_and_what_is_none_is_one_line(job: ModuleType, tmp_path: Path) -> None:
    names, synsets, vectors = made(1.0)
    good = tmp_path / "words.npz"
    np.savez(good, names=names, synsets=synsets, vectors=vectors.numpy().astype(">f2"))
    assert job.read(good).names == job.by_wordnet(names, synsets, vectors).names
    nine = {"names": [names[0], *names[8:16]], "synsets": [synsets[0], *synsets[8:16]], "vectors": vectors[:9].numpy()}
    bad = {
        "short": ({"names": names[:8]}, "has names (8,), synsets (9,), vectors (9, 16)"),
        "flat": ({"vectors": np.zeros(9)}, "vectors (9,) of float64; expected diorama, or an .npz file"),
        "whole": ({"vectors": np.ones((9, 2), int)}, "of int64; expected"),
        "nan": ({"vectors": np.full((9, 2), np.nan)}, "NaN"),
        "huge": ({"vectors": np.full((9, 2), 1e300)}, "infinite in float32"),
        "same": ({"vectors": np.ones((9, 2))}, "all vectors are the same"),
        "none": ({"vectors": np.ones((9, 0))}, "all vectors are the same"),
        "lone": ({}, "none of 9 names has 2 or more kinds"),
        "objects": ({"names": np.array([None] * 9)}, "allow_pickle=False; expected"),
    }
    for name, (changed, _) in bad.items():
        np.savez(tmp_path / f"{name}.npz", **nine | changed)
    np.savez(tmp_path / "without.npz", names=names)
    (tmp_path / "text.npz").write_text("no zip")
    (tmp_path / "cut.npz").write_bytes(good.read_bytes()[:-100])
    said = {name: line for name, (_, line) in bad.items()} | {"without": "synsets is not a file"}
    for name, line in {**said, "text": "is no .npz file", "cut": "is no .npz file", "missing": "No such file"}.items():
        with pytest.raises(job.ConfigError) as error:
            job.read(tmp_path / f"{name}.npz")
        assert str(error.value).startswith(f"{tmp_path / name}.npz: ")
        assert line in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_command_refuses_a_missing_file_in_a_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path / "no.npz")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        f"score_words: {tmp_path / 'no.npz'}: No such file or directory; expected diorama, or an"
    )
    assert done.stderr.count("\n") == 1
