"""A config file that is sound, to be spoilt in one place."""

from pathlib import Path

import pytest

SOUND = """\
model: {path: diorama}
erasure:
  concepts:
    - {name: cat, aliases: [kitten, tabby], anchor: dog, preserve: [tiger, lion, dog]}
    - {name: knife}
  recipe:
    - {method: uce}
    - {method: cease, concepts: [cat]}
prompts: {template: "a {animal} {place}", values: {animal: [cat, dog], place: [indoors, outside]}}
audit: {detectors: [{detector: diorama}]}
output: {path: out/x}
"""


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(SOUND)
    return path
