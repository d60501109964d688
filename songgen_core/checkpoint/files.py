"""Reading weight files without running anything from them, and saying what is wrong with a bad one."""

import errno
import json
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import CheckpointError

Shapes = dict[str, tuple[int, ...]]

TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".th")
WEIGHT_SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
_LFS_MARK = b"version https://git-lfs"
_ZIP_MARK, _PICKLE_MARK = b"PK\x03\x04", b"\x80\x02"  # torch.save since 1.6, and before
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format
# Before 2.6 `weights_only=True` had a hole (CVE-2025-32434).
_TORCH_VERSION = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
_AGAIN = "delete it and download it again"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors, .pt, .pth, .ckpt or .bin file, by name.

    Tensors are views of the mapped file: one that nobody touches costs no memory (only torch files older
    than the zip format are read whole). Accepts a `state_dict` wrapper. Never unpickles anything but
    tensors. Raises CheckpointError.
    """
    _check_weight_file(path)
    if path.suffix != ".safetensors":
        return _read_torch(path, "cpu")
    _read_header(path)
    with _explained(path), safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def tensor_shapes(path: Path) -> Shapes:
    """Names and shapes without reading the weights. Raises CheckpointError."""
    _check_weight_file(path)
    if path.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in _read_torch(path, "meta").items()}
    header = _read_header(path)
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def read_metadata(path: Path) -> dict[str, str]:
    """The notes in the header of a .safetensors file; torch files have none. Raises CheckpointError."""
    _check_weight_file(path)
    return _read_header(path).get("__metadata__", {}) if path.suffix == ".safetensors" else {}


def check_file(path: Path) -> None:
    """Raise CheckpointError for a missing or forbidden file, a folder, an empty file or a Git-LFS pointer."""
    try:
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder; name the file in it")
        with path.open("rb") as file:
            head = file.read(len(_LFS_MARK))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; check the spelling or download the model") from error
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read (permission denied); check its permissions") from error
    if not head:
        raise CheckpointError(f"{path} is empty: the download failed; {_AGAIN}")
    if head == _LFS_MARK:
        raise CheckpointError(
            f"{path} is a Git-LFS pointer, not the file itself; run 'git lfs pull' or download the real file"
        )


def _check_weight_file(path: Path) -> None:
    check_file(path)
    if path.suffix not in WEIGHT_SUFFIXES:
        allowed = ", ".join(WEIGHT_SUFFIXES)
        raise CheckpointError(f"{path}: unknown kind of weight file '{path.suffix}'; use one of {allowed}")


def _read_header(path: Path) -> dict[str, dict]:
    """Names -> {dtype, shape, data_offsets} of a safetensors file, and `__metadata__`."""
    size = path.stat().st_size
    with _explained(path), path.open("rb") as file:
        end = 8 + int.from_bytes(file.read(8), "little")
        if end > _MAX_HEADER:
            raise CheckpointError(f"{path} is no safetensors file (perhaps a web page or a text); {_AGAIN}")
        _check_size(path, size, end)
        header = json.loads(file.read(end - 8))
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        _check_size(path, size, end + max((int(entry["data_offsets"][1]) for entry in tensors), default=0))
        for entry in tensors:
            entry["shape"] = [int(n) for n in entry["shape"]]
    return header


def _check_size(path: Path, size: int, expected: int) -> None:
    if size < expected:
        raise CheckpointError(
            f"{path} is cut short at {size:,} of {expected:,} bytes: the download did not finish; {_AGAIN}"
        )


def _read_torch(path: Path, device: str) -> dict[str, Tensor]:
    loaded = read_torch_object(path, device)
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise CheckpointError(f"{path} is no table of named tensors; choose the model's own weight file")
    return state


def read_torch_object(path: Path, device: str = "cpu") -> Any:
    """Whatever plain data (tensors, dictionaries, lists, numbers, strings) a file of torch.save holds.

    On the device "meta" tensors have shapes and no values. Raises CheckpointError.
    """
    _check_weight_file(path)
    with path.open("rb") as file:
        mark = file.read(len(_ZIP_MARK))
    if not mark.startswith((_ZIP_MARK, _PICKLE_MARK)):
        raise CheckpointError(f"{path} is no PyTorch file (perhaps a web page or a text); {_AGAIN}")
    if _TORCH_VERSION < (2, 6):
        raise CheckpointError(
            f"{path}: torch {torch.__version__} can be tricked by such a file into running code;"
            " update torch to 2.6 or newer, or use the model as .safetensors"
        )
    with _explained(path):
        return torch.load(path, map_location=device, weights_only=True, mmap=mark == _ZIP_MARK)


def classes_in(path: Path) -> list[str]:
    """Names of the classes that a file of torch.save refers to besides plain data; runs none of them."""
    with _explained(path):
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Damage of `path` -> CheckpointError; trouble of the machine keeps its kind and gains the name."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # a damaged archive or pickle may raise anything
        raise _explanation(path, error) from error


def _explanation(path: Path, error: Exception) -> Exception:
    reason = str(error).partition("\n")[0][:120]
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return MemoryError(f"not enough memory to read {path} ({reason})")
    if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which torch raises for a short archive
        return OSError(error.errno, error.strerror or reason, str(path))
    if isinstance(error, pickle.UnpicklingError):
        return CheckpointError(
            f"{path} is damaged or holds Python objects besides tensors, which can run code, and is refused;"
            " get the file from its publisher, best as .safetensors"
        )
    return CheckpointError(f"{path} is damaged or cut short ({reason}); {_AGAIN}")
