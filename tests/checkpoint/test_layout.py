"""Every way in which people have the files on their disks (packaging 8), as small trees."""

import os
import time
import weakref
from pathlib import Path

import pytest
import torch
from checkpoint_cases import (
    lm_state,
    needs_goldens,
    one_line,
    save,
    save_codec,
    save_song_model,
    save_vae,
    vae_weights,
)
from layout_trees import (
    LAYOUTS,
    eastmoe,
    save_fused,
    save_mixed_codec,
    save_presets,
    shared_files,
    smthemex_flat,
    upstream,
)

from songgen_core.checkpoint.layout import (
    find_model,
    find_shared,
    identify,
    list_models,
    published_variant,
    weight_files,
)
from songgen_core.checkpoint.load_model import load_networks
from songgen_core.configs import VARIANTS
from songgen_core.errors import CheckpointError

pytestmark = needs_goldens


def roots_of(models: Path) -> list[Path]:
    """As ComfyUI names them: the folders of this model, and that of all VAEs."""
    return [p for p in (models / "SongGeneration", models / "songgen", models / "vae") if p.exists()] or [
        models
    ]


def check_found(files, models: Path) -> None:
    assert identify(files.codec) == "codec" and "fixed" not in files.codec.name
    assert identify(files.vae) == "vae"
    assert files.tokenizer == files.weights.parent


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_a_model_is_found_by_name(layout, tmp_path: Path) -> None:
    name, path = layout(tmp_path)
    roots = roots_of(tmp_path)
    assert list_models(roots)[name] == path
    variant = "v2-large" if layout is smthemex_flat else None
    files = find_model(name, roots, variant)
    assert (files.name, files.weights, files.variant) == (name, path, variant)
    assert (files.config is None) == (layout is smthemex_flat)
    check_found(files, tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_a_model_is_found_by_path_alone(layout, tmp_path: Path, monkeypatch) -> None:
    name, path = layout(tmp_path)
    variant = "v2-large" if layout is smthemex_flat else None
    check_found(find_model(path, variant=variant), tmp_path)
    if path.stem == "model":
        files = find_model(str(path.parent))
        check_found(files, tmp_path)
        monkeypatch.chdir(path.parent)
        for here in (path.name, "."):
            files = find_model(here)
            assert files.name == name
            assert files.weights.resolve() == path
            assert identify(files.codec) == "codec" and identify(files.vae) == "vae"


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_only_song_models_are_listed(layout, tmp_path: Path) -> None:
    name, _ = layout(tmp_path)
    others = {smthemex_flat: {"new_model"}, eastmoe: {"SongGeneration-base-full"}}.get(layout, set())
    assert list_models([tmp_path]).keys() == {name, *others}


def test_a_found_model_loads(tmp_path: Path) -> None:
    name, _ = upstream(tmp_path)
    lm, _, renderer, _ = load_networks(find_model(name, [tmp_path]), torch.float32)
    assert (lm.config.text_version, renderer.config.num_attention_heads) == ("v2", 2)


def test_without_settings_the_variant_must_be_named(tmp_path: Path) -> None:
    name, path = smthemex_flat(tmp_path)
    with pytest.raises(CheckpointError, match="name the variant") as caught:
        find_model(name, roots_of(tmp_path))
    assert str(path) in one_line(caught.value)
    assert all(v in str(caught.value) for v in VARIANTS)
    with pytest.raises(CheckpointError, match=r"variant 'v3' is unknown; choose one of base, ") as caught:
        find_model(name, roots_of(tmp_path), "v3")
    assert one_line(caught.value)


def test_without_settings_a_published_name_is_enough(tmp_path: Path) -> None:
    shared_files(tmp_path / "ckpt")
    folder = save_song_model(tmp_path / "SongGeneration-v2-medium" / "model.pt", config=False)
    assert find_model(folder).variant == "v2-medium"
    assert find_model(save_song_model(tmp_path / "base_full.pt", config=False)).variant == "base-full"


def test_a_named_variant_overrides_the_settings(tmp_path: Path) -> None:
    name, _ = upstream(tmp_path)
    files = find_model(name, [tmp_path], "v2-medium")
    assert (files.config, files.variant) == (None, "v2-medium")


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("songgeneration_base", "base"),
        ("SongGeneration-base-new", "base-new"),
        ("songgeneration_base_full", "base-full"),
        ("large", "large"),
        ("V2_Medium", "v2-medium"),
        ("songgeneration_v2_large", "v2-large"),
        ("songgeneration_base_zh", None),
        ("large_model_v2", None),
        ("", None),
    ],
)
def test_published_names(name: str, variant: str | None) -> None:
    assert published_variant(name) == variant


