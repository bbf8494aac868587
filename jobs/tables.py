"""``make tables``: renders the tables of the READMEs from the results of measurements, in place.

    python jobs/tables.py [--check] [PAGE ...]

A table stands between two lines of a page, ``<!-- table: NAME -->`` and ``<!-- end -->``; what is between them is
replaced. Under a table stands what made it: the results file, day and commit, machine and command. ``--check`` writes
nothing, and exits with 1 where a page is not what its results say. Results are ``pipeline/evaluation/results/*.json``
and ``jobs/results/*.json``; what they hold is described in ``pipeline/evaluation/results/__init__.py``.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from jobs.gpu.table import markdown as gpu_tables
from jobs.refusal import in_one_line
from pipeline.errors import ConfigError, nearest
from pipeline.evaluation.results import ROOT, read_result

PAGES = (
    "README.md", "pipeline/diorama/weights/README.md", "pipeline/erasure/README.md", "pipeline/evaluation/README.md",
    "jobs/README.md",
)  # fmt: skip
ERASURE, SPEED = "pipeline/evaluation/results", "jobs/results"
_MARKED = re.compile(r"(<!-- table: ([^\n]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_SPEED_FOR_MANY = ("speed for many", "speed for many + no augmentation")
_DEFAULT = "uce 1000 + cease"  # the recommended recipe, by its name in configs/evaluation/*.yaml

Row = Sequence[str]


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


def result(name: str) -> dict[str, Any]:
    return read_result(ROOT / name)


def markdown(head: Row, rows: Sequence[Row]) -> str:
    rule = "|" + "---|" * len(head)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(cells)} |" for cells in rows)])


def made_by(page: Path, *names: str) -> str:
    """The lines under a table: a line for each results file that it is rendered from."""
    lines = []
    for name in names:
        found = result(name)
        link = f"[{Path(name).name}]({os.path.relpath(ROOT / name, page.parent)})"
        here = found["environment"]
        machine = [here.get("gpu") or here.get("cpu"), f"{here['cores']} cores" if "cores" in here else None]
        machine += [f"load {here['load']:g} before" if "load" in here else None]
        said = ", ".join(part for part in machine if part)
        lines.append(f"{link}: {measured(found)}; {said + '; ' if said else ''}`{found['command']}`")
    return "\n\n" + "  \n".join(lines)


def measured(found: Mapping[str, Any]) -> str:
    """Day and commit, and whether the figures were transcribed."""
    version = found["version"]
    commit = (
        f"{version['commit'][:7]}{' with changes' if version.get('changed') else ''}" if "commit" in version else "?"
    )
    return f"{found['date']}, {commit}{', transcribed' if found.get('transcribed') else ''}"


def of(pair: Sequence[int] | None) -> str:
    return "" if pair is None else f"{pair[0]:,} of {pair[1]:,}"


def interval(values: Mapping[str, float], digits: int, scale: float = 1.0) -> str:
    """``value (low to high)``, as far as the ends are known."""
    said = {key: f"{scale * value:.{digits}f}" for key, value in values.items()}
    if "high" in said:
        return f"{said['value']} ({said['low']} to {said['high']})"
    return f"{said['value']} (at least {said['low']})" if "low" in said else said["value"]


# --- the built-in model, erased -------------------------------------------------------------------------------------

_CELLS = {
    "named": "named", "synonym": "unlisted synonym", "implied": "implied", "scene": "in a scene",
    "neighbour": "neighbour kept", "unrelated": "unrelated kept", "beside": "other of the scene kept",
    "embeddings": "attack by embeddings", "attack": "attack by search",
}  # fmt: skip


def erasure_table(name: str) -> Callable[[Path], str]:
    """All tasks of an evaluation together, a row a recipe."""

    def render(page: Path) -> str:
        recipes: dict[str, Any] = result(name)["figures"]["all"]
        more = {
            "H_o": ("mean H_o, % (95 %)", lambda value: interval(value, 1, 100)),
            "time": ("time", lambda value: f"{value['concerned']:.2f}"),
        }
        return markdown(*_rows([([recipe], row) for recipe, row in recipes.items()], ["recipe"], more)) + made_by(
            page, name
        )

    return render


def erasure_tasks(name: str, recipes: Sequence[str]) -> Callable[[Path], str]:
    """An evaluation task by task, of these *recipes* alone."""

    def render(page: Path) -> str:
        tasks: dict[str, dict[str, Any]] = result(name)["figures"]["tasks"]
        rows = [
            ([task, recipe], found[recipe]) for task, found in tasks.items() for recipe in recipes if recipe in found
        ]
        more = {
            "H_o": ("H_o, % (95 %)", lambda value: interval(value, 1, 100)),
            "outside": ("outside, dB", lambda value: f"{value:.1f}"),
        }
        return markdown(*_rows(rows, ["erased", "recipe"], more)) + made_by(page, name)

    return render


def _rows(
    found: Sequence[tuple[Row, Mapping[str, Any]]], head: Row, more: Mapping[str, tuple[str, Callable[[Any], str]]]
) -> tuple[Row, Sequence[Row]]:
    """Head and rows of a table: the cells that any row has, then of *more* (title, how to say) what any row has."""
    cells = [cell for cell in _CELLS if any(cell in row for _, row in found)]
    others = [key for key in more if any(key in row for _, row in found)]
    rows = [
        [*names, *(of(row.get(cell)) for cell in cells), *(more[k][1](row[k]) if k in row else "" for k in others)]
        for names, row in found
    ]
    return [*head, *(_CELLS[cell] for cell in cells), *(more[key][0] for key in others)], rows


def differences(page: Path) -> str:
    """By how many points of H_o cease alone is ahead of the others."""
    name = f"{ERASURE}/erasure.json"
    found: dict[str, dict[str, float]] = result(name)["figures"]["differences"]["cease"]
    rows = [
        [other, "{value:.2g} ({low:.2g} to {high:.2g})".format(**{key: 100 * end for key, end in value.items()})]
        for other, value in found.items()
    ]
    return markdown(["ahead of", "points of H_o (95 %)"], rows) + made_by(page, name)


def diorama(page: Path) -> str:
    """The scores of the built-in model, as its card has them."""
    from pipeline.diorama.suite.card import from_json, scores_text

    name = f"{ERASURE}/diorama.json"
    found = result(name)
    return scores_text(from_json(found["figures"]) | {"settings": found["config"]}).rstrip() + made_by(page, name)


# --- CEASE part by part ---------------------------------------------------------------------------------------------


def methods(page: Path) -> str:
    """No measurement: what methods require and families offer."""
    from pipeline.erasure.table import family_table

    return family_table().rstrip()


def ablation(page: Path) -> str:
    name = f"{ERASURE}/ablate_cease.json"
    columns = ("plain", "synonym", "implied", "attack", "other", "apart", "apart20", "same", "score")
    rows = []
    for variant, row in result(name)["figures"].items():
        cells = ["" if c not in row else f"{row[c]:.1f}" if c == "apart" else f"{row[c]:.2f}" for c in columns]
        rows.append([variant, *cells])
    return markdown(["variant", *columns], rows) + made_by(page, name)


def gates(page: Path) -> str:
    name = f"{ERASURE}/ablate_gates.json"
    counts, edges = ("asked, seen", "asked, unseen", "neither", "shown unasked"), ("99 % of asked", "most of neither")
    rows = [
        [gate, *(of(row[column]) for column in counts), *(f"{row[c]:.2f}" if c in row else "" for c in edges)]
        for gate, row in result(name)["figures"].items()
    ]
    return markdown(["gate", *counts, *edges], rows) + made_by(page, name)


def words_proved(page: Path) -> str:
    name = f"{ERASURE}/words.json"
    figures = result(name)["figures"]
    by_a, by_b, cost, near = figures["A"], figures["B"], figures["cost"], figures["candidates"]

    def found(group: str) -> str:
        return f"{of(by_a[group]['found'])}, so at least {by_a[group]['at least']:.1%} of others"

    def among(group: str) -> str:
        return ", ".join(f"{of(pair)} at {share}" for share, pair in near[group].items())

    others = by_a["others"]
    rows = [
        ["unlisted synonyms found", found("synonyms")],
        ["scenes that imply a concept found", found("scenes")],
        ["siblings, and their synonyms, opened", of(by_a["siblings"]["opened"])],
        ["other words found", f"{of(others['found'])}, {others['per 1,000 words of a concept']:.1f} in 1,000"],
        ["other words found of which B says so too", f"{len(by_b['of others confirmed'])}"],
        ["all that A found of which B says so too", of(by_b["confirmed"])],
        ["synonyms among the nearest for the encoder", among("synonyms")],
        ["scenes among the nearest for the encoder", among("scenes")],
        ["pictures", f"{cost['pictures']:,} of {cost['words']:,} words; {cost['saved']:.0%} saved by stopping early"],
        ["minutes of a worker", f"{cost['worker minutes']:.0f}"],
    ]
    return markdown(["what", "found"], rows) + made_by(page, name)


def words_scored(page: Path) -> str:
    """What text encoders' scores find of kinds: as candidates, at rates of error, and where it is decided."""
    names = [f"{SPEED}/score_words_{name}.json" for name in ("clip", "diorama", "minilm")]
    found, made, scored = [result(name) for name in names], [], []
    for one in found:
        encoder = one["config"]["encoder"].split(",")[0]
        for score, figures in one["figures"]["score"].items():
            near = " / ".join(f"{figures[f'candidates at {share}']:.2f}" for share in ("1%", "3%", "5%"))
            rates = [f"{figures[r]:.2f}, {figures[f'{r}, siblings']:.1%}" for r in ("1 in 100", "1 in 300")]
            pooled = f"{figures['1 in 1,000 pooled']:.2f}, {figures['1 in 1,000 pooled, siblings']:.1%}"
            scored.append([encoder, score, near, *rates, pooled])
        for how, figures in one["figures"]["decided"].items():
            cells = [f"{figures[key]:.2f}" for key in ("recall", "median", "worst")]
            cells += [f"{figures['siblings']:.1%}", f"{figures['others in 1,000']:.2f}"]
            made.append([encoder, how, *cells])
    sizes = "; ".join(
        "{encoder}: {words:,} words, {concepts} concepts, {kinds} kinds, {siblings} siblings".format(**one["config"])
        for one in found
    )
    head = ["encoder", "score", "candidates at 1 / 3 / 5 %", "1 in 100, siblings", "1 in 300", "1 in 1,000, pooled"]
    decided = ["encoder", "decided by", "recall", "median", "worst", "siblings opened", "others in 1,000"]
    return f"{markdown(head, scored)}\n\n{markdown(decided, made)}\n\n{sizes}." + made_by(page, *names)


