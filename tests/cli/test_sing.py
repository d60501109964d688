"""One song from the command line, on the self-test model."""

import io
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import av
import pytest
import soundfile

import songgen_core
from songgen_core import cli
from songgen_core.audio import files
from songgen_core.checkpoint.layout import MINI_FOLDER
from songgen_core.cli import options, show, song
from songgen_core.codec import SongCodec
from songgen_core.devices import DTYPES
from songgen_core.engine import ENGINES
from songgen_core.errors import Cancelled
from songgen_core.pipeline import OUTPUTS
from songgen_core.progress import Progress
from songgen_core.selftest import NOTICE

ROOT = Path(songgen_core.__file__).parents[1]


def tags_of(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


def test_a_song_with_its_tags(sing, tmp_path):
    done = sing("--tags", "female, pop, the bpm is 110")
    path = tmp_path / "out" / "song.flac"
    assert done.code == 0 and str(path) in done.out and "seed 1" in done.out
    assert NOTICE in done.err
    info = soundfile.info(path)
    assert (info.frames, info.samplerate, info.channels) == (48000, 48000, 2)
    tags = tags_of(path)
    assert (tags["title"], tags["seed"], tags["model"]) == ("song", "1", "selftest")
    assert tags["lyrics"] == "[verse]\nLa la la"
    assert tags["encoded_by"] == f"SongGen {songgen_core.__version__}"
    for part in ("female, pop, the bpm is 110.", "seed=1", "model=selftest", NOTICE):
        assert part in tags["comment"]


def test_json_is_one_object_and_nothing_else_on_stdout(sing, tmp_path):
    done = sing("--json", "--tags", "happy，")
    assert done.code == 0 and len(done.out.splitlines()) == 1
    result = done.json
    assert result["files"] == {"mixed": str(tmp_path / "out" / "song.flac")}
    assert (result["seconds"], result["seed"], result["model"]) == (1.0, 1, "selftest")
    assert result["ended"] is False and result["limited"] is False and 0 < result["peak"] < 1
    assert result["device"] == "cpu" and result["dtype"] == "float32"
    assert result["real_time_factor"] == pytest.approx(result["elapsed_seconds"], abs=0.01)
    assert NOTICE in result["warnings"] and any("full-width" in w for w in result["warnings"])
    assert all(f"songgen: warning: {warning}" in done.err for warning in result["warnings"])


def test_the_same_seed_gives_the_same_file(sing, tmp_path):
    sing("-o", "a.wav")
    sing("-o", "b.wav")
    one, two = (soundfile.read(tmp_path / name)[0] for name in ("a.wav", "b.wav"))
    assert one.any() and (one == two).all()


def test_three_files_of_one_song_and_a_random_seed(run, monkeypatch, tmp_path, instant):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("﻿[Verse]\r\nLa".encode())))
    short = ("--model", "selftest", "--duration", 1, "--steps", 1)
    done = run("sing", "-", "-o", "s.mp3", "--output", "separate", "--json", *short)
    names = {"vocal": "s.vocal.mp3", "bgm": "s.bgm.mp3", "mixed": "s.mixed.mp3"}
    assert done.json["files"] == {key: str(tmp_path / name) for key, name in names.items()}
    assert {p.name for p in tmp_path.iterdir()} == set(names.values())
    seed = done.json["seed"]
    assert 0 <= seed < 2**32 and tags_of(tmp_path / "s.bgm.mp3")["seed"] == str(seed)


def test_candidates_are_the_songs_of_the_seeds_that_follow(sing, tmp_path):
    done = sing("--candidates", 3, "--json", "--output", "separate", "--seed", 41)
    assert done.code == 0, done.err
    songs = done.json["songs"]
    assert [song["seed"] for song in songs] == [41, 42, 43] and songs[2]["seconds"] == 1.0
    out = tmp_path / "out"
    assert songs[1]["files"]["vocal"] == str(out / "song.2.vocal.flac")
    assert len(list(out.iterdir())) == 9 and NOTICE in done.json["warnings"]
    assert done.json["real_time_factor"] == pytest.approx(done.json["elapsed_seconds"] / 3, abs=0.01)
    tags = tags_of(out / "song.2.mixed.flac")
    assert (tags["seed"], tags["title"]) == ("42", "song.2")
    assert sing("--seed", 42, "-o", "alone.flac").code == 0
    alone, second = (soundfile.read(path)[0] for path in (tmp_path / "alone.flac", out / "song.2.mixed.flac"))
    assert alone.any() and (alone == second).all()


def test_of_a_candidate_on_the_disk_nothing_stays_in_memory(sing, tmp_path, monkeypatch):
    """When the next song is rendered, the one before is written and its samples are freed."""
    render, songs, seen = SongCodec.render, [], []

    def watched(self, *args, **kwargs):
        seen.append((len(list(tmp_path.glob("out/*.flac"))), [song() is not None for song in songs]))
        audio = render(self, *args, **kwargs)
        songs.append(weakref.ref(audio))
        return audio

    monkeypatch.setattr(SongCodec, "render", watched)
    assert sing("--candidates", 3).code == 0
    assert seen == [(0, []), (1, [False]), (2, [False, False])]


