"""Everything that a card is measured by, in one command; stopped, it goes on with what is missing.

Runs the CUDA tests and every benchmark in a process of its own, writes each one's JSON line to `--out` and
ends with the figures of whole songs: seconds of computing per second of song.

    python -m benchmarks.card --out card.jsonl
    python -m benchmarks.card --out card.jsonl --only "v2-large 16 bit" renderer
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import common

LARGE, MEDIUM = "v2-large", "v2-medium"


def runs(large: str, medium: str, published: str, device: Sequence[str]) -> dict[str, list[str]]:
    """Name -> arguments behind `python -m`, in the order that matters most."""
    lm, dtype = ["benchmarks.lm_fast", *device], ["--dtype", "float16"]
    if "cpu" in device:
        dtype = ["--dtype", "float32"]
    return {
        "v2-large 16 bit": [*lm, "--size", large, *dtype],
        "renderer": ["benchmarks.render", *device, "--size", published, *dtype],
        "v2-large 8 bit": [*lm, "--size", large, *dtype, "--weights", "int8", "--kv", "int8"],
        "v2-medium 16 bit": [*lm, "--size", medium, *dtype],
        "v2-medium 8 bit": [*lm, "--size", medium, *dtype, "--weights", "int8", "--kv", "int8"],
        "first audio": ["benchmarks.first_audio", *device, "--size", large, *dtype],
        "no graph": [*lm, "--size", large, *dtype, "--no-reference", "--off", "cuda_graph"],
        "torch's attention": [*lm, "--size", large, *dtype, "--no-reference", "--attention", "torch"],
        "compiled": [*lm, "--size", large, *dtype, "--no-reference", "--compile"],
        "fp8": [*lm, "--size", large, *dtype, "--no-reference", "--weights", "fp8"],
        "int4": [*lm, "--size", large, *dtype, "--no-reference", "--weights", "int4"],
        "8 songs": [*lm, "--size", large, *dtype, "--no-reference", "--songs", "8"],
        "quality": [
            "benchmarks.quality",
            *device,
            "--size",
            large,
            *dtype,
            "--frames",
            "100",
            "--repeats",
            "1",
        ],
    }


def measure(name: str, arguments: Sequence[str]) -> dict[str, Any] | None:
    """Run one; its JSON line, or None if it failed, after what it printed."""
    print(f"\n== {name}: python -m {' '.join(arguments)}", flush=True)
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, cwd=common.ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            last = line
            if not line.startswith("{"):
                print(line, end="", flush=True)
    if process.returncode != 0:
        print(f"== {name} failed with exit code {process.returncode}", flush=True)
        return None
    return {"run": name, **json.loads(last)}


def done(path: Path) -> dict[str, dict[str, Any]]:
    """What an earlier call has measured, by name."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {line["run"]: line for line in lines}


def whole_songs(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Rows on whole songs: writing and rendering together, as far as both were measured."""
    rows = []
    render = results.get("renderer")
    for name in ("v2-large 16 bit", "v2-large 8 bit", "v2-medium 16 bit", "v2-medium 8 bit"):
        if render is None or (lm := results.get(name)) is None:
            continue
        rtf = lm["rtf"] + render["fast_seconds_per_audio_second"]
        share = f"{lm['bandwidth_share']:.0%} of the bandwidth"
        rows.append((name, f"RTF {rtf:.3f}, {lm['fast']['step_ms']:.2f} ms a step, {share}"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("card.jsonl"), help="one JSON line a run")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the runs")
    parser.add_argument(
        "--tiny", action="store_true", help="networks of toy size on the CPU, to try this out"
    )
    args = parser.parse_args()
    sizes = (
        ("tiny", "tiny", "tiny", ["--device", "cpu", "--repeats", "1"])
        if args.tiny
        else (LARGE, MEDIUM, "published", [])
    )
    wanted = runs(*sizes)
    if unknown := set(args.only or ()) - wanted.keys():
        parser.error(f"no run is called {', '.join(sorted(unknown))}; there are {', '.join(wanted)}")
    if not args.tiny:
        subprocess.run([sys.executable, "-m", "pytest", "tests/fast", "-q"], cwd=common.ROOT, check=False)
    results, failed = done(args.out), []
    for name in args.only or wanted:
        if name in results:
            continue
        if (result := measure(name, wanted[name])) is None:
            failed.append(name)
            continue
        results[name] = result
        with args.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(result) + "\n")
    print("\n" + "\n".join(f"{name:<18}{text}" for name, text in whole_songs(results)))
    print(json.dumps({"benchmark": "card", "runs": list(results), "failed": failed}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
