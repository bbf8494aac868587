"""The Ray that a run starts for itself on this machine: a folder for its sockets, a token, room for its workers.

Ray's private interfaces are used here, in ``joining`` and in ``machines``, and nowhere else.
"""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._common.utils import get_default_ray_temp_dir
from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader, Config

from pipeline.cluster.limits import limits
from pipeline.errors import ConfigError

OBJECT_STORE = 128 * 2**20  # bytes: prompts and reports are all that passes through it
LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107  # bytes of a path to which a socket can be bound
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
MUST_HAVE = 80  # processes and threads left once Ray has started: a worker has about 30, the coordinator too
WITHOUT = "cluster.backend=local does without it"


def start(**options: Any) -> None:
    """Start Ray, which then uses a token of its own (see ``own_token``).

    Raises ``ConfigError`` where there is no folder for it or no room for its workers, and what Ray raises.
    """
    for path in (sys.executable, ray.__file__):  # Ray takes them apart when it starts a worker
        if " " in path:
            raise ConfigError(f"Ray does not start workers where its path has a blank, as {path} has; {WITHOUT}")
    folder = folder_of_ray()
    # "local", because without an address Ray would look for one again, and find a head that does not answer
    ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE, _temp_dir=folder, **options)
    for left, said in limits():
        if left < MUST_HAVE:  # else workers would die at random, whenever one thread more is one too many
            ray.shutdown()
            raise ConfigError(f"Ray has too little room on this machine: {said}; {WITHOUT}")


@contextmanager
def own_token() -> Iterator[None]:
    """Have a Ray that is started meanwhile take its token from the environment, unless the user has settled that.

    Else it writes one into the home folder, which may be no place that can be written, for all users to read.
    """
    if os.environ.get("RAY_AUTH_MODE", "token") != "token" or any(name in os.environ for name in TOKENS):
        yield
        return
    mode = os.environ.get("RAY_AUTH_MODE")
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield
    finally:
        del os.environ["RAY_AUTH_TOKEN"]
        if mode is None:
            os.environ.pop("RAY_AUTH_MODE", None)  # which Ray has set
        AuthenticationTokenLoader.instance().reset_cache()
        Config.initialize("")  # reads the mode again


def folder_of_ray() -> str:
    """Return the folder for Ray's sessions: its default if that can be used, else one in /tmp that is this user's.

    Raises ``ConfigError`` where neither can, or ``RAY_TMPDIR`` asks for one that cannot.
    """
    asked: str = get_default_ray_temp_dir()
    why = _unfit(asked)
    if why is None:
        return asked
    own = f"/tmp/ray-{os.getuid()}"
    if "RAY_TMPDIR" not in os.environ and _unfit(own) is None and os.stat(own).st_uid == os.getuid():
        return own
    raise ConfigError(
        f"Ray does not start on this machine: the folder for its sockets, {asked}, {why}; set RAY_TMPDIR, or TMPDIR, "
        f"to a short folder that is yours; {WITHOUT}"
    )


def _unfit(folder: str) -> str | None:
    """Say why Ray cannot have its sockets below *folder*, which is made if it is not there."""
    socket = f"{folder}/session_0000-00-00_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    if len(os.fsencode(socket)) > LONGEST_SOCKET:
        return f"has too long a path, with which they take {len(os.fsencode(socket))} bytes of {LONGEST_SOCKET}"
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"cannot be made ({error.strerror})"
    return None if os.access(folder, os.W_OK | os.X_OK) else "cannot be written by this user"
