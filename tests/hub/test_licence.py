"""The licence is accepted once per models folder, and no file tells otherwise before that."""

import json
from pathlib import Path

import pytest

import songgen_core
from songgen_core.errors import DownloadError, UserError
from songgen_core.hub import licence
from songgen_core.hub.licence import accept, is_accepted, licence_text, require_acceptance


def test_the_text_tells_what_matters():
    text = licence_text()
    for words in ("License Terms of SongGeneration", "https://", "research", "no commercial", "conversions"):
        assert words in text, words


def test_nothing_is_written_before_it_is_accepted(tmp_path):
    root = tmp_path / "models"
    assert not is_accepted(root)
    with pytest.raises(UserError, match=r"--accept-licence.*Load LeVo Model node") as caught:
        require_acceptance(root)
    assert "\n" not in str(caught.value) and not root.exists()


def test_accepted_once(tmp_path):
    root = tmp_path / "a" / "models"
    accept(root)
    assert is_accepted(root) and not is_accepted(tmp_path)
    require_acceptance(root)
    accept(root)
    (path,) = root.iterdir()
    assert path.name.startswith(".")
    noted = json.loads(path.read_text(encoding="utf-8"))
    assert noted["licence"] == licence.LICENCE_ID and noted["songgen"] == songgen_core.__version__
    assert noted["accepted"][:2] == "20" and noted["accepted"].endswith("+00:00")


@pytest.mark.parametrize("text", ["", "{}", "[]", "no JSON", '{"licence": "another one"}', "\x00\xff"])
def test_a_note_that_says_something_else(tmp_path, text):
    (tmp_path / licence.ACCEPTED_NAME).write_text(text, encoding="latin-1")
    assert not is_accepted(tmp_path)
    accept(tmp_path)
    assert is_accepted(tmp_path)


def test_a_place_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="file cannot be written to"):
        accept(tmp_path / "file")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(DownloadError, match=r"cannot be written to \(Permission denied\); choose another"):
        accept(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
