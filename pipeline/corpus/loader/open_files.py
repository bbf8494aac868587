"""Files that are held open: in all a process's corpora so many, as the system allows a process only so many."""

import resource
import weakref
from collections import OrderedDict
from io import FileIO

MOST = 512  # at most
SHARE = 4  # of the files that the system allows, one in so many

# Of all holders, by the holder's id and number; those that were used last stand last. Each of what is done with it is
# one step, as it may be done by several threads.
_open: OrderedDict[tuple[int, int], FileIO] = OrderedDict()


class OpenFiles:
    """The files of one holder, by number. Those that were not used for longest, by whatever holder, are let go."""

    def __init__(self) -> None:
        weakref.finalize(self, _let_go, id(self)).atexit = False

    def get(self, number: int) -> FileIO | None:
        key = (id(self), number)
        file = _open.pop(key, None)
        if file is not None:
            _open[key] = file
        return file

    def keep(self, number: int, file: FileIO) -> FileIO:
        _open[id(self), number] = file
        while len(_open) > _most():
            _open.popitem(last=False)
        return file


def _let_go(holder: int) -> None:
    for key in [key for key in list(_open) if key[0] == holder]:
        _open.pop(key, None)


def _most() -> int:
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if allowed == resource.RLIM_INFINITY else max(1, min(MOST, allowed // SHARE))
