"""Covers drawn without a model."""

from itertools import pairwise

import pytest
import torch
from synthetic_songs import Style, song

from songgen_core.analysis import cover_motifs
from songgen_core.analysis.cover_colours import MOODS, brightness, mood_for, to_light, to_picture, words_of
from songgen_core.analysis.cover_motifs import MOTIFS
from songgen_core.analysis.covers import ASPECTS, draw_covers
from songgen_core.analysis.fonts import system_font_folders
from songgen_core.analysis.sound_shape import BANDS, LEVELS, MOMENTS, shape_of_nothing, shape_of_sound
from songgen_core.errors import AudioError, Cancelled, UserError
from songgen_core.text.tags import TAG_VOCABULARY

RATE = 22050
SMALL = {"size": 96, "seed": 3}


@pytest.fixture(scope="module")
def audio():
    return song(Style(120), 8.0, RATE)[0]


@pytest.fixture
def fonts():
    pytest.importorskip("PIL", reason="needs Pillow, which ComfyUI brings")
    return system_font_folders()


@pytest.mark.parametrize("aspect", ASPECTS)
def test_sides_follow_the_aspect_and_fit_codecs(aspect):
    across, down = ASPECTS[aspect]
    (cover,) = draw_covers(aspect=aspect, size=250, seed=1)
    height, width, _ = cover.shape
    assert height % 8 == width % 8 == 0 and abs(max(height, width) - 250) <= 4
    assert abs(width / height - across / down) < 0.06
    assert cover.dtype == torch.float32 and cover.min() >= 0 and cover.max() <= 1


