"""The fleet on a real Ray of this machine, with GPUs in name only and workers that load and die as they are told."""

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from pipeline.cluster.on_ray import fleet as module
from pipeline.cluster.on_ray.actor import WorkerActor
from pipeline.cluster.on_ray.fleet import LOAD_FAILURES, Fleet, Member, Stage
from pipeline.cluster.on_ray.machines import Needs
from pipeline.cluster.records import write_nonce
from pipeline.config.schema import Config
from pipeline.corpus import open_store
from pipeline.errors import ClusterError
from tests.faulty import serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    """A Ray of two GPUs. It must not come before ``test_ray``, hence this file's name: in a process that has had it,
    a ``Cluster`` cancels every actor before it starts (seen, and not understood)."""
    before = dict(os.environ)
    os.environ.pop("RAY_ADDRESS", None)
    os.environ["PYTHONPATH"] = str(ROOT)
    ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


@ray.remote(max_restarts=0)
class Part:
    """A worker process without a model. What it does on ``gpu0`` and ``gpu1`` is a word in a file of that name."""

    def __init__(self, number: int):
        self._number = number

    def hello(self, folder: str) -> tuple[str, str]:
        self._gpu = f"gpu{ray.get_gpu_ids()[0]}"
        self._folder = Path(folder)
        self._obey("hello")
        return f"node/{self._gpu}#{self._number}", ray.get_runtime_context().get_node_id()

    def load(self) -> None:
        self._obey("load")

    def run(self) -> None:
        time.sleep(600)

    def _obey(self, call: str) -> None:
        with open(self._folder / f"{self._gpu}-{call}s", "a") as calls:
            calls.write("x")
        order = (self._folder / self._gpu).read_text()
        if order == f"{call}: die":
            os._exit(1)
        if order == f"{call}: raise":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if order == f"{call}: lack":
            __import__("no_such_module")
        if order == f"{call}: hang":
            time.sleep(600)


class Drive:
    """What the driver does with a fleet, as far as it goes here."""

    def __init__(self, folder: Path, load_timeout: float = 600.0):
        self.folder, self.said = folder, []
        self.deaths: list[str] = []
        self.order("", "")
        needs = Needs(device="cuda", cpus=0)
        self.fleet = Fleet(needs, lambda actor: actor.hello.remote(str(folder)), self.said.append, load_timeout)

    def order(self, *orders: str) -> None:
        for gpu, order in enumerate(orders):
            whole = self.folder / f"gpu{gpu}-next"
            whole.write_text(order)
            whole.replace(self.folder / f"gpu{gpu}")  # a worker that reads meanwhile must not find a file yet empty

    def calls(self, name: str) -> int:
        path = self.folder / name
        return len(path.read_text()) if path.exists() else 0

    def step(self) -> None:
        self.fleet.grow(2)
        results, deaths = self.fleet.poll(0.1)
        self.deaths += [death.name for death in deaths]
        for member, result in results:
            if member.stage is Stage.starting:
                self.fleet.welcome(member, *result)
            else:
                member.stage = Stage.loaded
        for member in self.fleet.at(Stage.ready):
            self.fleet.send(member, Stage.loading, member.actor.load.remote())
        for member in self.fleet.at(Stage.loaded):
            self.fleet.send(member, Stage.running, member.actor.run.remote())
        self.fleet.kill_slow()

    def until(self, condition: Callable[[], Any], seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, [(m.name, m.stage) for m in self.fleet.members]
            self.step()

    def running(self) -> list[str]:
        return sorted(member.name.partition("#")[0] for member in self.fleet.at(Stage.running))

    def on(self, gpu: str) -> Member:
        (member,) = (m for m in self.fleet.at(Stage.running) if m.name.startswith(f"node/{gpu}#"))
        return member


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drive]:
    monkeypatch.setattr(module, "_worker_actor", Part)
    monkeypatch.setattr(module, "NODE_NEWS", 0.0)
    drive = Drive(tmp_path)
    yield drive
    drive.fleet.disband()
    end = time.monotonic() + 60
    while ray.available_resources().get("GPU") != 2.0 and time.monotonic() < end:
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["die", "raise"])
@pytest.mark.parametrize("others", ["work", "load"])
def test_one_gpu_on_which_every_load_fails_is_left_out_and_ends_no_run(drive: Drive, how: str, others: str) -> None:
    drive.order("load: hang" if others == "load" else "", "load: hang")
    drive.until(lambda: drive.calls("gpu0-loads") and drive.calls("gpu1-loads"))
    drive.order("load: hang" if others == "load" else "", f"load: {how}")
    ray.kill(next(member.actor for member in drive.fleet.at(Stage.loading) if member.name.startswith("node/gpu1#")))
    drive.until(lambda: drive.fleet.at(Stage.refused))
    (refused,) = drive.fleet.at(Stage.refused)
    assert refused.name.startswith("node/gpu1#")
    (said,) = drive.said
    assert said.startswith(f"worker {refused.name} is not used, while others work: 5 loads in a row failed there: ")
    assert ("died while loading" if how == "die" else "an illegal memory access") in said
    assert "\n" not in said
    assert drive.calls("gpu1-loads") == LOAD_FAILURES
    assert drive.running() == (["node/gpu0"] if others == "work" else [])
    for _ in range(20):
        drive.step()
    assert drive.calls("gpu1-loads") == LOAD_FAILURES, "it holds the place, and is not tried again and again"


