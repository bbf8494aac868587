"""A process like that which drives Ray, without Ray: it does as the file ORDERS says, a line a process."""

import os
import pickle
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.cluster.supervisor import Ended, Gone, Joined, Raised, Said, Waiting
from pipeline.errors import ConfigError

ORDERS = "LACUNA_TEST_ORDERS"  # environment: the file


def main(number: int) -> None:
    pipe = Connection(number)
    config = pipe.recv()
    orders = Path(os.environ[ORDERS])
    order, *rest = orders.read_text().splitlines()
    orders.write_text("\n".join(rest))
    asked: Any = pipe.recv()
    for word in order.split():
        match word.split(":"):
            case ["own"]:
                pipe.send(Joined(address=None))
            case ["joined"]:
                pipe.send(Joined(address="10.0.0.1:6379"))
            case ["say"]:
                pipe.send(Said(line=f"asked for {asked}, with RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}"))
            case ["wait"]:
                pipe.send(Waiting(what="Godot", seconds=0.5))
            case ["sleep"]:
                time.sleep(60)
            case ["die"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["gone"]:
                pipe.send(Gone(why="Ray's raylet has died"))
            case ["done"]:
                pipe.send(pickle.loads(Path(f"{orders}.done").read_bytes()))
            case ["config"]:
                pipe.send(Ended(result=config.log_level))
            case ["refuse"]:
                pipe.send(Raised(error=ConfigError("no Ray answers there")))
    pipe.poll(None)  # until the end of whoever asked
