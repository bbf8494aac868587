"""How far a sequence of passes over an order has come, one pass an epoch; and its state as plain JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import CorpusError


@dataclass
class Progress:
    """``position`` of ``epoch`` is what was received; ``start`` is where the pass began, or begins unless ``begun``."""

    epoch: int = 0
    position: int = 0
    start: int = 0
    begun: bool = False

    def begin(self) -> None:
        """A pass begins: that of the next epoch where one was left before its end."""
        if self.begun:
            self.set_epoch(self.epoch + 1)
        self.begun = True

    def next(self) -> tuple[int, int]:
        """Return epoch and position at which a pass would begin now."""
        return (self.epoch + 1, 0) if self.begun else (self.epoch, self.start)

    def set_epoch(self, epoch: int) -> None:
        """Have the next pass be *epoch*, from its beginning; from a resumed position where that is of this epoch."""
        if epoch != self.epoch or self.begun:
            self.resume(epoch, 0)

    def resume(self, epoch: int, position: int) -> None:
        self.epoch, self.position, self.start, self.begun = epoch, position, position, False


_MEANS = {
    "corpus": "of another corpus, snapshot or predicate",
    "seed": "of another seed",
    "shuffle": "of another shuffle",
    "buckets": "of other aspect buckets or, with them, of another batch_size",
}
_COUNTS = ("epoch", "position", "given")
_FIXED = ("world_size", "workers", "batch_size")


def check_state(state: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raise ``CorpusError`` where *state* is not of the kind of *ours*, of another order, or of other numbers that
    *ours* has too."""
    if not isinstance(state, Mapping) or state.get("kind") != ours["kind"] or ours.keys() - state.keys():
        raise CorpusError(f"state: is no state of a {ours['kind'].rpartition(' ')[0]}; expected what state_dict gave")
    for key, meaning in _MEANS.items():
        if state[key] != ours[key]:
            raise CorpusError(f"state: is {meaning} ({key}: {state[key]}, here {ours[key]})")
    for key in _COUNTS:
        if key in ours and (not isinstance(state[key], int) or state[key] < 0):
            raise CorpusError(f"state: {key} is {state[key]!r}; expected what state_dict gave")
    for key in _FIXED:
        if key in ours and state[key] != ours[key]:
            raise other_number(key, state[key], ours[key])


def other_number(name: str, saved: object, ours: object) -> CorpusError:
    """Return what refuses a state of another number of ranks, workers or samples a batch, with what can go on."""
    return CorpusError(
        f"state: was saved with {name} {saved} and is loaded with {ours}; a pipeline.Loader and its state go on "
        "exactly at other numbers of ranks, workers and samples a batch"
    )
