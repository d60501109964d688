"""One file from the Hub to its place: stopped at any time, resumed where it was, checked, and then renamed.

What has arrived lies beside the target in a hidden file whose name tells the version that the server offered,
so a part is never continued with bytes of another version, and never taken for a model.
"""

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from types import TracebackType
from typing import TypeVar

from ..errors import Cancelled, DownloadError
from ..progress import IsCancelled
from .registry import RemoteFile
from .remote import Hub, Offer, Trouble

T = TypeVar("T")
Report = Callable[[str, int], None]  # "downloading" or "checking", bytes of the file

_POLL = 0.1  # seconds between looks at `cancelled`
_QUEUE = 64  # pieces that may wait for the disk
_BLOCK = 8_000_000  # bytes hashed between looks at `cancelled`
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


@dataclass(frozen=True)
class Patience:
    """How hard to try; times in seconds.

    A request is given up after `silence`, a file after `attempts` in a row that brought nothing. Between
    them lies `pause`, doubled each time, or what the server asks for up to `longest_wait`.
    """

    attempts: int = 4
    silence: float = 15.0
    pause: float = 1.0
    longest_wait: float = 60.0


def in_background(
    source: Callable[[], Iterator[T]], cancelled: IsCancelled, silence: float
) -> Generator[T, None, None]:
    """Items of `source()`, which a thread of its own asks for, so that a stop never waits for the network.

    Raises Cancelled, Trouble after `silence` seconds without an item, and what `source` raises.
    """
    items: Queue[T | Exception] = Queue(_QUEUE)
    given_up = threading.Event()

    def put(item: T | Exception) -> bool:
        while not given_up.is_set():
            try:
                items.put(item, timeout=_POLL)
                return True
            except Full:
                continue
        return False

    def work() -> None:
        try:
            for item in source():
                if not put(item):
                    return
            put(StopIteration())
        except Exception as error:  # goes on in the thread that listens
            put(error)

    threading.Thread(target=work, name="songgen-download", daemon=True).start()
    heard = time.monotonic()
    try:
        while True:
            if cancelled():
                raise Cancelled("stopped by the user")
            try:
                item = items.get(timeout=_POLL)
            except Empty:
                if time.monotonic() - heard > silence:
                    raise Trouble(f"the server sent nothing for {silence:.0f} s; try again later") from None
                continue
            heard = time.monotonic()
            if isinstance(item, StopIteration):
                return
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        given_up.set()


def persistently(
    work: Callable[[], T], patience: Patience, cancelled: IsCancelled, position: Callable[[], int] = lambda: 0
) -> T:
    """What `work` returns in the end; attempts that move `position` forward cost no patience.

    Raises DownloadError when patience is at its end, and Cancelled.
    """
    failures, furthest = 0, position()
    while True:
        try:
            return work()
        except Trouble as trouble:
            if position() > furthest:
                failures, furthest = 0, position()
            failures += 1
            wait = patience.pause * 2 ** (failures - 1) if trouble.wait is None else trouble.wait
            if failures >= patience.attempts or wait > patience.longest_wait:
                kept = "; what has arrived is kept: start it again to go on" if furthest else ""
                tried = f" (tried {failures} times)" if failures > 1 else ""
                raise DownloadError(f"{trouble}{tried}{kept}") from trouble
            _sleep(wait, cancelled)


def _sleep(seconds: float, cancelled: IsCancelled) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if cancelled():
            raise Cancelled("stopped by the user")
        time.sleep(min(left, _POLL))


def ask(hub: Hub, file: RemoteFile, patience: Patience, cancelled: IsCancelled) -> Offer:
    """What the server has, if it is the file that the registry means. Raises DownloadError, Cancelled."""

    def answer() -> Iterator[Offer]:
        yield hub.ask(file)

    def attempt() -> Offer:
        return next(in_background(answer, cancelled, 2 * patience.silence))

    offer = persistently(attempt, patience, cancelled)
    advice = "correct the entry in registry.json, or choose another mirror"
    if offer.size is None:
        raise DownloadError(f"{hub.host} does not tell the size of {file.source}; choose another mirror")
    if file.bytes not in (None, offer.size):
        raise DownloadError(
            f"{hub.host} has {file.source} with {offer.size:,} bytes, expected are {file.bytes:,}; {advice}"
        )
    if None not in (file.sha256, offer.sha256) and file.sha256 != offer.sha256:
        raise DownloadError(
            f"{hub.host} has another {file.source}: its SHA-256 begins with {str(offer.sha256)[:12]},"
            f" expected is {str(file.sha256)[:12]}; {advice}"
        )
    return offer


