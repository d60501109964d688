"""From a song to a music video: the nodes in ComfyUI's own Python, and what the examples save."""

import io
import json

import pytest
import recordings
import torch
from comfy_client import Client, Refused, Run, api_workflow, id_of, quick

from songgen_core.analysis.envelopes import frame_count
from songgen_core.analysis.visuals import check_memory
from songgen_core.audio.files import save_audio

av = pytest.importorskip("av")
pytestmark = pytest.mark.comfyui

RATE = 22050
VIDEOS = ("song_to_music_video", "lyric_video", "analyze_song")
SIZE, FPS = dict.fromkeys(VIDEOS, (512, 288)), dict.fromkeys(VIDEOS, 12)
SIZE["song_to_music_video"], FPS["song_to_music_video"] = (480, 272), 10  # a song of 4:30 fits


def clicks(seconds: float) -> torch.Tensor:
    """[1, N]: 120 beats a minute."""
    time = torch.arange(round(RATE * seconds)) / RATE
    beat = (time % 0.5 < 0.05).float() * torch.exp(-(time % 0.5) * 60)
    return (beat * torch.sin(2 * torch.pi * 180 * time))[None]


def saved_video(comfy: Client, run: Run) -> "av.container.InputContainer":
    assert run.end == "execution_success", run.error
    (file,) = (o["images"][0] for o in run.outputs.values() if o.get("animated"))
    assert file["filename"].endswith(".mp4") and file["subfolder"] == "songgen" and file["type"] == "output"
    return av.open(io.BytesIO(comfy.view(file)))


def decoded(container: "av.container.InputContainer") -> tuple[list[torch.Tensor], float]:
    """Pictures [H, W, 3] of a file, and the length of its sound in seconds."""
    pictures, samples = [], 0
    with container:
        rate = container.streams.audio[0].rate
        for frame in container.decode(video=0, audio=0):
            if isinstance(frame, av.VideoFrame):
                pictures.append(torch.from_numpy(frame.to_ndarray(format="rgb24")).float() / 255)
            else:
                samples += frame.samples
    return pictures, samples / rate


@pytest.mark.parametrize("name", VIDEOS)
def test_an_example_becomes_a_video_as_long_as_its_song(comfy: Client, name: str) -> None:
    recordings.write_song(comfy.base / "input" / "recording.flac", 2)
    pictures, seconds = decoded(saved_video(comfy, comfy.run(quick(api_workflow(name)))))
    assert len(pictures) == 2 * FPS[name] and pictures[0].shape == (*SIZE[name][::-1], 3)
    assert abs(seconds - 2) < 0.05  # AAC fills its last frame up
    assert all(picture.std() > 0.01 for picture in pictures[2:])  # something is drawn


