"""A small corpus must come out as it did: where it does not, SEMANTICS must be raised with it, and said so.

What no processor changes (keys, seeds, order, captions, statuses, members of the tar) is held exactly. Pixels, whose
last bits depend on the processor, are held as brightness of 4x4 fields, to 2 of 255. Nothing is erased here: what a
method does is held by its own tests.

    python -m tests.test_golden        # writes the fixture anew, after SEMANTICS was raised
"""

import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import SEMANTICS, load_config
from pipeline.corpus.encode import decode_image
from pipeline.corpus.manifest import read_rows
from pipeline.run import run
from tests import tiny
from tests.progress import Silent

FIXTURE = Path(__file__).with_name("golden.json")
CONFIG = """
model: {{path: {model}, dtype: float32}}
erasure:
  concepts: [{{name: cat, aliases: [kitten], anchor: dog}}]
  recipe: []
prompts:
  template: "a photo of a {{animal}} {{place}}"
  values: {{animal: [cat, tiger, kitten], place: [on the beach, in the snow]}}
  images_per_prompt: 2
  shuffle: true
generation: {{steps: 3, size: [32, 32], compile: none, batch_size: 4, negative_prompt: a red car}}
output: {{path: {output}, samples_per_shard: 7, image_format: png}}
cluster: {{backend: local, device: cpu}}
seed: 11
"""
FIELDS = ("key", "shard", "prompt", "caption", "negative_prompt", "seed", "width", "height", "status", "reason")


def generate(folder: Path) -> dict[str, Any]:
    """Run, and return what is to be held."""
    (folder / "config.yaml").write_text(CONFIG.format(model=tiny.path(), output=folder / "corpus"))
    assert run(load_config(folder / "config.yaml"), progress=Silent()).exit_code == 0
    rows, members, fields = [], [], []
    for path in sorted((folder / "corpus/manifests").glob("*.parquet")):
        for row in read_rows(path.read_bytes()):
            rows.append([str(getattr(row, name)) for name in FIELDS])
    for path in sorted((folder / "corpus/train").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                members.append(member.name)
                if member.name.endswith(".png"):
                    file = tar.extractfile(member)
                    assert file is not None
                    image = decode_image(file.read()).astype(float)
                    fields.append(np.rint(image.reshape(4, 8, 4, 8, 3).mean(axis=(1, 3, 4))).astype(int).tolist())
    return {"semantics": SEMANTICS, "rows": rows, "members": members, "fields": fields}


def test_the_corpus_comes_out_as_ever(tmp_path: Path) -> None:
    golden, found = json.loads(FIXTURE.read_text()), generate(tmp_path)
    assert found["semantics"] == golden["semantics"], "SEMANTICS was raised: python -m tests.test_golden"
    for part in ("rows", "members"):
        assert found[part] == golden[part], f"{part} changed: raise SEMANTICS (pipeline/config/identity.py)"
    apart = np.abs(np.array(found["fields"]) - np.array(golden["fields"])).max()
    assert apart <= 2, f"pictures changed, by {apart} of 255: raise SEMANTICS (pipeline/config/identity.py)"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        FIXTURE.write_text(json.dumps(generate(Path(scratch))) + "\n")
    sys.exit(0)
