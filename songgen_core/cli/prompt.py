"""What steers a song besides words: a recording, its stems, or a stored prompt of a genre."""

import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..audio.files import load_audio
from ..audio.resample import check_recording
from ..errors import UserError
from ..pipeline import SongPipeline
from ..progress import IsCancelled, OnProgress
from ..prompts.cache import PromptCache
from ..prompts.presets import GENRES
from ..prompts.prompt import BOTH_GIVEN, Prompt
from ..prompts.readers import PromptReaders
from ..prompts.recording import PromptOptions, Recording, Source
from ..text.lyrics import detect_language

CACHE_VARIABLE = "SONGGEN_CACHE"


@dataclass(frozen=True)
class PromptRequest:
    """files: "song", "vocal" or "bgm" -> recording. A recording and a genre exclude each other."""

    files: Mapping[str, Path] = field(default_factory=dict)
    genre: str | None = None
    language: str | None = None  # of the stored prompt; None: that of the lyrics
    options: PromptOptions = field(default_factory=PromptOptions)

    @classmethod
    def of(cls, args: Namespace, seed: int) -> "PromptRequest | None":
        """What the options of a command ask for; None if nothing. Raises UserError."""
        named = {"song": args.prompt, "vocal": args.prompt_vocal, "bgm": args.prompt_bgm}
        files = {name: path for name, path in named.items() if path is not None}
        unused = [
            f"--{name.replace('_', '-')}"
            for name in ("prompt_start", "faithful_prompt")
            if not files and getattr(args, name)
        ]
        if unused:
            raise UserError(f"{unused[0]} belongs to a recording; name one with --prompt")
        if args.language and not args.genre:
            raise UserError("--language belongs to a stored prompt; name its genre with --genre")
        if not files and not args.genre:
            return None
        options = PromptOptions(
            start=args.prompt_start, seconds=args.prompt_seconds, seed=seed, faithful=args.faithful_prompt
        )
        return cls(files, args.genre, args.language, options)

    def check(self, description: str) -> list[str]:
        """Everything that needs no model: the recordings are read. Returns warnings. Raises UserError."""
        if self.files and self.genre:
            raise UserError("a recording and a genre exclude each other; leave out --prompt or --genre")
        if self.genre and self.genre.casefold() not in {g.casefold() for g in GENRES}:
            raise UserError(f"the genre '{self.genre}' is unknown; choose one of {', '.join(GENRES)}")
        if self.files:
            source_of(self.files)
        return [BOTH_GIVEN] if description.strip() else []

    def check_files(self, readers: PromptReaders) -> None:
        """That the networks' files are there, before a large model is loaded. Raises CheckpointError."""
        if readers.files is not None:
            kinds = ["presets"] if self.genre else ["mixed_codec"]
            kinds += ["separator"] if self.files.keys() == {"song"} else []
            for kind in kinds:
                readers.files.find(kind)  # type: ignore[arg-type]
        if self.files.keys() == {"song"}:
            readers.separator()

    def make(
        self, pipeline: SongPipeline, lyrics: str, on_progress: OnProgress, cancelled: IsCancelled
    ) -> Prompt:
        """Raises AudioError, CheckpointError, UserError, Cancelled."""
        if self.genre is not None:
            language = self.language or detect_language(lyrics)
            return pipeline.codec.readers.preset(self.genre, language, self.options.seed)
        return pipeline.codec.prompt_of(
            source_of(self.files),
            self.options,
            cache=prompt_cache(),
            on_progress=on_progress,
            cancelled=cancelled,
        )


def source_of(files: Mapping[str, Path]) -> Source:
    """Read recordings. Raises AudioError."""
    recordings = {}
    for name, path in files.items():
        samples, rate = load_audio(path)
        check_recording(samples, rate)
        recordings[name] = Recording(samples, rate)
    return Source(**recordings)


def prompt_cache() -> PromptCache:
    """In $SONGGEN_CACHE, else where programs of this system keep what can be made again."""
    named = os.environ.get(CACHE_VARIABLE) or os.environ.get("XDG_CACHE_HOME")
    base = Path(named) if named else Path.home() / ".cache"
    return PromptCache(base / "songgen" / "prompts")
