"""What narrow weights and narrow activations change in what the language model writes.

Each candidate reads the same columns as the reference, a song which that one drew: KL of the guided logits at
temperature 1 in nats for each stream, how often both have the same favourite, and how far the logits are off,
relative to how far they spread. Then both write a song at temperature 0: the share of it that is equal before
the first difference, and in all. Figures are means over `--repeats` songs.

Weights are random, from a normal distribution, and logits as peaked as the self-test's. A trained model is
surer of some columns and torn in others, and its weights have longer tails, so the figures rank the kinds
rather than foretell a model. The streams are delayed by 2 columns, so that a short song has them all.

    python -m benchmarks.quality --size tiny
    python -m benchmarks.quality --size base --dtype bfloat16 --frames 24 --repeats 1
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from songgen_core.configs import VARIANTS, LeLMConfig
from songgen_core.devices import choose_device, choose_dtype
from songgen_core.fast.quantize import KINDS, QuantizedLinear, quantize_
from songgen_core.generation.autoregressive import decode_one_frame, generate, prefill
from songgen_core.generation.sampling import SamplingOptions, guide
from songgen_core.models.lelm import Conditions, LeLM
from songgen_core.selftest import LM_CONFIG, selftest_networks
from songgen_core.writing import default_sampling

from . import common, lm_decode

WEIGHTS = ("wide", *KINDS)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_DELAYS = (0, 2, 2)
_HEAD_GAIN = 6.0  # as in the self-test


@dataclass(frozen=True)
class Song:
    """What the reference made of one song."""

    conditions: Conditions
    columns: Tensor  # [K, S] int64, drawn by the reference
    logits: Tensor  # [S + 1, K, V] float32, guided, before each of them and behind the last
    greedy: Tensor  # [K, S] int64, at temperature 0


@dataclass(frozen=True)
class Quality:
    """One candidate against the reference, on one song or in the mean."""

    kl: tuple[float, ...]  # nats, for each stream
    top1: float  # share of equal favourites
    logit_error: float  # relative
    equal_before: float  # share of the greedy song before the first difference
    equal: float  # share of the greedy song


def make_lm(size: str, device: torch.device, dtype: torch.dtype) -> LeLM:
    """The same random language model every time."""
    if size == "tiny":
        lm, *_ = selftest_networks()
        lm.config = replace(lm.config, delays=_DELAYS)
        return lm.to(device, dtype)
    with torch.device("meta"):
        lm = LeLM(replace(VARIANTS[size].lm, delays=_DELAYS)).to(dtype)
    common.fill(lm, device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for matrix in (p for p in lm.parameters() if p.ndim > 1):
            matrix.normal_(0, 1 / math.sqrt(matrix.shape[1]), generator=generator)
        for head in lm.heads.parameters():
            head.mul_(_HEAD_GAIN)[lm.config.eos_id] = 0  # in the middle of the logits: never drawn
    return lm


@torch.inference_mode()
def write(lm: LeLM, conditions: Conditions, frames: int, options: SamplingOptions) -> Tensor:
    """The columns [K, S] of a song; draws are the same in every call."""
    weight = lm.main.norm.weight
    generator = torch.Generator().manual_seed(0)
    *_, streams = generate(
        lm, conditions, frames, options, dtype=weight.dtype, device=weight.device, generator=generator
    )
    return streams.sequence[:, 1:]


@torch.inference_mode()
def read(lm: LeLM, conditions: Conditions, columns: Tensor) -> Tensor:
    """Guided logits float32 [S + 1, K, V] on the CPU, column by column as in a song."""
    weight, config = lm.main.norm.weight, lm.config
    length = config.prefix_length + 1 + columns.shape[1]
    cache = lm.make_cache(lm_decode.ROWS, length, weight.dtype, weight.device)
    start = torch.full((config.num_codebooks,), config.special_id, device=weight.device)
    logits = [prefill(lm, conditions.to(weight.device), start, cache)]
    logits += [decode_one_frame(lm, column, cache) for column in columns.T.to(weight.device)]
    return torch.stack([guide(*rows, config.cfg_scale).cpu() for rows in logits])


def compare(lm: LeLM, song: Song, greedy: SamplingOptions) -> Quality:
    """`lm` against the reference's song."""
    expected, found = song.logits, read(lm, song.conditions, song.columns)
    log_p, log_q = expected.log_softmax(-1), found.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean(0)  # (K,)
    centred = expected - expected.mean(-1, keepdim=True)
    equal = write(lm, song.conditions, song.greedy.shape[1] - max(_DELAYS), greedy) == song.greedy
    columns = equal.all(0).int().cumprod(0).float()  # 1 up to the first difference
    return Quality(
        kl=tuple(kl.tolist()),
        top1=(expected.argmax(-1) == found.argmax(-1)).float().mean().item(),
        logit_error=((found - found.mean(-1, keepdim=True) - centred).norm() / centred.norm()).item(),
        equal_before=columns.mean().item(),
        equal=equal.float().mean().item(),
    )


