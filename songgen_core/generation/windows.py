"""A whole song in overlapping windows: planning, context, cross-fade (LeVo spec, renderer 8).

Letters: B batch, T generated frames, N frames of a window, C latent channels.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor

from ..configs import FRAME_RATE, RendererConfig
from ..errors import UserError
from ..models.flow_renderer import FlowRenderer
from .flow import denoise


@dataclass(frozen=True)
class WindowPlan:
    """Which frame of the sequence (prompt codes, then generated codes) each window sees."""

    indices: tuple[Tensor, ...]  # one [N] int64 per window, into the sequence
    contexts: tuple[int, ...]  # known frames at the start of each window
    overlap: int  # frames that neighbouring windows share


def plan_windows(num_codes: int, prompt_frames: int, window_frames: int) -> WindowPlan:
    """Windows over `num_codes` codes, prompt included; the end is padded by starting over.

    Quirk: the tail of the last window is conditioned on the beginning of the sequence.
    """
    hop = (window_frames // 4) * 3
    overlap = window_frames - hop
    count = max(1, ceil((num_codes - overlap) / hop))
    indices = tuple(torch.arange(k * hop, k * hop + window_frames) % num_codes for k in range(count))
    return WindowPlan(indices, (prompt_frames, *[overlap] * (count - 1)), overlap)


def output_samples(num_frames: int, sample_rate: int) -> int:
    """Length of the audio of `num_frames` frames.

    Quirk: double rounding loses one sample for some lengths (29, 57, 58, 113, ... frames).
    """
    return int(num_frames / 100 * 4 * sample_rate)


def render_windows(
    renderer: FlowRenderer,
    codes: Tensor,
    *,
    noise: Callable[[int], Tensor],
    num_steps: int,
    guidance_scale: float,
    prompt_latents: Tensor | None = None,
    window_frames: int | None = None,
    on_step: Callable[[Tensor], None] = lambda latents: None,
) -> Iterator[Tensor]:
    """Latents [1, C, N] of each window, one after the other.

    codes [1, 2, T] int64: vocal and accompaniment, a prompt's codes in front where there is a prompt.
    noise(k) gives the [1, N, C] standard normal start of window k. prompt_latents [1, C, P] are the known
    first frames; the first window comes back without them.
    """
    config = renderer.config
    window_frames = window_frames or config.window_frames
    context = (
        prompt_latents if prompt_latents is not None else codes.new_zeros(1, config.latent_dim, 0).float()
    )
    plan = plan_windows(codes.shape[-1], context.shape[-1], window_frames)
    for k, indices in enumerate(plan.indices):
        vocal, bgm = codes[..., indices.to(codes.device)].unbind(1)  # (1, N) each
        latents = denoise(
            renderer,
            renderer.condition(vocal, bgm),
            noise(k),
            context,
            num_steps=num_steps,
            guidance_scale=guidance_scale,
            on_step=on_step,
        )
        yield latents[..., plan.contexts[0] :] if k == 0 else latents
        context = latents[..., -plan.overlap :]


def crossfade(windows: Iterable[Tensor], overlap_samples: int) -> Tensor:
    """Join decoded windows [B, C, samples] that share `overlap_samples` by a linear fade in float64."""
    fade_in = fade_ramp(overlap_samples)
    parts: list[Tensor] = []
    for audio in windows:
        if parts:
            tail, head = parts[-1][..., -overlap_samples:], audio[..., :overlap_samples]
            parts[-1][..., -overlap_samples:] = (tail * (1 - fade_in) + head * fade_in).float()
            audio = audio[..., overlap_samples:]
        parts.append(audio)
    return torch.cat(parts, dim=-1)


def fade_ramp(num_samples: int) -> Tensor:
    """0 to 1 inclusive, [num_samples] float64; numpy's linspace, whose last bits differ from torch's."""
    return torch.from_numpy(np.linspace(0, 1, num_samples))


def prompt_crop(num_samples: int, sample_rate: int) -> tuple[int, int]:
    """Start and length in samples of the part of a prompt recording that the renderer hears: its first
    10 s, or 20 s to 30 s of a recording of 30 s or more."""
    if num_samples >= 30 * sample_rate:
        return 20 * sample_rate, 10 * sample_rate
    return 0, min(num_samples, 10 * sample_rate)


def frames_of(seconds: float) -> int:
    """Whole frames in a duration; the float product is truncated, as in the reference (2.3 s are 57)."""
    return int(seconds * FRAME_RATE)


def silence_stream(codes: Tensor, output: str, config: RendererConfig) -> Tensor:
    """codes [1, 2, T] (vocal, accompaniment) with the unwanted stream replaced by its silent code.

    `output` is "mixed", "vocal" or "bgm".
    """
    if output not in ("mixed", "vocal", "bgm"):
        raise UserError(f"output '{output}' is unknown; choose mixed, vocal or bgm")
    codes = codes.clone()
    if output == "bgm":
        codes[:, 0] = config.silent_vocal_code
    if output == "vocal":
        codes[:, 1] = config.silent_bgm_code
    return codes
