"""The parts that need no song."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from stand_in import LEXICON

from songgen_core.checking.pitch import Pitch, find_pitch
from songgen_core.checking.tempo import RELATED, RIGHT, WRONG, hear_tempo, judge_tempo
from songgen_core.checking.timeline import bar_seconds, find_instrumentals, inside
from songgen_core.checking.tonality import find_key, relative_key
from songgen_core.checking.vowel_order import lyric_vowels, matches, score_vowels
from songgen_core.checking.vowels import hear_vowels
from songgen_core.text.lyrics import Song
from songgen_core.text.musical_key import KEYS
from songgen_core.text.phonetics import PHONES, VOWELS
from training.synth.voice import sing

RATE = 16000


@pytest.mark.parametrize(
    ("heard", "judged"),
    [
        *((100, RIGHT), (103.9, RIGHT), (96.1, RIGHT), (104.5, WRONG), (200, RELATED), (50, RELATED)),
        *((66, RELATED), (150, RELATED), (120, WRONG), (None, WRONG)),
    ],
)
def test_tempi_are_judged(heard: float | None, judged: str) -> None:
    assert judge_tempo(heard, 100) == judged


@pytest.mark.parametrize("bpm", [80, 97, 118, 140])
def test_the_tempo_of_clicks(bpm: int) -> None:
    audio = torch.zeros(10 * RATE)
    click = torch.randn(400, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 0, 400) ** 2
    for number in range(int(10 * bpm / 60)):
        at = round(number * RATE * 60 / bpm)
        audio[at : at + 400] += click[: len(audio) - at]
    assert hear_tempo(audio, RATE) == pytest.approx(bpm, rel=0.01)


def test_what_has_no_tempo() -> None:
    noise = torch.randn(8 * RATE, generator=torch.Generator().manual_seed(1))
    assert hear_tempo(noise, RATE) is None and hear_tempo(noise[:RATE], RATE) is None


@pytest.mark.parametrize("key", KEYS)
def test_keys_of_cadences(key: str) -> None:
    """Tonic, subdominant, dominant, tonic, of pure tones."""
    minor, tonic = divmod(KEYS.index(key), 12)
    third = 3 if minor else 4
    chords = [(0, third, 7), (5, 5 + third, 12), (7, 11, 14), (0, third, 7)]
    seconds = torch.arange(RATE) / RATE
    pieces = [
        sum(torch.sin(2 * torch.pi * 440 * 2 ** ((48 + tonic + step - 69) / 12) * seconds) for step in chord)
        for chord in chords
    ]
    assert find_key(torch.cat(pieces), RATE) == key


def test_relatives_share_their_notes() -> None:
    assert relative_key("C major") == "A minor" and relative_key("C minor") == "D# major"
    assert all(relative_key(relative_key(key)) == key != relative_key(key) for key in KEYS)


@pytest.mark.parametrize("midi", [45, 52, 60, 69, 77])
def test_the_pitch_of_a_tone_with_overtones(midi: int) -> None:
    seconds = torch.arange(RATE) / RATE
    tone = sum(torch.sin(2 * torch.pi * n * 440 * 2 ** ((midi - 69) / 12) * seconds) / n for n in range(1, 7))
    pitch = find_pitch(0.1 * tone[None], RATE)
    assert pitch.voiced[5:-5].all() and np.abs(pitch.midi[5:-5] - midi).max() < 0.1
    assert pitch.median == pytest.approx(midi, abs=0.05)


def test_hissing_is_heard_but_has_no_pitch() -> None:
    hiss = torch.randn(1, RATE, generator=torch.Generator().manual_seed(0))
    pitch = find_pitch(hiss, RATE)
    assert pitch.heard.all() and not pitch.voiced.any() and pitch.median is None


def flags(*spans: tuple[float, float], seconds: float) -> np.ndarray:
    out = np.zeros(round(seconds * 100), bool)
    for start, end in spans:
        out[round(start * 100) : round(end * 100)] = True
    return out


SONG = Song.parse(
    "[intro-short] ; [verse] La la la la. ; [inst-medium] ; [chorus] La la la la. ; [outro-short]"
)


def test_instrumental_sections_are_laid_over_a_song() -> None:
    """Bars of 2 s: 4 s of intro, 8 s in the middle, 4 s of outro."""
    voiced = flags((4, 8), (16, 20), seconds=24)
    intro, middle, outro = find_instrumentals(SONG, 24.0, True, 2.0, voiced)
    assert (intro.start, intro.end, intro.length) == (0.12, 3.88, 4.0)
    assert (middle.start, middle.end, middle.length) == (8.12, 15.88, 8.0)
    assert (outro.start, outro.end, outro.length) == (20.12, 23.88, 4.0)
    assert all(part.kept for part in (intro, middle, outro))
    assert not (inside([intro, middle, outro], 2400) & voiced).any()


def test_a_short_pause_does_not_keep_a_promise() -> None:
    voiced = flags((4, 9), (11, 20), seconds=24)
    middle = find_instrumentals(SONG, 24.0, True, 2.0, voiced)[1]
    assert middle.length == 2.0 and not middle.kept
    assert inside([middle], 2400)[voiced].sum() > 500  # six of its eight seconds are sung


def test_a_pause_in_the_wrong_place_is_no_section() -> None:
    """A song of one line more, which would come before the pause, is looked at where its turn is."""
    song = Song.parse("[verse] La la la la. La la la la. La la la la. ; [inst-short] ; [chorus] La la la la.")
    voiced = flags((0, 1), (5, 20), seconds=20)
    (middle,) = find_instrumentals(song, 20.0, True, 2.0, voiced)
    assert middle.start > 5 and not middle.kept and inside([middle], 2000)[voiced].sum() > 300


def test_an_intro_that_is_too_long_and_none_without_a_voice() -> None:
    voiced = flags((11, 15), seconds=20)
    assert not find_instrumentals(SONG, 20.0, True, 2.0, voiced)[0].kept
    assert find_instrumentals(SONG, 20.0, True, 2.0, flags(seconds=20)) == []
    assert find_instrumentals(Song.parse("[intro-short]"), 20.0, True, 2.0, voiced) == []
    assert find_instrumentals(Song.parse("[verse] La."), 20.0, True, 2.0, voiced) == []


def test_the_quicker_tempo_counts_for_bars() -> None:
    assert (bar_seconds(120, None), bar_seconds(120, 60.0), bar_seconds(60, 120.0)) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("midi", [52, 57, 64, 69])
def test_every_vowel_is_told_by_its_sound(midi: int) -> None:
    """One after the other, with a gap between them."""
    phones, pitches = [], []
    for vowel in VOWELS:
        phones += [0] * 3 + [PHONES.index(vowel)] * 8
        pitches += [0] * 3 + [midi] * 8
    wave = torch.from_numpy(0.1 * sing(np.array([*phones, 0]), np.array([*pitches, 0])))
    assert hear_vowels(wave, 48000, find_pitch(wave[None], 48000)) == list(VOWELS)


def test_vowels_are_told_through_noise() -> None:
    """Each of them four times, 3 dB above noise: two thirds are told, half without a cost of changes."""
    phones = np.concatenate([[0, 0, *[PHONES.index(vowel)] * 8] for vowel in VOWELS * 4] + [[0]])
    voice = torch.from_numpy(sing(phones, np.where(phones > 0, 57, 0)))
    noise = torch.randn(len(voice), generator=torch.Generator().manual_seed(0))
    power = torch.fft.rfft(noise)
    power[len(power) // 6 :] = 0  # above 4 kHz
    noise = torch.fft.irfft(power, len(voice))
    wave = 0.1 * (voice + 0.7 * noise / noise.std() * (voice != 0))
    heard = hear_vowels(wave, 48000, find_pitch(wave[None], 48000))
    assert matches(heard, VOWELS * 4) >= 27 and len(heard) <= 48


def test_a_vowel_again_on_another_note_is_another_syllable() -> None:
    """Also where the voice does not stop in between."""
    midi = np.repeat([0, 52, 55, 0], [2, 11, 11, 1])
    phone = np.where(midi > 0, PHONES.index("AA"), 0)
    wave = torch.from_numpy(0.1 * sing(phone, midi))
    for changing, syllables in ((midi, ["AA", "AA"]), (np.where(midi > 0, 52, 0), ["AA"])):
        known = np.repeat(np.where(changing > 0, changing, np.nan), 4)
        assert hear_vowels(wave, 48000, Pitch(known, known > 0)) == syllables


def by_hand(heard: str, read: str) -> int:
    """All alignments: those with the fewest edits, and of these the most pairs."""
    best = (len(heard) + len(read), 0)
    for count in range(min(len(heard), len(read)) + 1):
        for left, right in product(
            combinations(range(len(heard)), count), combinations(range(len(read)), count)
        ):
            equal = sum(heard[a] == read[b] for a, b in zip(left, right))
            best = min(best, (len(heard) + len(read) - count - equal, -equal))
    return -best[1]


def test_pairs_of_the_best_alignment() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        heard, read = ("".join(rng.choice(list("abc"), rng.integers(0, 6))) for _ in range(2))
        assert matches(heard, read) == by_hand(heard, read), (heard, read)


def test_scores_of_vowels() -> None:
    read = lyric_vowels(Song.parse("[intro-short] ; [verse] La la me. ; [chorus] 月亮"), LEXICON)
    assert read == ["AH", "AH", "IY", "EH", "AA"]
    score = score_vowels(read, read)
    assert score.right == 1 and 0.3 < score.chance < 0.9 and (score.read, score.heard) == (5, 5)
    assert score_vowels(read * 2, read).right == 0.5 and score_vowels([], read).right == 0
    assert score_vowels(read, []) is None
