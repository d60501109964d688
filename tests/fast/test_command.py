"""What the fast engine brings to the `songgen` command: narrow weights, memory plans, a preview."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from songgen_core.cli import main, options
from songgen_core.cli.song import MadeSong
from songgen_core.engine import WEIGHTS
from songgen_core.errors import Cancelled
from songgen_core.fast.memory_plan import Estimate

LYRICS = "[verse]\nA little song\n\n[chorus]\nSing it again\n"


@pytest.fixture
def sing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lyrics.txt").write_text(LYRICS, encoding="utf-8")
    fixed = ["sing", "lyrics.txt", "--model", "selftest", "--seed", "1", "--quiet"]
    return lambda *argv: main([*fixed, *argv])


def test_the_parser_knows_all_kinds_of_weights() -> None:
    assert options.WEIGHTS == WEIGHTS


def test_a_song_with_weights_of_eight_bits(sing, tmp_path: Path, capsys) -> None:
    assert sing("-o", "song.wav", "--duration", "2", "--weights", "int8") == 0
    sound, rate = soundfile.read(tmp_path / "song.wav")
    assert rate == 48000 and sound.shape == (96000, 2) and abs(sound).max() > 0.01
    assert sing("-o", "b.wav", "--duration", "2", "--weights", "int8", "--engine", "reference") == 1
    assert "weights in int8 need the engine 'auto'" in capsys.readouterr().err


def test_a_preview_is_the_song_and_comes_before_it(sing, tmp_path: Path, monkeypatch) -> None:
    sizes = []
    from songgen_core.cli.preview import PreviewFile

    add = PreviewFile.add

    def watched(self: PreviewFile, piece) -> None:
        add(self, piece)
        sound, rate = soundfile.read(tmp_path / "now.wav")  # whole at every moment
        assert rate == 48000
        sizes.append((len(sound), (tmp_path / "song.wav").exists()))

    monkeypatch.setattr(PreviewFile, "add", watched)
    # A window is 40 s: a song of more has pieces before its end.
    assert sing("-o", "song.wav", "--duration", "45", "--steps", "1", "--preview", "now.wav") == 0
    assert len(sizes) > 1 and sizes == sorted(sizes) and not any(done for _, done in sizes)
    song, preview = (soundfile.read(tmp_path / name)[0] for name in ("song.wav", "now.wav"))
    assert song.shape == preview.shape
    loud = abs(song) < 0.9  # the limiter of the song works above, the preview is clipped
    assert np.median(abs(song - preview)[loud]) < 1e-3


def test_a_preview_of_several_songs_is_refused(sing, capsys) -> None:
    assert sing("-o", "song.wav", "--duration", "2", "--candidates", "2", "--preview", "now.wav") == 1
    assert "--preview goes with one song" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("preview", "words"),
    [
        ("lyrics.txt", "exists; use --overwrite"),
        ("song.wav", "choose another name for the preview"),
    ],
)
def test_a_preview_that_cannot_be_is_refused_before_anything_is_made(sing, preview, words, capsys) -> None:
    assert sing("-o", "song.wav", "--duration", "2", "--preview", preview) == 1
    assert words in capsys.readouterr().err
    assert Path("lyrics.txt").read_text(encoding="utf-8") == LYRICS


def test_a_preview_that_ends_early_does_not_end_the_song(sing, tmp_path: Path, monkeypatch, capsys) -> None:
    from songgen_core.cli.preview import PreviewFile

    def broken(self: PreviewFile, samples: bytes) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(PreviewFile, "_write", broken)
    assert sing("-o", "song.wav", "--duration", "2", "--preview", "now.wav") == 0
    assert soundfile.read(tmp_path / "song.wav")[0].shape == (96000, 2)
    assert "ends here (Broken pipe); the song goes on" in capsys.readouterr().err


def stopped_after_a_second(*_: object, on_audio: Callable[..., None], **__: object) -> Iterator[MadeSong]:
    on_audio("mixed", torch.full((1, 2, 48000), 0.5))
    raise Cancelled
    yield


def test_a_stop_tells_what_the_preview_holds(sing, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("songgen_core.cli.sing.make_candidates", stopped_after_a_second)
    assert sing("-o", "song.wav", "--preview", "now.wav", "--json") == 130
    told = "stopped; the preview now.wav holds the first 1.0 s, nothing else was written"
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": told} and err.splitlines()[-1] == f"songgen: {told}"
    sound, rate = soundfile.read("now.wav")
    assert sound.shape == (48000, 2) and rate == 48000 and not Path("song.wav").exists()


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="no /dev/null here")
def test_a_stop_says_nothing_of_a_preview_that_keeps_nothing(sing, monkeypatch, capsys) -> None:
    monkeypatch.setattr("songgen_core.cli.sing.make_candidates", stopped_after_a_second)
    assert sing("-o", "song.wav", "--preview", "/dev/null") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "songgen: stopped; nothing was written"


def test_a_plan_tells_what_fits_where(capsys) -> None:
    assert main(["info", "v2-medium", "--plan", "8"]) == 0
    told = capsys.readouterr().out
    assert "8.0 GB of card memory, a song of 270 s" in told
    assert "KV cache in 8 bit" in told and "take turns on the card" in told


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["info", "--plan", "8"], "--plan needs a model"),
        (["info", "v2-medium", "--plan", "0"], "memory of 0 GB is none"),
        (["info", "v2-medium", "--plan", "8", "--duration", "500"], "duration is 500 s"),
        (["info", "v9", "--plan", "8"], "v9"),
    ],
)
def test_a_plan_that_cannot_be_made(argv: list[str], words: str, capsys) -> None:
    assert main(argv) == 1
    assert words in capsys.readouterr().err


@pytest.fixture
def one_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured once is not measured again."""
    monkeypatch.setattr("songgen_core.fast.engine.Estimate", measured)


