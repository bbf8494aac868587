"""The worker actors: made, brought to work stage by stage, found dead and replaced.

Knows nothing of shards: what a dead worker held is the coordinator's affair, to whom the driver passes the news.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayTaskError

from pipeline.cluster.judgement import place
from pipeline.cluster.on_ray.actor import WorkerActor
from pipeline.cluster.on_ray.machines import DEATHS, Needs, alive_nodes, last_words, refuse_lacking
from pipeline.cluster.protocol import FailureKind
from pipeline.cluster.triage import last_line
from pipeline.errors import ClusterError, LacunaError, StoreError

DEATHS_ON_STARTING = 5  # in a row, nobody having come further meanwhile: it is not bad luck
LOAD_FAILURES = 5  # deaths and errors in a row at one place: it is the place, and is left out
DETACH = 30.0  # seconds for workers to say what they hold; of one that does not answer, the shard may be done twice
REST = 10.0  # seconds before another is started, where one died before it could say where it was
# Seconds in which news of a node's death may follow that of its actor: Ray notices a dead process at once, but takes
# 14 s (measured) to give up a machine, whose actors are "unavailable" meanwhile.
NODE_NEWS = 1.0
NODE_NEWS_OF_THE_UNAVAILABLE = 30.0

_worker_actor: Any = WorkerActor  # ray.remote makes more of the class than its type says


class Stage(Enum):
    """What a worker is doing; it moves down this list."""

    starting = auto()
    ready = auto()
    preparing = auto()
    drawing = auto()
    loading = auto()
    loaded = auto()
    running = auto()
    refused = auto()  # its machine cannot do what others do: it holds the place, where a replacement would fail too


@dataclass(kw_only=True)
class Member:
    """One worker actor and the call to it that is under way."""

    actor: Any
    call: Any
    stage: Stage
    since: float
    name: str = ""
    node: str = ""


@dataclass(frozen=True, kw_only=True)
class Death:
    """A worker whose process or machine is gone."""

    name: str  # "" where it died before it had one
    kind: FailureKind
    message: str


class Fleet:
    """All worker actors of a run. ``poll`` moves them along; the driver says what each stage leads to."""

    def __init__(self, wanted: Needs, hello: Callable[[Any], Any], say: Callable[[str], None], load_timeout: float):
        self._needs, self._hello, self._say, self._load_timeout = wanted, hello, say, load_timeout
        self.members: list[Member] = []
        self._dead: list[tuple[Member, str, float]] = []  # (who, why, until when its node's fate may become known)
        self._born = 0
        self._rest_until = 0.0
        self._deaths_on_starting = 0
        self._ever_loaded = False
        self._lacking: set[str] = set()
        self._failed_at: defaultdict[str, list[Exception]] = defaultdict(list)  # place -> loads since one succeeded

    def grow(self, size: int) -> None:
        """Make actors until there are *size* that are of use. Those for which there is no room yet wait, and tell an
        autoscaler so."""
        if time.monotonic() < self._rest_until:
            return
        while len(self.members) - len(self.at(Stage.refused)) < size:
            self._born += 1
            actor = _worker_actor.options(**self._needs.options()).remote(self._born)
            now = time.monotonic()
            self.members.append(Member(actor=actor, call=self._hello(actor), stage=Stage.starting, since=now))

    def at(self, stage: Stage) -> list[Member]:
        """The members at one stage."""
        return [member for member in self.members if member.stage is stage]

    def welcome(self, member: Member, name: str, node: str) -> None:
        """A member has said who and where it is. Where loading fails time and again while others load or work, it is
        left out; where nobody does, the last failure there is raised."""
        member.name, member.node, member.stage = name, node, Stage.ready
        failures = self._failed_at[place(name)]
        if len(failures) < LOAD_FAILURES:
            return
        if not self._others(Stage.loading):
            raise failures[-1]
        self.send(member, Stage.refused, None)
        why = last_line(str(failures[-1]))
        self._say(f"worker {name} is not used, while others work: {LOAD_FAILURES} loads in a row failed there: {why}")

    def send(self, member: Member, stage: Stage, call: Any) -> None:
        """A member has been called; it is at *stage* until the call ends."""
        member.stage, member.call, member.since = stage, call, time.monotonic()

    def poll(self, seconds: float) -> tuple[list[tuple[Member, Any]], list[Death]]:
        """Wait for up to *seconds*; return the calls that ended, with their results, and the workers that died.

        What a call raised is raised here, the user's errors as they were: a config that no worker can use ends the run.
        A machine that cannot use it while others work (another GPU, a folder that is not mounted) is only left out.
        """
        calls = {member.call: member for member in self.members if member.call is not None}
        if not calls:
            time.sleep(seconds)
        ended, _ = ray.wait(list(calls), num_returns=len(calls), timeout=seconds) if calls else ([], [])
        results = []
        for call in ended:
            member = calls[call]
            try:
                result = ray.get(call)
            except DEATHS as error:
                if self._lacks(member, error):
                    continue
                unavailable = isinstance(error, ActorUnavailableError)
                self._bury(member, _reason(error), NODE_NEWS_OF_THE_UNAVAILABLE if unavailable else NODE_NEWS)
                continue
            except RayTaskError as error:
                self._raised(member, error)
                continue
            member.call = None
            if member.stage is Stage.loading:
                self._ever_loaded, self._deaths_on_starting = True, 0
                self._failed_at.pop(place(member.name), None)
            results.append((member, result))
        return results, self._deaths()

    def kill(self, names: set[str]) -> None:
        """End these workers by force; their deaths show in the next ``poll``."""
        for member in self.members:
            if member.name in names:
                ray.kill(member.actor)

    def kill_slow(self) -> None:
        """Replace workers that hang before they could work. Those that wait for room are not among them."""
        for member in (*self.at(Stage.loading), *self.at(Stage.preparing), *self.at(Stage.drawing)):
            if time.monotonic() - member.since > self._load_timeout:
                self._say(
                    f"worker {member.name} is replaced: not ready in {self._load_timeout:g} s (cluster.load_timeout)"
                )
                ray.kill(member.actor)

    def dismiss(self, member: Member) -> None:
        """A member has finished; free its resources."""
        self.members.remove(member)
        ray.kill(member.actor)

    def disband(self) -> None:
        """The run is over: end whoever is left, such as workers that there was no room for until now."""
        for member in list(self.members):
            self.dismiss(member)

    def _bury(self, member: Member, message: str, news: float) -> None:
        self.members.remove(member)
        ray.kill(member.actor)  # it may only be out of reach, and would go on beside its replacement
        self._dead.append((member, message, time.monotonic() + news))

    def _lacks(self, member: Member, error: BaseException) -> bool:
        """Where a worker could not begin because its machine lacks a module, leave it out if others have come further,
        and say so once for each machine; else ``ClusterError``."""
        if member.stage is not Stage.starting:
            return False
        try:
            refuse_lacking(error)
        except ClusterError as lacking:
            if not self._others(Stage.starting):
                raise
            self.dismiss(member)
            self._rest_until = time.monotonic() + REST
            if str(lacking) not in self._lacking:
                self._lacking.add(str(lacking))
                self._say(f"a worker is not used, while others work: {lacking}")
            return True
        return False

    def _raised(self, member: Member, error: RayTaskError) -> None:
        if self._lacks(member, error):
            return
        busy = isinstance(error.cause, StoreError) and member.stage is Stage.loading  # storage, for this one and now
        if isinstance(error.cause, LacunaError) and not busy:
            if member.stage not in (Stage.starting, Stage.loading) or not self.at(Stage.running):
                raise error.cause
            self.send(member, Stage.refused, None)
            self._say(f"worker {member.name or '(starting)'} is not used, while others work: {error.cause}")
            return
        if member.stage is Stage.drawing:  # a prompt that cannot be drawn; where it is planned, it will be left out
            self._bury(member, str(error.cause), NODE_NEWS)
            return
        self.dismiss(member)
        if member.stage is not Stage.loading or not (self._ever_loaded or self._others(Stage.loading)):
            raise error.cause if busy else error
        self._failed_at[place(member.name)].append(error.cause if busy else error)

    def _deaths(self) -> list[Death]:
        """The dead of whose machine enough is known: gone too, or standing for a while after."""
        known, waiting = [], []
        alive = alive_nodes() if self._dead else set()  # once: it takes the longer, the more machines there are
        for member, message, until in self._dead:
            gone = bool(member.node) and member.node not in alive
            if not gone and time.monotonic() < until:
                waiting.append((member, message, until))
                continue
            kind = FailureKind.node_loss if gone else FailureKind.crash
            if not gone and member.stage is not Stage.running:
                self._died_early(member, message)
            known.append(Death(name=member.name, kind=kind, message=message))
        self._dead = waiting
        return known

    def _died_early(self, member: Member, message: str) -> None:
        """A worker died before it could work. While others have come further, that is its place's fault."""
        if member.stage is Stage.loading:
            self._failed_at[place(member.name)].append(
                ClusterError(f"a worker died while loading: {_with_reasons(message)}")
            )
        if self._others(member.stage):
            self._deaths_on_starting = 0
            if not member.name:
                self._rest_until = time.monotonic() + REST
            return
        self._deaths_on_starting += 1
        if self._deaths_on_starting >= DEATHS_ON_STARTING:
            raise ClusterError(
                f"{DEATHS_ON_STARTING} workers in a row died before they could work: {_with_reasons(message)}"
            )

    def _others(self, stage: Stage) -> bool:
        """Has any member come further than *stage*, or as far as to load the model?"""
        least = min(stage.value + 1, Stage.loading.value)
        return any(least <= member.stage.value < Stage.refused.value for member in self.members)


def _reason(error: BaseException) -> str:
    """What Ray says of a death, without its advice."""
    text = " ".join(str(error).split())
    return text[text.find("Worker exit type") :].split(" Some common causes")[0] if "Worker exit type" in text else text


def _with_reasons(message: str) -> str:
    """One line of what Ray says of a death and what the dead said."""
    return "; ".join(text for text in (" ".join(message.split()), last_words()) if text)


def ask_all(members: Sequence[Member], method: str, *args: Any) -> list[Any]:
    """Call a control method of each; None for those that are dead or do not answer."""
    calls = [getattr(member.actor, method).remote(*args) for member in members]
    answers: list[Any] = []
    ray.wait(calls, num_returns=len(calls), timeout=DETACH) if calls else None
    for call in calls:
        try:
            answers.append(ray.get(call, timeout=0))
        except (RayActorError, GetTimeoutError):
            answers.append(None)
    return answers
