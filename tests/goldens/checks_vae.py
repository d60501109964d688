"""Checks of the VAE's cases, one function per `kind`."""

from pathlib import Path

import torch
from compare import assert_close, tensors
from torch import Tensor

from songgen_core.checkpoint.loader import assign, fold_weight_norm, vae_config, vae_state
from songgen_core.configs import OobleckConfig
from songgen_core.generation.chunked import decode_chunked, encode_chunked
from songgen_core.layers.snake import SnakeBeta
from songgen_core.models.oobleck import OobleckVAE


def check_snake(folder: Path, meta: dict) -> None:
    recorded = tensors(folder, "inputs") | tensors(folder, "outputs") | tensors(folder, "weights")
    snake = SnakeBeta(recorded["alpha"].numel())
    snake.load_state_dict({k: recorded[k] for k in ("alpha", "beta")})
    with torch.inference_mode():
        y = snake(recorded["x"])
    # Relative to each channel's largest value: an exp() of another processor's last bit moves single samples
    # by several times the tolerance, a missing epsilon moves the two channels that pin it by far more.
    error, scale = ((t.double().abs()).amax((0, 2)) for t in (y - recorded["y"], recorded["y"]))
    assert (error <= meta["tolerance"]["float32_max_rel"] * scale).all(), (error / scale).tolist()


def case_config(meta: dict) -> OobleckConfig:
    model = meta["config"].get("model", meta["config"])
    decoder = model["decoder"]["config"]
    return OobleckConfig(
        audio_channels=decoder["out_channels"],
        channels=decoder["channels"],
        c_mults=tuple(decoder["c_mults"]),
        strides=tuple(decoder["strides"]),
        latent_dim=decoder["latent_dim"],
    )


def case_vae(folder: Path, meta: dict, config: OobleckConfig) -> OobleckVAE:
    state = tensors(folder, "weights") or ruled_weights(config, meta["base"])
    state = vae_state(state, "case", with_encoder=True)
    assert vae_config(state) == config, "sizes read from the weights"
    return assign(OobleckVAE, config, state, "case")


def ruled_weights(config: OobleckConfig, base: int) -> dict[str, Tensor]:
    """Weights made by the recording's rule: sorted stored names, each seeded with base + its position."""
    shapes = stored_shapes(config)
    upsampling = {f"decoder.layers.{j}.layers.1.weight_g" for j in range(1, len(config.strides) + 1)}
    state = {}
    for i, name in enumerate(sorted(shapes)):
        t = torch.randn(shapes[name], generator=torch.Generator().manual_seed(base + i))
        kind = name.rsplit(".", 1)[1]
        gain = 1.5 if name in upsampling else 0.5
        state[name] = {
            "weight_v": t,
            "weight_g": gain * (1 + 0.1 * t),
            "bias": 0.05 * t,
            "alpha": 0.3 * t,
            "beta": 0.3 * t,
        }[kind]
    return state


def stored_shapes(config: OobleckConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes as published: every convolution weight stored as gain and direction."""
    with torch.device("meta"):
        ours = OobleckVAE(config).state_dict()
    shapes = {}
    for name, tensor in ours.items():
        if name.endswith(".weight"):
            shapes[name + "_v"] = tuple(tensor.shape)
            shapes[name + "_g"] = (tensor.shape[0], *[1] * (tensor.ndim - 1))
        else:
            shapes[name] = tuple(tensor.shape)
    return shapes


@torch.inference_mode()
def check_autoencoder(folder: Path, meta: dict) -> None:
    config = case_config(meta)
    vae, inputs, recorded = (
        case_vae(folder, meta, config),
        tensors(folder, "inputs"),
        tensors(folder, "outputs"),
    )
    atol = meta["tolerance"]["float32_max_abs"]
    seen: dict[str, Tensor] = {}
    handles = [m.register_forward_hook(keep(seen, n)) for n, m in vae.named_modules()]
    actual = {"decode_audio": vae.decode(inputs["latents"])}
    mean, stdev = vae.encode_distribution(inputs["audio"])
    for handle in handles:
        handle.remove()
    actual |= {"mean": mean, "stdev": stdev, "moments": seen["encoder"]}
    actual |= {f"act.{name}": tensor for name, tensor in seen.items()}
    actual |= encodings(vae, inputs, meta)
    if "latents_long" in inputs:
        actual |= long_sequences(vae, inputs, meta)
    if "weights" in {p.stem for p in folder.iterdir()}:
        folded = fold_weight_norm(tensors(folder, "weights"))
        actual |= {f"folded.{name}": tensor for name, tensor in folded.items()}
    passed_through = {f"act.decoder.layers.{len(config.strides) + 3}": actual["decode_audio"]}  # the identity
    actual |= passed_through
    unchecked = recorded.keys() - actual.keys()
    assert not unchecked, f"recorded tensors without a check: {sorted(unchecked)}"
    for name, expected in recorded.items():
        assert_close(actual[name], expected, atol, name)


def keep(seen: dict, name: str):
    def hook(module, args, output) -> None:
        seen[name] = output

    return hook


def encodings(vae: OobleckVAE, inputs: dict[str, Tensor], meta: dict) -> dict[str, Tensor]:
    seeds = meta.get("seeds", {"encode_audio": meta.get("encode_seed")})
    audio = inputs["audio"]
    seed = torch.Generator().manual_seed(seeds["encode_audio"])
    noise = torch.Generator().manual_seed(seeds["encode_audio"])
    mean, _ = vae.encode_distribution(audio)
    out = {
        "encode_audio": vae.encode(audio, seed),
        "noise": torch.randn(mean.shape, generator=noise),
    }
    if "audio_odd_length" in inputs:
        odd = inputs["audio_odd_length"]
        seed = torch.Generator().manual_seed(seeds["encode_audio.odd_length"])
        out["encode_audio.odd_length"] = vae.encode(odd, seed)
        out["moments.odd_length"] = vae.encoder(odd)
    return out


def long_sequences(vae: OobleckVAE, inputs: dict[str, Tensor], meta: dict) -> dict[str, Tensor]:
    sizes = {k: meta["chunk"][k] for k in ("chunk_size", "overlap")}
    hop, seed = vae.config.hop_length, meta["seeds"]["encode_audio.long(.chunked)"]
    latents, audio = inputs["latents_long"], inputs["audio_long"]
    once, per_chunk = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    return {
        "decode_audio.long": vae.decode(latents),
        "decode_audio.long.chunked": decode_chunked(vae.decode, latents, hop, **sizes),
        "encode_audio.long": vae.encode(audio, once),
        "encode_audio.long.chunked": encode_chunked(lambda a: vae.encode(a, per_chunk), audio, hop, **sizes),
    }


CHECKS = {"snake": check_snake, "autoencoder": check_autoencoder}