def test_a_load_that_succeeds_forgives_those_that_failed_before(drive: Drive) -> None:
    drive.until(lambda: len(drive.running()) == 2)
    for number in (1, 2):
        drive.order("", "load: raise")
        ray.kill(drive.on("gpu1").actor)
        before = drive.calls("gpu1-loads")
        drive.until(lambda before=before: drive.calls("gpu1-loads") == before + LOAD_FAILURES - 1)
        drive.order("", "")
        drive.until(lambda: len(drive.running()) == 2)
        assert drive.said == [], f"time {number}"


@pytest.mark.parametrize("how", ["die", "raise"])
def test_where_nothing_can_be_loaded_anywhere_the_run_ends(drive: Drive, how: str) -> None:
    drive.order(f"load: {how}", f"load: {how}")
    with pytest.raises(
        (ClusterError, RuntimeError), match=r"died while loading|died before they could work|illegal memory access"
    ):
        drive.until(lambda: False)
    assert drive.running() == []


def test_where_no_worker_can_start_the_run_ends(drive: Drive) -> None:
    drive.order("hello: die", "hello: die")
    with pytest.raises(ClusterError, match="5 workers in a row died before they could work") as caught:
        drive.until(lambda: False)
    assert "\n" not in str(caught.value)


def test_a_machine_that_lacks_a_module_is_named_with_what_helps(drive: Drive) -> None:
    drive.order("hello: lack", "hello: lack")
    with pytest.raises(ClusterError) as caught:
        drive.until(lambda: False)
    assert re.match(r"the machine [\d.]+ has no Python module 'no_such_module': install Lacuna", str(caught.value))
    assert "ray job submit --working-dir ." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_machine_that_lacks_a_module_while_others_work_is_left_out(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST", 0.0)
    drive.order("", "hello: hang")
    drive.until(drive.running)
    drive.order("", "hello: lack")
    for member in drive.fleet.at(Stage.starting):
        drive.fleet.dismiss(member)
    drive.until(lambda: drive.calls("gpu1-hellos") > 3)
    assert [line.split(":")[0] for line in drive.said] == ["a worker is not used, while others work"], "said once"
    assert drive.running() == ["node/gpu0"]


def test_a_place_on_which_no_worker_can_start_is_given_rests_while_others_work(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST", 0.0)
    drive.order("", "hello: die")
    drive.until(lambda: drive.calls("gpu1-hellos") > module.DEATHS_ON_STARTING + 1 and drive.running())
    assert drive.running() == ["node/gpu0"], "and the run goes on"
    monkeypatch.setattr(module, "REST", 600.0)
    died = len(drive.deaths)
    drive.until(lambda: len(drive.deaths) > died)
    for _ in range(20):
        drive.step()
    assert len(drive.deaths) == died + 1
    assert len(drive.fleet.members) == 1


def test_a_load_that_hangs_is_ended_after_a_time_of_its_own(drive: Drive) -> None:
    drive.order("", "load: hang")
    drive.until(lambda: drive.calls("gpu1-loads") and drive.running())
    drive.fleet._load_timeout = 0.0
    drive.until(lambda: drive.deaths)
    assert drive.deaths[0].startswith("node/gpu1#")


def test_the_cluster_is_asked_once_who_lives_however_many_have_died(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NODE_NEWS", 1.0)
    drive.until(lambda: len(drive.running()) == 2)
    asked, nodes = [0], ray.nodes
    monkeypatch.setattr(ray, "nodes", lambda: asked.append(asked.pop() + 1) or nodes())
    for member in drive.fleet.at(Stage.running):
        ray.kill(member.actor)
    polls = 0
    while len(drive.deaths) < 2:
        polls += 1
        drive.step()
    assert 0 < asked[0] <= polls


def test_a_moment_without_storage_is_waited_out_by_a_worker_that_starts(s3: dict[str, str]) -> None:
    with serving() as faulty:
        config = Config()
        config.output.path = f"s3://corpora/{uuid.uuid4().hex}"
        config.output.storage_options = {**s3, "endpoint": faulty.endpoint}
        nonce = write_nonce(open_store(config.output.path, config.output.storage_options))
        faulty.asked.clear()
        faulty.lost["any"] = -1
        actor = WorkerActor.options(num_cpus=1).remote(1)
        hello = actor.hello.remote(config, nonce, os.getcwd())
        ended: list[Any] = []
        while len(faulty.asked) <= 6 and not ended:  # more often than a store asks that has never answered
            ended, _ = ray.wait([hello], timeout=0.2)
        faulty.lost.clear()
        assert not ended
        assert ray.get(hello, timeout=120.0)[1] == ray.get_runtime_context().get_node_id()
        ray.kill(actor)
