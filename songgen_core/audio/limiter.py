"""A look-ahead peak limiter: loud passages are turned down smoothly, nothing is ever clipped.

Letters: B batch, C channels, N audio samples, W window.

    audio --> |.|, loudest channel --> max over W --> gain = ceiling / max --> mean over W --> * audio

The mean at a sample averages W gains, and each of them was asked for by a window that contains this very
sample. So every averaged gain is small enough for it, and so is their mean: the ceiling holds exactly.
"""

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from ..errors import AudioError

# Spans two half-waves of a 50 Hz bass, so that the gain does not follow (and distort) single waves.
_WINDOW_SECONDS = 0.02

# Rounding of the product to float32 must not lift a sample above the ceiling again.
_ROUNDING_MARGIN = 1e-6

# Samples per pass: bounds the working memory to some 20 MB, whatever the length of the song.
_BLOCK = 1 << 20


def peak(audio: torch.Tensor) -> float:
    """The largest absolute sample; 0 for empty audio, NaN if any sample is NaN."""
    if audio.numel() == 0:
        return 0.0
    low, high = torch.aminmax(audio)
    return max(abs(float(low)), abs(float(high)))


def check_finite(audio: torch.Tensor, sample_rate: int) -> None:
    """Raise AudioError with the first time at which audio [..., C, N] is NaN or infinite."""
    if math.isfinite(peak(audio)):
        return
    bad = ~torch.isfinite(audio).flatten(0, -2).all(dim=0)  # [N]
    first = int(bad.nonzero()[0, 0])
    kind = "NaN" if bool(audio[..., first].isnan().any()) else "infinite"
    raise AudioError(
        f"the audio holds invalid samples ({kind}) at {first / sample_rate:.1f} s; export a recording again,"
        " make a song with a more exact precision (bfloat16 or float32 instead of float16) or another seed"
    )


def limit_peaks(audio: torch.Tensor, ceiling: float = 0.98, sample_rate: int = 48000) -> torch.Tensor:
    """Audio [B, C, N] or [C, N] float32 that never exceeds the ceiling; the channels share one gain.

    Audio that already stays below the ceiling comes back as it is, and so do the samples further than the
    window from any peak.
    """
    if audio.dim() < 2 or audio.dtype != torch.float32:
        raise AudioError(
            f"limit_peaks takes float32 audio [C, N] or [B, C, N], not {audio.dtype} {list(audio.shape)}"
        )
    if not 0.0 < ceiling <= 1.0:
        raise AudioError(f"ceiling is {ceiling}; it must be above 0 and at most 1")
    check_finite(audio, sample_rate)
    if peak(audio) <= ceiling:
        return audio
    return _limit_blocks(audio, ceiling * (1.0 - _ROUNDING_MARGIN), _window_doublings(sample_rate))


def _limit_blocks(audio: torch.Tensor, target: float, doublings: int) -> torch.Tensor:
    """Limit block by block; each block sees its neighbours, so that the cut points leave no trace."""
    reach = (1 << doublings) - 1
    limited = torch.empty_like(audio)
    for start in range(0, audio.shape[-1], _BLOCK):
        stop = min(start + _BLOCK, audio.shape[-1])
        before, after = max(start - reach, 0), min(stop + reach, audio.shape[-1])
        envelope = audio[..., before:after].abs().amax(dim=-2, keepdim=True)  # [..., 1, n]
        # Beyond both ends of the song there is silence, which asks for no gain.
        envelope = F.pad(envelope, (before - start + reach, stop + reach - after))
        limited[..., start:stop] = audio[..., start:stop] * _gain(envelope, target, doublings)
    return limited


def _gain(envelope: torch.Tensor, target: float, doublings: int) -> torch.Tensor:
    """Gain [..., n] for the middle of an envelope [..., n + 2 (W - 1)], W = 2 ** doublings."""
    loudest = _over_window(envelope, torch.maximum, doublings).double()  # [..., n + W - 1]
    gains = target / loudest.clamp(min=target)
    # Far from a peak the gains are 1, their sum is W and the mean exactly 1: W is a power of two.
    mean = _over_window(gains, torch.add, doublings) / (1 << doublings)  # [..., n]
    return mean.to(envelope.dtype)


def _over_window(
    values: torch.Tensor, combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], doublings: int
) -> torch.Tensor:
    """Combine W = 2 ** doublings neighbours [..., n] -> [..., n - W + 1].

    Each pass doubles the span: 10 passes where max_pool1d and avg_pool1d take 1024, so 10 to 20 times
    faster, and each result depends on its own window alone (a running sum depends on where it began).
    """
    for step in range(doublings):
        values = combine(values[..., : -(1 << step)], values[..., 1 << step :])
    return values


def _window_doublings(sample_rate: int) -> int:
    """Binary logarithm of the window, rounded to the nearest power of two samples."""
    return max(1, round(math.log2(sample_rate * _WINDOW_SECONDS)))
