"""Pictures in the rhythm of a song: which one is seen when, and a zoom that jumps at each beat.

Letters: B pictures given, T pictures of the video, H height, W width.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ..errors import UserError
from ..progress import IsCancelled, OnProgress, Progress, ignore_progress, never_cancelled
from ..seeds import check_seed
from .envelopes import FASTEST_FPS, SLOWEST_FPS, frame_centres
from .spectra import check_cancelled
from .visuals import check_memory, part_of

IN_TURN, SHUFFLED = ORDERS = ("in turn", "shuffled")
EVEN_BEAT = 0.5  # seconds from one to the next where a song has no beats

_MOST_ZOOM = 0.25  # of the picture, at a pulse of 1
_DECAY = 0.16  # seconds until a third of it is left
_BLOCK, _BLOCK_BYTES = 32, 128 * 1024**2  # pictures per pass, and how large they may be together
_ADVICE = "make the pictures smaller before, lower fps, or make parts by start and max_seconds"
_STAGE = "cutting to the beat"


def beat_times(value: Any) -> list[float]:
    """What came in as beats -> their times in seconds. Raises UserError unless it is a list that grows."""
    if isinstance(value, bool | int | float):
        raise UserError(
            f"beats is the single number {value!s:.12}; connect the output beats or downbeats of Analyze"
            " Song, a list of times in seconds"
        )
    try:
        if isinstance(value, str | bytes | dict | set):
            raise TypeError(value)  # they can be counted through, but are no list
        times = [float(time) for time in value]
    except (TypeError, ValueError, OverflowError) as error:
        kind = type(value).__name__
        raise UserError(
            f"beats is of type {kind} and no list of numbers; connect the output beats of Analyze Song"
        ) from error
    finite = all(math.isfinite(time) and time >= 0 for time in times)
    if not finite or any(a >= b for a, b in pairwise(times)):
        raise UserError(
            "beats must be times in seconds, each later than the one before; connect the output beats or"
            " downbeats of Analyze Song, not loudness or onsets"
        )
    return times


def cut_to_beat(
    pictures: Tensor,
    beats: Sequence[float],
    *,
    fps: float = 24.0,
    frames: int = 0,
    every: int = 4,
    order: str = IN_TURN,
    pulse: float = 0.3,
    seed: int = 0,
    clip_length: int = 1,
    start: float = 0.0,
    max_seconds: float = 0.0,
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> Tensor:
    """Pictures [B, H, W, 3 or 4] in 0..1 and beats (seconds, growing) -> a video [T, H, W, 3].

    The video has `frames` pictures, 0: up to the last beat. What is made of it begins at `start` (seconds)
    and lasts at most `max_seconds`, 0: to the end. Cuts are counted from the beginning of the song, so that
    parts made one by one are the whole.

    Another picture comes at the first beat and at each `every`th after it, in the first frame whose middle
    is not before that beat; a cut within half a beat of the beginning is left out. Without beats there
    is one every half second. `pulse` 0..1 is a zoom of up to a quarter that jumps
    at each beat and decays. `clip_length` pictures in a row are one clip, which plays back and forth.
    Raises UserError, also for more than 4 GB of pictures, and Cancelled.
    """
    _check(pictures, fps, frames, every, order, pulse, clip_length)
    times = torch.tensor(beats, dtype=torch.float64)
    frames = frames or _last_frame(beats, fps)
    made = part_of(frames, fps, start, max_seconds)
    height, width = pictures.shape[1:3]
    check_memory(made.stop - made.start, height, width, _ADVICE)
    if not len(times):
        times = torch.arange(math.ceil(frames / fps / EVEN_BEAT)) * EVEN_BEAT
    cuts = _frames_of(_cuts(times, every), fps)
    seen = _pictures_seen(len(pictures), frames, cuts, order, seed, clip_length)[made]
    zoom = 1 + _MOST_ZOOM * pulse * _since_beat(frames, times, fps)[made].div(-_DECAY).exp()
    grid = _grid(height, width)
    output = torch.empty(len(seen), height, width, 3)
    block = max(1, min(_BLOCK, _BLOCK_BYTES // (height * width * 3 * 4)))
    for first in range(0, len(seen), block):
        check_cancelled(cancelled)
        part = slice(first, first + block)
        chosen = pictures[seen[part].to(pictures.device)][..., :3].to("cpu", torch.float32)
        output[part] = _zoomed(chosen, zoom[part], grid)
        on_progress(Progress(_STAGE, min(first + block, len(seen)), len(seen)))
    return output


def _check(
    pictures: Tensor, fps: float, frames: int, every: int, order: str, pulse: float, clip_length: int
) -> None:
    if pictures.dim() != 4 or pictures.shape[3] not in (3, 4) or not pictures.is_floating_point():
        raise UserError(
            f"pictures are {pictures.dtype} {list(pictures.shape)}; they must be float [pictures, height,"
            " width, 3]"
        )
    if 0 in pictures.shape:
        raise UserError("there are no pictures; connect at least one")
    if not SLOWEST_FPS <= fps <= FASTEST_FPS:
        raise UserError(f"fps is {fps}; choose {SLOWEST_FPS:g} to {FASTEST_FPS:g} pictures per second")
    if order not in ORDERS:
        raise UserError(f"the order '{order[:40]}' is unknown; choose one of {', '.join(ORDERS)}")
    if not 0 <= pulse <= 1:
        raise UserError(f"pulse is {pulse}; choose 0 (still) to 1 (strong)")
    for name, value, least in (("frames", frames, 0), ("every", every, 1), ("clip_length", clip_length, 1)):
        if value < least:
            raise UserError(f"{name} is {value}; choose {least} or more")


def _last_frame(beats: Sequence[float], fps: float) -> int:
    """Frames before the last beat. Raises UserError where there is none."""
    frames = int(_frames_of(torch.tensor(beats[-1:]), fps).sum())
    if frames < 1:
        raise UserError(
            f"there are {len(beats)} beats and frames is 0; connect the output frames of Analyze Song"
        )
    return frames


def _frames_of(times: Tensor, fps: float) -> Tensor:
    """Times in seconds -> the first frames whose middle is not before them, int64."""
    return (times.double() * fps - 0.5).ceil().long().clamp(min=0)


def _cuts(beats: Tensor, every: int) -> Tensor:
    """Times of the cuts: the first beat, unless the video has hardly begun, and each `every`th after it."""
    cuts = beats[::every]
    half = float(beats[1] - beats[0]) / 2 if len(beats) > 1 else 0.0
    return cuts[1:] if cuts[0] <= half else cuts


def _pictures_seen(count: int, frames: int, cuts: Tensor, order: str, seed: int, clip_length: int) -> Tensor:
    """[T] int64: which of `count` pictures each of `frames` shows; `cuts` are frames."""
    begins = torch.cat([torch.zeros(1, dtype=torch.long), cuts]).unique()
    numbers = torch.arange(frames)
    shots = torch.searchsorted(begins, numbers, right=True) - 1
    clips, total = math.ceil(count / clip_length), int(shots[-1]) + 1
    chosen = _shuffled(clips, total, check_seed(seed)) if order == SHUFFLED else torch.arange(total) % clips
    first = chosen[shots] * clip_length
    length = (count - first).clamp(max=clip_length)  # the last clip may be shorter
    there_and_back = (2 * length - 2).clamp(min=1)
    step = (numbers - begins[shots]) % there_and_back
    return first + torch.minimum(step, there_and_back - step)


def _shuffled(clips: int, shots: int, seed: int) -> Tensor:
    """[shots]: every clip once in each round of `clips`, in another order, none twice in a row."""
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < shots:
        following = torch.randperm(clips, generator=generator).tolist()
        if order and following[0] == order[-1]:
            following = following[1:] + following[:1]
        order += following
    return torch.tensor(order[:shots])


def _since_beat(frames: int, beats: Tensor, fps: float) -> Tensor:
    """[T]: seconds from the last beat to the middle of each frame, infinite before the first one."""
    number = torch.searchsorted(_frames_of(beats, fps), torch.arange(frames), right=True) - 1
    since = (frame_centres(frames, fps) - beats[number.clamp(min=0)]).clamp(min=0)
    return torch.where(number >= 0, since, torch.inf)


def _grid(height: int, width: int) -> Tensor:
    """[H, W, 2]: x and y of the middles of pixels, -1 to 1 from edge to edge."""
    y, x = ((2 * torch.arange(side) + 1) / side - 1 for side in (height, width))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def _zoomed(pictures: Tensor, zoom: Tensor, grid: Tensor) -> Tensor:
    """[T, H, W, 3] and zoom [T] >= 1 around the middle -> the same shape. What hardly moves is copied."""
    moving = (zoom - 1) * max(pictures.shape[1:3]) > 1  # half a pixel at the edge
    if moving.any():
        places = grid / zoom[moving].float()[:, None, None, None]
        channels_first = pictures[moving].movedim(3, 1)  # [T, 3, H, W]
        larger = grid_sample(channels_first, places, align_corners=False)
        pictures[moving] = larger.clamp_(0, 1).movedim(1, 3)  # rounding may pass 1
    return pictures
