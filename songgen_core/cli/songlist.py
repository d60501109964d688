"""The lines of a song list (JSONL, upstream's fields) and the record of what became of them."""

import json
import math
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..configs import OutputType
from ..errors import UserError
from .options import OUTPUTS
from .prompt import PromptRequest
from .song import Request, read_text

_EXTENSIONS = {"flac": ".flac", "wav": ".wav", "wav32": ".wav", "mp3": ".mp3"}
FIELDS = (
    *("idx", "gt_lyric", "descriptions", "seed", "duration", "output"),
    *("prompt_audio_path", "auto_prompt_audio_type", "mend"),
)
_LONGEST_LIST = 200_000_000  # bytes
_LONGEST_NAME = 100  # characters, so that name and extension fit every file system
_RESERVED = re.compile(r"(?i:con|prn|aux|nul|com\d|lpt\d)")  # device names of Windows


@dataclass(frozen=True)
class Defaults:
    """What applies to songs that do not say otherwise."""

    folder: Path
    seed: int
    duration: float | None
    output: OutputType
    audio_format: str
    beside: Path = Path()  # the folder of the list
    mend: bool = False


@dataclass(frozen=True)
class Line:
    """One line: its fields as typed, and the request that it makes or the problem with it."""

    number: int
    fields: dict[str, Any] = field(default_factory=dict)
    request: Request | None = None
    problem: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def idx(self) -> str:
        return str(self.fields.get("idx", ""))[:_LONGEST_NAME]

    @property
    def label(self) -> str:
        return f"line {self.number} ({self.idx})" if self.idx else f"line {self.number}"


def read_songs(path: Path, defaults: Defaults) -> list[Line]:
    """Every line with something on it. Raises UserError if there is none; a bad line gets its problem."""
    text = read_text(path, _LONGEST_LIST)
    # Not splitlines(): JSON strings may hold U+2028 and its like as they are.
    lines = [_read_line(n, raw, defaults) for n, raw in enumerate(text.split("\n"), 1) if raw.strip()]
    if not lines:
        raise UserError(f"{path} holds no songs; write one JSON object per line with idx and gt_lyric")
    return list(_without_duplicates(lines))


def _read_line(number: int, raw: str, defaults: Defaults) -> Line:
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return Line(number, problem=f"this is no JSON ({error}); write one object per line")
    if not isinstance(fields, dict):
        return Line(number, problem='this is no JSON object; write {"idx": ..., "gt_lyric": ...}')
    try:
        request = _request(fields, defaults)
    except UserError as error:
        return Line(number, fields, problem=str(error))
    unknown = [name for name in fields if name not in FIELDS]
    return Line(number, fields, request, warnings=tuple(f'the field "{name}" is ignored' for name in unknown))


def _request(fields: dict[str, Any], defaults: Defaults) -> Request:
    """Raises UserError for a missing field or one of the wrong kind."""
    for name in ("idx", "gt_lyric"):
        if fields.get(name) is None:
            raise UserError(f"the field {name} is missing; every song needs idx and gt_lyric")
    name = _file_name(fields["idx"])
    duration = _real("duration", fields.get("duration"))
    output = _text("output", fields.get("output")) or defaults.output
    if output not in OUTPUTS:
        raise UserError(f"output '{output}' is unknown; choose one of {', '.join(OUTPUTS)}")
    seed = _seed(fields.get("seed"), name, defaults.seed)
    request = Request(
        lyrics=_text("gt_lyric", fields["gt_lyric"]),
        description=_text("descriptions", fields.get("descriptions")),
        path=defaults.folder / (name + _EXTENSIONS[defaults.audio_format]),
        seed=seed,
        duration=defaults.duration if duration is None else duration,
        output=output,  # type: ignore[arg-type]
        audio_format=defaults.audio_format,
        prompt=_prompt(fields, seed, defaults.beside),
    )
    wanted = _flag("mend", fields.get("mend"))
    return request.mend() if wanted or (wanted is None and defaults.mend) else request


def _prompt(fields: dict[str, Any], seed: int, beside: Path) -> PromptRequest | None:
    """Recordings are looked for where the command runs, then beside the list. Raises UserError."""
    path = _text("prompt_audio_path", fields.get("prompt_audio_path"))
    genre = _text("auto_prompt_audio_type", fields.get("auto_prompt_audio_type"))
    if not path and not genre:
        return None
    try:
        here = Path(path).expanduser()
        files = {"song": here if here.exists() else beside / here} if path else {}
    except (OSError, RuntimeError) as error:  # a name that is too long; the home of nobody
        raise UserError(f"prompt_audio_path {path[:60]!r} is no file ({error}); correct it") from error
    return PromptRequest(files, genre or None, seed=seed)


def _file_name(idx: object) -> str:
    """`idx` if it is a plain file name on every system. Raises UserError."""
    name = str(idx) if isinstance(idx, int | str) and not isinstance(idx, bool) else ""
    plain = re.fullmatch(r"\w(?:[\w .()+-]*[\w)+-])?", name)
    if not plain or len(name) > _LONGEST_NAME or _RESERVED.fullmatch(name.split(".")[0]):
        shown = json.dumps(idx, ensure_ascii=False)[:60]
        raise UserError(
            f"idx {shown} cannot be a file name; use letters, digits, - and _ ({_LONGEST_NAME} at most)"
        )
    return name


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{name} is {json.dumps(value)[:60]}; give a text in quotes")
    return value


def _flag(name: str, value: object) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise UserError(f"{name} is {json.dumps(value)[:60]}; give true or false")
    return value


def _real(name: str, value: object) -> float | None:
    if value is None:
        return None
    with suppress(OverflowError):  # a whole number of hundreds of digits
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return value
    raise UserError(f"{name} is {json.dumps(value)[:60]}; give a number")


def _seed(value: object, name: str, base: int) -> int:
    """The seed of the line, else one from `base` and the name, the same in every run."""
    if value is None:
        return zlib.crc32(f"{base}/{name}".encode())
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"seed is {json.dumps(value)[:60]}; give a whole number")
    return value


def _without_duplicates(lines: list[Line]) -> Iterator[Line]:
    """A song that would write the same file as an earlier one gets a problem instead."""
    taken: dict[str, int] = {}
    for line in lines:
        # Case does not make two names on Windows and macOS.
        names = [str(p).casefold() for p in line.request.targets().values()] if line.request else []
        other = next((taken[name] for name in names if name in taken), None)
        if other is not None:
            problem = f'idx "{line.idx}" would write the same file as line {other}; give it another idx'
            yield Line(line.number, line.fields, problem=problem)
            continue
        taken.update(dict.fromkeys(names, line.number))
        yield line


class Record:
    """`results.jsonl`: one line appended per song that was made or failed; the last one of an idx counts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "results.jsonl"
        self._last: dict[str, dict[str, Any]] = {}
        raw = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        self._torn = bool(raw) and not raw.endswith("\n")
        for line in raw.split("\n"):
            try:
                entry = json.loads(line)
                self._last[str(entry["idx"])] = entry
            except (ValueError, KeyError, TypeError):
                continue  # a line cut by a crash, or of a song without idx

    def done(self, idx: str) -> dict[str, Any] | None:
        """The entry of a song that is finished and whose files are still there."""
        entry = self._last.get(idx)
        if entry is None or entry.get("status") != "done":
            return None
        files = entry.get("files") or {}
        return entry if files and all((self.folder / name).is_file() for name in files.values()) else None

    def append(self, entry: dict[str, Any]) -> None:
        """Write an entry so that it survives a crash. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * self._torn + json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._torn = False
        self._last[str(entry.get("idx"))] = entry
