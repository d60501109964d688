"""Song lists: the record, going on after a stop, and bad lines among good ones."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from songgen_core.cli import show
from songgen_core.cli.song import SongPipeline
from songgen_core.cli.songlist import Record
from songgen_core.cli.unfinished import Unfinished
from songgen_core.errors import UserError

GOOD = {"gt_lyric": "[verse] La la."}


@pytest.fixture
def songs(tmp_path) -> Callable[..., Path]:
    def write(*lines: object) -> Path:
        path = tmp_path / "songs.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def batch(run) -> Callable:
    def call(path: Path, *argv: object):
        return run("batch", path, "-d", "out", "--model", "selftest", "--duration", 1, "--steps", 1, *argv)

    return call


def results(folder: str = "out") -> list[dict]:
    text = Path(folder, "results.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_songs_and_their_record(batch, songs):
    path = songs(
        {"idx": "one", **GOOD, "descriptions": "女声, pop", "seed": 7},
        "",
        {"idx": 2, "gt_lyric": "[verse] La. ; [chorus] Lo.", "output": "vocal"},
    )
    done = batch(path)
    assert done.code == 0 and "2 done, 0 skipped, 0 failed" in done.out
    assert "2 of 2, about" in done.err
    one, two = results()
    assert (one["idx"], one["status"], one["seed"], one["line"]) == ("one", "done", 7, 1)
    assert (one["files"], one["seconds"], one["error"]) == ({"mixed": "one.flac"}, 1.0, None)
    assert one["gt_lyric"] == "[verse] La la." and one["descriptions"] == "女声, pop"
    assert any("女声" in warning for warning in one["warnings"])
    assert (two["idx"], two["line"], two["files"]) == (2, 3, {"vocal": "2.flac"})
    assert soundfile.info("out/2.flac").frames == 48000


def test_seeds_depend_on_idx_and_base_seed_only(batch, songs, instant):
    path = songs({"idx": "a", **GOOD}, {"idx": "b", **GOOD})
    batch(path)
    batch(path, "--overwrite")
    batch(path, "--overwrite", "--seed", 1)
    a, b, a_again, b_again, a_other, _ = (entry["seed"] for entry in results())
    assert (a, b) == (a_again, b_again) and a != b and a != a_other


def test_a_second_run_makes_what_is_missing_or_failed(batch, songs, instant):
    good = [{"idx": name, **GOOD} for name in ("a", "b", "c")]
    bad = {"idx": "c", "gt_lyric": "no tag"}
    assert batch(songs(*good[:2], bad)).code == 1
    Path("out/b.flac").unlink()
    done = batch(songs(*good), "--json")
    assert done.code == 0 and len(done.out.splitlines()) == 1
    summary = done.json
    assert (summary["done"], summary["skipped"], summary["failed"]) == (2, 1, 0)
    assert [(r["idx"], r["status"]) for r in results()] == [
        ("c", "failed"),
        ("a", "done"),
        ("b", "done"),
        ("b", "done"),
        ("c", "done"),
    ]
    assert len(instant) == 4


def test_nothing_to_do_loads_no_model(batch, songs, instant, monkeypatch):
    path = songs({"idx": "a", **GOOD})
    batch(path)
    monkeypatch.setattr(SongPipeline, "from_pretrained", None)
    assert batch(path).code == 0


def test_a_changed_song_is_skipped_with_a_warning(batch, songs, instant):
    batch(songs({"idx": "a", **GOOD}))
    done = batch(songs({"idx": "a", "gt_lyric": "[verse] Lo lo."}))
    assert "was changed" in done.err and "--overwrite" in done.err and len(instant) == 1


def test_a_record_cut_by_a_crash_is_gone_on_with(batch, songs, instant):
    path = songs({"idx": "a", **GOOD}, {"idx": "b", **GOOD})
    batch(songs({"idx": "a", **GOOD}))
    with open("out/results.jsonl", "a", encoding="utf-8") as file:
        file.write('{"idx": "b", "stat')
    songs({"idx": "a", **GOOD}, {"idx": "b", **GOOD})
    assert batch(path).code == 0 and len(instant) == 2
    last = Path("out/results.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    assert json.loads(last)["idx"] == "b"


BAD_LINES = {
    "no JSON": ("{", "no JSON", "one object per line"),
    "deep JSON": ("[" * 100_000, "no JSON", "one object per line"),
    "no object": ("[1]", "no JSON object", "idx"),
    "no idx": (GOOD, "idx is missing", "needs idx"),
    "no lyrics": ({"idx": "x"}, "gt_lyric is missing", "needs idx and gt_lyric"),
    "lyrics no text": ({"idx": "x", "gt_lyric": 5}, "gt_lyric is 5", "text in quotes"),
    "bad lyrics": ({"idx": "x1", "gt_lyric": "[foo] la"}, "[foo] is not a structure tag", "allowed"),
    "bad tags": ({"idx": "x2", **GOOD, "descriptions": "bpm 9000"}, "bpm 9000", "20 to 300"),
    "tags no text": ({"idx": "x", **GOOD, "descriptions": ["pop"]}, "descriptions is", "text in quotes"),
    "climbs out": ({"idx": "../x", **GOOD}, 'idx "../x" cannot be a file name', "use letters"),
    "absolute": ({"idx": "/tmp/x", **GOOD}, "cannot be a file name", "use letters"),
    "backslash": ({"idx": "a\\b", **GOOD}, "cannot be a file name", "use letters"),
    "hidden": ({"idx": ".x", **GOOD}, "cannot be a file name", "use letters"),
    "NUL in idx": ({"idx": "a\0", **GOOD}, "cannot be a file name", "use letters"),
    "device name": ({"idx": "nul.x", **GOOD}, "cannot be a file name", "use letters"),
    "long idx": ({"idx": "x" * 300, **GOOD}, "cannot be a file name", "100 at most"),
    "idx is a list": ({"idx": [1], **GOOD}, "cannot be a file name", "use letters"),
    "prompt": ({"idx": "x5", **GOOD, "prompt_audio_path": "a.wav"}, "no such audio file", "check the name"),
    "genre": (
        {"idx": "x6", **GOOD, "auto_prompt_audio_type": "Polka"},
        "'Polka' has no stored",
        "use one of",
    ),
    "seed text": ({"idx": "x", **GOOD, "seed": "1"}, 'seed is "1"', "whole number"),
    "seed negative": ({"idx": "x3", **GOOD, "seed": -1}, "seed is -1", "from 0"),
    "duration NaN": ('{"idx": "x", "gt_lyric": "[verse] La.", "duration": NaN}', "duration is NaN", "number"),
    "duration endless": ({"idx": "x", **GOOD, "duration": 10**400}, "duration is 1000", "number"),
    "duration long": ({"idx": "x4", **GOOD, "duration": 1e9}, "duration is 1e+09 s", "1 to 270"),
    "output": ({"idx": "x", **GOOD, "output": "drums"}, "output 'drums' is unknown", "choose one of"),
    "same name": ({"idx": "GOOD", **GOOD}, "same file as line 1", "another idx"),
}


def test_bad_lines_fail_alone(batch, songs, instant):
    """All of them in one list, each after a good one."""
    lines = [{"idx": "good", **GOOD}, *(line for line, *_ in BAD_LINES.values()), {"idx": "end", **GOOD}]
    done = batch(songs(*lines), "--json")
    assert done.code == 1 and "Traceback" not in done.err
    assert (done.json["done"], done.json["failed"]) == (2, len(BAD_LINES))
    failed = [entry for entry in results() if entry["status"] == "failed"]
    assert len(done.errors) == len(failed) == len(BAD_LINES)
    for number, (what, expected) in enumerate(BAD_LINES.items(), 2):
        entry = failed[number - 2]
        assert entry["line"] == number
        for words in expected[1:]:
            assert words in entry["error"], (what, entry["error"])
        assert f"line {number}" in done.errors[number - 2]
    assert {p.name for p in Path("out").iterdir()} == {"good.flac", "end.flac", "results.jsonl"}
    assert not list(Path().glob("*.flac"))


def test_unknown_fields_are_told(batch, songs, instant):
    done = batch(songs({"idx": "a", **GOOD, "singer": "me", "prompt_audio_path": None}))
    assert done.code == 0 and 'the field "singer" is ignored' in done.err
    assert 'the field "singer" is ignored' in results()[0]["warnings"]


def test_a_song_that_fails_does_not_stop_the_rest(batch, songs, instant, monkeypatch):
    generate = SongPipeline.generate_candidates
    errors = [UserError("too quiet; sing louder"), ZeroDivisionError("a bug")]

    def sometimes(self, lyrics, *args, **kwargs):
        if errors:
            raise errors.pop(0)
        return generate(self, lyrics, *args, **kwargs)

    monkeypatch.setattr(SongPipeline, "generate_candidates", sometimes)
    done = batch(songs(*({"idx": name, **GOOD} for name in "abc")))
    assert done.code == 1
    assert [(r["status"], r["error"]) for r in results()] == [
        ("failed", "too quiet; sing louder"),
        ("failed", "unexpected ZeroDivisionError: a bug; please report it"),
        ("done", None),
    ]
    assert "Traceback" in done.err  # of the bug


def test_ctrl_c_can_be_gone_on_from(batch, songs, instant, monkeypatch):
    path = songs(*({"idx": name, **GOOD} for name in "abc"))

    def press(self, progress):
        if len(instant) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(show._Lines, "show", lambda self, p: press(self, p) if p.done == 1 else None)
        done = batch(path)
    assert done.code == 130
    assert done.err.splitlines()[-1] == (
        "songgen: stopped with 1 of 3 songs done; the same command goes on from there"
    )
    assert {p.name for p in Path("out").iterdir()} == {"a.flac", "results.jsonl"}
    assert batch(path).code == 0
    assert [r["idx"] for r in results()] == ["a", "b", "c"]


class Killed(BaseException):
    """What nothing catches, as a kill from outside."""


def killed_at(monkeypatch, target: object, name: str, is_moment: Callable[..., bool] = lambda *_: True):
    """Until `undo()` of the patch a call of the function that is_moment() ends everything, before it runs."""
    original = getattr(target, name)

    def kill(*arguments, **options):
        if is_moment(*arguments):
            raise Killed
        return original(*arguments, **options)

    monkeypatch.setattr(target, name, kill)


def files_in(folder: str = "out") -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


CRASHES = {
    "before the record": (Record, "append", lambda record, entry: entry["status"] == "done"),
    "between two files": (os, "replace", lambda source, target: Path(source).name == "a.bgm.flac"),
}


@pytest.mark.parametrize("moment", CRASHES)
def test_files_of_a_killed_run_are_replaced(batch, songs, instant, monkeypatch, moment):
    batch(songs({"idx": "b", **GOOD, "output": "vocal"}))
    path = songs({"idx": "b", **GOOD, "output": "vocal"}, {"idx": "a", **GOOD, "output": "separate"})
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, *CRASHES[moment])
        batch(path)
    assert "a.vocal.flac" in files_in() and [r["idx"] for r in results()] == ["b"]
    done = batch(path, "--json")
    assert done.code == 0 and (done.json["done"], done.json["skipped"]) == (1, 1), done.err
    assert files_in() == {"b.flac", "a.vocal.flac", "a.bgm.flac", "a.mixed.flac", "results.jsonl"}
    assert [(r["idx"], r["status"]) for r in results()] == [("b", "done"), ("a", "done")]


def test_what_a_killed_run_left_is_known_until_it_is_made(batch, songs, instant, monkeypatch):
    """Another song, and another stop, come between."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, *CRASHES["before the record"])
        batch(songs({"idx": "a", **GOOD}))
    assert batch(songs({"idx": "c", **GOOD})).code == 0
    assert batch(songs({"idx": "a", **GOOD})).code == 0
    assert files_in() == {"a.flac", "c.flac", "results.jsonl"}


