"""The language model, reference and fast engine in turn: steps per second beside what the memory allows.

A step reads all weights and the KV cache of every row once, so the floor of its time is those bytes divided
by the memory's bandwidth. Both loops are measured in the middle of a song of random weights (`--position`),
one after the other, `--repeats` times; the quickest of each counts. `--songs` writes several songs in one
pass, `--off` turns switches of the engine off, `--kv` and `--weights` choose narrower types.

    python -m benchmarks.lm_fast --size large --dtype float16
    python -m benchmarks.lm_fast --size large --dtype float16 --songs 8 --off cuda_graph
"""

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from songgen_core.configs import FRAME_RATE, VARIANTS
from songgen_core.engine import WEIGHTS
from songgen_core.fast.caches import TransposedCache
from songgen_core.fast.engine import FastEngine
from songgen_core.fast.options import ATTENTION_KINDS, KV_KINDS, FastOptions
from songgen_core.fast.runners import StepGraphs, set_extent
from songgen_core.fast.songs import DecodingSession
from songgen_core.generation.songs import SongTask
from songgen_core.models.lelm import Conditions, LeLM
from songgen_core.selftest import LM_CONFIG
from songgen_core.writing import default_sampling

from . import common, lm_decode

SWITCHES = ("fuse", "pack", "cuda_graph")


def make_tasks(lm: LeLM, songs: int, num_frames: int) -> list[SongTask]:
    """Takes of one song: equal conditions, seeds of their own."""
    conditions: Conditions = lm_decode.random_conditions(lm.config)
    return [SongTask(conditions, num_frames, torch.Generator().manual_seed(n)) for n in range(songs)]


@torch.inference_mode()
def time_fast(
    lm: LeLM, tasks: list[SongTask], options: FastOptions, plan: lm_decode.Plan
) -> tuple[float, float, list[float], int]:
    """Seconds to set up and of the prefill, of every step in the middle of the song, bytes of the caches."""
    start = common.now(plan.device)
    session = DecodingSession(lm, tasks, default_sampling(lm.config), plan.dtype, plan.device, options)
    ready = common.now(plan.device)
    session.prefill()
    prefilled = common.now(plan.device)
    move(session, plan.position)
    step = stepper(session)
    for _ in range(plan.warmup):
        step()
    seconds = []
    for _ in range(plan.steps):
        before = common.now(plan.device)
        step()
        seconds.append(common.now(plan.device) - before)
    assert not session.batch.overflowed.any(), "the random model overflows"
    return ready - start, prefilled - ready, seconds, sum(cache.nbytes for cache in session.caches)


def move(session: DecodingSession, position: int) -> None:
    """Pretend that `position` columns of random codes are written; the caches repeat the prefix."""
    batch, prefix = session.batch, session.at.number + 1
    written = batch.sequence[:, :, 1 : position + 1]
    written.copy_(torch.randint(0, batch.config.eos_id, written.shape))
    batch.written.fill_(position)
    session.at.number += position - 1
    session.at.index.fill_(session.at.number)
    for cache in session.caches:
        last = isinstance(cache, TransposedCache)
        blocks = cache.blocks if hasattr(cache, "blocks") else [*cache.keys, *cache.values]
        for block in [*blocks, *getattr(cache, "scales", [])]:
            places = block.movedim(-1, -2) if last else block
            for begin in range(prefix, session.at.number + 1, prefix):
                end = min(begin + prefix, session.at.number + 1)
                places[..., begin:end, :] = places[..., : end - begin, :]


def stepper(session: DecodingSession) -> Callable[[], None]:
    """One step as the engine runs it, the noise drawn and moved in between."""
    graphed = session.options.cuda_graph and session.device.type == "cuda"
    noise = torch.empty(session.batch.noise_shape, device=session.device)
    graphs = StepGraphs(session.step, session.batch, session.at, noise) if graphed else None
    ahead: Tensor = session.draw().pin_memory() if graphed and session.draw else noise

    def step() -> None:
        session.at.number += 1
        extent = set_extent(session.caches, session.at.number)
        if graphs is None:
            session.step(None if session.draw is None else session.draw().to(session.device))
        else:  # the engine draws in a thread of its own, so that drawing does not count
            noise.copy_(ahead, non_blocking=True)
            graphs.run(extent)

    return step


def floor_ms(result: dict[str, Any]) -> float:
    """Milliseconds that one step takes if the memory is the only limit."""
    return 1000 * result["bytes_per_step"] / max(result["bandwidth_copy"], result["bandwidth_read"])


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__ or "", ["tiny", *VARIANTS])
    parser.add_argument("--steps", type=common.positive, default=32, help="measured steps per run")
    parser.add_argument("--warmup", type=common.positive, default=4, help="steps before the measured ones")
    parser.add_argument("--position", type=common.positive, help="columns written before; default mid-song")
    parser.add_argument("--song-seconds", type=float, help="default: 270, or the model's limit if less")
    parser.add_argument("--songs", type=common.positive, default=1, help="takes written in one pass")
    parser.add_argument("--off", nargs="*", choices=SWITCHES, default=[], help="switches of the engine")
    parser.add_argument("--kv", choices=KV_KINDS, default="auto")
    parser.add_argument("--weights", choices=WEIGHTS, default=WEIGHTS[0])
    parser.add_argument("--attention", choices=ATTENTION_KINDS, default="auto")
    parser.add_argument("--compile", action="store_true", help="torch.compile for the step")
    parser.add_argument("--no-reference", action="store_true", help="where it does not fit or takes too long")
    return parser.parse_args()


