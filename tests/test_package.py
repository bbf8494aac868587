"""What the package itself offers: the names that people subclass and call, imported when they are used."""

import importlib
import subprocess
import sys

import pipeline


def test_every_name_is_there_and_the_types_that_checkers_see_are_those():
    for name in pipeline.__all__:
        assert getattr(pipeline, name) is not None
    assert sorted(pipeline._PLACES) == sorted(set(pipeline.__all__) - {"__version__"})
    for name, place in pipeline._PLACES.items():
        assert getattr(pipeline, name) is getattr(importlib.import_module(place), name)


def test_importing_it_imports_nothing_else():
    code = """
import sys, pipeline
heavy = {"torch", "diffusers", "transformers", "numpy", "pyarrow", "webdataset", "ray", "yaml"} & sys.modules.keys()
assert not heavy, heavy
from pipeline import ConfigError
assert "torch" not in sys.modules
try:
    from pipeline import Detecter
except ImportError as error:
    assert "Detecter" in str(error)
else:
    raise AssertionError("a name that is not there was imported")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
