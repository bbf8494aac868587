"""Object stores as people have them: what lacks something is refused at once, and what is busy is waited for."""

import logging
import time
from datetime import timedelta

import pytest

from pipeline.corpus import check_writable, finish, open_store, purge_evidence, remote, status, verify
from pipeline.corpus.stores import Full, Refused, Store, create_or_read, hastily
from pipeline.errors import StoreError
from tests.corpus import conftest as parts
from tests.faulty import Faulty


@pytest.fixture
def store(faulty: Faulty, request) -> Store:
    return open_store(f"s3://corpora/{time.time_ns()}", faulty.options)


LACKS = {
    "create": "create an object only if there is none (If-None-Match; on disk, a hard link)",
    "range": "read a part of an object",
    "copy": "copy an object",
    "delete_many": "delete objects (on S3 by DeleteObjects, which takes several in one request)",
    "list": "list what was just written",
}


@pytest.mark.parametrize("kind", sorted(LACKS))
def test_storage_without_what_a_commit_needs_is_refused_at_once(kind: str, faulty: Faulty, store: Store) -> None:
    store.write("x", b"it has answered: busy, it would be waited for")
    faulty.without = frozenset({kind})
    with pytest.raises(Refused) as caught:
        check_writable(store)
    assert str(caught.value).startswith(f"{store.url}: this storage does not {LACKS[kind]}, and no corpus can be")
    assert str(caught.value).endswith(
        "501 Not Implemented (NotImplemented: A header you provided implies functionality that is not implemented)"
    )
    assert "\n" not in str(caught.value)
    assert faulty.asked.count(kind) <= 2 * (remote.FEW_RETRIES + 1)


@pytest.mark.parametrize("kind", ["create", "range", "copy", "delete_many"])
def test_storage_that_says_yes_and_does_not_is_refused(kind: str, faulty: Faulty, store: Store) -> None:
    faulty.ignores = frozenset({kind})
    with pytest.raises(Refused, match="this storage does not") as caught:
        check_writable(store)
    assert LACKS[kind] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_storage_whose_listing_lags_behind_is_refused(faulty: Faulty, store: Store) -> None:
    faulty.stale = 1
    with pytest.raises(Refused, match="does not list what was just written"):
        check_writable(store)


def test_sound_storage_is_not_refused_and_nothing_stays(faulty: Faulty, store: Store) -> None:
    check_writable(store)
    assert list(store.list()) == []


@pytest.mark.parametrize("fault", ["busy", "lost"])
def test_what_is_busy_or_loses_answers_is_asked_again(fault: str, faulty: Faulty, store: Store) -> None:
    """Each kind of request, more often than the client itself tries; a create is read back before it is sent again."""
    check_writable(store)
    for kind in ("write", "read", "range", "create", "copy", "list", "delete_many"):
        number = 3 if (kind, fault) == ("create", "lost") else remote.FEW_RETRIES + 3  # each is read back, and was done
        setattr(faulty, fault, {kind: number})
        check_writable(store)
        assert getattr(faulty, fault) == {kind: 0}, "the fault was met"
    assert list(store.list()) == []


def test_a_listing_that_is_cut_off_is_asked_for_again_whole(faulty: Faulty, store: Store) -> None:
    for i in range(5):
        store.write(f"x/{i}", b"")
    for fault in ("cut", "short"):
        setattr(faulty, fault, {"list": 3})
        assert [entry.path for entry in store.list("x")] == [f"x/{i}" for i in range(5)]
        assert getattr(faulty, fault) == {"list": 0}


def test_every_reader_of_a_corpus_waits_for_storage_that_is_busy(faulty: Faulty) -> None:
    path = f"s3://corpora/{time.time_ns()}"
    parts.make_corpus(path, faulty.options)
    for command in (status, verify, finish, verify, purge_evidence):
        faulty.busy = {"any": 2 * remote.FEW_RETRIES}
        assert command(path, faulty.options) is not None
        assert faulty.busy == {"any": 0}
    assert verify(path, faulty.options) == []


