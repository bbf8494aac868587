"""ESDs that go wrong: killed, as by the system, before the iteration that ``KILL_AT`` names; or with weights that
overflow in a step whose loss was finite."""

import os
import signal

import torch

from pipeline.erasure.method import Training
from pipeline.erasure.methods.esd import ESD


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


class OverflowingESD(ESD):
    def train(self) -> Training:
        training = super().train()
        iterate = training.iterate

        def overflowing(i: int) -> float:
            loss = iterate(i)
            with torch.no_grad():
                next(iter(training.student.values())).mul_(float("inf"))
            return loss

        training.iterate = overflowing
        return training
