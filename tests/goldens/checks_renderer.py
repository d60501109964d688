"""Checks of the renderer's cases, one function per `kind`."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from compare import assert_close, assert_same, tensors
from torch import Tensor
from torch.nn.functional import conv1d, conv_transpose1d, gelu

from songgen_core.checkpoint.files import read_state_dict
from songgen_core.checkpoint.loader import load_renderer, renderer_state
from songgen_core.generation.chunked import decode_chunked
from songgen_core.generation.flow import denoise
from songgen_core.generation.windows import (
    crossfade,
    fade_ramp,
    output_samples,
    plan_windows,
    prompt_crop,
    render_windows,
    silence_stream,
)
from songgen_core.layers.latent_norm import LatentNorm
from songgen_core.layers.rope import rope_angles, rotate_interleaved
from songgen_core.models.flow_renderer import FlowRenderer, time_sinusoid


@cache
def load_case_renderer(path: Path, num_heads: int) -> FlowRenderer:
    return load_renderer(path, num_attention_heads=num_heads)


def case_renderer(folder: Path, meta: dict) -> FlowRenderer:
    dims = meta["dims"]
    renderer = load_case_renderer((folder / meta["weights"]["model"]).resolve(), dims["n_head"])
    config = renderer.config
    actual = (
        config.latent_dim,
        config.hidden_size,
        config.num_hidden_layers,
        config.head_dim,
        config.window_frames,
    )
    assert actual == tuple(dims[k] for k in ("latent_dim", "hidden", "n_layer", "head_dim", "n_positions"))
    return renderer


def standin_decoder(folder: Path, meta: dict) -> tuple[Callable[[Tensor], Tensor], int]:
    """The stand-in VAE of the recordings: ConvTranspose1d(tanh(Conv1d(latent))), and its hop length."""
    state = read_state_dict((folder / meta["weights"]["vae"]).resolve())
    conv, up = ([state[f"decoder.{n}.{k}"] for k in ("weight", "bias")] for n in ("conv", "up"))
    hop, reach = up[0].shape[-1] // 2, 7 * (conv[0].shape[-1] // 2)

    def decode(latents: Tensor) -> Tensor:
        return conv_transpose1d(
            torch.tanh(conv1d(latents, *conv, padding=reach, dilation=7)), *up, stride=hop, padding=hop // 2
        )

    return decode, hop


def tolerance(meta: dict) -> float:
    return meta["tolerance"]["max_abs_float32"]


def check_weights(folder: Path, meta: dict) -> None:
    state = read_state_dict(folder / "model.safetensors")
    assert {n: list(t.shape) for n, t in state.items()} == {n: k["shape"] for n, k in meta["keys"].items()}
    used = {n for n, k in meta["keys"].items() if k["used"]}
    renamed = renderer_state({n: t for n, t in state.items() if n in used}, "case")
    folded = sum(n.endswith("weight_g") for n in used)  # a gain and a direction become one weight
    assert len(renamed) == len(used) - folded
    assert renamed.keys() == renderer_state(state, "case").keys(), "decoys must be ignored"


def check_constants(folder: Path, meta: dict) -> None:
    inputs, recorded, atol = tensors(folder, "inputs"), tensors(folder, "outputs"), tolerance(meta)
    for name in (n for n in recorded if n.startswith("t_grid_")):
        steps = int(name.rsplit("_", 1)[1])
        times = torch.linspace(0, 1, steps + 1)
        assert_same(times, recorded[name], name)
        assert_same(times.diff(), recorded[f"dt_{steps}"], f"dt_{steps}")
    for name in (n for n in recorded if n.startswith("sinusoid_")):
        times = recorded[name.removeprefix("sinusoid_")]
        assert_close(time_sinusoid(times, recorded[name].shape[-1]), recorded[name], atol, name)
    head_dim = inputs["rope_x"].shape[-1]
    angles = rope_angles(recorded["rope_positions"], head_dim, 10000.0)
    assert_close(angles.cos(), recorded["rope_cos"], atol, "rope_cos")
    assert_close(angles.sin(), recorded["rope_sin"], atol, "rope_sin")
    x = inputs["rope_x"].transpose(1, 2)  # (B, H, L, D)
    rotated = rotate_interleaved(x, rope_angles(torch.arange(x.shape[2]), head_dim, 10000.0))
    assert_close(rotated.transpose(1, 2), recorded["rope_y"], atol, "rope_y")
    assert_close(gelu(inputs["gelu_x"], approximate="tanh"), recorded["gelu_y"], atol, "gelu_new")
    fade_in = fade_ramp(480000)[recorded["fade_index"]]
    assert_same(fade_in, recorded["fade_in_float64"], "fade in")
    assert_same(1 - fade_in, recorded["fade_out_float64"], "fade out")


@torch.inference_mode()
def check_rvq_decode(folder: Path, meta: dict) -> None:
    renderer, inputs, atol = case_renderer(folder, meta), tensors(folder, "inputs"), tolerance(meta)
    recorded = tensors(folder, "outputs") | tensors(folder, "intermediates")
    codes = {s: inputs[f"codes_{s}"][:, 0] for s in ("vocal", "bgm")}
    for stream, decoder in (("vocal", renderer.vocal_codebook), ("bgm", renderer.bgm_codebook)):
        lookup = decoder.codebook(codes[stream]).transpose(1, 2)
        assert_close(lookup, recorded[f"lookup_{stream}"], atol, f"lookup of {stream}")
        folded = decoder.out_proj.weight[..., None]
        assert_close(folded, recorded[f"folded_out_proj_weight_{stream}"], atol, f"projection of {stream}")
        assert_close(decoder(codes[stream]).transpose(1, 2), recorded[f"z_{stream}"], atol, f"z of {stream}")
    assert_close(renderer.condition(codes["vocal"], codes["bgm"]), recorded["mu"], atol, "mu")


def check_normfeat(folder: Path, meta: dict) -> None:
    inputs, recorded, atol = tensors(folder, "inputs"), tensors(folder, "outputs"), tolerance(meta)
    norm = LatentNorm(inputs["sum_x"].numel())
    norm.load_state_dict({k: inputs[k] for k in ("counts", "sum_x", "sum_x2")})
    norm.observe(inputs["x"])  # the reference does so before every call; a no-op for trained statistics
    assert_close(norm.normalize(inputs["x"]), recorded["projected"], atol, "projected")
    assert_close(norm.denormalize(inputs["z"]), recorded["returned"], atol, "returned")
    for name in ("counts", "sum_x", "sum_x2"):
        expected = recorded[f"{name}_after"]
        assert_close(getattr(norm, name), expected, atol * max(1.0, expected.abs().max().item()), name)
    for name, actual in zip(("mean_after", "std_after"), norm.statistics()):
        assert_close(actual, recorded[name], atol, name)


@torch.inference_mode()
def check_velocity(folder: Path, meta: dict) -> None:
    renderer, inputs, atol = case_renderer(folder, meta), tensors(folder, "inputs"), tolerance(meta)
    recorded = tensors(folder, "outputs") | tensors(folder, "intermediates")
    estimator, seen, handles = renderer.estimator, {}, []
    for name, module in estimator.named_modules():
        handles.append(module.register_forward_hook(keep(seen, name)))
    out = estimator(inputs["model_input"], inputs["t"], torch.float32)
    for handle in handles:
        handle.remove()
    actual = {"hidden_out": out, "velocity": out[..., -renderer.config.latent_dim :]}
    actual |= velocity_tensors(seen, inputs["t"], renderer)
    unchecked = recorded.keys() - actual.keys()
    assert not unchecked, f"recorded tensors without a check: {sorted(unchecked)}"
    for name in recorded.keys() & actual.keys():
        assert_close(actual[name], recorded[name], atol, name)


def keep(seen: dict, name: str):
    def hook(module, args, output) -> None:
        seen[name] = (args[0] if args else None, output)

    return hook


def velocity_tensors(seen: dict, t: Tensor, renderer: FlowRenderer) -> dict[str, Tensor]:
    """Recorded names of the estimator's inside, from the (input, output) of its modules."""
    e, modulation = seen["time"][1]
    out = {
        "time_sinusoid": time_sinusoid(t, renderer.config.time_embedding_dim),
        "time_embedding": e,
        "time_modulation": modulation.flatten(1),
        "hidden_0": seen["h.0"][0],
        "ln_f": seen["ln_f"][1],
        "ln_f_modulated": seen["proj_out"][0],
    }
    for i in range(renderer.config.num_hidden_layers):
        block, ours = f"b{i}_", f"h.{i}"
        out |= {
            block + "ln1": seen[f"{ours}.ln_1"][1],
            block + "ln1_modulated": seen[f"{ours}.attn.c_attn"][0],
            block + "qkv": seen[f"{ours}.attn.c_attn"][1],
            block + "attn_out": seen[f"{ours}.attn"][1],
            block + "after_attn": seen[f"{ours}.ln_2"][0],
            block + "ln2": seen[f"{ours}.ln_2"][1],
            block + "ln2_modulated": seen[f"{ours}.mlp.c_fc"][0],
            block + "mlp_act": seen[f"{ours}.mlp.c_proj"][0],
            block + "mlp_out": seen[f"{ours}.mlp"][1],
            block + "out": seen[ours][1],
        }
        out |= {block + n: t for n, t in attention_tensors(seen[f"{ours}.attn.c_attn"][1], renderer).items()}
    return out


