"""Songs through /prompt and /ws, with the self-test model."""

import io
import json
import time

import numpy as np
import pytest
from comfy_client import Client, Refused, api_workflow, id_of, song_prompt, ui_workflow

soundfile = pytest.importorskip("soundfile")
av = pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.comfyui

CHINESE = "[intro-short]\n\n[verse]\n晨光照进窗台\n脚步轻轻走来\n\n[outro-short]"
SONG_NODES = ("LoadLeVoModel", "GenerateTokens", "DiffusionRender", "SaveAudio")


def ids(prompt, *nodes):
    return {id_of(prompt, node) for node in nodes}


def picture_size(jpeg):
    with Image.open(io.BytesIO(jpeg)) as image:
        return image.size


def saved_by(run, prompt):
    return run.outputs[id_of(prompt, "SaveAudio")]["audio"]


def test_a_song_comes_out_in_the_length_asked_for_and_is_cached(comfy: Client):
    prompt = song_prompt(GenerateTokens__seed=1)
    run = comfy.run(prompt)
    assert run.end == "execution_success"
    (file,) = saved_by(run, prompt)
    assert file["filename"].endswith(".flac") and file["subfolder"] == "songgen" and file["type"] == "output"
    samples, rate = soundfile.read(io.BytesIO(comfy.view(file)))
    assert rate == 48000 and samples.shape == (2 * 48000, 2)
    assert 0.001 < abs(samples).max() <= 1
    for node in ("GenerateTokens", "DiffusionRender"):
        steps = [d for d in run.of("progress") if d["node"] == id_of(prompt, node)]
        assert steps and steps[-1]["value"] == steps[-1]["max"], node
        assert any(name == id_of(prompt, node) for name, _ in run.texts), node
    assert {picture_size(jpeg) for jpeg in run.previews} == {(512, 104), (512, 128)}  # codes, latents
    assert "noise" in run.outputs["7"]["text"][0]
    assert "random weights" in comfy.log

    again = comfy.run(prompt)
    assert again.end == "execution_success" and again.executed == set()
    assert saved_by(again, prompt) == [file]


def test_the_template_as_it_stands_is_sung_by_mini(comfy: Client):
    prompt = api_workflow("text_to_song")
    run = comfy.run(prompt)
    assert run.end == "execution_success"
    (file,) = saved_by(run, prompt)
    samples, rate = soundfile.read(io.BytesIO(comfy.view(file)))
    assert 25 < len(samples) / rate < 60 and 0.05 < abs(samples).max() <= 1
    seconds = samples[: len(samples) // rate * rate].reshape(-1, rate, 2)
    assert (np.square(seconds).mean((1, 2)) > 1e-5).all()  # a song in each of its seconds but the last
    told = run.outputs["7"]["text"][0]
    assert "model mini" in told and "Attention" not in told and "the time was up" not in told


def test_another_render_seed_runs_the_render_branch_only(comfy):
    prompt = song_prompt(GenerateTokens__seed=2)
    comfy.run(prompt)
    run = comfy.run(song_prompt(GenerateTokens__seed=2, DiffusionRender__seed=77))
    assert run.executed == ids(prompt, "DiffusionRender", "SaveAudio")


def test_chinese_lyrics_come_back_from_the_flac_file(comfy):
    workflow = ui_workflow("text_to_song")
    prompt = song_prompt(LyricsFormatter__lyrics=CHINESE)
    (file,) = saved_by(comfy.run(prompt, workflow=workflow), prompt)
    with av.open(io.BytesIO(comfy.view(file))) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    assert json.loads(tags["prompt"])[id_of(prompt, "LyricsFormatter")]["inputs"]["lyrics"] == CHINESE
    assert json.loads(tags["workflow"]) == workflow
    assert tags["prompt"].isascii()


@pytest.mark.parametrize("audio_format", ["wav", "wav32", "mp3"])
def test_other_formats_are_playable(comfy, audio_format):
    prompt = song_prompt(SaveAudio__format=audio_format)
    (file,) = saved_by(comfy.run(prompt), prompt)
    with av.open(io.BytesIO(comfy.view(file))) as container:
        length = sum(frame.samples for frame in container.decode(audio=0))
    assert length == pytest.approx(96000, abs=2500)


def test_cancel_during_the_tokens_takes_effect_at_once(comfy):
    prompt = song_prompt(GenerateTokens__duration=270.0, GenerateTokens__seed=4)
    node, pressed = id_of(prompt, "GenerateTokens"), []

    def press_cancel(event, prompt_id):
        if not pressed and event["type"] == "progress" and event["data"]["node"] == node:
            comfy.post("/interrupt", {"prompt_id": prompt_id})
            pressed.append(time.monotonic())

    run = comfy.run(prompt, on_event=press_cancel)
    assert run.end == "execution_interrupted"
    assert time.monotonic() - pressed[0] < 2
    after = song_prompt(GenerateTokens__seed=5)
    assert comfy.run(after).end == "execution_success"


def without_previews(prompt):
    """Texts that are shown would run on their own, and nothing be refused."""
    return {key: node for key, node in prompt.items() if node["class_type"] != "PreviewAny"}


def refusal(comfy, prompt, node):
    """The message that the server shows at `node`."""
    prompt = without_previews(prompt)
    with pytest.raises(Refused) as caught:
        comfy.run(prompt)
    errors = caught.value.body["node_errors"][id_of(prompt, node)]["errors"]
    return errors[0]["details"]


def test_bad_lyrics_are_refused_before_anything_runs(comfy):
    strict = song_prompt(LyricsFormatter__lyrics="[verze]\nla la", LyricsFormatter__mend=False)
    message = refusal(comfy, strict, "LyricsFormatter")
    assert "did you mean [verse]?" in message and "section 1" in message
    unlinked = song_prompt(GenerateTokens__lyrics="no tag at all")
    assert "before the first tag" in refusal(comfy, unlinked, "GenerateTokens")


def test_bad_linked_lyrics_are_named_at_the_node_that_reads_them(comfy):
    prompt = song_prompt(LyricsFormatter__lyrics=["90", 0], LyricsFormatter__mend=False)
    prompt["90"] = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "[verse]\n【唱】"}}
    run = comfy.run(prompt)
    assert run.end == "execution_error"
    assert run.error["node_id"] == id_of(prompt, "LyricsFormatter")
    assert run.error["exception_message"].strip().startswith("section 1 [verse], line 2:")
    assert "\n" not in run.error["exception_message"].strip()


