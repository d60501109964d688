"""A recording -> the codes that the language model continues from, and the latents that the renderer does.

Letters: C channels, N samples at 48 kHz, Q codes, P latent frames.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..configs import SAMPLE_RATE
from ..devices import exact_float32
from ..errors import AudioError, UserError
from ..generation.segments import count_segments, encode_streams
from ..models.codec_encoder import CodecEncoder
from ..models.oobleck import OobleckVAE
from ..progress import (
    IsCancelled,
    OnProgress,
    count_progress,
    ignore_progress,
    interruptible,
    never_cancelled,
)

log = logging.getLogger("songgen")

PROMPT_SECONDS = 10.0  # as long as the models were trained with
RENDERED = ("mixed", "vocal", "bgm")
BOTH_GIVEN = (
    "a prompt and a description are both given; the models were trained with one of them, and where the two"
    " disagree the song may follow neither: leave one out if it does not sound as wanted"
)


@dataclass(frozen=True)
class Clips:
    """The same seconds of a recording three times, each [1 or 2, N] float32 at 48 kHz; mix = vocal + bgm."""

    mix: Tensor
    vocal: Tensor
    bgm: Tensor


@dataclass(frozen=True)
class Prompt:
    """What steers a song.

    codes: [1, 3, Q] int64, rows mixed, vocal, accompaniment. latents: for each output ("mixed", "vocal",
    "bgm") [1, latent_dim, P] float32, which the renderer continues from; empty for stored prompts.
    """

    codes: Tensor
    latents: Mapping[str, Tensor] = field(default_factory=dict)
    about: str = ""


@dataclass(frozen=True)
class PromptEncoders:
    """The networks that read recordings, in float32."""

    mixed: CodecEncoder
    dual: CodecEncoder
    vae: OobleckVAE  # its encoder is enough

    @property
    def networks(self) -> list[nn.Module]:
        return [self.mixed, self.dual, self.vae]


def encode_prompt(
    encoders: PromptEncoders,
    clips: Clips,
    *,
    seed: int,
    device: torch.device,
    split_mono: bool = False,
    about: str = "",
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> Prompt:
    """Clips -> prompt, on the CPU. The encoders lie on `device`; `seed` draws the noise of the latents.

    `split_mono` repeats a slip of the reference (`generation.segments`). Raises AudioError, Cancelled.
    """
    hop = encoders.vae.config.hop_length
    length = clips.vocal.shape[-1]
    if length < hop:
        raise AudioError(
            f"the prompt is {length / SAMPLE_RATE:.3f} s long; give {hop / SAMPLE_RATE:g} s at least,"
            " best 10 s"
        )
    step = count_progress("encoding the prompt", 3 * count_segments(length) + len(RENDERED), on_progress)
    with torch.inference_mode(), interruptible(cancelled, *encoders.networks), exact_float32(device):
        codes = encode_recording(encoders, clips, device=device, split_mono=split_mono, on_segment=step)
        latents = {}
        for output in RENDERED:
            latents[output] = encode_latents(encoders.vae, heard(clips, output), seed, device)
            step()
    # Clones out of inference mode, so that callers may change them in place.
    return Prompt(codes.clone(), {output: made.clone() for output, made in latents.items()}, about)


def encode_recording(
    encoders: PromptEncoders,
    clips: Clips,
    *,
    device: torch.device,
    split_mono: bool = False,
    on_segment: Callable[[], None] = lambda: None,
) -> Tensor:
    """Clips of any length -> codes [1, 3, Q] int64 on the CPU, 25 per second and one more.

    Mix and stems are encoded over their common length. Raises AudioError.
    """
    common = min(clip.shape[-1] for clip in (clips.mix, clips.vocal, clips.bgm))

    def on_device(encoder: CodecEncoder, stream: int) -> Callable[[Tensor], Tensor]:
        return lambda segment: encoder(segment.to(device), stream).cpu()

    mixed = encode_streams(
        [on_device(encoders.mixed, 0)],
        [clips.mix[..., :common]],
        split_mono=split_mono,
        on_segment=on_segment,
    )
    stems = encode_streams(
        [on_device(encoders.dual, k) for k in (0, 1)],
        [clips.vocal[..., :common], clips.bgm[..., :common]],
        on_segment=on_segment,
    )
    return torch.cat([mixed, stems], dim=1)


def heard(clips: Clips, output: str) -> Tensor:
    """What sounds in `output`: both stems ("mixed") or one of them, [2, N]."""
    stems = {"mixed": clips.vocal + clips.bgm, "vocal": clips.vocal, "bgm": clips.bgm}
    return stems[output].expand(2, -1)


def encode_latents(vae: OobleckVAE, audio: Tensor, seed: int, device: torch.device) -> Tensor:
    """audio [2, N] -> latents [1, latent_dim, N // hop_length] on the CPU, sampled with noise from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    return vae.encode(audio[None].to(device), generator).cpu()


def check_prompt(prompt: Prompt, output: str, latent_dim: int, window_frames: int) -> Tensor | None:
    """Latents of `output` that fit the renderer, None for a stored prompt. Raises UserError."""
    latents = prompt.latents.get(output)
    if latents is None:
        return None
    if latents.ndim != 3 or latents.shape[:2] != (1, latent_dim) or latents.shape[-1] >= window_frames:
        raise UserError(
            f"the prompt's latents have the shape {list(latents.shape)}; this renderer takes"
            f" [1, {latent_dim}, up to {window_frames - 1}]: make the prompt with the same model"
        )
    return latents