def test_the_music_video_has_a_cover_and_subtitles(comfy: Client) -> None:
    prompt = quick(api_workflow("song_to_music_video"))
    burned = prompt[id_of(prompt, "BurnSubtitles")]["inputs"]
    burned["subtitles"] = "[00:01.00]La la la\n[00:02.00]"
    prompt[id_of(prompt, "CutToBeat")]["inputs"] |= {"pulse": 0.0, "every": 32}
    run = comfy.run(prompt)
    pictures, _ = decoded(saved_video(comfy, run))
    assert (pictures[4] - pictures[8]).abs().mean() < 0.01
    changed = (pictures[4] - pictures[15]).abs().amax(-1) > 0.25
    assert changed[190:].any() and not changed[:140].any()
    (cover,) = (o["images"][0] for o in run.outputs.values() if not o.get("animated"))
    assert cover["subfolder"] == "songgen" and cover["filename"].startswith("cover")
    assert comfy.view(cover)[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_music_video_holds_the_longest_song() -> None:
    """4:30 minutes, the most that a model writes, in the size and at the rate of the example."""
    prompt = api_workflow("song_to_music_video")
    scale = next(node["inputs"] for node in prompt.values() if node["class_type"] == "ImageScale")
    (rate,) = (node["inputs"]["value"] for node in prompt.values() if node["class_type"] == "PrimitiveFloat")
    assert (scale["width"], scale["height"]) == SIZE["song_to_music_video"]
    assert rate == FPS["song_to_music_video"]
    check_memory(frame_count(270, rate), scale["height"], scale["width"], "")


def test_a_cover_that_cannot_be_drawn_is_told_before_the_song_is_made(comfy: Client) -> None:
    prompt = quick(api_workflow("song_to_music_video"))
    key, cover = next((key, node) for key, node in prompt.items() if node["inputs"].get("title"))
    prompt = {key: node for key, node in prompt.items() if node["class_type"] != "SaveVideo"}
    for change, expected in (
        ({"title": "x" * 201}, "title has 201 characters"),
        ({"font": "Nothing"}, "there is no font 'Nothing'"),
        ({"title": "W" * 200, "size": 64}, "do not fit into 64x64"),
        ({"aspect": "4:5"}, "choose one of 1:1"),
        ({"size": 5000}, "choose 64 to 4096"),
        ({"description": "x" * 3000}, "3000 characters"),
    ):
        asked = prompt | {key: {"class_type": "SongGenCoverArt", "inputs": cover["inputs"] | change}}
        with pytest.raises(Refused) as refused:  # nothing is run
            comfy.post("/prompt", {"prompt": asked})
        assert expected in json.dumps(refused.value.body), change


def test_a_song_can_be_cut_in_parts(comfy: Client) -> None:
    cut = {"fps": 10.0, "every": 1, "order": "shuffled", "pulse": 0.3, "seed": 5, "frames": ["told", 8]}
    save_audio(comfy.base / "input" / "clicks.flac", clicks(6).repeat(2, 1), RATE)
    still = {"title": "", "artist": "", "aspect": "16:9", "size": 64, "style": "sun", "seed": 3}
    nodes = {
        "sound": ("LoadAudio", {"audio": "clicks.flac"}),
        "told": ("SongGenAnalyzeSong", {"audio": ["sound", 0], "fps": 10.0}),
        "stills": ("SongGenCoverArt", {"variations": 4, **still}),
    }
    for name, part in (("all", {}), ("a", {"max_seconds": 2.5}), ("b", {"start": 2.5, "max_seconds": 9.0})):
        given = {"pictures": ["stills", 0], "beats": ["told", 1], **cut, **part}
        nodes[name] = ("SongGenCutToBeat", given)
        nodes[f"save {name}"] = ("SaveImage", {"images": [name, 0], "filename_prefix": f"part_{name}"})
    run = comfy.run({name: {"class_type": kind, "inputs": given} for name, (kind, given) in nodes.items()})
    assert run.end == "execution_success", run.error
    whole, first, second = (
        [comfy.view(file) for file in run.outputs[f"save {name}"]["images"]] for name in ("all", "a", "b")
    )
    assert [len(files) for files in (whole, first, second)] == [60, 25, 35]
    assert len(set(whole)) > 10 and first + second == whole


def test_beats_of_a_graph_cut_to_the_frame(comfy: Client) -> None:
    image = pytest.importorskip("PIL.Image")
    save_audio(comfy.base / "input" / "clicks.flac", clicks(6).repeat(2, 1), RATE)
    still = {"title": "", "artist": "", "aspect": "16:9", "size": 64, "style": "rings", "seed": 3}
    cut = {"fps": 12.0, "every": 2, "order": "in turn", "pulse": 0.0, "seed": 0, "frames": ["told", 8]}
    nodes = {
        "sound": ("LoadAudio", {"audio": "clicks.flac"}),
        "told": ("SongGenAnalyzeSong", {"audio": ["sound", 0], "fps": 12.0}),
        "beats": ("PreviewAny", {"source": ["told", 1]}),
        "stills": ("SongGenCoverArt", {"variations": 3, **still}),
        "cut": ("SongGenCutToBeat", {"pictures": ["stills", 0], "beats": ["told", 1], **cut}),
        "count": ("PreviewAny", {"source": ["cut", 1]}),
        "saved": ("SaveImage", {"images": ["cut", 0], "filename_prefix": "cut"}),
    }
    run = comfy.run({name: {"class_type": kind, "inputs": given} for name, (kind, given) in nodes.items()})
    assert run.end == "execution_success", run.error
    files = [comfy.view(file) for file in run.outputs["saved"]["images"]]
    pictures = [image.open(io.BytesIO(file)).tobytes() for file in files]
    assert run.outputs["count"]["text"] == ["72"] and len(pictures) == 72 and len(set(pictures)) == 3
    beats = json.loads(run.outputs["beats"]["text"][0])
    cuts = [beat for beat in beats[::2] if beat > (beats[1] - beats[0]) / 2]
    assert len(cuts) >= 4
    expected = [at for at in range(1, 72) if any(at - 0.5 < beat * 12 <= at + 0.5 for beat in cuts)]
    assert [at for at in range(1, 72) if pictures[at] != pictures[at - 1]] == expected


def test_a_number_in_place_of_beats_is_refused_in_words(comfy: Client) -> None:
    prompt = api_workflow("analyze_song")
    recordings.write_song(comfy.base / "input" / "recording.flac", 2)
    told = id_of(prompt, "AnalyzeSong")
    still = {
        "title": "",
        "artist": "",
        "aspect": "1:1",
        "size": 64,
        "style": "sun",
        "seed": 0,
        "variations": 1,
    }
    cut = {"fps": 12.0, "every": 2, "order": "in turn", "pulse": 0.0, "seed": 0, "frames": [told, 8]}
    prompt["stills"] = {"class_type": "SongGenCoverArt", "inputs": still}
    given = {"pictures": ["stills", 0], "beats": [told, 0], **cut}
    prompt["cut"] = {"class_type": "SongGenCutToBeat", "inputs": given}
    prompt["count"] = {"class_type": "PreviewAny", "inputs": {"source": ["cut", 1]}}
    run = comfy.run(prompt)
    assert run.end == "execution_error" and run.error["node_type"] == "SongGenCutToBeat"
    message = run.error["exception_message"]
    assert "single number" in message and "output beats" in message and "\n" not in message.strip()


def test_the_nodes_give_what_they_promise(in_comfyui) -> None:
    in_comfyui("""
        import logging
        from pack.nodes import video
        noise = {"waveform": 0.1 * torch.randn(2, 2, 48000), "sample_rate": 48000}
        cover = ("夜 Été", "Ada", "9:16", 128, "mixed", 3, 5, noise, "sad, piano")
        stills, = video.CoverArt.execute(*cover).result
        assert stills.shape == (3, 128, 72, 3) and stills.dtype == torch.float32
        assert torch.equal(stills, video.CoverArt.execute(*cover).result[0])
        plain, = video.CoverArt.execute("", "", "1:1", 64, "field", 1, 5).result
        assert plain.shape == (1, 64, 64, 3)

        told = []
        logging.getLogger("songgen").addHandler(type("Ear", (logging.Handler,), {
            "emit": lambda self, record: told.append(record.getMessage())})())
        images, frames = video.CutToBeat.execute(stills, [0.5, 1.0], 12.0, 24, 1, "shuffled", 0.3, 5).result
        assert images.shape == (24, 128, 72, 3) and frames == 24 and told == []
        images, frames = video.CutToBeat.execute(stills, [], 12.0, 24, 2, "in turn", 0.0, 5, 1).result
        assert frames == 24 and "no beats" in told[0] and "every 1 s" in told[0]
        assert torch.equal(images[11], stills[0]) and torch.equal(images[12], stills[1])
        told.clear()
        refused = message(video.CutToBeat.execute, stills, [], 12.0, 0, 2, "in turn", 0.0, 5)
        assert "frames is 0" in refused and told == []
        part = (stills, [0.5, 1.0], 12.0, 24, 1, "shuffled", 0.3, 5, 1, 0.5, 1.0)
        images, frames = video.CutToBeat.execute(*part).result
        assert images.shape == (12, 128, 72, 3) and frames == 12
        for beats in (120.0, [0.3, 0.1], None):
            given = (stills, beats, 12.0, 24, 1, "in turn", 0.3, 5)
            assert "Analyze Song" in message(video.CutToBeat.execute, *given)
        assert "4 GB" in message(video.CutToBeat.execute, stills, [1.0], 120.0, 10**6, 1, "in turn", 0.3, 5)
        assert "16:9" in message(video.CoverArt.execute, "", "", "2:1", 64, "field", 1, 5)
    """)
