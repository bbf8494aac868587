"""The thin shells round ``Coordinator`` and ``Worker`` that make Ray actors of them, and the calls between the two.

Neither decides anything. A worker outlives its coordinator: it finishes and commits what it holds while the driver
makes a new one, and goes on with that. Both die with the driver, whose handles they hang on (not detached).
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import ray
from ray.exceptions import RayActorError

from pipeline.cluster.coordinator import SHORTEST_WAIT, Coordinator
from pipeline.cluster.loop import Answer, Loop
from pipeline.cluster.process import settle_in
from pipeline.cluster.protocol import Compiling, Counts, Drawn, FailureKind, Held, Planner, Report, Snapshot, Wait
from pipeline.cluster.records import open_coordinator, read_nonce
from pipeline.config.schema import Config
from pipeline.corpus import Output, open_store
from pipeline.corpus.stores import patiently

CONTROL = "control"  # the concurrency group that answers while the device thread is busy
OUT_OF_REACH = 10.0  # seconds after which a coordinator that could not be reached is tried again


@ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)
class CoordinatorActor:
    """One at a time, on the driver's node. Calls are served one after the other: ``Coordinator`` needs no locks."""

    def __init__(
        self,
        config: Config,
        plan: Planner,
        held: Mapping[str, Sequence[Held]],
        known: Mapping[int, Counts],
        folder: str,
    ):
        settle_in(config, folder)
        self._config, self._plan, self._held, self._known = config, plan, held, known
        self._opened: Coordinator | None = None

    @property
    def _coordinator(self) -> Coordinator:
        """Opened by the first call: what storage raised in ``__init__`` would look like the death of the actor."""
        if self._opened is None:
            output = self._config.output
            store = open_store(output.path, output.storage_options)
            self._opened = open_coordinator(store, self._config, self._plan, held=self._held, known=self._known)
            self._known = {}  # it keeps their sums, and has no need of each
        return self._opened

    def next(self, worker: str, done: Sequence[Report], holding: Sequence[str], running: str | None) -> Answer:
        return self._coordinator.next(worker, done, holding, running)

    def report(self, worker: str, done: Sequence[Report], word: Drawn | Compiling | None) -> None:
        self._coordinator.report(worker, done, word)

    def leave(self, worker: str) -> None:
        self._coordinator.leave(worker)

    def lost(self, worker: str, kind: FailureKind, message: str) -> None:
        self._coordinator.lost(worker, kind, message)

    def drain(self, workers: Sequence[str]) -> None:
        self._coordinator.drain(workers)

    def snapshot(self) -> Snapshot:
        self._coordinator.tick()
        return self._coordinator.snapshot()


class RayDesk:
    """Calls to a coordinator that may die and be replaced.

    From ``detach`` to ``attach`` there is none. What an old one has answered but its worker has not begun is dropped:
    the new one does not know of it, and would lease it to somebody else too.
    """

    def __init__(self, worker: str, coordinator: Any):
        self._worker, self._coordinator = worker, coordinator
        self._changed = threading.Condition()
        self._epoch = 0

    def detach(self) -> None:
        with self._changed:
            self._coordinator = None
            self._epoch += 1

    def attach(self, coordinator: Any) -> None:
        with self._changed:
            self._coordinator = coordinator
            self._changed.notify_all()

    def ask(self, done: Sequence[Report], holding: Sequence[str], running: str | None) -> Callable[[], Answer]:
        with self._changed:
            epoch, coordinator = self._epoch, self._coordinator
            fetched = None
            if coordinator is not None:
                fetched = _fetch(coordinator.next.remote(self._worker, done, holding, running))

        def answer() -> Answer:
            if fetched is not None:
                try:
                    result = fetched.result()
                except RayActorError:
                    # Dead or out of reach; the driver sees it too. What the coordinator itself raises is not caught:
                    # that is a fault of ours or of storage, and must show.
                    pass
                else:
                    with self._changed:
                        if epoch == self._epoch:
                            return result
            with self._changed:
                # Unless it was only out of reach for a moment, the driver will replace it.
                self._changed.wait_for(lambda: self._epoch > epoch or fetched is None, timeout=OUT_OF_REACH)
                self._changed.wait_for(lambda: self._coordinator is not None)
            self.report(done)  # may be the second time; the coordinator refuses what it knows
            return Wait(seconds=SHORTEST_WAIT)

        return answer

    def report(self, done: Sequence[Report], word: Drawn | Compiling | None = None) -> None:
        with self._changed:
            # With no coordinator a report is dropped: commits are in storage, where the next one will find them.
            if (done or word) and self._coordinator is not None:
                self._coordinator.report.remote(self._worker, done, word)

    def leave(self) -> None:
        with self._changed:
            coordinator = self._coordinator
        if coordinator is not None:
            try:
                ray.get(coordinator.leave.remote(self._worker))
            except RayActorError:
                return  # the next coordinator will not have heard of this worker


