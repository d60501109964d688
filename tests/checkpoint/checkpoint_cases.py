"""Tiny published-style files, made from the recorded models, for the tests of this folder."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

SHARED = Path(os.environ.get("SONGGEN_SHARED", Path(__file__).parents[3] / "shared"))
GOLDENS, MANIFESTS = SHARED / "goldens", SHARED / "manifests"
TOKENIZER = GOLDENS / "lelm" / "tiny_tokenizer"
RENDERER_HEADS = 2
TINY_VOCAB = 520

needs_goldens = pytest.mark.skipif(not GOLDENS.is_dir(), reason=f"no recorded models in {GOLDENS}")
needs_manifests = pytest.mark.skipif(not MANIFESTS.is_dir(), reason=f"no manifests in {MANIFESTS}")


def manifest(name: str, part: str = "variants") -> dict:
    """The variants of a manifest; empty if it is not there, so that parametrising does not fail."""
    path = MANIFESTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))[part] if path.exists() else {}


def lm_state(version: str = "v2") -> dict[str, Tensor]:
    return load_file(GOLDENS / "lelm" / f"model_tiny_{version}" / "weights.safetensors")


def lm_settings(version: str = "v2") -> dict:
    text = (GOLDENS / "lelm" / f"model_tiny_{version}" / "config.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def codec_state() -> dict[str, Tensor]:
    """The recorded renderer with codebooks cut to the codes that the recorded language model writes."""
    state = load_file(GOLDENS / "renderer" / "_weights" / "model.safetensors")
    num_codes = lm_settings()["lm"]["code_size"]
    return {n: t[:num_codes].clone() if n.endswith("codebook.weight") else t for n, t in state.items()}


def vae_weights() -> dict[str, Tensor]:
    """The recorded VAE with twice its latent channels, as many as the recorded renderer has."""
    state = load_file(GOLDENS / "vae" / "real_strides" / "weights.safetensors")
    first, last = "decoder.layers.0.weight_v", "encoder.layers.7"
    state[first] = torch.cat([state[first]] * 2, dim=1)
    for name in (f"{last}.weight_v", f"{last}.weight_g", f"{last}.bias"):
        state[name] = torch.cat([state[name]] * 2)
    return state


def shapes_of(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix("audiolm."): tuple(t.shape) for name, t in state.items()}


def without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("audiolm."): t for name, t in state.items()}


def mixed_codec_state() -> dict[str, Tensor]:
    return {n: t for n, t in codec_state().items() if "bgm" not in n}


def save(path: Path, state: dict[str, Tensor], **metadata: str) -> Path:
    """Save in the format that the suffix of `path` stands for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({n: t.contiguous() for n, t in state.items()}, path, metadata or None)
    else:
        torch.save(state, path)
    return path


def save_settings(path: Path, settings: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def save_song_model(
    path: Path, *, config: bool = True, state: dict | None = None, tokenizer: bool = True
) -> Path:
    """A tiny song model at `path`, with its tokenizer (the built-in one is too large for it) and config."""
    save(path, state or lm_state())
    if config:
        save_settings(path.parent / "config.yaml", lm_settings())
    for name in ("vocab.json", "merges.txt") if tokenizer else ():
        shutil.copyfile(TOKENIZER / name, path.parent / name)
    return path


def save_codec(path: Path) -> Path:
    return save(path, codec_state(), num_attention_heads=str(RENDERER_HEADS))


def save_vae(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": vae_weights()}, path)
    return path


def assert_same_network(first: torch.nn.Module, second: torch.nn.Module, atol: float = 0.0) -> None:
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=atol, atol=atol, msg=name)


def one_line(error: BaseException) -> str:
    """The message, which must be one line."""
    text = str(error)
    assert text and "\n" not in text, text
    return text
