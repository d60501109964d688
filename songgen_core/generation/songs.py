"""Several songs in one go: what a loop that writes songs gets and gives.

Letters: K streams, S columns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..models.lelm import Conditions, LeLM
from .autoregressive import generate
from .delay import DelayedStreams
from .sampling import SamplingOptions


@dataclass(frozen=True)
class SongTask:
    """One song to be written.

    conditions: two rows (conditional, unconditional). num_frames: the longest it may get. banned [n] int64:
    codes that stream 0 must not use. generator: on the CPU, this song's own.
    """

    conditions: Conditions
    num_frames: int
    generator: torch.Generator
    banned: Tensor | None = None


class SongLoop(Protocol):
    """Writes songs; yields all of them as they grow, the same list every time.

    A loop may write them one after the other or side by side. A song gets the same codes either way, up to
    rounding. Raises UserError when the network overflows.
    """

    def __call__(
        self,
        lm: LeLM,
        tasks: Sequence[SongTask],
        options: SamplingOptions,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Iterator[list[DelayedStreams]]: ...


def one_by_one(
    lm: LeLM,
    tasks: Sequence[SongTask],
    options: SamplingOptions,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[list[DelayedStreams]]:
    """The reference: each song by itself."""
    songs = [empty_streams(lm, task) for task in tasks]
    for number, task in enumerate(tasks):
        for streams in generate(
            lm,
            task.conditions,
            task.num_frames,
            options,
            banned=task.banned,
            dtype=dtype,
            device=device,
            generator=task.generator,
        ):
            songs[number] = streams
            yield songs


def in_groups(loop: SongLoop, size: int) -> SongLoop:
    """`loop`, for at most `size` songs at a time."""

    def write(
        lm: LeLM,
        tasks: Sequence[SongTask],
        options: SamplingOptions,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Iterator[list[DelayedStreams]]:
        songs = [empty_streams(lm, task) for task in tasks]
        for begin in range(0, len(tasks), size):
            group = slice(begin, begin + size)
            for written in loop(lm, tasks[group], options, dtype=dtype, device=device):
                songs[group] = written
                yield songs

    return write


def empty_streams(lm: LeLM, task: SongTask) -> DelayedStreams:
    """A song of which nothing is written."""
    return DelayedStreams(task.num_frames, lm.config.delays, lm.config.eos_id, lm.config.special_id)
