"""The language model: prefill time and decoding steps per second, beside what the memory allows.

Every step reads all weights and the whole KV cache once, so the ceiling is the memory's bandwidth divided by
those bytes. Measured is `generate` itself with random weights; the KV cache is filled up to `--position`, so
that the steps are those from the middle of a song.

    python -m benchmarks.lm_decode --size large --dtype bfloat16 --steps 20
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from songgen_core.configs import FRAME_RATE, VARIANTS, LeLMConfig
from songgen_core.devices import choose_device, choose_dtype
from songgen_core.generation.autoregressive import decode_one_frame, generate, prefill
from songgen_core.generation.delay import DelayedStreams
from songgen_core.layers.kv_cache import KVCache
from songgen_core.models.lelm import Conditions, LeLM, LMCache
from songgen_core.selftest import LM_CONFIG
from songgen_core.writing import default_sampling

from . import common

DecodeStep = Callable[[LeLM, Tensor, LMCache], Tensor]
ROWS = 2  # conditional and unconditional


@dataclass(frozen=True)
class Plan:
    """Which steps of which song are measured."""

    num_frames: int
    position: int  # columns written before the first step
    warmup: int
    steps: int
    device: torch.device
    dtype: torch.dtype


@dataclass
class Timing:
    """Seconds of one run."""

    first_column: float  # prefill and the first draw
    steps: list[float]  # whole steps of `generate`
    network: list[float]  # of as many further steps, the network's part
    sampling: list[float]  # and the rest: guidance, penalty, draw, bookkeeping


@dataclass
class ProbedStep:
    """A decode step that moves the cache to `position` once, and times the network alone on request."""

    step: DecodeStep
    position: int
    device: torch.device
    alone: bool = False
    seconds: list[float] = field(default_factory=list)

    def __call__(self, lm: LeLM, column: Tensor, cache: LMCache) -> Tensor:
        for kv in cache:
            grow(kv, lm.config.prefix_length + self.position)
        if not self.alone:
            return self.step(lm, column, cache)
        start = common.now(self.device)
        logits = self.step(lm, column, cache)
        self.seconds.append(common.now(self.device) - start)
        assert logits.isfinite().all(), "the random model overflows"
        return logits


def grow(kv: KVCache, length: int) -> None:
    """Fill the cache up to `length` positions by repeating what it holds."""
    known = kv.length
    if known >= length:
        return
    for block in (*kv.keys, *kv.values):
        for begin in range(known, length, known):
            width = min(known, length - begin)
            block[:, :, begin : begin + width] = block[:, :, :width]
    kv.length = length


def move(streams: DelayedStreams, position: int) -> None:
    """Pretend that `position` columns of random codes are written."""
    codes = torch.randint(0, streams.eos_id, streams.sequence[:, 1 : position + 1].shape)
    streams.sequence[:, 1 : position + 1] = codes
    streams.written = position


@torch.inference_mode()
def run(lm: LeLM, conditions: Conditions, plan: Plan, step: DecodeStep = decode_one_frame) -> Timing:
    """One song: first column, jump to the position, warm-up, steps; then steps with the network timed."""
    probe = ProbedStep(step, plan.position, plan.device)
    stamps = []
    start = common.now(plan.device)
    for streams in generate(
        lm,
        conditions,
        plan.num_frames,
        default_sampling(lm.config),
        dtype=plan.dtype,
        device=plan.device,
        generator=torch.Generator().manual_seed(0),
        decode_step=probe,
    ):
        stamps.append(time.perf_counter())  # every column was read back: the device is done
        if len(stamps) == 1:
            move(streams, plan.position)
        probe.alone = len(stamps) > plan.warmup + plan.steps
        if len(stamps) > plan.warmup + 2 * plan.steps:
            break
    steps = [after - before for before, after in pairwise(stamps)][plan.warmup :]
    whole, split = steps[: plan.steps], steps[plan.steps :]
    return Timing(stamps[0] - start, whole, probe.seconds, [s - n for s, n in zip(split, probe.seconds)])


def make_lm(config: LeLMConfig, device: torch.device, dtype: torch.dtype) -> tuple[LeLM, int]:
    """A random language model, and the FLOP of its prefill."""
    with torch.device("meta"):
        lm = LeLM(config)
    flops = count_prefill(lm)
    common.fill(lm.to(dtype), device)
    with torch.no_grad():
        for weight in lm.heads.parameters():
            weight[config.eos_id] = 0  # the median of the logits: never drawn
    return lm, flops


def count_prefill(lm: LeLM) -> int:
    meta = torch.device("meta")
    cache = lm.make_cache(ROWS, lm.config.prefix_length + 1, torch.float32, meta)
    column = torch.zeros(lm.config.num_codebooks, dtype=torch.int64, device=meta)
    return common.count_flops(lambda: prefill(lm, random_conditions(lm.config).to(meta), column, cache))


def random_conditions(config: LeLMConfig) -> Conditions:
    def ids(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, (ROWS, *shape))

    return Conditions(
        lyrics=ids(config.lyrics_vocab_size, config.lyrics_length),
        structure=ids(14, config.lyrics_length),
        description=ids(config.description_vocab_size, config.description_length),
        prompt=ids(config.codebook_size, config.num_codebooks, config.prompt_length - 1),
    )


def size_in_bytes(*modules: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for module in modules for p in module.parameters())


def bytes_per_step(lm: LeLM, positions: int, itemsize: int) -> dict[str, int]:
    """What one step must read; of the embedding tables it touches a few rows, which do not count."""
    layers = lm.config.num_hidden_layers + lm.config.num_hidden_layers_sub
    weights = size_in_bytes(lm.main, lm.bridge, lm.sub, lm.heads)
    cache = 2 * ROWS * positions * lm.config.hidden_size * layers * itemsize  # keys and values
    return {"weight_bytes": weights, "kv_bytes": cache, "bytes_per_step": weights + cache}


def measured(timings: list[Timing]) -> dict[str, float]:
    """The quickest run of each part, in milliseconds and steps per second."""
    step = min(sum(t.steps) / len(t.steps) for t in timings)
    return {
        "prefill_ms": 1000 * min(t.first_column for t in timings),
        "step_ms": 1000 * step,
        "step_ms_median": 1000 * min(median(t.steps) for t in timings),
        "network_ms": 1000 * min(median(t.network) for t in timings),
        "sampling_ms": 1000 * min(median(t.sampling) for t in timings),
        "steps_per_second": 1 / step,
    }


def against_ceiling(result: dict[str, Any], prefill_flops: int) -> dict[str, float]:
    """Steps that the memory could feed and the prefill that the arithmetic allows, and how close we come."""
    bandwidth = max(result["bandwidth_copy"], result["bandwidth_read"])
    steps = bandwidth / result["bytes_per_step"]
    prefill_ms = 1000 * prefill_flops / result[f"matmul_{result['dtype']}"]
    return {
        "ceiling_steps_per_second": steps,
        "achieved_share": result["steps_per_second"] / steps,
        "prefill_flops": prefill_flops,
        "ceiling_prefill_ms": prefill_ms,
        "prefill_share": prefill_ms / result["prefill_ms"],
    }


def song_estimate(config: LeLMConfig, plan: Plan, speed: dict[str, float]) -> dict[str, float]:
    """A whole song of `num_frames`, at the measured speed all along; above 1 is faster than it plays."""
    passes = plan.num_frames + max(config.delays)
    seconds = speed["prefill_ms"] / 1000 + passes / speed["steps_per_second"]
    song = plan.num_frames / FRAME_RATE
    return {
        "song_seconds": song,
        "passes": passes,
        "compute_seconds": seconds,
        "realtime_factor": song / seconds,
    }


def rows(result: dict[str, Any]) -> dict[str, str]:
    r = result
    return {
        "model": f"{r['size']}, {r['parameters'] / 1e9:.3f}e9 parameters, {r['dtype']} on {r['device']}",
        "prefill": f"{r['prefill_ms']:.1f} ms",
        "prefill ceiling": f"{r['ceiling_prefill_ms']:.1f} ms, {r['prefill_share']:.0%} reached",
        "decoding": f"{r['steps_per_second']:.2f} steps/s at {r['kv_positions']} positions",
        "decoding ceiling": f"{r['ceiling_steps_per_second']:.2f} steps/s, {r['achieved_share']:.0%} reached",
        "one step": f"{r['step_ms']:.2f} ms: network {r['network_ms']:.2f}, sampling {r['sampling_ms']:.2f}",
        "step reads": f"{r['weight_bytes'] / 1e9:.3f} GB weights + {r['kv_bytes'] / 1e9:.3f} GB KV cache",
        "bandwidth": f"copy {r['bandwidth_copy'] / 1e9:.1f} GB/s, read {r['bandwidth_read'] / 1e9:.1f} GB/s",
        "matrix product": f"{r['matmul_' + r['dtype']] / 1e12:.3f} TFLOP/s in {r['dtype']}",
        "whole song": f"{r['song_seconds']:.0f} s in {r['compute_seconds']:.0f} s, "
        f"{r['realtime_factor']:.3f} of real time",
        "peak memory": f"{r['peak_memory_bytes'] / 2**30:.2f} GiB",
        "load": f"{r['load_average']} at the start",
    }


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__ or "", ["tiny", *VARIANTS])
    parser.add_argument("--steps", type=common.positive, default=32, help="measured steps per run")
    parser.add_argument("--warmup", type=common.positive, default=4, help="steps before the measured ones")
    parser.add_argument("--position", type=common.positive, help="columns written before; default mid-song")
    parser.add_argument("--song-seconds", type=float, help="default: 270, or the model's limit if less")
    return parser.parse_args()


def make_plan(args: argparse.Namespace, config: LeLMConfig) -> Plan:
    """Raises SystemExit on a position behind the end of the song."""
    device = choose_device(args.device)
    num_frames = int((args.song_seconds or min(270.0, config.max_duration)) * FRAME_RATE)
    position = args.position or num_frames // 2
    last = position + args.warmup + 2 * args.steps
    if last >= num_frames + max(config.delays):
        raise SystemExit(f"column {last} is behind the end of a song of {num_frames} frames")
    return Plan(num_frames, position, args.warmup, args.steps, device, choose_dtype(device, args.dtype))


def main() -> None:
    args = arguments()
    config = LM_CONFIG if args.size == "tiny" else VARIANTS[args.size].lm
    plan, origin = make_plan(args, config), common.provenance()
    torch.manual_seed(0)
    lm, prefill_flops = make_lm(config, plan.device, plan.dtype)
    positions = config.prefix_length + plan.position + plan.warmup + plan.steps // 2
    result: dict[str, Any] = {
        "benchmark": "lm_decode",
        "size": args.size,
        "device": str(plan.device),
        "dtype": common.name_of(plan.dtype),
        "position": plan.position,
        "steps": plan.steps,
        "repeats": args.repeats,
        "kv_positions": positions,
        "parameters": sum(p.numel() for p in lm.parameters()),
        **bytes_per_step(lm, positions, plan.dtype.itemsize),
    }
    conditions, timings, rates = random_conditions(config), [], []
    for _ in range(args.repeats):
        timings.append(run(lm, conditions, plan))
        result.setdefault("peak_memory_bytes", common.peak_memory(plan.device))
        rates.append(common.measure_rates(plan.device, plan.dtype))
    result |= measured(timings) | common.best_rates(rates)
    result |= against_ceiling(result, prefill_flops)
    result |= song_estimate(config, plan, result) | origin
    common.report(rows(result), result | {"hardware": common.machine(plan.device)})


if __name__ == "__main__":
    main()
