"""Weights to networks: rename by table, build on the meta device, assign strictly.

A network is made without memory, its weights are assigned from the (memory-mapped) file, and one error
lists every missing, unexpected and misshapen key.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..configs import LeLMConfig, OobleckConfig, RendererConfig
from ..errors import CheckpointError
from ..layers.latent_norm import TRAINED_COUNT
from ..models.flow_renderer import FlowRenderer
from ..models.lelm import LeLM
from ..models.oobleck import OobleckVAE
from . import keymaps
from .files import read_metadata, read_state_dict
from .keymaps import LM_PREFIX, KeyMap

log = logging.getLogger("songgen")

State = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)
Config = TypeVar("Config")
OnTensor = Callable[[int, int], None]  # called with (done, total) after every tensor

_SHOWN_KEYS = 8
# What the flow renderer keeps in float32 while its matrices run in a half precision (NUMERICS.md).
_RENDERER_FLOAT32 = re.compile(r"wpe|mask_embedding|scale_shift_table|\.ln_|latent_norm")
_NEVER = re.compile(r"(?!)")
# Entries of a codec file's metadata: sizes and ids that no shape tells. Published files have none.
_HEADS_NOTE = "num_attention_heads"
_SILENT_NOTES = "silent_vocal_code", "silent_bgm_code"
_WEIGHT_NORM = (  # names of gain and direction: torch's old and new way
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def unheard(done: int, total: int) -> None:
    """The default listener."""


def load_lelm(
    path: Path, config: LeLMConfig, dtype: torch.dtype = torch.float32, on_tensor: OnTensor = unheard
) -> LeLM:
    """The language model of `path` in `dtype`, on the CPU. Raises CheckpointError."""
    state = lelm_state(read_state_dict(path), str(path))
    return assign(LeLM, config, state, str(path), dtype, keymap=keymaps.LELM, on_tensor=on_tensor)


def lelm_state(state: State, source: str) -> State:
    """Published names (with or without the prefix `audiolm.`) -> names of `LeLM`."""
    if any(name.startswith(LM_PREFIX) for name in state):
        state = {n.replace(LM_PREFIX, ""): t for n, t in state.items() if n.startswith(LM_PREFIX)}
    state = {n: t for n, t in state.items() if "rotary_emb." not in n}
    if not any(n.startswith("transformer2.model.layers.") for n in state):
        raise CheckpointError(f"{source} is not a LeVo song model; use a model.pt or its safetensors form")
    return rename(state, keymaps.LELM)


def load_renderer(
    path: Path,
    dtype: torch.dtype = torch.float32,
    num_attention_heads: int | None = None,
    on_tensor: OnTensor = unheard,
) -> FlowRenderer:
    """The renderer part of a two-track codec file (full or slim), its matrices in `dtype`, on the CPU.

    What shapes do not tell, the number of heads and the codes of silence, is noted in the file's metadata;
    without notes, or with `num_attention_heads` given, all is as published. Raises CheckpointError.
    """
    source = str(path)
    state = renderer_state(read_state_dict(path), source)
    notes = {} if num_attention_heads else read_metadata(path)
    heads = num_attention_heads or _noted(notes, _HEADS_NOTE, source, least=1)
    published = RendererConfig(num_attention_heads=heads)
    config = _closest(FlowRenderer, state, renderer_config(state, heads), published)
    vocal, bgm = (_noted(notes, name, source) for name in _SILENT_NOTES)
    config = replace(config, silent_vocal_code=vocal, silent_bgm_code=bgm)
    for name in _SILENT_NOTES:
        if name in notes and getattr(config, name) >= config.codebook_size:
            raise CheckpointError(
                f"{source}: its metadata entry '{name}' is {notes[name]}; codes end at"
                f" {config.codebook_size - 1}"
            )
    renderer = assign(
        FlowRenderer,
        config,
        state,
        source,
        dtype,
        in_float32=_RENDERER_FLOAT32,
        keymap=keymaps.RENDERER,
        on_tensor=on_tensor,
    )
    if config.hidden_size % (2 * heads):
        raise CheckpointError(
            f"{source}: width {config.hidden_size} does not divide into {heads} heads of even width; files of"
            f" other than published sizes need the metadata entry '{_HEADS_NOTE}'"
        )
    renderer.compute_dtype = dtype
    return renderer


def _noted(notes: Mapping[str, str], name: str, source: str, least: int = 0) -> int:
    """A field of the renderer's config from the metadata, else as published."""
    note = notes.get(name, str(getattr(RendererConfig, name)))
    if not (note.isdecimal() and least <= int(note) < 100_000):
        raise CheckpointError(
            f"{source}: its metadata entry '{name}' is {note!r}; write a whole number there"
        )
    return int(note)