def attention_tensors(qkv: Tensor, renderer: FlowRenderer) -> dict[str, Tensor]:
    """Rotated queries and keys and the softmax, recomputed with our rotary from the seen projection."""
    config = renderer.config
    q, k, _ = qkv.unflatten(-1, (3, config.num_attention_heads, -1)).permute(2, 0, 3, 1, 4)
    angles = rope_angles(torch.arange(qkv.shape[1]), config.head_dim, config.rope_theta)
    q, k = rotate_interleaved(q, angles), rotate_interleaved(k, angles)
    probs = (q @ k.transpose(-1, -2) / config.head_dim**0.5).softmax(-1)
    return {"q_rot": q.transpose(1, 2), "k_rot": k.transpose(1, 2), "attn_probs": probs}


@torch.inference_mode()
def check_solver(folder: Path, meta: dict) -> None:
    renderer, inputs, params = case_renderer(folder, meta), tensors(folder, "inputs"), meta["params"]
    recorded, inside, atol = tensors(folder, "outputs"), tensors(folder, "intermediates"), tolerance(meta)
    known = params["incontext_length"]
    condition = renderer.condition(inputs["codes_vocal"][:, 0], inputs["codes_bgm"][:, 0])
    if "mu" in inside:
        assert_close(condition, inside["mu"], atol, "mu")
    seen: list[tuple[Tensor, Tensor]] = []
    handle = renderer.estimator.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    latents = denoise(
        renderer,
        condition,
        inputs["noise"],
        inputs.get("true_latents", inputs["noise"])[:, :known].transpose(1, 2),
        num_steps=params["steps"],
        guidance_scale=params["guidance_scale"],
    )
    handle.remove()
    assert_close(latents, recorded["latents"], atol, "latents")
    latent_dim, batch = (
        renderer.config.latent_dim,
        params["batch"] if "batch" in params else inputs["noise"].shape[0],
    )
    for step, (frames, out) in enumerate(seen):
        if f"model_input_{step}" in inside:
            assert_close(frames, inside[f"model_input_{step}"], atol, f"estimator input {step}")
        if f"x_{step}" in inside:
            assert_close(frames[-batch:, :, -latent_dim:], inside[f"x_{step}"], atol, f"state {step}")
            assert_close(out[..., -latent_dim:], inside[f"v_{step}"], atol, f"velocity {step}")


