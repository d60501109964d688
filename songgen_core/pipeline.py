"""Lyrics and a style in, a song out: text -> codes -> latents -> audio.

The two stages are functions on networks that somebody else has placed (`write_codes`, `render_audio`);
`SongPipeline` holds the networks, places them and calls both.

Letters: K streams, T frames (25 per second), C channels, N samples.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .checkpoint.layout import ModelFiles, find_model
from .checkpoint.load_model import load_networks
from .configs import FRAME_RATE, LeLMConfig, OutputType, RendererConfig
from .devices import choose_device, choose_dtype, exact_convolutions
from .errors import UserError
from .generation.autoregressive import generate
from .generation.chunked import chunk_starts, decode_chunked
from .generation.conditions import banned_codes, make_conditions
from .generation.sampling import SamplingOptions
from .generation.windows import (
    crossfade,
    frames_of,
    output_samples,
    plan_windows,
    render_windows,
    silence_stream,
)
from .models.flow_renderer import FlowRenderer
from .models.lelm import LeLM
from .models.oobleck import OobleckVAE
from .progress import (
    IsCancelled,
    OnProgress,
    Progress,
    count_progress,
    ignore_progress,
    interruptible,
    never_cancelled,
)
from .prompts.cache import PromptCache
from .prompts.prompt import Prompt, PromptEncoders, check_prompt
from .prompts.readers import PromptReaders
from .prompts.recording import PromptOptions, Source, encode_song, make_prompt
from .selftest import NOTICE, SELFTEST, selftest_networks
from .text.bpe import TextTokenizers
from .text.lyrics import Song
from .text.request import prompt_texts
from .text.tags import Description

log = logging.getLogger("songgen")

OUTPUTS: tuple[OutputType, ...] = ("mixed", "vocal", "bgm", "separate")
MAX_SEED = 2**64 - 1
_CHUNK_FRAMES, _CHUNK_OVERLAP = 128, 32  # of VAE decoding: 5 s at a time bound its memory


@dataclass(frozen=True)
class RenderOptions:
    """How codes become audio: Euler steps per window and the strength of guidance (1 is off).

    `shifted_prompt` repeats a slip of the reference: one prompt code more than prompt frames goes in front,
    so that every code sounds 40 ms late (LeVo spec, renderer 8.1).
    """

    num_steps: int = 10
    guidance_scale: float = 1.5
    shifted_prompt: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.num_steps <= 200 or int(self.num_steps) != self.num_steps:
            raise UserError(f"steps is {self.num_steps}; choose a whole number from 1 to 200")
        if not 0.0 <= self.guidance_scale <= 100.0:
            raise UserError(f"guidance scale is {self.guidance_scale}; choose a value from 0 to 100")


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


def check_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed is {seed!r}; choose a whole number from 0 to {MAX_SEED}")
    return seed


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
            on_progress(Progress("tokens", min(streams.written, total), total))
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


@torch.inference_mode()
def render_audio(
    renderer: FlowRenderer,
    vae: OobleckVAE,
    codes: Tensor,
    *,
    seed: int,
    device: torch.device,
    output: str = "mixed",
    prompt: Prompt | None = None,
    options: RenderOptions = RenderOptions(),
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> Tensor:
    """codes [1, 3, T] -> audio [1, C, N] float32 on the CPU, 1920 samples per frame, not clipped.

    `output` is "mixed", "vocal" or "bgm"; the same seed gives all three the same noise, so that they fit
    together. A `prompt` with latents lets the sound go on from the recording; the recording itself is not in
    the result. Raises UserError, Cancelled.
    """
    config, hop = renderer.config, vae.config.hop_length
    check_codes(codes, config.codebook_size)
    streams, context = with_prompt(codes, prompt, output, config, shifted=options.shifted_prompt)
    prompt_frames = 0 if context is None else context.shape[-1]
    plan = plan_windows(streams.shape[-1], prompt_frames, config.window_frames)
    generator = torch.Generator().manual_seed(check_seed(seed))
    shape = 1, config.window_frames, config.latent_dim
    chunks = len(chunk_starts(config.window_frames, _CHUNK_FRAMES, _CHUNK_OVERLAP))
    step_done = count_progress("rendering", len(plan.indices) * (options.num_steps + chunks), on_progress)

    def decode(latents: Tensor) -> Tensor:
        return decode_chunked(
            vae.decode, latents, hop, chunk_size=_CHUNK_FRAMES, overlap=_CHUNK_OVERLAP, on_chunk=step_done
        ).cpu()

    with interruptible(cancelled, renderer, vae), exact_convolutions(device):
        windows = render_windows(
            renderer,
            silence_stream(streams.to(device), output, config),
            prompt_latents=None if context is None else context.to(device),
            noise=lambda k: torch.randn(shape, generator=generator).to(device),
            num_steps=options.num_steps,
            guidance_scale=options.guidance_scale,
            on_step=step_done,
        )
        song = crossfade(map(decode, windows), plan.overlap * hop)
    return song[..., : output_samples(codes.shape[-1], vae.config.sample_rate)]


def with_prompt(
    codes: Tensor, prompt: Prompt | None, output: str, config: RendererConfig, *, shifted: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Streams [1, 2, Q + T] (vocal, accompaniment; the prompt's codes in front) and the known first latents.

    Without a recording to go on from there is nothing in front. Raises UserError.
    """
    if prompt is None:
        return codes[:, 1:], None
    latents = check_prompt(prompt, output, config.latent_dim, config.window_frames)
    if latents is None:
        return codes[:, 1:], None
    check_codes(prompt.codes, config.codebook_size)
    count = prompt.codes.shape[-1] if shifted else latents.shape[-1]
    return torch.cat([prompt.codes[:, 1:, :count], codes[:, 1:]], dim=-1), latents


