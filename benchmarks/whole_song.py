"""How long a song takes from the call to its last sample, with a trained model: loading, tokens, sound.

The same request is sung by the reference and by the quickest path that runs here, in one process; the factor
of real time is seconds of song for each second of waiting, loading included.

    python -m benchmarks.whole_song --model mini --device cpu
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from songgen_core import RenderOptions, SongPipeline
from songgen_core.configs import SAMPLE_RATE
from songgen_core.engine import ENGINES
from songgen_core.progress import Progress

from . import common

LYRICS = common.ROOT / "samples" / "lyrics_short.txt"
STYLE = "female, pop, piano, the bpm is 110"


def sing(args: argparse.Namespace, engine: str) -> dict[str, Any]:
    """One song: seconds until it was loaded, written and rendered, and how long it is."""
    start = time.perf_counter()
    pipeline = SongPipeline.from_pretrained(
        args.model,
        roots=[Path(folder) for folder in args.models_dir],
        device=args.device,
        dtype=args.dtype,
        engine=engine,
    )
    loaded = time.perf_counter()
    written = [loaded]

    def on_progress(progress: Progress) -> None:
        if progress.stage == "tokens":
            written[0] = time.perf_counter()

    song = pipeline.generate(
        args.lyrics.read_text(encoding="utf-8"),
        args.tags,
        seed=args.seed,
        duration=args.song_seconds,
        rendering=RenderOptions(num_steps=args.steps),
        on_progress=on_progress,
    )
    common.synchronize(pipeline.device)
    end = time.perf_counter()
    seconds = song.audio["mixed"].shape[-1] / SAMPLE_RATE
    return {
        "model": song.model,
        "device": str(pipeline.device),
        "dtype": common.name_of(pipeline.dtype),
        "song_seconds": seconds,
        "ended": song.ended,
        "load_seconds": loaded - start,
        "tokens_seconds": written[0] - loaded,
        "sound_seconds": end - written[0],
        "total_seconds": end - start,
        "realtime_factor": seconds / (end - start),
    }


def rows(result: dict[str, Any]) -> dict[str, str]:
    lines = {"model": f"{result['model']}, {result['dtype']} on {result['device']}"}
    for engine in ENGINES:
        r = result[engine]
        lines[engine] = (
            f"{r['song_seconds']:.1f} s of song in {r['total_seconds']:.1f} s"
            f" (loading {r['load_seconds']:.1f}, tokens {r['tokens_seconds']:.1f},"
            f" sound {r['sound_seconds']:.1f}): {r['realtime_factor']:.2f} of real time"
        )
    return {
        **lines,
        "speedup": f"{result['speedup']:.2f}",
        "peak memory": f"{result['peak_memory_bytes'] / 2**30:.2f} GiB",
        "load": f"{result['load_average']} at the start",
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="name, folder or file")
    parser.add_argument("--models-dir", action="append", default=[], help="where models lie")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    parser.add_argument("--repeats", type=common.positive, default=1, help="the quickest one counts")
    parser.add_argument("--lyrics", type=Path, default=LYRICS)
    parser.add_argument("--tags", default=STYLE)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--song-seconds", type=float, help="longest song (default: the model's limit)")
    parser.add_argument("--steps", type=common.positive, default=RenderOptions.num_steps, help="of Euler")
    return parser.parse_args()


def main() -> None:
    args, origin = arguments(), common.provenance()
    torch.manual_seed(0)
    songs = {engine: [sing(args, engine) for _ in range(args.repeats)] for engine in reversed(ENGINES)}
    best = {engine: min(made, key=lambda song: song["total_seconds"]) for engine, made in songs.items()}
    quick, plain = best[ENGINES[0]], best["reference"]
    device = torch.device(quick["device"])
    result: dict[str, Any] = {
        "benchmark": "whole_song",
        "size": args.model,
        "device": quick["device"],
        "dtype": quick["dtype"],
        "model": quick["model"],
        "steps": args.steps,
        "repeats": args.repeats,
        **best,
        "realtime_factor": quick["realtime_factor"],
        "speedup": plain["total_seconds"] / quick["total_seconds"],
        "peak_memory_bytes": common.peak_memory(device),
        **origin,
    }
    common.report(rows(result), result | {"hardware": common.machine(device)})


if __name__ == "__main__":
    main()
