"""Pictures of the sound, and subtitles in pictures."""

import os
import time

import pytest
import torch

from songgen_core.analysis import fonts
from songgen_core.analysis.captions import burn_subtitles, wrap
from songgen_core.analysis.fonts import find_font, missing_characters, system_font_folders
from songgen_core.analysis.lines import TimedLine
from songgen_core.analysis.visuals import check_memory, draw_sound, parse_colour
from songgen_core.errors import AudioError, Cancelled, UserError

RATE = 16000


def tone(hertz: float, seconds: float, level: float = 0.5) -> torch.Tensor:
    return level * torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)[None]


@pytest.mark.parametrize("style", ["bars", "wave"])
def test_pictures_have_the_shape_and_colours_asked_for(style):
    audio = torch.cat([tone(200, 1), torch.zeros(1, RATE)], 1)
    seen = []
    images = draw_sound(
        audio, RATE, fps=25, width=160, height=90, style=style, colour=(255, 128, 0), on_progress=seen.append
    )
    assert images.shape == (50, 90, 160, 3) and images.dtype == torch.float32
    assert images.min() == 0 and images.max() == 1 and not images[..., 2].any()
    assert torch.allclose(images[..., 1], images[..., 0] * 128 / 255)
    assert images[10].sum() > 2 * images[45].sum()
    assert (seen[-1].done, seen[-1].total) == (50, 50)


def test_bars_stand_where_the_frequency_is():
    low, high = (draw_sound(tone(hz, 1), RATE, width=480)[12, :, :, 1].sum(0) for hz in (80.0, 4000.0))
    assert int(low.argmax()) < 120 and int(high.argmax()) > 300


@pytest.mark.parametrize("style", ["bars", "wave"])
def test_parts_drawn_one_by_one_are_the_whole(style):
    audio = torch.cat([tone(200, 2, 0.1), tone(300, 2)], 1)
    kind = {"fps": 24, "width": 64, "height": 32, "style": style}
    whole = draw_sound(audio, RATE, **kind)
    parts = [draw_sound(audio, RATE, start=s, max_seconds=1.5, **kind) for s in (0.0, 1.5, 3.0)]
    assert [len(part) for part in parts] == [36, 36, 24]
    assert torch.equal(torch.cat(parts), whole)


def test_too_many_pictures_are_refused_before_memory_is_taken():
    start = time.monotonic()
    with pytest.raises(UserError, match="max_seconds"):
        draw_sound(torch.zeros(1, 270 * 8000), 8000, width=1280, height=720)
    with pytest.raises(UserError, match=r"11\.1 GB") as error:
        check_memory(1081, 720, 1280, "draw less")
    assert "; draw less (at" in str(error.value)
    assert "388 pictures fit" in str(error.value) and time.monotonic() - start < 1
    check_memory(388, 720, 1280, "draw less")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"style": "stars"}, "bars, wave"),
        ({"width": 4}, "too small"),
        ({"start": 2.0}, "begin earlier"),
        ({"start": 1e307}, "begin earlier"),
        ({"fps": 0.1}, "choose 1 to 120"),
    ],
)
def test_what_cannot_be_drawn_is_named(change, expected):
    with pytest.raises((UserError, AudioError), match=expected):
        draw_sound(tone(200, 1), RATE, **change)


def test_silence_is_black_and_one_sample_a_picture():
    assert draw_sound(torch.zeros(2, RATE), RATE, width=64, height=32).max() == 0
    assert draw_sound(torch.ones(1, 1), RATE, width=64, height=32, style="wave").shape == (1, 32, 64, 3)


def test_drawing_can_be_stopped():
    with pytest.raises(Cancelled):
        draw_sound(tone(200, 1), RATE, width=64, height=32, style="wave", cancelled=lambda: True)


def test_colours():
    assert (
        parse_colour(" #40c4FF") == (64, 196, 255) == parse_colour("40c4ff")
        and parse_colour("#fff") == (255,) * 3
    )
    for text in ("", "red", "#12345", "#gggggg"):
        with pytest.raises(UserError, match="#rrggbb"):
            parse_colour(text)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("one two three", ["one two", "three"]),
        ("你好世界，我们走吧", ["你好世界，我们", "走吧"]),
        ("extraordinarily", ["extraordinarily"]),
        ("a\nb", ["a", "b"]),
        ("", [""]),
    ],
)
def test_long_lines_are_wrapped_at_blanks_and_between_wide_characters(text, rows):
    assert wrap(text, len, 7) == rows


@pytest.fixture
def pillow():
    return pytest.importorskip("PIL", reason="needs Pillow, which ComfyUI brings")


def pictures(frames: int = 10, height: int = 72, width: int = 128, channels: int = 3) -> torch.Tensor:
    return torch.full((frames, height, width, channels), 0.25)


