"""Weights to networks: rename by table, build on the meta device, assign strictly.

A network is made without memory, its weights are assigned from the (memory-mapped) file, and one error
lists every missing, unexpected and misshapen key.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..configs import LeLMConfig, OobleckConfig, RendererConfig
from ..errors import CheckpointError
from ..models.flow_renderer import FlowRenderer
from ..models.lelm import LeLM
from ..models.oobleck import OobleckVAE
from . import keymaps
from .files import read_state_dict

State = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)

LM_PREFIX = "audiolm."
_SHOWN_KEYS = 8
# What the flow renderer keeps in float32 while its matrices run in a half precision (NUMERICS.md).
_RENDERER_FLOAT32 = re.compile(r"wpe|mask_embedding|scale_shift_table|\.ln_|latent_norm")


def load_lelm(path: Path, config: LeLMConfig, dtype: torch.dtype = torch.float32) -> LeLM:
    """The language model of `path` in `dtype`, on the CPU. Raises CheckpointError."""
    state = lelm_state(read_state_dict(path), str(path))
    return assign(LeLM, config, cast(state, dtype), str(path))


def lelm_state(state: State, source: str) -> State:
    """Published names (with or without the prefix `audiolm.`) -> names of `LeLM`."""
    if any(name.startswith(LM_PREFIX) for name in state):
        state = {n.replace(LM_PREFIX, ""): t for n, t in state.items() if n.startswith(LM_PREFIX)}
    state = {n: t for n, t in state.items() if "rotary_emb." not in n}
    if "transformer2.model.layers.0.self_attn.q_proj.weight" not in state:
        raise CheckpointError(f"{source} is not a LeVo song model; expected a model.pt or its safetensors form")
    return rename(state, keymaps.LELM, source)


def load_renderer(path: Path, dtype: torch.dtype = torch.float32, num_attention_heads: int = 20) -> FlowRenderer:
    """The renderer part of a two-track codec file (full or slim), its matrices in `dtype`, on the CPU.

    The number of heads is the one size that the file does not tell.
    """
    state = renderer_state(read_state_dict(path), str(path))
    config = renderer_config(state, num_attention_heads)
    state = {n: t.to(torch.float32 if _RENDERER_FLOAT32.search(n) else dtype) for n, t in state.items()}
    renderer = assign(FlowRenderer, config, state, str(path))
    renderer.compute_dtype = dtype
    return renderer


def renderer_state(state: State, source: str) -> State:
    """Published names -> names of `FlowRenderer`; what only the prompt encoder or training reads is left out."""
    if "rvq_bestrq_bgm_emb.quantizers.0.codebook.weight" not in state:
        raise CheckpointError(
            f"{source} is not the two-track codec (model_septoken/model_2.safetensors); the renderer needs that file"
        )
    state = {n: t for n, t in state.items() if not n.startswith(keymaps.RENDERER_IGNORED)}
    state = fold_weight_norm(state)
    renamed = rename(state, keymaps.RENDERER, source)
    for name in transposed_names(renamed):
        renamed[name] = renamed[name].t().contiguous()
    for name in ("vocal_codebook.out_proj.weight", "bgm_codebook.out_proj.weight"):
        renamed[name] = renamed[name].squeeze(-1)  # (cond_dim, codebook_dim, 1): a 1x1 convolution
    _check_statistics(renamed, source)
    return renamed


def transposed_names(renamed: Iterable[str]) -> list[str]:
    patterns = [re.compile(_pattern(str(keymaps.RENDERER[k]))) for k in keymaps.RENDERER_TRANSPOSED]
    return [name for name in renamed if any(p.fullmatch(name) for p in patterns)]


def _check_statistics(state: State, source: str) -> None:
    for name in ("latent_norm.counts", "latent_norm.sum_x", "latent_norm.sum_x2"):
        if not state[name].is_meta and not state[name].isfinite().all():
            raise CheckpointError(f"{source}: {name} is not finite; a half-precision repack lost it, use another file")


def load_vae(path: Path, *, with_encoder: bool = False) -> OobleckVAE:
    """The waveform VAE in float32 on the CPU; without its encoder unless asked for."""
    state = vae_state(read_state_dict(path), str(path), with_encoder=with_encoder)
    config = vae_config(state)
    return assign(lambda c: OobleckVAE(c, with_encoder=with_encoder), config, cast(state, torch.float32), str(path))


def vae_state(state: State, source: str, *, with_encoder: bool) -> State:
    """Published names of either weight-norm generation -> names of `OobleckVAE`."""
    wanted = ("decoder.", "encoder.") if with_encoder else ("decoder.",)
    unknown = [n for n in state if not n.startswith(("decoder.", "encoder."))]
    if unknown or not any(n.startswith("decoder.layers.0.") for n in state):
        raise CheckpointError(f"{source} is not the SongGeneration VAE (autoencoder_music_1320k.ckpt)")
    return fold_weight_norm({n: t for n, t in state.items() if n.startswith(wanted)})


def fold_weight_norm(state: State) -> State:
    """Replace every pair (g, v) by weight = v * g / ||v||, the norm over all axes but the first."""
    folded = {}
    for name, tensor in state.items():
        base = name.removesuffix(".parametrizations.weight.original1").removesuffix(".weight_v")
        if base != name:
            g = state.get(f"{base}.weight_g", state.get(f"{base}.parametrizations.weight.original0"))
            if g is None:
                raise CheckpointError(f"{name} has no gain beside it; the file is incomplete")
            v = tensor.float()
            norm = v.flatten(1).norm(dim=1).view(-1, *[1] * (v.ndim - 1))
            folded[f"{base}.weight"] = v * (g.float() / norm)
        elif not name.endswith((".weight_g", ".parametrizations.weight.original0")):
            folded[name] = tensor
    return folded


def rename(state: State, keymap: keymaps.KeyMap, source: str) -> State:
    """Apply a key table; raises CheckpointError on names that it does not know."""
    patterns = [(re.compile(_pattern(theirs)), ours) for theirs, ours in keymap.items()]
    renamed, unknown = {}, []
    for name, tensor in state.items():
        match, ours = next(((m, o) for p, o in patterns if (m := p.fullmatch(name))), (None, None))
        if match is None:
            unknown.append(name)
        elif ours is not None:
            renamed[ours.format(*match.groups())] = tensor
    if unknown:
        raise CheckpointError(f"{source}: unexpected {_listing(unknown)}; this is another model or a newer layout")
    return renamed


def _pattern(key: str) -> str:
    return re.escape(key).replace(r"\{\}", r"(\d+)")


def cast(state: State, dtype: torch.dtype) -> State:
    return {name: tensor.to(dtype) for name, tensor in state.items()}


def assign(make: "type[Network] | object", config: object, state: State, source: str) -> Network:
    """Build `make(config)` on the meta device and give it exactly the tensors of `state`."""
    with torch.device("meta"):
        network: Network = make(config)  # type: ignore[operator]
    check_state(network, state, source)
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def check_state(network: nn.Module, state: State, source: str) -> None:
    """Raise one CheckpointError that names all missing, unexpected and misshapen keys."""
    wanted = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    missing = sorted(wanted.keys() - state.keys())
    unexpected = sorted(state.keys() - wanted.keys())
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {wanted[name]}"
        for name in sorted(wanted.keys() & state.keys())
        if tuple(state[name].shape) != wanted[name]
    ]
    found = [("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)]
    parts = [f"{what} {_listing(names)}" for what, names in found if names]
    if parts:
        raise CheckpointError(f"{source} does not fit this network: " + "; ".join(parts))


def _listing(names: list[str]) -> str:
    rest = f", and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
    return f"{len(names)} keys ({', '.join(names[:_SHOWN_KEYS])}{rest})"


def renderer_config(state: State, num_attention_heads: int) -> RendererConfig:
    """Sizes of a renderer from the shapes of its (renamed) state."""
    codebook_size, codebook_dim = state["vocal_codebook.codebook.weight"].shape
    window_frames = state["estimator.wpe.weight"].shape[0]
    latent_dim = state["latent_norm.sum_x"].shape[0]
    num_layers = 1 + max(int(n.split(".")[2]) for n in state if n.startswith("estimator.h."))
    return RendererConfig(
        latent_dim=latent_dim,
        cond_dim=state["vocal_codebook.out_proj.bias"].shape[0],
        codebook_dim=codebook_dim,
        codebook_size=codebook_size,
        mask_dim=state["mask_embedding.weight"].shape[1],
        num_hidden_layers=num_layers,
        num_attention_heads=num_attention_heads,
        intermediate_size=state["estimator.h.0.mlp.c_fc.bias"].shape[0],
        window_frames=window_frames,
        time_embedding_dim=state["estimator.time.linear_1.weight"].shape[1],
    )


def vae_config(state: State) -> OobleckConfig:
    """Sizes of a VAE from the shapes of its decoder (kernel = 2 * stride)."""
    blocks = 1 + max(int(n.split(".")[2]) for n in state if n.startswith("decoder.layers.") and n.count(".") > 4)
    ups = [state[f"decoder.layers.{i}.layers.1.weight"] for i in range(1, blocks)]
    channels = ups[-1].shape[1]
    widths = [up.shape[0] for up in ups]  # widest first
    return OobleckConfig(
        audio_channels=state[f"decoder.layers.{blocks + 1}.weight"].shape[0],
        channels=channels,
        c_mults=tuple(w // channels for w in reversed(widths)),
        strides=tuple(up.shape[2] // 2 for up in reversed(ups)),
        latent_dim=state["decoder.layers.0.weight"].shape[1],
    )
