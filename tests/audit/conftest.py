"""Tiny checkpoints that several detectors and measures look with."""

import pytest

from tests import tiny_eyes


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_eyes.clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return tiny_eyes.siglip(tmp_path_factory.mktemp("siglip"))
