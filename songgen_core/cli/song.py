"""One song from request to file, as `sing` and `batch` make it."""

import os
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import SamplingOptions, __version__
from ..audio.files import SavedAudio, format_name, save_audio
from ..codec import RenderOptions
from ..configs import LeLMConfig, OutputType
from ..errors import AudioError, LyricsError, UserError
from ..pipeline import OnAudio, SongPipeline, SongResult
from ..progress import IsCancelled, OnProgress, ignore_progress, never_cancelled
from ..prompts.prompt import Prompt
from ..seeds import check_seed, following_seeds
from ..text.doctor import MendedLyrics, mend_lyrics
from ..text.lyrics import Song, length_advice
from ..text.tags import Description
from ..writing import check_duration, default_sampling
from .options import SAMPLING
from .prompt import PromptRequest

_SHOWN_TAGS = 6
_STEMS = ("vocal", "bgm", "mixed")

BeforeMove = Callable[[Iterable[Path]], None]  # gets the files that are about to appear


def tell_nobody(files: Iterable[Path]) -> None:
    """The default of `before_move`."""


def targets_of(path: Path, output: str) -> dict[str, Path]:
    """Output name -> file: `song.flac`, or `song.vocal.flac` and so on for "separate"."""
    if output != "separate":
        return {output: path}
    return {stem: path.with_name(f"{path.stem}.{stem}{path.suffix}") for stem in _STEMS}


@dataclass(frozen=True)
class Settings:
    """How songs are made: what the options say, the model's defaults where they are silent."""

    sampling: Mapping[str, Any]
    rendering: RenderOptions

    @classmethod
    def of(cls, args: Namespace) -> "Settings":
        """Raises UserError for a value out of range."""
        given = {name: value for name in SAMPLING if (value := getattr(args, name)) is not None}
        SamplingOptions(**given)
        return cls(given, RenderOptions(args.steps, args.guidance_scale))

    def sampling_for(self, config: LeLMConfig) -> SamplingOptions:
        return replace(default_sampling(config), **self.sampling)


@dataclass(frozen=True)
class Request:
    """A song that can be made, or so it seems before the model is loaded."""

    lyrics: str
    description: str
    path: Path
    seed: int
    duration: float | None = None
    output: OutputType = "mixed"
    audio_format: str | None = None
    prompt: PromptRequest | None = None
    mended: MendedLyrics | None = None

    def mend(self) -> "Request":
        """This request with lyrics that can be sung, as far as they could be mended."""
        mended = mend_lyrics(self.lyrics)
        return replace(self, lyrics=mended.text, mended=mended)

    def targets(self) -> dict[str, Path]:
        return targets_of(self.path, self.output)

    def candidates(self, count: int) -> list["Request"]:
        """This song with the seeds that follow, in files such as `song.2.flac`; one keeps its name."""
        if count == 1:
            return [self]
        names = [f"{self.path.stem}.{number}{self.path.suffix}" for number in range(1, count + 1)]
        seeds = following_seeds(self.seed, count)
        return [replace(self, path=self.path.with_name(n), seed=seed) for n, seed in zip(names, seeds)]

    def check(self, *, overwrite: bool) -> list[str]:
        """Everything that needs no model; returns warnings. Raises UserError, LyricsError, AudioError."""
        check_seed(self.seed)
        if self.duration is not None and not self.duration >= 1:  # also catches NaN
            raise UserError(f"duration is {self.duration:g} s; give 1 s or more")
        song, description = self._song(), Description.parse(self.description)
        for target in self.targets().values():
            check_target(target, self.audio_format, overwrite)
        steered = self.prompt.check(self.description) if self.prompt else []
        return [*self._mending(), *song.warnings(), *description.warnings(), *steered]

    def _song(self) -> Song:
        """Raises LyricsError by the lines that the user has, with what mending could do."""
        if self.mended and self.mended.problems:
            raise LyricsError(str(self.mended.problems[0]))
        try:
            return Song.parse(self.lyrics)
        except LyricsError as error:
            could = mend_lyrics(self.lyrics)
            if could.problems:
                raise
            tags = [f"[{section.tag}]" for section in Song.parse(could.text).sections]
            read_as = " ".join([*tags[:_SHOWN_TAGS], *["..."][: len(tags) > _SHOWN_TAGS]])
            raise LyricsError(f"{error}; --mend would read it as {read_as}") from error

    def _mending(self) -> list[str]:
        if self.mended is None:
            return []
        notes = ", ".join(self.mended.style_hints)
        told = (
            [f"remarks about the performance are not sung; put them into the style: {notes}"] if notes else []
        )
        return [*(f"lyrics mended, {change}" for change in self.mended.changes), *told]

    def check_length(self, config: LeLMConfig) -> list[str]:
        """The duration against the model's limit; returns warnings. Raises UserError."""
        check_duration(self.duration, config)
        limit = self.duration or config.max_duration
        return length_advice(Song.parse(self.lyrics), limit)


