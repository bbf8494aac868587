"""Finds the samples that make a shard fail, one probe at a time. Knows only keys: not who probes, nor how.

A probe generates some of the shard's samples and either survives or does not. The search halves a group that is known
to fail until one sample is left. Three rules keep the innocent safe, because blame costs a sample for good:
- a sample is blamed only after ``CONFIRMATIONS`` failed probes of it alone (a stray kill looks like one failure);
- and only if some other probe of this search has survived: where everything fails (out of memory, a full disk), no
  sample is at fault;
- a search that ends with a surviving sample blames nobody.
"""

from collections.abc import Mapping

CONFIRMATIONS = 2


class Bisection:
    """The search in one shard: probe ``group``, then call ``passed()`` or ``failed()``, until ``group`` is None.

    ``samples`` maps each key that may be guilty, in order, to its prompt's index: repetitions of a guilty prompt are
    the first suspects after it.
    """

    def __init__(self, samples: Mapping[str, int]):
        self._prompts = samples
        self._bad: tuple[str, ...] = tuple(samples)  # known to fail, if there is a culprit at all
        self._confirmed = 0  # failed probes of ``_bad``, where that is one sample
        self._survived = False  # has any probe?
        self._control = False  # is the probe under way one of a sample that nobody suspects?
        self._siblings = False  # is ``_bad`` the guilty prompt's repetitions, not yet known to fail?
        self.blamed: list[str] = []
        self.group: tuple[str, ...] | None = self._next()

    def passed(self) -> None:
        """The probe of ``group`` survived."""
        assert self.group is not None
        self._survived = True
        if self._control:
            self._control = False
            self.group = self._blame()
        elif len(self._bad) == 1 or self._siblings:
            self.group = None  # nobody left to suspect
        else:
            self._bad = self._bad[len(self.group) :]
            self.group = self._next()

    def failed(self) -> None:
        """The probe of ``group`` raised, crashed or hung."""
        assert self.group is not None
        if self._control:
            self.group = None  # everything fails: no sample's fault
            return
        if len(self.group) == 1:
            self._confirmed = self._confirmed + 1 if self._bad == self.group else 1
        self._bad = self.group
        self._siblings = False
        if len(self._bad) > 1 or self._confirmed < CONFIRMATIONS:
            self.group = self._next()
            return
        keys = list(self._prompts)
        if self._survived or len(keys) == 1:
            self.group = self._blame()
        else:
            self._control = True  # probe the sample farthest away, which shares no batch with this one
            self.group = (keys[0] if keys.index(self._bad[0]) >= len(keys) // 2 else keys[-1],)

    def _next(self) -> tuple[str, ...]:
        """Half of the group that is known to fail, or all of it where that is not yet known or it is one sample."""
        return self._bad if self._siblings or len(self._bad) == 1 else self._bad[: (len(self._bad) + 1) // 2]

    def _blame(self) -> tuple[str, ...] | None:
        """Blame the one sample of ``_bad``, and suspect the others of its prompt."""
        (guilty,) = self._bad
        self.blamed.append(guilty)
        self._confirmed = 0
        prompt = self._prompts[guilty]
        siblings = [key for key, index in self._prompts.items() if index == prompt and key not in self.blamed]
        if not siblings:
            return None
        self._bad, self._siblings = tuple(siblings), True
        return self._next()
