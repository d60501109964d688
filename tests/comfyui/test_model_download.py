"""Load LeVo Model gets a tiny published model from a local Hub, and nothing without being asked to."""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_client import ROOT, Client, id_of, song_prompt
from hub_server import HubServer

sys.path.insert(0, str(ROOT / "tests" / "checkpoint"))
cases = pytest.importorskip("checkpoint_cases")
pytestmark = [pytest.mark.comfyui, cases.needs_goldens]

VARIANT, FOLDER = "v2-large", "songgeneration_v2_large"
ACCEPTED = "I accept it: research and education only"
ANY_SIZE = {"bytes": None, "sha256": None}
SHARED = {"codec": "ckpt/model_septoken/model_2.safetensors", "vae": "ckpt/vae/autoencoder_music_1320k.ckpt"}
BESIDE = ("config.yaml", "model.pt", "vocab.json", "merges.txt")


@pytest.fixture
def models(comfy: Client, hub: HubServer, tmp_path: Path) -> Iterator[Path]:
    """The models folder, empty but for a registry that leads to the tiny model on the hub."""
    cases.save_song_model(tmp_path / "model.pt")
    cases.save_codec(tmp_path / SHARED["codec"])
    cases.save_vae(tmp_path / SHARED["vae"])
    for name in BESIDE:
        hub.put("toy/song", name, (tmp_path / name).read_bytes())
    for path in SHARED.values():
        hub.put("toy/runtime", path, (tmp_path / path).read_bytes())
    registry = {
        "variants": {VARIANT: {"repo": "toy/song", "files": dict.fromkeys(BESIDE, ANY_SIZE)}},
        "shared": {kind: {"repo": "toy/runtime", **ANY_SIZE} for kind in SHARED},
    }
    folder = comfy.base / "models" / "songgen"
    folder.mkdir()
    (folder / "registry.json").write_text(json.dumps(registry))
    hub.seen.clear()
    yield folder
    hub.well_again()
    shutil.rmtree(folder)


def song(**changes):
    return song_prompt(LoadLeVoModel__model=VARIANT, GenerateTokens__duration=1.0, **changes)


def message_at_loader(comfy: Client, prompt) -> str:
    run = comfy.run(prompt)
    assert run.end == "execution_error" and run.error["node_id"] == id_of(prompt, "LoadLeVoModel")
    message = run.error["exception_message"].strip()
    assert "\n" not in message
    return message


def test_nothing_is_downloaded_without_being_asked_for(comfy, hub, models):
    message = message_at_loader(comfy, song())
    assert f"{VARIANT} is not on this machine" in message
    assert "if missing" in message and f"songgen download {VARIANT}" in message
    assert hub.seen == []


def test_the_licence_comes_first(comfy, hub, models):
    message = message_at_loader(comfy, song(LoadLeVoModel__download="if missing"))
    assert "github.com/tencent-ailab" in message and "research" in message and ACCEPTED in message
    assert hub.seen == []


def test_a_model_is_downloaded_once_and_answers_to_its_name_afterwards(comfy, hub, models):
    asked = {"LoadLeVoModel__download": "if missing", "LoadLeVoModel__licence": ACCEPTED}
    prompt = song(**asked)
    run = comfy.run(prompt)
    assert run.end == "execution_success", (run.error["exception_message"], run.error["traceback"])
    loader = id_of(prompt, "LoadLeVoModel")
    assert any(node == loader and "downloading" in text and " MB" in text for node, text in run.texts)
    assert (models / FOLDER / "model.pt").is_file() and (models / SHARED["vae"]).is_file()
    node = comfy.get_json("/object_info/SongGenLoadLeVoModel")["SongGenLoadLeVoModel"]
    offered = node["input"]["required"]["model"][1]["options"]
    assert offered[0] == FOLDER and VARIANT not in offered and "base" in offered

    hub.seen.clear()
    assert comfy.run(song()).end == "execution_success"  # by its published name, nothing asked for
    named = song_prompt(LoadLeVoModel__model=FOLDER, GenerateTokens__duration=1.0)
    assert comfy.run(named).end == "execution_success"
    assert comfy.run(song(**asked, DiffusionRender__seed=2)).end == "execution_success"
    assert hub.seen == []


def test_a_missing_separator_needs_the_feature(comfy, hub, models):
    asked = {"LoadLeVoModel__download": "if missing", "LoadLeVoModel__licence": ACCEPTED}
    message = message_at_loader(comfy, song(**asked, LoadLeVoModel__features="text + recordings"))
    assert "model_2_fixed.safetensors" in message and "404" in message


def test_a_download_can_be_cancelled(comfy, hub, models):
    hub.trouble(where="model.pt", slow=0.3)
    prompt, pressed = song(LoadLeVoModel__download="if missing", LoadLeVoModel__licence=ACCEPTED), []

    def press_cancel(event, prompt_id):
        if not pressed and event["type"] == "progress":
            comfy.post("/interrupt", {"prompt_id": prompt_id})
            pressed.append(time.monotonic())

    run = comfy.run(prompt, on_event=press_cancel)
    assert run.end == "execution_interrupted" and time.monotonic() - pressed[0] < 2
    assert not (models / FOLDER / "model.pt").exists()
    hub.well_again()
    assert comfy.run(prompt).end == "execution_success"