def _fetch(call: Any) -> "Future[Answer]":
    """Take an answer as soon as it is there: until then a lease lies in the memory of the coordinator's machine, and
    those of 10,000 workers, begun minutes later, would fill it. A daemon thread: Ray waits for others on exit."""
    future: Future[Answer] = Future()

    def fetch(call: Any) -> None:
        try:
            future.set_result(ray.get(call))
        except Exception as error:
            future.set_exception(error)  # raised where the answer is asked for

    threading.Thread(target=fetch, args=(call,), daemon=True).start()
    return future


def _end_with(raylet: int) -> None:
    """End this process with the raylet that began it: Ray waits for its actor to end what it does, and meanwhile it
    would draw, and hold its GPU, beside whoever was put in its place."""
    while os.getppid() == raylet:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


@ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={CONTROL: 1})
class WorkerActor:
    """One device's worker. The driver calls ``hello``, then ``load``, then ``run``; on one of them in a run,
    before ``load``, ``prepare`` and ``draw_evidence``."""

    def __init__(self, number: int):
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        self._number = number
        self._name = ""
        self._output: Any = None
        self._opened: Any = None  # the session, until the worker has its model
        self._said: list[str] = []  # by it
        self._worker: Any = None
        self._loop: Loop | None = None
        self._desk: RayDesk | None = None
        self._successor: Any = None  # the newest coordinator, if it is not the one that ``run`` is given

    def hello(self, config: Config, nonce: str, folder: str) -> tuple[str, str]:
        """Check that this machine sees the driver's output, and load what every worker needs; return (id, node id)."""
        settle_in(config, folder)
        self._output = Output.of(config.output)
        patiently(lambda: read_nonce(self._output.store, nonce))
        context = ray.get_runtime_context()
        node = context.get_node_id()
        gpus = "+".join(str(i) for i in ray.get_gpu_ids())
        self._name = f"{node[:8]}/{'gpu' + gpus if gpus else 'cpu'}#{self._number}"
        import pipeline.worker  # noqa: F401 - torch and diffusers take seconds: have them while another worker prepares

        return self._name, node

    def _session(self, config: Config, device: str) -> Any:
        """What this worker has opened, for all that it is called for."""
        from pipeline.session import Session

        if self._opened is None:
            self._opened = Session(config, device=device, output=self._output, say=self._said.append)
        return self._opened

    def prepare(self, config: Config, summary: Any, device: str, accept_environment: bool) -> Any:
        """Pin the run (see ``pipeline.session``); return its record."""
        from pipeline.session import prepare

        return prepare(self._session(config, device), summary, accept_environment=accept_environment)

    def draw_evidence(self, config: Config, record: Any, samples: Sequence[Any], device: str) -> None:
        """Draw pictures erased and unerased (see ``pipeline.pairs``)."""
        from pipeline.pairs import draw_evidence

        draw_evidence(self._session(config, device), record, samples)

    def load(self, config: Config, record: Any, looked: Any, device: str, accept_environment: bool) -> Sequence[str]:
        """Load the pinned model onto the device, and what is compiled of it; return what there is to tell of that."""
        from pipeline.worker import Worker

        # A moment without storage would else cost this place for good, or where it is the first one, the run.
        session = self._session(config, device)
        self._worker = patiently(lambda: Worker(session, record, looked=looked, accept_environment=accept_environment))
        self._opened = None
        self._fragile = device == "cuda"
        return self._take_said()

    def _take_said(self) -> Sequence[str]:
        said, self._said[:] = list(self._said), []
        return said

    def run(self, coordinator: Any) -> str:
        """Work until told to stop; return why."""
        self._desk = RayDesk(self._name, coordinator)
        self._loop = Loop(self._worker, self._desk, fragile=self._fragile, said=self._take_said)
        if self._successor is not None:  # the coordinator died while this call was on its way
            self._desk.attach(self._successor)
        return self._loop.run()

    @ray.method(concurrency_group=CONTROL)
    def detach(self) -> list[Held]:
        """Let go of a dead coordinator; return what is in hand."""
        if self._desk is None or self._loop is None:
            return []
        self._desk.detach()
        return self._loop.held()

    @ray.method(concurrency_group=CONTROL)
    def attach(self, coordinator: Any) -> None:
        """Go on with a new coordinator."""
        self._successor = coordinator
        if self._desk is not None:
            self._desk.attach(coordinator)
