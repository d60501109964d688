"""The renderer: seconds per Euler step and per window, VAE decoding, beside what the arithmetic allows.

A song is rendered in windows of 1000 frames (40 s), of which 750 (30 s) are new: each takes 10 Euler steps
with both guidance rows, then the VAE decodes it in chunks of 128 frames. The ceiling is the FLOP of the
networks divided by the rate of a large matrix product. All song models share the renderer and the VAE, which
stays in float32.

    python -m benchmarks.render --size published --windows 1 --steps 1 --vae-frames 128

The fast path (`fast_...` in the JSON) is measured in turn with the reference, where it is installed; it
decodes fewer frames for a window, as it decodes the overlap of two windows once. With fewer frames or steps
the window of 1000 frames and 10 steps is extrapolated, and the report says so.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from songgen_core.codec import CHUNK_FRAMES, CHUNK_OVERLAP, RenderOptions
from songgen_core.configs import FRAME_RATE, VARIANTS, OobleckConfig, RendererConfig
from songgen_core.devices import choose_device, choose_dtype, exact_float32
from songgen_core.generation.chunked import chunk_starts, decode_chunked
from songgen_core.generation.windows import render_windows
from songgen_core.layers.rvq import CodebookDecoder
from songgen_core.models.flow_renderer import FlowRenderer
from songgen_core.models.oobleck import OobleckVAE
from songgen_core.selftest import RENDERER_CONFIG, VAE_CONFIG

from . import common

ROWS = 2  # unconditional and conditional
VAE_GAIN = 0.3  # keeps the sum of 15 residual units of random weights of order 1


class Path(NamedTuple):
    """What is measured: the reference or the fast path."""

    renderer: Any
    decode: Callable[[Tensor], Tensor]  # latents [1, C, T] -> audio [1, channels, N], in chunks
    decoded_frames: Callable[[int], int]  # frames that the decoder sees for so many
    window_frames: Callable[[int], int]  # the same for an inner window of a song


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    frames: int  # of one window
    windows: int
    steps: int
    vae_frames: int
    repeats: int
    device: torch.device
    dtype: torch.dtype


def make_renderer(config: RendererConfig, plan: Plan) -> tuple[FlowRenderer, int]:
    """A random renderer with its matrices in `plan.dtype`, and the FLOP of one Euler step."""
    with torch.device("meta"):
        renderer = FlowRenderer(config)
    flops = count_step(renderer, plan.frames)
    for module in renderer.modules():
        if isinstance(module, nn.Linear | CodebookDecoder):
            module.to(plan.dtype)
    renderer.compute_dtype = plan.dtype
    return common.fill(renderer, plan.device), flops


def count_step(renderer: FlowRenderer, frames: int) -> int:
    def empty(*shape: int) -> Tensor:
        return torch.empty(ROWS, *shape, device="meta")

    channels, condition = renderer.config.latent_dim, 2 * renderer.config.cond_dim
    x, context = empty(frames, channels), empty(frames, channels)
    return common.count_flops(lambda: renderer.velocity(x, empty(), empty(frames, condition), context, 0))


def make_vae(config: OobleckConfig, plan: Plan) -> tuple[OobleckVAE, int]:
    """A random decoder in float32, and the FLOP of one chunk."""
    with torch.device("meta"):
        vae = OobleckVAE(config, with_encoder=False)
    latents = torch.empty(1, config.latent_dim, CHUNK_FRAMES, device="meta")
    flops = common.count_flops(lambda: vae.decode(latents))
    return common.fill(vae, plan.device, gain=VAE_GAIN), flops


def reference_path(renderer: FlowRenderer, vae: OobleckVAE) -> Path:
    def decode(latents: Tensor) -> Tensor:
        return decode_chunked(
            vae.decode, latents, vae.config.hop_length, chunk_size=CHUNK_FRAMES, overlap=CHUNK_OVERLAP
        )

    return Path(renderer, decode, decoded_frames, decoded_frames)


@torch.inference_mode()
def fast_path(renderer: FlowRenderer, vae: OobleckVAE, plan: Plan) -> Path | None:
    """None where the fast path is not installed."""
    if find_spec("songgen_core.fast") is None:
        return None
    from songgen_core.fast.renderer import FastRenderer
    from songgen_core.fast.rendering import plan_spans, widened
    from songgen_core.fast.vae import FastVAE

    decoder, quick = FastVAE(vae, plan.device), FastRenderer(renderer, plan.device)

    def frames(count: int) -> int:
        chunks = decoder.count_chunks(count)
        return count if chunks == 1 else chunks * decoder.chunk_frames

    def window_frames(count: int) -> int:
        overlap = count - (count // 4) * 3
        spans = plan_spans([count, count], 2 * count, overlap, decoder.reach)[1]
        return sum(frames(last - first) for first, last in (widened(s, decoder.reach, count) for s in spans))

    quick.prepare(plan.steps)
    return Path(quick, decoder.decode_chunks, frames, window_frames)


@torch.inference_mode()
def time_windows(renderer: Any, plan: Plan) -> tuple[list[float], float]:
    """Seconds of every Euler step, and of the rest of a window (conditions, normalisation)."""
    config = renderer.config
    hop = (plan.frames // 4) * 3
    num_codes = plan.frames + (plan.windows - 1) * hop
    codes = torch.randint(0, config.codebook_size, (1, 2, num_codes), device=plan.device)
    noise = torch.randn(1, plan.frames, config.latent_dim).to(plan.device)
    stamps: list[float] = []
    start = common.now(plan.device)
    for latents in render_windows(
        renderer,
        codes,
        noise=lambda k: noise,
        num_steps=plan.steps,
        guidance_scale=RenderOptions().guidance_scale,
        window_frames=plan.frames,
        on_step=lambda _: stamps.append(common.now(plan.device)),
    ):
        assert latents.isfinite().all(), "the random renderer overflows"
    total = common.now(plan.device) - start
    # The first step of a window follows its conditions, so that its time tells both.
    steps = [b - a for k, (a, b) in enumerate(pairwise(stamps)) if (k + 1) % plan.steps]
    if not steps:
        return [total / plan.windows], 0.0
    return steps, max(0.0, (total - plan.windows * plan.steps * min(steps)) / plan.windows)


@torch.inference_mode()
def time_vae(path: Path, plan: Plan) -> float:
    """Seconds to decode `vae_frames` latents."""
    latents = torch.randn(1, path.renderer.config.latent_dim, plan.vae_frames).to(plan.device)
    with exact_float32(plan.device):
        start = common.now(plan.device)
        audio = path.decode(latents).cpu()
        seconds = common.now(plan.device) - start
    assert audio.isfinite().all(), "the random VAE overflows"
    return seconds


def decoded_frames(frames: int) -> int:
    """Frames that the decoder sees for `frames` of audio, overlaps as often as they are decoded."""
    if frames <= CHUNK_FRAMES:
        return frames
    return CHUNK_FRAMES * len(chunk_starts(frames, CHUNK_FRAMES, CHUNK_OVERLAP))


class Times:
    """What one path took, run by run."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path, self.plan = path, plan
        self.steps: list[float] = []
        self.rests: list[float] = []
        self.decodes: list[float] = []

    def run(self) -> None:
        times, rest = time_windows(self.path.renderer, self.plan)
        self.steps.append(min(times))
        self.rests.append(rest)
        self.decodes.append(time_vae(self.path, self.plan))

    def quickest(self) -> dict[str, float]:
        frames = self.path.decoded_frames(self.plan.vae_frames)
        return {
            "euler_step_seconds": min(self.steps),
            "window_rest_seconds": min(self.rests),
            "vae_seconds": min(self.decodes),
            "vae_decoded": frames,
            "vae_seconds_per_decoded_frame": min(self.decodes) / frames,
        }