def average(songs: list[Quality]) -> Quality:
    return Quality(
        kl=tuple(mean(stream) for stream in zip(*(q.kl for q in songs))),
        top1=mean(q.top1 for q in songs),
        logit_error=mean(q.logit_error for q in songs),
        equal_before=mean(q.equal_before for q in songs),
        equal=mean(q.equal for q in songs),
    )


def narrowed(lm: LeLM, weights: str, activations: str) -> LeLM:
    """`lm` with narrow weights made of its own ones, then in another dtype."""
    if weights in KINDS:
        quantize_(lm, weights)
    return lm.to(DTYPES[activations])


def layer_bytes(lm: LeLM) -> int:
    """Both transformers, whatever their weights are in."""
    narrow = sum(layer.nbytes for layer in lm.modules() if isinstance(layer, QuantizedLinear))
    return narrow + lm_decode.size_in_bytes(lm.main, lm.sub)


def candidates(args: argparse.Namespace, dtype: torch.dtype) -> Iterator[tuple[str, str]]:
    """Weights and activations; the reference itself is none."""
    for activations in args.activations or (DTYPES if args.size == "tiny" else [common.name_of(dtype)]):
        for weights in args.weights:
            if (weights, activations) != ("wide", common.name_of(dtype)):
                yield weights, activations


def row(found: dict[str, Any]) -> str:
    kl = " / ".join(f"{value:.1e}" for value in found["kl"])
    return (
        f"KL {kl}, same favourite {found['top1']:.1%}, logits {found['logit_error']:.2%} off; greedy song "
        f"{found['equal']:.1%} equal, {found['equal_before']:.1%} before the first difference; "
        f"layers {found['layer_bytes'] / 1e6:.4g} MB"
    )


def arguments() -> argparse.Namespace:
    parser = common.parser((__doc__ or "").split("\n")[0], ["tiny", *VARIANTS])
    parser.add_argument("--frames", type=common.positive, default=100, help="length of the songs")
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=WEIGHTS)
    parser.add_argument("--activations", nargs="+", choices=list(DTYPES), help="default: all, if tiny")
    return parser.parse_args()


def main() -> None:
    args, origin = arguments(), common.provenance()
    device = choose_device(args.device)
    dtype = choose_dtype(device, args.dtype)
    config: LeLMConfig = LM_CONFIG if args.size == "tiny" else VARIANTS[args.size].lm
    drawn = default_sampling(config)
    greedy = replace(drawn, temperature=0.0)
    lm, songs = make_lm(args.size, device, dtype), []
    torch.manual_seed(0)
    for _ in range(args.repeats):
        conditions = lm_decode.random_conditions(config)
        columns = write(lm, conditions, args.frames, drawn)
        logits = read(lm, conditions, columns)
        songs.append(Song(conditions, columns, logits, write(lm, conditions, args.frames, greedy)))
    top = torch.cat([song.logits for song in songs]).topk(2, dim=-1).values
    result: dict[str, Any] = {
        "benchmark": "quality",
        "size": args.size,
        "device": str(device),
        "dtype": common.name_of(dtype),
        "frames": args.frames,
        "repeats": args.repeats,
        "layer_bytes": layer_bytes(lm),
        "lead": (top[..., 0] - top[..., 1]).mean().item(),
        "candidates": [],
    }
    table = {
        "reference": f"{args.size}, {result['dtype']} on {device}; {args.repeats} x {args.frames} frames; "
        f"its favourite leads by {result['lead']:.2f} nats; layers {result['layer_bytes'] / 1e6:.4g} MB"
    }
    for weights, activations in candidates(args, dtype):
        del lm
        lm = narrowed(make_lm(args.size, device, dtype), weights, activations)
        start = time.perf_counter()
        quality = average([compare(lm, song, greedy) for song in songs])
        found = {"weights": weights, "activations": activations, **asdict(quality)}
        found |= {"layer_bytes": layer_bytes(lm), "seconds": time.perf_counter() - start}
        result["candidates"].append(found)
        table[f"{weights}, {activations}"] = row(found)
    result |= {"peak_memory_bytes": common.peak_memory(device)} | origin
    common.report(table, result | {"hardware": common.machine(device)})


if __name__ == "__main__":
    main()
