"""Recordings as prompts, stems and codes through a real server, with the self-test model."""

import io
import time
from itertools import pairwise

import pytest
import recordings
from comfy_client import (
    SELF_CONTAINED,
    WORKFLOWS,
    Client,
    Refused,
    api_workflow,
    as_oldest,
    id_of,
    quick,
    song_prompt,
    ui_workflow,
)

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("av")  # reads and writes the recordings
pytest.importorskip("demucs", reason="recordings are separated: pip install --no-deps 'demucs>=4.1' einops")
pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module", autouse=True)
def songs(comfy: Client) -> None:
    """Files in the input folder; recording.flac is what the example workflows name."""
    folder = comfy.base / "input"
    recordings.write_song(folder / "recording.flac", 20)
    recordings.write_song(folder / "song.mp3", 12)
    recordings.write_song(folder / "mono.wav", 12, 8000, channels=1)
    recordings.write_song(folder / "short.wav", 0.5, 48000)
    recordings.write_song(folder / "long.flac", 600, 8000, channels=1)
    recordings.write_song(folder / "whole.flac", 200, 8000, channels=1)
    recordings.write_silence(folder / "silent.wav", 11)


def load_audio(file: str) -> dict:
    return {"class_type": "LoadAudio", "inputs": {"audio": file}}


def prompt_graph(**inputs) -> dict:
    """AudioPrompt (3) of the files named by `audio`, `vocal`, `bgm`; clip and info are shown by 4 and 5."""
    graph = {"1": {"class_type": "SongGenLoadLeVoModel", "inputs": {"model": "selftest"}}}
    graph["1"]["inputs"] |= {"dtype": "auto", "variant": "auto"}
    defaults = {"model": ["1", 0], "seed": 0, "find_best": True, "start": 0.0, "seconds": 10.0}
    for number, name in enumerate(("audio", "vocal", "bgm"), 20):
        if name in inputs:
            graph[str(number)] = load_audio(inputs.pop(name))
            defaults[name] = [str(number), 0]
    graph["3"] = {"class_type": "SongGenAudioPrompt", "inputs": defaults | inputs}
    graph["4"] = {"class_type": "PreviewAudio", "inputs": {"audio": ["3", 1]}}
    graph["5"] = {"class_type": "PreviewAny", "inputs": {"source": ["3", 2]}}
    return graph


def succeeded(run):
    assert run.end == "execution_success", (run.error["exception_message"], run.error["traceback"])
    return run


def message_of(run) -> str:
    assert run.end == "execution_error"
    message = run.error["exception_message"].strip()
    assert "\n" not in message
    return message


def heard(comfy, run, node: str = "4"):
    (file,) = run.outputs[node]["audio"]
    return soundfile.read(io.BytesIO(comfy.view(file)))


def info(run) -> str:
    return run.outputs["5"]["text"][0]


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_every_workflow_runs_in_both_forms(comfy: Client, name):
    convert = pytest.importorskip("comfy_cli.workflow_to_api", reason="needs pip install comfy-cli")
    workflow = ui_workflow(name)
    converted = convert.convert_ui_to_api(workflow, comfy.get_json("/object_info"))
    assert as_oldest(converted) == api_workflow(name)
    run = succeeded(comfy.run(quick(api_workflow(name), model="mini")))
    assert run.node_errors == {} and run.outputs
    again = succeeded(comfy.run(quick(converted, model="mini"), workflow=workflow))
    assert again.executed == set()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_stored_widget_values_are_complete(comfy, name):
    object_info = comfy.get_json("/object_info")
    for node in ui_workflow(name)["nodes"]:
        if node["type"].startswith("SongGen"):
            known = object_info[node["type"]]["input"]
            specs = {**known["required"], **known.get("optional", {})}
            stored = [i["name"] for i in node["inputs"] if "widget" in i]
            seeds = sum(bool(specs[name][1].get("control_after_generate")) for name in stored)
            assert [i["name"] for i in node["inputs"]] == list(specs)
            assert len(node["widgets_values"]) == len(stored) + seeds, node["type"]


@pytest.mark.parametrize(
    "file, seconds, words",
    [
        ("song.mp3", 10.0, "found by find_best"),
        ("recording.flac", 10.0, "found by find_best"),
        ("mono.wav", 10.0, "were separated"),
        ("short.wav", 0.5, "ends before the 10 s"),
        ("long.flac", 10.0, "found by find_best"),
        ("silent.wav", 10.0, "is silent"),
    ],
)
def test_recordings_of_all_kinds_become_prompts(comfy, file, seconds, words):
    run = succeeded(comfy.run(prompt_graph(audio=file, seed=31)))
    samples, rate = heard(comfy, run)
    assert rate == 48000 and samples.shape == (round(seconds * 48000), 2)
    assert info(run).startswith(f"prompt of {seconds:.1f} s") and words in info(run)
    steps = [d for d in run.of("progress") if d["node"] == "3"]
    assert steps and steps[-1]["value"] == steps[-1]["max"]


