"""The stem separator, HTDemucs, from any of the files it is published in (LeVo spec, separator 1).

The network is the package demucs's own; the files hold its weights and at most a few of its settings.
"""

import importlib
import json
import re
import threading
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..checkpoint.files import TORCH_SUFFIXES, read_metadata, read_state_dict, read_torch_object
from ..checkpoint.loader import assign
from ..errors import CheckpointError, UserError

State = dict[str, Tensor]

STEMS = ("drums", "bass", "other", "vocal")  # in the network's order; Meta's files say "vocals"

# What shapes do not tell and every published file agrees on. A file that says otherwise is another network.
_FIXED: dict[str, Any] = {
    "audio_channels": 2,
    "channels_time": None,
    "wiener_iters": 0,
    "end_iters": 0,
    "cac": True,
    "rewrite": True,
    "multi_freqs": [],
    "freq_emb": 0.2,
    "emb_scale": 10,
    "emb_smooth": True,
    "kernel_size": 8,
    "stride": 4,
    "time_stride": 2,
    "context": 1,
    "context_enc": 0,
    "norm_starts": 4,
    "norm_groups": 4,
    "dconv_mode": 3,
    "dconv_depth": 2,
    "dconv_comp": 8,
    "t_emb": "sin",
    "t_max_period": 10000.0,
    "t_weight_pos_embed": 1.0,
    "t_layer_scale": True,
    "t_gelu": True,
    "t_norm_in": True,
    "t_norm_in_group": False,
    "t_group_norm": False,
    "t_norm_first": True,
    "t_norm_out": True,
    "t_cross_first": False,
    "t_sparse_self_attn": False,
    "t_sparse_cross_attn": False,
    "use_train_segment": True,
}
_PUBLISHED = {"samplerate": 44100, "segment": Fraction(39, 5), "t_heads": 8}
_MAX_DEPTH = 6  # keeps the sizes of a damaged file within what can be built

_NEEDED = "choose the stem separator, third_party/demucs/ckpt/htdemucs.pth"
_ONE_AT_A_TIME = threading.Lock()  # torch keeps one list of allowed classes for all threads


class _Placeholder:
    """Stands where a pickle names a class: keeps the arguments and does nothing."""

    def __init__(self, *args: object) -> None:
        self.args = args

    def __setstate__(self, state: object) -> None:
        """Nothing is taken from the file."""


# torch finds an allowed class by the name it goes by.
_HTDemucs = type("HTDemucs", (_Placeholder,), {"__module__": "demucs.htdemucs"})
_Fraction = type("Fraction", (_Placeholder,), {"__module__": "fractions"})


def load_separator(path: Path) -> nn.Module:
    """HTDemucs in float32 on the CPU, ready for `separate`; its `sources` are STEMS.

    Reads the published table of tensors (.pth or .safetensors) and Meta's own packages (.th, and the
    .safetensors of its Hugging Face pages). No code from a file is run. `samplerate`, `segment` and
    `t_heads`, which weights do not tell, may stand in the metadata of a .safetensors file. Raises UserError
    without the package demucs, CheckpointError for a file that is damaged or of another model.
    """
    network = _network()
    state, settings = _read_package(path) if path.suffix in TORCH_SUFFIXES else _read_safetensors(path)
    _check_settings(settings, path)
    sizes = {**_FIXED, **_sizes(state, path), **_free_settings(settings, path), "sources": list(STEMS)}
    try:
        return _undrawn(assign(lambda named: network(**named), sizes, state, str(path)))
    except CheckpointError:
        raise
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise CheckpointError(f"{path} has sizes that make no network ({reason}); {_NEEDED}") from error


def separator_tensors(path: Path) -> State:
    """Weights of any of these files by name, without building the network. Raises CheckpointError."""
    read = _read_package if path.suffix in TORCH_SUFFIXES else _read_safetensors
    return read(path)[0]


def _network() -> Any:
    try:
        return importlib.import_module("demucs.htdemucs").HTDemucs
    except ImportError as error:
        raise UserError(
            "splitting a recording into stems needs the package demucs; install it with:"
            ' pip install "demucs>=4.1"'
        ) from error


def _undrawn(separator: nn.Module) -> nn.Module:
    """Keep the transformer from drawing a shift of its positions, always 0, from Python's global random."""
    transformer = cast(Any, separator).crosstransformer
    embedding = importlib.import_module("demucs.transformer").create_sin_embedding

    def positions(length: int, batch: int, width: int, device: torch.device) -> Tensor:
        return embedding(length, width, device=device, max_period=transformer.max_period)

    transformer._get_pos_embedding = positions
    return separator


def _read_safetensors(path: Path) -> tuple[State, dict[str, Any]]:
    state, notes = read_state_dict(path), read_metadata(path)
    try:
        settings = json.loads(notes["kwargs"]) if "kwargs" in notes else {}
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: its metadata is damaged ({error}); download it again") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path}: its metadata 'kwargs' is no table of settings; download it again")
    return state, {**settings, **{name: notes[name] for name in _PUBLISHED if name in notes}}


