"""What ComfyUI knows about the pack after its start."""

import re

import pytest
from comfy_client import WORKFLOWS, Client
from node_texts import english, our_nodes, read

pytestmark = pytest.mark.comfyui

NODES = {
    "Song",
    "LoadLeVoModel",
    "LyricsFormatter",
    "DescriptionTags",
    "AudioPrompt",
    "GenrePrompt",
    "GenerateTokens",
    "DiffusionRender",
    "SplitStems",
    "SaveAudio",
    "SeparateAudio",
    "EncodeAudioTokens",
    "SaveTokens",
    "LoadTokens",
    "AnalyzeSong",
    "BurnSubtitles",
    "SaveSubtitles",
    "Visualizer",
    "CoverArt",
    "CutToBeat",
    "VideoClip",
}
VARIANTS = ["base", "base-new", "base-full", "large", "v2-medium", "v2-large"]


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


def test_the_examples_are_listed_as_templates(comfy):
    assert sorted(comfy.get_json("/workflow_templates")["songgen"]) == WORKFLOWS


@pytest.mark.parametrize("name", WORKFLOWS)
def test_an_example_can_be_opened_as_a_template(comfy, name):
    """ComfyUI serves one folder only: there must be no examples/ beside workflows/."""
    assert comfy.get_json(f"/api/workflow_templates/songgen/{name}.json")["nodes"]


def test_published_models_are_offered_without_model_files(object_info):
    _, model = object_info["SongGenLoadLeVoModel"]["input"]["required"]["model"]
    assert model["options"] == [*VARIANTS, "mini", "selftest"] and model["default"] == "mini"


def test_the_licence_is_shown_before_a_download(object_info):
    options = object_info["SongGenLoadLeVoModel"]["input"]["optional"]
    assert options["download"][1]["default"] == "never"
    assert options["licence"][1]["default"] == "not accepted"
    assert "research and education purposes only" in options["licence"][1]["tooltip"]
