"""What a variant still needs, and getting it. Files that lie in any known layout are used where they are."""

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from ..checkpoint.files import check_file
from ..checkpoint.layout import Kind, SharedKind, find_shared, find_variant, identify
from ..configs import VARIANTS
from ..errors import CheckpointError, DownloadError
from ..progress import IsCancelled, OnProgress, Progress, ignore_progress, never_cancelled
from .licence import require_acceptance
from .override import load_registry
from .registry import Registry, Release, RemoteFile
from .remote import Hub, Offer
from .transfer import Patience, arrived, ask, fetch, part_path

_LOG = logging.getLogger("songgen")
_LOCK_NAME = ".songgen-download.lock"
_MARGIN = 100_000_000  # bytes of free space beyond the files
_INTERVAL = 0.1  # seconds between two reports of progress
_MB = 1_000_000


@dataclass(frozen=True)
class DownloadPlan:
    """What of a variant is missing under `root`, and what was found where (target -> file).

    `weights` is the song model, found or to be: its name for `find_model` is `model_name`.
    """

    variant: str
    root: Path
    weights: Path
    found: Mapping[str, Path]
    missing: tuple[RemoteFile, ...]

    @property
    def total_bytes(self) -> int:
        """Bytes of the missing files, rough where sizes are unpublished."""
        return sum(file.size for file in self.missing)

    @property
    def arrived_bytes(self) -> int:
        """Bytes of them that an interrupted download left."""
        return sum(arrived(self.root / file.target) for file in self.missing)

    @property
    def model_name(self) -> str:
        return self.weights.absolute().parent.name if self.weights.stem == "model" else self.weights.stem


def plan_download(
    variant: str,
    features: Iterable[str],
    root: Path,
    roots: Sequence[Path] = (),
    registry: Registry | None = None,
) -> DownloadPlan:
    """Look for the files of `variant` under `root`, where missing ones would go, and under `roots`.

    `features` are names in FEATURES; "text" is always meant. The default registry is that of the folders.
    Asks no server. Raises UserError.
    """
    folders = tuple(dict.fromkeys((root, *roots)))
    registry = registry or load_registry(folders)
    release, shared = registry.release(variant), registry.shared_files(features)
    weights = _find_weights(release, root, folders)
    own = root / release.weights.target
    found = {release.weights.target: weights} if weights else {}
    # A model of one's own beside which nothing lies is usable by its name; only our own folder is completed.
    wanted = [f for f in release.files if f.kind != "lm"] if weights in (None, own) else []
    found.update({f.target: root / f.target for f in wanted if _is_complete(root / f.target, f)})
    for kind, file in shared.items():
        if (path := _find_shared(kind, file, root, folders, weights or own)) is not None:
            found[file.target] = path
    needed = (*wanted, *([] if weights else [release.weights]), *shared.values())
    return DownloadPlan(
        variant, root, weights or own, found, tuple(f for f in needed if f.target not in found)
    )


def _find_weights(release: Release, root: Path, folders: Sequence[Path]) -> Path | None:
    own = root / release.weights.target
    if _is_complete(own, release.weights):
        return own
    for folder in folders if release.name in VARIANTS else ():
        path = find_variant(release.name, [folder])
        if path is not None and path != own and _holds(path, "lm"):
            return path
    return None


def _find_shared(
    kind: SharedKind, file: RemoteFile, root: Path, folders: Sequence[Path], near: Path
) -> Path | None:
    if _is_complete(root / file.target, file):
        return root / file.target
    try:
        return find_shared(kind, folders, near)
    except CheckpointError:
        return None


def _is_complete(path: Path, file: RemoteFile) -> bool:
    """Whether `path`, the place of `file`, holds it whole.

    Shared files exist in two generations of different size, so their content counts; a song model of
    another size is an old one or cut short.
    """
    try:
        check_file(path)
    except (CheckpointError, OSError):
        return False
    if file.bytes == path.stat().st_size:
        return True
    if file.bytes is not None and file.kind in (None, "lm"):
        return False
    return file.kind is None or _holds(path, file.kind)


def _holds(path: Path, kind: Kind) -> bool:
    try:
        return identify(path) == kind
    except (CheckpointError, OSError, MemoryError):
        return False


def download(
    plan: DownloadPlan,
    *,
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
    token: str | None = None,
    patience: Patience = Patience(),
) -> list[Path]:
    """Get what is missing and return the new files; an interrupted download goes on where it was.

    The licence must have been accepted for `plan.root`. Progress is in MB of the whole plan. A file appears
    in its place only when it is complete and its hash is right. Raises UserError, DownloadError, Cancelled.
    """
    if not plan.missing:
        return []
    require_acceptance(plan.root)
    hub = Hub(token, patience.silence)
    with _alone(plan.root):
        # Another process may have been here since the plan was made.
        wanted = [f for f in plan.missing if not _is_complete(plan.root / f.target, f)]
        for target in (plan.root / file.target for file in wanted):
            if target.is_dir():
                raise DownloadError(f"{target} is a folder, a file belongs there; rename or remove it")
        offers = [ask(hub, file, patience, cancelled) for file in wanted]
        _check_space(plan.root, wanted, offers)
        meter = _Meter(on_progress, sum(offer.size or 0 for offer in offers))
        for file, offer in zip(wanted, offers):
            target = plan.root / file.target
            report = meter.of(file.name)
            fetch(hub, file, offer, target, patience=patience, cancelled=cancelled, report=report)
            meter.finish(file.name, offer.size or 0)
    return [plan.root / file.target for file in wanted]


class _Meter:
    """Progress over all files in MB, told about ten times a second."""

    def __init__(self, on_progress: OnProgress, total: int) -> None:
        self._tell, self._total = on_progress, total
        self._before, self._told = 0, 0.0

    def of(self, name: str) -> Callable[[str, int], None]:
        def report(stage: str, done: int) -> None:
            if (now := time.monotonic()) - self._told >= _INTERVAL:
                self._told = now
                self._show(f"{stage} {name}", self._before + done)

        return report

    def finish(self, name: str, size: int) -> None:
        self._before += size
        self._show(f"downloading {name}", self._before)

    def _show(self, stage: str, done: int) -> None:
        total = -(-self._total // _MB)
        self._tell(Progress(stage, total if done == self._total else done // _MB, total))


def _check_space(root: Path, files: Sequence[RemoteFile], offers: Sequence[Offer]) -> None:
    """Raise DownloadError unless what is still to come fits; parts that are there take no more room."""
    needed = 0
    for file, offer in zip(files, offers):
        part = part_path(root / file.target, offer)
        needed += (offer.size or 0) - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(root).free
    if free < needed + _MARGIN:
        raise DownloadError(
            f"{root} has {free / 1e9:.1f} GB free, the download takes {(needed + _MARGIN) / 1e9:.1f} GB; free"
            " some space or choose another models folder"
        )


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One download per models folder at a time. Raises DownloadError."""
    filelock = import_module("filelock")  # which huggingface_hub requires
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(str(root / _LOCK_NAME))
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise DownloadError(f"another download into {root} is running; wait for it or stop it") from error
    except NotImplementedError:
        _LOG.warning("%s cannot be locked; start no second download into it meanwhile", root)
        yield
        return
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise DownloadError(
            f"{root} cannot be written to ({reason}); choose another models folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
