"""Arrows point one way: which file of the package may know which, with imports inside functions counted.

A room is a file or a folder at the top of the package. Whoever adds one gives it its line in ``ORDER``.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pipeline"

# Each room may know those of the lines before its own. Those of one line do not know each other.
ORDER = (
    "errors",
    "files paths statements statistics terminal version pages",
    "parallel",
    "concepts registry",
    "config",
    "prompts models",
    "erasure",
    "generation audit",
    "corpus",
    "drawable",
    "session",
    "pairs worker",
    "cluster",
    "evaluation",
    "diorama",  # known by a line in the registry alone
    "run",
    "repair",
    "workshop",
    "arguments settled",
    "commands",
    "cli",
)

# What looks like a private name of ours and is a library's.
FOREIGN = {"dataset._fingerprint": "of Hugging Face's datasets, which name the content of a dataset nowhere else"}

LEVEL = {room: level for level, line in enumerate(ORDER) for room in line.split()}


@cache
def modules() -> dict[str, Path]:
    """Return the files of the package by the names under which they are imported, but for the package's own."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def nodes(module: str) -> tuple[ast.AST, ...]:
    """Return all of a file's syntax."""
    return tuple(ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))))


def imports(module: str) -> Iterator[tuple[str, int]]:
    """Yield what a file imports, wherever in it, with the line: as a statement, or as a text that names a module."""
    for node in nodes(module):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{module}:{node.lineno}: relative imports are not used here"
            whole = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from ((name if name in modules() else str(node.module), node.lineno) for name in whole)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("pipeline."):
            name = node.value.partition(":")[0]
            if name in modules():
                yield name, node.lineno


def room(module: str) -> str:
    return module.split(".")[1]


@cache
def arrows() -> tuple[tuple[str, str, int], ...]:
    """Return (file, the file of the package that it imports, line). Left out are the two that know all by name: the
    table of names, and the package's own face, which hands users what they import."""
    return tuple(
        (module, name, line)
        for module in modules()
        if module not in ("pipeline", "pipeline.registry")
        for name, line in imports(module)
        if name in modules() and name != "pipeline"
    )


def test_each_room_knows_only_those_before_it():
    assert {room(module) for module in modules() if module != "pipeline"} == LEVEL.keys()
    wrong = [
        f"{module}:{line} imports {name}"
        for module, name, line in arrows()
        if room(module) != room(name) and LEVEL[room(name)] >= LEVEL[room(module)]
    ]
    assert not wrong


def test_nothing_inside_takes_more_than_the_version_from_the_face_of_the_package():
    taken = set()
    for module in modules():
        for node in nodes(module):
            if isinstance(node, ast.ImportFrom) and node.module == "pipeline":
                taken |= {alias.name for alias in node.names if f"pipeline.{alias.name}" not in modules()}
            elif isinstance(node, ast.Import):
                taken |= {alias.name for alias in node.names if alias.name == "pipeline"}
    assert taken == {"__version__"}


def test_the_table_of_names_imports_only_errors():
    code = [node for node in nodes("pipeline.registry") if isinstance(node, ast.ImportFrom)]
    assert {node.module for node in code if (node.module or "").startswith("pipeline")} == {"pipeline.errors"}


def test_no_files_know_each_other_in_a_circle():
    circle = _circle([(module, name) for module, name, _ in arrows()])
    assert not circle, " -> ".join(circle)


def test_no_folders_know_each_other_in_a_circle():
    def folder(module: str) -> str:
        path = modules()[module]
        return str((path if path.parent == PACKAGE else path.parent).relative_to(ROOT))

    circle = _circle([(folder(m), folder(name)) for m, name, _ in arrows() if folder(m) != folder(name)])
    assert not circle, " -> ".join(circle)


def _circle(pairs: list[tuple[str, str]]) -> list[str]:
    graph: dict[str, set[str]] = {}
    for one, other in pairs:
        graph.setdefault(one, set()).add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_ray_is_imported_in_one_folder():
    users = {module for module in modules() for name, _ in imports(module) if name.split(".")[0] == "ray"}
    assert users
    assert not {module for module in users if not module.startswith("pipeline.cluster.on_ray.")}


def test_the_built_in_world_is_known_by_the_registry_alone():
    assert not [
        f"{module}:{line}"
        for module, name, line in arrows()
        if name.startswith("pipeline.diorama") and room(module) != "diorama"
    ]


def test_whoever_carries_out_a_plan_knows_neither_gate_nor_judge():
    known = {room(name) for module, name, _ in arrows() if room(module) == "cluster"}
    assert not known & {"erasure", "audit", "generation", "evaluation"}


def test_what_needs_no_model_waits_for_neither_torch_nor_ray():
    """A concept, a config, a plan, a corpus's state: all but the loader, which gives tensors."""
    rooms = {"errors", "registry", "concepts", "config", "prompts", "corpus", "run", "arguments", "cli"}
    names = [
        m for m in modules() if m != "pipeline" and room(m) in rooms and not m.startswith("pipeline.corpus.loader")
    ]
    code = (
        f"import sys, {', '.join(names)}; print({{'torch', 'diffusers', 'transformers', 'ray'}} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_nothing_reads_what_is_private_to_another_file():
    own = {module: _private_names(module) for module in modules()}
    others = {module: set().union(*(names for m, names in own.items() if m != module)) for module in modules()}
    wrong = []
    for module in modules():
        for node in nodes(module):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("pipeline"):
                wrong += [f"{module}:{node.lineno} imports {a.name}" for a in node.names if _private(a.name)]
            elif isinstance(node, ast.Attribute) and node.attr in others[module] - own[module]:
                text = ast.unparse(node)
                if not text.startswith(("self._", "cls._", "super()._")) and text not in FOREIGN:
                    wrong.append(f"{module}:{node.lineno} reads {text}")
    assert not wrong


def _private_names(module: str) -> set[str]:
    """Return the private names that a file gives to its functions, classes, variables and attributes."""
    names: set[str] = set()
    for node in nodes(module):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return set(filter(_private, names))


def _private(name: str) -> bool:
    return name.startswith("_") and not re.fullmatch(r"__\w+__", name)
