"""What the corpus asks of storage, on disk and on an S3 server: the same answers from both."""

import errno
import http.server
import os
import pickle
import re
import tempfile
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.corpus import check_writable, evidence_url, open_store, remote
from pipeline.corpus.options import CLIENT, listed
from pipeline.corpus.remote import ObjectStore
from pipeline.corpus.stores import Full, Refused, Store, patiently
from pipeline.errors import StoreError
from tests.test_paths import MEANINGFUL


@pytest.fixture
def store(place) -> Store:
    path, options = place
    return open_store(path, options)


def test_what_is_written_is_read_whole_or_in_part(store: Store, tmp_path: Path) -> None:
    store.write("a/b.bin", b"0123456789")
    assert store.read("a/b.bin") == b"0123456789"
    assert store.read_range("a/b.bin", 3, 4) == b"3456"
    assert store.read_range("a/b.bin", 8, 100) == b"89"
    assert (store.exists("a/b.bin"), store.size("a/b.bin"), store.exists("a")) == (True, 10, False)
    (tmp_path / "file").write_bytes(b"from a file")
    store.write("a/b.bin", tmp_path / "file")
    assert store.read("a/b.bin") == b"from a file"


def test_create_writes_only_where_nothing_is(store: Store) -> None:
    assert store.create("commits/0.json", b"first")
    assert not store.create("commits/0.json", b"second")
    assert store.read("commits/0.json") == b"first"


def test_copy_replaces_and_the_source_stays(store: Store) -> None:
    store.write("x", b"new")
    store.write("y", b"old")
    store.copy("x", "y")
    store.copy("x", "y")  # redone by whoever finds it undone
    assert (store.read("x"), store.read("y")) == (b"new", b"new")


def test_what_is_missing_is_file_not_found(store: Store) -> None:
    for call in (lambda: store.read("no"), lambda: store.size("no"), lambda: store.read_range("no", 0, 1)):
        with pytest.raises(FileNotFoundError):
            call()
    with pytest.raises(FileNotFoundError):
        store.copy("no", "there")
    store.delete("no")
    assert store.delete_tree("no") == 0
    assert list(store.list("no")) == []


def test_listings_are_sorted_and_of_a_folder_not_of_a_prefix_of_names(store: Store) -> None:
    for name in ("b/2", "b/10/x", "b/1", "bb/1", "a"):
        store.write(name, name.encode())
    assert [entry.path for entry in store.list("b")] == ["b/1", "b/10/x", "b/2"]
    assert next((entry.path, entry.size) for entry in store.list()) == ("a", 1)
    assert store.delete_tree("b") == 3
    assert [entry.path for entry in store.list()] == ["a", "bb/1"]


def test_a_store_travels_to_another_process(store: Store) -> None:
    store.write("x", b"1")
    assert pickle.loads(pickle.dumps(store)).read("x") == b"1"


def test_being_writable_leaves_nothing_behind(store: Store) -> None:
    check_writable(store)
    assert list(store.list()) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "s3"])
@pytest.mark.parametrize("text", MEANINGFUL)
def test_every_character_of_a_corpus_name_means_itself(kind: str, text: str, tmp_path: Path, request) -> None:
    """Two corpora and the evidence of one, of names that a URL would fold into one: each store sees its own."""
    root, options = (str(tmp_path), {})
    if kind == "s3":
        root, options = f"s3://corpora/{uuid.uuid4().hex}", request.getfixturevalue("s3")
    names = [f"run{text}1", "run", f"run{text}1.evidence", "run1"]
    for name in names:
        store = open_store(f"{root}/{name}", options)
        assert store.url == f"{root}/{name}"
        store.write("x#y/z", name.encode())
        store.copy("x#y/z", "copy")
        assert store.create("created", b"")
    for name in names:
        store = open_store(f"{root}/{name}", options)
        assert store.read("x#y/z") == store.read("copy") == name.encode()
        assert [entry.path for entry in store.list()] == ["copy", "created", "x#y/z"]
    assert open_store(evidence_url(f"{root}/run{text}1"), options).delete_tree("") == 3
    found = {entry.path.partition("/")[0] for entry in open_store(root, options).list()}
    assert found == {f"run{text}1", "run", "run1"}
    if kind == "s3":
        assert _keys(options, root) == {f"{name}/{path}" for name in found for path in ("copy", "created", "x#y/z")}


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "bucket"), [("gs", "bucket"), ("az", "container_name")])
@pytest.mark.parametrize("text", MEANINGFUL)
def test_googles_and_azures_clients_are_given_a_name_as_it_stands(scheme: str, bucket: str, text: str) -> None:
    """No server of theirs is at hand: this is as far as a name can be followed."""
    options = {"account_name": "x"} if scheme == "az" else {"skip_signature": "true"}
    store: Any = open_store(f"{scheme}://corpora/a/run{text}1", options)
    for client in (store._first, store._usual, store._upload, store._once):
        assert (client.config[bucket], client.prefix) == ("corpora", f"a/run{text}1")


