"""What `songgen info` tells, of the machine and of files."""

import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import songgen_core
from songgen_core.codes_file import save_codes
from songgen_core.configs import VARIANTS


def test_the_machine(run, models):
    done = run("info", "--models-dir", models)
    assert done.code == 0
    for words in (songgen_core.__version__, torch.__version__, str(models), "tiny", "v2 texts, 40 s", "GB"):
        assert words in done.out, words
    assert all(name in done.out for name in VARIANTS) and "zh, en, es, ja" in done.out
    assert "research and education only" in done.out


def test_json_of_the_machine(run, models):
    report = run("info", "--models-dir", models, "--json").json
    assert report["device"] == "cpu" or report["device"] in ("cuda", "mps")
    assert report["folders"] == [str(models)]
    (tiny,) = report["models"]
    assert (tiny["name"], tiny["max_seconds"], tiny["text_version"]) == ("tiny", 40, "v2")
    assert tiny["problem"] is None and tiny["bytes"] > 0
    assert report["variants"]["v2-large"]["languages"] == ["zh", "en", "es", "ja"]


def test_no_models(run):
    done = run("info")
    assert done.code == 0 and "no model there" in done.out
    assert f"model folders: {os.path.abspath('models')}\n" in done.out


def test_an_incomplete_model_is_listed_with_its_problem(run, models):
    (models / "ckpt" / "vae.safetensors").unlink()
    done = run("info", "--models-dir", models)
    assert done.code == 0 and "problem: the VAE" in done.out


def test_a_model_by_name(run, models):
    done = run("info", "tiny", "--models-dir", models)
    assert done.code == 0
    for words in (
        "song model",
        "71 tensors",
        "210,096 parameters",
        "float32",
        "vae.safetensors",
        "no problems",
    ):
        assert words in done.out, words
    assert run("info", models / "tiny", "--json").json["kind"] == "lm"


def test_files(run, models):
    for path, kind in {
        models / "tiny" / "model.safetensors": "song model",
        models / "ckpt" / "model_2.safetensors": "two-track codec",
        models / "ckpt" / "vae.safetensors": "VAE",
    }.items():
        done = run("info", path)
        assert done.code == 0 and kind in done.out and "no problems found" in done.out, done.err


def test_problems_of_a_file(run, models):
    path = models / "tiny" / "model.safetensors"
    state = load_file(path)
    del state["audiolm.mlp.0.bias"]
    save_file(state, path)
    report = run("info", path, "--json").json
    assert len(report["problems"]) == 1 and "mlp.0.bias" in report["problems"][0]
    save_file({"x": torch.ones(1)}, "x.safetensors")
    assert "none of the files" in run("info", "x.safetensors").out
    done = run("info", "nowhere.pt")
    assert done.code == 1 and "does not exist" in done.errors[0]


def test_a_file_of_codes(run):
    path = save_codes("song.safetensors", torch.zeros(1, 3, 50, dtype=torch.long), {"codec": "ckpt"})
    done = run("info", path)
    assert done.code == 0 and "no problems found" in done.out
    assert "file of codes" in done.out and "2.0 s, 50 frames" in done.out
    report = run("info", path, "--json").json
    assert (report["kind"], report["frames"], report["seconds"]) == ("codes", 50, 2.0)
    assert report["notes"]["codec"] == "ckpt" and report["bytes"] == path.stat().st_size
    save_file({"codes": torch.zeros(1, 3, 50)}, path, {"format": "songgen-codes", "format_version": "9"})
    report = run("info", path, "--json").json
    assert report["kind"] == "codes" and "newer version" in report["problems"][0]
    assert "problem: " in run("info", path).out


@pytest.mark.parametrize("what", [(), ("tiny",)])
def test_a_duration_without_a_plan_is_refused(run, models, what):
    done = run("info", *what, "--duration", 60, "--models-dir", models)
    assert done.code == 1 and "--duration belongs to a plan; add --plan" in done.errors[0]


def test_what_only_prompts_need_is_told_too(run, tmp_path, models):
    torch.save({"Pop": {"en": [torch.zeros(1, 3, 8, dtype=torch.int64)]}}, tmp_path / "new_auto_prompt.pt")
    done = run("info", tmp_path / "new_auto_prompt.pt")
    assert done.code == 0 and "stored prompts" in done.out and "1 tensors" in done.out
    torch.save({"crosstransformer.layers.0.gamma_1.scale": torch.ones(4)}, tmp_path / "htdemucs.pth")
    done = run("info", tmp_path / "htdemucs.pth")
    assert done.code == 0 and "stem separator" in done.out
    done = run("info", "tiny", "--models-dir", models)
    assert done.code == 0 and "mixed codec: not found; a recording as a prompt needs it" in done.out
    shutil.copyfile(tmp_path / "new_auto_prompt.pt", models / "new_auto_prompt.pt")
    done = run("info", "tiny", "--models-dir", models, "--json")
    assert done.json["presets"] == str(models / "new_auto_prompt.pt") and done.json["separator"] is None
