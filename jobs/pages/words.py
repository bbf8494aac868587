"""Tables of words: which are proved by drawing, which encoders' scores find, and what the gate does with them."""

from pathlib import Path

from jobs.pages.table import ERASURE, SPEED, made_by, markdown, of, result


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
