"""Short-time spectra of a recording around any moments, which everything here begins with.

Letters: C channels, N samples, T moments, F frequencies, B bands.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import Cancelled
from ..progress import IsCancelled, never_cancelled

SILENCE = 1e-10  # mean power, -100 dB
_BLOCK = 256  # moments per pass, which bounds the memory


def to_mono(audio: Tensor) -> Tensor:
    """[C, N] -> [N] float32: the mean of the channels, or the first one where they cancel each other."""
    audio = audio.detach().to("cpu", torch.float32)
    mono = audio.mean(0)
    return audio[0] if mono.square().mean() < 1e-3 * audio[0].square().mean() else mono


def check_cancelled(cancelled: IsCancelled) -> None:
    """Raise Cancelled once `cancelled()` is true."""
    if cancelled():
        raise Cancelled("stopped by the user")


def window_size(seconds: float, sample_rate: int) -> int:
    """The power of two of samples that is next to `seconds`; 16 at least."""
    return max(16, 2 ** round(math.log2(seconds * sample_rate)))


def band_filters(size: int, sample_rate: int, edges: Tensor) -> Tensor:
    """[F = size / 2 + 1, B] for edges [B + 1] in Hz: triangles' worth of each frequency, rows sum to 1 or 0.

    A band that is narrower than the distance of two frequencies shares the one next to it.
    """
    step = sample_rate / size
    hertz = torch.arange(size // 2 + 1) * step
    low, high = edges[:-1], edges[1:]
    # How much of each frequency's slot lies inside the band.
    overlap = torch.minimum(hertz[:, None] + step / 2, high) - torch.maximum(hertz[:, None] - step / 2, low)
    return overlap.clamp(min=0.0) / step


def log_edges(low: float, high: float, bands: int, sample_rate: int) -> Tensor:
    """[bands + 1] edges in Hz, equally far apart to the ear; nothing above half the sample rate."""
    high = min(high, sample_rate / 2)
    low = min(low, high / 8)
    return torch.logspace(math.log10(low), math.log10(high), bands + 1)


def pitch_filters(size: int, sample_rate: int) -> Tensor:
    """[F, 12]: which frequency between 130 and 2100 Hz belongs to which pitch class; 0 is C."""
    hertz = torch.fft.rfftfreq(size, 1 / sample_rate)
    pitch = (12 * torch.log2(hertz.clamp(min=1.0) / 261.6256)).round().long() % 12
    tonal = ((hertz >= 130.0) & (hertz < 2100.0)).float()[:, None]
    return torch.nn.functional.one_hot(pitch, 12) * tonal


def powers(
    mono: Tensor,
    sample_rate: int,
    moments: Tensor,
    filters: Tensor,
    cancelled: IsCancelled = never_cancelled,
) -> Tensor:
    """[N] -> [T, B]: power in each band of `filters` [F, B] around moments [T] in seconds.

    A full-scale sine has the power 0.5. Raises Cancelled.
    """
    size = 2 * (filters.shape[0] - 1)
    window = torch.hann_window(size)
    # Half the spectrum is folded in, and the power of the window is divided out.
    scale = 2 / (size * float(window.square().sum()))
    padded = pad(mono, (size // 2, size + 1))
    starts = (moments.double() * sample_rate).round().long().clamp(0, mono.shape[0])
    reach = torch.arange(size)
    blocks = []
    for first in starts.split(_BLOCK):
        check_cancelled(cancelled)
        frames = padded[first[:, None] + reach] * window
        spectrum = torch.view_as_real(torch.fft.rfft(frames)).square().sum(-1)
        blocks.append(spectrum @ filters * scale)
    return torch.cat(blocks)
