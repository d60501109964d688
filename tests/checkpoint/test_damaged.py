"""Damaged and foreign files: one line that names the file and the remedy, and nothing in them is run."""

import errno
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoint_cases import codec_state, lm_state, needs_goldens, one_line, save, vae_weights

from songgen_core.checkpoint import files
from songgen_core.checkpoint.files import read_metadata, read_state_dict, tensor_shapes
from songgen_core.checkpoint.loader import load_lelm, load_renderer, load_vae
from songgen_core.configs import VARIANTS
from songgen_core.errors import CheckpointError

STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(1000)}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4808167708\n"
REMEDY = r"download|use the|use one of|name the file|get the file|choose the|check"
SUFFIXES = [".safetensors", ".pt", ".pth", ".ckpt", ".bin"]
TORCH_SUFFIXES = SUFFIXES[1:]


def refused(path: Path, match: str) -> str:
    """Every reader refuses `path` in the same words."""
    messages = set()
    for read in (read_state_dict, tensor_shapes):
        with pytest.raises(CheckpointError, match=match) as caught:
            read(path)
        messages.add(one_line(caught.value))
    (message,) = messages
    assert str(path) in message
    assert re.search(REMEDY, message), "tells no remedy"
    return message


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def zip_bytes(tmp_path: Path) -> bytes:
    return save(tmp_path / "whole.pt", STATE).read_bytes()


def old_torch_file(path: Path, content: object) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_not_there_yet(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    refused(path, "does not exist")
    refused(written(path, b""), "is empty")
    refused(written(path, POINTER), "Git-LFS pointer.*git lfs pull")
    path.unlink()
    path.mkdir()
    refused(path, "is a folder")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>404</html>",
        b"x",
        b"\x80",
        b"PK",
        "Zeile für Zeile\n".encode() * 99,
        bytes(range(7, 256)) * 20,
        b"\0" * 4096,
        b"\x80\x02" + bytes(range(256)) * 9,
        b"PK\x03\x04" + bytes(range(256)) * 9,
    ],
    ids=["html", "x", "x80", "PK", "text", "bytes", "zeros", "pickle-like", "zip-like"],
)
def test_files_of_other_content(suffix: str, content: bytes, tmp_path: Path) -> None:
    refused(written(tmp_path / f"model{suffix}", content), "is (no|damaged|cut short)")


