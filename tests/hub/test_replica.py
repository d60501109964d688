"""A complete tiny replica of the published repositories: downloaded, found where it lies, loaded, sung."""

import json
from pathlib import Path

import layout_trees
import pytest
import torch
from checkpoint_cases import needs_goldens, save_codec, save_song_model
from hub_server import IMPATIENT
from layout_trees import LAYOUTS, save_vae, shared_files, smthemex_flat
from replica import override, publish, save_separator, tiny_files

from songgen_core import SongPipeline
from songgen_core.checkpoint.layout import find_model, find_shared, identify, list_models
from songgen_core.checkpoint.load_model import load_networks
from songgen_core.configs import VARIANTS
from songgen_core.hub.download import download, plan_download
from songgen_core.hub.licence import accept
from songgen_core.hub.registry import FEATURES

pytestmark = needs_goldens
ALL = tuple(FEATURES)


@pytest.fixture(autouse=True)
def separator(monkeypatch) -> None:
    monkeypatch.setattr(layout_trees, "save_separator", save_separator)


@pytest.fixture
def root(hub, tmp_path) -> Path:
    """An empty models folder, deep enough to be alone, whose licence is accepted."""
    publish(hub)
    root = tmp_path / "disk" / "home" / "models"
    override(root)
    accept(root)
    return root


def get(variant: str, root: Path, features=ALL) -> list[Path]:
    return download(plan_download(variant, features, root), patience=IMPATIENT)


def test_all_of_a_variant(root, hub):
    new = get("v2-medium", root)
    assert {p.relative_to(root).as_posix() for p in new} == {
        *(f"songgeneration_v2_medium/{n}" for n in ("config.yaml", "model.pt", "vocab.json", "merges.txt")),
        "ckpt/model_septoken/model_2.safetensors",
        "ckpt/model_1rvq/model_2_fixed.safetensors",
        "ckpt/vae/autoencoder_music_1320k.ckpt",
        "third_party/demucs/ckpt/htdemucs.pth",
        "tools/new_auto_prompt.pt",
    }
    for kind in ("codec", "mixed_codec", "vae", "separator", "presets"):
        assert identify(find_shared(kind, [root])) == kind
    pinned = [s.path for s in hub.seen if "v2-medium" in s.path]
    assert pinned and all("/resolve/7d91660ebfa041e29bace194f5631e775796f600/" in path for path in pinned)
    assert plan_download("v2-medium", ALL, root).missing == ()


def test_what_was_downloaded_loads_and_sings(root):
    get("v2-medium", root, ())
    plan = plan_download("v2-medium", (), root)
    files = find_model(plan.model_name, [root])
    assert files.weights == plan.weights and files.config is not None
    load_networks(files, torch.float32)
    song = SongPipeline.from_pretrained(plan.model_name, roots=[root], device="cpu").generate(
        "[verse]\nla la la\n", seed=1, duration=1
    )
    assert song.audio["mixed"].shape[:2] == (1, 2) and song.audio["mixed"].abs().max() > 0


def test_every_variant_shares_the_shared_files(root, hub):
    for name in VARIANTS:
        get(name, root, ())
    assert len(list_models([root])) == len(VARIANTS)
    assert len([s for s in hub.gets("model_2.safetensors") if s.is_cdn]) == 1


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_what_people_have_is_not_downloaded(layout, root, hub, tmp_path):
    """Under another root, in the layout of another program; the model's folder is named as published."""
    other = tmp_path / "other" / "place" / "models"
    path = layout(other)[1]
    if path.stem == "model":
        path.parent.rename(path.parent.with_name("SongGeneration-v2-medium"))
    else:
        path.rename(path.with_name("v2_medium.pt"))
    plan = plan_download("v2-medium", ALL, root, [other])
    assert plan.missing == () and plan.total_bytes == 0, plan
    assert all(other in found.parents for found in plan.found.values())
    assert download(plan) == [] and hub.seen == []
    files = find_model(plan.model_name, [root, other])
    assert files.weights == plan.weights


