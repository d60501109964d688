"""The fast loop that writes songs: several at a time, column by column, on fixed buffers.

Draws the same noise as the reference from the same seed, so that it writes the same songs up to rounding.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial

import torch
from torch import Tensor

from ..devices import free_memory, free_on
from ..errors import UserError
from ..generation.delay import DelayedStreams
from ..generation.sampling import SamplingOptions
from ..generation.songs import SongTask, empty_streams, in_groups
from ..layers.llama import LlamaStack
from ..models.lelm import Conditions, LeLM
from .batch import SongBatch, draw_noise
from .caches import AnyCache, EightBitCache, FixedCache, Kernel, Position, TransposedCache
from .compiling import can_compile, compiled
from .decoder import FastLM, Network
from .options import FastOptions
from .projections import Projector, can_pack
from .runners import Columns, DrawNoise, run_graphed, run_stepwise

log = logging.getLogger("songgen")

_ALIGNMENT = 64  # positions; masked attention on a card wants lengths that divide by 8
_SHARE_FOR_CACHES = 0.6  # of the free memory
_SPARE_MEMORY = 4 << 30  # bytes that the host keeps free


def write_together(
    lm: LeLM,
    tasks: Sequence[SongTask],
    sampling: SamplingOptions,
    *,
    dtype: torch.dtype,
    device: torch.device,
    options: FastOptions = FastOptions(),
) -> Iterator[list[DelayedStreams]]:
    """`SongLoop` that writes up to `options.songs_at_once` songs per pass, as many as there is memory for."""
    count = min(options.songs_at_once, songs_that_fit(lm, tasks, dtype, device, options))
    loop = in_groups(partial(_write_group, fast=options), count)
    return loop(lm, tasks, sampling, dtype=dtype, device=device)


@torch.inference_mode()
def _write_group(
    lm: LeLM,
    tasks: Sequence[SongTask],
    sampling: SamplingOptions,
    *,
    dtype: torch.dtype,
    device: torch.device,
    fast: FastOptions,
) -> Iterator[list[DelayedStreams]]:
    """All `tasks` in one pass; yields after every column, or every few where the device runs ahead."""
    songs = [empty_streams(lm, task) for task in tasks]
    with closing(DecodingSession(lm, tasks, sampling, dtype, device, fast)) as session:
        session.prefill()
        for columns, overflowed in session.run():
            for song, tokens, is_bad in zip(songs, columns, overflowed.tolist()):
                if is_bad and not (song.written and song.done):
                    raise UserError(f"the model overflowed in {dtype}; choose bfloat16 or float32")
                for column in tokens.unbind(-1):
                    if not (song.written and song.done):
                        song.write(column)
            yield songs
            if all(song.done for song in songs):
                return


class DecodingSession:
    """Everything that one pass over B songs needs: network, caches, sequences, noise."""

    def __init__(
        self,
        lm: LeLM,
        tasks: Sequence[SongTask],
        sampling: SamplingOptions,
        dtype: torch.dtype,
        device: torch.device,
        options: FastOptions,
    ) -> None:
        config, rows = lm.config, 2 * len(tasks)
        max_seq_len = config.max_seq_len(max(task.num_frames for task in tasks))
        self.dtype, self.device, self.options = dtype, device, options
        self.conditions = _both_rows(tasks).to(device)
        self.caches = make_caches(lm, rows, max_seq_len, dtype, device, options)
        reserved = sum(cache.nbytes for cache in self.caches)  # taken as the song grows
        self.batch = SongBatch(tasks, config, sampling, device)
        self.projector = make_projector(lm, rows, dtype, device, options, reserved)
        try:
            self.lm = FastLM(lm, self.projector, self.caches, max_seq_len, dtype)
        except BaseException:
            self.projector.close()
            raise
        self.at = Position(config.prefix_length, torch.tensor([config.prefix_length], device=device))
        self.draw: DrawNoise | None = None
        if self.batch.draws:
            self.draw = partial(draw_noise, [t.generator for t in tasks], self.batch.noise_shape[1:])
        # Compiled code may run again after a failure, which is safe: a step writes one place of the caches.
        compiles = options.compile and can_compile(True, device)
        self._network: Network = compiled(self.lm.step) if compiles else self.lm.step

    def prefill(self) -> None:
        """Run the prefix and write the first column."""
        logits = self.lm.prefill(self.conditions, self.dtype)
        self.batch.write(logits, None if self.draw is None else self.draw().to(self.device))

    def step(self, noise: Tensor | None) -> None:
        """One column more, with noise [B, K, V] on the device; moves all but `at.number`."""
        self.at.index.add_(1)
        self.batch.write(self._network(self.batch.columns(), self.at), noise)

    def close(self) -> None:
        """Leave the network as it was found."""
        self.projector.close()

    def run(self) -> Columns:
        """All columns to the end, those of the prefill included."""
        graphed = self.options.cuda_graph and self.device.type == "cuda"
        run = run_graphed if graphed else run_stepwise
        return run(self.step, self.batch, self.at, self.caches, self.draw, self.options.steps_per_check)


def _both_rows(tasks: Sequence[SongTask]) -> Conditions:
    """All conditional rows, then all unconditional ones."""
    halves = [[t[:1] for t in task.conditions] for task in tasks] + [
        [t[1:] for t in task.conditions] for task in tasks
    ]
    return Conditions(*(torch.cat(rows) for rows in zip(*halves)))


def make_caches(
    lm: LeLM, rows: int, max_seq_len: int, dtype: torch.dtype, device: torch.device, options: FastOptions
) -> tuple[AnyCache, AnyCache]:
    """Caches of the main and the sub transformer, in the layout and precision that suit the device."""

    stored = kv_dtype(dtype, device, options)
    if options.kv == "auto" and device.type == "cpu" and stored != dtype:
        stored = stored if _wide_cache_fits(lm, rows, max_seq_len) else dtype
    length = -(-max_seq_len // _ALIGNMENT) * _ALIGNMENT

    def make(stack: LlamaStack) -> AnyCache:
        shape, layers = (rows, stack.num_heads, length, stack.head_dim), len(stack.layers)
        if options.kv != "int8" and not fixed_shapes(device, options):
            return TransposedCache(layers, shape, stored, device)
        kernel = attention_kernel(stack.head_dim, dtype, device, options)
        if options.kv == "int8":
            return EightBitCache(layers, shape, device, kernel)
        return FixedCache(layers, shape, stored, device, kernel)

    return make(lm.main), make(lm.sub)


def songs_that_fit(
    lm: LeLM, tasks: Sequence[SongTask], dtype: torch.dtype, device: torch.device, options: FastOptions
) -> int:
    """How many of `tasks` can be written at a time, one at least; the log says if not all."""
    free = free_memory() if device.type == "cpu" else free_on(device)
    if free is None:
        return len(tasks)
    positions = lm.config.max_seq_len(max(task.num_frames for task in tasks))
    width = 1 if options.kv == "int8" else kv_dtype(dtype, device, options).itemsize
    each = _cache_bytes(lm, 2, positions, width)
    count = max(1, min(len(tasks), int(free * _SHARE_FOR_CACHES / each)))
    if count < len(tasks):
        log.info("fast engine: %d songs at a time, %.1f GB of memory are free", count, free / 1e9)
    return count


def _cache_bytes(lm: LeLM, rows: int, positions: int, itemsize: int) -> int:
    layers = lm.config.num_hidden_layers + lm.config.num_hidden_layers_sub
    return 2 * rows * layers * lm.config.hidden_size * positions * itemsize  # keys and values


def _wide_cache_fits(lm: LeLM, rows: int, max_seq_len: int) -> bool:
    """Whether a float32 cache leaves memory for other things; says so in the log if not."""
    needed = _cache_bytes(lm, rows, max_seq_len, torch.float32.itemsize)
    free = free_memory()
    if free is None or needed <= free * _SHARE_FOR_CACHES:
        return True
    log.info("fast engine: the KV cache is narrow, %.1f GB of memory are free", free / 1e9)
    return False


def attention_kernel(
    width: int, dtype: torch.dtype, device: torch.device, options: FastOptions
) -> Kernel | None:
    """The Triton kernel, or None where torch's attention is wanted or the kernel cannot run."""
    if options.attention == "torch" or (options.attention == "auto" and device.type != "cuda"):
        return None
    try:
        from . import decode_attention
    except ImportError:
        log.info("fast engine: attention kernel is off, triton is not installed (pip install triton)")
        return None
    return decode_attention.decode_attention if decode_attention.works_here(width, dtype, device) else None


