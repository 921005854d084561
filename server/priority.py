"""The event loop paces sound: threads that compute give way to it.

On Linux, where each thread has a niceness of its own; elsewhere nothing is done.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

COMPUTING = 5  # niceness; a third of the weight of the loop and of the encoders


def give_way() -> None:
    """Let this thread compute when those that are in a hurry have nothing to do."""
    _soften(threading.get_native_id())


def others_give_way() -> None:
    """The same for every thread that there is but this one: those of the run time that infers."""
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            if int(task.name) != threading.get_native_id():
                _soften(int(task.name))


def _soften(thread: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # it has ended
            now = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, max(now, COMPUTING))
