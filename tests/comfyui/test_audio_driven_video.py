"""Songs into the video models of ComfyUI's core that listen: Wan 2.2 S2V and HuMo, with random weights.

Everything is real but the text encoder: the networks and their detection are ComfyUI's own, of the smallest
size that it accepts. What comes out is noise in the right number of pictures, with the song as its sound.
"""

import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from comfy_client import NEEDS_MODELS, ROOT, api_workflow, as_oldest, id_of, quick, ui_workflow

av = pytest.importorskip("av")
soundfile = pytest.importorskip("soundfile")
Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.comfyui

HERE = Path(__file__).parent
FPS = {"song_to_talking_video_wan_s2v": 16, "song_to_talking_video_wan_humo": 25}
MOST = {"song_to_talking_video_wan_s2v": 77, "song_to_talking_video_wan_humo": 97}
FRAMES, SIDE, START, RATE = 17, 64, 0.7, 48000


@pytest.fixture(scope="module")
def server(start_comfy, comfyui_path, comfyui_python):
    """A server with the model files that the examples name, and a portrait."""
    with start_comfy("--cpu", packs=(ROOT, HERE / "stub_text_encoder")) as server:
        program = [comfyui_python, str(HERE / "write_wan_models.py"), str(server.base / "models")]
        done = subprocess.run(program, cwd=comfyui_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        pixels = np.random.default_rng(0).integers(0, 256, (80, 96, 3), np.uint8)
        Image.fromarray(pixels).save(server.base / "input" / "example.png")
        yield server
        shutil.rmtree(server.base / "models")  # 1.2 GB


def small(name: str, **clip) -> dict:
    """The example with small pictures, few of them, a stub for the text encoder, and the whole mix saved.

    `clip` sets inputs of Audio for a Video Clip.
    """
    prompt = quick(api_workflow(name))
    for node in prompt.values():
        if node["class_type"] == "CLIPLoader":
            node |= {"class_type": "StubTextEncoder", "inputs": {}}
        if "batch_size" in node["inputs"]:
            node["inputs"] |= {"width": SIDE, "height": SIDE}
    prompt[id_of(prompt, "VideoClip")]["inputs"] |= {"max_frames": FRAMES, "start": START, **clip}
    saved = {"audio": [id_of(prompt, "SplitStems"), 0], "filename_prefix": "mix", "format": "flac"}
    prompt["mix"] = {"class_type": "SongGenSaveAudio", "inputs": saved}
    return prompt


def node_of(prompt: dict, kind: str) -> str:
    (found,) = (key for key, node in prompt.items() if node["class_type"] == kind)
    return found


def succeeded(run):
    assert run.end == "execution_success", (run.error["exception_message"], run.error["traceback"])
    assert run.node_errors == {}
    return run


def made(server, prompt):
    """Queue `prompt` -> pictures [T, H, W, 3], their rate, sound [N], and the song's mix [N]."""
    run = succeeded(server.run(prompt))
    (video,) = run.outputs[node_of(prompt, "SaveVideo")]["images"]
    (mix,) = run.outputs["mix"]["audio"]
    samples, rate = soundfile.read(io.BytesIO(server.view(mix)))
    with av.open(io.BytesIO(server.view(video))) as file:
        fps, sound_rate = file.streams.video[0].average_rate, file.streams.audio[0].rate
        frames = list(file.decode(file.streams.video[0], file.streams.audio[0]))
    pictures = np.stack([f.to_ndarray(format="rgb24") for f in frames if isinstance(f, av.VideoFrame)])
    sound = np.concatenate([f.to_ndarray() for f in frames if isinstance(f, av.AudioFrame)], 1)
    assert sound_rate == rate == RATE
    return pictures, fps, sound[0], samples[:, 0]


def agreement(sound: np.ndarray, part: np.ndarray) -> float:
    """Correlation of two sounds, 1 where they are the same."""
    count = min(len(sound), len(part))
    return float(np.corrcoef(sound[:count], part[:count])[0, 1])


@pytest.mark.parametrize("name", NEEDS_MODELS)
def test_a_song_becomes_a_video_with_the_mix_as_its_sound(server, name):
    """Whisper, which HuMo listens with, has one size and takes a minute on a CPU."""
    pictures, fps, sound, mix = made(server, small(name))
    assert pictures.shape == (FRAMES, SIDE, SIDE, 3) and fps == FPS[name]
    assert pictures.std() > 1, "the pictures are empty"
    first, count = round(START * RATE), FRAMES * RATE // FPS[name]
    assert abs(len(sound) - count) <= 1024  # a block of AAC
    assert agreement(sound, mix[first:]) > 0.7, "of noise, AAC leaves so much"
    assert agreement(sound, mix[first + RATE // 1000 :]) < 0.4
    for trouble in ("unet missing", "unet unexpected", "lora key not loaded", "unexpected audio encoder"):
        assert trouble not in server.log


def test_the_voice_moves_the_pictures(server):
    """Without it they are others; HuMo of ComfyUI cannot do without."""
    prompt = small("song_to_talking_video_wan_s2v")
    pictures, _, sound, _ = made(server, prompt)
    del prompt[node_of(prompt, "WanSoundImageToVideo")]["inputs"]["audio_encoder_output"]
    deaf, _, same_sound, _ = made(server, prompt)
    assert np.array_equal(same_sound, sound) and np.abs(deaf.astype(int) - pictures).mean() > 1


@pytest.mark.parametrize("name", NEEDS_MODELS)
def test_the_models_hear_the_voice_and_viewers_the_mix(name):
    prompt = api_workflow(name)
    clip, stems = id_of(prompt, "VideoClip"), id_of(prompt, "SplitStems")
    heard, movie = (node_of(prompt, kind) for kind in ("AudioEncoderEncode", "CreateVideo"))
    (model,) = (node["inputs"] for node in prompt.values() if "audio_encoder_output" in node["inputs"])
    assert model["audio_encoder_output"] == [heard, 0] and prompt[heard]["inputs"]["audio"] == [clip, 0]
    assert prompt[movie]["inputs"]["audio"] == [clip, 1]
    assert prompt[clip]["inputs"]["audio"] == [stems, 1] and prompt[clip]["inputs"]["second"] == [stems, 0]
    assert model["length"] == [clip, 2] and prompt[movie]["inputs"]["fps"] == [clip, 3]


@pytest.mark.parametrize("name", NEEDS_MODELS)
def test_clips_follow_each_other_to_the_end_of_the_song(server, name):
    """The sampler is left out: what counts are the audio and the number of pictures."""
    graph, start, parts = small(name), 0.0, []
    graph = {key: graph[key] for key in graph if key == "mix" or int(key) <= int(id_of(graph, "VideoClip"))}
    clip = graph[id_of(graph, "VideoClip")]["inputs"] | {"max_frames": FRAMES}
    graph |= {
        "saved": {"class_type": "SongGenSaveAudio", "inputs": {"audio": ["clip", 1], "format": "flac"}},
        "next": {"class_type": "PreviewAny", "inputs": {"source": ["clip", 5]}},
        "info": {"class_type": "PreviewAny", "inputs": {"source": ["clip", 6]}},
    }
    graph["saved"]["inputs"]["filename_prefix"] = "clip"
    info = ""
    while "last clip" not in info:
        graph["clip"] = {"class_type": "SongGenVideoClip", "inputs": clip | {"start": start}}
        run = succeeded(server.run(graph))
        (file,) = run.outputs["saved"]["audio"]
        parts.append(soundfile.read(io.BytesIO(server.view(file)))[0])
        start, info = float(run.outputs["next"]["text"][0]), run.outputs["info"]["text"][0]
    (file,) = run.outputs["mix"]["audio"]
    mix = soundfile.read(io.BytesIO(server.view(file)))[0]
    joined = np.concatenate(parts)
    assert len(parts) > 1 and np.array_equal(joined[: len(mix)], mix) and not joined[len(mix) :].any()

    graph["clip"]["inputs"]["start"] = start
    run = server.run(graph)
    assert "the song ends at 2 s; choose an earlier start" in run.error["exception_message"]


@pytest.mark.parametrize("name", NEEDS_MODELS)
def test_both_forms_of_an_example_are_the_same(server, name):
    convert = pytest.importorskip("comfy_cli.workflow_to_api", reason="needs pip install comfy-cli")
    converted = convert.convert_ui_to_api(ui_workflow(name), server.get_json("/object_info"))
    assert as_oldest(converted) == api_workflow(name)
    clip = converted[id_of(converted, "VideoClip")]["inputs"]
    assert (clip["fps"], clip["max_frames"]) == (FPS[name], MOST[name])


@pytest.mark.parametrize("name", NEEDS_MODELS)
def test_the_note_and_the_loaders_name_the_same_files(server, name):
    """Each loader tells the browser where its file comes from; the note tells the reader."""
    nodes = ui_workflow(name)["nodes"]
    (note,) = (node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote")
    told = {
        (folder, file, url) for folder, file, url in re.findall(r"models/(\w+)\*\*: \[(.+)\]\((.+)\)", note)
    }
    loaders = [(node, node["properties"]["models"]) for node in nodes if "models" in node["properties"]]
    assert told == {(m["directory"], m["name"], m["url"]) for _, models in loaders for m in models}
    info = server.get_json("/object_info")
    for node, (model,) in loaders:
        assert node["widgets_values"][0] == model["name"] == model["url"].rsplit("/", 1)[1]
        assert model["url"].startswith("https://huggingface.co/") and "/resolve/main/" in model["url"]
        spec = next(iter(s for s in info[node["type"]]["input"]["required"].values() if s[0] != "MODEL"))
        options = spec[0] if isinstance(spec[0], list) else spec[1]["options"]
        if model["directory"] != "text_encoders":  # the only one without a stand-in
            assert model["name"] in options, "ComfyUI looks for it in another folder"


def test_the_node_cuts_every_take_and_tells_what_it_did(in_comfyui):
    in_comfyui(
        """
        from pack.nodes.video_clip import VideoClip

        WAN = "4k+1 (Wan, HuMo)"
        wave = torch.arange(3 * 48000.0).expand(2, 1, -1) / 150000
        song = {"waveform": wave, "sample_rate": 48000}
        part, other, *numbers, info = VideoClip.execute(song, 1.0, 1.0, 16.0, WAN).result
        assert numbers == [17, 16.0, 1.0625, 2.0625] and type(numbers[0]) is int
        assert part["waveform"].shape == (2, 1, 51000) and part["sample_rate"] == 48000 and other is part
        assert torch.equal(part["waveform"], wave[..., 48000:99000]) and part["waveform"].is_contiguous()
        assert part["waveform"].untyped_storage().nbytes() == 2 * 51000 * 4
        assert "trimmed" in info and "starts at 2.0625 s" in info

        mix = {"waveform": torch.ones(1, 2, 2 * 44100), "sample_rate": 44100}  # ends early
        part, other, frames, *_, info = VideoClip.execute(song, 1.0, 0.0, 16.0, WAN, 0, mix).result
        assert frames == 33 and part["waveform"].shape[-1] == 99000
        assert not part["waveform"][..., 96000:].any() and part["waveform"][..., 95999].all()
        assert other["sample_rate"] == 44100 and other["waveform"].shape == (1, 2, 90956)
        assert other["waveform"][..., :44100].all() and not other["waveform"][..., 44100:].any()
        assert "padded: the song ends 0.0625 s before" in info and "last clip" in info
        assert "second ends 1 s before audio does" in info

        def refused(*values):
            return message(VideoClip.execute, *values)

        assert "the song ends at 3 s" in refused(song, 3.0, 1.0, 16.0, WAN)
        assert "second ends at 2 s" in refused(song, 2.5, 0.0, 16.0, WAN, 0, mix)
        assert "audio: the connected node delivered no sound" in refused(None, 0.0, 0.0, 16.0, WAN)
        assert "grid is '4k'" in refused(song, 0.0, 0.0, 16.0, "4k")
        assert "choose 0 to 36000" in refused(song, 0.0, 1e307, 120.0, WAN)
        assert "fps is 0" in refused(song, 0.0, 0.0, 0.0, WAN)
        assert "sample rate 0" in refused(song | {"sample_rate": 0}, 0.0, 0.0, 16.0, WAN)
        """
    )