def _keys(options: dict[str, str], root: str) -> set[str]:
    """What the server itself names below *root*."""
    import boto3

    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    client = boto3.client(
        "s3",
        endpoint_url=options["endpoint"],
        region_name=options["region"],
        aws_access_key_id=options["access_key_id"],
        aws_secret_access_key=options["secret_access_key"],
    )
    found = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")
    return {entry["Key"].removeprefix(f"{prefix}/") for entry in found["Contents"]}


def test_an_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(StoreError, match=r"unknown kind of storage 's3a' \(did you mean 's3'\?\)"):
        open_store("s3a://bucket/x")


def test_a_bucket_that_is_not_there_is_one_line(s3) -> None:
    with pytest.raises(StoreError, match="there is no such bucket") as caught:
        check_writable(open_store("s3://nobodys-bucket/x", s3))
    assert "\n" not in str(caught.value)


def test_a_path_through_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"not a folder|a file stands") as caught:
        check_writable(open_store(str(tmp_path / "file" / "corpus")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("root", "why"),
    [("/proc/lacuna/corpus", "no folder can be made there"), ("/tmp/" + "x" * 300, "a name in the path is too long")],
)
def test_a_path_that_cannot_be_is_one_line(root: str, why: str) -> None:
    with pytest.raises(StoreError, match=why) as caught:
        check_writable(open_store(root))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.EACCES])
def test_a_file_system_without_hard_links_is_refused_by_the_probe(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linking is how a commit is decided and published here; as such file systems answer, so does ``os.link``."""

    def link(source: str, target: str) -> None:
        raise OSError(code, os.strerror(code), str(source), None, str(target))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(Refused, match=r": this storage does not create an object only if there is none.*/created: "):
        check_writable(open_store(str(tmp_path / "corpus")))
    assert [path for path in (tmp_path / "corpus").rglob("*") if path.is_file()] == []


def test_a_full_disk_is_told_as_such_by_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(Full, match=r"^/.*/created: no space left$"):
        check_writable(open_store(str(tmp_path / "corpus")))


def test_a_folder_on_another_file_system_is_refused(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system at hand")
    with tempfile.TemporaryDirectory(dir=elsewhere) as attempts:
        (tmp_path / "attempts").symlink_to(attempts)
        with pytest.raises(Refused, match=r"attempts/probe.*: lies on another file system than the rest"):
            check_writable(open_store(str(tmp_path)))


def test_a_crashed_writers_leavings_are_not_listed_and_are_swept(tmp_path: Path) -> None:
    import socket

    from pipeline.corpus.local import LocalStore

    store = LocalStore(tmp_path)
    store.write("x", b"1")
    (tmp_path / ".tmp").mkdir(exist_ok=True)
    dead = 2**22 - 1  # beyond any process id in use
    (tmp_path / ".tmp" / f"{socket.gethostname()}-{dead}-00").write_bytes(b"half")
    living = tmp_path / ".tmp" / f"{socket.gethostname()}-{os.getpid()}-00"
    living.write_bytes(b"half")
    foreign = tmp_path / ".tmp" / ".nfs0001"  # what NFS makes of a file that is deleted while it is open
    foreign.write_bytes(b"")
    assert [entry.path for entry in store.list()] == ["x"]
    store.sweep()
    assert {path.name for path in (tmp_path / ".tmp").iterdir()} == {living.name, foreign.name}


class Front(http.server.BaseHTTPRequestHandler):
    """Answers 503 for as long as it is told to, and else whatever is asked for with one byte."""

    busy, asked = 0, 0  # requests yet to be refused, and all of them
    agent = ""  # that the last one named

    def do_GET(self) -> None:
        Front.asked += 1
        Front.agent = self.headers["User-Agent"]
        Front.busy -= 1
        self.send_response(503 if Front.busy >= 0 else 200)
        self.send_header("Content-Length", "0" if Front.busy >= 0 else "1")
        self.send_header("Last-Modified", "Mon, 02 Nov 2026 10:00:00 GMT")
        self.send_header("ETag", '"x"')
        self.end_headers()
        self.wfile.write(b"" if Front.busy >= 0 else b"1")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store behind ``Front``; it waits milliseconds where others wait seconds."""
    wait = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=5), "base": 3}
    monkeypatch.setattr(remote, "BACKOFF", wait)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Front) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        keys = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
        yield open_store("s3://bucket", {"endpoint": f"http://127.0.0.1:{server.server_port}", **keys})
        server.shutdown()


