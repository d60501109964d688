"""Songs steered by recordings and stored prompts, from the command line, on the self-test model."""

import gc
import importlib.util
import json
import os
import signal
import sys
import weakref
from pathlib import Path

import pytest
import soundfile
import torch
from recorded_songs import FORMS, save_recording, song
from safetensors.torch import save_file

import songgen_core.cli.prompt
import songgen_core.prompts.readers
from songgen_core import UserError
from songgen_core.audio.files import save_audio
from songgen_core.cli import show
from songgen_core.cli.prompt import PromptRequest, prompt_cache
from songgen_core.cli.songlist import Defaults, read_songs
from songgen_core.codec import SongCodec, SongReader
from songgen_core.codes_file import save_codes
from songgen_core.errors import Cancelled
from songgen_core.pipeline import SongPipeline
from songgen_core.progress import Progress
from songgen_core.prompts.presets import GENRES
from songgen_core.prompts.prompt import BOTH_GIVEN
from songgen_core.prompts.recording import SILENT

needs_demucs = pytest.mark.skipif(
    importlib.util.find_spec("demucs") is None, reason="the separator needs the package demucs"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SONGGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "songgen" / "prompts"


@pytest.fixture
def stems(tmp_path) -> tuple[Path, Path]:
    voice, rest = song(44100, 2, 11.0), song(22050, 1, 12.0)
    saved = (
        save_audio(tmp_path / "voice.flac", voice, 44100),
        save_audio(tmp_path / "rest.wav", rest, 22050),
    )
    return saved[0].path, saved[1].path


@needs_demucs
@pytest.mark.parametrize("form", FORMS)
def test_recordings_of_every_form_steer_a_song(form, sing, tmp_path, own_cache) -> None:
    recording = save_recording(tmp_path, form)
    done = sing("--prompt", recording, "--json")
    assert done.code == 0, done.err
    info = soundfile.info(tmp_path / "out" / "song.flac")
    assert (info.frames, info.samplerate, info.channels) == (48000, 48000, 2)
    assert "s of a recording from" in done.json["prompt"]
    assert done.json["prompt"].startswith("0.5 s" if form == "half a second" else "10.0 s")
    assert (SILENT in done.json["warnings"]) == (form == "silent")
    assert len(list(own_cache.iterdir())) == 1


def test_separate_stems_need_no_separation(sing, stems, monkeypatch, own_cache) -> None:
    def refuse() -> None:
        raise AssertionError("nothing is to be separated")

    monkeypatch.setattr(songgen_core.prompts.readers, "selftest_separator", refuse)
    plain = codes_of(sing("--json"))
    done = sing(
        "--prompt-vocal", stems[0], "--prompt-bgm", stems[1], "--prompt-start", 0, "--json", "--overwrite"
    )
    assert done.code == 0, done.err
    assert codes_of(done) != plain, "a prompt must be heard"
    assert "from 0.0 s on" in done.json["prompt"]


def codes_of(done) -> bytes:
    return Path(done.json["files"]["mixed"]).read_bytes()


def test_the_same_prompt_is_taken_from_the_cache(sing, stems, monkeypatch) -> None:
    options = ("--prompt-vocal", stems[0], "--json", "--overwrite")
    first = codes_of(sing(*options))
    monkeypatch.setattr(songgen_core.prompts.recording, "encode_prompt", None)  # a call of it would fail
    assert codes_of(sing(*options)) == first
    assert codes_of(sing(*options, "--seed", 2)) != first, "another song, the same prompt"


def test_a_genre_steers_a_song(sing, tmp_path) -> None:
    plain, pop, jazz = (
        codes_of(sing("--json", "--overwrite", *options))
        for options in ((), ("--genre", "pop"), ("--genre", "Jazz"))
    )
    assert len({plain, pop, jazz}) == 3
    chinese = sing("--json", "--overwrite", "--genre", "pop", "--language", "zh")
    assert codes_of(chinese) != pop
    assert chinese.json["prompt"] == "stored prompt: pop, zh"


@pytest.mark.parametrize("spelling", ["Hip-Hop", "hip hop", "HIPHOP"])
def test_genres_are_spelled_freely(spelling, sing) -> None:
    assert sing("--genre", spelling).code == 0


def test_prompt_and_description_together_are_warned_of(sing, stems) -> None:
    done = sing("--genre", "Rock", "--tags", "female, jazz", "--json")
    assert BOTH_GIVEN in done.json["warnings"]


MISTAKES = {
    "recording and genre": (("--prompt", "{song}", "--genre", "Pop"), "exclude each other"),
    "unknown genre": (("--genre", "Polka"), "use one of Pop"),
    "no such file": (("--prompt", "nowhere.mp3"), "no such audio file"),
    "no audio": (("--prompt", "lyrics.txt"), "choose a file with an audio track"),
    "start without recording": (("--prompt-start", "3"), "name one with --prompt"),
    "start 0 without recording": (("--prompt-start", "0"), "name one with --prompt"),
    "seconds without recording": (("--prompt-seconds", "5"), "--prompt-seconds belongs to a recording"),
    "seconds with a genre": (("--prompt-seconds", "5", "--genre", "Pop"), "name one with --prompt"),
    "faithful without recording": (("--faithful-prompt",), "name one with --prompt"),
    "language without genre": (("--language", "zh"), "name its genre with --genre"),
    "name too long": (("--prompt", "x" * 300), "correct its name"),
    "start behind the end": (("--prompt-vocal", "{song}", "--prompt-start", "99"), "start earlier"),
    "negative start": (("--prompt-vocal", "{song}", "--prompt-start", "-1"), "choose 0 or later"),
    "too long": (("--prompt-vocal", "{song}", "--prompt-seconds", "11"), "0.04 to 10 s"),
    "faithful with start": (
        ("--prompt-vocal", "{song}", "--prompt-start", "1", "--faithful-prompt"),
        "the faithful way takes the first 10 s",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_in_one_line(name, sing, stems, tmp_path) -> None:
    options, words = MISTAKES[name]
    done = sing(*(option.format(song=stems[0]) for option in options))
    assert done.code == 1 and len(done.errors) == 1, done.err
    assert words in done.errors[0] and "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_every_genre_is_known(sing) -> None:
    done = sing("--genre", GENRES[-1])
    assert done.code == 0, done.err


def test_without_demucs_the_error_says_what_to_install(sing, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "demucs.htdemucs", None)
    done = sing("--prompt", save_recording(tmp_path, "half a second"))
    assert done.code == 1 and 'pip install "demucs>=4.1"' in done.errors[0]


@needs_demucs
def test_batches_take_recordings_and_genres(run, tmp_path) -> None:
    save_recording(tmp_path, "half a second")
    words = {"gt_lyric": "[verse] La la la."}
    lines = [
        {"idx": "a", "prompt_audio_path": "short.flac", **words},
        {"idx": "b", "auto_prompt_audio_type": "Jazz", **words},
        {"idx": "c", "prompt_audio_path": "lost.flac", **words},
        {"idx": "d", "prompt_audio_path": "short.flac", "auto_prompt_audio_type": "Pop", **words},
        {"idx": "e", "auto_prompt_audio_type": "Polka", **words},
    ]
    (tmp_path / "songs.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    done = run("batch", "songs.jsonl", "-d", "out", "--model", "selftest", "--duration", 1, "--steps", 1)
    assert done.code == 1
    entries = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    told = {entry["idx"]: entry for entry in entries}
    assert told["a"]["status"] == told["b"]["status"] == "done", done.err
    assert told["a"]["prompt"].startswith("0.5 s") and told["b"]["prompt"].startswith("stored prompt: Jazz")
    for idx, words in (("c", "no such audio file"), ("d", "exclude each other"), ("e", "use one of")):
        assert told[idx]["status"] == "failed" and words in told[idx]["error"]


def test_what_checks_a_list_is_freed_before_the_model_is_loaded(run, tmp_path, monkeypatch) -> None:
    """The pipeline reads recordings with networks of its own; a second separator would only take memory."""
    made, alive = [], []

    def separator() -> torch.nn.Module:
        network = torch.nn.Linear(1, 1)
        made.append(weakref.ref(network))
        return network

    def load(*_: object, **__: object) -> SongPipeline:
        gc.collect()
        alive.extend(network() for network in made)
        raise Cancelled

    monkeypatch.setattr(songgen_core.prompts.readers, "selftest_separator", separator)
    monkeypatch.setattr(SongPipeline, "from_pretrained", load)
    save_recording(tmp_path, "half a second")
    line = {"gt_lyric": "[verse] La la la.", "prompt_audio_path": "short.flac"}
    lines = [json.dumps({"idx": idx, **line}) for idx in "ab"]
    (tmp_path / "songs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert run("batch", "songs.jsonl", "-d", "out", "--model", "selftest").code == 130
    assert alive == [None], "one separator for the whole list, and it is gone"


def test_strange_paths_cost_their_own_line_only(tmp_path) -> None:
    paths = ("x" * 5000, "~nobody-here/song.mp3", "a\0b.mp3")
    lines = [{"idx": f"{n}", "gt_lyric": "[verse] La.", "prompt_audio_path": p} for n, p in enumerate(paths)]
    (tmp_path / "songs.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    defaults = Defaults(tmp_path / "out", 0, None, "mixed", "flac", tmp_path)
    for line in read_songs(tmp_path / "songs.jsonl", defaults):
        problem = line.problem
        if line.request is not None:
            with pytest.raises(UserError) as caught:
                line.request.check(overwrite=False)
            problem = str(caught.value)
        assert problem and "\n" not in problem


def test_a_list_reads_each_recording_once_before_it_begins(stems, monkeypatch) -> None:
    read = []
    monkeypatch.setattr(songgen_core.cli.prompt, "read_recording", read.append)
    for seed in range(5):
        PromptRequest({"song": stems[0]}, seed=seed).check("")
    assert len(read) == 1
    stems[0].write_bytes(b"changed")
    PromptRequest({"song": stems[0]}).check("")
    assert len(read) == 2


def test_recordings_of_a_list_share_one_prompt(tmp_path) -> None:
    lines = [{"idx": f"{n}", "gt_lyric": "[verse] La.", "prompt_audio_path": "a.mp3"} for n in range(2)]
    (tmp_path / "songs.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    defaults = Defaults(tmp_path / "out", 0, None, "mixed", "flac", tmp_path)
    one, two = (line.request for line in read_songs(tmp_path / "songs.jsonl", defaults))
    assert one.seed != two.seed and one.prompt.options == two.prompt.options


def test_a_user_without_a_home_has_a_cache(monkeypatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SONGGEN_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert prompt_cache().folder.is_absolute()


def test_too_little_memory_is_told_in_one_line(run, stems, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(SongReader, "encode", fail)
    monkeypatch.setattr(SongCodec, "render", fail)
    save_codes("codes.safetensors", torch.zeros(1, 3, 5, dtype=torch.long))
    for command in (("encode", "--vocal", stems[0], "-o", "x.safetensors"), ("decode", "codes.safetensors")):
        done = run(*command, *(("-o", "x.wav") if command[0] == "decode" else ()), "--model", "selftest")
        assert done.code == 1 and "too little memory; use --low-memory" in done.errors[0]


def test_encode_and_decode(run, stems, tmp_path) -> None:
    options = ("--model", "selftest", "--json")
    done = run("encode", "--vocal", stems[0], "--bgm", stems[1], "-o", "song.safetensors", *options)
    assert done.code == 0, done.err
    assert (done.json["frames"], done.json["seconds"]) == (275, 11.0)
    back = run("decode", "song.safetensors", "-o", "back.wav", "--output", "separate", "--steps", 1, *options)
    assert back.code == 0, back.err
    assert back.json["files"].keys() == {"mixed", "vocal", "bgm"}
    for path in back.json["files"].values():
        samples, rate = soundfile.read(path)
        assert (samples.shape, rate) == ((275 * 1920, 2), 48000) and abs(samples).max() > 0.01


def test_ctrl_c_while_the_audio_is_saved_leaves_nothing(run, tmp_path, monkeypatch) -> None:
    save_codes("codes.safetensors", torch.zeros(1, 3, 5, dtype=torch.long))

    def press(self: show._Lines, progress: Progress) -> None:
        if progress.stage == "saving":
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(show._Lines, "show", press)
    arguments = ("-o", "out/x.wav", "--output", "separate", "--steps", 1, "--model", "selftest")
    done = run("decode", "codes.safetensors", *arguments)
    assert done.code == 130 and "nothing was written" in done.err
    assert list((tmp_path / "out").iterdir()) == []


@needs_demucs
def test_a_whole_song_is_encoded(run, tmp_path) -> None:
    path = save_audio(tmp_path / "song.flac", song(32000, 1, 45.0), 32000).path
    done = run("encode", path, "-o", "song.safetensors", "--model", "selftest", "--json")
    assert done.code == 0, done.err
    assert done.json["frames"] == 45 * 25


CODEC_MISTAKES = {
    "nothing named": (("encode", "-o", "x.safetensors"), "no recording is named"),
    "wrong suffix": (("encode", "{song}", "-o", "x.pt"), "must end in .safetensors"),
    "target is there": (("encode", "{song}", "-o", "{codes}"), "use --overwrite"),
    "no place for it": (("encode", "{song}", "-o", "{codes}/x.safetensors"), "cannot be written"),
    "variant": (("encode", "{song}", "-o", "x.safetensors", "--variant", "base"), "leave it out"),
    "no codes": (("decode", "nowhere.safetensors", "-o", "x.wav"), "no such file of codes"),
    "an audio file": (("decode", "{song}", "-o", "x.wav"), "no file of codes"),
    "another safetensors": (("decode", "{other}", "-o", "x.wav"), "is no file of codes"),
    "steps": (("decode", "{codes}", "-o", "x.wav", "--steps", "0"), "from 1 to 200"),
    "folder": (("decode", "{codes}", "-o", "folder.wav"), "is a folder"),
}


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("encode", ("--dtype", "float16")),  # the encoders are float32
        ("encode", ("--engine", "reference")),
        ("encode", ("--weights", "int8")),
        ("decode", ("--weights", "int8")),  # no language model is there
    ],
)
def test_options_of_what_is_not_used_are_unknown(command, option, run) -> None:
    done = run(command, "x.safetensors", "-o", "y.wav", *option)
    assert done.code == 2 and f"unrecognized arguments: {' '.join(option)}" in done.errors[0]
    assert option[0] not in run(command, "--help").out


@pytest.mark.parametrize("name", CODEC_MISTAKES)
def test_mistakes_of_encode_and_decode(name, run, stems, tmp_path) -> None:
    (tmp_path / "folder.wav").mkdir()
    codes = save_codes(tmp_path / "codes.safetensors", torch.zeros(1, 3, 5, dtype=torch.long))
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, other)
    before = sorted(tmp_path.rglob("*"))
    arguments, words = CODEC_MISTAKES[name]
    done = run(*(a.format(song=stems[0], codes=codes, other=other) for a in arguments), "--model", "selftest")
    assert done.code == 1 and len(done.errors) == 1, done.err
    assert words in done.errors[0]
    assert sorted(tmp_path.rglob("*")) == before, "nothing half-written"
