"""A hundred prompts in a row on one server: songs, stems, recordings, pictures, cancels, mistakes.

Memory is VmRSS of the server. Two settings keep the holes of the C library's heap, which come and go, from
looking like a leak or hiding one: a single arena for all threads, and every block of a megabyte or more in a
mapping of its own, which goes back to the system when it is freed. Nothing is trimmed or collected for the
measurement. The curve is seen with `--log-cli-level=info`.
"""

import logging
import statistics
import sys
from collections.abc import Iterator

import pytest
import recordings
from comfy_client import ROOT, Prompt, Run, id_of, song_prompt
from comfy_server import Server

sys.path.insert(0, str(ROOT / "tests" / "checkpoint"))
cases = pytest.importorskip("checkpoint_cases")
pytest.importorskip("demucs", reason="recordings are separated: pip install --no-deps 'demucs>=4.1' einops")
pytestmark = [pytest.mark.comfyui, cases.needs_goldens]

log = logging.getLogger(__name__)

PROMPTS, WINDOW, ALLOWED_MB = 100, 10, 50
RECORDINGS = 3  # that become prompts, which the pack keeps as files; the one node makes another
ON_DISK = "songgeneration_v2_large"
BAD_LYRICS = "section 1 [verse], line 2:"
CANCELLED_AT = ("GenerateTokens", "DiffusionRender")  # in turns
HEAP = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1048576"}


@pytest.fixture(scope="module")
def server(start_comfy) -> Iterator[Server]:
    with start_comfy("--cpu", environment=HEAP) as server:
        folder = server.base / "models" / "songgen"
        state, num_codes = cases.codec_state(), cases.lm_state()["audiolm.linears.0.weight"].shape[0] - 1
        codec = {n: t[:num_codes] if n.endswith(".codebook.weight") else t for n, t in state.items()}
        path = folder / "ckpt" / "model_septoken" / "model_2.safetensors"
        cases.save(path, codec, num_attention_heads=str(cases.RENDERER_HEADS))
        cases.save_vae(folder / "ckpt" / "vae" / "autoencoder_music_1320k.ckpt")
        cases.save_song_model(folder / ON_DISK / "model.pt")
        recordings.write_song(server.base / "input" / "recording.flac", 3)
        yield server


def song(number: int, **changes) -> Prompt:
    """A second of a song; `number` makes it one that was not made before."""
    seeds = {"GenerateTokens__seed": number, "DiffusionRender__seed": number}
    return song_prompt(**{"GenerateTokens__duration": 1.0, **seeds, **changes})


def song_of_a_model_on_disk(number: int) -> Prompt:
    return song(number, LoadLeVoModel__model=ON_DISK)


def stems(number: int) -> Prompt:
    seeds = {"GenerateTokens__seed": number, "SplitStems__seed": number}
    prompt = song_prompt("stems", GenerateTokens__duration=1.0, **seeds)
    for key in ("6", "10", "11"):  # Demucs has its own turn
        del prompt[key]
    return prompt


def with_given_stems(prompt: Prompt, node: str) -> Prompt:
    given = prompt[id_of(prompt, node)]["inputs"]
    given |= {"vocal": given["audio"], "bgm": given["audio"]}
    return prompt


def roundtrip(number: int) -> Prompt:
    return with_given_stems(song_prompt("codec_roundtrip", DiffusionRender__seed=number), "EncodeAudioTokens")


