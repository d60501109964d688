"""The table of downloads, and what users may change in it."""

import json
import re
from pathlib import Path

import pytest
from hub_server import forget_settings

from songgen_core.checkpoint.layout import published_variant
from songgen_core.configs import VARIANTS
from songgen_core.errors import UserError
from songgen_core.hub.override import load_registry
from songgen_core.hub.registry import FEATURES, Registry, published_registry


@pytest.fixture(autouse=True)
def settings(monkeypatch) -> None:
    forget_settings(monkeypatch)


def changed(tmp_path: Path, **changes: object) -> Registry:
    (tmp_path / "registry.json").write_text(json.dumps(changes), encoding="utf-8")
    return load_registry([tmp_path / "none", tmp_path])


def all_files(registry: Registry) -> list:
    return [*registry.shared.values(), *(f for r in registry.releases.values() for f in r.files)]


def test_every_variant_is_there_as_configs_tells():
    registry = published_registry()
    assert registry.releases.keys() == VARIANTS.keys()
    for name, release in registry.releases.items():
        assert release.languages == VARIANTS[name].languages
        assert release.max_seconds == VARIANTS[name].lm.max_duration
        assert release.weights.size == VARIANTS[name].model_bytes
        assert published_variant(release.weights.target.split("/")[0]) == name
        assert release.memory_gb < release.memory_gb_with_prompt
        assert "License" in release.licence


def test_entries_are_sound():
    for file in all_files(published_registry()):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", file.repo) and (
            file.revision == "main" or len(file.revision) == 40
        )
        assert file.sha256 is None or (re.fullmatch("[0-9a-f]{64}", file.sha256) and file.bytes)
        assert file.size > 0 and not file.target.startswith("/") and ".." not in file.target
    targets = [file.target for file in all_files(published_registry())]
    assert len(set(targets)) == len(targets)


def test_what_is_pinned():
    registry = published_registry()
    assert registry.releases["v2-large"].weights.bytes == 12_899_965_446
    assert registry.releases["base"].weights.revision == "main"
    presets = registry.shared["presets"]
    assert (presets.repo_type, presets.path) == ("space", "tools/new_prompt.pt")
    assert presets.target == "tools/new_auto_prompt.pt" and presets.sha256.startswith("616dbe27")


def test_download_sizes():
    """Those of packaging 7: full codecs, without the tokenizer."""
    registry = published_registry()
    assert registry.download_bytes("v2-large") / 1e9 == pytest.approx(18.4, abs=0.05)
    assert registry.download_bytes("v2-medium", ["text", "genres"]) / 1e9 == pytest.approx(12.8, abs=0.05)
    assert registry.download_bytes("v2-medium", ["prompts"]) / 1e9 == pytest.approx(17.7, abs=0.05)


def test_features():
    registry = published_registry()
    assert list(registry.shared_files([])) == ["codec", "vae"]
    assert list(registry.shared_files(FEATURES)) == ["codec", "vae", "mixed_codec", "separator", "presets"]


def test_unknown_names():
    with pytest.raises(UserError, match=r"variant 'v3' is unknown; choose one of base, .*registry.json"):
        published_registry().release("v3")
    with pytest.raises(UserError, match="feature 'stems' is unknown"):
        published_registry().download_bytes("base", ["stems"])


def test_without_a_file_nothing_changes(tmp_path):
    assert load_registry([tmp_path]) == published_registry()
    assert changed(tmp_path).releases == published_registry().releases


def test_another_repository_for_a_variant(tmp_path):
    registry = changed(tmp_path, variants={"v2-large": {"repo": "me/copy"}})
    assert {(f.repo, f.revision) for f in registry.releases["v2-large"].files} == {("me/copy", "main")}
    assert registry.releases["v2-large"].weights.sha256.startswith("dc763aa9")  # still the same content
    assert registry.releases["v2-medium"] == published_registry().releases["v2-medium"]
    assert registry.source == tmp_path / "registry.json"


def test_another_version_of_a_file(tmp_path):
    entry = {
        "revision": "abc",
        "files": {"model.pt": {"bytes": 5, "sha256": "a" * 64}, "config.yaml": {"sha256": None}},
    }
    release = changed(tmp_path, variants={"base": entry}).releases["base"]
    assert (release.weights.revision, release.weights.bytes, release.weights.sha256) == ("abc", 5, "a" * 64)
    assert release.weights.size == 5