measured = cache(Estimate)


@pytest.mark.usefixtures("one_estimate")
def test_a_song_within_a_budget_is_planned_and_told(tmp_path: Path, sing, capsys) -> None:
    song = ["sing", "lyrics.txt", "--model", "selftest", "--seed", "1", "--duration", "2", "--device", "cpu"]
    assert main([*song, "-o", "a.wav", "--memory", "0.4", "--candidates", "2"]) == 0
    told = capsys.readouterr().err
    assert "0.4 GB of memory, a song of 2 s: takes" in told and "songs can be written in one pass" in told
    assert sing("-o", "b.wav", "--duration", "2", "--device", "cpu") == 0
    planned, plain = (soundfile.read(tmp_path / name)[0] for name in ("a.1.wav", "b.wav"))
    assert abs(planned - plain).max() < 1e-3 < abs(plain).max() / 10


@pytest.mark.usefixtures("one_estimate")
def test_weights_that_are_asked_for_are_kept_within_a_budget(sing, tmp_path: Path) -> None:
    """int8 makes another song than the native weights that would fit."""
    arguments = ("--duration", "1", "--device", "cpu", "--steps", "1")
    for name, extra in (("a", ["--memory", "0.4"]), ("b", []), ("c", ["--memory", "0.4"])):
        weights = () if name == "c" else ("--weights", "int4")
        assert sing("-o", f"{name}.wav", *arguments, *weights, *extra) == 0
    a, b, c = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in "abc")
    assert abs(a - b).max() < 1e-3 < abs(a - c).max()


@pytest.mark.usefixtures("one_estimate")
@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--memory", "0.05"], "0.05 GB are too few to make songs of 2 s; give 0.32 GB"),
        (["--memory", "0"], "memory of 0 GB is none"),
        (["--memory", "nan"], "memory of nan GB is none"),
        (["--memory", "8", "--engine", "reference"], "a budget of memory needs the engine 'auto'"),
    ],
)
def test_a_budget_that_cannot_be_kept(sing, argv: list[str], words: str, capsys) -> None:
    assert sing("-o", "song.wav", "--duration", "2", "--device", "cpu", *argv) == 1
    assert words in capsys.readouterr().err
    assert not Path("song.wav").exists()


@pytest.mark.usefixtures("one_estimate")
def test_the_songs_of_a_list_are_planned_by_the_longest(sing, tmp_path: Path, capsys) -> None:
    lines = [{"idx": f"s{n}", "gt_lyric": LYRICS, "duration": n} for n in (1, 2)]
    (tmp_path / "songs.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    batch = ["batch", "songs.jsonl", "-d", "out", "--model", "selftest", "--device", "cpu", "--steps", "1"]
    assert main([*batch, "--memory", "0.4"]) == 0
    assert "0.4 GB of memory, a song of 2 s" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").glob("*.flac")} == {"s1.flac", "s2.flac"}
