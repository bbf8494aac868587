"""The run on Ray: one coordinator, a fleet of workers, and a loop that replaces whatever dies.

Holds nothing that a restart needs: kill the driver and all of its actors go with it, and the same command goes on from
storage. What the loop survives: workers and nodes that die, hang, join or drain, and the coordinator's death.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.cluster.coordinator import FINISHED
from pipeline.cluster.on_ray import machines
from pipeline.cluster.on_ray.actor import CoordinatorActor
from pipeline.cluster.on_ray.fleet import Death, Fleet, Member, Stage, ask_all
from pipeline.cluster.on_ray.metrics import Metrics
from pipeline.cluster.on_ray.patience import OPENING, longest, waited_for
from pipeline.cluster.progress import Progress
from pipeline.cluster.protocol import Counts, Held, Planner, Snapshot
from pipeline.cluster.records import delete_nonce, write_nonce
from pipeline.cluster.watch import Lost, Watch
from pipeline.config.schema import Config
from pipeline.config.sections.generation import Compile
from pipeline.corpus import open_store
from pipeline.errors import ConfigError, LacunaError

POLL = 0.25  # seconds between two looks at everything
LOOK_AROUND = 8  # polls between two looks at the cluster's machines
COORDINATOR_DEATHS = 5  # without a shard committed between: not bad luck
FAREWELL = 30.0  # seconds for workers to commit what they hold once there is no more to give out
# Seconds for a coordinator that has listed what is committed to answer: it waits for storage where a shard is given up
# or a sample left out, and nowhere else.
ANSWERING = 120.0
DRAWINGS = 2  # attempts at the evidence's pairs: a prompt among them may kill whoever draws it
UNANSWERED = 5.0  # seconds: an answer is usually there at the next poll

_coordinator_actor: Any = CoordinatorActor  # ray.remote makes more of the class than its type says


class Driver:
    """One run. *alive* is called in every round. *pinned* is its record where an earlier start left one; else the first
    worker prepares it. *known* are the counts of shards committed before, for every coordinator that is made."""

    def __init__(
        self,
        *,
        config: Config,
        plan: Planner,
        progress: Progress,
        alive: Callable[[], None],
        pinned: Any,
        summary: Any,
        pair_samples: Sequence[Any],
        known: Mapping[int, Counts],
        unfinished: int,
        accept_environment: bool,
    ):
        self._config, self._plan, self._progress, self._alive = config, plan, progress, alive
        self._watch = Watch(progress.say)
        self._drawn: tuple[float, ...] = ()  # of these two, what it was last that was news
        self._stages: tuple[object, ...] = ()
        self._began = time.monotonic()
        self._least = 0  # workers that have to come, until they have
        self._asked = 0.0  # since when the coordinator has been asked how the run stands
        self._record, self._summary, self._pair_samples = pinned, summary, pair_samples
        self._accept_environment = accept_environment
        self._known, self._unfinished = known, unfinished
        self._needs = machines.needs(config)
        self._store = open_store(config.output.path, config.output.storage_options)
        self._nonce = ""
        self._polls = 0
        self._coordinator: Any = None
        self._call: Any = None  # for a snapshot
        self._opening = True  # the coordinator has not answered yet: it lists what is committed
        self._deaths_of_coordinators, self._done_at_death = 0, -1
        self._drawings = 0
        self._draining: set[str] = set()
        self._snapshot: Snapshot | None = None
        self._ended = 0.0  # when there was no more to give out
        self._told_finished = False  # a worker knows that already; the next snapshot will say so
        self._metrics = Metrics(config.output.path)
        self._fleet = Fleet(
            self._needs,
            hello=lambda actor: actor.hello.remote(config, self._nonce, os.getcwd()),
            say=progress.say,
            load_timeout=config.cluster.load_timeout,
        )

    def run(self) -> Snapshot:
        """Work until every shard is committed or given up, or the run is stopped; return how it stands then."""
        self._nonce = write_nonce(self._store)
        try:
            self._coordinator = self._make_coordinator({})
            self._ask_coordinator()
            self._least = min(self._config.cluster.workers.min, self._wanted())
            while not self._over():
                self._poll()
                self._expect_the_first()
            assert self._snapshot is not None
            return self._snapshot
        finally:
            self._fleet.disband()  # before the note goes that they look for when they start
            delete_nonce(self._store, self._nonce)

    def _over(self) -> bool:
        if self._snapshot is None or not (self._snapshot.finished or self._snapshot.stopped):
            return False
        self._ended = self._ended or time.monotonic()
        if self._fleet.at(Stage.drawing) and self._snapshot.finished:
            return False
        left = self._fleet.at(Stage.running) or self._snapshot.in_doubt
        return not left or time.monotonic() - self._ended > FAREWELL

    def _poll(self) -> None:
        self._polls += 1
        self._poll_workers()
        self._watch_coordinator()
        self._look()
        snapshot = self._snapshot
        if snapshot is None or snapshot.finished or snapshot.stopped:
            return
        self._fleet.kill(set(snapshot.hung))
        if self._polls % LOOK_AROUND == 0:
            self._look_around()

    # Does anything happen?

    def _look(self) -> None:
        """Say what is waited for, where nothing happens for long; ``Lost`` where nothing will come of it."""
        self._alive()
        snapshot = self._snapshot
        drawn = () if snapshot is None else (snapshot.done, snapshot.images, snapshot.under_way, len(snapshot.given_up))
        if drawn != self._drawn:
            self._drawn = drawn
            self._watch.happened()
        news = (self._coordinator, *((member.name, member.stage) for member in self._fleet.members))
        if news != self._stages:
            self._stages = news
            self._watch.happened(shown=False)
        silent = time.monotonic() - self._asked
        stages = Counter(member.stage for member in self._fleet.members)
        self._watch.look(
            lambda: waited_for(stages, snapshot, silent if silent > UNANSWERED else None, self._opening, self._needs),
            longest(self._config.cluster, stages, snapshot, self._opening),
        )

    # Workers

    def _wanted(self) -> int:
        """Workers to have: as many as there is room for, within the config's bounds, and no more than shards."""
        workers = self._config.cluster.workers
        room = machines.slots(self._needs) if workers.max is None else workers.max
        left = self._unfinished
        if self._snapshot is not None:
            left = self._snapshot.shards - self._snapshot.done - len(self._snapshot.given_up)
        return min(max(room, workers.min), max(left, 1))

    def _expect_the_first(self) -> None:
        """``ConfigError`` if ``workers.min``, or all that were wanted if that is less, were not to be had in time."""
        came = sum(member.stage is not Stage.starting for member in self._fleet.members)
        patience = self._config.cluster.startup_timeout
        if came >= self._least:
            self._least = 0
        elif time.monotonic() - self._began > patience:
            raise ConfigError(
                f"cluster.workers.min: {self._least} workers of {self._needs} each were not to be had in "
                f"{patience:g} s (cluster.startup_timeout); the cluster has {machines.resources()}"
            )

    def _poll_workers(self) -> None:
        results, deaths = self._fleet.poll(POLL)
        for member, result in results:
            self._advance(member, result)
        for death in deaths:
            self._mourn(death)
        self._dispatch()
        if self._snapshot is None:
            self._fleet.grow(self._wanted())

    def _advance(self, member: Member, result: Any) -> None:
        """A member's call has ended well: on to its next stage."""
        if member.stage is Stage.starting:
            self._fleet.welcome(member, *result)
        elif member.stage is Stage.preparing:
            self._record = result
            member.stage = Stage.ready
        elif member.stage is Stage.drawing:
            self._pair_samples = ()
            member.stage = Stage.ready
        elif member.stage is Stage.loading:
            member.stage = Stage.loaded
            for line in result:
                self._progress.say(f"worker {member.name}: {line}")
        elif member.stage is Stage.running:
            self._fleet.dismiss(member)
            if result == FINISHED:
                self._told_finished = True
            else:
                self._progress.say(f"worker {member.name} has left: {result}")

    def _dispatch(self) -> None:
        """Give every idle member its next call.

        The first one prepares, and the others wait for it; then it draws the evidence, and the others begin.
        """
        config = self._config
        device = self._needs.device
        for member in self._fleet.at(Stage.ready):
            if self._record is not None and self._pair_samples and self._may_draw():
                self._drawings += 1
                call = member.actor.draw_evidence.remote(config, self._record, self._pair_samples, device)
                self._fleet.send(member, Stage.drawing, call)
            elif self._record is not None:
                looked = self._summary.looked
                call = member.actor.load.remote(config, self._record, looked, device, self._accept_environment)
                self._fleet.send(member, Stage.loading, call)
            elif not self._fleet.at(Stage.preparing):
                if config.generation.compile is not Compile.none:
                    self._progress.say("the first worker compiles the model, which takes a minute or more")
                call = member.actor.prepare.remote(config, self._summary, device, self._accept_environment)
                self._fleet.send(member, Stage.preparing, call)
        for member in self._fleet.at(Stage.loaded):
            self._fleet.send(member, Stage.running, member.actor.run.remote(self._coordinator))

    def _may_draw(self) -> bool:
        return self._drawings < DRAWINGS and not self._fleet.at(Stage.drawing)

    def _mourn(self, death: Death) -> None:
        if death.name:
            self._coordinator.lost.remote(death.name, death.kind, death.message)
        self._progress.say(f"worker {death.name or '(starting)'} is gone ({death.kind})")

    def _look_around(self) -> None:
        """Use machines that have joined, and leave those that will go."""
        self._fleet.kill_slow()
        nodes = machines.draining_nodes()
        draining = {member.name for member in self._fleet.at(Stage.running) if member.node in nodes}
        if draining != self._draining:
            self._draining = draining
            self._coordinator.drain.remote(sorted(draining))
        if not self._told_finished:
            self._fleet.grow(self._wanted() + len(draining))

    # The coordinator

    def _make_coordinator(self, held: Mapping[str, Sequence[Held]]) -> Any:
        """On the driver's machine, and using no CPU of it."""
        where = NodeAffinitySchedulingStrategy(node_id=machines.here(), soft=False)
        make = _coordinator_actor.options(scheduling_strategy=where).remote
        return make(self._config, self._plan, held, self._known, os.getcwd())

    def _watch_coordinator(self) -> None:
        """Take a snapshot if one has come; replace the coordinator if none can."""
        ended, _ = ray.wait([self._call], timeout=0)
        if not ended:
            silent = time.monotonic() - self._asked
            if silent > (OPENING if self._opening else ANSWERING):
                self._replace_coordinator(f"the coordinator has not answered for {silent:.0f} s")
                self._ask_coordinator()
            return
        try:
            snapshot: Snapshot = ray.get(self._call)
        except machines.DEATHS as error:
            machines.refuse_lacking(error)
            self._replace_coordinator("the coordinator is gone")
        except RayTaskError as error:
            if isinstance(error.cause, LacunaError):
                raise error.cause from None
            raise
        else:
            self._snapshot, self._opening = snapshot, False
            self._progress.update(snapshot)
            self._metrics.update(snapshot)
        self._ask_coordinator()

    def _ask_coordinator(self) -> None:
        self._call, self._asked = self._coordinator.snapshot.remote(), time.monotonic()

    def _replace_coordinator(self, why: str) -> None:
        """Make a new one, which lists the commits and is told what workers hold; they go on meanwhile."""
        done = self._snapshot.done if self._snapshot is not None else 0
        self._deaths_of_coordinators = self._deaths_of_coordinators + 1 if done == self._done_at_death else 1
        self._done_at_death = done
        if self._deaths_of_coordinators > COORDINATOR_DEATHS:
            raise Lost(f"{COORDINATOR_DEATHS} coordinators died without a shard committed between")
        self._progress.say(f"{why}; a new one goes on from what is committed")
        self._opening = True
        ray.kill(self._coordinator)
        members = self._fleet.at(Stage.running)
        held = dict(zip([m.name for m in members], ask_all(members, "detach"), strict=True))
        self._coordinator = self._make_coordinator(
            {name: leases for name, leases in held.items() if leases is not None}
        )
        ask_all(members, "attach", self._coordinator)
        self._draining = set()
