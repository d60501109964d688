"""Analysis of a song for video, called in a process of ComfyUI's own Python and as a graph on the server."""

import pytest
from comfy_client import Client, id_of, song_prompt

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
