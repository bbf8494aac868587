"""Which method works on which family, said by the code itself: what a method ``requires`` and a family ``offers``.

    python -m pipeline.erasure.table          prints the table, which README.md beside this file holds

A test compares the two, so the page cannot go stale.
"""

from pipeline.erasure.method import Method
from pipeline.erasure.steps import refusals
from pipeline.models.family import Family
from pipeline.registry import FAMILIES, METHODS, load_class

HOOKS = {"edit": "edits", "train": "trains", "condition": "conditions", "steer": "steers"}


def families() -> list[type[Family]]:
    """Return the families, in the registry's order."""
    return [load_class("family", name, FAMILIES, Family) for name in FAMILIES]


def family_table() -> str:
    """Return the table in Markdown, with the reasons of refusals as notes below it."""
    columns = families()
    notes: list[str] = []
    lines = [
        f"| method | what it does | {' | '.join(family.name for family in columns)} |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name in METHODS:
        method: type[Method] = load_class("method", name, METHODS, Method)
        cells = []
        for family in columns:
            marks = []
            for reason in refusals(method, family):
                if reason not in notes:
                    notes.append(reason)
                marks.append(f"({notes.index(reason) + 1})")
            cells.append(f"no {' '.join(marks)}" if marks else "yes")
        hooks = ", ".join(verb for hook, verb in HOOKS.items() if hasattr(Method, hook) and method.has(hook))
        lines.append(f"| `{name}` | {hooks} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"({i}) {note}.  " for i, note in enumerate(notes, 1))]).rstrip() + "\n"


if __name__ == "__main__":
    print(family_table(), end="")
