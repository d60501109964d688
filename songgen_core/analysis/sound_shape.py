"""A whole song as a few hundred numbers from 0 to 1, the material that covers are drawn from.

Letters: C channels, N samples, L and T moments, B bands.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, pad

from ..audio.resample import check_recording
from ..progress import IsCancelled, never_cancelled
from .envelopes import band_levels
from .spectra import to_mono

LEVELS, MOMENTS, BANDS = 1024, 512, 24
_SILENT_DB, _QUIET_DB, _LOUD_DB = -100.0, -32.0, -9.0  # RMS; the latter two of a calm and of a loud master


@dataclass(frozen=True)
class SoundShape:
    """Loudness [L] over time, bands [B, T] from bass to treble, and one `energy`: calm 0, loud 1."""

    loudness: Tensor
    bands: Tensor
    energy: float


def shape_of_sound(audio: Tensor, sample_rate: int, cancelled: IsCancelled = never_cancelled) -> SoundShape:
    """The shape of a recording [C, N]; each row takes the whole range 0..1. Raises AudioError, Cancelled."""
    check_recording(audio, sample_rate)
    mono = to_mono(audio)
    seconds = len(mono) / sample_rate
    moments = (torch.arange(MOMENTS, dtype=torch.float64) + 0.5) * seconds / MOMENTS
    bands, _ = band_levels(mono, sample_rate, moments, BANDS, cancelled)
    decibels = _levels(mono)
    energy = float((decibels.max() + decibels.mean()) / 2 - _QUIET_DB) / (_LOUD_DB - _QUIET_DB)
    loudness = _spread(smooth(decibels.clamp(min=float(decibels.max()) - 40)[None], 5))[0]
    return SoundShape(loudness, _spread(smooth(bands.T.float(), 5)), min(1.0, max(0.0, energy)))


def shape_of_nothing(generator: torch.Generator) -> SoundShape:
    """What is drawn where there is no sound: hills that are drawn by lot."""
    loudness = _spread(smooth(torch.rand(1, LEVELS, generator=generator), 7))[0]
    bands = _spread(smooth(torch.rand(BANDS, MOMENTS, generator=generator), 25))
    return SoundShape(loudness, bands, 0.5)


def smooth(rows: Tensor, width: int) -> Tensor:
    """Rows [R, T] -> the mean over `width` (odd) moments, twice, the ends held."""
    for _ in range(2):
        held = pad(rows[:, None], (width // 2, width // 2), mode="replicate")
        rows = avg_pool1d(held, width, stride=1)[:, 0]
    return rows


def _levels(mono: Tensor) -> Tensor:
    """[N] -> [L] dBFS: RMS of each of L equal parts."""
    sums = pad(mono.double().square().cumsum(0), (1, 0))
    edges = (torch.arange(LEVELS + 1) * len(mono) / LEVELS).long()
    low, high = edges[:-1].clamp(max=len(mono) - 1), torch.maximum(edges[1:], edges[:-1] + 1)
    mean = (sums[high.clamp(max=len(mono))] - sums[low]) / (high - low)
    return (10 * torch.log10(mean.clamp(min=10 ** (_SILENT_DB / 10)))).float()


def _spread(rows: Tensor) -> Tensor:
    """Each row stretched to 0..1; one that does not change, such as silence, is 0 everywhere."""
    low, high = (rows.quantile(share, dim=1, keepdim=True) for share in (0.02, 0.98))
    return ((rows - low) / (high - low).clamp(min=1e-3)).clamp(0, 1)
