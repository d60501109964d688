"""Lyrics and a style in, a song out: text -> codes -> latents -> audio.

The two stages are functions on networks that somebody else has placed (`write_codes`, `render_audio`);
`SongPipeline` holds the networks, places them and calls both.

Letters: K streams, T frames (25 per second), C channels, N samples.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .checkpoint.layout import find_model
from .checkpoint.load_model import load_networks
from .codec import RenderOptions, SongCodec
from .configs import FRAME_RATE, LeLMConfig, OutputType
from .devices import choose_device, choose_dtype, placed
from .errors import UserError
from .generation.autoregressive import generate
from .generation.conditions import banned_codes, make_conditions
from .generation.sampling import SamplingOptions
from .generation.windows import (
    frames_of,
)
from .models.lelm import LeLM
from .progress import (
    IsCancelled,
    OnProgress,
    Progress,
    ignore_progress,
    interruptible,
    never_cancelled,
)
from .prompts.prompt import Prompt
from .prompts.readers import PromptReaders
from .seeds import check_seed
from .selftest import NOTICE, SELFTEST, selftest_networks
from .text.bpe import TextTokenizers
from .text.lyrics import Song
from .text.request import prompt_texts
from .text.tags import Description

log = logging.getLogger("songgen")

OUTPUTS: tuple[OutputType, ...] = ("mixed", "vocal", "bgm", "separate")


@dataclass(frozen=True)
class SongResult:
    """A finished song.

    codes: [1, 3, T] int64 (mixed, vocal, accompaniment). audio: output name -> [1, 2, N] float32 on the CPU,
    not clipped. ended: the model itself ended the song (otherwise the time was up).
    """

    codes: Tensor
    audio: dict[str, Tensor]
    sample_rate: int
    seed: int
    ended: bool
    model: str

    @property
    def seconds(self) -> float:
        return self.codes.shape[-1] / FRAME_RATE


def default_sampling(config: LeLMConfig) -> SamplingOptions:
    """Temperature and top-k that suit the model generation (the reference ties them to free memory)."""
    if config.text_version == "v1":
        return SamplingOptions(temperature=0.9, top_k=50, cfg_scale=config.cfg_scale)
    return SamplingOptions(temperature=0.8, top_k=5000, cfg_scale=config.cfg_scale)


def check_duration(duration: float | None, config: LeLMConfig) -> int:
    """Seconds -> frames; None is the longest song of the model. Raises UserError."""
    if duration is None:
        return config.max_frames
    if not 1 <= duration <= config.max_duration:  # also catches NaN
        raise UserError(f"duration is {duration:g} s; this model makes 1 to {config.max_duration:g} s")
    return frames_of(duration)


@torch.inference_mode()
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
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> tuple[Tensor, bool]:
    """Lyrics and description -> codes [1, 3, T] int64 on the CPU, and whether the model ended the song.

    Both texts are brought into the form that the model was trained on; an empty description is none. `lm`
    lies on `device` in `dtype`. prompt_codes [1, 3, n] steer style and voice. `literal` takes the description
    as it is and repeats two slips of the reference (`text.request`).

    Raises LyricsError, UserError, Cancelled.
    """
    num_frames, sampling = check_duration(duration, lm.config), sampling or default_sampling(lm.config)
    generator = torch.Generator().manual_seed(check_seed(seed))
    song = Song.parse(lyrics)
    song.check()
    style = description if literal else Description.parse(description or "").format() or None
    check_prompt_codes(prompt_codes, lm.config)
    texts = prompt_texts(song.format(), style, lm.config.text_version, output, literal=literal)
    conditions = make_conditions(texts, prompt_codes, tokenizers, lm.config)
    banned = banned_codes(prompt_codes, lm.config)
    with interruptible(cancelled, lm):
        for streams in generate(
            lm,
            conditions,
            num_frames,
            sampling,
            banned=banned,
            dtype=dtype,
            device=device,
            generator=generator,
        ):
            total = streams.length + max(lm.config.delays)
            on_progress(Progress("tokens", min(streams.written, total), total, streams.recent(total)))
    if streams.length == 0:
        raise UserError(
            "the model ended the song before its first sound; try another seed or a lower temperature"
        )
    return streams.codes(), streams.eos_frame is not None


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


class SongPipeline:
    """The networks of one model, and the way from lyrics to audio on one device."""

    def __init__(
        self,
        lm: LeLM,
        tokenizers: TextTokenizers,
        codec: SongCodec,
        *,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        low_memory: bool = False,
    ) -> None:
        """`low_memory` keeps each network on the device only while it works."""
        self.lm, self.tokenizers, self.codec = lm, tokenizers, codec
        self.name, self.device, self.dtype, self.low_memory = name, device, dtype, low_memory

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        roots: Sequence[Path] = (),
        variant: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        low_memory: bool = False,
        on_progress: OnProgress = ignore_progress,
        cancelled: IsCancelled = never_cancelled,
    ) -> "SongPipeline":
        """Load a model by name (looked up under `roots`), folder or file; "selftest" needs no files.

        Raises CheckpointError, UserError, Cancelled.
        """
        where = choose_device(device)
        precision = choose_dtype(where, dtype)
        if str(model) == SELFTEST:
            log.warning(NOTICE)
            networks, name, precision, files = selftest_networks(), SELFTEST, torch.float32, None
        else:
            files = find_model(model, roots, variant)
            networks, name = load_networks(files, precision, on_progress, cancelled), files.name
        lm, tokenizers, renderer, vae = networks
        codec = SongCodec(renderer, vae, PromptReaders(files), device=where, low_memory=low_memory)
        return cls(lm, tokenizers, codec, name=name, device=where, dtype=precision, low_memory=low_memory)

    def generate(
        self,
        lyrics: str,
        description: str | None = None,
        *,
        seed: int = 0,
        duration: float | None = None,
        sampling: SamplingOptions | None = None,
        rendering: RenderOptions = RenderOptions(),
        output: OutputType = "mixed",
        prompt: Prompt | None = None,
        literal: bool = False,
        on_progress: OnProgress = ignore_progress,
        cancelled: IsCancelled = never_cancelled,
    ) -> SongResult:
        """Make a song. `output` "separate" renders vocal, accompaniment and mix from the same codes.

        A `prompt` (from `prompt_of`, or stored codes) steers style and voice. The same seed gives the same
        codes and audio on the same device. Raises LyricsError, UserError, Cancelled.
        """
        if output not in OUTPUTS:
            raise UserError(f"output '{output}' is unknown; choose one of {', '.join(OUTPUTS)}")
        with placed([self.lm], self.device, stay=not self.low_memory):
            codes, ended = write_codes(
                self.lm,
                self.tokenizers,
                lyrics,
                description,
                seed=seed,
                device=self.device,
                dtype=self.dtype,
                duration=duration,
                sampling=sampling,
                output=output,
                prompt_codes=None if prompt is None else prompt.codes,
                literal=literal,
                on_progress=on_progress,
                cancelled=cancelled,
            )
        codes = codes.clone()  # out of inference mode, so that callers may change it in place
        wanted = ("mixed", "vocal", "bgm") if output == "separate" else (output,)
        audio = {}
        for name in wanted:
            audio[name] = self.codec.render(
                codes,
                seed=seed,
                output=name,
                prompt=prompt,
                rendering=rendering,
                on_progress=on_progress,
                cancelled=cancelled,
            )
        return SongResult(codes, audio, self.codec.vae.config.sample_rate, seed, ended, self.name)
