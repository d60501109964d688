"""Checks of the codec encoder's cases, one function per `kind`."""

import math
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compare import assert_close, assert_same, tensors
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from songgen_core.checkpoint.keymaps import CODEC_ENCODER
from songgen_core.checkpoint.load_encoder import codec_encoder_config, codec_encoder_state
from songgen_core.checkpoint.loader import assign, fold_weight_norm, translate
from songgen_core.configs import FRAME_RATE, VARIANTS, CodecEncoderConfig, LeLMConfig
from songgen_core.errors import AudioError
from songgen_core.generation.conditions import prompt_codes_of
from songgen_core.generation.segments import (
    SEGMENT_FRAMES,
    code_length,
    encode_streams,
    limit_peak,
    mono_segments,
    peak_of,
    segments,
)
from songgen_core.layers.conformer import Conformer
from songgen_core.layers.mel import LogMel
from songgen_core.layers.resample import apply_kernel, resample, resampled_length, sinc_kernel
from songgen_core.layers.rvq import CodebookDecoder, CodebookEncoder
from songgen_core.layers.subsampling import ConvSubsampling
from songgen_core.models.codec_encoder import CodecEncoder, conformer_layer
from songgen_core.text.lyrics import detect_language

SILENT_DB = -60.0  # mel bins below hold rounding noise of the FFT
FRAME_24K = 960  # samples of one frame at 24 kHz


def bound(meta: dict) -> float:
    """The first number of a tolerance that is written in words."""
    found = re.search(r"\d+(\.\d+)?e-\d+", meta["tolerance"])
    assert found, f"no number in {meta['tolerance']!r}"
    return float(found[0])


