"""A prompt from a recording: seconds of each network that reads it, beside what the arithmetic allows.

A prompt takes three passes of the codec encoder (mix, vocal, accompaniment; each hears 40 s, the recording
repeated) and three of the VAE's encoder over 10 s; a song without its stems also the separator's, in chunks
of 7.8 s. Ceiling: FLOP of the network divided by the rate of a large matrix product in float32, in which all
of them run.

    python -m benchmarks.prompt --size published
"""

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from songgen_core.configs import SAMPLE_RATE, CodecEncoderConfig, OobleckConfig
from songgen_core.devices import choose_device, exact_float32
from songgen_core.generation.segments import SEGMENT_SECONDS
from songgen_core.models.codec_encoder import CodecEncoder
from songgen_core.models.oobleck import OobleckVAE
from songgen_core.prompts.prompt import PROMPT_SECONDS
from songgen_core.selftest import ENCODER_CONFIG, VAE_CONFIG

from . import common

PASSES = 3
TAPS = (7, 3)  # of the two-track codec, the deepest


def make_encoder(config: CodecEncoderConfig) -> tuple[CodecEncoder, int]:
    """A random encoder on the meta device, and the FLOP of one pass."""
    with torch.device("meta"):
        encoder = CodecEncoder(config)
    frames = torch.empty(1, config.num_mel_bins, 100 * SEGMENT_SECONDS, device="meta")

    def run() -> None:
        *_, last = encoder.conformer.hidden_states(encoder.conv(frames))
        encoder.quantizers[0](last)

    return encoder, common.count_flops(run)


def make_vae(config: OobleckConfig) -> tuple[OobleckVAE, int]:
    with torch.device("meta"):
        vae = OobleckVAE(config, with_decoder=False)
    audio = torch.empty(1, 2, round(PROMPT_SECONDS * SAMPLE_RATE), device="meta")
    return vae, common.count_flops(lambda: vae.encode_distribution(audio))


def make_separator(tiny: bool) -> nn.Module | None:
    """HTDemucs with random weights; None without the package demucs."""
    if importlib.util.find_spec("demucs") is None:
        return None
    if tiny:
        return importlib.import_module("songgen_core.prompts.load_separator").selftest_separator()
    made = importlib.import_module("demucs.htdemucs").HTDemucs(
        ["drums", "bass", "other", "vocal"], bottom_channels=512, t_layers=5, dconv_mode=3, segment=7.8
    )
    return made.eval().requires_grad_(False)


@torch.inference_mode()
def seconds_of(function: Callable[[Tensor], Any], audio: Tensor, repeats: int) -> float:
    with exact_float32(audio.device):
        return common.best_seconds(lambda: function(audio), audio.device, repeats)


def measure(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    tiny = args.size == "tiny"
    encoder, encoder_flops = make_encoder(
        replace(ENCODER_CONFIG if tiny else CodecEncoderConfig(), taps=TAPS)
    )
    vae, vae_flops = make_vae(VAE_CONFIG if tiny else OobleckConfig())
    common.fill(encoder, device)
    encoder.mel.window.fill_(1.0)
    common.fill(vae, device, gain=0.3)
    noise = 0.1 * torch.randn(1, 2, SEGMENT_SECONDS * SAMPLE_RATE)
    segment, prompt = noise.to(device), noise[..., : round(PROMPT_SECONDS * SAMPLE_RATE)].to(device)
    out: dict[str, Any] = {
        "parameters_encoder": sum(p.numel() for p in encoder.parameters()),
        "parameters_vae_encoder": sum(p.numel() for p in vae.parameters()),
        "encoder_seconds": seconds_of(encoder, segment, args.repeats),
        "vae_seconds": seconds_of(lambda x: vae.encode_distribution(x), prompt, args.repeats),
        "peak_memory_bytes": common.peak_memory(device),
        "separator_chunk_seconds": None,
    }
    separator = make_separator(tiny)
    if separator is not None:
        chunk = noise[..., : int(7.8 * 44100)].to(device)
        out["separator_chunk_seconds"] = seconds_of(separator.to(device), chunk, args.repeats)
        out["peak_memory_bytes"] = common.peak_memory(device)
    rate = common.measure_matmul(device, torch.float32)
    prompt_seconds = PASSES * (out["encoder_seconds"] + out["vae_seconds"])
    return out | {
        "matmul_float32": rate,
        "encoder_flops": encoder_flops,
        "encoder_share": encoder_flops / rate / out["encoder_seconds"],
        "vae_flops": vae_flops,
        "vae_share": vae_flops / rate / out["vae_seconds"],
        "prompt_seconds": prompt_seconds,
        "realtime_factor": PROMPT_SECONDS / prompt_seconds,
    }


def rows(r: dict[str, Any]) -> dict[str, str]:
    chunk = r["separator_chunk_seconds"]
    return {
        "model": f"{r['size']}, float32, on {r['device']}",
        "encoder": f"{r['encoder_seconds']:.3f} s a pass, {r['encoder_flops'] / 1e12:.3f} TFLOP,"
        f" {r['encoder_share']:.0%} of the ceiling",
        "VAE encoder": f"{r['vae_seconds']:.3f} s for 10 s, {r['vae_flops'] / 1e12:.3f} TFLOP,"
        f" {r['vae_share']:.0%} of the ceiling",
        "separator": "demucs is not installed" if chunk is None else f"{chunk:.3f} s a chunk of 7.8 s",
        "prompt": f"{r['prompt_seconds']:.3f} s without separation",
        "matrix product": f"{r['matmul_float32'] / 1e12:.3f} TFLOP/s in float32",
        "peak memory": f"{r['peak_memory_bytes'] / 2**30:.2f} GiB",
        "load": f"{r['load_average']} at the start",
    }


def main() -> None:
    args, origin = common.parser(__doc__ or "", ["tiny", "published"]).parse_args(), common.provenance()
    device = choose_device(args.device)
    torch.manual_seed(0)
    result: dict[str, Any] = {
        "benchmark": "prompt",
        "size": args.size,
        "device": str(device),
        "dtype": "float32",
        "repeats": args.repeats,
    }
    result |= measure(args, device) | origin
    common.report(rows(result), result | {"hardware": common.machine(device)})


if __name__ == "__main__":
    main()