def check_render(folder: Path, meta: dict) -> None:
    params = meta["params"]
    if "rows" in params:
        return check_prompt_crop(params["rows"])
    return check_render_song(folder, meta)


def check_prompt_crop(rows: list[dict]) -> None:
    for row in rows:
        assert prompt_crop(row["prompt_samples"], 48000) == (row["crop_start"], row["crop_samples"]), row


@torch.inference_mode()
def check_render_song(folder: Path, meta: dict) -> None:
    renderer, inputs, params = case_renderer(folder, meta), tensors(folder, "inputs"), meta["params"]
    inside, atol = tensors(folder, "intermediates"), tolerance(meta)
    decode, hop = standin_decoder(folder, meta)
    codes = silence_stream(inputs["tokens"][:, 1:], params["gen_type"], renderer.config)
    if "prompt_latent" in inputs:
        prompt = torch.cat([inputs["prompt_codes_vocal"], inputs["prompt_codes_bgm"]], dim=1)
        codes = torch.cat([prompt, codes], dim=-1)  # with the reference's extra code: Q = P + 1
    windows = list(
        render_windows(
            renderer,
            codes,
            noise=lambda k: inputs[f"noise_{k}"],
            num_steps=params["steps"],
            guidance_scale=params["guidance_scale"],
            prompt_latents=inputs.get("prompt_latent"),
            window_frames=params["window_frames"],
        )
    )
    assert len(windows) == params["windows"]
    check_windows(codes, windows, params, inside, atol)
    audio = [decode_window(decode, w, hop, params) for w in windows]
    for k, window in enumerate(audio):
        if f"window_audio_{k}" in inside:
            assert_close(window[0], inside[f"window_audio_{k}"], atol, f"audio of window {k}")
    song = crossfade(audio, params["overlap_frames"] * hop)
    song = song[..., : output_samples(params["T"], params["sample_rate"])]
    assert song.shape[-1] == params["output_samples"]
    assert_close(song, tensors(folder, "outputs")["audio"], atol, "audio")


