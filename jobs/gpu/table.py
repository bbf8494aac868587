"""What was found, as a table for people: for the terminal, and for a README."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.gpu.figures import ALL, DETECTORS, EYES, asked

FAMILIES = {
    "sd21": "Stable Diffusion 2.1, 768x768, batches of 8, 20 steps",
    "sdxl": "SDXL, 1024x1024, batches of 8, 8 steps",
    "flux": "FLUX.1, 1024x1024, 512 tokens, batches of 4, 4 steps",
}
HEAD = ("", "images/s", "compared", "busy", "roofline", "compiling, s")
MISSING = "not measured"
# Rows by their figure, and that to which images/s (or, of erasing, a batch's time) is compared.
ROWS = {
    "diffusers, eager": None,
    "diffusers, compiled": None,
    "ours, eager": "diffusers, eager",
    "ours, compiled": "diffusers, compiled",
    "cease none, eager": "ours, eager",
    "cease none, compiled": "ours, compiled",
    "cease all, eager": "ours, eager",
    "cease all, compiled": "ours, compiled",
}
CHECKS = {
    "unconcerned, eager": ("identical", "samples that name no concept, eager"),
    "unconcerned, compiled": ("identical", "samples that name no concept, compiled"),
    "again, eager": ("same", "a second process, eager"),
    "again, compiled": ("same", "a second process, with what the first has compiled"),
    "again, compiled anew": ("same", "a second process that compiles anew"),
}
PROMISED = ("unconcerned, eager", "unconcerned, compiled", "again, eager", "again, compiled")


def rows(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[list[str]]:
    """Yield the cells of one family's table; what was not reached says so."""
    for name, base in ROWS.items():
        found = figures.get(name)
        if found is None or "failed" in found:
            yield [name, MISSING if found is None else "failed", "", "", "", ""]
            continue
        yield [
            name,
            f"{found['images_per_second']:.3g}",
            compared(name, found, figures.get(base or "")),
            f"{found['busy']:.0%}" if "busy" in found else "",
            f"{found['roofline']:.0%}" if "roofline" in found else "",
            compiling(found),
        ]


def compared(name: str, found: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
    """Images/s over those of diffusers in the same mode; of erasing, time over that without it."""
    if base is None or "failed" in base:
        return ""
    ratio = found["images_per_second"] / base["images_per_second"]
    return f"time x {1 / ratio:.3f}" if name.startswith("cease") else f"{ratio:.2f} of diffusers"


def compiling(found: Mapping[str, Any]) -> str:
    """Seconds of compiling; where a call that was cut had compiled some of it, it was loaded, which is told."""
    if "compile_seconds" not in found:
        return ""
    return f"{found['compile_seconds']:.0f}{', some loaded' if found.get('loaded') else ''}"


def checks(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield what was compared, and what came of it."""
    for name, (key, what) in CHECKS.items():
        found = figures.get(name)
        if found is None or "failed" in found:
            yield what, MISSING if found is None else f"failed: {found['failed']}"
            continue
        how = "compiling" if name == "again, compiled anew" else "loading"
        ready = f", after {found['compile_seconds']:.0f} s of {how}" if "compile_seconds" in found else ""
        # Of random weights, and few of them, a picture may come out as it was.
        unmoved = "; not all that name it were changed" if found.get("concerned_changed") is False else ""
        yield what, f"{'the same bytes' if found[key] else 'OTHER BYTES'}{ready}{unmoved}"


def detectors(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what each detector adds to a picture."""
    found = figures.get(DETECTORS)
    if found is None:
        yield f"detectors: {MISSING}"
        return
    for name, one in ((name, one) for name, one in found.items() if isinstance(one, Mapping)):
        yield f"{name}: {one['ms_per_picture']:.2f} ms, {one['share_of_a_picture']:.2%} of a picture of SDXL"


def faults(family: str, figures: Mapping[str, Mapping[str, Any]], eager: bool = False) -> Iterator[str]:
    """Yield a line for each figure that is missing or failed, and for each promise that does not hold."""
    wanted = [DETECTORS] if family == EYES else asked(ALL, eager)
    missing = [name for name in wanted if name not in figures]
    if missing:
        yield f"{family}: not reached: {', '.join(missing)}"
    for name, found in figures.items():
        if "failed" in found:
            yield f"{family}: {name}: {found['failed']}"
        elif name in PROMISED and not found[CHECKS[name][0]]:
            yield f"{family}: {CHECKS[name][1]}: other bytes"
        elif found.get("repeats") is False:
            yield f"{family}: {name}: two batches that are the same gave other bytes"


def table(key: str, figures: Mapping[str, Mapping[str, Any]], families: Sequence[str]) -> str:
    """Return all tables for a terminal."""
    lines = [key]
    for family in families:
        found = figures.get(family, {})
        if family == EYES:
            lines += ["", *detectors(found)]
            continue
        cells = [list(HEAD), *rows(found)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(HEAD))]
        lines += ["", FAMILIES[family] if " tiny " not in key else family]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        lines += [f"{what}: {said}" for what, said in checks(found)]
    return "\n".join(lines)


def markdown(found: Mapping[str, Any]) -> str:
    """Return the tables of the newest card, torch and commit in a result, *found*, for a README."""
    card, torch, _, code = found["config"]["newest"].split(" | ")
    figures = found["figures"][found["config"]["newest"]]
    parts = [f"Not run on a GPU since {code[:7]}: {card}, {torch}. `make gpu-check` runs it."]
    for family in (family for family in figures if family in FAMILIES):
        lines = [HEAD, ["---"] * len(HEAD), *(cells for cells in rows(figures[family]) if cells[1] != MISSING)]
        parts += [f"{FAMILIES[family]}:", "\n".join(f"| {' | '.join(cells)} |" for cells in lines)]
        told = [f"- {what}: {said}" for what, said in checks(figures[family]) if said != MISSING]
        missing = [name for name in (*ROWS, *CHECKS) if name not in figures[family]]
        parts.append("\n".join(told + [f"- not measured: {'; '.join(missing)}"] * bool(missing)))
    return "\n\n".join(parts)
