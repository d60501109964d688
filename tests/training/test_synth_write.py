"""The corpus on the disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from songgen_core.text.lyrics import Song
from training.synth import __main__ as command
from training.synth import render
from training.synth.write import file_names, song


def run(folder: Path, *more: str) -> int:
    return command.main(["--hours", "0.006", "--seed", "5", "--out", str(folder), *more])


def test_files_hold_the_song_and_its_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 0
    labels = sorted(tmp_path.glob("*.json"))
    assert (
        len(list(tmp_path.iterdir())) == 3 * len(labels) and f"{len(labels)} songs" in capsys.readouterr().out
    )
    seconds = 0.0
    for number, path in enumerate(labels):
        *tracks, expected = file_names(tmp_path, 5, number)
        assert path == expected
        told = json.loads(path.read_text(encoding="utf-8"))
        request, score = song(5, number, None)
        for track, audio in zip(tracks, render(score)):
            read, rate = soundfile.read(track, always_2d=True)
            assert rate == 48000 and np.abs(read.T - audio).max() < 1e-4
            assert len(read) == round(told["seconds"] * 48000)
        assert told["lyrics"] == request.lyrics and told["codes"] == score.codes.tolist()
        assert [s["tag"] for s in told["sections"]] == [s.tag for s in Song.parse(told["lyrics"]).sections]
        assert told["sections"][-1]["end"] == told["seconds"]
        assert len(told["frames"]["phone"]) == score.num_frames == round(told["seconds"] * 25)
        first = told["syllables"][0]
        assert first["start"] == score.notes[0].start * 0.04 and first["phones"] == list(
            score.notes[0].phones
        )
        seconds += told["seconds"]
    assert 0.006 * 3600 <= seconds < 0.006 * 3600 + 33


def test_what_is_there_is_left_alone_and_the_rest_is_made(tmp_path: Path) -> None:
    assert run(tmp_path) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    lost, kept = sorted(tmp_path.glob("*.vocal.wav"))[:2]
    lost.unlink()
    kept.write_bytes(b"mine")
    assert run(tmp_path, "--workers", "2") == 0
    after = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.pop(kept) == b"mine" and before.pop(kept) != b"mine"
    assert after == before


def test_songs_do_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    run(tmp_path / "few")
    command.main(["--hours", "0.02", "--seed", "5", "--out", str(tmp_path / "many")])
    few = [path.name for path in (tmp_path / "few").iterdir()]
    assert len(few) < len(list((tmp_path / "many").iterdir()))
    assert all((tmp_path / "few" / n).read_bytes() == (tmp_path / "many" / n).read_bytes() for n in few)


def test_mistakes_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--seed", "-1") == 1
    assert capsys.readouterr().err.startswith("error: seed is -1")
    assert run(tmp_path, "--lexicon", str(tmp_path / "none.gz")) == 1
    assert "none.gz" in capsys.readouterr().err
    for wrong in (["--hours", "0"], ["--workers", "0"]):
        with pytest.raises(SystemExit):
            run(tmp_path, *wrong)
    assert not list(tmp_path.iterdir())
