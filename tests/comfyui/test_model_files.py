"""A tiny model in the published file formats, found under models/songgen and sung with."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_client import ROOT, Client, id_of, song_prompt

sys.path.insert(0, str(ROOT / "tests" / "checkpoint"))
cases = pytest.importorskip("checkpoint_cases")
pytestmark = [pytest.mark.comfyui, cases.needs_goldens]

NAME = "songgeneration_v2_large"


@pytest.fixture
def weights(comfy: Client) -> Iterator[Path]:
    folder = comfy.base / "models" / "songgen"
    codec, heads = fitting_codec(), str(cases.RENDERER_HEADS)
    cases.save(folder / "ckpt" / "model_septoken" / "model_2.safetensors", codec, num_attention_heads=heads)
    cases.save_vae(folder / "ckpt" / "vae" / "autoencoder_music_1320k.ckpt")
    yield cases.save_song_model(folder / NAME / "model.pt")
    shutil.rmtree(folder)


def fitting_codec() -> dict:
    """The recorded codec with as many codes as the recorded language model writes."""
    state, num_codes = cases.codec_state(), cases.lm_state()["audiolm.linears.0.weight"].shape[0] - 1
    return {n: t[:num_codes] if n.endswith(".codebook.weight") else t for n, t in state.items()}


def offered(comfy: Client) -> list[str]:
    node = comfy.get_json("/object_info/SongGenLoadLeVoModel")["SongGenLoadLeVoModel"]
    return node["input"]["required"]["model"][1]["options"]


def test_a_model_on_disk_is_offered_loaded_and_reloaded_when_it_changes(comfy, weights):
    assert offered(comfy)[0] == NAME and offered(comfy)[-1] == "selftest"
    assert "v2-large" not in offered(comfy)  # which is the same one
    prompt = song_prompt(LoadLeVoModel__model=NAME, GenerateTokens__seed=1, GenerateTokens__duration=1.0)
    loader = id_of(prompt, "LoadLeVoModel")
    prompt["91"] = {"class_type": "PreviewAny", "inputs": {"source": [loader, 1]}}
    run = comfy.run(prompt)
    assert run.end == "execution_success", (run.error["exception_message"], run.error["traceback"])
    assert NAME in run.outputs["91"]["text"][0] and "Tencent" in run.outputs["91"]["text"][0]
    assert any(node == loader and text.startswith("loading ") for node, text in run.texts)
    assert comfy.run(prompt).executed == set()

    os.utime(weights, ns=(1, 1))
    assert loader in comfy.run(prompt).executed


def test_a_missing_codec_is_named_at_the_loader(comfy, weights):
    shutil.rmtree(weights.parents[1] / "ckpt" / "model_septoken")
    prompt = song_prompt(LoadLeVoModel__model=NAME)
    run = comfy.run(prompt)
    assert run.end == "execution_error" and run.error["node_id"] == id_of(prompt, "LoadLeVoModel")
    message = run.error["exception_message"].strip()
    assert "two-track codec" in message and "\n" not in message
