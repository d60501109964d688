"""Reading weight files without running anything from them, and saying what is wrong with a bad one."""

import json
import pickle
import struct
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError

TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")
_LFS_MARK = b"version https://git-lfs"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors, .pt, .pth, .ckpt or .bin file, memory-mapped where the format allows.

    Accepts a `state_dict` wrapper. Never unpickles anything but tensors. Raises CheckpointError.
    """
    check_file(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in TORCH_SUFFIXES:
        return _read_torch(path)
    allowed = ", ".join((".safetensors", *TORCH_SUFFIXES))
    raise CheckpointError(f"{path}: unknown kind of weight file '{path.suffix}'; use one of {allowed}")


def check_file(path: Path) -> None:
    """Raise CheckpointError for a missing file, a folder, an empty file or a Git-LFS pointer."""
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; check the spelling or download the model")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; name the weight file in it")
    try:
        with path.open("rb") as file:
            head = file.read(len(_LFS_MARK))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if not head:
        raise CheckpointError(f"{path} is empty; the download failed, so delete it and download it again")
    if head == _LFS_MARK:
        raise CheckpointError(
            f"{path} is a Git-LFS pointer, not the file itself; run 'git lfs pull' or download the real file"
        )


def safetensors_header(path: Path) -> dict[str, dict]:
    """Names -> {dtype, shape, data_offsets} of a safetensors file; raises CheckpointError if it is cut short."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= 100_000_000:
            raise CheckpointError(f"{path} is not a safetensors file; download it again")
        raw = file.read(length)
    if len(raw) < length:
        raise _truncated(path, size, 8 + length)
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise CheckpointError(f"{path} has a damaged safetensors header; download it again") from error
    header.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size < end:
        raise _truncated(path, size, end)
    return header


def _truncated(path: Path, size: int, expected: int) -> CheckpointError:
    return CheckpointError(
        f"{path} is cut short: {size:,} of {expected:,} bytes; the download did not finish, so delete it and"
        " download it again"
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    safetensors_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}); download it again") from error


def _read_torch(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    is_zip = zipfile.is_zipfile(path)
    try:
        loaded = torch.load(path, map_location=device, weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds Python objects besides tensors, which could run code, and is refused; "
            "get the file from its publisher or convert it to safetensors there"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = "cut short or damaged" if not is_zip else f"damaged ({str(error).splitlines()[0]})"
        raise CheckpointError(f"{path} is {reason}; delete it and download it again") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path} is not a table of tensors; it is no model file of this family")
    return state


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes without reading the weights. Raises CheckpointError."""
    check_file(path)
    if path.suffix == ".safetensors":
        return {name: tuple(entry["shape"]) for name, entry in safetensors_header(path).items()}
    return {name: tuple(t.shape) for name, t in _read_torch(path, "meta").items()}
