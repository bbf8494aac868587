"""The Ray cluster as machines with room for workers: its slots, its losses.

Knows nothing of shards. Ray's private interfaces are used here, in ``joining`` and in ``starting``, and nowhere
else.
"""

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from pipeline.cluster.limits import limit_of_processes
from pipeline.config.schema import Config, Device, DType
from pipeline.errors import ClusterError, ConfigError
from pipeline.models.compiling import Hardware, hardware

# A process or machine is gone: replace it. Deliberately not RayTaskError, which is an error raised by code, ours or the
# user's, and must show; nor ObjectLostError, which we cannot cause, because no pixels go through the object store.
DEATHS = (RayActorError, NodeDiedError, WorkerCrashedError, OutOfMemoryError, LocalRayletDiedError)
_BEGUN = time.time()  # what Ray's logs say of earlier does not concern this run
LONGEST_WORD = 300  # characters of what is quoted from a log


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The resources of one worker."""

    device: str  # "cuda" or "cpu"
    cpus: int

    def options(self) -> dict[str, Any]:
        """Options of the worker's actor. Without ``num_cpus`` an actor with a GPU would hold one CPU for life."""
        return {"num_gpus": 1, "num_cpus": self.cpus} if self.device == "cuda" else {"num_cpus": self.cpus}

    def slots(self, resources: Mapping[str, float]) -> int:
        """Workers that a machine with these resources has room for."""
        by_cpu = int(resources.get("CPU", 0) // self.cpus) if self.cpus else None
        if self.device == "cpu":
            return by_cpu or 0
        gpus = int(resources.get("GPU", 0))
        return gpus if by_cpu is None else min(gpus, by_cpu)

    def __str__(self) -> str:
        return f"{'1 GPU and ' if self.device == 'cuda' else ''}{self.cpus} CPU{'s' * (self.cpus != 1)}"


def needs(config: Config) -> Needs:
    """What each worker asks for: on GPUs one of them, on CPUs as many as it has threads."""
    device = config.cluster.device
    gpus = any(node["Resources"].get("GPU", 0) for node in _alive())
    if device is Device.auto:
        device = Device.cuda if gpus else Device.cpu
    cpus = config.cluster.cpus_per_worker
    return Needs(device=device.value, cpus=config.cluster.threads_per_worker if cpus is None else cpus)


def hardware_of_workers(config: Config) -> Hardware:
    """What a device that a worker would get can do; ``ConfigError`` where none is to be had in time."""
    wanted = needs(config)
    asked = ray.remote(hardware).options(**wanted.options()).remote(wanted.device)
    ended, _ = ray.wait([asked], timeout=config.cluster.startup_timeout)
    if not ended:
        key = "model.dtype" if config.model.dtype is DType.auto else "generation.compile"
        raise ConfigError(
            f"{key}: auto asks a worker's device, but no worker of {wanted} came up in "
            f"{config.cluster.startup_timeout:g} s (cluster.startup_timeout); the cluster has {resources()}"
        )
    try:
        found: Hardware = ray.get(asked)
    except RayTaskError as error:
        refuse_lacking(error)
        raise
    return found


def refuse_lacking(error: BaseException) -> None:
    """Raise ``ClusterError`` if what Ray says of a worker that could not begin is that its machine lacks a module."""
    text = str(error)
    module, machine = re.search(r"No module named '([^']+)'", text), re.search(r"\bip=([^,)]+)", text)
    if module is not None:
        raise ClusterError(
            f"the machine {machine[1] if machine else 'of a worker'} has no Python module {module[1]!r}: install "
            "Lacuna and what it needs in the environment in which `ray start` ran on every machine, or have a job "
            "bring them: ray job submit --working-dir . --runtime-env-json '{\"pip\": [...]}' -- python "
            "jobs/generate.py CONFIG"
        )


def slots(wanted: Needs) -> int:
    """Workers that the cluster has room for now, on machines that will stay."""
    draining = draining_nodes()
    return sum(wanted.slots(node["Resources"]) for node in _alive() if node["NodeID"] not in draining)


def resources() -> str:
    """What the cluster has, what of it is free, and what workers on this machine died of, for messages."""
    total, free = ray.cluster_resources(), ray.available_resources()
    kinds = [kind for kind in ("CPU", "GPU") if kind in total]
    said = ", ".join(f"{total[kind]:g} {kind}s, {free.get(kind, 0):g} of them free" for kind in kinds) or "nothing"
    words = last_words()
    return f"{said}; {words}" if words else said


def last_words() -> str | None:
    """What the newest process that failed on this machine wrote before it died, and what may be short, or None.

    Before a worker has a log of its own its words are in that of its machine's raylet.
    """
    folder = Path(ray._private.worker._global_node.get_logs_dir_path())
    logs = [path for path in (folder / "raylet.err", *folder.glob("worker-*.err")) if _spoken(path)]
    said = []
    if logs:
        newest = max(logs, key=os.path.getmtime)
        said.append(f"a worker here said: {_gist(newest)[:LONGEST_WORD]} ({newest})")
    if limit := limit_of_processes():
        said.append(limit)
    return "; ".join(said) or None


def _spoken(path: Path) -> bool:
    return path.exists() and path.stat().st_mtime > _BEGUN and _gist(path) != ""


def _gist(path: Path) -> str:
    """The line of a log that says why: the last one of a Python traceback, else the first."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line.strip() for line in lines if line.strip() and not line.startswith((":job_id:", ":actor_name:"))]
    if not lines:
        return ""
    return lines[-1] if lines[0].startswith("Traceback") else re.sub(r"^\[.*?\] (\S+:\d+: )?", "", lines[0])


def alive_nodes() -> set[str]:
    """Ids of the machines that are part of the cluster."""
    return {node["NodeID"] for node in _alive()}


def draining_nodes() -> set[str]:
    """Ids of the machines that will go away soon; private to Ray, whose Train and Data ask the same way."""
    return set(ray._private.state.state.get_draining_nodes())


def here() -> str:
    """Id of the driver's machine."""
    return str(ray.get_runtime_context().get_node_id())


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