def test_the_place_can_be_chosen(comfy):
    run = succeeded(comfy.run(prompt_graph(audio="song.mp3", find_best=False, start=1.5, seconds=2.0)))
    assert info(run).startswith("prompt of 2.0 s, from 1.5 s of the recording on\n")
    late = prompt_graph(audio="song.mp3", find_best=False, start=99.0)
    assert "start earlier" in message_of(comfy.run(late))
    faithful = prompt_graph(audio="song.mp3", find_best=False, start=9.0, faithful=True)
    assert "faithful" in message_of(comfy.run(faithful))


def test_stems_that_are_given_are_not_separated(comfy):
    run = succeeded(comfy.run(prompt_graph(vocal="song.mp3", bgm="recording.flac", seconds=2.0)))
    assert "were given" in info(run)
    assert not any("separating" in text for _, text in run.texts)
    alone = succeeded(comfy.run(prompt_graph(vocal="song.mp3", seconds=2.0)))
    assert "without an accompaniment" in info(alone)
    assert "no recording is given" in message_of(comfy.run(prompt_graph()))


def test_a_prompt_changes_the_song_and_is_made_once(comfy):
    prompt = song_prompt("audio_prompt", GenerateTokens__seed=21, GenerateTokens__description="female, pop")
    run = succeeded(comfy.run(prompt))
    assert "a prompt and a description are both given" in run.outputs["10"]["text"][0]
    changed = song_prompt("audio_prompt", GenerateTokens__seed=22)
    again = comfy.run(changed)
    assert id_of(changed, "AudioPrompt") not in again.executed
    plain = song_prompt("audio_prompt", GenerateTokens__seed=22)
    del plain[id_of(plain, "GenerateTokens")]["inputs"]["prompt"]
    del plain[id_of(plain, "DiffusionRender")]["inputs"]["prompt"]
    del plain["8"], plain["9"]
    other = comfy.run(plain)
    node = id_of(plain, "SaveAudio")
    first, second = (heard(comfy, r, node)[0] for r in (again, other))
    assert first.shape == second.shape and abs(first - second).max() > 0.01


def test_prompts_outlive_the_memory_of_the_server(comfy):
    graph = prompt_graph(audio="song.mp3", seconds=3.0)
    first = succeeded(comfy.run(graph))
    assert any("encoding the prompt" in text for _, text in first.texts)
    assert list((comfy.base / "user" / "songgen" / "prompts").glob("*.safetensors"))
    time.sleep(2)  # the server tidies up after a prompt, and would not notice
    comfy.post("/free", {"free_memory": True})
    time.sleep(2)  # the server looks at it once a second
    again = succeeded(comfy.run(graph))
    assert "3" in again.executed
    assert not any("encoding the prompt" in text for _, text in again.texts)
    assert info(again) == info(first)
    assert (heard(comfy, again)[0] == heard(comfy, first)[0]).all()


@pytest.mark.parametrize("node", ["AudioPrompt", "EncodeAudioTokens"])
def test_cancel_takes_effect_at_once(comfy, node):
    graph, pressed = prompt_graph(audio="whole.flac", find_best=False, seed=5), []
    if node == "AudioPrompt":
        graph["3"]["inputs"]["faithful"] = True  # which separates all of it
    else:
        inputs = {"model": ["1", 0], "audio": ["20", 0], "seed": 0}
        graph = {"1": graph["1"], "20": graph["20"], "3": {"class_type": f"SongGen{node}", "inputs": inputs}}
        graph["5"] = {"class_type": "PreviewAny", "inputs": {"source": ["3", 2]}}

    def press_cancel(event, prompt_id):
        if not pressed and event["type"] == "progress" and event["data"]["node"] == "3":
            comfy.post("/interrupt", {"prompt_id": prompt_id})
            pressed.append(time.monotonic())

    run = comfy.run(graph, on_event=press_cancel)
    assert run.end == "execution_interrupted"
    assert time.monotonic() - pressed[0] < 2
    succeeded(comfy.run(prompt_graph(audio="short.wav", seed=6)))


def test_genres_and_their_seeds(comfy):
    def told(**inputs):
        run = succeeded(comfy.run(song_prompt("genre_prompt", **inputs)))
        return run.outputs["7"]["text"][0]

    assert "Jazz, en" in told(GenrePrompt__genre="Jazz")
    assert "Auto, zh" in told(GenrePrompt__genre="Auto", GenrePrompt__lyrics="[verse]\n晨光照进窗台")
    assert "Pop, zh" in told(GenrePrompt__language="zh")


