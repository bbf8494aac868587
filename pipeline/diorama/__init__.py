"""The diorama: a small real text-to-image model of a procedural world, with the detectors that judge its pictures.

``StableDiffusionPipeline.from_pretrained(DIORAMA_PATH)`` loads it like any model of the hub.
"""

from pathlib import Path

DIORAMA_PATH = Path(__file__).parent / "weights"
