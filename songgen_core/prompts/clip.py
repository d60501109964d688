"""The seconds of a recording that are used, at 48 kHz (LeVo spec, codec encoder 2).

Letters: C channels, N samples.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..configs import SAMPLE_RATE
from ..errors import AudioError
from ..layers.resample import resample
from .prompt import Clips

_MARGIN = 0.1  # seconds of sound behind the cut that resampling reads
_SILENCE = 1 / 32768  # rounding of 16 bits


def cut_clip(
    audio: Tensor,
    sample_rate: int,
    start: float,
    seconds: float,
    on_block: Callable[[], None] = lambda: None,
) -> Tensor:
    """`seconds` of audio [C, N] from `start` (seconds) on, at 48 kHz; shorter where the recording ends.

    `on_block` is called every few seconds of sound and may raise. The result may share memory with `audio`.
    Raises AudioError for a start behind the end.
    """
    first = round(start * sample_rate)
    if not 0 <= first < audio.shape[-1]:
        length = audio.shape[-1] / sample_rate
        raise AudioError(
            f"the prompt starts at {start:g} s, the recording is {length:.1f} s long; start earlier"
        )
    needed = audio[..., first : first + round((seconds + _MARGIN) * sample_rate)]
    return resample(needed, sample_rate, SAMPLE_RATE, on_block)[..., : round(seconds * SAMPLE_RATE)]


def clips_of_stems(given: dict[str, Tensor]) -> Clips:
    """What there is of "song", "vocal" and "bgm", each [2, N] -> all three over their common length.

    What is missing is the difference of the others, or silent.
    """
    length = min(clip.shape[-1] for clip in given.values())
    given = {name: clip[..., :length] for name, clip in given.items()}
    song, vocal, bgm = (given.get(name) for name in ("song", "vocal", "bgm"))
    if vocal is None:
        assert bgm is not None
        vocal = bgm.new_zeros(bgm.shape) if song is None else song - bgm
    if bgm is None:
        bgm = vocal.new_zeros(vocal.shape) if song is None else song - vocal
    return Clips(vocal + bgm if song is None else song, vocal, bgm)


def equal_length(mix: Tensor, vocal: Tensor, bgm: Tensor) -> Clips:
    """All three, cut to the shortest."""
    length = min(clip.shape[-1] for clip in (mix, vocal, bgm))
    return Clips(*(clip[..., :length] for clip in (mix, vocal, bgm)))


def is_silent(audio: Tensor) -> bool:
    """Does the mean of all channels [C, N], which is what the encoders hear, stand still?"""
    low, high = torch.aminmax(audio.mean(0))
    return (high - low).item() < _SILENCE
