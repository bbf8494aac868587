"""The configs that ship: shown offline without a model, and planned with nothing of it but its model_index.json."""

from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.config import load_config
from tests import hub

CLASSES = {
    "sd21": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
}
CONFIGS = sorted(str(path) for path in Path("configs").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS)
def test_show_and_plan(path: str, capsys, tmp_path: Path, monkeypatch):
    hub.use(tmp_path, monkeypatch)
    assert main(["show", path]) == 0
    shown = capsys.readouterr().out
    assert "# identity: " in shown
    assert "recipe:" in shown
    if Path(path).stem in CLASSES:
        model = load_config(path).model
        hub.put(tmp_path, model.path, model.revision or "main", CLASSES[Path(path).stem])
    assert main(["plan", path, "--no-measure"]) == 0
    assert "shard" in capsys.readouterr().out


def test_one_for_every_family():
    assert {"sd21", "sdxl", "sd3", "flux"} <= {Path(path).stem for path in CONFIGS}
