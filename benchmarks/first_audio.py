"""Seconds until the first sound: rendering while the song is being written, against one after the other.

Both paths make the same song with the same networks of random weights, alternately in one process. Streamed
audio comes in pieces of 30 s (three quarters of a window), the first once a window of 40 s and the delay are
written; one after the other it comes as a whole. `gapless start` is when a player could begin that must never
wait for the next piece.

    python -m benchmarks.first_audio --size v2-large --dtype float16

The loop that writes tokens is the reference (`--engine reference`) or the quickest that runs here (`auto`).
"""

import argparse
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from songgen_core import RenderOptions, render_audio, write_codes
from songgen_core.configs import SAMPLE_RATE, VARIANTS, OobleckConfig, RendererConfig
from songgen_core.devices import choose_device, choose_dtype
from songgen_core.engine import ENGINES, load_engine
from songgen_core.fast.streaming import sing_streaming
from songgen_core.models.flow_renderer import FlowRenderer
from songgen_core.models.lelm import LeLM
from songgen_core.models.oobleck import OobleckVAE
from songgen_core.selftest import LM_CONFIG, RENDERER_CONFIG, VAE_CONFIG
from songgen_core.text.bpe import QWEN2_FOLDER, TextTokenizers, load_tokenizers

from . import common
from .lm_decode import make_lm
from .render import Plan as RenderPlan
from .render import make_renderer, make_vae

LYRICS = "[verse]\nEvery morning starts the same\n\n[chorus]\nSing it out, sing it loud"


@dataclass(frozen=True)
class Studio:
    """The networks of one model on one device, and the song that is made with them."""

    lm: LeLM
    tokenizers: TextTokenizers
    renderer: FlowRenderer
    vae: OobleckVAE
    device: torch.device
    dtype: torch.dtype
    duration: float
    steps: int
    engine: str


@dataclass(frozen=True)
class Timing:
    """Seconds from the start; `pieces` tells when how many samples came."""

    pieces: list[tuple[float, int]]
    whole: float
    audio: Tensor

    @property
    def gapless_start(self) -> float:
        """When a player may begin that plays on without a gap."""
        start, played = 0.0, 0
        for seconds, samples in self.pieces:
            start = max(start, seconds - played / SAMPLE_RATE)
            played += samples
        return start


def make_studio(args: argparse.Namespace) -> Studio:
    device, tiny = choose_device(args.device), args.size == "tiny"
    dtype = choose_dtype(device, args.dtype)
    config = LM_CONFIG if tiny else VARIANTS[args.size].lm
    lm, _ = make_lm(config, device, dtype)
    # As `load_codec` places it: float16 or float32.
    renderer_dtype = torch.float16 if dtype == torch.float16 else torch.float32
    frames = args.frames
    plan = RenderPlan(frames, 1, args.steps, frames, args.repeats, device, renderer_dtype)
    sizes = replace(RENDERER_CONFIG if tiny else RendererConfig(), window_frames=frames)
    return Studio(
        lm,
        load_tokenizers(QWEN2_FOLDER, config.text_version),
        make_renderer(sizes, plan)[0],
        make_vae(VAE_CONFIG if tiny else OobleckConfig(), plan)[0],
        device,
        dtype,
        args.song_seconds or min(270.0, config.max_duration),
        args.steps,
        args.engine,
    )


def streamed(studio: Studio) -> Timing:
    """The song piece by piece."""
    start, pieces = common.now(studio.device), []
    song = sing_streaming(
        studio.lm,
        studio.tokenizers,
        studio.renderer,
        studio.vae,
        LYRICS,
        seed=0,
        device=studio.device,
        dtype=studio.dtype,
        duration=studio.duration,
        rendering=RenderOptions(num_steps=studio.steps),
        loop=load_engine(studio.engine).song_loop(studio.lm, studio.device),
        on_audio=lambda name, piece: pieces.append((common.now(studio.device) - start, piece.shape[-1])),
    )
    return Timing(pieces, common.now(studio.device) - start, song.audio["mixed"])


