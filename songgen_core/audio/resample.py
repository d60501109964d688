"""FFmpeg's resampler through PyAV, and the checks of a recording that every use of one begins with.

Letters: C channels, N samples before, M samples after.
"""

import importlib
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import AudioError

# Samples per frame handed to FFmpeg, which counts the bytes of a frame in 32 bits. Leaves no trace.
_BLOCK = 1 << 16

# FFmpeg's names, by the number of channels.
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def check_recording(audio: Tensor, sample_rate: int) -> None:
    """Raise AudioError unless audio is [C, N] floating point, not empty, finite, with a sample rate."""
    shape = list(audio.shape)
    if sample_rate < 1:
        raise AudioError(f"sample_rate is {sample_rate}; it must be the number of samples per second")
    if audio.dim() != 2 or not audio.is_floating_point():
        raise AudioError(f"the recording must be float [channels, samples], not {audio.dtype} {shape}")
    if audio.numel() == 0:
        raise AudioError(
            f"the recording is empty ({shape[0]} channels, {shape[1]} samples); use a longer one"
        )
    low, high = torch.aminmax(audio)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise AudioError("the recording holds invalid samples (NaN or infinite); export it again")


def two_channels(audio: Tensor) -> Tensor:
    """[C, N] -> [2, N] float32 on the CPU: mono is duplicated, of more channels the first two are kept."""
    audio = audio.detach()[:2].to("cpu", torch.float32)
    return audio.expand(2, -1) if audio.shape[0] == 1 else audio


def resample_pyav(samples: Tensor, rate: int, new_rate: int) -> Tensor:
    """Samples [C, N] at `rate` Hz -> [1 or 2, M] float32 at `new_rate`, bit for bit as ffmpeg does.

    More than two channels are folded down to stereo. M is about N * new_rate / rate. Raises AudioError.
    """
    check_recording(samples, rate)
    channels = samples.shape[0]
    if channels not in _LAYOUTS:
        raise AudioError(f"the audio has {channels} channels; mix it down to one or two first")
    if new_rate < 1:
        raise AudioError(f"the new sample rate is {new_rate}; it must be the number of samples per second")
    samples = samples.detach().to("cpu", torch.float32)
    if channels <= 2 and rate == new_rate:
        return samples
    layout = "mono" if channels == 1 else "stereo"
    resampler = _pyav().AudioResampler(format="fltp", layout=layout, rate=new_rate)
    blocks = [out.to_ndarray() for frame in _frames(samples, rate) for out in resampler.resample(frame)]
    if not blocks:  # shorter than the filter
        raise AudioError(f"the audio is too short to resample ({samples.shape[1]} samples); use a longer one")
    return torch.from_numpy(np.concatenate(blocks, axis=1))


def _frames(samples: Tensor, rate: int) -> Iterator[Any]:
    """FFmpeg frames of samples [C, N], and None at the end, which flushes the resampler."""
    layout = _LAYOUTS[samples.shape[0]]
    for start in range(0, samples.shape[1], _BLOCK):
        # Interleaved, because PyAV's planes end at seven channels.
        block = samples[:, start : start + _BLOCK].T.reshape(1, -1).contiguous().numpy()
        frame = _pyav().AudioFrame.from_ndarray(block, format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield frame
    yield None


def _pyav() -> Any:
    """The av module, asked for only where it is used: the rest of the core works without it."""
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise AudioError(
            "resampling audio needs the package PyAV; install it with: pip install av"
        ) from error
