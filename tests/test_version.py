"""A run tells which Lacuna began it: the commit of a checkout, or what pip noted, and never a password."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.version import how_to_get, this_version

SOURCE = Path(__file__).parents[1] / "pipeline"


def git(folder: Path, *command: str) -> str:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    return subprocess.run(
        ["git", "-C", folder, *who, *command], check=True, capture_output=True, text=True
    ).stdout.strip()


def copied(folder: Path) -> Path:
    """The package's own code in another place."""
    (folder / "pipeline").mkdir(parents=True)
    for name in ("__init__.py", "version.py"):
        shutil.copy(SOURCE / name, folder / "pipeline" / name)
    return folder


def told(folder: Path, *more: Path) -> dict[str, object]:
    code = f"import sys, json; sys.path[:0] = {[str(folder), *map(str, more)]}\n"
    code += "from pipeline.version import this_version; print(json.dumps(this_version()))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://me:secret@example.org/a/lacuna.git", "https://example.org/a/lacuna.git"),
        ("git@example.org:a/lacuna.git", "ssh://git@example.org/a/lacuna.git"),
        ("ssh://git@example.org:22/a/lacuna", "ssh://git@example.org:22/a/lacuna"),
        ("../elsewhere", None),
    ],
)
def test_a_checkout(url: str, origin: str | None, tmp_path: Path):
    copied(tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "all")
    git(tmp_path, "remote", "add", "origin", url)
    commit = git(tmp_path, "rev-parse", "HEAD")
    expected = {"version": this_version()["version"], "commit": commit} | ({"origin": origin} if origin else {})
    assert told(tmp_path) == expected
    command = f"pip install 'git+{origin}@{commit}'" if origin else f"git checkout {commit}, in a clone of Lacuna"
    assert how_to_get(expected) == command
    (tmp_path / "pipeline/version.py").write_text((tmp_path / "pipeline/version.py").read_text() + "\n")
    assert told(tmp_path) == {**expected, "changed": True}
    assert how_to_get({**expected, "changed": True}) == f"{command} (it had changes that are in no commit)"


def test_an_install_from_a_repository(tmp_path: Path):
    noted = tmp_path / "lacuna-0.1.0.dist-info"
    noted.mkdir()
    (noted / "METADATA").write_text("Metadata-Version: 2.1\nName: lacuna\nVersion: 0.1.0\n")
    info = {"url": "https://example.org/a/lacuna", "vcs_info": {"vcs": "git", "commit_id": "c" * 40}}
    (noted / "direct_url.json").write_text(json.dumps(info))
    folder = copied(tmp_path)
    assert told(folder) == {**told(copied(tmp_path / "bare")), "commit": "c" * 40, "origin": info["url"]}


def test_a_package_below_another_repository_tells_its_version_alone(tmp_path: Path):
    git(tmp_path, "init", "-q")
    found = told(copied(tmp_path / "site-packages"))
    assert found == {"version": this_version()["version"]}
    assert how_to_get(found) is None