def test_only_what_is_missing_is_downloaded(root, tmp_path, hub):
    other = tmp_path / "other" / "place" / "models"
    smthemex_flat(other)
    new = get_from(root, other)
    assert {p.name for p in new} == {"config.yaml", "model.pt", "vocab.json", "merges.txt"}
    files = find_model("songgeneration_v2_medium", [root, other])
    assert other in files.codec.parents
    load_networks(files, torch.float32)


def get_from(root: Path, other: Path) -> list[Path]:
    return download(plan_download("v2-medium", ["prompts"], root, [other]), patience=IMPATIENT)


def test_a_slim_codec_in_our_own_place_is_left_alone(root):
    """Two generations of codecs are published under one name and of different size."""
    override(root, hashes=False)
    path = save_codec(root / "ckpt" / "model_septoken" / "model_2.safetensors")
    registry = json.loads((root / "registry.json").read_text())
    registry["shared"]["codec"]["bytes"] = 4_808_167_708
    (root / "registry.json").write_text(json.dumps(registry))
    plan = plan_download("v2-medium", (), root)
    assert plan.found["ckpt/model_septoken/model_2.safetensors"] == path
    path.write_bytes(path.read_bytes()[:-1000])
    plan = plan_download("v2-medium", (), root)
    assert "ckpt/model_septoken/model_2.safetensors" in {f.target for f in plan.missing}


def test_a_song_model_of_another_size_is_an_old_one(root):
    path = save_song_model(root / "songgeneration_v2_medium" / "model.pt")
    assert plan_download("v2-medium", (), root).weights == path
    path.write_bytes(path.read_bytes() + b"\0")
    plan = plan_download("v2-medium", (), root)
    assert "model.pt" in {f.name for f in plan.missing}
    download(plan, patience=IMPATIENT)
    assert path.read_bytes() == tiny_files()["model.pt"]


def test_a_converted_song_model_in_our_own_folder_is_found(root):
    path = save_song_model(root / "songgeneration_v2_medium" / "model.safetensors")
    plan = plan_download("v2-medium", (), root)
    assert plan.weights == path and "model.pt" not in {f.name for f in plan.missing}


def test_damaged_files_elsewhere_do_not_count(root, tmp_path):
    other = tmp_path / "other" / "place" / "models"
    shared_files(other / "ckpt")
    save_separator(other / "htdemucs.pth")
    broken = save_song_model(other / "songgeneration_v2_medium" / "model.pt")
    broken.write_bytes(broken.read_bytes()[:-2000])
    (other / "ckpt" / "vae" / "autoencoder_music_1320k.ckpt").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\n"
    )
    missing = {f.name for f in plan_download("v2-medium", ["prompts"], root, [other]).missing}
    assert {"model.pt", "autoencoder_music_1320k.ckpt"} < missing
    assert not {"model_2.safetensors", "htdemucs.pth"} & missing


def test_missing_settings_beside_our_own_weights_are_added(root):
    get("v2-medium", root, ())
    (root / "songgeneration_v2_medium" / "config.yaml").unlink()
    assert [p.name for p in get("v2-medium", root, ())] == ["config.yaml"]


def test_the_vae_folder_of_comfyui_is_looked_into(root):
    """models/vae lies beside models/songgen."""
    save_vae(root.parent / "vae" / "autoencoder_music_1320k.ckpt")
    assert "ckpt/vae/autoencoder_music_1320k.ckpt" in plan_download("v2-medium", (), root).found


def test_a_variant_of_the_future(root, hub):
    """Not in the registry: the override names it; its config.yaml tells the rest."""
    for name in ("config.yaml", "model.pt", "vocab.json", "merges.txt"):
        hub.put("lglg666/SongGeneration-v2-fast", name, tiny_files()[name])
    registry = json.loads((root / "registry.json").read_text())
    registry["variants"]["v2-fast"] = {
        "repo": "lglg666/SongGeneration-v2-fast",
        "files": {"vocab.json": {}, "merges.txt": {}},
    }
    (root / "registry.json").write_text(json.dumps(registry))
    get("v2-fast", root, ())
    load_networks(find_model("songgeneration_v2_fast", [root]), torch.float32)
    assert plan_download("v2-fast", (), root).missing == ()