@pytest.mark.parametrize("style", MOTIFS)
def test_each_style_draws_the_sound(style, audio):
    kind = {"style": style, "sample_rate": RATE, **SMALL}
    one, same = (draw_covers(audio=audio, **kind)[0] for _ in range(2))
    half = audio.clone()
    half[:, : half.shape[1] // 2] *= 0.01
    other = draw_covers(audio=half, **kind)[0]
    assert torch.equal(one, same)
    assert 0.005 < ((one - other).abs().amax(-1) > 0.1).float().mean() < 0.9
    assert one.std() > 0.05  # neither empty nor one colour


def test_styles_differ_and_mixed_takes_turns():
    stills = draw_covers(variations=4, **SMALL)
    drawn = {style: draw_covers(variations=4, style=style, **SMALL) for style in MOTIFS}
    used = [[s for s in MOTIFS if torch.equal(drawn[s][number], stills[number])] for number in range(4)]
    assert sorted(style for (style,) in used) == sorted(MOTIFS)


def test_a_variation_is_the_same_however_many_there_are(audio):
    kind = {"audio": audio, "sample_rate": RATE, **SMALL}
    three = draw_covers(variations=3, **kind)
    assert torch.equal(three[:1], draw_covers(variations=1, **kind))
    alike = draw_covers(variations=2, style="sun", **kind)
    assert (alike[0] - alike[1]).abs().mean() > 0.02
    assert not torch.equal(three[0], draw_covers(**{**kind, "seed": 4})[0])
    assert draw_covers(variations=2, size=64, seed=2**64 - 1).shape == (2, 64, 64, 3)


def test_drawing_leaves_the_global_dice_alone():
    before = torch.random.get_rng_state()
    draw_covers(**SMALL)
    assert torch.equal(before, torch.random.get_rng_state())


def test_moods_give_the_colours():
    def mean(description):
        return draw_covers(description=description, style="rings", variations=4, **SMALL).mean((0, 1, 2))

    angry, calm = mean("male, aggressive, metal"), mean("female, calm, ambient, peaceful")
    assert angry[0] > 1.8 * angry[2] and calm.min() > 0.6 and angry.mean() < 0.5
    assert torch.equal(mean("SAD"), mean("a very sad song, please, with a sad end"))
    assert torch.equal(mean("悲伤"), mean("sad"))


def test_feeling_outweighs_genre_and_instruments():
    dice = torch.Generator().manual_seed(0)
    assert mood_for("jazz, piano, strings, lonely, sad", dice) is MOODS["rain"]
    assert mood_for("jazz, piano", dice) is MOODS["gold"]
    assert len({id(mood_for("xyz", dice)) for _ in range(50)}) > 5


@pytest.mark.parametrize("speed", ["at 900 bpm", "bpm 110, later bpm 90", "bpm -5", "tempo 1.5"])
def test_a_tempo_has_no_colour_and_is_no_mistake(speed):
    dice = torch.Generator().manual_seed(0)
    assert mood_for(f"a sad song {speed}, from the 80s", dice) is MOODS["rain"]
    assert words_of(f"a sad song, {speed}").bpm is None


def test_moods_know_most_of_the_feelings_and_no_word_twice():
    words = [word for mood in MOODS.values() for word in mood.words]
    vocabulary = {word for tags in TAG_VOCABULARY.values() for word in tags}
    assert len(words) == len(set(words)) and set(words) <= vocabulary
    assert set(TAG_VOCABULARY["emotion"]) <= set(words)


def test_letters_are_written_where_the_motif_is_not(fonts):
    kind = {"size": 256, "seed": 5, "font_folders": fonts}
    for style, rows in (("rings", slice(150, 256)), ("mountains", slice(0, 110))):
        one, other = (draw_covers(title=t, style=style, **kind)[0] for t in ("dune", "nude"))
        changed = ((one - other).abs().amax(-1) > 0.2).any(1)
        assert changed[rows].any()
        changed[rows] = False
        assert not changed.any(), style


@pytest.mark.parametrize("description", [sorted(mood.words)[0] for mood in MOODS.values()])
def test_letters_are_seen_on_every_ground(description, fonts):
    kind = {"size": 160, "seed": 11, "description": description, "style": "sun", "font_folders": fonts}
    # Letters of one stand where the other shows its ground.
    one, other = (brightness(draw_covers(title=title, **kind)[0] ** 2.2) for title in ("dune", "nude"))
    difference = (one - other).abs()[120:].flatten()
    assert difference[difference > 0.1].median() > 0.25, description


def test_titles_of_any_length_and_script_stay_inside(fonts):
    titles = (
        "A very long title of a song that nobody could ever say in one breath " * 2,
        "W" * 14,
        "Ωδή Été",
    )
    for title in titles:
        for aspect in ASPECTS:
            kind = {"aspect": aspect, "size": 160, "seed": 2, "style": "field", "font_folders": fonts}
            one, two = (draw_covers(title=title, artist=name, **kind)[0] for name in ("Ada Weil", "Bob Weil"))
            assert one.shape == two.shape and not torch.equal(one, two)
            edge = (one[:, :4] - two[:, :4]).abs().max(), (one[:, -4:] - two[:, -4:]).abs().max()
            assert max(edge) < 0.1


def test_characters_without_a_font_stop_the_work(fonts):
    with pytest.raises(UserError, match="no font"):
        draw_covers(title="\U0001d800 x \U00013000\u0e01歌", font_folders=fonts, **SMALL)
    with pytest.raises(UserError, match="there is no font 'Nothing'"):
        draw_covers(artist="a", font="Nothing", font_folders=fonts, **SMALL)


@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("aspect", ASPECTS)
def test_a_small_cover_is_drawn_or_refused_in_words(size, aspect, fonts):
    drawn, refused = [], []
    for title in ("Dune", "x " * 25, "x " * 100, "歌" * 40, "歌" * 200, "W" * 200):
        kind = {"title": title.strip(), "aspect": aspect, "size": size, "font_folders": fonts}
        for artist in ("", "Ada"):
            try:
                drawn.append(draw_covers(artist=artist, variations=4, **kind))
            except UserError as error:
                refused.append(str(error))
    assert drawn and all(cover.isfinite().all() for cover in drawn)
    assert refused and all("do not fit into" in text and "larger size" in text for text in refused)


def test_nothing_is_cut_off_at_the_edge(fonts):
    kind = {"size": 160, "seed": 2, "style": "field", "font_folders": fonts}
    for name, text in (("artist", "The Longest Orchestra of the World and of the Moon"), ("title", "W" * 60)):
        with pytest.raises(UserError, match="do not fit into 160x160"):
            draw_covers(**{name: text}, **kind)
        (fits,) = draw_covers(**{name: text[:20]}, **kind)
        (other,) = draw_covers(**{name: text[:19] + "-"}, **kind)
        assert not torch.equal(fits, other), name  # its end is seen


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"aspect": "4:5"}, "1:1, 3:4"),
        ({"size": 8}, "size is 8"),
        ({"size": 9000}, "size is 9000"),
        ({"style": "stars"}, "mixed, rings"),
        ({"variations": 17}, "choose 1 to 16"),
        ({"seed": -1}, "seed is -1"),
        ({"title": "x" * 201}, "title has 201"),
        ({"description": "x" * 3000}, "3000 characters"),
        ({"audio": torch.zeros(2, 0), "sample_rate": 44100}, "empty"),
        ({"audio": torch.full((1, 9), float("nan")), "sample_rate": 44100}, "NaN"),
    ],
)
def test_wrong_inputs_are_named(change, expected):
    with pytest.raises((UserError, AudioError), match=expected):
        draw_covers(**{**SMALL, **change})