def fixed_shapes(device: torch.device, options: FastOptions) -> bool:
    if options.fixed_shapes is not None:
        return options.fixed_shapes
    return options.compile or device.type == "cuda"


def kv_dtype(dtype: torch.dtype, device: torch.device, options: FastOptions) -> torch.dtype:
    """What keys and values are stored in."""
    if options.kv == "float32" or (options.kv == "auto" and device.type == "cpu"):
        return torch.float32
    return dtype


def make_projector(
    lm: LeLM,
    rows: int,
    dtype: torch.dtype,
    device: torch.device,
    options: FastOptions,
    reserved: int = 0,
) -> Projector:
    """What makes products of layers that share an input; `reserved` bytes of memory belong to others."""
    packing = options.pack and not options.compile and can_pack(dtype, device)
    pack = _room_to_pack(lm, reserved) if packing else 0
    # On the CPU plain weights may still lie in the file; making them one would copy them.
    return Projector(rows, pack=pack, fuse=options.fuse and device.type != "cpu", join=options.fuse)


def _room_to_pack(lm: LeLM, reserved: int) -> int:
    """Bytes of weights of which a second copy fits into memory; the log says so if not all do."""
    wanted = sum(p.nbytes for part in (lm.main, lm.sub, lm.bridge, lm.heads) for p in part.parameters())
    free = free_memory()
    room = 0 if free is None else max(0, free - reserved - _SPARE_MEMORY)
    if room < wanted:
        known = "unknown" if free is None else f"{free / 1e9:.1f} GB"
        log.info(
            "fast engine: pack is %s, it needs %.1f GB of memory beside the KV cache; free: %s",
            "on for a part" if room else "off",
            wanted / 1e9,
            known,
        )
    return room