def measure(paths: dict[str, Path], plan: Plan) -> dict[str, Any]:
    """The quickest Euler step and VAE pass of each path, in turn, and the machine's rates between the runs.

    The keys of a path begin with its name.
    """
    times, rates, peaks = {name: Times(path, plan) for name, path in paths.items()}, [], {}
    for name, path in paths.items():  # warm up
        time_windows(path.renderer, replace(plan, windows=1, steps=1))
        time_vae(path, plan)
        peaks[f"{name}peak_memory_bytes"] = common.peak_memory(plan.device)
        if plan.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(plan.device)
    for _ in range(plan.repeats):
        for path_times in times.values():
            path_times.run()
        rates.append(common.measure_rates(plan.device, plan.dtype, torch.float32))
    result: dict[str, Any] = common.best_rates(rates) | peaks
    for name, path_times in times.items():
        speed = path_times.quickest()
        speed |= window_estimate(speed, path_times.path, plan)
        result |= {name + key: value for key, value in speed.items()}
    return result


def window_estimate(speed: dict[str, Any], path: Path, plan: Plan) -> dict[str, Any]:
    """One window of the default number of steps, decoded; per second of new audio (three quarters of it)."""
    num_steps = RenderOptions().num_steps
    flow = num_steps * speed["euler_step_seconds"] + speed["window_rest_seconds"]
    vae = path.window_frames(plan.frames) * speed["vae_seconds_per_decoded_frame"]
    audio = (plan.frames // 4) * 3 / FRAME_RATE
    return {
        "window_steps": num_steps,
        "window_seconds": flow,
        "vae_window_seconds": vae,
        "vae_seconds_per_audio_second": vae / audio,
        "seconds_per_audio_second": (flow + vae) / audio,
        "realtime_factor": audio / (flow + vae),
        "extrapolated": plan.steps != num_steps or plan.vae_frames != plan.frames,
    }


def against_ceiling(result: dict[str, Any], step_flops: int, chunk_flops: int) -> dict[str, float]:
    """Times that the arithmetic allows, and how close we come."""
    step = step_flops / result[f"matmul_{result['dtype']}"]
    frame = chunk_flops / CHUNK_FRAMES / result["matmul_float32"]
    out = {
        "step_flops": step_flops,
        "ceiling_euler_step_seconds": step,
        "vae_chunk_flops": chunk_flops,
        "ceiling_vae_seconds_per_decoded_frame": frame,
    }
    for path in (
        name.removesuffix("euler_step_seconds") for name in result if name.endswith("euler_step_seconds")
    ):
        out[f"{path}step_share"] = step / result[f"{path}euler_step_seconds"]
        out[f"{path}vae_share"] = frame / result[f"{path}vae_seconds_per_decoded_frame"]
    return out


def rows(result: dict[str, Any]) -> dict[str, str]:
    r = result
    name, frame = r["dtype"], r["ceiling_vae_seconds_per_decoded_frame"]
    table = {
        "model": f"{r['size']}, renderer in {r['dtype']}, VAE in float32, on {r['device']}",
        "matrix product": f"{r[f'matmul_{name}'] / 1e12:.3f} TFLOP/s in {name}, "
        f"{r['matmul_float32'] / 1e12:.3f} in float32",
        "step ceiling": f"{r['ceiling_euler_step_seconds']:.4f} s for {r['step_flops'] / 1e12:.3f} TFLOP",
        "VAE ceiling": f"{frame * r['vae_decoded']:.4f} s for {r['vae_decoded']} frames",
        **path_rows(r, "", "reference"),
    }
    if "fast_euler_step_seconds" in r:
        table |= path_rows(r, "fast_", "fast") | {
            "fast : reference": f"Euler step {r['euler_step_seconds'] / r['fast_euler_step_seconds']:.2f}, "
            f"VAE {r['vae_seconds'] / r['fast_vae_seconds']:.2f}, "
            f"audio second {r['seconds_per_audio_second'] / r['fast_seconds_per_audio_second']:.2f} times"
        }
    return table | {"load": f"{r['load_average']} at the start"}


def path_rows(result: dict[str, Any], prefix: str, title: str) -> dict[str, str]:
    how = "extrapolated" if result["extrapolated"] else "measured"
    r = {name.removeprefix(prefix): value for name, value in result.items() if name.startswith(prefix)}
    return {
        f"{title}: Euler step": f"{r['euler_step_seconds']:.4f} s, {result['frames']} frames, "
        f"{r['step_share']:.0%} of the ceiling",
        f"{title}: VAE": f"{r['vae_seconds']:.4f} s for {result['vae_frames']} frames "
        f"({r['vae_decoded']} with overlaps), {r['vae_share']:.0%} of the ceiling",
        f"{title}: window": f"{r['window_seconds']:.3f} s for {r['window_steps']} steps + "
        f"{r['vae_window_seconds']:.3f} s VAE ({how})",
        f"{title}: audio second": f"{r['seconds_per_audio_second']:.4f} s, of which VAE "
        f"{r['vae_seconds_per_audio_second']:.4f} s; {r['realtime_factor']:.3f} of real time",
        f"{title}: peak memory": f"{r['peak_memory_bytes'] / 2**30:.2f} GiB",
    }


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__ or "", ["tiny", "published", *VARIANTS])
    parser.add_argument("--windows", type=common.positive, default=1)
    parser.add_argument(
        "--steps", type=common.positive, default=RenderOptions().num_steps, help="Euler steps"
    )
    parser.add_argument("--frames", type=common.positive, default=1000, help="frames of a window, 4 to 1000")
    parser.add_argument("--vae-frames", type=common.positive, help="latents to decode; default: the window")
    args = parser.parse_args()
    if not 4 <= args.frames <= RendererConfig().window_frames:
        parser.error(f"--frames {args.frames} is not in 4 to {RendererConfig().window_frames}")
    return args