def test_any_sound_has_a_shape():
    for sound in (torch.zeros(2, RATE), torch.ones(1, 1), torch.rand(1, 700), torch.full((2, 3), 1e-9)):
        shape = shape_of_sound(sound, RATE)
        assert shape.loudness.shape == (LEVELS,) and shape.bands.shape == (BANDS, MOMENTS)
        assert len(sound[0].unique()) > 1 or not shape.loudness.any()  # what does not change is low
        for values in (shape.loudness, shape.bands):
            assert values.isfinite().all() and values.min() >= 0 and values.max() <= 1
        assert 0 <= shape.energy <= 1
        assert draw_covers(audio=sound, sample_rate=RATE, **SMALL).isfinite().all()
    assert shape_of_nothing(torch.Generator().manual_seed(0)).bands.shape == (BANDS, MOMENTS)


def test_loud_passages_are_high_and_loud_songs_have_energy():
    noise = 0.5 * torch.randn(1, 4 * RATE, generator=torch.Generator().manual_seed(0)).clamp(-1.5, 1.5)
    noise[:, : 2 * RATE] *= 0.05
    shape = shape_of_sound(noise, RATE)
    assert shape.loudness[: LEVELS // 2 - 20].max() < 0.4 < 0.8 < shape.loudness[LEVELS // 2 + 20 :].min()
    assert shape_of_sound(noise * 0.05, RATE).energy < shape.energy


def test_light_and_pictures_are_inverse():
    values = torch.tensor([0x40, 0xC4, 0xFF]) / 255
    assert torch.allclose(to_picture(to_light("#40c4ff")), values, atol=1e-6)


def test_progress_is_told_and_drawing_can_be_stopped():
    told = []
    draw_covers(variations=3, on_progress=told.append, **SMALL)
    assert told[0].done == 0 and told[-1].done == 300 and {p.total for p in told} == {300}
    assert [p.done for p in told] == sorted(p.done for p in told)
    with pytest.raises(Cancelled):
        draw_covers(cancelled=lambda: True, **SMALL)


@pytest.mark.parametrize("style", MOTIFS)
def test_a_large_picture_tells_where_it_is_and_stops_on_the_way(style, monkeypatch):
    monkeypatch.setattr(cover_motifs, "_STRIP", 96 * 8)  # as if the picture were large
    told = []
    draw_covers(style=style, on_progress=told.append, **SMALL)
    done = [p.done for p in told]
    assert done == sorted(done) and max(b - a for a, b in pairwise(done)) <= 10 and done[-1] == 100
    looks = iter([False] * (len(told) // 2))
    before = len(told)
    with pytest.raises(Cancelled):
        draw_covers(style=style, cancelled=lambda: next(looks, True), on_progress=told.append, **SMALL)
    assert len(told) - before == before // 2


@pytest.mark.parametrize("style", MOTIFS)
def test_strips_of_a_picture_are_the_whole(style, monkeypatch, audio):
    whole = draw_covers(style=style, audio=audio, sample_rate=RATE, **SMALL)
    monkeypatch.setattr(cover_motifs, "_STRIP", 96 * 8)
    assert torch.equal(draw_covers(style=style, audio=audio, sample_rate=RATE, **SMALL), whole)


@pytest.mark.parametrize("seed", range(3))
def test_rings_are_as_if_every_pixel_were_looked_at(seed, audio, monkeypatch):
    kind = {"style": "rings", "audio": audio, "sample_rate": RATE, "size": 200, "seed": seed}
    near, looked = draw_covers(**kind), []
    sampled = cover_motifs._sampled
    monkeypatch.setattr(
        cover_motifs, "_sampled", lambda row, turn: looked.append(turn.numel()) or sampled(row, turn)
    )
    draw_covers(**kind)
    assert len(looked) == 34 and sum(looked) < 0.35 * 34 * 200 * 200
    monkeypatch.setattr(cover_motifs, "_reach", lambda *_: float("inf"))
    assert torch.equal(draw_covers(**kind), near) and looked[34:] == [200 * 200] * 34
