"""What ComfyUI knows about the pack after its start."""

import re

import pytest
from comfy_client import Client
from node_texts import english, our_nodes, read

pytestmark = pytest.mark.comfyui

NODES = {
    "LoadLeVoModel",
    "LyricsFormatter",
    "DescriptionTags",
    "GenerateTokens",
    "DiffusionRender",
    "SaveAudio",
}


@pytest.fixture(scope="module")
def object_info(comfy: Client):
    return comfy.get_json("/object_info")


def test_all_nodes_are_there_and_nothing_failed(comfy, object_info):
    assert set(our_nodes(object_info)) == {f"SongGen{name}" for name in NODES}
    assert "IMPORT FAILED" not in comfy.log
    assert "Error while calling comfy_entrypoint" not in comfy.log


def test_the_pack_loads_in_half_a_second(comfy):
    (seconds,) = re.findall(r"([\d.]+) seconds: \S+/custom_nodes/songgen\b", comfy.log)
    assert float(seconds) <= 0.5


def test_nodes_of_the_core_stay_what_they_were(object_info):
    for name in ("SaveAudio", "LoadAudio", "PreviewAudio"):
        assert object_info[name]["python_module"] == "comfy_extras.nodes_audio"
    assert "SongGen" not in object_info["SaveAudio"]["display_name"]


def test_every_node_input_and_output_is_explained(object_info):
    for name, node in our_nodes(object_info).items():
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        assert node["category"] == "SongGen" and node["description"], name
        assert all(spec[1].get("tooltip") for spec in inputs.values()), name
        assert all(node["output_tooltips"]), name


def test_the_english_texts_are_those_of_the_nodes(object_info):
    assert read("en") == english(object_info), "update with: python tests/comfyui/node_texts.py <server>"


def test_translations_and_script_are_served(comfy):
    served = comfy.get_json("/i18n")
    for language in ("en", "zh"):
        assert served[language]["nodeDefs"]["SongGenSaveAudio"] == read(language)["SongGenSaveAudio"]
    assert b"AUDIO_UI" in comfy.get("/extensions/songgen/js/songgen.js")


def test_the_example_is_listed_as_a_template(comfy):
    assert comfy.get_json("/workflow_templates")["songgen"] == ["text_to_song"]


def test_the_example_can_be_opened_as_a_template(comfy):
    """ComfyUI serves one folder only: there must be no examples/ beside workflows/."""
    assert comfy.get_json("/api/workflow_templates/songgen/text_to_song.json")["nodes"]


def test_only_the_self_test_model_is_offered_without_model_files(object_info):
    assert object_info["SongGenLoadLeVoModel"]["input"]["required"]["model"][1]["options"] == ["selftest"]