def test_the_slim_codec(tmp_path):
    entry = {"repo": "tencent/SongGeneration", "bytes": None, "sha256": None}
    codec = changed(tmp_path, shared={"codec": entry}).shared["codec"]
    assert (codec.repo, codec.revision, codec.sha256) == ("tencent/SongGeneration", "main", None)
    assert codec.target == "ckpt/model_septoken/model_2.safetensors"


def test_a_new_variant(tmp_path):
    about = {"languages": ["zh", "en"], "max_seconds": 270, "memory_gb": 8, "licence": "see there"}
    entry = {
        "repo": "o/fast",
        "revision": "v1",
        "files": {"model.pt": {"bytes": 9}, "vocab.json": {}},
        **about,
    }
    release = changed(tmp_path, variants={"v2-fast": entry}).releases["v2-fast"]
    assert [f.target for f in release.files] == [
        f"songgeneration_v2_fast/{name}" for name in ("config.yaml", "model.pt", "vocab.json")
    ]
    assert {(f.repo, f.revision) for f in release.files} == {("o/fast", "v1")}
    assert (release.languages, release.max_seconds, release.weights.bytes) == (("zh", "en"), 270, 9)


def test_the_environment_names_the_file(tmp_path, monkeypatch):
    changed(tmp_path, variants={"base": {"repo": "in/folder"}})
    other = tmp_path / "other.json"
    other.write_text('{"variants": {"base": {"repo": "in/environment"}}}', encoding="utf-8")
    monkeypatch.setenv("SONGGEN_REGISTRY", str(other))
    assert load_registry([tmp_path]).releases["base"].weights.repo == "in/environment"
    monkeypatch.setenv("SONGGEN_REGISTRY", str(tmp_path / "gone.json"))
    with pytest.raises(
        UserError, match=r"gone.json cannot be read \(No such file.*correct \$SONGGEN_REGISTRY"
    ):
        load_registry([tmp_path])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"variant": {}}, "unknown entry 'variant' in the whole; use variants, shared"),
        ({"variants": []}, "variants must be a table in braces"),
        ({"variants": {"v2-fast": {}}}, 'variants.v2-fast must be a table with a "repo"'),
        ({"variants": {"v2-fast": {"repo": "x"}}}, 'v2-fast.repo must be a repository such as "owner/name"'),
        ({"variants": {"../x": {"repo": "o/x"}}}, "variants.../x must be a name of small letters"),
        ({"variants": {"base": {"revision": "a b"}}}, "base.revision must be a commit, branch or tag"),
        ({"variants": {"base": {"repo_type": "dataset"}}}, 'base.repo_type must be "model" or "space"'),
        ({"variants": {"base": {"memory_gb": "10"}}}, "base.memory_gb must be a number of GB"),
        ({"variants": {"base": {"languages": "zh"}}}, "base.languages must be a list of texts"),
        (
            {"variants": {"base": {"files": {"model.pt": {"bytes": -1}}}}},
            "model.pt.bytes must be a size in bytes",
        ),
        (
            {"variants": {"base": {"files": {"model.pt": {"bytes": True}}}}},
            "must be a size in bytes, or null",
        ),
        ({"variants": {"base": {"files": {"model.pt": {"sha256": "abc"}}}}}, "must be 64 hexadecimal digits"),
        (
            {"variants": {"base": {"files": {"model.pt": {"path": "../m.pt"}}}}},
            "must be a path inside the rep",
        ),
        (
            {"variants": {"base": {"files": {"model.pt": {"path": "m.safetensors"}}}}},
            "path must be a .pt file",
        ),
        ({"variants": {"base": {"files": {"../evil.json": {}}}}}, "must be a file beside the weights"),
        ({"variants": {"base": {"files": {"other.pt": {}}}}}, "must be a file beside the weights, which are"),
        ({"variants": {"base": {"files": {".hidden": {}}}}}, "must be a file beside the weights"),
        ({"shared": {"tokenizer": {}}}, "unknown entry 'tokenizer' in shared; use codec, mixed_codec, vae"),
        ({"shared": {"vae": {"size": 1}}}, "unknown entry 'size' in shared.vae; use repo, repo_type, rev"),
        ({"shared": {"vae": 5}}, "shared.vae must be a table in braces"),
    ],
)
def test_mistakes_are_explained(tmp_path, changes, match):
    with pytest.raises(UserError, match=re.escape(match)) as caught:
        changed(tmp_path, **changes)
    assert str(caught.value).startswith(str(tmp_path / "registry.json")) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "5", "\x00", "[" * 50_000])
def test_no_json_object(tmp_path, text):
    (tmp_path / "registry.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"is no JSON|must be a table"):
        load_registry([tmp_path])
