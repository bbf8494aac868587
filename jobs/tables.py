"""``make tables``: renders the tables of the READMEs from the results of measurements, in place.

    python jobs/tables.py [--check] [PAGE ...]

A table stands between two lines of a page, ``<!-- table: NAME -->`` and ``<!-- end -->``; what is between them is
replaced. Under a table stands what made it: the results file, day and commit, machine and command. ``--check`` writes
nothing, and exits with 1 where a page is not what its results say. Results are ``pipeline/evaluation/results/*.json``
and ``jobs/results/*.json``; what they hold is described in ``pipeline/evaluation/results/__init__.py``.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from jobs.pages.erasure import ablation, differences, diorama, erasure_table, erasure_tasks, gates, methods
from jobs.pages.headline import headline
from jobs.pages.speed import cease_cost, coordinator, every_figure, gpu, growth, small, speed
from jobs.pages.table import DEFAULT, ERASURE, SPEED
from jobs.pages.words import gate_numbers, words_compared, words_proved, words_scored, words_unlisted
from jobs.refusal import in_one_line
from pipeline.errors import ConfigError, nearest
from pipeline.evaluation.results import ROOT

PAGES = (
    "README.md", "pipeline/diorama/weights/README.md", "pipeline/erasure/README.md", "pipeline/evaluation/README.md",
    "jobs/README.md",
)  # fmt: skip
_MARKED = re.compile(r"(<!-- table: ([^\n]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_SPEED_FOR_MANY = ("speed for many", "speed for many + no augmentation")

TABLES: dict[str, Callable[[Path], str]] = {
    "headline": headline,
    "erasure": erasure_table(f"{ERASURE}/erasure.json"),
    "erasure, calibrated gate": erasure_table(f"{ERASURE}/erasure_gate.json"),
    "erasure by task": erasure_tasks(f"{ERASURE}/erasure_gate.json", [DEFAULT, "cease"]),
    "erasure differences": differences,
    "esd": erasure_tasks(f"{ERASURE}/esd.json", ["esd"]),
    "fifteen": erasure_tasks(f"{ERASURE}/fifteen.json", ["uce", "speed", *_SPEED_FOR_MANY]),
    "words": words_proved,
    "words scored": words_scored,
    "words compared": words_compared,
    "gate numbers": gate_numbers,
    "words unlisted": words_unlisted,
    "attack": erasure_table(f"{ERASURE}/attack.json"),
    "diorama": diorama,
    "methods": methods,
    "cease": ablation,
    "gates": gates,
    "speed": speed,
    "cease cost": cease_cost,
    "growth": growth,
    "coordinator": coordinator,
    "gpu": gpu,
    "eyes": every_figure(f"{SPEED}/gpu_eyes.json", "python jobs/gpu_check.py eyes", "Not run on a GPU yet"),
    "loader": every_figure(f"{SPEED}/bench_loader.json", "make bench-loader"),
    "small": small,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a page would change")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="only these, such as jobs/README.md (default: all)")
    args = parser.parse_args()
    for name in args.pages:
        if name not in PAGES:
            parser.error(f"{name} has no tables{nearest(name, PAGES)}")
    stale = 0
    with in_one_line():
        for name in args.pages or PAGES:
            page = ROOT / name
            text = page.read_text()
            if (fresh := rendered(text, page)) != text:
                stale += 1
                print(f"{name}: {'is not what its results say; run make tables' if args.check else 'rendered'}")
                if not args.check:
                    page.write_text(fresh)
    return 1 if args.check and stale else 0


def rendered(text: str, page: Path) -> str:
    """Return a page's *text* with every table rendered anew. ``ConfigError`` for a table that is unknown or unclosed,
    and for results that are missing."""
    if len(_MARKED.findall(text)) != text.count("<!-- table:"):
        raise ConfigError(f"{page}: a table has no line <!-- end --> of its own, or its marker is not on one line")

    def render(match: re.Match[str]) -> str:
        opening, name, _, end = match.groups()
        if name not in TABLES:
            raise ConfigError(f"{page}: no table is called {name!r}{nearest(name, TABLES)}")
        return f"{opening}{TABLES[name](page)}\n{end}"

    return _MARKED.sub(render, text)


if __name__ == "__main__":
    sys.exit(main())