def in_turn(studio: Studio) -> Timing:
    """All tokens, then all audio."""
    start = common.now(studio.device)
    codes, _ = write_codes(
        studio.lm,
        studio.tokenizers,
        LYRICS,
        seed=0,
        device=studio.device,
        dtype=studio.dtype,
        duration=studio.duration,
        loop=load_engine(studio.engine).song_loop(studio.lm, studio.device),
    )
    audio = render_audio(
        studio.renderer,
        studio.vae,
        codes,
        seed=0,
        device=studio.device,
        options=RenderOptions(num_steps=studio.steps),
    )
    whole = common.now(studio.device) - start
    return Timing([(whole, audio.shape[-1])], whole, audio)


def measure(studio: Studio, repeats: int) -> dict[str, Any]:
    """The quickest run of either path; both must have made the same song."""
    ways = {"streamed": partial(streamed, studio), "in_turn": partial(in_turn, studio)}
    timings: dict[str, list[Timing]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, make in ways.items():
            timings[way].append(make())
    songs = [timing.audio for made in timings.values() for timing in made]
    difference = max((song - songs[0]).abs().max().item() for song in songs)
    result: dict[str, Any] = {"largest_difference": difference}
    for way, made in timings.items():
        result[f"{way}_first_audio_seconds"] = min(timing.pieces[0][0] for timing in made)
        result[f"{way}_gapless_start_seconds"] = min(timing.gapless_start for timing in made)
        result[f"{way}_whole_seconds"] = min(timing.whole for timing in made)
    result["pieces_seconds"] = [n / SAMPLE_RATE for _, n in timings["streamed"][0].pieces]
    return result


def rows(result: dict[str, Any]) -> dict[str, str]:
    r = result

    def line(name: str) -> str:
        return f"{r[f'streamed_{name}']:.2f} s streamed, {r[f'in_turn_{name}']:.2f} s one after the other"

    return {
        "model": f"{r['size']}, {r['dtype']} on {r['device']}, engine {r['engine']}",
        "song": f"{r['song_seconds']:g} s, {r['steps']} Euler steps, seconds of the pieces: "
        + " ".join(f"{seconds:.1f}" for seconds in r["pieces_seconds"]),
        "first audio": line("first_audio_seconds"),
        "gapless start": line("gapless_start_seconds"),
        "whole song": line("whole_seconds"),
        "real time": f"{r['realtime_factor']:.3f} of it, streamed",
        "same song": f"largest difference {r['largest_difference']:.1e}",
        "peak memory": f"{r['peak_memory_bytes'] / 2**30:.2f} GiB",
        "load": f"{r['load_average']} at the start",
    }


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__ or "", ["tiny", *VARIANTS])
    parser.add_argument("--song-seconds", type=float, help="default: 270, or the model's limit if less")
    parser.add_argument(
        "--steps", type=common.positive, default=RenderOptions().num_steps, help="Euler steps"
    )
    parser.add_argument("--frames", type=common.positive, default=1000, help="of a window, 4 or more")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="what writes the tokens")
    args = parser.parse_args()
    if args.frames < 4:
        parser.error(f"--frames {args.frames} is below 4")
    return args


def main() -> None:
    args, origin = arguments(), common.provenance()
    torch.manual_seed(0)
    studio = make_studio(args)
    measured = measure(studio, args.repeats)
    result: dict[str, Any] = {
        "benchmark": "first_audio",
        "size": args.size,
        "device": str(studio.device),
        "dtype": common.name_of(studio.dtype),
        "engine": args.engine,
        "steps": args.steps,
        "repeats": args.repeats,
        "frames": args.frames,
        "song_seconds": studio.duration,
        **measured,
        "realtime_factor": studio.duration / measured["streamed_whole_seconds"],
        "peak_memory_bytes": common.peak_memory(studio.device),
        **origin,
    }
    common.report(rows(result), result | {"hardware": common.machine(studio.device)})


if __name__ == "__main__":
    main()
