"""What asks a run to stop: Ctrl-C, a cluster's SIGTERM, and the end of the torchrun that started this process."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LOOKS, SECONDS_OF_GRACE = 1.0, 8.0


@contextmanager
def stop_on_signal(stop: Callable[[], None], alone: bool) -> Iterator[None]:
    """Call `stop` at the first signal; `alone`, a second one ends the process at once by a KeyboardInterrupt.

    Among ranks every signal comes twice, from the terminal or the cluster and from torchrun, which itself kills a
    process that takes too long.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return
    stopped = False

    def heard(*_: object) -> None:
        # No printing here: the signal may have come in the middle of it.
        nonlocal stopped
        if stopped and alone:
            raise KeyboardInterrupt
        stopped = True
        stop()

    before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """Watch over the process that started this one: once it is gone, send SIGTERM to this one and soon after end it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SECONDS_OF_GRACE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()