def test_busy_storage_is_told_from_a_wrong_endpoint_by_its_own_name_for_it(faulty: Faulty, store: Store) -> None:
    faulty.busy = {"any": 3 * remote.FEW_RETRIES}
    check_writable(store)  # it has never said anything but SlowDown before


def test_busy_storage_is_given_up_with_the_last_answer_and_no_xml(
    faulty: Faulty, store: Store, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr(remote, "RETRY_TIMEOUT", timedelta(seconds=0.2))
    monkeypatch.setattr(remote, "SAID_AFTER", 0.05)
    faulty.busy = {"any": -1}
    with caplog.at_level(logging.WARNING, logger="pipeline"), pytest.raises(StoreError) as caught:
        store.read("run.yaml")
    said = f"{store.url}/run.yaml: 503 Service Unavailable (SlowDown: Reduce your request rate.)"
    assert str(caught.value) == said
    assert f"{said}; asked again, for 0.2 s in all" in caplog.messages


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("507 Insufficient Storage", "XMinioStorageFull"),
        ("507 Insufficient Storage", "Other"),
        ("403 Forbidden", "QuotaExceeded"),
        ("400 Bad Request", "XMinioAdminBucketQuotaExceeded"),
    ],
)
def test_storage_that_is_full_is_told_at_once(status: str, code: str, faulty: Faulty, store: Store) -> None:
    store.write("x", b"it has answered")
    faulty.full, faulty.asked = (status, code), []
    for write in (lambda: store.write("y", b""), lambda: create_or_read(store, "z", b""), lambda: store.copy("x", "y")):
        with pytest.raises(Full) as caught:
            write()
        assert str(caught.value).endswith(f"{status} ({code}: Full.)")
    assert len(faulty.asked) <= 4 * (remote.FEW_RETRIES + 1), "each at once, or as often as the client itself does it"
    faulty.full = None
    assert store.create("y", b"")


def test_whoever_has_interrupted_waits_for_no_busy_storage(faulty: Faulty, store: Store) -> None:
    store.write("x", b"1")
    faulty.asked.clear()
    faulty.busy = {"any": -1}
    with hastily(), pytest.raises(StoreError, match="SlowDown"):
        store.read("x")
    assert len(faulty.asked) == remote.FIRST_RETRIES + 1


@pytest.mark.usefixtures("faulty")
def test_an_endpoint_where_nobody_is_is_told_soon(s3) -> None:
    with pytest.raises(StoreError) as caught:
        open_store("s3://corpora/x", s3 | {"endpoint": "http://127.0.0.1:1"}).read("run.yaml")
    assert str(caught.value) == (
        "s3://corpora/x/run.yaml: no answer (Connection refused); it has not answered yet: is its endpoint right?"
    )


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"])
@pytest.mark.parametrize("allowed", [None, "true"])
def test_an_endpoint_without_tls_may_come_from_the_environment(
    name: str, allowed: str | None, s3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv(name, s3["endpoint"])
    if allowed:
        monkeypatch.setenv("AWS_ALLOW_HTTP", allowed)
    check_writable(open_store(f"s3://corpora/{time.time_ns()}"))


def test_what_the_environment_says_of_the_http_client_holds_unless_an_option_says_else(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
    with pytest.raises(StoreError, match="the client takes no such endpoint; one with http:// needs allow_http=true"):
        open_store("s3://corpora/x", faulty.options).exists("x")
    assert not open_store("s3://corpora/x", faulty.options | {"allow_http": "true"}).exists("x")


def test_a_bucket_that_is_not_there_is_told_by_every_call(s3) -> None:
    store = open_store("s3://nobodys/x", s3)
    for call in (lambda: store.read("x"), lambda: store.list(), lambda: store.create("x", b"")):
        with pytest.raises(Refused, match=r"^s3://nobodys/x: there is no such bucket or container$"):
            call()