def main() -> None:
    args, origin = arguments(), common.provenance()
    device = choose_device(args.device)
    dtype = choose_dtype(device, args.dtype)
    vae_frames = args.vae_frames or args.frames
    plan = Plan(args.frames, args.windows, args.steps, vae_frames, args.repeats, device, dtype)
    torch.manual_seed(0)
    tiny = args.size == "tiny"
    renderer, step_flops = make_renderer(RENDERER_CONFIG if tiny else RendererConfig(), plan)
    vae, chunk_flops = make_vae(VAE_CONFIG if tiny else OobleckConfig(), plan)
    result: dict[str, Any] = {
        "benchmark": "render",
        "size": "tiny" if tiny else "published",
        "device": str(device),
        "dtype": common.name_of(dtype),
        "frames": plan.frames,
        "windows": plan.windows,
        "steps": plan.steps,
        "vae_frames": vae_frames,
        "repeats": args.repeats,
        "parameters_renderer": sum(p.numel() for p in renderer.parameters()),
        "parameters_vae_decoder": sum(p.numel() for p in vae.parameters()),
    }
    paths = {"": reference_path(renderer, vae)}
    if (fast := fast_path(renderer, vae, plan)) is not None:
        paths["fast_"] = fast
    result |= measure(paths, plan)
    result |= against_ceiling(result, step_flops, chunk_flops) | origin
    common.report(rows(result), result | {"hardware": common.machine(device)})


if __name__ == "__main__":
    main()