@pytest.mark.parametrize("prefix", ["../x", "songs/../../x", "/tmp/x", "C:\\x", "..\\x", "  "])
def test_prefixes_that_leave_the_output_folder_are_refused(comfy, prefix):
    message = refusal(comfy, song_prompt(SaveAudio__filename_prefix=prefix), "SaveAudio")
    assert "filename_prefix" in message


def test_a_linked_prefix_is_checked_as_well(comfy):
    prompt = song_prompt(SaveAudio__filename_prefix=["90", 0])
    prompt["90"] = {"class_type": "PrimitiveString", "inputs": {"value": "../../x"}}
    run = comfy.run(prompt)
    assert run.end == "execution_error" and run.error["node_id"] == id_of(prompt, "SaveAudio")
    assert "leads out of the output folder" in run.error["exception_message"]


@pytest.mark.parametrize(
    "change",
    [
        {"SaveAudio__format": "../flac"},
        {"LoadLeVoModel__model": "/etc/passwd"},
        {"LoadLeVoModel__dtype": "int8"},
        {"DescriptionTags__genre": "x\n"},
        {"DiffusionRender__output": "drums"},
        {"GenerateTokens__output": "drums"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_choices_outside_the_list_never_run(comfy, change):
    """Newer servers refuse them, older ones leave it to the node."""
    prompt = song_prompt(**change)
    node = next(iter(change)).split("__")[0]
    prompt = without_previews(prompt)
    try:
        run = comfy.run(prompt)
    except Refused as refused:
        assert id_of(prompt, node) in refused.body["node_errors"]
    else:
        assert run.end == "execution_error" and run.error["node_id"] == id_of(prompt, node)
        assert "choose one of" in run.error["exception_message"]


def test_impossible_settings_are_refused_before_anything_runs(comfy):
    told = "description: bpm 5 is not possible; give a whole number from 20 to 300, for example 120"
    assert told in refusal(comfy, song_prompt(DescriptionTags__bpm=5), "DescriptionTags")
    assert told in refusal(comfy, song_prompt(DescriptionTags__extra="bpm 5"), "DescriptionTags")
    assert told in refusal(comfy, song_prompt(GenerateTokens__description="bpm 5"), "GenerateTokens")


def test_impossible_linked_settings_give_one_clear_line(comfy):
    prompt = song_prompt(DescriptionTags__extra=["90", 0])
    prompt["90"] = {"class_type": "PrimitiveString", "inputs": {"value": "bpm 5"}}
    run = comfy.run(prompt)
    assert run.error["node_id"] == id_of(prompt, "DescriptionTags")
    assert run.error["exception_message"].strip().startswith("description: bpm 5 is not possible")


def test_freed_models_come_back(comfy):
    comfy.run(song_prompt(GenerateTokens__seed=6))
    comfy.post("/free", {"unload_models": True})
    time.sleep(2)  # the server looks at it once a second
    run = comfy.run(song_prompt(GenerateTokens__seed=6, DiffusionRender__seed=6))
    assert run.end == "execution_success" and len(run.executed) == 2


def test_accompaniment_alone(comfy):
    prompt = song_prompt(GenerateTokens__output="bgm", DiffusionRender__output="bgm")
    assert comfy.run(prompt).end == "execution_success"


def test_lyrics_from_another_tool_are_mended_on_the_way(comfy):
    typed = "[Verse 1]\nMorning light\n\n**Chorus**\nSing it loud (x2)"
    run = comfy.run(song_prompt(LyricsFormatter__lyrics=typed))
    assert run.end == "execution_success", run.error