def renderer_state(state: State, source: str) -> State:
    """Published names -> names of `FlowRenderer`, without what only prompt encoder or training read."""
    if "rvq_bestrq_bgm_emb.quantizers.0.codebook.weight" not in state:
        raise CheckpointError(
            f"{source} is not the two-track codec (model_septoken/model_2.safetensors): it lacks"
            " rvq_bestrq_bgm_emb.quantizers.0.codebook.weight"
        )
    state = {n: t for n, t in state.items() if not n.startswith(keymaps.RENDERER_IGNORED)}
    renamed = rename(fold_weight_norm(state, source), keymaps.RENDERER)
    for name in transposed_names(renamed):
        renamed[name] = renamed[name].transpose(0, -1)  # a view; `cast` makes it contiguous
    for name in renamed.keys() & {"vocal_codebook.out_proj.weight", "bgm_codebook.out_proj.weight"}:
        renamed[name] = renamed[name].squeeze(-1)  # (cond_dim, codebook_dim, 1): a 1x1 convolution
    _check_statistics(renamed, source)
    return renamed


def transposed_names(renamed: Iterable[str]) -> list[str]:
    """Those of our names whose published matrices are stored [in, out]."""
    patterns = [_pattern(str(keymaps.RENDERER[k])) for k in keymaps.RENDERER_TRANSPOSED]
    return [name for name in renamed if any(p.fullmatch(name) for p in patterns)]


def _check_statistics(state: State, source: str) -> None:
    for name, tensor in state.items():
        if name.startswith("latent_norm.") and not tensor.is_meta and not tensor.isfinite().all():
            published = name.replace("latent_norm", "normfeat")
            raise CheckpointError(
                f"{source}: {published} is not finite: a half-precision copy lost it; use the published file"
            )
    counts = state.get("latent_norm.counts")
    if counts is not None and not counts.is_meta and bool((counts < TRAINED_COUNT).any()):
        log.warning("%s holds unfinished latent statistics; its sound may be off", source)


def load_vae(
    path: Path, *, with_encoder: bool = False, with_decoder: bool = True, on_tensor: OnTensor = unheard
) -> OobleckVAE:
    """The waveform VAE in float32 on the CPU; no encoder unless asked for. Raises CheckpointError."""
    state = vae_state(read_state_dict(path), str(path), with_encoder=with_encoder)
    sizes = vae_config(state)
    if not with_decoder:
        state = {n: t for n, t in state.items() if not n.startswith("decoder.")}
    make = partial(OobleckVAE, with_encoder=with_encoder, with_decoder=with_decoder)
    config = _closest(make, state, sizes, OobleckConfig())
    return assign(make, config, state, str(path), on_tensor=on_tensor)


def vae_state(state: State, source: str, *, with_encoder: bool) -> State:
    """Published names of either weight-norm generation -> names of `OobleckVAE`."""
    if not any(n.startswith("decoder.layers.0.") for n in state):
        raise CheckpointError(f"{source} is not the SongGeneration VAE (autoencoder_music_1320k.ckpt)")
    if not with_encoder:
        state = {n: t for n, t in state.items() if not n.startswith("encoder.")}
    return fold_weight_norm(state, source)


def fold_weight_norm(state: State, source: str = "the state") -> State:
    """Replace every pair (g, v) by weight = v * g / ||v||, the norm over all axes but the first."""
    folded = dict(state)
    for gain, direction in _WEIGHT_NORM:
        ends = f".{gain}", f".{direction}"
        for layer in {n.removesuffix(end) for n in state for end in ends if n.endswith(end)}:
            g, v = (folded.pop(layer + end, None) for end in ends)
            if g is None or v is None:
                raise CheckpointError(
                    f"{source} lacks {layer}{ends[0] if g is None else ends[1]}; download it again"
                )
            folded[f"{layer}.weight"] = _normed_weight(g, v, f"{source}: {layer}{ends[0]}")
    return folded


def _normed_weight(g: Tensor, v: Tensor, source: str) -> Tensor:
    is_pair = v.ndim > 1 and g.shape == (len(v), *[1] * (v.ndim - 1))
    if not (is_pair and g.is_floating_point() and v.is_floating_point()):
        kinds = " and ".join(f"{tuple(t.shape)} {t.dtype}" for t in (g, v))
        raise CheckpointError(f"{source} and its direction make no weight ({kinds}); use the published file")
    v = v.float()
    norm = v.flatten(1).norm(dim=1).view(g.shape)
    return v * (g.float() / norm)


def rename(state: State, keymap: KeyMap) -> State:
    """Apply a key table. Names that it does not know stay as they are, for `check_state` to report."""
    renamed, unknown = {}, {}
    for name, tensor in state.items():
        try:
            if (ours := translate(name, keymap)) is not None:
                renamed[ours] = tensor
        except KeyError:
            unknown[name] = tensor
    return {**renamed, **unknown}


def translate(name: str, keymap: KeyMap) -> str | None:
    """What `name` is called after a key table, None if dropped on purpose. Raises KeyError if unknown."""
    for theirs, ours in keymap.items():
        if match := _pattern(theirs).fullmatch(name):
            return ours and ours.format(*match.groups())
    raise KeyError(name)


@cache
def _pattern(key: str) -> re.Pattern[str]:
    return re.compile(re.escape(key).replace(r"\{\}", r"(\d+)"))


