"""The process of one stage: how the call that starts it begins it, reads it, and takes it along when it ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

SCRIPT = Path(__file__).resolve().parents[1] / "gpu_check.py"
LINES = ('{"begun": ', '{"figure": ')  # what the lines of a stage begin with; any other is some library's


class Child:
    """A process that imports at once, and does its work when it is told to. It ends where this one does: its input
    stays open as long."""

    def __init__(self, arguments: Sequence[str], scratch: Path):
        """*scratch* is where torch keeps what it compiles, of this call alone: what was compiled before is no
        matter."""
        self.told = False
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "stage", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(scratch)},
        )  # fmt: skip

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self.told:  # nobody waits until it has imported
            self.process.kill()
        self.process.__exit__(kind, error, at)

    def work(self, known: Mapping[str, Any], end: float) -> Iterator[dict[str, Any]]:
        """Tell it what is *known*, and yield what it finds until it ends, which it does by *end* (Unix time)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.told = True
        with suppress(BrokenPipeError):  # it is gone, and has said why
            os.write(self.process.stdin.fileno(), f"{json.dumps(known)}\n".encode())
        left = min(max(0.0, end - time.time()), threading.TIMEOUT_MAX)
        cut = threading.Timer(left, self.process.stdin.close)
        cut.daemon = True
        cut.start()
        try:
            for line in self.process.stdout:
                if line.startswith(LINES):
                    yield json.loads(line)
                else:
                    print(line, end="", file=sys.stderr, flush=True)
        finally:
            cut.cancel()
        self.process.wait()


def end_with_input() -> None:
    """Have this process end where its input does, with all that it started: nothing holds a GPU for a call that was
    cut, or the call's pipes."""
    if os.getpgrp() != os.getpid():
        os.setpgrp()

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):  # not sys.stdin, which a process that ends may want to close meanwhile
            pass
        os.killpg(0, signal.SIGKILL)  # the thread that measures waits for nobody

    threading.Thread(target=watch, daemon=True).start()
