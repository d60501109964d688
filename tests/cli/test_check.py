"""`songgen check-model`."""

import gzip
import os
import signal

import pytest

from songgen_core.cli import check as check_command
from songgen_core.cli import show
from songgen_core.errors import UserError
from songgen_core.pipeline import SongPipeline


@pytest.fixture
def check(run):
    """The two first requests."""

    def call(*argv: object):
        return run("check-model", "selftest", "--limit", 2, *argv)

    return call


def test_the_table_tells_every_figure_or_why_not(check, instant):
    done = check()
    assert done.code == 0 and len(instant) == 2 and "Traceback" not in done.err
    lines = done.out.splitlines()
    assert lines[0].split() == ["figure", "value", "95", "%", "interval", "songs"]
    assert any(line.startswith("tempo within 4 %") and line.split()[-1] == "2" for line in lines)
    assert any(
        "shuffled lyrics" in line and "lexicon.txt.gz; give one with --lexicon" in line for line in lines
    )
    assert any("no song has a voice" in line for line in lines)
    assert lines[-1].startswith("2 of 2 songs made in ") and "random weights" in done.err


def test_one_json_object(check, instant, tmp_path):
    lexicon = tmp_path / "words.txt.gz"
    lexicon.write_bytes(gzip.compress(b"[english]\nmorning M AO R N IH NG\n[pinyin]\n[phrases]\n"))
    done = check("--json", "--seed", 7, "--lexicon", lexicon)
    told = done.json
    assert len(done.out.splitlines()) == 1 and done.code == 0
    assert (told["model"], told["seed"], told["requests"], told["made"]) == ("selftest", 7, 2, 2)
    assert told["failed"] == {} and [song["asked"]["seed"] for song in told["songs"]] == [1000, 1001]
    figures = told["figures"]
    assert figures["vowels_right"]["value"] == 0 and figures["vowels_right"]["songs"] == 2
    assert figures["pitch_female"]["value"] is None and figures["pitch_female"]["reason"]
    assert set(figures["tempo_right"]) == {"about", "unit", "value", "low", "high", "songs", "reason"}


def test_the_same_seed_gives_the_same_figures(check, instant):
    first, again, other = (check("--json", "--seed", seed).json for seed in (1, 1, 2))
    assert first["songs"] == again["songs"] != other["songs"]


def test_the_models_own_songs_are_measured(run, monkeypatch):
    """Nothing is put in the place of the networks here."""
    monkeypatch.setattr(check_command, "LONGEST", 1.0)
    done = run("check-model", "selftest", "--limit", 1, "--steps", 1, "--json")
    (song,) = done.json["songs"]
    assert done.code == 0 and song["seconds"] == 1.0 and not song["ended"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--limit", 0), ("--limit 0", "choose 1 to 64")),
        (("--limit", 65), ("--limit 65", "choose 1 to 64")),
        (("--seed", -1), ("seed is -1",)),
        (("--seed", 2**64 - 1), ("seed is",)),
        (("--model", "selftest"), ("both selftest and --model selftest", "leave one of them out")),
        (("--lexicon", "nowhere.gz"), ("nowhere.gz is no lexicon",)),
        (("--steps", 0), ("steps",)),
    ],
)
def test_wrong_calls(run, instant, options, words):
    done = run("check-model", "selftest", *options)
    assert done.code == 1 and len(done.errors) == 1 and instant == []
    for word in words:
        assert word in done.errors[0]


def test_a_model_that_is_not_there(run):
    done = run("check-model", "nosuch", "--limit", 1)
    assert done.code == 1 and "nosuch" in done.errors[0] and "Traceback" not in done.err


def test_a_model_that_makes_nothing_is_an_error(check, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise UserError("too quiet; sing louder")

    monkeypatch.setattr(SongPipeline, "generate_candidates", refuse)
    done = check()
    assert done.code == 1 and "no song was made: too quiet; sing louder" in done.errors[0]


def test_ctrl_c(check, instant, monkeypatch):
    def press(self, progress):
        if progress.stage == "songs" and progress.done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(show._Lines, "show", press)
    done = check()
    assert done.code == 130 and "stopped; the figures are of the songs made until then" in done.err
    assert len(instant) == 1 and "tempo" in done.out and "1 of 2 songs made" in done.out


def test_a_song_that_has_no_room_fails_alone(check, monkeypatch):
    def full(self, *args, **kwargs):
        raise MemoryError("can't allocate memory")

    monkeypatch.setattr(SongPipeline, "generate_candidates", full)
    done = check()
    assert done.code == 1 and "too little memory" in done.errors[0] and "--low-memory" in done.errors[0]
