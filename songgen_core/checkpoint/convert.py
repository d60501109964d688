"""Published weight files -> safetensors that hold only what is used, under the published names.

Nothing is written before the source is known to be complete, and the new file appears complete or not at all.
"""

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..configs import VARIANTS, LeLMConfig
from ..errors import Cancelled, CheckpointError
from ..models.codec_encoder import CodecEncoder
from ..models.flow_renderer import FlowRenderer
from ..models.lelm import LeLM
from ..models.oobleck import OobleckVAE
from ..progress import IsCancelled, OnProgress, Progress, ignore_progress, never_cancelled
from ..text.bpe import QWEN2_FOLDER, TOKENIZER_NAMES, has_tokenizer, read_vocab_size
from .files import TORCH_SUFFIXES, read_metadata, read_state_dict
from .keymaps import CODEC_ENCODER, LELM, LM_PREFIX, RENDERER
from .layout import Kind, identify
from .lm_config import read_lm_config
from .load_encoder import codec_encoder_config, codec_encoder_state, has_prompt_encoder
from .loader import (
    State,
    assign,
    lelm_state,
    renderer_config,
    renderer_state,
    translate,
    vae_config,
    vae_state,
)

# File names when the target is a folder: those that `layout` looks for first.
_NAMES: dict[Kind, str] = {
    "lm": "model.safetensors",
    "codec": "model_2.safetensors",
    "vae": "autoencoder_music_1320k.safetensors",
}
# Training losses and tables that neither rendering nor the prompt encoder reads.
_UNUSED_CODEC = ("hubert.", "bestrq.model.rvq.", "cfm_wrapper.mlp.", "cfm_wrapper.estimator.wte.")
_COMPANIONS = ("config.yaml", *TOKENIZER_NAMES)
_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_MARGIN = 16_000_000  # bytes of free space beyond the tensors


@dataclass(frozen=True)
class Converted:
    """What was written; `dropped` counts tensors that nothing reads."""

    path: Path
    kind: Kind
    tensors: int
    dropped: int
    size: int


@dataclass(frozen=True)
class _Entry:
    """One tensor of the new file."""

    name: str
    tensor: Tensor
    dtype: torch.dtype

    @property
    def size(self) -> int:
        return self.tensor.numel() * self.dtype.itemsize


