"""The Ray cluster as machines with room for workers: joining or starting it, its slots, its losses.

Knows nothing of shards. Ray's private interfaces are used here and nowhere else.
"""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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

log = logging.getLogger(__name__)

# A process or machine is gone: replace it. Deliberately not RayTaskError, which is an error raised by code, ours or the
# user's, and must show; nor ObjectLostError, which we cannot cause, because no pixels go through the object store.
DEATHS = (RayActorError, NodeDiedError, WorkerCrashedError, OutOfMemoryError, LocalRayletDiedError)

OBJECT_STORE = 128 * 2**20  # bytes; of a Ray that we start: prompts and reports are all that passes through it
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else every start warns of a future change
    "RAY_DEDUP_LOGS": "1",
}


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


@contextmanager
def joined() -> Iterator[None]:
    """Join the Ray that ``RAY_ADDRESS``, the job or this machine offers, or start one here; leave it at the end.

    Where this process has joined one, it stays with that. No runtime environment is given: a job has one already, and
    two that conflict raise.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    ray._private.worker.print_to_stdstream = _to_debug_log
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    address = os.environ.get("RAY_ADDRESS")
    _check_address(address)
    try:
        ray.init(address="auto", **options)
    except ConnectionError:
        if address is not None:
            raise ConfigError(
                f"RAY_ADDRESS={address}: that Ray does not let us in; if it asks for a token, set RAY_AUTH_MODE=token"
            ) from None
        ray.init(include_dashboard=False, object_store_memory=OBJECT_STORE, **options)
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Refuse at once what Ray itself would give up on after minutes."""
    if address in (None, "", "auto", "local"):
        return
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"RAY_ADDRESS={address}: expected HOST:PORT of a Ray head, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConfigError(
            f"RAY_ADDRESS={address}: no Ray answers there ({error.strerror or error}); start one, or unset RAY_ADDRESS"
        ) from None


def _to_debug_log(data: dict[str, Any], ignore_prefix: bool = False) -> None:
    """Take the place of Ray's printing, even with ``log_to_driver=False``, of a paragraph on stdout per dead worker:
    the run says so itself, in a line."""
    for line in data["lines"]:
        log.debug("%s", line)


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


def is_alive(node: str) -> bool:
    """Is the machine with this id part of the cluster?"""
    return any(alive["NodeID"] == node for alive in _alive())


def draining_nodes() -> set[str]:
    """Ids of the machines that will go away soon; private to Ray, whose Train and Data ask the same way."""
    return set(ray._private.state.state.get_draining_nodes())


def here() -> str:
    """Id of the driver's machine."""
    return str(ray.get_runtime_context().get_node_id())


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
