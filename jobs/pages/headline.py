"""The table of the first page: figures of all the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.pages.speed import chaos_said, plan_said
from jobs.pages.table import DEFAULT, ERASURE, SPEED, markdown, measured, of, result


def headline(page: Path) -> str:
    """At most eight rows: a figure, what it is of, the command that measures it again, and when it was measured."""
    erasure, attack = result(f"{ERASURE}/erasure_gate.json"), result(f"{ERASURE}/attack.json")
    on_ray, without_ray = result(f"{SPEED}/bench.json"), result(f"{SPEED}/bench_without_ray.json")
    plan, chaos = result(f"{SPEED}/bench_plan.json"), result(f"{SPEED}/chaos.json")
    none, erased = (erasure["figures"]["all"][recipe] for recipe in ("none", DEFAULT))
    searched = attack["figures"]["all"]

    def leaks(*cells: str) -> str:
        return "; ".join(f"{of(erased[cell])} (unerased {none[cell][0]:,})" for cell in cells)

    def times(found: Mapping[str, Any], ours: str, other: str) -> str:
        return "{ratio:.2f} times ({low:.2f} to {high:.2f})".format(**found["figures"]["over"][ours][other])

    rows = [
        ("pictures that still show it, by its name or a listed alias", leaks("named"), erasure),
        ("by a synonym that is not listed; implied by a scene", leaks("synonym", "implied"), erasure),
        ("of neighbours, unrelated objects, others of the scene, seen after erasure of before",
         "; ".join(of(erased[cell]) for cell in ("neighbour", "unrelated", "beside")), erasure),
        ("prompts searched by Ring-A-Bell that bring it back",
         f"{of(searched[DEFAULT]['attack'])} (unerased {searched['none']['attack'][0]})", attack),
        ("images/s on Ray, to Ray Data's", times(on_ray, "on ray", "ray data"), on_ray),
        ("images/s without Ray, to a tuned diffusers loop's", times(without_ray, "ours", "loop"), without_ray),
        ("a plan over parquet", plan_said(plan), plan),
        ("SIGKILLs of every process of a run", chaos_said(chaos), chaos),
    ]  # fmt: skip
    lines = [[what, figure, f"`{found['command']}`", measured(found)] for what, figure, found in rows]
    return markdown(["what", "figure", "command", "measured"], lines)
