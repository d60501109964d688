"""Songs as codes on the disk: a safetensors file with `codes` [1, 3, T] and notes on where they come from."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .atomic import complete_or_nothing
from .configs import FRAME_RATE
from .errors import UserError

SUFFIX = ".safetensors"
_FORMAT, _VERSION = "songgen-codes", "1"
_OWN_NOTES = {"format": _FORMAT, "format_version": _VERSION, "frame_rate": str(FRAME_RATE)}


def save_codes(path: str | os.PathLike[str], codes: Tensor, notes: Mapping[str, str] | None = None) -> Path:
    """Write codes [1, 3, T] int64 (rows mixed, vocal, accompaniment; 25 frames per second).

    `notes` are kept in the header. The file is there complete or not at all. Raises UserError.
    """
    path = Path(os.path.abspath(path))
    if path.suffix != SUFFIX:
        raise UserError(f"{path.name}: a file of codes must end in {SUFFIX}; rename it")
    if path.is_dir():
        raise UserError(f"{path} is a folder; add a file name")
    _check_shape(codes, str(path))
    streams = {"streams": "mixed,vocal,bgm", "seconds": f"{codes.shape[-1] / FRAME_RATE:.2f}"}
    # Names of files may hold bytes that are no UTF-8, which the header must be.
    texts = {name: text.encode("utf-8", "replace").decode() for name, text in (notes or {}).items()}
    metadata = {**texts, **_OWN_NOTES, **streams}
    try:
        with complete_or_nothing(path) as temporary:
            # Not save_file: what that writes is readable by its owner only.
            temporary.write_bytes(save({"codes": codes.to("cpu", torch.int32).contiguous()}, metadata))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be written ({error}); check free space and permissions") from error
    return path


def is_codes_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file says of itself that it holds codes; they may be damaged all the same."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == _FORMAT
    except (SafetensorError, OSError, ValueError):
        return False


def load_codes(path: str | os.PathLike[str]) -> tuple[Tensor, dict[str, str]]:
    """Codes [1, 3, T] int64 and the notes of a file of codes. Raises UserError."""
    path = Path(path)
    try:
        if not path.is_file():
            raise UserError(f"{path}: no such file of codes; check the name and the folder")
        with safe_open(path, framework="pt") as file:
            notes = dict(file.metadata() or {})
            codes = file.get_tensor("codes") if "codes" in set(file.keys()) else None
    except UserError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or no file of codes ({error}); make it again") from error
    if codes is None or notes.get("format") != _FORMAT:
        raise UserError(f"{path} is no file of codes; 'songgen encode' and the Save Tokens node write such")
    if notes.get("format_version") != _VERSION:
        raise UserError(f"{path} was written by a newer version of SongGen; update it")
    _check_shape(codes, str(path))
    return codes.long(), notes


def _check_shape(codes: Tensor, source: str) -> None:
    if codes.ndim != 3 or codes.shape[:2] != (1, 3) or codes.shape[-1] == 0 or codes.is_floating_point():
        shape = list(codes.shape)
        raise UserError(f"{source}: codes are {codes.dtype} of shape {shape}; they must be [1, 3, frames]")
