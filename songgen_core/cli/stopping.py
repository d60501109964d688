"""Ctrl-C: the first asks the work to stop, the second stops at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..progress import IsCancelled, never_cancelled


@contextmanager
def ctrl_c() -> Iterator[IsCancelled]:
    """Yield what `cancelled=` asks; the former handler is back afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield never_cancelled  # only the main thread may handle signals
        return
    pressed = False

    def press(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    former = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, former or signal.SIG_DFL)
