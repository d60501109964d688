"""Band-limited resampling by a windowed sinc, equal to torchaudio's default (LeVo spec, codec encoder 2.2).

Letters: N samples before, M samples after.
"""

from collections.abc import Callable
from math import ceil, gcd, pi

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from ..configs import SAMPLE_RATE

_WIDTH = 6  # zero crossings of the sinc on either side
_ROLLOFF = 0.99
_MOST_TAPS = 1 << 22
_BLOCK = 1 << 20  # samples per pass, which bounds the memory and the time until a stop


def resample(
    audio: Tensor, orig_rate: int, new_rate: int, on_block: Callable[[], None] = lambda: None
) -> Tensor:
    """audio [..., N] float32 at `orig_rate` Hz -> [..., M] at `new_rate` Hz, M about N * new / orig.

    `on_block` is called every few seconds of sound and may raise. Equal rates give `audio` itself.
    """
    if orig_rate < 1 or new_rate < 1:
        raise ValueError(f"sample rates are {orig_rate} and {new_rate} Hz; both must be positive")
    if orig_rate == new_rate:
        return audio
    common = gcd(orig_rate, new_rate)
    orig, new = orig_rate // common, new_rate // common
    kernel = sinc_kernel(orig, new).to(audio.device)
    length = resampled_length(audio.shape[-1], orig, new)
    made = audio.new_empty(*audio.shape[:-1], length)
    reach, step = kernel.shape[-1], max(1, _BLOCK // max(orig, new))  # in samples, in kernel positions
    for first in range(0, ceil(length / new), step):
        on_block()
        # A kernel's reach of neighbours on both sides, in whole positions; its own part is cut out again.
        before = min(first, ceil(reach / orig))
        piece = audio[..., (first - before) * orig : (first + step) * orig + reach]
        part = made[..., first * new : (first + step) * new]
        part.copy_(apply_kernel(piece, kernel, orig)[..., before * new :][..., : part.shape[-1]])
    return made


def is_odd_rate(sample_rate: int) -> bool:
    """Has the rate so little in common with 48 kHz that its filters, one a phase, would take gigabytes?"""
    common = gcd(sample_rate, SAMPLE_RATE)
    return (sample_rate // common) * (SAMPLE_RATE // common) > _MOST_TAPS


def resampled_length(num_samples: int, orig: int, new: int) -> int:
    """Samples that come out of N.

    Quirk: the exact length is rounded to float32 before the ceiling, so long inputs may lose one sample.
    """
    return int(torch.ceil(torch.tensor(new * num_samples / orig, dtype=torch.float32)).item())


def sinc_kernel(orig: int, new: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """One filter per output phase, [new, 1, taps]; `orig` and `new` have no common divisor.

    The order of operations is that of the reference: another one moves values by up to 6e-6.
    """
    base = min(orig, new) * _ROLLOFF
    width = ceil(_WIDTH * orig / base)
    taps = torch.arange(-width, width + orig, dtype=dtype)[None, None] / orig
    phases = torch.arange(0, -new, -1, dtype=dtype)[:, None, None] / new
    t = ((phases + taps) * base).clamp(-_WIDTH, _WIDTH)
    window = torch.cos(t * pi / _WIDTH / 2) ** 2
    t = t * pi
    sinc = torch.where(t == 0, torch.ones_like(t), t.sin() / t)
    return sinc * (window * (base / orig))


def apply_kernel(audio: Tensor, kernel: Tensor, orig: int) -> Tensor:
    """audio [..., N] through the filters [new, 1, taps], every `orig` samples; the tail is padding."""
    width = (kernel.shape[-1] - orig) // 2
    padded = pad(audio.reshape(-1, 1, audio.shape[-1]), (width, width + orig))
    phases = conv1d(padded, kernel, stride=orig)  # (batch, new, steps)
    return phases.transpose(1, 2).reshape(*audio.shape[:-1], -1)
