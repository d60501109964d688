"""A recording of any length through the codec encoder: level, repetition, segments.

The encoder hears 40 s at a time; a shorter recording is repeated until it fills them, which its codes depend
on (LeVo spec, codec encoder 4). Letters: N samples, T frames.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil

import torch
from torch import Tensor

from ..configs import FRAME_RATE, SAMPLE_RATE
from ..errors import AudioError

SEGMENT_SECONDS = 40
SEGMENT_FRAMES = SEGMENT_SECONDS * FRAME_RATE
_LOUDEST = 0.8
Encode = Callable[[Tensor], Tensor]  # one segment [1, 2, n] -> codes [1, SEGMENT_FRAMES]


def peak_of(clip: Tensor) -> Tensor:
    """The largest absolute sample of clip [C, N], all channels together; a scalar."""
    return torch.stack(torch.aminmax(clip)).abs().max()  # without a copy of an hour of sound


def limit_peak(audio: Tensor, peak: Tensor) -> Tensor:
    """audio [C, N] from a clip with this peak, divided down to 0.8 if the clip is louder."""
    return audio / (peak / _LOUDEST) if peak > _LOUDEST else audio


def code_length(num_samples: int, sample_rate: int = SAMPLE_RATE) -> int:
    """Frames T that a recording is encoded to.

    Quirk: one more than fit, but for lengths such as 29, 57, 58, 113 frames, which double rounding cuts.
    """
    return int(num_samples / sample_rate * FRAME_RATE) + 1


def count_segments(num_samples: int, sample_rate: int = SAMPLE_RATE) -> int:
    """Segments that hold the codes of a recording."""
    return ceil(code_length(num_samples, sample_rate) / SEGMENT_FRAMES)


def encode_streams(
    encoders: Sequence[Encode],
    clips: Sequence[Tensor],
    *,
    sample_rate: int = SAMPLE_RATE,
    split_mono: bool = False,
    on_segment: Callable[[], None] = lambda: None,
) -> Tensor:
    """Clips [C, N] float32, mono or stereo, one per stream -> codes [1, K, T] over their common length.

    Each clip is limited by itself, before the cut. `split_mono` repeats a slip of the reference, which takes
    the second half of a repeated mono recording for the right channel. Raises AudioError without samples.
    """
    length = min(clip.shape[-1] for clip in clips)
    if length == 0:
        raise AudioError("the recording is empty (0 samples); choose one with sound")
    num_codes, count = code_length(length, sample_rate), count_segments(length, sample_rate)
    streams = []
    for encode, clip in zip(encoders, clips):
        cut: Callable[..., Iterable[Tensor]]
        cut = mono_segments if split_mono and clip.shape[0] == 1 else segments
        peak, codes = peak_of(clip), []
        for segment in cut(clip[..., :length], SEGMENT_SECONDS * sample_rate, count):
            codes.append(encode(limit_peak(segment, peak)[None]))
            on_segment()
        streams.append(torch.cat(codes, dim=-1)[..., :num_codes])
    return torch.stack(streams, dim=1)


def segments(clip: Tensor, num_samples: int, count: int) -> Iterator[Tensor]:
    """`count` stereo segments [2, num_samples] of the endlessly repeated clip; mono is duplicated."""
    clip = clip.expand(2, -1)
    return (repeated(clip, k * num_samples, num_samples) for k in range(count))


def mono_segments(clip: Tensor, num_samples: int, count: int) -> list[Tensor]:
    """Quirk: the reference splits a repeated mono clip of N segments into two channels of N / 2."""
    total = clip.shape[-1] if clip.shape[-1] >= num_samples else _doubled(clip.shape[-1], num_samples)
    half, odd = divmod(total // num_samples + 1, 2)
    if odd:
        raise AudioError("a mono recording of this length cannot be split as the reference does; use stereo")
    pairs = [
        torch.cat([repeated(clip, (k + shift) * num_samples, num_samples) for shift in (0, half)])
        for k in range(half)
    ]
    return pairs[:count]


def _doubled(length: int, at_least: int) -> int:
    while length < at_least:
        length *= 2
    return length


def repeated(clip: Tensor, start: int, num_samples: int) -> Tensor:
    """Samples [start, start + num_samples) of clip [C, N] repeated for ever."""
    return clip[..., torch.arange(start, start + num_samples, device=clip.device) % clip.shape[-1]]
