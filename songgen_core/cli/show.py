"""What a command tells: messages, warnings, progress and the one JSON object."""

import json
import logging
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from tqdm import tqdm

from ..progress import OnProgress, Progress, ignore_progress

_LINE_INTERVAL = 5.0  # seconds between lines where there is no terminal to draw a bar on
_UNITS = {
    "tokens": "frame",
    "songs": "song",
    "rendering": "step",
    "separating": "chunk",
    "encoding": "segment",
    "saving": "block",
    "converting": "MB",
    "checking": "MB",
    "planning": "plan",
    "downloading": "MB",
}


class Console:
    """Results go to stdout, everything else to stderr; `warnings` collects what was warned of."""

    def __init__(self, args: Namespace) -> None:
        self.as_json: bool = args.json
        self.silent: bool = args.json or args.quiet
        self.warnings: list[str] = []

    def say(self, text: str) -> None:
        """A line of the result, for people."""
        if not self.silent:
            print(text, flush=True)

    def note(self, text: str) -> None:
        """A line about the work, for people."""
        if not self.silent:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        print(f"songgen: warning: {text}", file=sys.stderr, flush=True)

    def problem(self, text: str) -> None:
        """An error that does not end the command."""
        print(f"songgen: error: {text}", file=sys.stderr, flush=True)

    def result(self, result: dict[str, Any]) -> None:
        if self.as_json:
            print(json.dumps(result, ensure_ascii=False), flush=True)

    @contextmanager
    def progress(self) -> Iterator[OnProgress]:
        """A bar per stage on a terminal, a line now and then elsewhere, nothing if silent."""
        if self.silent:
            yield ignore_progress
            return
        display: _Display = _Bars() if sys.stderr.isatty() else _Lines()
        try:
            yield display.show
        finally:
            display.close()

    @contextmanager
    def library_warnings(self) -> Iterator[None]:
        """What the library logs becomes a warning here."""
        handler = _Handler(self.warn)
        log = logging.getLogger("songgen")
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)


class _Handler(logging.Handler):
    def __init__(self, warn: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._warn = warn

    def emit(self, record: logging.LogRecord) -> None:
        self._warn(record.getMessage())


class _Display(Protocol):
    def show(self, progress: Progress) -> None: ...

    def close(self) -> None: ...


class _Bars:
    """tqdm on stderr; a stage that starts again (the next stem) gets a new bar."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._stage = ""

    def show(self, progress: Progress) -> None:
        if self._bar is None or progress.stage != self._stage or progress.done < self._bar.n:
            self.close()
            self._stage = progress.stage
            unit = _UNITS.get(progress.stage.partition(" ")[0], "tensor")
            self._bar = tqdm(
                desc=progress.stage,
                total=progress.total,
                unit=unit,
                initial=progress.done,  # what was there before is no measure of the pace
                file=sys.stderr,
            )
        self._bar.total = progress.total
        self._bar.update(progress.done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


class _Lines:
    """`tokens: 120 of 1000, about 3 min left`, every 5 seconds at most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage, self._done, self._first = "", 0, 0
        self._began = self._told = clock()

    def show(self, progress: Progress) -> None:
        now = self._clock()
        if progress.stage != self._stage or progress.done < self._done:
            self._stage, self._first, self._began = progress.stage, progress.done, now
        self._done = progress.done
        if now - self._told < _LINE_INTERVAL:
            return
        self._told = now
        pace = (now - self._began) / max(progress.done - self._first, 1)
        left = pace * (progress.total - progress.done)
        line = f"{progress.stage}: {progress.done} of {progress.total}, about {duration_text(left)} left"
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


def duration_text(seconds: float) -> str:
    """`40 s`, `14 min` or `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def size_text(size: float) -> str:
    """Bytes as `12.9 GB` or `168 MB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
