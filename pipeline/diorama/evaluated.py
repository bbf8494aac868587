"""The diorama as the world in which recipes are evaluated: its words, and detector B, which audits no run."""

import hashlib
from pathlib import Path

from pipeline.diorama import captions, lexicon
from pipeline.evaluation.world import Judge, World

DETECTOR_B = Path(__file__).parent / "weights" / "detectors" / "b.safetensors"


class Diorama(World):
    size = (64, 64)
    families = lexicon.FAMILIES
    synonyms = lexicon.SYNONYMS
    implied = lexicon.IMPLIED
    places = lexicon.BACKGROUND_PHRASES
    style_prefixes = lexicon.STYLE_PREFIXES
    style_suffixes = lexicon.STYLE_SUFFIXES
    unknown = lexicon.UNKNOWN

    def canonical(self, word: str) -> str | None:
        return lexicon.canonical(word)

    def indefinite(self, word: str) -> str:
        return captions.indefinite(word)

    def judge(self, device: str) -> Judge:
        from pipeline.diorama.detector import DioramaDetector

        return DioramaDetector.load("b", device)

    def judge_digest(self) -> str:
        return hashlib.sha256(DETECTOR_B.read_bytes()).hexdigest()[:16]
