"""`--mend` and `"mend": true`: lyrics of any form are sung, and what was changed is told."""

import json
from pathlib import Path

import pytest

SUNO = "[Verse 1]\nLa la la, love\n[Soft piano]\n\n[Chorus x2]\nSing，sing\n"
MENDED = "[verse]\nLa la la, love\n\n[chorus]\nSing, sing\n\n[chorus]\nSing, sing"


@pytest.fixture
def suno(lyrics) -> Path:
    lyrics.write_text(SUNO, encoding="utf-8")
    return lyrics


def test_mended_lyrics_are_sung_and_changes_told(sing, suno, instant):
    done = sing("--mend", "--json")
    assert done.code == 0 and instant == [MENDED]
    changes = done.json["changes"]
    assert {"line": 1, "before": "[Verse 1]", "after": "[verse] (a heading)"} in changes
    for warning in (
        'lyrics mended, line 1: "[Verse 1]" became [verse] (a heading)',
        "remarks about the performance are not sung; put them into the style: Soft piano",
    ):
        assert warning in done.json["warnings"]
        assert f"songgen: warning: {warning}" in done.err


def test_without_it_the_error_says_how_it_would_be_read(sing, suno, instant):
    done = sing("--json")
    assert done.code == 1 and not instant
    assert done.json["error"].startswith("section 1 [verse 1], line 1: [verse 1] is not a structure tag")
    assert done.json["error"].endswith("; --mend would read it as [verse] [chorus] [chorus]")


def test_nothing_is_promised_where_mending_does_not_help(sing, lyrics, instant):
    lyrics.write_text("🎵", encoding="utf-8")
    done = sing()
    assert done.code == 1 and "--mend" not in done.err
    done = sing("--mend")
    assert done.code == 1 and "there are no lyrics" in done.err


def test_correct_lyrics_are_not_changed(sing, instant):
    done = sing("--mend", "--json")
    assert done.json["changes"] == [] and instant == ["[verse]\nLa la la\n"]
    assert "changes" not in sing("--overwrite", "--json").json


def test_a_song_of_a_list(run, tmp_path, instant):
    songs = tmp_path / "songs.jsonl"
    lines = [
        {"idx": "a", "gt_lyric": SUNO, "mend": True},
        {"idx": "b", "gt_lyric": SUNO},
        {"idx": "c", "gt_lyric": SUNO, "mend": "yes"},
    ]
    songs.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    done = run("batch", songs, "-d", "out", "--model", "selftest", "--duration", 1, "--steps", 1)
    assert done.code == 1 and instant == [MENDED]
    assert 'warning: line 1 (a): lyrics mended, line 1: "[Verse 1]" became [verse]' in done.err
    assert "; --mend would read it as [verse] [chorus] [chorus]" in done.err
    assert 'mend is "yes"; give true or false' in done.err
    results = {r["idx"]: r for r in map(json.loads, Path("out/results.jsonl").read_text().splitlines())}
    assert results["a"]["status"] == "done" and results["a"]["changes"] and results["a"]["gt_lyric"] == SUNO
    done = run("batch", songs, "-d", "out", "--model", "selftest", "--duration", 1, "--steps", 1)
    assert "was changed since" not in done.err