def cast(
    state: State, dtype: torch.dtype, in_float32: re.Pattern[str] = _NEVER, on_tensor: OnTensor = unheard
) -> State:
    """Contiguous tensors in `dtype`, float32 where `in_float32` is found; copies only of what changes."""
    out = {}
    for done, (name, tensor) in enumerate(state.items(), start=1):
        out[name] = tensor.to(torch.float32 if in_float32.search(name) else dtype).contiguous()
        on_tensor(done, len(state))
    return out


def assign(
    make: Callable[[Config], Network],
    config: Config,
    state: State,
    source: str,
    dtype: torch.dtype = torch.float32,
    *,
    in_float32: re.Pattern[str] = _NEVER,
    keymap: KeyMap | None = None,
    on_tensor: OnTensor = unheard,
) -> Network:
    """Build `make(config)` on the meta device and give it exactly the tensors of `state`, in `dtype`.

    `keymap` is the table that made the names of `state`, so that an error speaks of the file's own names.
    """
    network = _on_meta(make, config)
    check_state(network, state, source, keymap or {})
    network.load_state_dict(cast(state, dtype, in_float32, on_tensor), strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _on_meta(make: Callable[[Config], Network], config: Config) -> Network:
    with torch.device("meta"):
        return make(config)


def check_state(network: nn.Module, state: State, source: str, keymap: KeyMap) -> None:
    """Raise one CheckpointError that names all missing, unexpected, misshapen and integer tensors."""
    published: KeyMap = {ours: theirs for theirs, ours in keymap.items() if ours is not None}

    def file_name(ours: str) -> str:
        try:
            return translate(ours, published) or ours
        except KeyError:
            return ours

    parts = []
    for what, names in misfits(network, state).items():
        shown = ", ".join(file_name(n) + note for n, note in list(names.items())[:_SHOWN_KEYS])
        rest = f", and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
        parts += [f"{len(names)} {what} ({shown}{rest})"] if names else []
    if parts:
        raise CheckpointError(
            f"{source} does not fit this model: {'; '.join(parts)}. Use the published file and its own config"
        )


def misfits(network: nn.Module, state: State) -> dict[str, dict[str, str]]:
    """What keeps `state` from being the network's: kind of trouble -> name -> note."""
    wanted = network.state_dict()
    both = sorted(wanted.keys() & state.keys())
    return {
        "missing": dict.fromkeys(sorted(wanted.keys() - state.keys()), ""),
        "unexpected": dict.fromkeys(sorted(state.keys() - wanted.keys()), ""),
        "of another shape": {
            n: f" {list(state[n].shape)} instead of {list(wanted[n].shape)}"
            for n in both
            if state[n].shape != wanted[n].shape
        },
        "not of a floating-point kind": {
            n: f" {state[n].dtype}" for n in both if not state[n].is_floating_point()
        },
    }


def _closest(make: Callable[[Config], nn.Module], state: State, *configs: Config) -> Config:
    """The config that `state` misses by least: sizes read from a damaged state may be damaged too."""
    return min(configs, key=lambda c: sum(map(len, misfits(_on_meta(make, c), state).values())))


def renderer_config(state: State, num_attention_heads: int) -> RendererConfig:
    """Sizes of a renderer from the shapes of its (renamed) state; published ones if the state tells none."""
    try:
        codebook_size, codebook_dim = state["vocal_codebook.codebook.weight"].shape
        return RendererConfig(
            latent_dim=state["latent_norm.sum_x"].shape[0],
            cond_dim=state["vocal_codebook.out_proj.bias"].shape[0],
            codebook_dim=codebook_dim,
            codebook_size=codebook_size,
            mask_dim=state["mask_embedding.weight"].shape[1],
            num_hidden_layers=_count(state, r"estimator\.h\.(\d+)\..+"),
            num_attention_heads=num_attention_heads,
            intermediate_size=state["estimator.h.0.mlp.c_fc.bias"].shape[0],
            window_frames=state["estimator.wpe.weight"].shape[0],
            time_embedding_dim=state["estimator.time.linear_1.weight"].shape[1],
        )
    except (KeyError, IndexError, ValueError):
        return RendererConfig(num_attention_heads=num_attention_heads)


def vae_config(state: State) -> OobleckConfig:
    """Sizes of a VAE from the shapes of its decoder (kernel = 2 * stride); published if it tells none."""
    blocks = _count(state, r"decoder\.layers\.(\d+)\.layers\..+")
    try:
        ups = [state[f"decoder.layers.{i}.layers.1.weight"].shape for i in range(blocks, 0, -1)]
        channels = ups[0][1]  # of the last block, the narrowest
        return OobleckConfig(
            audio_channels=state[f"decoder.layers.{blocks + 2}.weight"].shape[0],
            channels=channels,
            c_mults=tuple(up[0] // channels for up in ups),
            strides=tuple(up[2] // 2 for up in ups),
            latent_dim=state["decoder.layers.0.weight"].shape[1],
        )
    except (KeyError, IndexError, ZeroDivisionError):
        return OobleckConfig()


def _count(state: State, pattern: str) -> int:
    """How many different numbers stand in the names that match."""
    return len({match[1] for n in state if (match := re.fullmatch(pattern, n))})