def _read_package(path: Path) -> tuple[State, dict[str, Any]]:
    """Tensors and settings of a torch file, whether it is a flat table or {klass, args, kwargs, state}."""
    with _ONE_AT_A_TIME, torch.serialization.safe_globals([_HTDemucs, _Fraction]):
        loaded = read_torch_object(path)
    package: dict[Any, Any] = loaded if isinstance(loaded, dict) else {"state_dict": loaded}
    if "klass" in package and (package["klass"] is not _HTDemucs or package.get("args")):
        raise CheckpointError(f"{path} is no HTDemucs as Meta publishes it; {_NEEDED}")
    state = package.get("state" if "klass" in package else "state_dict", package)
    settings = package.get("kwargs", {}) if "klass" in package else {}
    if not isinstance(settings, dict) or not _is_table(state):
        raise CheckpointError(f"{path} is no table of named tensors; {_NEEDED}")
    return state, settings


def _is_table(state: Any) -> bool:
    return isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    )


def _check_settings(settings: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError where a file asks for a network or stems other than ours."""
    for name, ours in _FIXED.items():
        if settings.get(name, ours) != ours:
            raise CheckpointError(
                f"{path} is another separator: its {name} is {settings[name]!r:.80}, not {ours!r}; {_NEEDED}"
            )
    sources = settings.get("sources", list(STEMS))
    if not isinstance(sources, list) or tuple(sources) not in (STEMS, (*STEMS[:3], "vocals")):
        raise CheckpointError(f"{path} splits into {sources}, not into {', '.join(STEMS)}; {_NEEDED}")


def _free_settings(settings: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Sample rate, segment and heads: the file's, else the published ones."""
    named = {**_PUBLISHED, **{name: settings[name] for name in _PUBLISHED if name in settings}}
    try:
        rate, heads, segment = int(named["samplerate"]), int(named["t_heads"]), _fraction(named["segment"])
        if rate < 2 or heads < 1 or not 1 <= segment * rate <= 2**31:
            raise ValueError("out of range")
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        found = ", ".join(f"{name} {settings[name]!r:.40}" for name in _PUBLISHED if name in settings)
        raise CheckpointError(f"{path} has settings that make no sense ({found}); {_NEEDED}") from error
    return {"samplerate": rate, "t_heads": heads, "segment": segment}


def _fraction(value: Any) -> Fraction:
    """Seconds, from a number, a text like 39/5, Meta's JSON or what stands for a pickled fraction."""
    if isinstance(value, dict):
        value = f"{value['numerator']}/{value['denominator']}"
    if isinstance(value, _Placeholder):
        value = "/".join(map(str, value.args))
    if isinstance(value, str) and not re.fullmatch(r"\d{1,9}(\.\d{1,9}|/\d{1,9})?", value):
        raise ValueError(f"{value!r:.40} is no number")  # 1e999999999 would take all memory
    return Fraction(value)


def _sizes(state: State, path: Path) -> dict[str, Any]:
    """Sizes of the network from the shapes of its weights."""
    try:
        depth = _count(state, r"encoder\.(\d+)\..+")
        widths = [state[f"encoder.{i}.conv.weight"].shape[0] for i in range(depth)]
        growth = widths[1] // widths[0] if depth > 1 else 2
        upsampler = state.get("channel_upsampler.weight")
        bottom = upsampler.shape[0] if upsampler is not None else 0
        hidden = state["crosstransformer.layers.0.linear1.weight"].shape[0]
        sizes = {
            "channels": widths[0],
            "growth": growth,
            "depth": depth,
            "nfft": 8 * state["freq_emb.embedding.weight"].shape[0],  # one bin in two, in groups of four
            "bottom_channels": bottom,
            "t_layers": _count(state, r"crosstransformer\.layers\.(\d+)\..+"),
            "t_hidden_scale": Fraction(hidden, bottom or widths[0] * growth ** (depth - 1)),
        }
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path} holds no HTDemucs network; {_NEEDED}") from error
    if depth > _MAX_DEPTH:
        raise CheckpointError(f"{path} has {depth} encoder layers, not 4; {_NEEDED}")
    return sizes


def _count(state: State, pattern: str) -> int:
    """How many different numbers stand in the names that match."""
    return len({match[1] for name in state if (match := re.fullmatch(pattern, name))})


def selftest_separator(seed: int = 0) -> nn.Module:
    """HTDemucs of tiny size with random weights: its stems are wrong, but they come the same way.

    Raises UserError without the package demucs.
    """
    sizes = {"channels": 8, "growth": 2, "depth": 4, "nfft": 4096, "bottom_channels": 16, "t_layers": 1}
    free = {**_PUBLISHED, "t_heads": 2, "t_hidden_scale": 2.0}
    with torch.device("meta"):
        separator = _network()(**{**_FIXED, **sizes, **free, "sources": list(STEMS)})
    generator = torch.Generator().manual_seed(seed)
    state = {name: _random(name, t.shape, generator) for name, t in separator.state_dict().items()}
    separator.load_state_dict(state, assign=True)
    return _undrawn(separator.eval().requires_grad_(False))


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if len(shape) == 1:
        return torch.full(shape, float(name.endswith(("weight", "scale"))))
    quiet = 0.02 if name.endswith("decoder.3.conv_tr.weight") else 1.0  # stems about as loud as recordings
    return quiet * torch.randn(shape, generator=generator) / shape[1:].numel() ** 0.5