@dataclass(frozen=True)
class MadeSong:
    """A song on the disk; of `result` all is kept but its audio."""

    request: Request
    result: SongResult
    saved: dict[str, SavedAudio]
    elapsed_seconds: float
    prompt: Prompt | None = None

    @property
    def peak(self) -> float:
        return max(saved.peak for saved in self.saved.values())

    @property
    def limited(self) -> bool:
        return any(saved.limited for saved in self.saved.values())

    def summary(self) -> dict[str, Any]:
        """What `--json` tells of one song."""
        mended = self.request.mended
        return {
            **self.about(),
            **time_taken(self.elapsed_seconds, self.result.seconds),
            **({"changes": [asdict(change) for change in mended.changes]} if mended else {}),
        }

    def about(self) -> dict[str, Any]:
        """The song as it is, whatever it took to make it."""
        return {
            "files": {name: str(saved.path) for name, saved in self.saved.items()},
            "seconds": round(self.result.seconds, 3),
            "seed": self.result.seed,
            "model": self.result.model,
            "prompt": self.prompt and self.prompt.about,
            "ended": self.result.ended,
            "peak": round(self.peak, 4),
            "limited": self.limited,
        }


def time_taken(elapsed: float, seconds: float) -> dict[str, float]:
    """real_time_factor is computing time per second of song."""
    return {"elapsed_seconds": round(elapsed, 2), "real_time_factor": round(elapsed / seconds, 3)}


def make_song(
    pipeline: SongPipeline,
    request: Request,
    settings: Settings,
    *,
    notice: str | None,
    before_move: BeforeMove,
    on_progress: OnProgress,
    cancelled: IsCancelled,
) -> MadeSong:
    """Generate and save; files appear only when all of them are complete. Raises UserError, Cancelled."""
    (song,) = make_candidates(
        pipeline,
        [request],
        settings,
        notice=notice,
        before_move=before_move,
        on_progress=on_progress,
        cancelled=cancelled,
    )
    return song


def make_candidates(
    pipeline: SongPipeline,
    requests: Sequence[Request],
    settings: Settings,
    *,
    notice: str | None,
    on_audio: OnAudio | None = None,
    before_move: BeforeMove = tell_nobody,
    on_progress: OnProgress,
    cancelled: IsCancelled,
) -> Iterator[MadeSong]:
    """Songs that differ by seed and file alone, written in one go; each is saved once it is rendered.

    One that the model ends before its first sound is left out, unless all are. Raises UserError, Cancelled.
    """
    start, first = time.perf_counter(), requests[0]
    by_seed = {request.seed: request for request in requests}
    fewer = "fewer --candidates, " if len(requests) > 1 else ""
    more = "" if pipeline.plan is None else "more --memory, "
    advice = f"use {more}{fewer}--low-memory, --dtype float16 or a shorter --duration"
    with memory_advice(pipeline.device, advice):
        prompt = None
        if first.prompt is not None:
            prompt = first.prompt.make(pipeline, first.lyrics, on_progress, cancelled)
        for result in pipeline.generate_candidates(
            first.lyrics,
            first.description,
            seeds=list(by_seed),
            duration=first.duration,
            sampling=settings.sampling_for(pipeline.lm.config),
            rendering=settings.rendering,
            output=first.output,
            prompt=prompt,
            on_audio=on_audio,
            on_progress=on_progress,
            cancelled=cancelled,
        ):
            request = by_seed[result.seed]
            saved = save_tracks(
                request.targets(),
                result.audio,
                result.sample_rate,
                request.audio_format,
                _tags(request, result, notice),
                before_move=before_move,
                on_progress=on_progress,
                cancelled=cancelled,
            )
            result = replace(result, audio={})  # else it would lie in memory beside the next song's
            yield MadeSong(request, result, saved, time.perf_counter() - start, prompt)