def test_three_tracks_are_three_renders_of_one_song(comfy):
    prompt = song_prompt("stems", GenerateTokens__seed=3)
    del prompt["6"], prompt["10"], prompt["11"]  # Demucs has its own test
    run = succeeded(comfy.run(prompt))
    tracks = [heard(comfy, run, node)[0] for node in ("7", "8", "9")]
    assert {track.shape for track in tracks} == {(2 * 48000, 2)}
    assert all(abs(a - b).max() > 0.01 for a, b in pairwise(tracks))
    alone = song_prompt("text_to_song")
    split = id_of(prompt, "SplitStems")
    graph = {key: node for key, node in prompt.items() if key not in ("8", "9", split)}
    render = {**alone[id_of(alone, "DiffusionRender")]["inputs"], "output": "mixed"}
    graph["7"]["inputs"]["audio"] = [split, 0]
    links = {name: prompt[split]["inputs"][name] for name in ("model", "codes")}
    graph[split] = {"class_type": "SongGenDiffusionRender", "inputs": {**render, **links}}
    single = heard(comfy, succeeded(comfy.run(graph)), "7")[0]
    assert (single == tracks[0]).all()


def separate_graph(file: str, **inputs) -> dict:
    asked = {"audio": ["1", 0], "separator": "selftest", "seed": 0, **inputs}
    graph = {"1": load_audio(file), "2": {"class_type": "SongGenSeparateAudio", "inputs": asked}}
    for number, key in enumerate(("10", "11", "12", "13", "14")):
        saved = {"audio": ["2", number], "filename_prefix": f"separated/{number}", "format": "wav32"}
        graph[key] = {"class_type": "SongGenSaveAudio", "inputs": saved}
    return graph


@pytest.mark.parametrize("file, rate, seconds", [("song.mp3", 44100, 12.0), ("mono.wav", 8000, 12.0)])
def test_any_recording_is_separated_at_its_own_rate(comfy, file, rate, seconds):
    run = succeeded(comfy.run(separate_graph(file)))
    stems = [heard(comfy, run, key) for key in ("10", "11", "12", "13", "14")]
    assert {r for _, r in stems} == {rate}
    assert {s.shape[1] for s, _ in stems} == {2} and len({s.shape for s, _ in stems}) == 1
    assert stems[0][0].shape[0] == pytest.approx(seconds * rate, abs=0.1 * rate)
    mix, _ = soundfile.read(comfy.base / "input" / file, always_2d=True)
    together = stems[0][0] + stems[4][0]  # voice and accompaniment are the whole
    assert abs(together[: len(mix)] - mix[: len(together)]).max() < 1e-3


def test_a_missing_separator_is_named(comfy):
    message = message_of(comfy.run(separate_graph("short.wav", separator="auto")))
    assert "htdemucs.pth" in message and "songgen download" in message


def codes_graph(**load) -> dict:
    """Encode, save, load and render."""
    prompt = song_prompt("codec_roundtrip", SaveTokens__filename_prefix="songgen/deep/tokens")
    prompt["2"]["inputs"]["audio"] = "short.wav"
    saved = id_of(prompt, "SaveTokens")
    inputs = {"file": "no file of codes found", "path": [saved, 1], **load}
    prompt["30"] = {"class_type": "SongGenLoadTokens", "inputs": inputs}
    prompt["31"] = {"class_type": "PreviewAny", "inputs": {"source": ["30", 2]}}
    prompt[id_of(prompt, "DiffusionRender")]["inputs"]["codes"] = ["30", 0]
    return prompt


def offered_files(comfy) -> list[str]:
    node = comfy.get_json("/object_info/SongGenLoadTokens")["SongGenLoadTokens"]
    return node["input"]["required"]["file"][1]["options"]


def test_codes_are_saved_and_come_back(comfy):
    run = succeeded(comfy.run(codes_graph()))  # whatever `file` says, there or not
    assert run.outputs["31"]["text"][0].startswith("0.48 s, 12 frames\nnotes: 0.48 s, 12 frames")
    (name,) = (f for f in offered_files(comfy) if f.startswith("songgen/deep/"))
    assert name == "songgen/deep/tokens_00001_.safetensors [output]"
    by_name = {"30": codes_graph(file=name, path="")["30"]}
    by_name["31"] = {"class_type": "PreviewAny", "inputs": {"source": ["30", 2]}}
    assert succeeded(comfy.run(by_name)).outputs["31"]["text"] == run.outputs["31"]["text"]
    assert comfy.run(by_name).executed == set()


@pytest.mark.parametrize(
    "path", ["../x.safetensors", "/etc/x.safetensors", "songgen/../../x.safetensors [output]", "x.pt", "a\0b"]
)
def test_codes_are_only_read_inside_the_folders_of_comfyui(comfy, path):
    graph = {"30": {"class_type": "SongGenLoadTokens", "inputs": {"file": offered_files(comfy)[0]}}}
    graph["31"] = {"class_type": "PreviewAny", "inputs": {"source": ["30", 2]}}
    graph["30"]["inputs"]["path"] = path
    with pytest.raises(Refused) as caught:
        comfy.run(graph)
    assert "inside ComfyUI's input or output folder" in str(caught.value.body["node_errors"]["30"])
    graph["30"]["inputs"]["path"] = ["90", 0]
    graph["90"] = {"class_type": "PrimitiveString", "inputs": {"value": path}}
    assert "inside ComfyUI's input or output folder" in message_of(comfy.run(graph))
