"""The Ray cluster as machines with room for workers: its slots, its losses.

Knows nothing of shards. Ray's private interfaces are used here and in ``joining``, and nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    WorkerCrashedError,
)

from pipeline.config.schema import Config, Device, DType
from pipeline.errors import ConfigError
from pipeline.models.dtype import fast_dtype

# A process or machine is gone: replace it. Deliberately not RayTaskError, which is an error raised by code, ours or the
# user's, and must show; nor ObjectLostError, which we cannot cause, because no pixels go through the object store.
DEATHS = (RayActorError, NodeDiedError, WorkerCrashedError, OutOfMemoryError, LocalRayletDiedError)


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


def fast_dtype_of_workers(config: Config) -> DType:
    """What a device that a worker would get does fast; ``ConfigError`` where none is to be had in time."""
    wanted = needs(config)
    asked = ray.remote(fast_dtype).options(**wanted.options()).remote(wanted.device)
    ended, _ = ray.wait([asked], timeout=config.cluster.startup_timeout)
    if not ended:
        raise ConfigError(
            f"model.dtype: auto asks a worker's device, but no room for {wanted} came free in "
            f"{config.cluster.startup_timeout:g} s (cluster.startup_timeout); the cluster has {resources()}"
        )
    return DType(ray.get(asked))


def slots(wanted: Needs) -> int:
    """Workers that the cluster has room for now, on machines that will stay."""
    draining = draining_nodes()
    return sum(wanted.slots(node["Resources"]) for node in _alive() if node["NodeID"] not in draining)


def resources() -> str:
    """What the cluster has, for messages."""
    total = ray.cluster_resources()
    return ", ".join(f"{total[kind]:g} {kind}s" for kind in ("CPU", "GPU") if kind in total) or "nothing"


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