@contextmanager
def memory_advice(device: torch.device | str, advice: str) -> Iterator[None]:
    """Turn a lack of memory into a UserError with advice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"{device} has too little memory; {advice}") from error


def is_out_of_memory(error: Exception) -> bool:
    """CUDA has a class of its own for it, MPS and the CPU only tell by the text."""
    told = any(words in str(error) for words in ("out of memory", "allocate memory"))
    return told or isinstance(error, torch.OutOfMemoryError | MemoryError)


def _tags(request: Request, result: SongResult, notice: str | None) -> dict[str, str]:
    """WAV keeps title, comment and encoded_by only, so the comment holds all that a repetition needs."""
    origin = f"seed={result.seed}; model={result.model}"
    parts = [Description.parse(request.description).format(), origin, notice]
    return {
        "title": request.path.stem,
        "lyrics": request.lyrics.strip(),
        "comment": " | ".join(part for part in parts if part),
        "seed": str(result.seed),
        "model": result.model,
        # FFmpeg fills the field "encoder" with its own name, whatever it is told.
        "encoded_by": f"SongGen {__version__}",
    }


def save_tracks(
    targets: Mapping[str, Path],
    audio: Mapping[str, Tensor],
    sample_rate: int,
    audio_format: str | None,
    tags: dict[str, str],
    *,
    before_move: BeforeMove = tell_nobody,
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> dict[str, SavedAudio]:
    """Write all tracks into a hidden folder beside their places, then move them there.

    Raises AudioError, Cancelled.
    """
    folder = Path(os.path.abspath(next(iter(targets.values())))).parent
    saved = {}
    with _hidden_folder(folder) as hidden:
        for name, target in targets.items():
            saved[name] = save_audio(
                hidden / target.name,
                audio[name],
                sample_rate,
                audio_format=audio_format,
                tags=tags,
                on_progress=on_progress,
                cancelled=cancelled,
            )
        before_move(targets.values())
        for name, track in saved.items():
            os.replace(track.path, folder / track.path.name)
            saved[name] = replace(track, path=folder / track.path.name)
    return saved


@contextmanager
def _hidden_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder in `folder`, which is made if need be; errors speak of `folder`."""
    hidden = str(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".songgen-", dir=folder) as hidden:
            yield Path(hidden)
    except AudioError as error:
        raise AudioError(str(error).replace(hidden, str(folder))) from error
    except OSError as error:
        reason = error.strerror or error
        raise AudioError(f"{folder} cannot be written to ({reason}); choose another folder") from error


def check_target(path: Path, audio_format: str | None, overwrite: bool) -> None:
    """Raise AudioError unless `path` can be written in this format."""
    format_name(path, audio_format)
    check_place(path, overwrite)


def check_place(path: Path, overwrite: bool) -> None:
    """Raise AudioError unless a file can be written there."""
    if path.is_dir():
        raise AudioError(f"{path} is a folder; add a file name")
    if path.exists() and not overwrite:
        raise AudioError(f"{path} exists; use --overwrite or choose another name")
    folder = next(parent for parent in Path(os.path.abspath(path)).parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise AudioError(f"{folder} cannot be written to ({reason}); choose another folder") from error


def read_text(path: Path, limit: int = 1_000_000) -> str:
    """Text of a small UTF-8 file. Raises UserError."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a text file")
    try:
        with path.open("rb") as file:
            return decode_text(file.read(limit + 1), str(path), limit)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; check the spelling") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def decode_text(raw: bytes, source: str, limit: int) -> str:
    """UTF-8 bytes to text. Raises UserError."""
    if len(raw) > limit:
        raise UserError(f"{source} has more than {limit:,} bytes; it is no text of a song, name another file")
    with suppress(UnicodeDecodeError):
        return raw.decode("utf-8-sig")
    raise UserError(f"{source} is not UTF-8 text; save it with the encoding UTF-8 in your editor")
