"""The published repositories, complete but tiny, and the registry.json that names their sizes and hashes."""

import hashlib
import json
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import torch
from hub_server import HubServer
from layout_trees import save_presets, save_song_model, shared_files

from songgen_core.hub.registry import Registry, RemoteFile, published_registry

TOKENIZER_FILES = ("vocab.json", "merges.txt")  # the built-in tokenizer is too large for the tiny model


@cache
def tiny_files() -> dict[str, bytes]:
    """Path as published (under songgeneration_x/ for a variant's own) -> content."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        shared_files(root / "ckpt")
        save_separator(root / "third_party" / "demucs" / "ckpt" / "htdemucs.pth")
        save_presets(root / "tools" / "new_prompt.pt")
        save_song_model(root / "model.pt")
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def save_separator(path: Path) -> Path:
    """As Meta publishes it: the class of the network beside its weights."""
    module = ModuleType("demucs.htdemucs")
    module.HTDemucs = type("HTDemucs", (), {"__module__": module.__name__})
    state = {"crosstransformer.layers.0.gamma_1.scale": torch.ones(1)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with patch.dict(sys.modules, {"demucs": ModuleType("demucs"), module.__name__: module}):
        torch.save({"klass": module.HTDemucs, "args": (), "kwargs": {}, "state": state}, path)
    return path


def publish(hub: HubServer) -> Registry:
    """Serve every published file under its real repository and path; returns the real table."""
    published = published_registry()
    files = [file for release in published.releases.values() for file in release.files]
    for file in (*files, *published.shared.values()):
        prefix = "spaces/" if file.repo_type == "space" else ""
        hub.put(prefix + file.repo, file.path, tiny_files()[file.path])
    for release in published.releases.values():
        for name in TOKENIZER_FILES:
            hub.put(release.files[0].repo, name, tiny_files()[name])
    return published


def override(folder: Path, *, hashes: bool = True) -> Path:
    """`registry.json` in `folder`: the tiny files' sizes and hashes where the published table has some."""
    published = published_registry()
    tokenizer: dict[str, object] = {name: {} for name in TOKENIZER_FILES}
    variants = {
        name: {"files": {f.name: _entry(f, hashes) for f in release.files} | tokenizer}
        for name, release in published.releases.items()
    }
    shared = {kind: _entry(file, hashes) for kind, file in published.shared.items()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "registry.json"
    path.write_text(json.dumps({"variants": variants, "shared": shared}), encoding="utf-8")
    return path


def _entry(file: RemoteFile, hashes: bool) -> dict[str, object]:
    data = tiny_files()[file.path]
    known = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} if hashes else {}
    return {name: known.get(name) for name in ("bytes", "sha256") if getattr(file, name) is not None}
