"""Tables of speed, memory and survival."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.gpu.table import markdown as gpu_tables
from jobs.pages.table import SPEED, interval, made_by, markdown, place, result


def speed(page: Path) -> str:
    names = (f"{SPEED}/bench.json", f"{SPEED}/bench_without_ray.json")
    rows = []
    for name in names:
        figures = result(name)["figures"]
        for ours, others in figures["over"].items():
            for other, ratio in others.items():
                rate = figures["sides"].get(ours, {}).get("median")
                said = {"value": ratio["ratio"], "low": ratio["low"], "high": ratio["high"]}
                rows.append([ours, other, interval(said, 2), "" if rate is None else f"{rate:.1f}"])
    head = ["ours", "over", "times as fast (95 % over the repeats)", "images/s of ours"]
    return markdown(head, rows) + made_by(page, *names)


def cease_cost(page: Path) -> str:
    name = f"{SPEED}/bench_cease.json"
    said = {
        "shut": "no sample concerned",
        "listens": "none concerned, attention asked",
        "open": "every sample concerned",
    }
    figures = {key: value for key, value in result(name)["figures"].items() if key != "identical"}
    transcribed = any("least" in value for value in figures.values())  # of medians, without an interval
    low, high, ends = ("least", "most", "least and most of the repeats") if transcribed else ("low", "high", "95 %")
    rows = []
    for key, value in figures.items():
        clock, _, side = key.partition(" ")
        rows.append([said[side], clock, f"{value['ratio']:.2f} ({value[low]:.2f} to {value[high]:.2f})"])
    return markdown(["", "clock", f"time to none ({ends})"], rows) + made_by(page, name)


def growth(page: Path) -> str:
    """CPU seconds of an edit, or what a method adds to a batch, by number of concepts."""
    name = f"{SPEED}/bench_concepts.json"
    found: dict[str, dict[str, Any]] = result(name)["figures"]["methods"]
    counts = sorted({int(count) for cells in found.values() for count in cells})

    def cell(values: Mapping[str, Any] | None) -> str:
        if values is None:
            return ""
        if "refused" in values:
            return "refused"
        cost = f"{values['share']:+.1%}" if "share" in values else f"{values['seconds']:.2f} s"
        return f"{cost}, {values['mb']:.0f} MB"

    rows = [[f"`{method}`", *(cell(cells.get(str(count))) for count in counts)] for method, cells in found.items()]
    return markdown(["method", *(f"{count} concept{'s' * (count > 1)}" for count in counts)], rows) + made_by(
        page, name
    )


def coordinator(page: Path) -> str:
    name = f"{SPEED}/bench_coordinator.json"
    figures = result(name)["figures"]
    keys = ("mean_ms", "late_ms", "longest_ms", "work_mean_ms", "work_longest_ms")
    rows = [
        [when, method, f"{found['calls']:,}", *(f"{found[key]:.2f}" for key in keys)]
        for when, methods in figures["calls"].items()
        for method, found in methods.items()
    ]
    head = ["when", "call", "calls", "mean, ms", "99.9 % below", "longest", "mean of work", "longest of work"]
    more = (
        f"\n\nOpened in {figures['opened']:.1f} s; {figures['peak_mb']:,.0f} MB at most, with the played world. "
        f"After the loss storage was asked {figures['questions']} times, about {figures['asked']:,} shards in all; "
        f"in doubt for {figures['in_doubt']:.1f} s, in which all others are answered."
    )
    return markdown(head, rows) + more + made_by(page, name)


def every_figure(name: str, command: str, missing: str = "Not measured yet") -> Callable[[Path], str]:
    """All figures of a results file by the names that they have there; or that *command* has not measured them."""

    def leaves(value: Any) -> Iterator[tuple[list[str], float]]:
        if isinstance(value, Mapping):
            for key, part in value.items():
                yield from (([key, *names], figure) for names, figure in leaves(part))
        elif isinstance(value, int | float):
            yield [], value

    def render(page: Path) -> str:
        if not place(name).exists():
            return f"{missing}; `{command}` measures it."
        rows = [[", ".join(names), f"{figure:,.4g}"] for names, figure in leaves(result(name)["figures"])]
        return markdown(["what", "figure"], rows) + made_by(page, name)

    return render


def gpu(page: Path) -> str:
    name = f"{SPEED}/gpu_check.json"
    return gpu_tables(result(name)) + made_by(page, name)


def small(page: Path) -> str:
    """Measurements of a figure or two each."""
    plan, chaos, make = (f"{SPEED}/{name}.json" for name in ("bench_plan", "chaos", "make_run"))
    rows = [
        ["a plan over parquet", plan_said(result(plan))],
        ["kills", chaos_said(result(chaos))],
        ["the quickstart in a fresh clone, installs included", f"{result(make)['figures']['seconds']:.0f} s"],
    ]
    return markdown(["what", "found"], rows) + made_by(page, plan, chaos, make)


def plan_said(found: Mapping[str, Any]) -> str:
    figures = found["figures"]
    return (
        f"{found['config']['rows']:,} rows: {figures['total']:.1f} s with imports, {figures['peak_mb']:.0f} MB at most"
    )


def chaos_said(found: Mapping[str, Any]) -> str:
    figures = found["figures"]
    same = "all bytes the undisturbed run's" if not figures["problems"] else f"{figures['problems']} problems"
    return f"{figures['kills']} kills: {same}, {figures['drawn_twice']} of {figures['pictures']:,} pictures drawn twice"