def summary(seconds: list[float], songs: int) -> dict[str, float]:
    step = sum(seconds) / len(seconds)
    return {
        "step_ms": 1000 * step,
        "step_ms_median": 1000 * median(seconds),
        "steps_per_second": 1 / step,
        "song_steps_per_second": songs / step,
    }


def main() -> None:
    args = arguments()
    config = LM_CONFIG if args.size == "tiny" else VARIANTS[args.size].lm
    plan, origin = lm_decode.make_plan(args, config), common.provenance()
    choices = {"kv": args.kv, "attention": args.attention, "compile": args.compile}
    options = FastOptions(**choices, **dict.fromkeys(args.off, False))
    torch.manual_seed(0)
    lm, _ = lm_decode.make_lm(config, plan.device, plan.dtype)
    positions = config.prefix_length + plan.position + plan.warmup + plan.steps // 2
    reads = lm_decode.bytes_per_step(lm, positions, plan.dtype.itemsize)
    tasks = make_tasks(lm, args.songs, plan.num_frames)
    reference, fast, setups, prefills, rates, cache_bytes = [], [], [], [], [], 0

    def measure_reference() -> None:
        if not args.no_reference:
            reference.append(lm_decode.run(lm, tasks[0].conditions, plan))

    if args.weights != WEIGHTS[0]:  # the reference of narrow weights is the model before they were narrowed
        measure_reference()
        FastEngine().narrow(lm, args.weights, lambda done, total: None)
        layers = (b for part in (lm.main, lm.sub) for b in part.buffers())
        reads["weight_bytes"] = lm_decode.size_in_bytes(lm.main, lm.bridge, lm.sub, lm.heads)
        reads["weight_bytes"] += sum(b.nbytes for b in layers)
    for _ in range(args.repeats):
        if args.weights == WEIGHTS[0]:
            measure_reference()
        setup, prefill, steps, cache_bytes = time_fast(lm, tasks, options, plan)
        fast.append(steps)
        setups.append(setup)
        prefills.append(prefill)
        rates.append(common.measure_rates(plan.device, plan.dtype))
    result: dict[str, Any] = {
        "benchmark": "lm_fast",
        "size": args.size,
        "device": str(plan.device),
        "dtype": common.name_of(plan.dtype),
        "songs": args.songs,
        "weights": args.weights,
        "repeats": args.repeats,
        "steps": args.steps,
        "off": args.off,
        **choices,
        "position": plan.position,
        "kv_positions": positions,
        "weight_bytes": reads["weight_bytes"],
        "kv_bytes": reads["kv_bytes"] * args.songs,
        "bytes_per_step": reads["weight_bytes"] + reads["kv_bytes"] * args.songs,
        "cache_bytes": cache_bytes,
        "setup_ms": 1000 * min(setups),
        "prefill_ms": 1000 * min(prefills),
        "fast": summary(min(fast, key=sum), args.songs),
        "reference": None,
        "peak_memory_bytes": common.peak_memory(plan.device),
        **common.best_rates(rates),
    }
    result["floor_ms"] = floor_ms(result)
    result["bandwidth_share"] = result["floor_ms"] / result["fast"]["step_ms"]
    if reference:
        slow = summary(min((t.steps for t in reference), key=sum), 1)
        result["reference"] = slow
        result["speedup"] = result["fast"]["song_steps_per_second"] / slow["song_steps_per_second"]
    passes = plan.num_frames + max(config.delays)
    result["rtf"] = (
        (result["prefill_ms"] + result["setup_ms"] + passes * result["fast"]["step_ms"])
        / (1000 * plan.num_frames / FRAME_RATE)
        / args.songs
    )
    result["realtime_factor"] = 1 / result["rtf"]
    result |= origin
    common.report(rows(result), result | {"hardware": common.machine(plan.device)})


def rows(r: dict[str, Any]) -> dict[str, str]:
    fast, slow = r["fast"], r["reference"]
    table = {
        "model": f"{r['size']}, {r['dtype']} on {r['device']}, weights {r['weights']}, "
        f"{r['songs']} song(s) in one pass",
        "set up + prefill": f"{r['setup_ms']:.0f} + {r['prefill_ms']:.0f} ms",
        "fast": f"{fast['step_ms']:.2f} ms/step, {fast['song_steps_per_second']:.2f} song steps/s",
        "floor": f"{r['floor_ms']:.2f} ms/step, {r['bandwidth_share']:.0%} reached",
    }
    if slow:
        table["reference"] = (
            f"{slow['step_ms']:.2f} ms/step, {slow['song_steps_per_second']:.2f} song steps/s"
        )
        table["fast : reference"] = f"{r['speedup']:.2f} times the song steps per second"
    return table | {
        "step reads": f"{r['weight_bytes'] / 1e9:.3f} GB weights + {r['kv_bytes'] / 1e9:.3f} GB KV cache",
        "caches": f"{r['cache_bytes'] / 1e9:.3f} GB",
        "whole song": f"{r['realtime_factor']:.3f} of real time, RTF {r['rtf']:.3f}",
        "peak memory": f"{r['peak_memory_bytes'] / 2**30:.2f} GiB",
        "load": f"{r.get('load_average')} at the start",
    }


if __name__ == "__main__":
    main()
