"""The Ray that a run starts for itself: where its sockets are, whose token it has."""

import os
import sys
from pathlib import Path

import pytest

from pipeline.cluster.on_ray import starting
from pipeline.errors import ConfigError


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)


def test_the_folder_of_sockets_is_rays_own_where_it_can_be(folders, monkeypatch, tmp_path: Path) -> None:
    short = Path(f"/tmp/{os.getpid()}")
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.setenv(name, str(short))
        assert starting.folder_of_ray() == f"{short}/ray"
    (short / "ray").rmdir()
    short.rmdir()


@pytest.mark.skipif(sys.platform == "darwin", reason="Ray takes no notice of TMPDIR there")
@pytest.mark.parametrize("folder", ["/tmp/" + 60 * "x", "/proc/nowhere", "/dev/null"])
def test_a_temporary_folder_that_will_not_do_gives_way_to_a_short_one(folder: str, folders, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", folder)
    assert starting.folder_of_ray() == f"/tmp/ray-{os.getuid()}"
    assert os.stat(f"/tmp/ray-{os.getuid()}").st_uid == os.getuid()


@pytest.mark.parametrize(
    ("folder", "why"),
    [("/tmp/" + 60 * "x", "has too long a path, with which they take "), ("/proc/nowhere", "cannot be made")],
)
def test_a_folder_that_was_asked_for_and_will_not_do_is_named(folder: str, why: str, folders, monkeypatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with pytest.raises(ConfigError) as caught:
        starting.folder_of_ray()
    message = str(caught.value)
    assert f"the folder for its sockets, {folder}/ray, {why}" in message
    assert "set RAY_TMPDIR, or TMPDIR, to a short folder" in message


def test_a_token_of_its_own_is_in_the_environment_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", *starting.TOKENS):
        monkeypatch.delenv(name, raising=False)
    with starting.own_token():
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} & os.environ.keys()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the user's")
    with starting.own_token():
        assert os.environ["RAY_AUTH_TOKEN"] == "the user's"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with starting.own_token():
        assert "RAY_AUTH_TOKEN" not in os.environ
