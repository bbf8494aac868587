"""Where a corpus lies: what a user may write for it, and that every character of a name is taken as it stands."""

import os
import pickle
from pathlib import Path

import pytest

from pipeline.paths import Location, LocationError, folder_on_disk, is_relative, locate

# Each means something in a URL, a shell, a glob or a path of another system, some of them only beside others.
MEANINGFUL = [*"#?% +&;=@:!$'\"(),[]{}<>|\\^`~*", "é", "日本", "%20", "%23", "%2F"]
MEANINGFUL += ["e\u0301", "\u00a0", "😀", "..x", "x.."]


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
@pytest.mark.parametrize("text", MEANINGFUL)
def test_every_character_of_a_name_in_a_bucket_means_itself(scheme: str, text: str) -> None:
    for path in (f"run{text}1", f"{text}", f"a{text}/b{text}c", f"a/{text}"):
        location = locate(f"{scheme}://bucket/{path}")
        assert location == Location(path, scheme, "bucket")
        assert locate(str(location)) == location
        assert str(location.evidence) == f"{scheme}://bucket/{path}.evidence"
        assert locate(str(location.evidence)) == location.evidence


@pytest.mark.parametrize("text", [*MEANINGFUL, "\n", "\t"])
def test_every_character_of_a_folder_means_itself(text: str, tmp_path: Path) -> None:
    for written in (f"{tmp_path}/run{text}1", f"file://{tmp_path}/run{text}1"):
        location = locate(written)
        assert location == Location(f"{tmp_path}/run{text}1")
        assert locate(str(location)) == location
        assert str(location.evidence) == f"{tmp_path}/run{text}1.evidence"


def test_one_folder_has_one_location_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tmp_path / "data" / "corpus"
    corpus.mkdir(parents=True)
    (tmp_path / "link").symlink_to(corpus)
    (tmp_path / "disk").symlink_to("data")
    monkeypatch.chdir(corpus)
    monkeypatch.setenv("HOME", str(tmp_path / "data"))
    absolute = [corpus, f"{corpus}/", f"{corpus}/.", f"{corpus}//", f"{corpus}/../corpus", f"file://{corpus}/./"]
    relative = [".", "./", "../corpus", "../corpus/.", "../../link", "../../disk/corpus/", "~/corpus"]
    for written in (*absolute, *relative, tmp_path / "link", f"{tmp_path}/link/.", f"{tmp_path}/link/../corpus"):
        assert locate(written) == Location(str(corpus)), written
    assert locate("corpus", "..") == locate("corpus", tmp_path / "disk") == locate("corpus", "~")
    assert (locate(".").name, locate(".").parent) == ("corpus", locate(".."))


def test_only_slashes_and_dots_are_not_taken_as_they_stand_in_a_bucket() -> None:
    for written in ("s3://b/a/c", "s3://b/a/c/", "s3://b/a/c//", "s3://b/a/./c/.", "s3://b/x/../a/c"):
        assert locate(written) == Location("a/c", "s3", "b")
    assert locate("s3://b") == locate("s3://b/") == Location("", "s3", "b")
    assert locate("s3://b/a").parent == locate("s3://b/")


def test_a_location_is_its_own(tmp_path: Path) -> None:
    location = locate("s3://bucket/run#1")
    assert locate(location) is location


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "s3a://b/x",
            r"^s3a://b/x: unknown kind of storage 's3a' \(did you mean 's3'\?\); expected a folder or one of",
        ),
        ("s3://", "^s3://: expected s3://BUCKET/FOLDER$"),
        ("gs:///x", "expected gs://BUCKET/FOLDER$"),
        ("s3://run#1", "expected s3://BUCKET/FOLDER$"),
        ("s3://key@b/x", "expected s3://BUCKET/FOLDER$"),
        ("s3://b/x//y", "has an empty name between two slashes; expected one slash$"),
        ("s3://b//y", "has an empty name"),
        ("s3://b/x\ny", r"^'s3://b/x\\ny': has a control character"),
        ("s3://b/../x", "leads out of its bucket$"),
        ("s3://b/\udce9", r"^'s3://b/\\udce9': is not Unicode"),
        ("file://out/x", "expected file:///FOLDER, an absolute path$"),
        ("a\0b", r"^'a\\x00b': has a control character"),
        ("~nobody-at-all/x", "no home folder is known of '~nobody-at-all'"),
    ],
)
def test_what_cannot_be_a_location_is_one_line(written: str, message: str) -> None:
    with pytest.raises(LocationError, match=message) as caught:
        locate(written)
    assert "\n" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("written", ["/", "s3://bucket"])
def test_a_root_has_no_evidence_beside_it(written: str) -> None:
    with pytest.raises(LocationError, match="expected a folder's name, because its evidence lies in NAME"):
        _ = locate(written).evidence


def test_what_no_bucket_can_hold_is_a_folder_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert folder_on_disk("out/x") == tmp_path / "out" / "x"
    with pytest.raises(LocationError, match=r"^s3://b/x: expected a folder on disk; only a corpus can"):
        folder_on_disk("s3://b/x")


def test_a_working_directory_that_is_gone_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    with pytest.raises(LocationError, match=r"^x: is relative to the working directory, which has been deleted$"):
        locate("x")


def test_what_depends_on_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    assert [is_relative(p) for p in ("x", "./~x", "~/x", "/x", "file:///x", "s3://b/x")] == [True] * 2 + [False] * 4
