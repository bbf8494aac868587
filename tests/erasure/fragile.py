"""ESD whose process is killed, as by the system, before the iteration that ``KILL_AT`` names."""

import os
import signal

from pipeline.erasure.esd import ESD
from pipeline.erasure.method import Training


class FragileESD(ESD):
    def train(self) -> Training:
        training = super().train()
        iterate = training.iterate

        def fragile(i: int) -> float:
            if str(i) == os.environ.get("KILL_AT"):
                os.kill(os.getpid(), signal.SIGKILL)
            return iterate(i)

        training.iterate = fragile
        return training
