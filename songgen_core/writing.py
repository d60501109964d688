"""The first stage: lyrics and a style to codes, on a language model that somebody else has placed.

Letters: K streams, T frames (25 per second).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .configs import LeLMConfig, OutputType
from .errors import Cancelled, UserError
from .generation.conditions import banned_codes, lost_text, make_conditions
from .generation.delay import DelayedStreams
from .generation.sampling import SamplingOptions
from .generation.songs import SongLoop, SongTask, one_by_one
from .generation.windows import frames_of
from .models.lelm import LeLM
from .progress import (
    IsCancelled,
    OnProgress,
    Progress,
    ignore_progress,
    interruptible,
    never_cancelled,
)
from .seeds import check_seed
from .text.bpe import TextTokenizers
from .text.lyrics import Song, length_advice
from .text.request import PromptTexts, prompt_texts
from .text.tags import Description


@dataclass(frozen=True)
class SongRequest:
    """What one song is to be.

    lyrics: tagged text; it is brought into the form that the model was trained on, as is the description
    (empty or None: none). duration: seconds, None is the longest song of the model. prompt_codes [1, 3, n]
    int64 steer style and voice. literal: takes the description as it is and repeats two slips of the
    reference (`text.request`).
    """

    lyrics: str
    description: str | None = None
    seed: int = 0
    duration: float | None = None
    output: OutputType = "mixed"
    prompt_codes: Tensor | None = None
    literal: bool = False


@dataclass(frozen=True)
class WrittenSong:
    """codes [1, 3, T] int64 on the CPU, T may be 0; ended: by the model (otherwise the time was up)."""

    codes: Tensor
    ended: bool

    @property
    def is_empty(self) -> bool:
        return self.codes.shape[-1] == 0


EMPTY_SONG = "the model ended the song before its first sound; try another seed or a lower temperature"


def default_sampling(config: LeLMConfig) -> SamplingOptions:
    """What the model's own file says, else what suits its generation (the reference looks at free memory)."""
    v1 = SamplingOptions(temperature=0.9, top_k=50, cfg_scale=config.cfg_scale)
    v2 = SamplingOptions(temperature=0.8, top_k=5000, cfg_scale=config.cfg_scale)
    names = "temperature", "top_k", "repetition_window"
    own = {name: value for name in names if (value := getattr(config, name)) is not None}
    return replace(v1 if config.text_version == "v1" else v2, **own)


def check_duration(duration: float | None, config: LeLMConfig) -> int:
    """Seconds -> frames; None is the longest song of the model. Raises UserError."""
    if duration is None:
        return config.max_frames
    if not 1 <= duration <= config.max_duration:  # also catches NaN
        raise UserError(f"duration is {duration:g} s; this model makes 1 to {config.max_duration:g} s")
    return frames_of(duration)


@torch.inference_mode()
def write_songs(
    lm: LeLM,
    tokenizers: TextTokenizers,
    requests: Sequence[SongRequest],
    *,
    device: torch.device,
    dtype: torch.dtype,
    sampling: SamplingOptions | None = None,
    loop: SongLoop = one_by_one,
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> list[WrittenSong]:
    """Write one song per request. `lm` lies on `device` in `dtype`.

    Which songs are written together makes no difference to any of them, up to rounding. A song that the model
    ends before its first sound is empty. Raises LyricsError, UserError, Cancelled.
    """
    tasks = [song_task(lm, tokenizers, request) for request in requests]
    songs: list[DelayedStreams] = []
    with interruptible(cancelled, lm):
        for songs in loop(lm, tasks, sampling or default_sampling(lm.config), dtype=dtype, device=device):
            if cancelled():  # a loop need not run the network's own blocks
                raise Cancelled("stopped by the user")
            on_progress(_progress(songs))
    return [WrittenSong(streams.codes(), streams.eos_frame is not None) for streams in songs]


def song_task(lm: LeLM, tokenizers: TextTokenizers, request: SongRequest) -> SongTask:
    """A request in the model's terms. Raises LyricsError, UserError."""
    num_frames = check_duration(request.duration, lm.config)
    generator = torch.Generator().manual_seed(check_seed(request.seed))
    check_prompt_codes(request.prompt_codes, lm.config)
    return SongTask(
        conditions=make_conditions(_texts(request, lm.config), request.prompt_codes, tokenizers, lm.config),
        num_frames=num_frames,
        generator=generator,
        banned=banned_codes(request.prompt_codes, lm.config),
    )


def length_notes(request: SongRequest, tokenizers: TextTokenizers, config: LeLMConfig) -> list[str]:
    """What of the request the song has no room for, a sentence each. Raises LyricsError."""
    limit = request.duration or config.max_duration
    return [
        *length_advice(Song.parse(request.lyrics), limit),
        *lost_text(_texts(request, config), tokenizers, config),
    ]


def _texts(request: SongRequest, config: LeLMConfig) -> PromptTexts:
    style = request.description
    if not request.literal:
        style = Description.parse(style or "").format() or None
    lyrics = Song.parse(request.lyrics).format()
    return prompt_texts(lyrics, style, config.text_version, request.output, literal=request.literal)


def _progress(songs: Sequence[DelayedStreams]) -> Progress:
    """Columns of all songs together; to be seen is the one that was written last."""
    totals = [song.written if song.done else song.length + max(song.delays) for song in songs]
    done = [min(song.written, total) for song, total in zip(songs, totals)]
    shown = max((n for n, song in enumerate(songs) if song.written), default=0)
    return Progress("tokens", sum(done), sum(totals), songs[shown].recent(totals[shown]))


def write_codes(
    lm: LeLM,
    tokenizers: TextTokenizers,
    lyrics: str,
    description: str | None = None,
    *,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    duration: float | None = None,
    sampling: SamplingOptions | None = None,
    output: OutputType = "mixed",
    prompt_codes: Tensor | None = None,
    literal: bool = False,
    loop: SongLoop = one_by_one,
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> tuple[Tensor, bool]:
    """One song: codes [1, 3, T] int64 on the CPU, and whether the model ended it; see `SongRequest`.

    Raises LyricsError, UserError (also for an empty song), Cancelled.
    """
    request = SongRequest(lyrics, description, seed, duration, output, prompt_codes, literal)
    (song,) = write_songs(
        lm,
        tokenizers,
        [request],
        device=device,
        dtype=dtype,
        sampling=sampling,
        loop=loop,
        on_progress=on_progress,
        cancelled=cancelled,
    )
    if song.is_empty:
        raise UserError(EMPTY_SONG)
    return song.codes, song.ended


def check_prompt_codes(codes: Tensor | None, config: LeLMConfig) -> None:
    """Raise UserError unless `codes` is None or [1, K, n] int64 of codes, end and special ids."""
    if codes is None:
        return
    if codes.ndim != 3 or codes.shape[:2] != (1, config.num_codebooks) or codes.dtype != torch.int64:
        raise UserError(
            f"prompt codes are {codes.dtype} of shape {list(codes.shape)};"
            f" the model takes int64 of shape [1, {config.num_codebooks}, frames]"
        )
    if codes.numel() and not (codes.min() >= 0 and codes.max() <= config.special_id):
        raise UserError(
            f"prompt codes range from {codes.min()} to {codes.max()};"
            f" the model knows 0 to {config.special_id}"
        )
