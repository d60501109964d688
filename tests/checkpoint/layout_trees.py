"""Folders as people have them (packaging 8), small."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from checkpoint_cases import (
    lm_state,
    mixed_codec_state,
    save,
    save_codec,
    save_song_model,
    save_vae,
    without_prefix,
)


def save_mixed_codec(path: Path) -> Path:
    return save(path, mixed_codec_state())


def save_separator(path: Path) -> Path:
    """As published: objects besides tensors, which we refuse to open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"klass": Path, "state": {"crosstransformer.layers.0.gamma_1.scale": torch.ones(1)}}, path)
    return path


def save_presets(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"Pop": {"zh": [torch.zeros(1, 3, 8)], "en": [torch.zeros(1, 3, 8)]}}, path)
    return path


def save_fused(path: Path) -> Path:
    """A fork's conversion: no prefix, one matrix for q, k, v and one for gate and up."""
    state = {}
    for name, tensor in without_prefix(lm_state()).items():
        fused = name.replace("q_proj", "qkv_proj").replace("gate_proj", "gate_up_proj")
        if not any(part in name for part in ("k_proj", "v_proj", "up_proj")):
            state[fused] = tensor.half()
    return save(path, state)


def shared_files(ckpt: Path, suffix: str = "") -> None:
    """ckpt/{model_1rvq,model_septoken,vae}: the mixed codec sorts before the two-track one."""
    save_mixed_codec(ckpt / "model_1rvq" / f"model_2_fixed{suffix}.safetensors")
    save_codec(ckpt / "model_septoken" / f"model_2{suffix}.safetensors")
    save_vae(ckpt / "vae" / "autoencoder_music_1320k.ckpt")


def upstream(m: Path) -> tuple[str, Path]:
    shared_files(m / "ckpt")
    save_separator(m / "third_party" / "demucs" / "ckpt" / "htdemucs.pth")
    save_presets(m / "tools" / "new_auto_prompt.pt")
    save_song_model(m / "songgeneration_v2_large" / "model.pt")
    return "songgeneration_v2_large", m / "songgeneration_v2_large" / "model.pt"


def smthemex_nested(m: Path) -> tuple[str, Path]:
    shared_files(m / "SongGeneration" / "ckpt")
    save_separator(m / "SongGeneration" / "htdemucs.pth")
    (m / "SongGeneration" / "ckpt" / "encode-s12k.pt").write_bytes(os.urandom(500))
    save_presets(m / "SongGeneration" / "ckpt" / "prompt.pt")
    path = save_song_model(m / "SongGeneration" / "ckpt" / "songgeneration_base" / "model.pt")
    return "songgeneration_base", path


def smthemex_flat(m: Path) -> tuple[str, Path]:
    folder = m / "SongGeneration"
    save_separator(folder / "htdemucs.pth")
    for name in ("prompt.pt", "new_prompt.pt", "new_auto_prompt.pt"):
        save_presets(folder / name)
    save_mixed_codec(folder / "model_2_fixed.safetensors")
    save_codec(folder / "model_2.safetensors")
    save_vae(m / "vae" / "autoencoder_music_1320k.ckpt")
    (m / "gguf").mkdir()
    (m / "gguf" / "large_model_v2_Q8_0.gguf").write_bytes(b"GGUF")
    save_song_model(folder / "new_model.pt", config=False)
    return "large_model_v2", save_song_model(folder / "large_model_v2.pt", config=False)


def eastmoe(m: Path) -> tuple[str, Path]:
    folder = m / "SongGeneration"
    shared_files(folder / "common")
    save_separator(folder / "third_party" / "demucs" / "ckpt" / "htdemucs.pth")
    save_presets(folder / "tools" / "new_auto_prompt.pt")
    save_song_model(folder / "SongGeneration-base-full" / "model.pt")
    return "SongGeneration-v2-large", save_song_model(folder / "SongGeneration-v2-large" / "model.pt")


def filliptm(m: Path) -> tuple[str, Path]:
    folder = m / "songgen"
    shared_files(folder / "ckpt")
    save_presets(folder / "ckpt" / "new_prompt.pt")
    save_separator(folder / "ckpt" / "demucs" / "htdemucs.pth")
    return "base_new", save_song_model(folder / "base_new" / "model.pt")


def hyukudan(m: Path) -> tuple[str, Path]:
    filliptm(m)
    (m / "songgen" / "base_new" / "model.pt").unlink()
    path = m / "songgen" / "base_new" / "model.safetensors"
    return "base_new", save_song_model(path, state=without_prefix(lm_state()))


LAYOUTS: list[Callable[[Path], tuple[str, Path]]] = [
    upstream,
    smthemex_nested,
    smthemex_flat,
    eastmoe,
    filliptm,
    hyukudan,
]