def test_random_bytes_never_do_anything_but_fail(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for i in range(200):
        size = int(torch.randint(1, 300, (), generator=generator))
        content = bytes(torch.randint(0, 256, (size,), generator=generator).tolist())
        mark = (b"", b"\x80\x02", b"PK\x03\x04", b"\x10\0\0\0\0\0\0\0")[i % 4]
        for suffix in (".pt", ".safetensors"):
            path = written(tmp_path / f"{i}{suffix}", mark + content)
            with pytest.raises(CheckpointError) as caught:
                read_state_dict(path)
            assert one_line(caught.value)


def test_an_unknown_suffix(tmp_path: Path) -> None:
    path = written(tmp_path / "model.gguf", b"GGUF")
    refused(path, r"unknown kind of weight file '\.gguf'; use one of \.safetensors, \.pt")


# --- safetensors --------------------------------------------------------------------------------------


def safetensors_bytes(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def test_a_safetensors_file_cut_short(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.safetensors", STATE).read_bytes()
    for size in (4, 9, 60, 200, len(whole) - 1):
        message = refused(written(tmp_path / "cut.safetensors", whole[:size]), "cut short at")
        assert f"at {size:,} of " in message
    assert f"of {len(whole):,} bytes" in message


@pytest.mark.parametrize(
    "content",
    [
        safetensors_bytes(b"not json at all!"),
        safetensors_bytes(b"[" * 100_000),
        safetensors_bytes(b"\xff\xfe\xff\xfe"),
        safetensors_bytes([1, 2]),
        safetensors_bytes(None),
        safetensors_bytes({"a": 3}),
        safetensors_bytes({"a": {"dtype": "F32", "shape": [1]}}),
        safetensors_bytes({"a": {"dtype": "F32", "shape": None, "data_offsets": [0, 4]}}, b"1234"),
        safetensors_bytes({"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}, b"1234"),
        safetensors_bytes({"a": {"dtype": "F32", "shape": [1], "data_offsets": 4}}, b"1234"),
        safetensors_bytes({"a": {"dtype": "F32", "shape": [1], "data_offsets": []}}, b"1234"),
        safetensors_bytes(b"{}", length=2**63),
        safetensors_bytes(b"{}", length=2**64 - 1),
        safetensors_bytes(b"{}", length=0),
    ],
)
def test_a_bad_safetensors_header(content: bytes, tmp_path: Path) -> None:
    path = written(tmp_path / "model.safetensors", content)
    refused(path, "is no safetensors file|is damaged or cut short")
    with pytest.raises(CheckpointError):
        read_metadata(path)


@pytest.mark.parametrize(
    "entries",
    [
        {"a": ("F32", [2], [0, 8]), "b": ("F32", [2], [4, 12])},  # overlap
        {"a": ("F32", [2], [0, 8]), "b": ("F32", [1], [12, 16])},  # a gap
        {"a": ("F32", [3], [0, 8])},  # size and shape disagree
        {"a": ("F32", [2], [8, 0])},
        {"a": ("F32", [-2], [0, 8])},
        {"a": ("F32", [2**62, 4], [0, 8])},
        {"a": ("NEW9", [2], [0, 8])},
        {"a": ("F32", [1], [0, 4])},  # bytes that belong to no tensor
    ],
    ids=str,
)
def test_a_safetensors_header_that_lies(entries: dict, tmp_path: Path) -> None:
    header = {n: dict(zip(("dtype", "shape", "data_offsets"), entry)) for n, entry in entries.items()}
    path = written(tmp_path / "model.safetensors", safetensors_bytes(header, b"\0" * 16))
    with pytest.raises(CheckpointError, match="is damaged or cut short") as caught:
        read_state_dict(path)
    assert str(path) in one_line(caught.value)


def test_an_empty_but_whole_safetensors_file(tmp_path: Path) -> None:
    path = written(tmp_path / "model.safetensors", safetensors_bytes({"__metadata__": {"a": "b"}}))
    assert (read_state_dict(path), tensor_shapes(path), read_metadata(path)) == ({}, {}, {"a": "b"})
    with pytest.raises(CheckpointError, match="is not a LeVo song model"):
        load_lelm(path, VARIANTS["base"].lm)


# --- torch files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", TORCH_SUFFIXES)
def test_a_torch_file_cut_short(suffix: str, tmp_path: Path) -> None:
    whole = zip_bytes(tmp_path)
    for size in (5, 100, len(whole) // 2, len(whole) - 30):
        refused(written(tmp_path / f"cut{suffix}", whole[:size]), "is damaged or cut short")
    whole = old_torch_file(tmp_path / "old.pt", STATE).read_bytes()
    for size in (20, len(whole) // 2, len(whole) - 30):
        refused(written(tmp_path / f"cut{suffix}", whole[:size]), "damaged")


def test_a_torch_file_with_a_hole(tmp_path: Path) -> None:
    whole = bytearray(zip_bytes(tmp_path))
    whole[60:200] = b"\0" * 140
    refused(written(tmp_path / "hole.pt", bytes(whole)), "damaged")


@pytest.mark.parametrize("members", [{}, {"readme.txt": "hello"}, {"model/readme.txt": "hello"}])
def test_a_zip_that_is_no_torch_file(members: dict, tmp_path: Path) -> None:
    path = tmp_path / "archive.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    refused(path, "is no PyTorch file|is damaged or cut short")


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


SAVERS: dict[str, Callable] = {
    "zip": torch.save,
    "old": old_torch_file,
    "pickle2": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
    "pickle5": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=5)),
    "pickle0": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=0)),
}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("form", SAVERS)
def test_code_in_a_pickle_is_not_run(form: str, wrapped: bool, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "model.pt"
    content = {**STATE, "attack": Attack(marker)}
    if form == "old":
        old_torch_file(path, {"state_dict": content} if wrapped else content)
    else:
        content = content if form == "zip" else {"attack": Attack(marker)}
        SAVERS[form]({"state_dict": content} if wrapped else content, path)
    refused(path, "Python objects besides tensors, which can run code|is no PyTorch file")
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        [torch.ones(2)],
        torch.ones(2),
        3,
        "text",
        None,
        {"model": {"a": torch.ones(2)}},
        {"a": torch.ones(2), "epoch": 3},
        {"state_dict": [torch.ones(2)]},
        {"state_dict": {"a": {"b": torch.ones(2)}}},
        {0: torch.ones(2)},
        {"Pop": {"zh": [torch.ones(1, 3, 2)], "en": []}},
    ],
    ids=str,
)
def test_a_torch_file_of_another_structure(content: object, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(content, path)
    refused(path, "is no table of named tensors")
    refused(old_torch_file(path, content), "is no table of named tensors")


# --- the machine's own troubles -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_permission_denied(name: str, tmp_path: Path, monkeypatch) -> None:
    path = save(tmp_path / name, STATE)

    def denied(self, *args, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", denied)
    refused(path, "permission denied")


READERS = {"model.safetensors": "safe_open", "model.pt": "torch.load"}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (MemoryError(), MemoryError),
        (OSError(errno.ENOSPC, "No space left on device"), OSError),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), MemoryError),
        (OSError("the network drive is gone"), OSError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), MemoryError),
        (RuntimeError("unable to mmap 9 bytes from file <x>: Cannot allocate memory (12)"), MemoryError),
    ],
    ids=str,
)
def test_trouble_of_the_machine_keeps_its_kind_and_gains_the_name(
    name: str, trouble: Exception, kind: type, tmp_path: Path, monkeypatch
) -> None:
    """A full disk is no reason to download twelve gigabytes again."""
    path = save(tmp_path / name, STATE)

    def fail(*args, **options):
        raise trouble

    target = files if READERS[name] == "safe_open" else torch
    monkeypatch.setattr(target, READERS[name].removeprefix("torch."), fail)
    with pytest.raises(kind) as caught:
        read_state_dict(path)
    assert not isinstance(caught.value, CheckpointError)
    assert str(path) in str(caught.value)
    if kind is OSError:
        assert caught.value.errno == trouble.errno and trouble.args[-1] in str(caught.value)


