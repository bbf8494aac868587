"""What the driver waits for, in words, and how long something may take to happen before the run is lost."""

from collections.abc import Collection, Mapping

from pipeline.cluster.on_ray import machines
from pipeline.cluster.on_ray.fleet import Stage
from pipeline.cluster.pace import FIRST_DEADLINE
from pipeline.cluster.protocol import Snapshot
from pipeline.config.schema import ClusterConfig

OPENING = 3600.0  # seconds for a coordinator to list what is committed
SLACK = 60.0  # seconds beyond the time in which others would have found that nothing happens
WORK = {  # what the members at a stage are waited for
    Stage.running: "to draw and store",
    Stage.loading: "to load the model",
    Stage.drawing: "to draw the evidence",
    Stage.preparing: "to prepare the recipe",
    Stage.starting: "to start",
}


def longest(cluster: ClusterConfig, stages: Collection[Stage], snapshot: Snapshot | None, opening: bool) -> float:
    """Seconds after which something must have happened: a worker died, or was found to hang and killed.

    *stages* are those at which workers are; *opening* says that a coordinator lists what is committed.
    """
    bounds = [cluster.startup_timeout]  # where nobody works, for machines
    if {Stage.preparing, Stage.drawing, Stage.loading} & set(stages):
        bounds.append(cluster.load_timeout)
    if Stage.running in stages:
        bounds.append(snapshot.patience if snapshot is not None else FIRST_DEADLINE)
    if opening:
        bounds.append(OPENING)
    return max(bounds) + SLACK


def waited_for(
    stages: Mapping[Stage, int],
    snapshot: Snapshot | None,
    silent: float | None,
    opening: bool,
    needs: machines.Needs,
) -> str:
    """Say what is waited for: *stages* has the workers at each; *silent* is None where the coordinator has answered."""
    parts = []
    if silent is not None:
        parts.append(f"the coordinator to {'list what is committed' if opening else 'answer'}")
    for stage, what in WORK.items():
        number = stages.get(stage, 0)
        if number:
            parts.append(f"{number} worker{'s' * (number != 1)} {what}")
    if stages.get(Stage.starting):
        parts[-1] += f" (each needs {needs}; the cluster has {machines.resources()})"
    if snapshot is not None and snapshot.in_doubt:
        parts.append(f"storage to say whether {snapshot.in_doubt} shards are committed")
    return ", ".join(parts) or "workers"
