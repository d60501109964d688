"""What steers a song besides words: a recording, its stems, or a stored prompt of a genre."""

import os
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ..audio.files import load_audio
from ..audio.resample import check_recording
from ..errors import AudioError, UserError
from ..pipeline import SongPipeline
from ..progress import IsCancelled, OnProgress
from ..prompts.cache import PromptCache
from ..prompts.prompt import BOTH_GIVEN, Prompt
from ..prompts.readers import PromptReaders
from ..prompts.recording import PromptOptions, Recording, Source
from ..text.lyrics import detect_language

CACHE_VARIABLE = "SONGGEN_CACHE"


@dataclass(frozen=True)
class PromptRequest:
    """files: "song", "vocal" or "bgm" -> recording. A recording and a genre exclude each other.

    `seed` chooses among the stored prompts of a genre. Recordings do not depend on it: all songs that one
    steers share what was made of it.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    genre: str | None = None
    language: str | None = None  # of the stored prompt; None: that of the lyrics
    seed: int = 0
    options: PromptOptions = field(default_factory=PromptOptions)

    @classmethod
    def of(cls, args: Namespace, seed: int) -> "PromptRequest | None":
        """What the options of a command ask for; None if nothing. Raises UserError."""
        named = {"song": args.prompt, "vocal": args.prompt_vocal, "bgm": args.prompt_bgm}
        files = {name: path for name, path in named.items() if path is not None}
        part = {"start": args.prompt_start, "seconds": args.prompt_seconds}
        part = {name: value for name, value in part.items() if value is not None}
        unused = [*(f"--prompt-{name}" for name in part), *["--faithful-prompt"] * args.faithful_prompt]
        if unused and not files:
            raise UserError(f"{unused[0]} belongs to a recording; name one with --prompt")
        if args.language and not args.genre:
            raise UserError("--language belongs to a stored prompt; name its genre with --genre")
        if not files and not args.genre:
            return None
        options = PromptOptions(**part, faithful=args.faithful_prompt)
        return cls(files, args.genre, args.language, seed, options)

    def check(self, description: str) -> list[str]:
        """Everything that needs no model: the recordings are read. Returns warnings. Raises UserError."""
        if self.files and self.genre:
            raise UserError("a recording and a genre exclude each other; leave out --prompt or --genre")
        for path in self.files.values():
            check_readable(path)
        return [BOTH_GIVEN] if description.strip() else []

    def check_files(self, readers: PromptReaders, lyrics: str) -> None:
        """That networks and stored prompts are there, before a large model is loaded.

        Raises CheckpointError, UserError.
        """
        if self.files:
            check_recording_networks(readers, self.files)
        elif self.genre is not None:
            self._preset(readers, lyrics)

    def make(
        self, pipeline: SongPipeline, lyrics: str, on_progress: OnProgress, cancelled: IsCancelled
    ) -> Prompt:
        """Raises AudioError, CheckpointError, UserError, Cancelled."""
        if self.genre is not None:
            return self._preset(pipeline.codec.readers, lyrics)
        return pipeline.prompt_of(
            source_of(self.files),
            self.options,
            cache=prompt_cache(),
            on_progress=on_progress,
            cancelled=cancelled,
        )

    def _preset(self, readers: PromptReaders, lyrics: str) -> Prompt:
        assert self.genre is not None
        return readers.preset(self.genre, self.language or detect_language(lyrics), self.seed)


def check_recording_networks(readers: PromptReaders, files: Mapping[str, Path]) -> None:
    """That what reads these recordings is there. Raises CheckpointError, UserError without demucs."""
    if readers.files is not None:
        readers.files.find("mixed_codec")
    if files.keys() == {"song"}:
        readers.separator()


def source_of(files: Mapping[str, Path]) -> Source:
    """Read recordings. Raises AudioError."""
    return Source(**{name: read_recording(path) for name, path in files.items()})


def read_recording(path: Path) -> Recording:
    """Raises AudioError."""
    try:
        samples, rate = load_audio(path)
    except OSError as error:  # such as a name that is too long for the system
        raise AudioError(f"{path} cannot be read ({error.strerror or error}); correct its name") from error
    try:
        check_recording(samples, rate)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from error
    return Recording(samples, rate)


def check_readable(path: Path) -> None:
    """Read a recording, unless this was done since it was written. Raises AudioError."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        read_recording(path)  # which explains what is wrong
    else:
        _check_readable(os.path.abspath(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _check_readable(path: str, size: int, modified: int) -> None:
    """The lines of a list often name the same recordings."""
    read_recording(Path(path))


def prompt_cache() -> PromptCache:
    """In $SONGGEN_CACHE, else in $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get(CACHE_VARIABLE) or os.environ.get("XDG_CACHE_HOME")
    try:
        base = Path(named) if named else Path.home() / ".cache"
    except RuntimeError:  # a container's user without a home
        base = Path(tempfile.gettempdir())
    return PromptCache(base / "songgen" / "prompts")
