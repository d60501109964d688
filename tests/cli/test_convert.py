"""Weight files to small safetensors: names, dtypes, strict checks, and nothing half-written."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from songgen_core.checkpoint import convert as library
from songgen_core.checkpoint.loader import load_renderer, load_vae
from songgen_core.errors import Cancelled

DEAD = (
    "layer2_emb.0.weight",
    "transformer.model.embed_tokens.weight",
    "transformer2.model.embed_tokens.weight",
    "transformer2.lm_head.weight",
    "out_norm.weight",
    "out_norm.bias",
)


@pytest.fixture
def tiny(models) -> Path:
    """A song model as published: model.pt beside config.yaml and tokenizer."""
    path = models / "tiny" / "model.pt"
    torch.save(load_file(path.with_suffix(".safetensors")), path)
    path.with_suffix(".safetensors").unlink()
    return path


def change(path: Path, **settings) -> None:
    config = path.parent / "config.yaml"
    raw = yaml.safe_load(config.read_text(encoding="utf-8"))
    raw["lm"].update(settings)
    config.write_text(yaml.safe_dump(raw), encoding="utf-8")


def test_a_song_model(run, tiny, tmp_path):
    before = torch.load(tiny, weights_only=True)
    done = run("convert", tiny, "new", "--json")
    assert done.code == 0, done.err
    assert done.json == {
        "file": str(tmp_path / "new" / "model.safetensors"),
        "kind": "lm",
        "tensors": len(before) - len(DEAD),
        "dropped": len(DEAD),
        "bytes": sum(2 * t.numel() for n, t in before.items() if n.removeprefix("audiolm.") not in DEAD),
    }
    after = load_file("new/model.safetensors")
    assert after.keys() == before.keys() - {f"audiolm.{name}" for name in DEAD}
    assert all(torch.equal(tensor, before[name].half()) for name, tensor in after.items())
    with safe_open("new/model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt" and "SongGen" in file.metadata()["converted_by"]
    names = {p.name for p in Path("new").iterdir()}
    assert names == {"model.safetensors", "config.yaml", "vocab.json", "merges.txt"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_song_sung_by_the_converted_model(sing, run, tiny, dtype):
    """float32: the very song of the original. The old file is away, so that it cannot be read by mistake."""
    assert sing("-o", "a.wav", "--models-dir", tiny.parents[1], model="tiny").code == 0
    done = run("convert", tiny, tiny.parent / "model.safetensors", "--dtype", dtype)
    assert done.code == 0 and "6 unused ones dropped" in done.out
    tiny.unlink()
    assert sing("-o", "b.wav", "--models-dir", tiny.parents[1], model="tiny").code == 0
    if dtype == "float32":
        assert Path("a.wav").read_bytes()[-48000:] == Path("b.wav").read_bytes()[-48000:]


def test_without_prefix_or_config(run, tiny):
    state = {
        name.removeprefix("audiolm."): tensor for name, tensor in torch.load(tiny, weights_only=True).items()
    }
    save_file(state, "bare.safetensors")
    assert run("convert", "bare.safetensors", "new.safetensors").code == 0
    assert all(name.startswith("audiolm.") for name in load_file("new.safetensors"))


def test_the_codec_keeps_what_is_used(run, models):
    source = models / "ckpt" / "model_2.safetensors"
    state = load_file(source)
    state |= {
        "hubert.x": torch.ones(3),
        "bestrq.model.rvq.y": torch.ones(3),
        "rsq48tobestrq.kernel": torch.ones(1, 1, 28).half(),
    }
    save_file(state, source, {"num_attention_heads": "2"})
    done = run("convert", source, "new")
    assert done.code == 0, done.err
    after = load_file("new/model_2.safetensors")
    gone = ("hubert.", "bestrq.model.rvq.", "cfm_wrapper.mlp.", "cfm_wrapper.estimator.wte.")
    assert after.keys() == {name for name in state if not name.startswith(gone)}
    assert all(torch.equal(t, state[n]) and t.dtype == state[n].dtype for n, t in after.items())
    assert load_renderer(Path("new/model_2.safetensors")).config.num_attention_heads == 2


def test_the_vae_becomes_safetensors(run, models):
    state = load_file(models / "ckpt" / "vae.safetensors")
    torch.save({"state_dict": {n: t.half() for n, t in state.items()}}, "vae.ckpt")
    assert run("convert", "vae.ckpt", "new").code == 0
    after = load_file("new/autoencoder_music_1320k.safetensors")
    assert after.keys() == state.keys() and {t.dtype for t in after.values()} == {torch.float32}
    load_vae(Path("new/autoencoder_music_1320k.safetensors"))


def missing(state):
    del state["audiolm.transformer.model.layers.1.mlp.up_proj.weight"]


def misshapen(state):
    state["audiolm.linears.0.weight"] = torch.zeros(3, 3)


def unexpected(state):
    state["audiolm.transformer3.weight"] = torch.zeros(3)


@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize(
    ("damage", "words"),
    [(missing, "up_proj"), (misshapen, "linears.0.weight"), (unexpected, "transformer3")],
)
def test_nothing_is_written_of_an_incomplete_model(run, tiny, damage, words, with_config):
    state = torch.load(tiny, weights_only=True)
    damage(state)
    torch.save(state, tiny)
    if not with_config:
        (tiny.parent / "config.yaml").unlink()
    done = run("convert", tiny, "new")
    assert done.code == 1 and len(done.errors) == 1 and words in done.errors[0]
    assert not Path("new").exists()


def test_config_of_another_model(run, tiny):
    change(tiny, num_layers=5)
    done = run("convert", tiny, "new")
    assert done.code == 1 and "missing" in done.errors[0]
    assert not Path("new").exists()


def test_values_beyond_float16(run, tiny):
    state = torch.load(tiny, weights_only=True)
    state["audiolm.linears.0.weight"][0, 0] = 1e6
    torch.save(state, tiny)
    done = run("convert", tiny, "new")
    assert done.code == 1 and "float16" in done.errors[0] and "use bfloat16" in done.errors[0]
    assert not Path("new").exists()
    assert run("convert", tiny, "new", "--dtype", "bfloat16").code == 0


def test_targets_that_cannot_be(run, tiny):
    Path("file").write_text("x")
    Path("dir.safetensors").mkdir()
    Path("other").mkdir()
    Path("other/config.yaml").write_text("another")
    for target, words in {
        "new.pt": "must end in .safetensors",
        "file": "is a file",
        "other": "is another one; use --overwrite",
    }.items():
        done = run("convert", tiny, target)
        assert done.code == 1 and words in done.errors[0], done.err
    assert [p.name for p in Path("other").iterdir()] == ["config.yaml"]
    assert run("convert", tiny, "dir.safetensors").code == 0


def test_existing_files_need_overwrite(run, tiny):
    assert run("convert", tiny, "new").code == 0
    before = Path("new/model.safetensors").read_bytes()
    done = run("convert", tiny, "new", "--dtype", "float32")
    assert done.code == 1 and "exists; use --overwrite" in done.errors[0]
    assert Path("new/model.safetensors").read_bytes() == before
    assert run("convert", tiny, "new", "--dtype", "float32", "--overwrite").code == 0
    done = run("convert", "new/model.safetensors", "new", "--overwrite")
    assert done.code == 1 and "is the source itself" in done.errors[0]


def test_too_little_space_is_told_before_the_start(run, tiny, monkeypatch):
    usage = shutil.disk_usage(".")._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    done = run("convert", tiny, "new")
    assert done.code == 1 and "0.00 GB free" in done.errors[0] and "free some space" in done.errors[0]
    assert not Path("new").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_broken_off_conversion_leaves_nothing(run, tiny, monkeypatch, error):
    written = []

    def break_off(entry, source):
        if written:
            raise error
        written.append(entry)
        return b"x" * entry.size

    monkeypatch.setattr(library, "_bytes", break_off)
    done = run("convert", tiny, "new")
    assert written and not Path("new").exists()
    if isinstance(error, KeyboardInterrupt):
        assert done.code == 130 and "nothing was written" in done.err
    else:
        assert done.code == 1 and "No space left" in done.errors[0] and "free some space" in done.errors[0]


def test_the_library_can_be_stopped_and_tells_its_progress(tiny):
    told = []
    library.convert(tiny, Path("new"), on_progress=told.append)
    assert told[-1].done == told[-1].total and len(told) == 65
    with pytest.raises(Cancelled):
        library.convert(tiny, Path("other"), cancelled=lambda: True)
    assert not Path("other").exists()


@pytest.mark.parametrize(
    "state", [{"crosstransformer.layers.0.gamma_1.scale": torch.ones(1)}, {"some.weight": torch.ones(1)}]
)
def test_other_files_are_refused(run, state):
    save_file(state, "x.safetensors")
    done = run("convert", "x.safetensors", "new")
    assert done.code == 1 and "only these can be converted" in done.errors[0]