def recording(number: int) -> Prompt:
    which = {"AudioPrompt__seed": number // len(ROUND) % RECORDINGS, "AudioPrompt__seconds": 1.0}
    prompt = song_prompt("audio_prompt", GenerateTokens__seed=number, GenerateTokens__duration=1.0, **which)
    del prompt["8"]  # a file in the temp folder
    return with_given_stems(prompt, "AudioPrompt")


def genre(number: int) -> Prompt:
    seeds = {"GenerateTokens__seed": number, "GenrePrompt__seed": number}
    return song_prompt("genre_prompt", GenerateTokens__duration=1.0, **seeds)


def separated(number: int) -> Prompt:
    asked = {"audio": ["1", 0], "separator": "selftest", "seed": number, "shifts": 0}
    saved = {"audio": ["2", 4], "filename_prefix": "songgen/separated", "format": "flac"}
    return {
        "1": {"class_type": "LoadAudio", "inputs": {"audio": "recording.flac"}},
        "2": {"class_type": "SongGenSeparateAudio", "inputs": asked},
        "3": {"class_type": "SongGenSaveAudio", "inputs": saved},
    }


def pictures(number: int) -> Prompt:
    prompt = song(number)
    audio = [id_of(prompt, "DiffusionRender"), 0]
    drawn = {"audio": audio, "fps": 12.0, "width": 128, "height": 80, "style": "bars", "colour": "#40c4ff"}
    words = {"subtitles": ["told", 7], "fps": 12.0, "size": 0, "colour": "#ffffff", "position": "bottom"}
    told = {"audio": audio, "fps": 12.0, "lyrics": "[verse]\nLa la la"}
    nodes = {
        "told": ("SongGenAnalyzeSong", told),
        "drawn": ("SongGenVisualizer", {**drawn, "start": 0.0, "max_seconds": 30.0}),
        "burned": ("SongGenBurnSubtitles", {"images": ["drawn", 0], **words}),
        "saved": ("SaveImage", {"images": ["burned", 0], "filename_prefix": "songgen/frames"}),
    }
    return prompt | {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def one_node(number: int) -> Prompt:
    prompt = song_prompt("one_node_song", Song__seed=number, Song__duration=1.0, Song__reference=["90", 0])
    return prompt | {"90": {"class_type": "LoadAudio", "inputs": {"audio": "recording.flac"}}}


def music_video(number: int) -> Prompt:
    prompt = song_prompt("song_to_music_video", GenerateTokens__seed=number, GenerateTokens__duration=1.0)
    song, told = ([id_of(prompt, name), output] for name, output in (("SplitStems", 0), ("AnalyzeSong", 7)))
    clip = {"audio": song, "start": 0.0, "seconds": 0.5, "fps": 16.0, "grid": "any"}
    words = {"subtitles": told, "filename_prefix": "songgen/words", "format": "srt"}
    heard = {"audio": ["clip", 0], "filename_prefix": "songgen/clip", "format": "flac"}
    nodes = {
        "words": ("SongGenSaveSubtitles", words),
        "clip": ("SongGenVideoClip", clip),
        "heard": ("SongGenSaveAudio", heard),
    }
    return prompt | {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def mistaken(number: int) -> Prompt:
    prompt = song(number, LyricsFormatter__lyrics=["90", 0], LyricsFormatter__mend=False)
    prompt["90"] = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "[verse]\n【唱】"}}
    return prompt


def cancelled(number: int) -> Prompt:
    return song(
        number, GenerateTokens__duration=270.0 if turn(number) == 0 else 1.0, DiffusionRender__steps=200
    )


def turn(number: int) -> int:
    return number // len(ROUND) % len(CANCELLED_AT)


ROUND = (
    song,
    stems,
    song_of_a_model_on_disk,
    cancelled,
    roundtrip,
    pictures,
    mistaken,
    recording,
    separated,
    genre,
    one_node,
    music_video,
)
ENDS = {cancelled: "execution_interrupted", mistaken: "execution_error"}  # all others come out


def run(server: Server, number: int) -> Run:
    """Prompt `number` to its end; what is to be cancelled is, at its first progress."""
    kind, pressed = ROUND[number % len(ROUND)], []
    prompt = kind(number)

    def press_cancel(event, prompt_id):
        node = id_of(prompt, CANCELLED_AT[turn(number)])
        if not pressed and event["type"] == "progress" and event["data"]["node"] == node:
            server.post("/interrupt", {"prompt_id": prompt_id})
            pressed.append(prompt_id)

    result = server.run(prompt, on_event=press_cancel if kind is cancelled else None)
    assert result.end == ENDS.get(kind, "execution_success"), (number, kind.__name__, result.events[-1])
    if kind is mistaken:
        assert BAD_LYRICS in result.error["exception_message"]
    return result


def written(run: Run) -> Iterator[str]:
    """Files that a run says it has saved, relative to the base."""
    for output in run.outputs.values():
        for file in [*output.get("audio", ()), *output.get("images", ()), *output.get("files", ())]:
            yield "/".join(filter(None, (file["type"], file["subfolder"], file["filename"])))


def test_a_hundred_prompts_leave_nothing_behind(server: Server):
    before, told, resident = server.files(), set(), []
    for number in range(PROMPTS):
        if number % 25 == 24:
            server.post("/free", {"unload_models": True, "free_memory": True})
        told.update(written(run(server, number)))
        resident.append(round(server.resident_mb))
    log.info("VmRSS in MB after each prompt: %s", resident)
    early, late = (statistics.median(part) for part in (resident[WINDOW : 2 * WINDOW], resident[-WINDOW:]))
    assert late - early < ALLOWED_MB, str(resident)
    new = server.files() - before
    assert told <= new and len(told) > PROMPTS / 2
    prompts = {name for name in new - told if name.startswith("user/songgen/prompts/")}
    assert len(prompts) == RECORDINGS + 1 and new - told - prompts == set(), new - told - prompts
    assert "memory leak" not in server.log.lower()
    mistakes = sum(ROUND[number % len(ROUND)] is mistaken for number in range(PROMPTS))
    assert len(server.our_tracebacks) == server.log.count("Exception during processing") == mistakes
