"""A cache of the hub that holds model_index.json files alone, as if only they had been fetched."""

import hashlib
import json
from pathlib import Path

import pytest
from huggingface_hub import constants


def use(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let *cache* be the hub's cache, which is all there is of the hub: tests are offline."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def put(cache: Path, model: str, revision: str, class_name: str) -> None:
    """Put the index of a *model* (owner/name) at *revision*, a branch, a tag or a commit, into *cache*."""
    folder = cache / f"models--{model.replace('/', '--')}"
    commit = hashlib.sha1(revision.encode()).hexdigest()
    for path, text in (
        (folder / "refs" / revision, commit),
        (folder / "snapshots" / commit / "model_index.json", json.dumps({"_class_name": class_name})),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
