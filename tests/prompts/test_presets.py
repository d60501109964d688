"""Stored prompts: both layouts, spelling of genres, fair and repeatable choice, damaged files."""

import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from songgen_core.errors import CheckpointError, UserError
from songgen_core.prompts.presets import GENRES, Presets, load_presets
from songgen_core.text.lyrics import detect_language


def prompt(value: int, length: int = 5, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.full((1, 3, length), value, dtype=dtype)


CURRENT = {
    "Pop": {"zh": [prompt(1), prompt(2)], "en": [prompt(3)]},
    "R&B/Soul": {"zh": [prompt(4, 260)], "en": [prompt(5, dtype=torch.int16)]},
    "Hip-Hop": {"en": [prompt(value) for value in range(10, 16)]},
    "Auto": {"zh": [prompt(20)], "en": [prompt(21)]},
}
OLD = {"Pop": [prompt(1), prompt(2)], "Chinese Style": (prompt(3),)}


@pytest.fixture
def saved(tmp_path):
    def save(content: object) -> Presets:
        torch.save(content, tmp_path / "prompts.pt")
        return load_presets(tmp_path / "prompts.pt")

    return save


def value_of(tensor: Tensor) -> int:
    assert tensor.dtype == torch.int64 and tensor.shape[:2] == (1, 3)
    return int(tensor[0, 0, 0])


def test_current_layout(saved):
    presets = saved(CURRENT)
    assert presets.genres == ("Pop", "R&B/Soul", "Hip-Hop", "Auto")
    assert presets.languages("Pop") == ("zh", "en") and presets.languages("Hip-Hop") == ("en",)
    assert value_of(presets.choose("Pop", "en", 0)) == 3
    assert presets.choose("R&B/Soul", "zh", 0).shape == (1, 3, 260)
    assert value_of(presets.choose("R&B/Soul", "en", 0)) == 5
    assert value_of(presets.choose("Auto", "en", 0)) == 21


def test_old_layout_knows_no_languages(saved):
    presets = saved(OLD)
    assert presets.genres == ("Pop", "Chinese Style", "Auto")
    assert presets.languages("Pop") == () == presets.languages("Auto")
    for language in ("zh", "en"):
        assert value_of(presets.choose("Chinese Style", language, 0)) == 3
        assert {value_of(presets.choose("Auto", language, seed)) for seed in range(40)} == {1, 2, 3}


def test_auto_pools_the_genres_of_the_language_where_the_file_lacks_it(saved):
    presets = saved({genre: entry for genre, entry in CURRENT.items() if genre != "Auto"})
    assert presets.genres[-1] == "Auto" and presets.languages("Auto") == ("zh", "en")
    assert {value_of(presets.choose("Auto", "zh", seed)) for seed in range(60)} == {1, 2, 4}
    assert {value_of(presets.choose("auto", "en", seed)) for seed in range(200)} == {3, 5, *range(10, 16)}


@pytest.mark.parametrize("spelling", ["Hip-Hop", "hip-hop", "Hip Hop", "HIPHOP", " hip_hop "])
def test_spelling_of_genres_is_taken_lightly(saved, spelling):
    assert value_of(saved(CURRENT).choose(spelling, "en", 3)) in range(10, 16)


def test_spelling_of_slashes(saved):
    assert value_of(saved(CURRENT).choose("r&b / soul", "zh", 3)) == 4


def test_choice_is_uniform_repeatable_and_leaves_global_randomness_alone(saved):
    presets = saved(CURRENT)
    before = torch.random.get_rng_state()
    chosen = [value_of(presets.choose("Hip-Hop", "en", seed)) for seed in range(3000)]
    assert chosen == [value_of(presets.choose("Hip-Hop", "en", seed)) for seed in range(3000)]
    counts = Counter(chosen)
    assert len(counts) == 6 and all(400 < count < 600 for count in counts.values())
    presets.choose("Pop", "zh", 2**64 - 1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_changing_a_chosen_prompt_does_not_change_the_next(saved):
    presets = saved(CURRENT)
    presets.choose("Pop", "en", 0).zero_()
    assert value_of(presets.choose("Pop", "en", 0)) == 3


def test_unknown_genres_and_languages(saved):
    presets = saved(CURRENT)
    for ask in (lambda: presets.choose("Polka", "en", 0), lambda: presets.languages("Polka")):
        with pytest.raises(
            UserError, match="'Polka' has no stored prompts; use one of Pop, R&B/Soul, Hip-Hop, Auto"
        ):
            ask()
    with pytest.raises(UserError, match="no 'Hip-Hop' in the language 'zh'; use one of en or another genre"):
        presets.choose("Hip-Hop", "zh", 0)


def test_empty_lists_are_as_if_they_were_not_there(saved):
    presets = saved({"Pop": {"zh": [], "en": [prompt(1)]}, "Rock": {"zh": []}, "Auto": {}})
    assert presets.genres == ("Pop", "Auto") and presets.languages("Pop") == ("en",)
    assert value_of(presets.choose("Auto", "en", 0)) == 1


def test_published_genres_and_the_language_of_an_empty_text():
    assert len(GENRES) == len(set(GENRES)) == 14 and GENRES[-1] == "Auto"
    assert detect_language("") == "en"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([prompt(1)], "no table of genres"),
        (prompt(1), "no table of genres"),
        ({1: [prompt(1)]}, "no table of genres"),
        ({}, "holds no prompts"),
        ({"Pop": {"zh": []}}, "holds no prompts"),
        ({"Pop": prompt(1)}, "'Pop' is no list of prompts"),
        ({"Pop": {"zh": prompt(1)}}, "'Pop', 'zh' is no list of prompts"),
        ({"Pop": {3: [prompt(1)]}}, "is no list of prompts"),
        ({"Pop": {"zh": [prompt(1), [1, 2]]}}, "'Pop', 'zh', number 2 is no tensor but list"),
        ({"Pop": [prompt(1).float()]}, r"'Pop', number 1 is torch.float32 \[1, 3, 5\], not integers"),
        ({"Pop": [prompt(1).bool()]}, "torch.bool"),
        ({"Pop": [prompt(1)[0]]}, r"\[3, 5\], not integers \[1, 3, T\]"),
        ({"Pop": [prompt(1)[:, :2]]}, r"\[1, 2, 5\]"),
        ({"Pop": [prompt(1, 0)]}, r"\[1, 3, 0\]"),
        ({"Pop": [prompt(16386)]}, r"tokens 16386\.\.16386 outside 0\.\.16385"),
        ({"Pop": [prompt(-1)]}, r"tokens -1\.\."),
    ],
)
def test_files_with_something_else_in_them(saved, content, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        saved(content)
    assert "\n" not in str(caught.value) and "prompts.pt" in str(caught.value)


def test_padding_is_a_token(saved):
    assert value_of(saved({"Pop": [prompt(16385)]}).choose("Pop", "en", 0)) == 16385


class Evil:
    """A pickle that writes a file where it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (str(self.path), "w"))


def test_damaged_files(tmp_path):
    path = tmp_path / "new_auto_prompt.pt"
    with pytest.raises(CheckpointError, match="does not exist"):
        load_presets(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:616d\nsize 14959842\n")
    with pytest.raises(CheckpointError, match="Git-LFS pointer"):
        load_presets(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is empty"):
        load_presets(path)
    path.write_text("<!doctype html>")
    with pytest.raises(CheckpointError, match="no PyTorch file"):
        load_presets(path)
    torch.save(CURRENT, path)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load_presets(path)
    evil = Evil(tmp_path / "evil")
    path.write_bytes(pickle.dumps({"Pop": [evil]}, protocol=2))
    with pytest.raises(CheckpointError, match="refused"):
        load_presets(path)
    torch.save({"Pop": [evil]}, path)
    with pytest.raises(CheckpointError, match="refused"):
        load_presets(path)
    assert not evil.path.exists()
    with pytest.raises(CheckpointError, match=r"ends in \.pt"):
        load_presets(path.rename(tmp_path / "prompts.zip"))