def test_files_that_a_killed_run_did_not_write_are_kept(batch, songs, instant, monkeypatch):
    path = songs({"idx": "a", **GOOD})
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, *CRASHES["before the record"])
        batch(path)
    Path("out/a.wav").write_bytes(b"mine")
    done = batch(path, "--format", "wav")
    assert done.code == 1 and "a.wav exists; use --overwrite" in done.err
    assert Path("out/a.wav").read_bytes() == b"mine"


def test_a_run_killed_after_the_record_leaves_a_song_that_is_done(batch, songs, instant, monkeypatch):
    path = songs({"idx": "a", **GOOD})
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, Unfinished, "remove")
        batch(path)
    assert batch(path, "--json").json["skipped"] == 1
    assert files_in() == {"a.flac", "results.jsonl"} and len(instant) == 1


def test_three_files_per_song(batch, songs, instant):
    path = songs({"idx": "a", **GOOD}, {"idx": "a.vocal", **GOOD, "output": "mixed"})
    done = batch(path, "--output", "separate", "--format", "wav32")
    assert done.code == 1 and "same file as line 1" in done.err
    assert results()[-1]["files"] == {"vocal": "a.vocal.wav", "bgm": "a.bgm.wav", "mixed": "a.mixed.wav"}


def test_the_example_list_can_be_sung(run, instant):
    path = Path(__file__).parents[2] / "samples" / "songs.jsonl"
    done = run("batch", path, "-d", "out", "--model", "selftest")
    assert done.code == 0 and len(instant) == 3
    assert [line for line in done.err.splitlines() if "warning" in line and "self-test" not in line] == []
