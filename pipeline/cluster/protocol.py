"""What coordinator and workers say to each other, as plain data that any process can pickle.

It knows nothing of Ray, clocks or storage. A worker has at most two leases: the one it runs and one prefetched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from pipeline.prompts import PlannedShard

Counts = Mapping[str, int]  # samples per status (ok, quarantined, dropped, failed) of one committed shard


class Planner(Protocol):
    """The part of ``prompts.Plan`` that leasing needs."""

    @property
    def shards(self) -> int: ...

    def shard(self, index: int) -> PlannedShard: ...


class FailureKind(StrEnum):
    """Why an attempt at a shard failed, or what was decided about the shard after several did."""

    error = "error"  # the worker raised; charged to the error budget
    crash = "crash"  # the worker's process died; charged to the error budget
    timeout = "timeout"  # past its deadline; charged to the error budget
    node_loss = "node_loss"  # the machine went away; charged to the node-loss budget
    blamed = "blamed"  # bisection found that this one sample does it: excluded from now on
    pardoned = "pardoned"  # the run was stopped because the config was wrong: what was charged is forgotten
    given_up = "given_up"  # past the budgets: not tried again, in this run or after a restart


CHARGED = frozenset({FailureKind.error, FailureKind.crash, FailureKind.timeout})  # to the error budget


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One record of ``failures/``: what survives of a shard's bad luck when coordinator or driver die."""

    shard: int
    kind: FailureKind
    message: str
    sample_key: str | None = None  # of ``blamed``
    attempt: str = ""
    worker: str = ""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One shard to generate or, with ``probe``, the keys of it to generate without writing anything."""

    planned: PlannedShard
    attempt: str  # names this attempt at this shard and no other, over all restarts
    excluded: frozenset[str] = frozenset()  # keys known to fail: their rows say ``failed``
    probe: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Work for one worker, to be done in order."""

    id: str
    tasks: tuple[Task, ...]
    suspect: bool = False  # may take its worker along: finish all commits before and after it
    report_every: float = 0.0  # seconds between reports: the more workers, the longer

    def held(self) -> "Held":
        """The same lease as its worker describes it to a new coordinator: without the prompts."""
        tasks = () if any(task.probe for task in self.tasks) else self.tasks
        return Held(id=self.id, attempts=tuple((task.planned.index, task.attempt) for task in tasks))


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Nothing to lease now; ask again after ``seconds``."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Stop:
    """No more work for this worker: finish what is held, then leave."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of one task. ``error`` is the traceback of a failed one, None where it succeeded.

    With ``storage`` it is the line of an error that storage raised: the shard was drawn, and could not be put away.
    With ``full`` nothing more can be, there or, without ``storage``, where the worker's machine builds shards.
    """

    shard: int
    attempt: str
    error: str | None = None
    storage: bool = False
    full: bool = False
    counts: Counts = field(default_factory=dict)
    images: int = 0  # generated, further seeds included, and not in a ``Drawn`` before
    seconds: float = 0.0  # from its start to its commit
    device_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """How far a task that is not done has come: a shard may take many minutes, and somebody watches."""

    attempt: str
    images: int  # generated since the last word of it
    share: float  # of its samples, drawn by now: 0..1


@dataclass(frozen=True, kw_only=True)
class Compiling:
    """A task waits, from now (*begun*) or no more, for code of the model to be compiled or loaded: no work on it.
    ``said`` are lines that tell of it."""

    attempt: str
    begun: bool
    said: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Held:
    """A lease that its worker still holds, without its prompts; ``attempts`` is empty for a probe."""

    id: str
    attempts: tuple[tuple[int, str], ...]  # (shard, attempt)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """How the run stands, for whoever watches it."""

    shards: int
    done: int  # committed, in this run or before
    resumed: int  # of these, committed before this coordinator began
    leased: int  # shards in the hands of workers
    in_doubt: int  # shards of which storage has been asked whether they are committed
    patience: float  # seconds after which a worker counts as hung that has done nothing of what it was leased
    under_way: float  # of these, the parts that are drawn, summed
    workers: int
    counts: Counts  # samples per status in the committed shards
    images: int  # generated since this coordinator began, further seeds included
    device_seconds: float
    hung: Sequence[str]  # workers past their deadline: to be killed by whoever owns them
    parked: Sequence[str]  # workers at places where everything fails: they hold the place and get no work
    given_up: Mapping[int, str]  # shard -> why
    blamed: Sequence[str]  # keys of the samples found guilty
    stopped: str | None  # why no more work is given out though some is left
    finished: bool  # every shard is committed or given up
    log: Sequence[str] = ()  # what happened since the last snapshot, a line each
