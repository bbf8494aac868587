"""An erasure method that breaks on certain prompts, as a user's own code or a driver bug would."""

import os
import re
import signal
import time
from dataclasses import dataclass
from typing import Any

from pipeline.erasure.method import Method, Prompts, Sampling


@dataclass(kw_only=True)
class PoisonOptions:
    """None."""


class Poison(Method):
    """Raises where a prompt says RAISE, takes the whole process along where one says KILL.

    Where one says SLOW:FILE, it takes a second over it, until that file exists.
    """

    Options = PoisonOptions

    def __init__(self, model: Any, concepts: Any, options: Any, *, label: str):
        super().__init__(model, concepts, options, label=label)

    def steer(self, prompts: Prompts, sampling: Sampling) -> None:
        if any("KILL" in text for text in prompts.texts):
            os.kill(os.getpid(), signal.SIGKILL)
        if any("RAISE" in text for text in prompts.texts):
            raise ValueError("this prompt cannot be drawn")
        if (slow := re.search(r"SLOW:(\S+)", " ".join(prompts.texts))) and not os.path.exists(slow[1]):
            time.sleep(1)