def words_compared(page: Path) -> str:
    """What scores of other vectors, and heads, find of kinds, and which is chosen on other encoders."""
    name = f"{SPEED}/compare_scorers.json"
    figures = result(name)["figures"]
    rows = []
    for encoder, scorers in figures["scorers"].items():
        for scorer, found in scorers.items():
            rates = [f"{found[r]:.2f}, {found[f'{r}, siblings']:.1%}" for r in ("1 in 100", "1 in 300")]
            pooled = f"{found['1 in 1,000 pooled']:.2f}, {found['1 in 1,000 pooled, siblings']:.1%}"
            chosen = "chosen" if scorer == figures["chosen"][encoder] else ""
            rows.append([encoder, scorer, f"{found['candidates at 3%']:.2f}", *rates, pooled, chosen])
    head = ["encoder", "scorer", "candidates at 3 %", "1 in 100, siblings", "1 in 300", "1 in 1,000, pooled"]
    return markdown([*head, "on the other two"], rows) + made_by(page, name)


def gate_numbers(page: Path) -> str:
    """What the gate's numbers that are set by hand decide, at half and twice their values."""
    name = f"{SPEED}/vary_gate.json"
    figures = result(name)["figures"]
    words = [
        [encoder, row["number"], f"{row['value']:.3g}", f"{row['recall']:.3f}", f"{row['means']:.3f}",
         f"{row['siblings']:.1%}", f"{row['others in 1,000']:.2f}"]
        for encoder, rows in figures["words"].items()
        for row in rows
    ]  # fmt: skip
    whole = [
        [row["number"], f"{row['value']:.3g}", f"{row['asked']:.3f}", f"{row['others in 1,000']:.2f}"]
        for row in figures["whole prompts"]
    ]
    head = ["encoder", "number", "value", "kinds opened", "of them meant", "siblings opened", "others in 1,000"]
    prompts = markdown(["number", "value", "asking prompts opened", "others in 1,000"], whole)
    return f"{markdown(head, words)}\n\n{prompts}" + made_by(page, name)


