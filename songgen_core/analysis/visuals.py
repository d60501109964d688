"""Pictures that move with the sound: bars of the spectrum, or the wave itself.

Letters: C channels, N samples, T pictures, H height, W width, B bars.
"""

import math
import re

import torch
from torch import Tensor

from ..audio.resample import check_recording
from ..errors import UserError
from ..progress import IsCancelled, OnProgress, Progress, ignore_progress, never_cancelled
from .envelopes import band_levels, frame_centres, frame_count
from .spectra import check_cancelled, to_mono

STYLES = ("bars", "wave")
MOST_BYTES = 4 * 1024**3
_GB = 1024**3

_MOST_BARS, _NARROWEST_BAR = 48, 6  # pixels
_BAR_GAP = 0.25  # of its width
_FALL_PER_SECOND = 1.8  # of the height: bars rise at once and fall slowly
_MARGIN = 0.06  # of the height, above the highest bar
_WAVE_SECONDS = 0.04  # from the left to the right edge
_BLOCK = 64  # pictures per pass
_STAGE = "drawing the sound"


def parse_colour(text: str) -> tuple[int, int, int]:
    """`#40c4ff` or `#4cf` as three numbers 0..255. Raises UserError."""
    digits = text.strip().removeprefix("#")
    if re.fullmatch("[0-9A-Fa-f]{3}", digits):
        digits = "".join(2 * digit for digit in digits)
    if not re.fullmatch("[0-9A-Fa-f]{6}", digits):
        raise UserError(f"the colour '{text[:40]}' is unknown; write it as #rrggbb, such as #40c4ff")
    red, green, blue = (int(digits[at : at + 2], 16) for at in (0, 2, 4))
    return red, green, blue


def check_memory(frames: int, height: int, width: int, advice: str) -> None:
    """Raise UserError, which ends in `advice`, for more than 4 GB of pictures [frames, height, width, 3]."""
    size = frames * height * width * 3 * 4
    if size > MOST_BYTES:
        most = MOST_BYTES // (height * width * 3 * 4)
        raise UserError(
            f"{frames} pictures of {width}x{height} take {size / _GB:.1f} GB, more than"
            f" {MOST_BYTES / _GB:.0f} GB; {advice} (at this size {most} pictures fit)"
        )


def part_of(frames: int, fps: float, start: float, max_seconds: float) -> slice:
    """Which of `frames` pictures lie in the part from `start` on, at most `max_seconds` long; 0 is all.

    Parts that follow each other are the whole. Raises UserError for a start behind the last picture.
    """
    # A bit more than a half, so that 3 * 0.2 s and 0.6 s are the same picture.
    begin, end = (
        math.floor(min(moment * fps + 0.500001, frames)) for moment in (max(0.0, start), start + max_seconds)
    )
    if begin >= frames:
        raise UserError(f"start is {start:g} s, but the audio lasts {frames / fps:.1f} s; begin earlier")
    return slice(begin, max(begin + 1, end) if max_seconds > 0 else frames)


def draw_sound(
    audio: Tensor,
    sample_rate: int,
    *,
    fps: float = 24.0,
    width: int = 512,
    height: int = 288,
    style: str = "bars",
    colour: tuple[int, int, int] = (64, 196, 255),
    start: float = 0.0,
    max_seconds: float = 0.0,
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> Tensor:
    """Audio [C, N] -> pictures [T, H, W, 3] float32 in 0..1 on black, from `start` on (seconds).

    At most `max_seconds` are drawn; 0 is all. Levels are those of the whole recording, so that parts drawn
    one by one fit together. Raises AudioError, Cancelled, and UserError for more than 4 GB of pictures.
    """
    check_recording(audio, sample_rate)
    if style not in STYLES:
        raise UserError(f"the style '{style[:40]}' is unknown; choose one of {', '.join(STYLES)}")
    if width < 16 or height < 16:
        raise UserError(f"{width}x{height} pixels are too small; draw 16x16 at least")
    moments = _moments(audio.shape[1] / sample_rate, fps, start, max_seconds)
    advice = "lower max_seconds, fps or the size, or draw it in parts"
    check_memory(len(moments), height, width, advice)
    mono = to_mono(audio)
    if style == "bars":
        drawing = _bars(mono, sample_rate, fps, moments, width, cancelled)
    else:
        drawing = _wave(mono, sample_rate, moments, width)
    tint = torch.tensor(colour) / 255
    output = torch.empty(len(moments), height, width, 3)
    rows = torch.arange(height)[:, None]  # 0 is the top
    for first in range(0, len(moments), _BLOCK):
        check_cancelled(cancelled)
        low, high = (edge[first : first + _BLOCK, None] * height for edge in drawing)  # [block, 1, W]
        # How much of a pixel's row lies between the edges: smooth without drawing larger.
        cover = (torch.minimum(rows + 1, high) - torch.maximum(rows, low)).clamp(0, 1)
        torch.mul(cover[..., None], tint, out=output[first : first + _BLOCK])
        on_progress(Progress(_STAGE, min(first + _BLOCK, len(moments)), len(moments)))
    return output


def _moments(seconds: float, fps: float, start: float, max_seconds: float) -> Tensor:
    """[T] float64: what the pictures show, in seconds; those of the whole recording, cut."""
    frames = frame_count(seconds, fps)
    return frame_centres(frames, fps)[part_of(frames, fps, start, max_seconds)]


def _bars(
    mono: Tensor, sample_rate: int, fps: float, moments: Tensor, width: int, cancelled: IsCancelled
) -> tuple[Tensor, Tensor]:
    """Upper and lower edge [T, W] of what is drawn in each column, 0 at the top and 1 at the bottom."""
    bars = max(1, min(_MOST_BARS, width // _NARROWEST_BAR))
    # From the beginning, as bars fall slowly and the loudest moment is that of the whole recording.
    total = frame_count(mono.shape[0] / sample_rate, fps)
    levels, _ = band_levels(mono, sample_rate, frame_centres(total, fps), bars, cancelled)
    fallen = levels.clone()
    for number in range(1, len(levels)):
        fallen[number] = torch.maximum(levels[number], fallen[number - 1] - _FALL_PER_SECOND / fps)
    first = round(float(moments[0]) * fps - 0.5)
    shown = fallen[first : first + len(moments)]
    place = torch.arange(width) * bars / width
    inside = (place % 1) < 1 - _BAR_GAP
    columns = shown[:, place.long().clamp(max=bars - 1)] * inside
    return 1 - columns * (1 - _MARGIN), torch.ones(1).expand_as(columns)


def _wave(mono: Tensor, sample_rate: int, moments: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Likewise: from the highest to the lowest sample of each column."""
    half = max(2, round(_WAVE_SECONDS * sample_rate / 2))
    gain = 0.45 / max(float(mono.abs().max()), 1e-6)
    padded = torch.nn.functional.pad(mono, (half, half + 1)) * gain
    starts = (moments * sample_rate).round().long().clamp(0, mono.shape[0])
    edges = (torch.arange(width + 1) * 2 * half / width).long()
    longest = int(edges.diff().max()) + 1  # one more, so that neighbours touch
    reach = torch.minimum(edges[:-1, None] + torch.arange(longest), edges[1:, None])  # [W, longest]
    values = [padded[starts[t] + reach].aminmax(dim=1) for t in range(len(starts))]
    low, high = torch.stack([v.min for v in values]), torch.stack([v.max for v in values])
    thick = 0.004
    return 0.5 - high - thick, 0.5 - low + thick
