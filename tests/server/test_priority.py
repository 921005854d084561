"""Threads that compute give way to the event loop."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from server.priority import COMPUTING, give_way, others_give_way

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="a thread's niceness is Linux's own"
)


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_thread_that_computes_gives_way_and_the_loop_does_not() -> None:
    before, seen, go, end = niceness(), [], threading.Event(), threading.Event()

    def compute() -> None:
        give_way()
        seen.append(niceness())

    def infer() -> None:
        go.set()
        end.wait(10)
        seen.append(niceness())

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    other = threading.Thread(target=infer)
    other.start()
    assert go.wait(10)
    others_give_way()
    end.set()
    other.join()
    assert seen == [max(before, COMPUTING)] * 2
    assert niceness() == before