def words_unlisted(page: Path) -> str:
    """What the gate does with words that no list, dictionary or vocabulary has."""
    names = [f"{SPEED}/unlisted_words_{name}.json" for name in ("diorama", "minilm")]
    rows = []
    for found in map(result, names):
        for split, groups in found["figures"].items():
            rows += [
                [found["config"]["encoder"], split, what, of(row["opened"]), ", ".join(row["which"])]
                for what, row in groups.items()
            ]
    return markdown(["encoder", "concepts", "words", "opened", "which"], rows) + made_by(page, *names)


# --- speed, memory, survival ----------------------------------------------------------------------------------------


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
        if not (ROOT / name).exists():
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


# --- what the first page shows --------------------------------------------------------------------------------------


def headline(page: Path) -> str:
    """At most eight rows: a figure, what it is of, the command that measures it again, and when it was measured."""
    erasure, attack = result(f"{ERASURE}/erasure_gate.json"), result(f"{ERASURE}/attack.json")
    on_ray, without_ray = result(f"{SPEED}/bench.json"), result(f"{SPEED}/bench_without_ray.json")
    plan, chaos = result(f"{SPEED}/bench_plan.json"), result(f"{SPEED}/chaos.json")
    none, erased = (erasure["figures"]["all"][recipe] for recipe in ("none", _DEFAULT))
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
         f"{of(searched[_DEFAULT]['attack'])} (unerased {searched['none']['attack'][0]})", attack),
        ("images/s on Ray, to Ray Data's", times(on_ray, "on ray", "ray data"), on_ray),
        ("images/s without Ray, to a tuned diffusers loop's", times(without_ray, "ours", "loop"), without_ray),
        ("a plan over parquet", plan_said(plan), plan),
        ("SIGKILLs of every process of a run", chaos_said(chaos), chaos),
    ]  # fmt: skip
    lines = [[what, figure, f"`{found['command']}`", measured(found)] for what, figure, found in rows]
    return markdown(["what", "figure", "command", "measured"], lines)


TABLES: dict[str, Callable[[Path], str]] = {
    "headline": headline,
    "erasure": erasure_table(f"{ERASURE}/erasure.json"),
    "erasure, calibrated gate": erasure_table(f"{ERASURE}/erasure_gate.json"),
    "erasure by task": erasure_tasks(f"{ERASURE}/erasure_gate.json", [_DEFAULT, "cease"]),
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

if __name__ == "__main__":
    sys.exit(main())