def test_a_fused_file_is_explained(tmp_path: Path) -> None:
    ckpt = tmp_path / "ckpt"
    shared_files(ckpt, "_fp32")
    path = save_fused(ckpt / "songgeneration" / "model_v2_large_fp16.pt")
    assert identify(path) == "fused_lm"
    assert list_models([tmp_path]) == {}
    for name in (path, path.stem):
        with pytest.raises(CheckpointError, match="fused projections") as caught:
            find_model(name, [tmp_path], "v2-large")
        assert str(path) in one_line(caught.value)


def test_files_are_known_by_content(tmp_path: Path) -> None:
    """Names lie: each file is called what another one is called upstream."""
    lm = save(tmp_path / "autoencoder_music_1320k.ckpt", lm_state())
    mixed = save_mixed_codec(tmp_path / "model_septoken" / "model_2.safetensors")
    codec = save_codec(tmp_path / "model_1rvq" / "model_2_fixed.safetensors")
    vae = save_vae(tmp_path / "model.pt")
    assert [identify(p) for p in (lm, mixed, codec, vae)] == ["lm", "mixed_codec", "codec", "vae"]
    files = find_model("autoencoder_music_1320k", [tmp_path], "v2-large")
    assert (files.weights, files.codec, files.vae) == (lm, codec, vae)


def test_kinds(tmp_path: Path) -> None:
    scale = {"crosstransformer.layers.0.gamma_1.scale": torch.ones(1)}
    assert identify(save(tmp_path / "separator.pth", scale)) == "separator"
    assert identify(save(tmp_path / "other.safetensors", {"decoder.layers.0.weight": torch.ones(2)})) is None
    encoder_only = {"rvq_bestrq_bgm_emb.quantizers.0.codebook.weight": torch.ones(2, 2)}
    assert identify(save(tmp_path / "encoder.safetensors", encoder_only)) is None


def test_the_same_vae_of_another_frame_rate_is_not_taken(tmp_path: Path) -> None:
    """Stable Audio's VAE has the same names; its strides make 2048 samples a frame."""
    state = vae_weights()
    for i, stride in enumerate((8, 8, 4, 4, 2), 1):
        v = state[f"decoder.layers.{i}.layers.1.weight_v"]
        state[f"decoder.layers.{i}.layers.1.weight_v"] = v[..., :1].repeat(1, 1, 2 * stride)
    other = save(tmp_path / "vae" / "a_stable_audio_vae.safetensors", state)
    assert identify(other) is None
    ours = save_vae(tmp_path / "vae" / "zz.ckpt")
    save_codec(tmp_path / "model_2.safetensors")
    assert find_model(save_song_model(tmp_path / "lm" / "model.pt"), [tmp_path]).vae == ours


@pytest.mark.parametrize(("missing", "said"), [("model_septoken", "two-track codec"), ("vae", "the VAE")])
def test_a_missing_shared_file_is_named(missing: str, said: str, tmp_path: Path) -> None:
    name, _ = upstream(tmp_path)
    for path in (tmp_path / "ckpt" / missing).iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match=f"{said}, ckpt/{missing}/.* was not found in ") as caught:
        find_model(name, [tmp_path])
    assert str(tmp_path) in one_line(caught.value)


