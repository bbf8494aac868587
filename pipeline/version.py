"""Which Lacuna is this? Its version and, where a git checkout or pip's record of the install tells them, its commit and
where that can be had. Knows nothing of corpora: a run records it, so that another version can say who may go on."""

import functools
import json
import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline import __version__


@functools.cache
def this_version(*also: str) -> dict[str, Any]:
    """Return ``version``, and as far as they are known ``commit``, ``origin`` (a URL without user or password) and
    ``changed`` (true: the code, or a checkout's folders *also*, differed from the commit)."""
    return {"version": __version__, **(_of_checkout(Path(__file__).parents[1], also) or _of_install())}


def how_to_get(version: dict[str, Any]) -> str | None:
    """Return the command that installs what ``this_version`` told of another Lacuna; None where too little is known."""
    commit, origin = version.get("commit"), version.get("origin")
    if commit is None:
        return None
    command = f"pip install 'git+{origin}@{commit}'" if origin else f"git checkout {commit}, in a clone of Lacuna"
    return command + (" (it had changes that are in no commit)" if version.get("changed") else "")


def _of_checkout(folder: Path, also: Sequence[str] = ()) -> dict[str, Any]:
    if not (folder / ".git").exists():  # a package below somebody else's repository is no checkout of Lacuna
        return {}
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    found: dict[str, Any] = {"commit": commit}
    origin = _public(_git(folder, "remote", "get-url", "origin") or "")
    if origin:
        found["origin"] = origin
    if _git(folder, "status", "--porcelain", "--untracked-files=no", "--", "pipeline", *also):
        found["changed"] = True
    return found


def _of_install() -> dict[str, Any]:
    """What pip noted (PEP 610) when it installed from a repository."""
    try:
        noted = json.loads(distribution("lacuna").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return {}
    commit, origin = noted.get("vcs_info", {}).get("commit_id"), _public(noted.get("url", ""))
    return {key: value for key, value in (("commit", commit), ("origin", origin)) if commit and value}


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git here
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _public(url: str) -> str | None:
    """Return *url* as pip takes it behind ``git+``, without user and password; None for a folder of this machine."""
    if scp := re.fullmatch(r"(\w[\w.-]*@[\w.-]+):(?!//)(.+)", url):
        return f"ssh://{scp[1]}/{scp[2]}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "ssh", "git"):
        return None
    user = "git@" if parts.scheme == "ssh" and parts.username == "git" else ""
    host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    return f"{parts.scheme}://{user}{host}{parts.path}"