def ours(weights: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """Weights of one part of the encoder in float32, under the names that they have in it."""
    found = {}
    for name, tensor in weights.items():
        with suppress(KeyError):
            if (new := translate(name, CODEC_ENCODER)) and new.startswith(part):
                found[new.removeprefix(part)] = tensor.float()
    return found


def loaded(module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    module.load_state_dict(state, strict=True)
    return module.eval()


def config_of(meta: dict, tap: int) -> CodecEncoderConfig:
    return CodecEncoderConfig(
        taps=(tap,),
        hidden_size=meta["encoder_dim"],
        num_attention_heads=meta["heads"],
        intermediate_size=meta["ffn"],
        conv_kernel_size=meta["dw_kernel"],
        subsampling_channels=meta.get("conv_dim", 1),
        num_mel_bins=meta.get("n_mels", 4),
    )


def check_all(actual: dict[str, Tensor], recorded: dict[str, Tensor], atol: float) -> None:
    unchecked = recorded.keys() - actual.keys()
    assert not unchecked, f"recorded tensors without a check: {sorted(unchecked)}"
    for name, expected in recorded.items():
        assert_close(actual[name], expected, atol, name)


def check_resample_48k_24k(folder: Path, meta: dict) -> None:
    weights, inputs = tensors(folder, "weights"), tensors(folder, "inputs")
    kernels = {
        "y": weights["rsq48tobestrq.kernel"],
        "y_half": weights["rsq48tobestrq.kernel_half"].float(),
    }
    actual = {"kernel_default": sinc_kernel(2, 1, torch.float64).float()}
    for kind, kernel in kernels.items():
        for name, x in inputs.items():
            actual[f"{kind}_{name}"] = apply_kernel(x, kernel, 2)[..., : -(-x.shape[-1] // 2)]
    check_all(actual, tensors(folder, "outputs"), bound(meta))


def check_resample_to_48k(folder: Path, meta: dict) -> None:
    inputs = tensors(folder, "inputs")
    actual = {n.replace("x", "y"): resample(x, int(n.split("_")[1]), 48000) for n, x in inputs.items()}
    check_all(actual, tensors(folder, "outputs"), bound(meta))
    for rate, length, expected in meta["lengths"]:
        common = torch.gcd(torch.tensor(rate), torch.tensor(48000)).item()
        assert resampled_length(length, rate // common, 48000 // common) == expected, (rate, length)


def check_mel_frontend(folder: Path, meta: dict) -> None:
    inputs, weights, recorded = (tensors(folder, n) for n in ("inputs", "weights", "outputs"))
    stored = LogMel(meta["n_fft"], meta["n_mels"])
    loaded(stored, ours(weights, "mel."))
    by_formula = LogMel(meta["n_fft"], meta["n_mels"])
    loaded(by_formula, {"window": torch.hann_window(meta["n_fft"]), "filters": mel_filters(meta)})
    check_filters(by_formula, recorded)
    for name, mel in (("mel_db_default", by_formula), ("mel_db_loaded", stored)):
        check_decibels(mel.decibels(inputs["x"]), recorded.pop(name), name)
    expected = recorded.pop("mel_norm_loaded")
    check_decibels(
        stored(inputs["x"]) * meta["std"] + meta["mean"],
        expected * meta["std"] + meta["mean"],
        "mel_norm_loaded",
    )
    assert not recorded, f"recorded tensors without a check: {sorted(recorded)}"


def mel_filters(meta: dict) -> Tensor:
    """Triangles of equal width in HTK mel, peak 1: [n_fft / 2 + 1, n_mels]."""
    top = meta["sample_rate"] // 2
    bins = torch.linspace(0, top, meta["n_fft"] // 2 + 1)
    highest = 2595.0 * math.log10(1.0 + top / 700.0)
    edges = 700.0 * (10.0 ** (torch.linspace(0.0, highest, meta["n_mels"] + 2) / 2595.0) - 1.0)
    width = edges.diff()
    slopes = edges[None] - bins[:, None]
    rising, falling = -slopes[:, :-2] / width[:-1], slopes[:, 2:] / width[1:]
    return torch.minimum(rising, falling).clamp(min=0)


def check_filters(mel: LogMel, recorded: dict[str, Tensor]) -> None:
    bank = mel.filters
    sums = {
        "fb_default_col5": bank[:, 5],
        "fb_default_colsum": bank.sum(0),
        "fb_default_lastcol": bank[:, -1],
        "fb_default_rowsum": bank.sum(1),
        "window_default": mel.window,
    }
    for name, actual in sums.items():
        assert_close(actual, recorded.pop(name), 2e-4, name)


def check_decibels(actual: Tensor, expected: Tensor, what: str) -> None:
    loud = expected > SILENT_DB
    assert_close(actual[loud], expected[loud], 2e-3, what)
    assert_close(actual, expected, 0.1, f"{what}, quiet bins")


@torch.inference_mode()
def check_conv_subsampling(folder: Path, meta: dict) -> None:
    x = tensors(folder, "inputs")["x"]
    conv = ConvSubsampling(meta["n_mels"], meta["conv_dim"], meta["encoder_dim"])
    loaded(conv, ours(tensors(folder, "weights"), "conv."))
    block0 = conv.blocks[0](x[:, None])
    actual = {"block0": block0, "block1": conv.blocks[1](block0), "y": conv(x)}
    check_all(actual, tensors(folder, "outputs"), bound(meta))


def conformer_of(weights: dict[str, Tensor], config: CodecEncoderConfig) -> Conformer:
    layers = [conformer_layer(config) for _ in range(config.num_hidden_layers)]
    return loaded(Conformer(layers, config.head_dim), ours(weights, "conformer."))


def final_norm(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """The norm behind the last layer of the original, which no code depends on."""
    w, b = (weights[f"bestrq.model.conformer.layer_norm.{k}"].float() for k in ("weight", "bias"))
    return layer_norm(x, x.shape[-1:], w, b, 1e-5)


@torch.inference_mode()
def check_conformer(folder: Path, meta: dict) -> None:
    x, weights = tensors(folder, "inputs")["x"], tensors(folder, "weights")
    conformer = conformer_of(weights, config_of(meta, meta["depth"]))
    seen: dict[str, Tensor] = {}
    first = conformer.layers[0]
    parts = {"attn": first.self_attn, "conv": first.conv_module, "ffn1": first.ffn1, "ffn2": first.ffn2}
    for name, part in parts.items():
        part.register_forward_hook(lambda m, a, out, n=name: seen.__setitem__(f"l0_{n}", out))
    tables: list[tuple[Tensor, Tensor]] = []
    first.register_forward_pre_hook(lambda m, args: tables.append(args[1:]))
    states = list(conformer.hidden_states(x))
    states[-1] = final_norm(states[-1], weights)
    actual = seen | {f"hidden_{k}": state for k, state in enumerate(states)}
    actual |= {"rope_cos": tables[0][0], "rope_sin": tables[0][1]}
    check_all(actual, tensors(folder, "outputs"), bound(meta))


@torch.inference_mode()
def check_musicfm(folder: Path, meta: dict) -> None:
    x, weights = tensors(folder, "inputs")["x"], tensors(folder, "weights")
    config = config_of(meta, meta["depth"])
    mel = LogMel(config.n_fft, config.num_mel_bins)
    conv = ConvSubsampling(config.num_mel_bins, config.subsampling_channels, config.hidden_size)
    loaded(mel, ours(weights, "mel."))
    loaded(conv, ours(weights, "conv."))
    whole = x[..., : x.shape[-1] // FRAME_24K * FRAME_24K]
    states = list(conformer_of(weights, config).hidden_states(conv(mel(whole))))
    states[-1] = final_norm(states[-1], weights)
    recorded = tensors(folder, "outputs")
    actual = {f"layer_{k}": state for k, state in enumerate(states)}
    check_all(actual, recorded, bound(meta))
    for name, expected in recorded.items():
        assert (actual[name] - expected).abs().mean() < 1e-5, f"{name}: mean error"


@torch.inference_mode()
def check_rvq_encode(folder: Path, meta: dict) -> None:
    z = tensors(folder, "inputs")["z"].transpose(1, 2)
    weights = fold_weight_norm(tensors(folder, "weights"))
    state = {n.removeprefix("rvq_bestrq_emb.quantizers.0."): t for n, t in weights.items()}
    sizes = meta["codebook_size"], meta["codebook_dim"], meta["dim"]
    encoder, decoder = CodebookEncoder(*sizes), CodebookDecoder(*sizes)
    for module, side in ((encoder, "in_proj"), (decoder, "out_proj")):
        own = {"codebook.weight": state["codebook.weight"], f"{side}.bias": state[f"{side}.bias"]}
        loaded(module, own | {f"{side}.weight": state[f"{side}.weight"].squeeze(-1)})
    recorded = tensors(folder, "outputs")
    codes, expected = encoder(z), recorded["codes"][:, 0].long()
    sure = recorded["margin"][:, 0] > 1e-5
    assert_same(codes[sure], expected[sure], "codes")
    distances = encoder.distances(encoder.in_proj(z)).topk(2, largest=False).values
    actual = {
        "z_e": encoder.in_proj(z).transpose(1, 2),
        "weight_in_proj": state["in_proj.weight"],
        "margin": (distances[..., 1] - distances[..., 0])[:, None],
        "z_q": decoder(expected).transpose(1, 2),
        "codes": expected[:, None],  # compared above
    }
    check_all(actual, recorded | {"codes": expected[:, None]}, bound(meta))


def check_segmentation(folder: Path, meta: dict) -> None:
    inputs, recorded = tensors(folder, "inputs"), tensors(folder, "outputs")
    rate, size = meta["sample_rate"], meta["segment_samples"]
    for row in meta["rows"]:
        check_segmentation_row(row, rate, size, recorded)
    for name in [n for n in inputs if n.startswith("peak")]:
        expected = recorded.pop(name)
        assert_close(limited(inputs[name][0])[None], expected, 1e-7 * expected.abs().max().item(), name)
    for sep in meta["sep"]:
        check_pair(sep, inputs, recorded, rate, size)
    for length, expected in meta["output_len_48k"]:
        assert code_length(length) == expected, length
    lost = [k for k in range(1, 2001) if code_length(1920 * k) != k + 1]
    assert lost == meta["multiples_of_1920_where_double_rounding_bites"]
    assert not recorded, f"recorded tensors without a check: {sorted(recorded)}"


def limited(clip: Tensor) -> Tensor:
    return limit_peak(clip, peak_of(clip))


def numbered_codes(start: int):
    """An encoder that numbers its codes through all segments."""
    count = iter(range(start, start + 1000 * SEGMENT_FRAMES, SEGMENT_FRAMES))
    return lambda segment: torch.arange(SEGMENT_FRAMES)[None] + next(count)


def check_segmentation_row(row: dict, rate: int, size: int, recorded: dict[str, Tensor]) -> None:
    channels, length = row["channels"], row["length"]
    clip = torch.arange(length).float() + 5000 * torch.arange(channels)[:, None]
    if "error" in row:  # a slip of the reference; by default mono is duplicated and works
        with pytest.raises(AudioError):
            mono_segments(clip, size, 1)
        return
    expected = recorded.pop(f"idx_{channels}ch_{length}")
    cut = segments if channels == 2 else mono_segments
    actual = torch.stack([*cut(clip, size, len(expected))])
    assert_same(actual.to(expected.dtype), expected, f"segments of {row}")
    quiet = torch.zeros(channels, length)
    codes = encode_streams([numbered_codes(0)], [quiet], sample_rate=rate, split_mono=True)[0, 0].tolist()
    assert len(codes) == row["output_len"], row
    shown = len(row["codes_first"])
    assert (codes[:shown], codes[-shown:]) == (row["codes_first"], row["codes_last"]), row


def check_pair(sep: dict, inputs: dict, recorded: dict, rate: int, size: int) -> None:
    name = f"sep{sep['case']}"
    clips = [inputs[f"{name}_{stem}"] for stem in ("vocal", "bgm")]
    shorter = min(c.shape[-1] for c in clips)
    for stem, clip in zip(("vocal", "bgm"), clips):
        expected = recorded.pop(f"{name}_{stem}_segments")
        actual = torch.stack([*segments(limited(clip)[..., :shorter], size, len(expected))])
        assert_close(actual, expected, 1e-7 * expected.abs().max().item(), f"{name} {stem}")
    codes = encode_streams([numbered_codes(0), numbered_codes(100000)], clips, sample_rate=rate)
    assert codes.shape == (1, 2, sep["output_len"])
    assert torch.equal(codes[0, 1] - 100000, codes[0, 0])


def check_prompt_tokens(folder: Path, meta: dict) -> None:
    inputs, recorded = tensors(folder, "inputs"), tensors(folder, "outputs")
    for row in meta["rows"]:
        codes = inputs[f"tokens{row['case']}"].long()
        assert codes.shape[-1] == row["tokens"]
        actual = prompt_codes_of(codes, lm_config(row["prompt_len_s"]))
        assert actual.shape[-1] == row["lm_tokens"]
        assert_same(actual.int(), recorded.pop(f"lm{row['case']}"), str(row))
    config = lm_config(meta["prompt_len_lm_none_and_mixed_only"])
    assert config.special_id == meta["pad"]
    mixed = inputs["tokens_mixed_only"].long()
    alone = torch.cat([mixed, *[torch.full_like(mixed, config.special_id)] * 2], dim=1)
    assert_same(prompt_codes_of(alone, config).int(), recorded.pop("lm_mixed_only"), "mixed only")
    assert_same(prompt_codes_of(None, config).int(), recorded.pop("lm_none"), "no prompt")
    assert not recorded, f"recorded tensors without a check: {sorted(recorded)}"
    for text, language in meta["language"]:
        assert detect_language(text) == language, text


def lm_config(seconds: int) -> LeLMConfig:
    return replace(VARIANTS["v2-large"].lm, prompt_frames=seconds * FRAME_RATE)


def check_e2e_1rvq(folder: Path, meta: dict) -> None:
    encoder, recorded = case_encoder(folder, meta), tensors(folder, "outputs")
    assert encoder.config.taps == (meta["layer"],)
    inputs, seen = tensors(folder, "inputs"), [0, 0]
    for clip in meta["clips"]:
        wave = synthesise(inputs, "", clip, clip["length"], clip["gain"])[: clip["channels"]]
        assert wave.abs().max().item() == pytest.approx(clip["peak"], rel=1e-6)
        codes = encode_streams([encoder], [wave], split_mono=True)
        name = clip["clip"]
        check_codes(codes, recorded.pop(f"{name}.codes"), recorded.pop(f"{name}.margin"), seen)
        expected = recorded.pop(f"{name}.hidden{meta['layer']}_every20")
        cut = segments if clip["channels"] == 2 else mono_segments
        batch = torch.stack([*cut(limited(wave), 40 * 48000, len(expected))])
        check_hidden(encoder, batch, meta["layer"], expected, meta)
        check_inside(encoder, folder, batch, name, recorded, meta)
    check_share(seen)
    assert not recorded, f"recorded tensors without a check: {sorted(recorded)}"


def check_e2e_septoken(folder: Path, meta: dict) -> None:
    encoder, recorded = case_encoder(folder, meta), tensors(folder, "outputs")
    taps = meta["layer_vocal"], meta["layer_bgm"]
    assert encoder.config.taps == taps
    inputs, seen = tensors(folder, "inputs"), [0, 0]
    for clip in meta["clips"]:
        waves = [
            synthesise(inputs, f"_{stem}", clip, clip[f"length_{stem}"], clip[f"gain_{stem}"])
            for stem in ("vocal", "bgm")
        ]
        streams = [lambda x, k=k: encoder(x, k) for k in (0, 1)]
        codes = encode_streams(streams, waves)
        shorter = min(w.shape[-1] for w in waves)
        for k, stem in enumerate(("vocal", "bgm")):
            name = clip["clip"]
            expected, margin = recorded.pop(f"{name}.codes_{stem}"), recorded.pop(f"{name}.margin_{stem}")
            check_codes(codes[:, k : k + 1], expected, margin, seen)
            hidden = recorded.pop(f"{name}.hidden{taps[k]}_{stem}_every20")
            batch = torch.stack([*segments(limited(waves[k])[..., :shorter], 40 * 48000, len(hidden))])
            check_hidden(encoder, batch, taps[k], hidden, meta)
    check_share(seen)
    assert not recorded, f"recorded tensors without a check: {sorted(recorded)}"


def case_encoder(folder: Path, meta: dict) -> CodecEncoder:
    state, taps = codec_encoder_state(tensors(folder, "weights"), "case")
    config = codec_encoder_config(state, taps)
    for name, key in (("hidden_size", "encoder_dim"), ("num_attention_heads", "heads")):
        assert getattr(config, name) == meta[key], f"{name} read from the weights"
    return assign(CodecEncoder, config, state, "case", keymap=CODEC_ENCODER)


def synthesise(inputs: dict, stem: str, clip: dict, length: int, gain: float) -> Tensor:
    """The recording's clip [2, N] by the rule in its meta.json."""
    tile, env, speed = inputs[f"tile{stem}"], inputs[f"env{stem}"], inputs[f"speed{stem}"].long()
    p = torch.arange(length) + clip["offset"]
    b = (p // 4800) % env.shape[1]
    wave = tile[:, (p * speed[b]) % tile.shape[1]].float() / 32768
    return wave * env[:, b] * torch.tensor(gain, dtype=torch.float32)


def check_codes(codes: Tensor, expected: Tensor, margin: Tensor, seen: list[int]) -> None:
    assert codes.shape == expected.shape
    same = codes == expected
    assert same[margin > 1e-3].all(), "codes with a clear margin differ"
    seen[0] += int(same.sum())
    seen[1] += same.numel()


def check_share(seen: list[int]) -> None:
    assert seen[0] >= 0.998 * seen[1], f"only {seen[0]} of {seen[1]} codes are equal"


@torch.inference_mode()
def check_hidden(encoder: CodecEncoder, batch: Tensor, tap: int, expected: Tensor, meta: dict) -> None:
    hidden = encoder.features(encoder.downsample(batch), tap)[:, ::20]
    assert_close(hidden, expected, bound(meta), f"hidden state {tap}")


@torch.inference_mode()
def check_inside(
    encoder: CodecEncoder, folder: Path, batch: Tensor, name: str, recorded: dict, meta: dict
) -> None:
    """Heads and tails of what happens on the way, where they were recorded."""
    if f"{name}.audio24k_head" not in recorded:
        return
    audio = encoder.downsample(batch)
    decibels = encoder.mel.decibels(audio)
    conv = encoder.conv(encoder.mel(audio))
    inside = {"audio24k": (audio, 1e-6), "conv": (conv.transpose(1, 2), bound(meta))}
    for what, (actual, atol) in inside.items():
        for end in ("head", "tail"):
            if (expected := recorded.pop(f"{name}.{what}_{end}", None)) is not None:
                if what == "conv":
                    expected = expected.transpose(1, 2)
                n = expected.shape[-1]
                assert_close(actual[..., :n] if end == "head" else actual[..., -n:], expected, atol, what)
    for end in ("head", "tail"):
        expected = recorded.pop(f"{name}.mel_db_{end}")
        n = expected.shape[-1]
        check_decibels(decibels[..., :n] if end == "head" else decibels[..., -n:], expected, "mel")
    expected = recorded.pop(f"{name}.layers_head")
    states = list(encoder.conformer.hidden_states(conv))
    # Layers behind the last one that is read are recorded but not loaded.
    for k, state in enumerate(states):
        assert_close(state[:, : expected.shape[2]], expected[k], bound(meta), f"layer {k}")


CHECKS = {
    "resample_48k_24k": check_resample_48k_24k,
    "resample_to_48k": check_resample_to_48k,
    "mel_frontend": check_mel_frontend,
    "conv_subsampling": check_conv_subsampling,
    "conformer": check_conformer,
    "musicfm": check_musicfm,
    "rvq_encode": check_rvq_encode,
    "segmentation": check_segmentation,
    "prompt_tokens": check_prompt_tokens,
    "e2e_1rvq": check_e2e_1rvq,
    "e2e_septoken": check_e2e_septoken,
}