def parts(target: Path) -> list[Path]:
    """Hidden files with what has arrived of `target`, one per version that was ever begun."""
    return sorted(target.parent.glob(f".{target.name}.*.part"))


def arrived(target: Path) -> int:
    """Bytes of `target` that an interrupted download left."""
    sizes = [0]
    for part in parts(target):
        with suppress(OSError):  # another process may just have finished it
            sizes.append(part.stat().st_size)
    return max(sizes)


def part_path(target: Path, offer: Offer) -> Path:
    version = hashlib.sha256(f"{offer.etag} {offer.size}".encode()).hexdigest()[:12]
    return target.with_name(f".{target.name}.{version}.part")


def fetch(
    hub: Hub,
    file: RemoteFile,
    offer: Offer,
    target: Path,
    *,
    patience: Patience,
    cancelled: IsCancelled,
    report: Report,
) -> None:
    """Download `file` to `target`, or go on where a former attempt was left.

    Raises DownloadError and Cancelled; what has arrived is kept, but for bytes with a wrong hash.
    """
    path, size = part_path(target, offer), offer.size or 0
    with _disk(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        for old in parts(target):
            if old != path or offer.etag is None:
                old.unlink()
    with _Part(path) as part:
        part.take_up(size, cancelled, report)

        def attempt() -> None:
            _read_on(hub, file, part, size, patience, cancelled, report)

        persistently(attempt, patience, cancelled, lambda: part.position)
        part.check(file.sha256 or offer.sha256, f"{file.source} from {hub.host}")
        part.move_to(target)


def _read_on(
    hub: Hub,
    file: RemoteFile,
    part: "_Part",
    size: int,
    patience: Patience,
    cancelled: IsCancelled,
    report: Report,
) -> None:
    """One request for all that is missing. Raises Trouble if less arrives."""
    if part.position == size:
        return
    start = part.position
    with closing(in_background(lambda: hub.read(file, start), cancelled, patience.silence)) as pieces:
        for place, piece in pieces:
            if place != part.position:  # the server cannot begin in the middle
                part.empty()
            part.write(piece)
            if part.position > size:
                part.empty()
                raise Trouble(
                    f"{hub.host} sends more than the {size:,} bytes of {file.source}; try another mirror"
                )
            report("downloading", part.position)
    if part.position < size:
        raise Trouble(f"{hub.host} broke off at {part.position:,} of {size:,} bytes of {file.source}")


class _Part:
    """The hidden file, its length so far and the hash of it. Raises DownloadError where the disk refuses."""

    def __init__(self, path: Path) -> None:
        self._path, self.position, self._digest = path, 0, hashlib.sha256()

    def __enter__(self) -> "_Part":
        with _disk(self._path.parent):
            self._file = self._path.open("a+b")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with _disk(self._path.parent):
            self._file.close()

    def take_up(self, size: int, cancelled: IsCancelled, report: Report) -> None:
        """Hash what a former attempt left. Raises Cancelled."""
        with _disk(self._path.parent):
            self._file.seek(0)
            while block := self._file.read(_BLOCK):
                if cancelled():
                    raise Cancelled("stopped by the user")
                self._digest.update(block)
                self.position += len(block)
                report("checking", self.position)
        if self.position > size:
            self.empty()

    def empty(self) -> None:
        with _disk(self._path.parent):
            self._file.truncate(0)
        self.position, self._digest = 0, hashlib.sha256()

    def write(self, piece: bytes) -> None:
        with _disk(self._path.parent):
            self._file.write(piece)
        self._digest.update(piece)
        self.position += len(piece)

    def check(self, expected: str | None, what: str) -> None:
        found = self._digest.hexdigest()
        if expected not in (None, found):
            with _disk(self._path.parent):
                self._file.close()
                self._path.unlink()
            raise DownloadError(
                f"{what} arrived damaged (SHA-256 {found[:12]}, expected {str(expected)[:12]}) and was"
                " deleted; try again, with another mirror if it happens twice"
            )

    def move_to(self, target: Path) -> None:
        """Only bytes that the disk has got are renamed, so a power cut leaves no hollow file behind."""
        with _disk(target.parent):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._path, target)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """What the file system refuses -> DownloadError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise DownloadError(
                f"no space left in {folder} ({reason}); what has arrived is kept: free some space, start it"
                " again, and it goes on"
            ) from error
        advice = "choose another models folder or change its permissions"
        raise DownloadError(
            f"{error.filename or folder} cannot be written to ({reason}); {advice}"
        ) from error