def test_subtitles_are_drawn_while_they_last(pillow):
    images = pictures()
    lines = [TimedLine("Hello", 0.2, 0.5), TimedLine("There", 0.5, 0.7)]
    found = burn_subtitles(images, lines, 10, font_folders=system_font_folders(), colour=(255, 0, 0))
    changed = [bool((found[n] != 0.25).any()) for n in range(10)]
    assert changed == [False, False, True, True, True, True, True, False, False, False]
    assert torch.equal(found[2], found[4]) and not torch.equal(found[4], found[5])
    assert (images == 0.25).all() and not (found[2, :36] != 0.25).any()
    assert found[2, ..., 0].max() > 0.9 and found[2, ..., 1:].max() <= 0.25 and found.min() < 0.05


@pytest.mark.parametrize("place", ["top", "middle", "bottom"])
def test_very_long_lines_fit_the_picture(pillow, place):
    text = "a rather long line of a song that nobody could sing in one breath " * 4
    kind = {"font_folders": system_font_folders(), "size": 60, "place": place}
    found = burn_subtitles(pictures(1, 288, 512, 4), [TimedLine(text, 0, 1)], 1, **kind)
    rows = (found[0, ..., 0] > 0.9).any(1).nonzero()
    columns = (found[0, ..., 0] > 0.9).any(0).nonzero()
    assert columns.min() > 0 and columns.max() < 511 and rows.max() < 287 and rows.max() - rows.min() > 100


def test_a_font_is_found_that_has_every_character_or_none_is_used(pillow, tmp_path):
    folders = [tmp_path, *system_font_folders()]
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    assert missing_characters("ab c", None) == set() and missing_characters("é歌", None) >= {"歌"}
    assert missing_characters("ab", tmp_path / "broken.ttf") == {"a", "b"}
    for text in ("plain", "été", "歌词字幕", "うた", "Ωδή"):
        try:
            path = find_font(text, folders)
        except UserError as error:
            assert str(tmp_path) in str(error)
        else:
            assert missing_characters(text, path) == set()
    with pytest.raises(UserError, match="no font on this machine"):
        find_font("\U0001d800\ue123 x \U00013000\u0e01歌", folders)
    with pytest.raises(UserError, match="there is no font 'Nothing'"):
        find_font("a", folders, "Nothing")
    with pytest.raises(UserError, match="lacks a b"):
        find_font("ab", [tmp_path], "broken")


def test_fonts_are_asked_once_for_the_characters_of_a_text(pillow, tmp_path, monkeypatch):
    source = next(iter(fonts._font_files(system_font_folders())), None)
    if source is None:
        pytest.skip("no font is installed")
    path, opened, load = tmp_path / "a.ttf", [], fonts.load_font
    path.write_bytes(source.read_bytes())
    monkeypatch.setattr(fonts, "load_font", lambda file, size: opened.append(file) or load(file, size))
    for _ in range(2):
        with pytest.raises(UserError, match="no font on this machine"):
            find_font("a\U0001d800", [tmp_path])
    assert opened.count(path) == 1
    os.utime(path, (1, 1))  # another file of that name
    assert missing_characters("a\U0001d800", path) == {"\U0001d800"} and opened.count(path) == 2


def test_missing_glyphs_stop_the_work_instead_of_drawing_boxes(pillow):
    with pytest.raises(UserError, match="歌"):
        burn_subtitles(pictures(), [TimedLine("歌", 0, 1)], 10, font_folders=[])


@pytest.mark.parametrize(
    ("images", "fps", "place", "expected"),
    [
        (torch.zeros(2, 3, 4), 24, "top", "pictures, height"),
        (torch.zeros(2, 3, 4, 3), 0, "top", "fps is 0"),
        (torch.zeros(2, 3, 4, 3), 24, "left", "bottom, middle, top"),
    ],
)
def test_wrong_inputs_of_subtitles_are_named(images, fps, place, expected):
    with pytest.raises(UserError, match=expected):
        burn_subtitles(images, [], fps, font_folders=[], place=place)


def test_without_lines_nothing_is_needed_and_nothing_changes():
    images = pictures(3)
    assert torch.equal(burn_subtitles(images, [TimedLine("late", 50, 60)], 24, font_folders=[]), images)


def test_burning_is_told_before_fonts_are_looked_for():
    told = []
    with pytest.raises(UserError, match="there is no font"):
        burn_subtitles(
            pictures(), [TimedLine("a", 0, 1)], 10, font_folders=[], font="x", on_progress=told.append
        )
    assert [(p.done, p.total) for p in told] == [(0, 10)]


def test_burning_can_be_stopped():
    with pytest.raises(Cancelled):
        burn_subtitles(pictures(), [], 24, font_folders=[], cancelled=lambda: True)