# --- bad values ---------------------------------------------------------------------------------------


@needs_goldens
@pytest.mark.parametrize("name", ["counts", "sum_x", "sum_x2"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_statistics_that_are_not_finite(name: str, value: float, tmp_path: Path) -> None:
    state = codec_state()
    state[f"normfeat.{name}"][0] = value
    path = save(tmp_path / "codec.safetensors", state)
    with pytest.raises(CheckpointError, match=f"normfeat.{name} is not finite") as caught:
        load_renderer(path, num_attention_heads=2)
    assert str(path) in one_line(caught.value)


@needs_goldens
def test_statistics_that_overflow_in_half_precision(tmp_path: Path) -> None:
    state = codec_state()
    state["normfeat.counts"] = torch.tensor([123_456.0]).half()
    with pytest.raises(CheckpointError, match="half-precision"):
        load_renderer(save(tmp_path / "codec.safetensors", state), num_attention_heads=2)


@needs_goldens
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_weights_of_whole_numbers_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    """A quantised file without its scales would load as noise."""
    codec, vae = codec_state(), vae_weights()
    codec["mask_emb.weight"] = codec["mask_emb.weight"].to(dtype)
    with pytest.raises(CheckpointError, match=f"not of a floating-point kind .*mask_emb.weight {dtype}"):
        load_renderer(save(tmp_path / "codec.safetensors", codec), num_attention_heads=2)
    vae["decoder.layers.0.weight_v"] = vae["decoder.layers.0.weight_v"].to(dtype)
    with pytest.raises(CheckpointError, match=f"decoder.layers.0.weight_g .* {dtype}"):
        load_vae(save(tmp_path / "vae.ckpt", vae))


@needs_goldens
def test_a_song_model_given_as_another_part_and_back(tmp_path: Path) -> None:
    lm, codec = save(tmp_path / "lm.pt", lm_state()), save(tmp_path / "codec.pt", codec_state())
    for load in (load_vae, load_renderer):
        with pytest.raises(CheckpointError, match="is not the"):
            load(lm)
    with pytest.raises(CheckpointError, match="is not a LeVo song model"):
        load_lelm(codec, VARIANTS["base"].lm)
