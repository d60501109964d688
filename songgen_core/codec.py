"""Codes to audio and recordings to codes: everything but the writing of songs.

`render_audio` is a function on networks that somebody else has placed; `SongCodec` holds the networks, places
them and calls it. Letters: K streams, T frames (25 per second), C channels, N samples.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from .configs import RendererConfig
from .devices import exact_float32, placed
from .errors import UserError
from .generation.chunked import chunk_starts, decode_chunked
from .generation.windows import (
    crossfade,
    output_samples,
    plan_windows,
    render_windows,
    silence_stream,
)
from .models.flow_renderer import FlowRenderer
from .models.oobleck import OobleckVAE
from .progress import (
    IsCancelled,
    OnProgress,
    count_progress,
    ignore_progress,
    interruptible,
    never_cancelled,
)
from .prompts.cache import PromptCache
from .prompts.prompt import Prompt, PromptEncoders, check_prompt
from .prompts.readers import PromptReaders
from .prompts.recording import PromptOptions, Source, encode_song, make_prompt
from .seeds import check_seed

CHUNK_FRAMES, CHUNK_OVERLAP = 128, 32  # of VAE decoding: 5 s at a time bound its memory


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


class RenderAudio(Protocol):
    """Something that computes what `render_audio` computes."""

    def __call__(
        self,
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
    ) -> Tensor: ...


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
    sizes = [config.window_frames] * len(plan.indices)
    sizes[0] -= prompt_frames
    chunks = sum(len(chunk_starts(size, CHUNK_FRAMES, CHUNK_OVERLAP)) for size in sizes)
    step_done = count_progress("rendering", len(sizes) * options.num_steps + chunks, on_progress)

    def decode(latents: Tensor) -> Tensor:
        return decode_chunked(
            vae.decode, latents, hop, chunk_size=CHUNK_FRAMES, overlap=CHUNK_OVERLAP, on_chunk=step_done
        ).cpu()

    with interruptible(cancelled, renderer, vae), exact_float32(device):
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


class SongReader:
    """Recordings to prompts and to codes. Networks are loaded when they are first needed."""

    def __init__(self, readers: PromptReaders, *, device: torch.device, low_memory: bool = False) -> None:
        """`low_memory` keeps each network on the device only while it works."""
        self.readers, self.device, self.low_memory = readers, device, low_memory

    def prompt_of(
        self,
        source: Source,
        options: PromptOptions = PromptOptions(),
        *,
        cache: PromptCache | None = None,
        make_room: Callable[[], None] = lambda: None,
        on_progress: OnProgress = ignore_progress,
        cancelled: IsCancelled = never_cancelled,
    ) -> Prompt:
        """The prompt that a recording makes. `make_room` is called before any network goes to the device.

        Raises AudioError, CheckpointError, UserError, Cancelled.
        """

        def separator() -> tuple[nn.Module, torch.device]:
            make_room()
            return self.readers.separator(), self.device

        def encoders() -> tuple[PromptEncoders, torch.device]:
            make_room()
            return self._placed_encoders(stack, on_progress, cancelled)

        with ExitStack() as stack:
            return make_prompt(
                source,
                options,
                separator=separator,
                encoders=encoders,
                cache=cache,
                fingerprint="" if cache is None else self.readers.fingerprint(),
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

    def _placed(self, *networks: nn.Module) -> AbstractContextManager[None]:
        return placed(networks, self.device, stay=not self.low_memory)


class SongCodec(SongReader):
    """Renderer and VAE besides: codes to audio, all on one device."""

    def __init__(
        self,
        renderer: FlowRenderer,
        vae: OobleckVAE,
        readers: PromptReaders,
        *,
        device: torch.device,
        low_memory: bool = False,
        render: RenderAudio = render_audio,
    ) -> None:
        super().__init__(readers, device=device, low_memory=low_memory)
        self.renderer, self.vae, self._render_audio = renderer, vae, render

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
        """codes [1, 3, T] -> audio [1, 2, N] float32 on the CPU. Raises UserError, Cancelled."""
        with self._placed(self.renderer, self.vae):
            return self._render_audio(
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
            ).clone()  # out of inference mode, so that callers may change it in place