def decode_window(decode, latents: Tensor, hop: int, params: dict) -> Tensor:
    if not params["chunked"]:
        return decode(latents)
    return decode_chunked(
        decode, latents, hop, chunk_size=params["chunk_size"], overlap=params["chunk_overlap"]
    )


def check_windows(codes: Tensor, windows: list[Tensor], params: dict, inside: dict, atol: float) -> None:
    prompt_frames = params.get("prompt_latent_frames", 0)
    plan = plan_windows(codes.shape[-1], prompt_frames, params["window_frames"])
    assert list(plan.contexts) == params["context_frames"]
    assert plan.overlap == params["overlap_frames"]
    for k, (indices, latents) in enumerate(zip(plan.indices, windows)):
        for stream, name in enumerate(("vocal", "bgm")):
            if f"window_codes_{name}_{k}" in inside:
                expected = inside[f"window_codes_{name}_{k}"][0, 0]
                assert_same(codes[0, stream, indices], expected, f"{name} codes of window {k}")
        if f"window_latent_{k}" in inside:
            whole = inside[f"window_latent_{k}"]
            whole = whole[..., prompt_frames:] if k == 0 else whole
            assert_close(latents, whole, atol, f"latents of window {k}")
        if f"decoder_input_{k}" in inside:
            assert_close(latents, inside[f"decoder_input_{k}"], atol, f"decoder input of window {k}")


def check_chunked_decode(folder: Path, meta: dict) -> None:
    recorded, params, atol = tensors(folder, "outputs"), meta["params"], tolerance(meta)
    latents = tensors(folder, "inputs")["latents"]
    decode, hop = standin_decoder(folder, meta)
    assert hop == params["samples_per_frame"]
    chunked = decode_chunked(decode, latents, hop, chunk_size=params["chunk_size"], overlap=params["overlap"])
    assert_close(chunked, recorded["audio_chunked"], atol, "chunked audio")
    assert_close(decode(latents), recorded["audio_full"], atol, "whole audio")


def check_plan(folder: Path, meta: dict) -> None:
    recorded = tensors(folder, "outputs")
    for row in meta["params"]["rows"]:
        prompt_codes, prompt_frames = row["prompt_code_frames"], row["prompt_latent_frames"]
        expected = recorded[row["index_tensor"]].long()  # (windows, N)
        window_frames = expected.shape[-1]
        plan = plan_windows(prompt_codes + row["T"], prompt_frames, window_frames)
        indices = torch.stack(plan.indices)
        # recorded: i >= 0 is generated code i, -1 - j is prompt code j
        ours = torch.where(indices >= prompt_codes, indices - prompt_codes, -1 - indices)
        assert_same(ours, expected, row["index_tensor"])
        assert len(plan.indices) == row["windows"]
        assert list(plan.contexts) == row["context"]
        frames = [window_frames - (prompt_frames if k == 0 else 0) for k in range(len(plan.indices))]
        assert frames == row["decoder_frames"]
        assert output_samples(row["T"], 48000) == row["output_samples"]
    if short := meta.get("target_length_one_sample_short_for_T_up_to_8000"):
        assert [t for t in range(1, 8001) if output_samples(t, 48000) == 1920 * t - 1] == short


CHECKS = {
    "weights": check_weights,
    "constants": check_constants,
    "rvq_decode": check_rvq_decode,
    "normfeat": check_normfeat,
    "velocity": check_velocity,
    "solver": check_solver,
    "render": check_render,
    "chunked_decode": check_chunked_decode,
    "plan": check_plan,
}