def test_every_engine_writes_the_same_song(sing, tmp_path):
    for engine in ENGINES:
        assert sing("--engine", engine, "-o", f"{engine}.wav").code == 0
    one, two = (soundfile.read(tmp_path / f"{engine}.wav")[0] for engine in ENGINES)
    assert abs(one - two).max() < 1e-3 < abs(one).max() / 10
    assert sing("--engine", "quick").code == 2


def test_files_of_candidates_are_looked_at_before_anything_is_made(sing, tmp_path, instant):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "song.2.flac").write_bytes(b"mine")
    done = sing("--candidates", 2)
    assert done.code == 1 and "song.2.flac exists" in done.err and instant == []
    for number in (0, 9):
        assert "choose 1 to 8" in sing("--candidates", number).err
    done = sing("--candidates", 2, "--overwrite", "--tags", "happi", "--seed", 2**64 - 1)
    assert done.err.count("happi") == 1, "a warning about all is given once"
    assert "song.1.flac: 1.0 s, seed 18446744073709551615" in done.out and "seed 0\n" in done.out


def test_a_candidate_without_a_sound_is_told(sing, tmp_path, monkeypatch, instant):
    original = song.SongPipeline.generate_candidates

    def some(self, *args, seeds, **kwargs):
        yield from original(self, *args, seeds=[seed for seed in seeds if seed != 2], **kwargs)

    monkeypatch.setattr(song.SongPipeline, "generate_candidates", some)
    done = sing("--candidates", 3, "--json")
    assert done.code == 0 and [song["seed"] for song in done.json["songs"]] == [1, 3]
    assert any(warning.startswith("seed 2 is left out: the model ended") for warning in done.json["warnings"])
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"song.1.flac", "song.3.flac"}


def test_a_stop_between_candidates_keeps_those_that_are_there(sing, tmp_path, monkeypatch, instant):
    original = song.SongPipeline.generate_candidates

    def stopped(self, *args, **kwargs):
        yield next(original(self, *args, **kwargs))
        raise Cancelled

    monkeypatch.setattr(song.SongPipeline, "generate_candidates", stopped)
    done = sing("--candidates", 3)
    assert done.code == 130 and done.err.splitlines()[-1] == "songgen: stopped; 1 of 3 songs were written"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["song.1.flac"]


def test_peaks_are_reported(sing, monkeypatch, instant):
    original = song.SongPipeline.generate_candidates

    def louder(self, *args, **kwargs):
        (result,) = original(self, *args, **kwargs)
        result.audio["mixed"] = result.audio["mixed"] * (1.5 / result.audio["mixed"].abs().max())
        yield result

    monkeypatch.setattr(song.SongPipeline, "generate_candidates", louder)
    done = sing()
    assert "peaks reached 1.50 and were limited" in done.out


def test_quiet_keeps_warnings_only(sing, instant):
    done = sing("--quiet", "--tags", "happi")
    assert done.code == 0 and done.out == ""
    assert all(line.startswith("songgen: warning: ") for line in done.err.splitlines())
    assert "happi" in done.err


def test_an_existing_file_needs_overwrite(sing, tmp_path, instant):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "song.flac").write_bytes(b"mine")
    assert sing().code == 1
    assert (tmp_path / "out" / "song.flac").read_bytes() == b"mine"
    assert sing("--overwrite").code == 0
    assert soundfile.info(tmp_path / "out" / "song.flac").frames == 48000


def test_a_model_from_the_disk(sing, models, tmp_path):
    done = sing("--models-dir", models, "--json", "--repetition-window", 4, model="tiny")
    assert done.code == 0, done.err
    assert done.json["model"] == "tiny" and tags_of(tmp_path / "out" / "song.flac")["model"] == "tiny"
    assert NOTICE not in done.err


def test_the_only_model_is_taken_without_asking(run, lyrics, models, monkeypatch):
    monkeypatch.setenv("SONGGEN_MODELS", os.pathsep.join(["/nowhere", str(models)]))
    done = run("sing", lyrics, "-o", "a.flac", "--duration", 1, "--steps", 1, "--json", "--seed", 1)
    assert done.json["model"] == "tiny"


def test_mini_sings_where_no_model_is_installed(run, lyrics):
    quick = "--duration", 1, "--steps", 1, "--seed", 1
    done = run("sing", lyrics, "-o", "a.flac", *quick)
    assert done.code == 0 and tags_of(Path("a.flac"))["model"] == "mini"
    assert "no model is installed: mini sings" in done.err and NOTICE not in done.err
    assert run("sing", lyrics, "-o", "b.flac", *quick, "--json").json["model"] == "mini"
    named = run("sing", lyrics, "-o", "c.flac", *quick, "--model", "mini")
    assert named.code == 0 and "no model is installed" not in named.err


