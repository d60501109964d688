"""Ways to run decoding steps: one by one, or as CUDA graphs with the device running ahead of the host.

Letters: B songs, K streams, V logits.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
from torch import Tensor

from .batch import SongBatch
from .caches import AnyCache, Position, TransposedCache

log = logging.getLogger("songgen")

Step = Callable[[Tensor | None], None]  # one column with this noise [B, K, V]
DrawNoise = Callable[[], Tensor]  # [B, K, V] on the CPU
Columns = Iterator[
    tuple[Tensor, Tensor]
]  # new columns [B, K, n]; [B] bool, whether a NaN came up; on the CPU

_EXTENT_UNIT = 1024  # positions by which the part of the cache that is read grows


def run_stepwise(
    step: Step,
    batch: SongBatch,
    at: Position,
    caches: Sequence[AnyCache],
    draw: DrawNoise | None,
    steps_per_check: int,
) -> Columns:
    """Step by step; what was written is looked at after each on the CPU, else after every few."""
    device, last = batch.sequence.device, batch.sequence.shape[-1] - 1
    count = 1 if device.type == "cpu" else steps_per_check
    written = seen = 1
    yield _look(batch, 0, 1)
    while written < last:
        at.number += 1
        set_extent(caches, at.number)
        step(None if draw is None else draw().to(device))
        written += 1
        if written - seen >= count or written == last:
            yield _look(batch, seen, written)
            seen = written


def run_graphed(
    step: Step,
    batch: SongBatch,
    at: Position,
    caches: Sequence[AnyCache],
    draw: DrawNoise | None,
    steps_per_check: int,
) -> Columns:
    """Steps as CUDA graphs, one graph per extent of the cache (one in all with the attention kernel).

    While the device works on a block of steps, the host draws the noise of the next one and looks at the
    columns of the one before.
    """
    device, last = batch.sequence.device, batch.sequence.shape[-1] - 1
    noise = None if draw is None else torch.empty(batch.noise_shape, device=device)
    graphs = StepGraphs(step, batch, at, noise)
    yield _look(batch, 0, 1)
    written, pending = 1, None
    with ThreadPoolExecutor(1) as drawer:
        blocks = _noise_blocks(drawer, draw, steps_per_check, last - written)
        while written < last:
            block = next(blocks)
            count = min(steps_per_check, last - written)
            for number in range(count):
                at.number += 1
                extent = set_extent(caches, at.number)
                if noise is not None and block is not None:
                    noise.copy_(block[number], non_blocking=True)
                graphs.run(extent)
            ahead = _Glance(batch, written, written + count)
            written += count
            if pending is not None:
                yield pending.result()
            pending = ahead
        if pending is not None:
            yield pending.result()


def set_extent(caches: Sequence[AnyCache], position: int) -> int:
    """Let the caches that read a fixed part of themselves read as little as `position` needs.

    Returns that part in positions; 0 where it makes no difference.
    """
    extent = 0
    for cache in caches:
        if not isinstance(cache, TransposedCache) and cache.kernel is None:
            wanted = -(-(position + 1) // _EXTENT_UNIT) * _EXTENT_UNIT
            extent = cache.extent = min(wanted, cache.max_seq_len)
    return extent


class StepGraphs:
    """A step, captured once per extent. Where that fails it runs without a graph, and the log says so."""

    def __init__(self, step: Step, batch: SongBatch, at: Position, noise: Tensor | None) -> None:
        self.step, self.noise = step, noise
        self.state = (at.index, batch.written, batch.ended, batch.overflowed, batch.sequence)
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.works = True

    def run(self, extent: int) -> None:
        if self.works and extent not in self.graphs:
            self._capture(extent)
        if self.works:
            self.graphs[extent].replay()
        else:
            self.step(self.noise)

    def _capture(self, extent: int) -> None:
        """Warm up on a side stream, as capturing demands, and put everything back that this changed."""
        home, side = torch.cuda.current_stream(), _side_stream(torch.cuda.current_device())
        before = [t.clone() for t in self.state]
        try:
            self._warm_up(home, side, before)
            graph = torch.cuda.CUDAGraph()
            pool = next(iter(self.graphs.values())).pool() if self.graphs else None
            # thread_local: the thread that draws noise may pin memory meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                self.step(self.noise)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            log.warning("fast engine: cuda_graph is off, a step could not be captured (%s)", error)
            self.works = False
            torch.cuda.synchronize()
            self._put_back(before)
        else:
            self.graphs[extent] = graph
        finally:
            torch.cuda.set_stream(home)  # a capture that fails leaves its own stream behind

    def _warm_up(self, home: torch.cuda.Stream, side: torch.cuda.Stream, before: Sequence[Tensor]) -> None:
        side.wait_stream(home)
        try:
            with torch.cuda.stream(side):
                for _ in range(2):
                    self.step(self.noise)
                    self._put_back(before)
        finally:
            home.wait_stream(side)  # also when a stop ends it: others may get this memory next

    def _put_back(self, before: Sequence[Tensor]) -> None:
        for tensor, old in zip(self.state, before):
            tensor.copy_(old)


@lru_cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """One for all captures: libraries keep a workspace for every stream that they have seen."""
    return torch.cuda.Stream(device)


class _Glance:
    """Columns on their way to the host."""

    def __init__(self, batch: SongBatch, begin: int, end: int) -> None:
        columns = batch.sequence[:, :, begin + 1 : end + 1]
        self.columns = torch.empty(columns.shape, dtype=columns.dtype, pin_memory=True)
        self.overflowed = torch.empty(batch.overflowed.shape, dtype=torch.bool, pin_memory=True)
        self.columns.copy_(columns, non_blocking=True)
        self.overflowed.copy_(batch.overflowed, non_blocking=True)
        self.event = torch.cuda.Event()
        self.event.record()

    def result(self) -> tuple[Tensor, Tensor]:
        self.event.synchronize()
        return self.columns, self.overflowed


def _look(batch: SongBatch, begin: int, end: int) -> tuple[Tensor, Tensor]:
    """Columns behind `begin` up to `end`, at once."""
    return batch.sequence[:, :, begin + 1 : end + 1].cpu(), batch.overflowed.cpu()


def _noise_blocks(
    drawer: ThreadPoolExecutor, draw: DrawNoise | None, size: int, total: int
) -> Iterator[Tensor | None]:
    """Noise of `total` columns, [<= size, B, K, V] at a time, drawn one block ahead in pinned memory."""
    counts = [size] * (total // size) + ([total % size] if total % size else [])
    if draw is None:
        yield from (None for _ in counts)
        return
    wanted = iter(counts)

    def block(count: int) -> Tensor:
        # Each block is memory of its own: torch keeps pinned memory until copies from it are done.
        return torch.stack([draw() for _ in range(count)]).pin_memory()

    ahead = drawer.submit(block, next(wanted))
    for count in wanted:
        drawn = ahead.result()
        ahead = drawer.submit(block, count)
        yield drawn
    yield ahead.result()