def test_damaged_neighbours_do_not_hide_good_files(tmp_path: Path) -> None:
    name, path = upstream(tmp_path)
    for folder in ("model_septoken", "vae", "model_1rvq"):
        (tmp_path / "ckpt" / folder / "a_damaged.safetensors").write_bytes(b"junk")
        (tmp_path / "ckpt" / folder / "b_damaged.ckpt").write_bytes(b"")
        (tmp_path / "ckpt" / folder / "c_pointer.pt").write_bytes(
            b"version https://git-lfs.github.com/spec/v1"
        )
    (path.parent / "z.safetensors").write_bytes(b"junk")
    check_found(find_model(name, [tmp_path]), tmp_path)
    assert list(list_models([tmp_path])) == [name]


def test_a_damaged_shared_file_is_the_reason_given(tmp_path: Path) -> None:
    name, _ = upstream(tmp_path)
    codec = tmp_path / "ckpt" / "model_septoken" / "model_2.safetensors"
    codec.write_bytes(codec.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="cut short") as caught:
        find_model(name, [tmp_path])
    assert str(codec) in one_line(caught.value)


def test_what_is_known_of_a_damaged_file_keeps_nothing_alive(tmp_path: Path) -> None:
    """A kept error holds, in its traceback, the locals of all who asked: networks of gigabytes."""
    path = tmp_path / "model_2.safetensors"
    path.write_bytes(b"junk")
    asked = []

    def ask(question) -> None:
        network = torch.nn.Linear(1, 1)
        asked.append(weakref.ref(network))
        with pytest.raises(CheckpointError, match="model_2"):
            question()

    for _ in range(3):
        ask(lambda: identify(path))
        ask(lambda: find_shared("codec", [tmp_path]))
    assert [network() for network in asked] == [None] * 6


@pytest.mark.parametrize("name", ["model.pt", "large_model_v2.pt"])
def test_a_damaged_song_model_is_explained_when_asked_for(name: str, tmp_path: Path) -> None:
    shared_files(tmp_path / "ckpt")
    path = tmp_path / "mine" / name
    path.parent.mkdir()
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert list_models([tmp_path]) == {}
    asked = "mine" if name == "model.pt" else "large_model_v2"
    for one in (asked, path, *([path.parent] if name == "model.pt" else [])):
        with pytest.raises(CheckpointError, match="Git-LFS pointer") as caught:
            find_model(one, [tmp_path])
        assert str(path) in one_line(caught.value)


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    upstream(tmp_path)
    save_song_model(tmp_path / "songgeneration_large" / "model.pt")
    with pytest.raises(CheckpointError, match=r"no model 'x'; found songgeneration_") as caught:
        find_model("x", [tmp_path])
    assert one_line(caught.value)
    with pytest.raises(CheckpointError, match="several song models"):
        find_model(tmp_path)
    with pytest.raises(CheckpointError, match="no song model"):
        find_model(tmp_path / "ckpt")
    with pytest.raises(CheckpointError, match="is the two-track codec; name the published song model"):
        find_model(tmp_path / "ckpt" / "model_septoken" / "model_2.safetensors")
    for name in ("~nobody-of-this-name/model.pt", "a" * 5000, "bad\0name"):
        with pytest.raises(CheckpointError, match="no model"):
            find_model(name, [tmp_path])


def test_the_first_root_wins_and_safetensors_before_pt(tmp_path: Path) -> None:
    for root in ("b", "a"):
        save_song_model(tmp_path / root / "mine" / "model.pt")
    assert list_models([tmp_path / "b", tmp_path / "a"])["mine"].is_relative_to(tmp_path / "b")
    converted = save_song_model(tmp_path / "b" / "mine" / "model.safetensors")
    assert list_models([tmp_path / "b", tmp_path / "a"])["mine"] == converted


def test_listing_never_fails(tmp_path: Path) -> None:
    (tmp_path / "file.pt").write_bytes(os.urandom(100))
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "dangling.safetensors").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    (tmp_path / "nested.pt").write_bytes(b"\x80\x02" + b"(" * 3000 + b".")
    save_presets(tmp_path / "presets.pt")
    roots = [tmp_path, tmp_path / "missing", tmp_path / "file.pt"]
    assert list_models(roots) == {}


