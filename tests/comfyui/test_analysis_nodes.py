"""Analysis of a song for video, called in a process of ComfyUI's own Python and as a graph on the server."""

from pathlib import Path

import pytest
from comfy_client import Client, Refused, id_of, song_prompt

pytestmark = pytest.mark.comfyui

CLICKS = """
from pack.nodes import analysis
t = torch.arange(22050 * 8) / 22050
beat = (t % 0.5 < 0.05).float() * torch.exp(-(t % 0.5) * 60)  # 120 beats a minute
clicks = {"waveform": (beat * torch.sin(2 * torch.pi * 180 * t))[None, None], "sample_rate": 22050}
"""


def test_a_song_is_analysed_and_drawn(in_comfyui):
    in_comfyui(
        CLICKS
        + """
result = analysis.AnalyzeSong.execute(clicks, 24.0, "[verse]\\nHello there\\n[chorus]\\nSing it loud").result
bpm, beats, downbeats, loudness, onsets = result[:5]
assert abs(bpm - 120) < 3 and abs(len(beats) - 16) <= 2, (bpm, beats)
assert type(beats) is list and type(beats[0]) is float and set(downbeats) <= set(beats)
assert len(loudness) == len(onsets) == 8 * 24
pictures, frames = analysis.Visualizer.execute(clicks, 24.0, 128, 72, "bars", "#40c4ff", 0.0, 30.0).result
assert pictures.shape == (192, 72, 128, 3) and frames == 192
assert 0 <= pictures.min() and 0.1 < pictures.max() <= 1
srt = "1\\n00:00:01,000 --> 00:00:03,000\\nHello\\n"
burned, = analysis.BurnSubtitles.execute(pictures, srt, 24.0, 0, "#fff", "bottom", "").result
changed = (burned != pictures).flatten(1).any(1)
assert changed[30:70].all() and not changed[:23].any() and not changed[74:].any()
"""
    )


def test_what_has_no_beat_gets_none(in_comfyui):
    in_comfyui(
        CLICKS
        + """
silence = {"waveform": torch.zeros(1, 1, 16000), "sample_rate": 8000}
bpm, beats, downbeats, *_ = analysis.AnalyzeSong.execute(silence, 24.0).result
assert bpm == 0.0 and beats == [] and downbeats == []
assert "GB" in message(analysis.Visualizer.execute, clicks, 120.0, 4096, 4096, "bars", "#fff", 0.0, 600.0)
"""
    )


def test_a_graph_makes_pictures_of_a_song(comfy: Client) -> None:
    prompt = song_prompt()
    audio = [id_of(prompt, "DiffusionRender"), 0]
    picture = {"width": 128, "height": 72, "style": "wave", "colour": "#40c4ff", "start": 0.0}
    words = {"subtitles": "[00:00.10]La la la", "size": 0, "colour": "#ffffff", "position": "bottom"}
    nodes = {
        "drawn": ("SongGenVisualizer", {"audio": audio, "fps": 12.0, "max_seconds": 30.0, **picture}),
        "burned": ("SongGenBurnSubtitles", {"images": ["drawn", 0], "fps": 12.0, "font": "", **words}),
        "saved": ("SaveImage", {"images": ["burned", 0], "filename_prefix": "frames"}),
        "told": ("SongGenAnalyzeSong", {"audio": audio, "fps": 12.0}),
        "shown": ("PreviewAny", {"source": ["told", 0]}),
    }
    prompt |= {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}
    run = comfy.run(prompt)
    assert run.end == "execution_success", run.error
    assert len(run.outputs["saved"]["images"]) == 24


def subtitles_prompt(text, **changes):
    inputs = {"subtitles": text, "filename_prefix": "words/song", "format": "lrc", **changes}
    return {"1": {"class_type": "SongGenSaveSubtitles", "inputs": inputs}}


def test_subtitles_are_saved_in_either_form(comfy):
    srt = "1\n00:00:01,000 --> 00:00:02,500\n晨光 light\n"
    shown = comfy.run(subtitles_prompt(srt)).outputs["1"]
    (path,) = shown["text"]
    assert comfy.view(shown["files"][0]) == Path(path).read_bytes()
    assert path.endswith(".lrc")
    saved = (comfy.base / "output" / "words").joinpath(Path(path).name)
    assert saved.read_text(encoding="utf-8") == "[00:01.00]晨光 light\n[00:02.50]\n"
    (other,) = comfy.run(subtitles_prompt(saved.read_text(encoding="utf-8"), format="srt")).outputs["1"][
        "text"
    ]
    assert Path(other).read_text(encoding="utf-8") == srt
    run = comfy.run(subtitles_prompt(""))
    assert run.outputs["1"]["text"] == ["there are no lines: nothing was saved"]
    assert len(list(saved.parent.iterdir())) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"subtitles": "la la"}, "neither SRT"),
        ({"filename_prefix": "../x"}, "leads out of the output folder"),
    ],
)
def test_what_cannot_be_saved_is_refused(comfy, change, told):
    with pytest.raises(Refused) as caught:
        comfy.run(subtitles_prompt("[00:01.00]la", **change))
    assert told in caught.value.body["node_errors"]["1"]["errors"][0]["details"]


def test_unknown_colours_are_refused_before_anything_runs(comfy):
    prompt = song_prompt()
    audio = [id_of(prompt, "DiffusionRender"), 0]
    inputs = {"audio": audio, "fps": 12.0, "width": 64, "height": 64, "style": "bars", "start": 0.0}
    prompt["90"] = {
        "class_type": "SongGenVisualizer",
        "inputs": {**inputs, "colour": "blue", "max_seconds": 1.0},
    }
    prompt["91"] = {"class_type": "PreviewImage", "inputs": {"images": ["90", 0]}}
    run = comfy.run(prompt)  # the song itself is made
    assert "write it as #rrggbb" in run.node_errors["90"]["errors"][0]["details"]
