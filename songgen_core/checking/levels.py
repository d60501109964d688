"""Silence and clipping of a song.

Letters: C channels, N samples.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_SILENT_DB, _FRAME_SECONDS = -50.0, 0.05


@dataclass(frozen=True)
class Levels:
    """`silent`: share of the time below -50 dBFS; `clipped`: share of samples at full scale or beyond."""

    silent: float
    clipped: float
    peak: float


def measure_levels(audio: Tensor, sample_rate: int) -> Levels:
    """Levels of a song [C, N] that has not been limited; at least one sample."""
    audio = audio.detach().to("cpu", torch.float32)
    size = max(1, round(_FRAME_SECONDS * sample_rate))
    power = audio.square().mean(0)
    frames = torch.stack([piece.mean() for piece in power.split(size)])
    silent = (frames < 10 ** (_SILENT_DB / 10)).double().mean()
    clipped = (audio.abs() >= 1.0).double().mean()
    return Levels(round(float(silent), 5), round(float(clipped), 7), round(float(audio.abs().max()), 4))
