"""Song (One Node): the same song as by the long way, with the parts cached one by one."""

import io

import pytest
import recordings
from comfy_client import Client, Refused, song_prompt

pytest.importorskip("demucs", reason="the reference is separated: pip install 'demucs>=4.1'")
soundfile = pytest.importorskip("soundfile")
pytestmark = pytest.mark.comfyui

LYRICS = "[Verse 1]\nMorning light\n\n**Chorus**\nSing it loud"
STYLE = "female, pop, happy"


def one_node(**changes):
    inputs = {"model": "selftest", "lyrics": LYRICS, "style": STYLE, "seed": 3, "duration": 2.0}
    return {
        "1": {"class_type": "SongGenSong", "inputs": {**inputs, "output": "mixed", **changes}},
        "2": {
            "class_type": "SongGenSaveAudio",
            "inputs": {"audio": ["1", 0], "filename_prefix": "one/song", "format": "flac"},
        },
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["1", 4]}},
    }


def heard(comfy, run, node):
    (file,) = run.outputs[node]["audio"]
    return soundfile.read(io.BytesIO(comfy.view(file)))


def ran_inside(run):
    """How many nodes were run inside the one node; its id stands in front of theirs."""
    return len([node for node in run.executed if node.startswith("1.")])


def test_the_one_node_makes_the_song_of_the_long_way(comfy: Client):
    run = comfy.run(one_node())
    assert run.end == "execution_success"
    samples, rate = heard(comfy, run, "2")
    assert rate == 48000 and samples.shape == (2 * 48000, 2)
    assert "seed 3" in run.outputs["3"]["text"][0]

    long = song_prompt(
        LyricsFormatter__lyrics=LYRICS,
        GenerateTokens__seed=3,
        GenerateTokens__description=STYLE,
        DiffusionRender__seed=3,
    )
    for node in long.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 10
    theirs = comfy.run(long)
    (saved,) = (node for node in theirs.outputs if "audio" in theirs.outputs[node])
    assert (heard(comfy, theirs, saved)[0] == samples).all()


def test_only_what_depends_on_a_change_runs_again(comfy):
    comfy.run(one_node(seed=11))
    assert ran_inside(comfy.run(one_node(seed=12))) == 2  # tokens and render, not model and lyrics
    assert ran_inside(comfy.run(one_node(seed=12, output="vocal"))) == 1  # the render
    assert ran_inside(comfy.run(one_node(seed=12, style="male, rock"))) == 2
    again = comfy.run(one_node(seed=12, style="male, rock"))
    assert again.end == "execution_success" and again.executed == set()


def test_a_reference_is_heard_and_cached_like_the_rest(comfy):
    recordings.write_song(comfy.base / "input" / "reference.flac", 12)
    recording = {"90": {"class_type": "LoadAudio", "inputs": {"audio": "reference.flac"}}}

    def run(**changes):
        done = comfy.run(one_node(reference=["90", 0], style="", seed=41, **changes) | recording)
        assert done.end == "execution_success", done.error
        return done

    mixed = run()
    assert ran_inside(mixed) >= 3  # prompt, tokens and render; the model may be there from before
    assert ran_inside(run(output="vocal")) == 1  # the render
    plain = comfy.run(one_node(seed=41, style=""))
    assert not (heard(comfy, mixed, "2")[0] == heard(comfy, plain, "2")[0]).all()


def test_progress_is_told_for_the_one_node(comfy):
    run = comfy.run(one_node(seed=21))
    states = [d["nodes"].values() for d in run.of("progress_state")]
    bars = [node for nodes in states for node in nodes if node["max"] > 1 and node["node_id"] != "2"]
    assert bars and {node["display_node_id"] for node in bars} == {"1"}
    assert run.previews


def test_what_cannot_be_read_is_refused_at_the_node(comfy):
    for change, told in (
        ({"lyrics": " "}, "there are no lyrics"),
        ({"model": "/etc/passwd"}, "choose one of"),
    ):
        with pytest.raises(Refused) as caught:
            comfy.run({k: v for k, v in one_node(**change).items() if k != "3"})
        assert told in caught.value.body["node_errors"]["1"]["errors"][0]["details"]


def test_a_missing_model_is_told_in_words(comfy):
    run = comfy.run(one_node(model="v2-large"))
    assert run.end == "execution_error"
    assert "is not on this machine" in run.error["exception_message"]


def test_without_a_cache_it_runs_or_says_that_it_cannot(start_comfy):
    with start_comfy("--cpu", "--cache-none") as server:
        try:
            run = server.run({k: v for k, v in one_node().items() if k != "3"})
        except Refused as refused:
            told = refused.body["node_errors"]["1"]["errors"][0]["details"]
            assert "cannot run Song (One Node) with --cache-none" in told
        else:
            assert run.end == "execution_success"