def test_a_model_of_ones_own_may_be_called_mini(run, lyrics, models):
    (models / "tiny").rename(models / "mini")
    own = run("info", "mini", "--models-dir", models, "--json").json
    assert own["path"] == str(models / "mini" / "model.safetensors")
    assert run("info", "mini", "--json").json["path"] == str(MINI_FOLDER / "model.safetensors")


def press_ctrl_c(monkeypatch, stage: str, times: int) -> None:
    """Press it when the stage is first reported."""
    left = [times]

    def show_progress(self, progress: Progress) -> None:
        while progress.stage == stage and left[0]:
            left[0] -= 1
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(show._Lines, "show", show_progress)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("stage", ["tokens", "rendering"])
def test_ctrl_c_stops_and_leaves_nothing(sing, tmp_path, monkeypatch, stage, times):
    former = signal.getsignal(signal.SIGINT)
    press_ctrl_c(monkeypatch, stage, times)
    done = sing()
    assert done.code == 130
    assert done.err.splitlines()[-1] == "songgen: stopped; nothing was written"
    assert not (tmp_path / "out").exists()
    assert signal.getsignal(signal.SIGINT) is former


def test_ctrl_c_while_saving_leaves_nothing(sing, tmp_path, monkeypatch, instant):
    press_ctrl_c(monkeypatch, "saving", 1)
    done = sing("--output", "separate")
    assert done.code == 130 and "nothing was written" in done.err
    assert list((tmp_path / "out").iterdir()) == []


def test_json_of_a_stop(sing, monkeypatch):
    def stop(*args, **kwargs):
        raise Cancelled

    monkeypatch.setattr("songgen_core.cli.sing.make_candidates", stop)
    done = sing("--json")
    assert done.code == 130 and done.json == {"error": "stopped; nothing was written"}


def test_an_interrupted_save_leaves_no_file(sing, tmp_path, monkeypatch, instant):
    saved = []

    def interrupt(path, *args, **kwargs):
        if saved:
            raise KeyboardInterrupt
        saved.append(path)
        return files.save_audio(path, *args, **kwargs)

    monkeypatch.setattr(song, "save_audio", interrupt)
    assert sing("--output", "separate").code == 130
    assert saved and list((tmp_path / "out").iterdir()) == []


def test_a_bug_keeps_its_traceback(sing, monkeypatch):
    monkeypatch.setattr("songgen_core.cli.sing.make_candidates", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sing()


def test_lines_instead_of_bars_come_every_five_seconds_at_most(capsys):
    now = [0.0]
    lines = show._Lines(clock=lambda: now[0])
    for done in range(1, 101):
        now[0] += 0.5
        lines.show(Progress("tokens", done, 100))
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 10 and told[0] == "tokens: 10 of 100, about 45 s left"


def test_a_bar_per_stage_and_stem(capsys):
    bars = show._Bars()
    for stage in ("tokens", "rendering", "rendering"):
        for done in (1, 2):
            bars.show(Progress(stage, done, 2))
    bars.close()
    err = capsys.readouterr().err
    assert [line.split("|")[0].strip() for line in err.replace("\n", "\r").split("\r") if "100%" in line] == [
        "tokens: 100%",
        "rendering: 100%",
        "rendering: 100%",
    ]
    assert err.count("\n") == 3  # a finished bar stays on its line


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (840, "14 min"), (7500, "2 h 5 min")]
)
def test_durations(seconds, text):
    assert show.duration_text(seconds) == text


def test_the_parser_knows_what_the_library_knows():
    assert options.FORMATS == files.FORMATS
    assert tuple(DTYPES) == options.DTYPES
    assert options.OUTPUTS == OUTPUTS
    assert options.ENGINES == ENGINES


@pytest.mark.parametrize("argv", [["--help"], ["sing", "--help"], ["--version"]])
def test_help_is_quick(argv):
    """Parsing must not load torch: that alone takes a second."""
    program = f"import sys, songgen_core.cli as c; print(c.main({argv!r})); assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout.endswith("0\n"), done.stderr


def test_samples_can_be_sung(run):
    """What README and users start from is free of mistakes; the model's limit is the only excuse to stop."""
    for name in ("lyrics_en.txt", "lyrics_zh.txt"):
        done = run("sing", ROOT / "samples" / name, "-o", "a.flac", "--device", "nonsense", "--seed", 1)
        assert done.code == 1 and "nonsense" in done.err and "warning" not in done.err


def test_public_names_come_on_demand():
    assert all(getattr(songgen_core, name) is not None for name in songgen_core.__all__)
    assert cli.main is songgen_core.cli.main
    with pytest.raises(AttributeError, match="nonsense"):
        _ = songgen_core.nonsense