def convert(
    source: Path,
    target: Path,
    *,
    dtype: torch.dtype = torch.float16,
    overwrite: bool = False,
    converted_by: str = "SongGen",
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> Converted:
    """Write `source` to `target`, a .safetensors file or a folder for one.

    A song model is cast to `dtype` and takes its config.yaml and tokenizer along; the codec keeps its
    dtypes; the VAE becomes float32. Raises CheckpointError, Cancelled.
    """
    kind = _convertible(source)
    path = _target_file(kind, source, target, overwrite)
    companions = _companions(source, path, overwrite) if kind == "lm" else []
    state = read_state_dict(source)
    check_complete(kind, state, source)
    entries = [_entry(kind, name, tensor, dtype, source) for name, tensor in _kept(kind, state)]
    entries.sort(key=lambda e: (-e.dtype.itemsize, e.name))  # keeps every tensor aligned
    size = sum(e.size for e in entries)
    _check_space(path.parent, size)
    metadata = {**read_metadata(source), "format": "pt", "converted_by": converted_by}
    with _all_or_nothing(path) as hidden:
        _write(hidden / path.name, source, entries, metadata, on_progress, cancelled)
        for companion in companions:
            shutil.copyfile(companion, hidden / companion.name)
    return Converted(path, kind, len(entries), len(state) - len(entries), size)


def check_complete(kind: Kind | None, state: State, source: Path) -> None:
    """Raise CheckpointError unless `state` has every tensor that its network needs, in the right shape.

    A song model is held against the config.yaml beside it where there is one. Only shapes are looked at,
    but for the statistics of the codec. Other kinds than song model, codecs and VAE pass.
    """
    meta = {n: t if n.startswith("normfeat.") else t.to("meta") for n, t in state.items()}
    if kind == "lm":
        ours = lelm_state(meta, str(source))
        assign(LeLM, _lm_config(source, state, ours), ours, str(source), keymap=LELM)
    elif kind == "codec":
        ours = renderer_state(meta, str(source))
        config = renderer_config(ours, 1)  # the number of heads changes no shape
        assign(FlowRenderer, config, ours, str(source), keymap=RENDERER)
    if kind in ("codec", "mixed_codec") and (kind == "mixed_codec" or has_prompt_encoder(state)):
        ours, taps = codec_encoder_state(meta, str(source))
        config_of_encoder = codec_encoder_config(ours, taps)
        assign(CodecEncoder, config_of_encoder, ours, str(source), keymap=CODEC_ENCODER)
    if kind == "vae":
        ours = vae_state(meta, str(source), with_encoder=True)
        has_encoder = any(n.startswith("encoder.") for n in ours)
        assign(partial(OobleckVAE, with_encoder=has_encoder), vae_config(ours), ours, str(source))


def _lm_config(source: Path, state: State, ours: State) -> LeLMConfig:
    beside = source.parent / "config.yaml"
    if not beside.exists():
        return _lm_sizes(ours)
    shapes = {n.replace(LM_PREFIX, ""): tuple(t.shape) for n, t in state.items()}
    tokenizer = source.parent if has_tokenizer(source.parent) else QWEN2_FOLDER
    return read_lm_config(beside, shapes, read_vocab_size(tokenizer))


def _lm_sizes(ours: State) -> LeLMConfig:
    """A config with the sizes that shapes tell; the others change no shape. Published ones if damaged."""
    published = VARIANTS["v2-large"].lm
    layers = {
        part: {n.split(".")[2] for n in ours if n.startswith(f"{part}.layers.")} for part in ("main", "sub")
    }
    try:
        rows, width = ours["code_embeddings.0.weight"].shape
        return replace(
            published,
            hidden_size=width,
            intermediate_size=ours["main.layers.0.mlp.gate_proj.weight"].shape[0],
            num_attention_heads=1,
            num_hidden_layers=len(layers["main"]),
            num_hidden_layers_sub=len(layers["sub"]),
            lyrics_vocab_size=ours["conditioner.lyrics_embedding.weight"].shape[0],
            description_vocab_size=ours["conditioner.description_embedding.weight"].shape[0],
            num_structures=ours["conditioner.structure_embedding.weight"].shape[0],
            codebook_size=rows - 2,
        )
    except (KeyError, IndexError, ValueError):
        return published


def _convertible(source: Path) -> Kind:
    kind = identify(source)
    if kind in _NAMES:
        return kind
    raise CheckpointError(
        f"{source} is no published song model, two-track codec or VAE; only these can be converted"
        + (f" (it looks like a {kind})" if kind else "")
    )


def _target_file(kind: Kind, source: Path, target: Path, overwrite: bool) -> Path:
    if target.suffix in TORCH_SUFFIXES:
        raise CheckpointError(f"{target}: the new file must end in .safetensors; rename it or give a folder")
    is_file = target.suffix == ".safetensors" and not target.is_dir()
    path = Path(os.path.abspath(target if is_file else target / _NAMES[kind]))
    if path.parent.exists() and not path.parent.is_dir():
        raise CheckpointError(f"{path.parent} is a file; name a folder or a .safetensors file")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; choose another name")
    if path.exists() and path.samefile(source):
        raise CheckpointError(f"{path} is the source itself; choose another name")
    if path.exists() and not overwrite:
        raise CheckpointError(f"{path} exists; use --overwrite or choose another name")
    return path


def _companions(source: Path, path: Path, overwrite: bool) -> list[Path]:
    """Files beside a song model that it cannot do without, as far as they are not in place already."""
    found = []
    for old in (source.parent / name for name in _COMPANIONS):
        new = path.parent / old.name
        if not old.is_file() or (new.exists() and new.read_bytes() == old.read_bytes()):
            continue
        if new.exists() and not overwrite:
            raise CheckpointError(f"{new} exists and is another one; use --overwrite or an empty folder")
        found.append(old)
    return found


def _kept(kind: Kind, state: State) -> Iterator[tuple[str, Tensor]]:
    """Tensors that are read, under their published names."""
    prefix = LM_PREFIX if kind == "lm" and any(n.startswith(LM_PREFIX) for n in state) else ""
    for name, tensor in state.items():
        if kind == "lm":
            bare = name.removeprefix(prefix)
            foreign = not name.startswith(prefix) or "rotary_emb." in name
            if not foreign and translate(bare, LELM) is not None:
                yield LM_PREFIX + bare, tensor
        elif kind == "vae" or not name.startswith(_UNUSED_CODEC):
            yield name, tensor


def _entry(kind: Kind, name: str, tensor: Tensor, dtype: torch.dtype, source: Path) -> _Entry:
    if tensor.dtype not in _CODES:
        raise CheckpointError(f"{source}: {name} is {tensor.dtype}; convert the published file instead")
    if kind == "codec" or not tensor.is_floating_point():
        return _Entry(name, tensor, tensor.dtype)
    return _Entry(name, tensor, torch.float32 if kind == "vae" else dtype)


def _check_space(folder: Path, size: int) -> None:
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < size + _MARGIN:
        raise CheckpointError(
            f"{existing} has {free / 1e9:.2f} GB free, the new file takes {size / 1e9:.2f} GB;"
            " free some space or choose another folder"
        )


@contextmanager
def _all_or_nothing(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path`; what is in it at the end is moved there, after an error nothing is."""
    folder = path.parent
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".songgen-", dir=folder) as hidden:
            yield Path(hidden)
            for file in sorted(Path(hidden).iterdir()):
                os.replace(file, folder / file.name)
        is_new = False
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(
            f"{path} was not written ({reason}); free some space or choose another folder"
        ) from error
    finally:
        if is_new:
            with suppress(OSError):
                folder.rmdir()


def _write(
    path: Path,
    source: Path,
    entries: list[_Entry],
    metadata: dict[str, str],
    on_progress: OnProgress,
    cancelled: IsCancelled,
) -> None:
    """One tensor after the other, so that the model never lies in memory as a whole."""
    total, done = sum(e.size for e in entries), 0
    with path.open("xb") as file:
        file.write(_header(entries, metadata))
        for entry in entries:
            if cancelled():
                raise Cancelled("stopped by the user")
            file.write(_bytes(entry, source))
            done += entry.size
            on_progress(Progress("converting", done // 1_000_000, total // 1_000_000))
        file.flush()
        os.fsync(file.fileno())


def _header(entries: list[_Entry], metadata: dict[str, str]) -> bytes:
    table: dict[str, object] = {"__metadata__": metadata}
    start = 0
    for entry in entries:
        table[entry.name] = {
            "dtype": _CODES[entry.dtype],
            "shape": list(entry.tensor.shape),
            "data_offsets": [start, start + entry.size],
        }
        start += entry.size
    raw = json.dumps(table, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw


def _bytes(entry: _Entry, source: Path) -> memoryview:
    tensor = entry.tensor.to(entry.dtype)
    if tensor.dtype != entry.tensor.dtype and not tensor.isfinite().all() and entry.tensor.isfinite().all():
        raise CheckpointError(
            f"{source}: {entry.name} has values beyond the range of {entry.dtype}; use bfloat16 or float32"
        )
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