def test_unreadable_folders_and_files_are_passed_over(tmp_path: Path, monkeypatch) -> None:
    upstream(tmp_path)
    scandir, stat = os.scandir, Path.stat

    def forbidden(path="."):
        if str(path).endswith("model_1rvq"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    def forbidden_stat(self, **options):
        if self.name == "new_auto_prompt.pt":
            raise PermissionError(13, "Permission denied", str(self))
        return stat(self, **options)

    monkeypatch.setattr(os, "scandir", forbidden)
    monkeypatch.setattr(Path, "stat", forbidden_stat)
    assert list(list_models([tmp_path])) == ["songgeneration_v2_large"]


def test_hidden_folders_and_files_are_skipped(tmp_path: Path) -> None:
    save_song_model(tmp_path / ".cache" / "huggingface" / "model.pt")
    save_song_model(tmp_path / "mine" / ".model.pt")
    assert list(weight_files(tmp_path)) == []


def test_symlinks_are_followed_and_their_loops_are_not(tmp_path: Path) -> None:
    real = tmp_path / "disk"
    upstream(real)
    root = tmp_path / "models"
    root.mkdir()
    (root / "linked").symlink_to(real)
    for i in range(6):
        (real / f"loop{i}").symlink_to(real)
        (real / "ckpt" / f"up{i}").symlink_to(tmp_path)
    start = time.monotonic()
    found = list(weight_files(root))
    assert time.monotonic() - start < 2
    assert len(found) == len({p.resolve() for p in found})
    assert list(list_models([root])) == ["songgeneration_v2_large"]
    assert find_model("songgeneration_v2_large", [root]).codec.exists()


def test_a_large_root_is_searched_in_bounded_time(tmp_path: Path) -> None:
    for i in range(3000):
        (tmp_path / f"image_{i}.png").touch()
    junk = save(tmp_path / "lora_0.safetensors", {"a": torch.ones(1)}).read_bytes()
    for i in range(500):
        (tmp_path / f"lora_{i}.safetensors").write_bytes(junk)
        (tmp_path / f"folder_{i}").mkdir()
    save_song_model(tmp_path / "zz" / "model.pt")
    start = time.monotonic()
    assert list(list_models([tmp_path])) == ["zz"]
    assert time.monotonic() - start < 5
    start = time.monotonic()
    assert list(list_models([tmp_path])) == ["zz"]
    assert time.monotonic() - start < 1, "known files are not opened again"


def test_folders_beyond_the_depth_and_the_number_are_left_out(tmp_path: Path, monkeypatch) -> None:
    deep = save(tmp_path / "1/2/3/4/deep.safetensors", {"a": torch.ones(1)})
    save(tmp_path / "1/2/3/4/5/too_deep.safetensors", {"a": torch.ones(1)})
    assert list(weight_files(tmp_path)) == [deep]
    monkeypatch.setattr("songgen_core.checkpoint.layout._MAX_FOLDERS", 3)
    near = save(tmp_path / "1/near.safetensors", {"a": torch.ones(1)})
    assert list(weight_files(tmp_path)) == [near]


def test_a_model_in_a_crowded_folder_does_not_search_its_neighbours(tmp_path: Path) -> None:
    """Only the known places beside the model are looked into, not everything above it."""
    save_song_model(tmp_path / "downloads" / "mine" / "model.pt")
    save_codec(tmp_path / "downloads" / "unrelated" / "project" / "model_2.safetensors")
    save_vae(tmp_path / "downloads" / "vae" / "v.ckpt")
    with pytest.raises(CheckpointError, match="two-track codec"):
        find_model(tmp_path / "downloads" / "mine")


def test_a_changed_file_is_looked_into_again(tmp_path: Path) -> None:
    path = save_vae(tmp_path / "x.ckpt")
    assert identify(path) == "vae"
    save(path, lm_state())
    assert identify(path) == "lm"