def test_storage_that_has_answered_is_waited_for_as_long_as_it_is_busy(front: Store) -> None:
    Front.busy = 0
    assert front.read("x") == b"1"
    Front.busy = 40
    assert front.read("x") == b"1"


def test_storage_that_stays_busy_is_given_up_after_a_time(front: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "RETRY_TIMEOUT", timedelta(seconds=1))
    store = pickle.loads(pickle.dumps(front))
    Front.busy = 0
    assert store.read("x") == b"1"
    Front.asked, Front.busy = 0, 10**9
    with pytest.raises(StoreError, match="503"):
        store.read("x")
    assert remote.FIRST_RETRIES + 1 < Front.asked < remote.RETRIES, "the time ended it, and not the number"


def test_storage_that_has_never_answered_is_soon_given_up(front: Store) -> None:
    Front.asked, Front.busy = 0, 10**9
    with pytest.raises(StoreError, match="503"):
        front.read("x")
    assert Front.asked == remote.FIRST_RETRIES + 1


def test_options_of_the_http_client_are_given_among_the_stores_own(front: Store) -> None:
    store: Any = front
    Front.busy = 0
    for key, value in {"allow_http": "true", "AWS_ALLOW_HTTP": "true", "user_agent": "x"}.items():
        assert ObjectStore("s3://bucket", store._options | {key: value}).read("x") == b"1"
    assert Front.agent == "x"
    with pytest.raises(StoreError):
        ObjectStore("s3://bucket", store._options | {"allow_http": "false"}).read("x")


def test_an_endpoint_without_tls_is_used_however_its_option_is_spelt(front: Store) -> None:
    Front.busy = 0
    options: dict[str, str] = dict(front._options)  # type: ignore[attr-defined]
    endpoint = options.pop("endpoint")
    for key in ("endpoint_url", "aws_endpoint", "AWS_ENDPOINT_URL", "Endpoint"):
        assert ObjectStore("s3://bucket", options | {key: endpoint}).read("x") == b"1"


@pytest.mark.parametrize("url", ["s3://bucket", "gs://bucket", "az://container"])
@pytest.mark.parametrize("key", sorted(listed(CLIENT)))
def test_every_option_of_the_http_client_is_one_of_its_own(url: str, key: str) -> None:
    """It is known by its name and takes its value, or says in a line what it expected: none ends in a panic."""
    said = None
    try:
        ObjectStore(url, {key: "30s"} | ({"account_name": "x"} if url.startswith("az") else {}))
    except StoreError as error:
        said = str(error)
    expected = 'Generic Config error: failed to parse "30s" as |No certificates found|.* is not an instance of .dict'
    assert said is None or re.match(rf"{url}: output\.storage_options\.{key}: ({expected})", said)


@pytest.mark.parametrize(
    ("url", "misspelt", "meant"),
    [
        ("s3://bucket", "sse_kms_key", "sse_kms_key_id"),
        ("gs://bucket", "servce_account", "service_account"),
        ("az://container", "sas_ky", "sas_key"),
        ("az://container", "conect_timeout", "connect_timeout"),
    ],
)
def test_the_nearest_option_is_one_that_the_store_has(url: str, misspelt: str, meant: str) -> None:
    with pytest.raises(StoreError, match=rf"\.{misspelt}: .. has no such option \(did you mean '{meant}'\?\)$"):
        ObjectStore(url, {misspelt: "x"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": "30"}, r'\.timeout: .*"30" as Duration; expected a number with its unit, such as 30s$'),
        ({"AWS_ALLOW_HTTP": "ture"}, r'\.AWS_ALLOW_HTTP: .*"ture"'),
        ({"endpont": "x"}, r"\.endpont: s3 has no such option \(did you mean 'endpoint'\?\)$"),
        ({"root_certificate": "x"}, r"\.root_certificate: No certificates found"),
        ({"usr_agent": "x"}, r"\.usr_agent: s3 has no such option \(did you mean 'user_agent'\?\)$"),
    ],
)
def test_an_option_that_cannot_be_is_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(StoreError, match=r"^s3://bucket: output\.storage_options" + message):
        ObjectStore("s3://bucket", options)


def test_patience_ends_with_the_last_error() -> None:
    asked = []

    def ask() -> int:
        asked.append(len(asked))
        if len(asked) < 3:
            raise StoreError(f"busy {len(asked)}")
        return len(asked)

    assert patiently(ask, (0.0, 0.0, 0.0)) == 3
    asked.clear()
    with pytest.raises(StoreError, match="busy 2"):
        patiently(ask, (0.0,))
