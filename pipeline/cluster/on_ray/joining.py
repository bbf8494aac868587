"""Into Ray: which cluster a run joins, or the one that it starts on this machine; what cannot be joined, in one line.

Ray itself tries for minutes to reach what is not there, and says so over and over: so it is asked first whether there
is a head, which takes seconds. Its private interfaces are used here, in ``machines`` and in ``starting``, and nowhere
else.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped] # comes with ray[default]
import ray
from ray._common.utils import get_ray_address_file
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.job_config import JobConfig

from pipeline.cluster.limits import limit_of_processes
from pipeline.cluster.on_ray import starting
from pipeline.errors import ConfigError

log = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds for a head to answer: on a machine at full load 10 were too few; nobody there is told at once
SECONDS_BETWEEN_LOOKS = 1.0  # at the processes of a Ray that we started, and
LOOKS_PER_QUESTION = 10  # whether the head still answers
ABSENCE = 40.0  # seconds that a head may not answer: after 60 Ray ends the process that waits for it
VITAL = frozenset({"raylet", "gcs_server"})  # the agents take the raylet along; without the others a run goes on
MACHINE_GONE = "this machine is no part of it any more"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else every start warns of a future change
    "RAY_DEDUP_LOGS": "1",
}


@contextmanager
def joined(gone: Callable[[str], None]) -> Iterator[str | None]:
    """Join the Ray that ``RAY_ADDRESS``, the job or a ``ray start`` on this machine offers, or start one; leave it at
    the end. Yields its address, or None for one that was started here. ``ConfigError`` where it can be neither joined
    nor started; ``KeyboardInterrupt`` also for a SIGTERM that comes meanwhile. *gone* is called, on another thread,
    with the reason why it is of no more use.

    A Ray that another program has started for itself is left alone: it would end with that program. No runtime
    environment is given: a job has one already, and two that conflict raise.
    """
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    ray._private.worker.print_to_stdstream = _to_debug_log
    if "RAY_ENABLE_UV_RUN_RUNTIME_ENV" not in os.environ:
        # Else, below `uv run`, workers would be started by another `uv run`, in a copy of this folder, where it fails.
        ray._private.ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
    logging.getLogger("ray").setLevel(logging.ERROR)  # else it praises its token
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    options["job_config"] = _JobConfig()
    address = head()
    with ExitStack() as token:
        try:
            if address is not None:
                ray.init(address=address, **options)
            else:
                token.enter_context(starting.own_token())
                starting.start(**options)
        except SystemExit:  # what Ray makes of SIGTERM while it starts, once it has ended its processes
            raise KeyboardInterrupt from None
        except ConfigError:
            raise
        except Exception as error:  # Ray raises any kind here, Exception itself included
            why = " ".join(str(error).split())[:300] or type(error).__name__
            if address is not None:
                raise ConfigError(f"the Ray at {address} cannot be joined: {why}") from None
            reasons = [why, *filter(None, [limit_of_processes()]), starting.WITHOUT]
            raise ConfigError(f"Ray does not start on this machine: {'; '.join(reasons)}") from None
        done = threading.Event()
        threading.Thread(target=_watch, args=(gone, done), daemon=True).start()
        try:
            yield address
        finally:
            done.set()
            ray.shutdown()


def head() -> str | None:
    """Return HOST:PORT of the head to join, which has answered, or None where Ray is to be started.

    Raises ``ConfigError`` where ``RAY_ADDRESS`` names one that cannot be joined.
    """
    asked = os.environ.get("RAY_ADDRESS", "")
    if asked == "local":
        return None
    if asked in ("", "auto"):
        found: str | None = ray._private.utils.read_ray_address()  # what the last `ray start` left; it may be dead
        if found is not None and os.stat(get_ray_address_file(None)).st_uid != os.getuid():
            log.info("the Ray that another user has started here, %s, is left alone", found)
            found = None
        if found is not None and (why := unusable(found)) is not None:
            log.warning("the Ray that was started here, %s, is not used: %s", found, why)
            found = None
        if asked == "auto" and found is None:
            raise ConfigError("RAY_ADDRESS=auto: no Ray that this user's `ray start` began answers here")
        return found
    host, _, port = asked.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise ConfigError(f"RAY_ADDRESS={asked}: expected HOST:PORT of a Ray head, such as 10.0.0.1:6379")
    if (why := unusable(asked)) is not None:
        raise ConfigError(f"RAY_ADDRESS={asked}: {why}")
    return asked


def unusable(address: str, node: str | None = None) -> str | None:
    """Say why there is no joining the head at *address*, or None where it answers as it should; with *node*, the hex id
    of a machine, also why that is no part of its cluster any more."""
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    asked = CheckAliveRequest(node_ids=[] if node is None else [bytes.fromhex(node)])
    with init_grpc_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = NodeInfoGcsServiceStub(channel).CheckAlive(asked, timeout=PATIENCE)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                # The token that lies in ~/.ray is sent only to a head that asks for one: with a head that asks for none
                # its workers would be refused by us.
                if "RAY_AUTH_MODE" not in os.environ and maybe_enable_token_auth_if_token_available(False):
                    return unusable(address, node)
                return "that Ray asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as it was started with"
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return "that is not the port of a Ray head, which is 6379 unless it was started with another"
            return "no Ray answers there; start one, or unset RAY_ADDRESS"
    if answer.ray_version and answer.ray_version != ray.__version__:
        return f"that is Ray {answer.ray_version}, and this is {ray.__version__}"
    if node is not None and not all(answer.raylet_alive):
        return MACHINE_GONE
    return None


class _JobConfig(JobConfig):
    """Ray has workers look for modules first where the driver stands, so that a ``pipeline.py`` there would take our
    place: they look where this package is instead, and for the user's own classes see ``registry``."""

    def _serialize(self) -> Any:
        root, here = str(Path(__file__).parents[3]), os.path.abspath(os.curdir)
        paths: list[str] = self._py_driver_sys_path
        paths[:] = [root if path == here else path for path in paths]
        return super()._serialize()


def _watch(gone: Callable[[str], None], done: threading.Event) -> None:
    """Say so when Ray is gone, which never says so itself: it ends this process after a minute without its head, and
    leaves it waiting for ever without its raylet.

    On a thread of its own, because whoever asks Ray for anything meanwhile is kept waiting.
    """
    context, processes = ray.get_runtime_context(), ray._private.worker._global_node
    answered, looks = time.monotonic(), 0
    while not done.wait(SECONDS_BETWEEN_LOOKS):
        looks += 1
        dead = {kind for kind, _ in processes.dead_processes()} & VITAL
        if dead:
            return gone(f"Ray's {min(dead)} has died")
        if looks % LOOKS_PER_QUESTION:
            continue
        why = unusable(context.gcs_address, context.get_node_id())
        if why is None:
            answered = time.monotonic()
        elif why == MACHINE_GONE or time.monotonic() - answered > ABSENCE:
            return gone(f"the Ray at {context.gcs_address} is lost: {why}")
    return None


def _to_debug_log(data: dict[str, Any], ignore_prefix: bool = False) -> None:
    """Take the place of Ray's printing, even with ``log_to_driver=False``, of a paragraph on stdout per dead worker:
    the run says so itself, in a line."""
    for line in data["lines"]:
        log.debug("%s", line)
