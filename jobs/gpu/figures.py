"""The figures of one family: their names, in the order in which they are taken, by the process that takes them."""

from collections.abc import Sequence

OURS = (
    "reach", "ours, eager", "cease none, eager", "cease all, eager", "unconcerned, eager",
    "ours, compiled", "cease none, compiled", "cease all, compiled", "unconcerned, compiled",
)  # fmt: skip
DIFFUSERS = ("diffusers, eager", "diffusers, compiled")
AGAIN = ("again, eager", "again, compiled", "again, compiled anew")

# What costs most and tells least comes last: a call may be cut, and another one go on.
STAGES: dict[str, tuple[str, ...]] = {"ours": OURS, "diffusers": DIFFUSERS, "again": AGAIN}
EYES, DETECTORS = "eyes", "detectors"  # in place of a family, its one figure
# While the last ones of their process that compile do so, for long and most of it on one core, the next one imports.
AHEAD = ("cease all, compiled", "diffusers, compiled", "again, compiled anew")
ALL = (*OURS, *DIFFUSERS, *AGAIN)


def asked(figures: Sequence[str], eager: bool) -> list[str]:
    """Return the *figures* without those of what is compiled, where only *eager* ones are asked for."""
    return [figure for figure in figures if not (eager and "compiled" in figure)]
