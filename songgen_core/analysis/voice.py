"""When somebody sings, told from a vocal stem.

Letters: C channels, N samples, T frames of a fiftieth of a second.
"""

import numpy as np
import torch
from torch import Tensor

from ..audio.resample import check_recording
from .beats import Array

VOICE_RATE = 50  # frames per second

_SILENCE_DB = -60.0
# Below the loud parts of the voice; in between, halfway to the quiet parts. A separated stem holds
# remains of the accompaniment, about 20 dB down; a clean one can be followed further.
_NEAREST_DB, _FARTHEST_DB = 15.0, 30.0
_SHORTEST_GAP, _SHORTEST_VOICE = 0.16, 0.1  # seconds; consonants make gaps, clicks make voices


def find_voice(vocal: Tensor, sample_rate: int) -> Array:
    """Vocal stem [C, N] -> [T]: 1 while the voice is heard, else 0. Raises AudioError for unusable audio."""
    check_recording(vocal, sample_rate)
    power = vocal.detach().to("cpu", torch.float64).square().mean(0)
    frames = max(1, round(vocal.shape[1] / sample_rate * VOICE_RATE))
    edges = (torch.arange(frames + 1, dtype=torch.float64) * sample_rate / VOICE_RATE).round().long()
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), power.cumsum(0)])
    edges = edges.clamp(max=power.shape[0])
    mean = (sums[edges[1:]] - sums[edges[:-1]]) / (edges[1:] - edges[:-1]).clamp(min=1)
    level = 10 * np.log10(np.maximum(mean.numpy(), 1e-12))
    heard = level[level > _SILENCE_DB]
    if len(heard) == 0:
        return np.zeros(frames)
    loud, quiet = np.percentile(heard, 90), np.percentile(level, 10)
    below = float(np.clip((loud - quiet) / 2, _NEAREST_DB, _FARTHEST_DB))
    voiced = level > max(loud - below, _SILENCE_DB)
    voiced = _without_short_runs(voiced, False, _SHORTEST_GAP)
    return _without_short_runs(voiced, True, _SHORTEST_VOICE).astype(np.float64)


def voice_starts(voiced: Array) -> Array:
    """[T] -> times in seconds at which the voice begins."""
    return np.flatnonzero(np.diff(voiced, prepend=0.0) > 0) / VOICE_RATE


def _without_short_runs(flags: np.ndarray, value: bool, shortest: float) -> np.ndarray:
    """Flags [T] in which every run of `value` that is shorter than `shortest` seconds is turned round."""
    changes = np.flatnonzero(np.diff(flags)) + 1
    starts, ends = np.concatenate([[0], changes]), np.concatenate([changes, [len(flags)]])
    flags = flags.copy()
    for start, end in zip(starts.tolist(), ends.tolist()):
        is_inside = start > 0 and end < len(flags)
        if flags[start] == value and end - start < shortest * VOICE_RATE and (is_inside or value):
            flags[start:end] = not value
    return flags
