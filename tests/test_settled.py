"""What draws beside a run draws with the config that the run has, or would have."""

from pathlib import Path

import pytest

from pipeline.arguments import build_parser
from pipeline.config import load_config
from pipeline.corpus import RunRecord, create_run_record, open_store
from pipeline.models.settle import as_begun, settle
from pipeline.settled import read_settled
from tests import tiny

CONFIG = """\
model: {{path: {model}}}
prompts: {{template: "a {{animal}}", values: {{animal: [cat, dog]}}}}
output: {{path: {output}}}
cluster: {{device: cpu}}
"""


@pytest.mark.parametrize("command", ["preview", "explain", "export", "finetune"])
def test_what_draws_beside_a_run_follows_the_corpus_that_was_begun(tmp_path: Path, command: str):
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG.format(model=tiny.path(), output=tmp_path / "corpus"))
    found = load_config(path)
    words = {"explain": ["a cat"], "export": [str(tmp_path / "model")]}.get(command, [])
    args = build_parser().parse_args([command, str(path), *words])
    assert read_settled(args) == settle(found)  # as a run would begin here
    begun = {"model.dtype": "float16", "generation.size": [128, 64]}
    record = RunRecord(
        digest="d" * 64, identity=begun, config={}, batch_size=1, recipe={}, model_revision="r", environment={},
        samples=1, shards=1, samples_per_shard=1,
    )  # fmt: skip
    create_run_record(open_store(found.output.path), record)
    assert read_settled(args) == as_begun(found, begun)