def check_codes(codes: Tensor, codebook_size: int) -> None:
    """Raise UserError unless `codes` is a non-empty [1, 3, T] of codes of the codebook."""
    if codes.dtype != torch.int64:
        raise UserError(f"codes are {codes.dtype}; the renderer takes int64")
    if codes.ndim != 3 or codes.shape[:2] != (1, 3) or codes.shape[-1] == 0:
        raise UserError(
            f"codes have the shape {list(codes.shape)}; the renderer takes [1, 3, frames], one frame at least"
        )
    stems = codes[:, 1:]  # the mixed stream is not rendered
    low, high = stems.min().item(), stems.max().item()
    if low < 0 or high >= codebook_size:
        raise UserError(f"codes range from {low} to {high}; the renderer knows 0 to {codebook_size - 1}")


class SongPipeline:
    """The networks of one model, and the way from lyrics to audio on one device."""

    def __init__(
        self,
        lm: LeLM,
        tokenizers: TextTokenizers,
        renderer: FlowRenderer,
        vae: OobleckVAE,
        *,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        low_memory: bool = False,
        files: ModelFiles | None = None,
    ) -> None:
        """`low_memory` keeps each network on the device only while it works. `files` is where networks that
        only prompts need are loaded from; None is the self-test model."""
        self.lm, self.tokenizers, self.renderer, self.vae = lm, tokenizers, renderer, vae
        self.name, self.device, self.dtype, self.low_memory = name, device, dtype, low_memory
        self.readers = PromptReaders(files)

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
        return cls(*networks, name=name, device=where, dtype=precision, low_memory=low_memory, files=files)

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
        with self._placed(self.lm):
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
            audio[name] = self.render(
                codes,
                seed=seed,
                output=name,
                prompt=prompt,
                rendering=rendering,
                on_progress=on_progress,
                cancelled=cancelled,
            )
        return SongResult(codes, audio, self.vae.config.sample_rate, seed, ended, self.name)

    def render(
        self,
        codes: Tensor,
        *,
        seed: int = 0,
        output: str = "mixed",
        prompt: Prompt | None = None,
        rendering: RenderOptions = RenderOptions(),
        on_progress: OnProgress = ignore_progress,
        cancelled: IsCancelled = never_cancelled,
    ) -> Tensor:
        """codes [1, 3, T] -> audio [1, 2, N] float32 on the CPU."""
        with self._placed(self.renderer, self.vae):
            return render_audio(
                self.renderer,
                self.vae,
                codes,
                seed=seed,
                device=self.device,
                output=output,
                prompt=prompt,
                options=rendering,
                on_progress=on_progress,
                cancelled=cancelled,
            ).clone()  # out of inference mode, as above

    def prompt_of(
        self,
        source: Source,
        options: PromptOptions = PromptOptions(),
        *,
        cache: PromptCache | None = None,
        on_progress: OnProgress = ignore_progress,
        cancelled: IsCancelled = never_cancelled,
    ) -> Prompt:
        """The prompt that a recording makes. Networks that read recordings are loaded at the first call.

        Raises AudioError, CheckpointError, UserError, Cancelled.
        """
        with ExitStack() as stack:
            return make_prompt(
                source,
                options,
                separator=lambda: (self.readers.separator(), self.device),
                encoders=lambda: self._placed_encoders(stack, on_progress, cancelled),
                cache=cache,
                fingerprint=self.readers.fingerprint(),
                on_progress=on_progress,
                cancelled=cancelled,
            )

    def encode(
        self,
        source: Source,
        *,
        seed: int = 0,
        on_progress: OnProgress = ignore_progress,
        cancelled: IsCancelled = never_cancelled,
    ) -> Tensor:
        """A recording of any length -> codes [1, 3, T] int64, for `render`. Errors as `prompt_of`."""
        with ExitStack() as stack:
            return encode_song(
                source,
                separator=lambda: (self.readers.separator(), self.device),
                encoders=lambda: self._placed_encoders(stack, on_progress, cancelled),
                seed=seed,
                on_progress=on_progress,
                cancelled=cancelled,
            )

    def _placed_encoders(
        self, stack: ExitStack, on_progress: OnProgress, cancelled: IsCancelled
    ) -> tuple[PromptEncoders, torch.device]:
        encoders = self.readers.encoders(on_progress, cancelled)
        stack.enter_context(self._placed(*encoders.networks))
        return encoders, self.device

    @contextmanager
    def _placed(self, *networks: nn.Module) -> Iterator[None]:
        """Networks on the device, and off it again afterwards in low-memory mode."""
        try:
            for network in networks:
                network.to(self.device)
            yield
        finally:
            if self.low_memory and self.device.type != "cpu":
                for network in networks:
                    network.to("cpu")
