"""What the labels say is what is heard."""

import numpy as np
import pytest

from songgen_core.text.phonetics import CONSONANTS, PHONES, VOWELS
from training import codes
from training.synth import compose, random_request, render
from training.synth.beats import STRUCK_BY
from training.synth.chords import chord_notes, play_chords
from training.synth.drums import play_drums
from training.synth.formants import FEMALE, VOICED, harmonic_amplitudes
from training.synth.hiss import NOISY_IDS
from training.synth.voice import sing
from training.synth.waves import FRAME, PERIOD, grid_steps

RATE = 48000
SCORES = [compose(random_request(np.random.default_rng(seed), None, 8.0), seed) for seed in range(16)]


def held(phone: str, midi: int, frames: int = 30) -> np.ndarray:
    """A phone between two frames of silence at either end."""
    phones, pitches = np.zeros((2, frames + 4), np.int64)
    phones[2:-2], pitches[2:-2] = PHONES.index(phone), midi
    return sing(phones, pitches)


def spectrum(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and power."""
    return np.fft.rfftfreq(len(wave), 1 / RATE), np.abs(np.fft.rfft(wave)) ** 2


def share(wave: np.ndarray, low: float, high: float) -> float:
    """How much of the energy lies between two frequencies."""
    frequency, power = spectrum(wave)
    return float(power[(frequency >= low) & (frequency < high)].sum() / power.sum())


def pitch(wave: np.ndarray) -> float:
    """MIDI number, from the autocorrelation: the shortest lag that is nearly as good as the best."""
    power = np.abs(np.fft.rfft(wave, 2 * len(wave))) ** 2
    overlap = np.arange(len(wave), 0, -1)
    correlation = np.fft.irfft(power)[: len(wave)] / overlap
    lags = np.arange(RATE // 900, RATE // 80)
    best = correlation[lags].max()
    lag = next(n for n in lags if correlation[n] > 0.97 * best and correlation[n] >= correlation[n + 1])
    return 69 + 12 * np.log2(RATE / lag / 440)


@pytest.mark.parametrize("midi", [48, 55, 61, 62, 69, 76])
@pytest.mark.parametrize("vowel", ["IY", "AA", "UW", "ER"])
def test_the_voice_has_the_pitch_of_the_label(vowel: str, midi: int) -> None:
    assert abs(pitch(held(vowel, midi)[10 * FRAME : 14 * FRAME]) - midi) < 0.5


def test_a_song_has_the_pitches_of_its_labels() -> None:
    heard = []
    for score in SCORES[:6]:
        vocal, _ = render(score)
        for note in score.notes:
            frames = np.arange(note.start, note.end)
            vowel = score.phone[frames]
            vowel = frames[(vowel > 0) & (vowel < codes.FIRST_CONSONANT)]
            if len(vowel) >= 5:
                samples = vocal[0, (vowel[0] + 1) * FRAME : vowel[-1] * FRAME]
                heard.append(pitch(samples) - note.midi)
    assert len(heard) > 40 and np.abs(heard).max() < 0.5


def test_a_held_sound_repeats_every_ten_frames() -> None:
    voice = held("EH", 64)[6 * FRAME :]
    assert np.array_equal(voice[:PERIOD], voice[PERIOD : 2 * PERIOD]) and voice[:FRAME].any()
    nothing, chord = np.zeros(60, np.int64), np.full(60, 8)
    for timbre in (2, 3):
        band = play_chords(chord, nothing, timbre)[:, 10 * FRAME :]
        assert np.array_equal(band[:, :PERIOD], band[:, PERIOD : 2 * PERIOD])
        assert not np.array_equal(band[0, :PERIOD], band[1, :PERIOD])


@pytest.mark.parametrize("score", SCORES[:4], ids=range(4))
def test_sound_depends_on_labels_and_frame_number_mod_ten(score) -> None:
    def shifted(labels: np.ndarray, frames: int) -> np.ndarray:
        return np.concatenate([np.zeros(frames, np.int64), labels])

    def sound(frames: int) -> np.ndarray:
        voice = sing(shifted(score.phone, frames), shifted(score.midi, frames))
        chords, struck = shifted(score.chord, frames), shifted(score.struck, frames)
        band = play_chords(chords, struck, score.timbre)
        return np.stack([voice, *(band + play_drums(shifted(score.drum, frames)))])[:, frames * FRAME :]

    assert np.allclose(sound(0), sound(10), atol=1e-6)
    assert not np.allclose(sound(0), sound(3), atol=1e-2)


def test_a_label_reaches_no_further_than_its_neighbours() -> None:
    score = SCORES[1]
    note = next(n for n in score.notes if n.end - n.start >= 6)
    frame = next(
        f
        for f in range(note.start + 1, note.end)
        if 0 < score.phone[f - 1] == score.phone[f] == score.phone[f + 1] < 12
    )
    other = score.phone.copy()
    other[frame] = 1 + score.phone[frame] % 11
    before, after = sing(score.phone, score.midi), sing(other, score.midi)
    changed = np.flatnonzero(before != after) // FRAME
    assert changed.min() == frame - 1 and changed.max() == frame + 1


@pytest.mark.parametrize("score", SCORES, ids=range(16))
def test_songs_are_whole(score) -> None:
    vocal, bgm = render(score)
    assert (
        vocal.shape == bgm.shape == (2, score.num_frames * FRAME) and vocal.dtype == bgm.dtype == np.float32
    )
    assert np.isfinite(vocal).all() and np.isfinite(bgm).all()
    assert (0.35 if score.notes else 0.3) < np.abs(vocal + bgm).max() < 0.98
    silent = np.repeat(score.phone == 0, FRAME)
    # A consonant may begin a quarter of a frame early where another sound is next to it, not out of silence.
    assert not vocal[:, silent].any() and np.array_equal(vocal[0], vocal[1])
    if score.notes:
        loudness = np.sqrt(np.mean(vocal[:, ~silent] ** 2)) / np.sqrt(np.mean(bgm[:, ~silent] ** 2))
        assert 0.5 < loudness < 2
    assert share(vocal[0] + bgm[0], 0, 6000) > 0.9
    again = render(score)
    assert np.array_equal(vocal, again[0]) and np.array_equal(bgm, again[1])


def test_vowels_differ_as_formants_do() -> None:
    for midi in (50, 66):
        waves = {vowel: held(vowel, midi)[5 * FRAME : 25 * FRAME] for vowel in VOWELS}
        assert share(waves["IY"], 1900, 3600) > 10 * share(waves["UW"], 1900, 3600)
        assert share(waves["AA"], 600, 1500) > 3 * share(waves["IY"], 600, 1500)
        assert share(waves["EH"], 1500, 2600) > 5 * share(waves["AO"], 1500, 2600)
        levels = [np.sqrt(np.mean(wave**2)) for wave in waves.values()]
        assert np.allclose(levels, 1, atol=0.01)


def test_a_womans_formants_lie_higher() -> None:
    fundamental, sound = 10.0, VOICED["AA"]  # so low that the envelope shows
    man, woman = (harmonic_amplitudes(sound, fundamental, scale) for scale in (1.0, FEMALE))

    def first_formant(amplitudes: np.ndarray) -> float:
        peaks = np.flatnonzero((np.diff(amplitudes[:-1]) > 0) & (np.diff(amplitudes[1:]) < 0)) + 2
        return fundamental * float(peaks[peaks * fundamental > 500][0])

    assert first_formant(man) == pytest.approx(730, rel=0.05)
    assert first_formant(woman) == pytest.approx(1.17 * first_formant(man), rel=0.04)

    def colour(midi: int) -> float:
        frequency, power = spectrum(held("IY", midi)[5 * FRAME : 25 * FRAME])
        upper = (frequency > 1500) & (frequency < 4200)
        return float((frequency * power)[upper].sum() / power[upper].sum())

    assert colour(62) > 1.1 * colour(61) and colour(61) < 1.04 * colour(58)


@pytest.mark.parametrize(
    ("phone", "low", "high"), [("S", 5000, 7000), ("SH", 2500, 4000), ("K", 1500, 2700), ("T", 3000, 6000)]
)
def test_noise_lies_where_the_consonant_has_it(phone: str, low: float, high: float) -> None:
    noise = held(phone, 0, 1)
    assert share(noise, low, high) > 0.55
    opening = np.flatnonzero(noise)[0] / FRAME - 2
    assert opening > 0.4 if phone in "KT" else opening < 0.01
    assert not noise[: 2 * FRAME].any() and not noise[3 * FRAME :].any()


@pytest.mark.parametrize("midi", [50, 67])
def test_every_consonant_can_be_told_from_the_others(midi: int) -> None:
    shapes = []
    for phone in CONSONANTS:
        labels = np.full(5, PHONES.index("AA"))
        labels[2] = PHONES.index(phone)
        pitches = np.full(5, midi)
        pitches[2] *= phone in VOICED
        halves = sing(labels, pitches)[2 * FRAME : 3 * FRAME].reshape(2, -1)
        bands = np.abs(np.fft.rfft(halves))[:, :160].reshape(64, 5).sum(1)
        shapes.append(np.log(bands + 0.01))
    different = np.sqrt(np.mean((np.stack(shapes)[:, None] - np.stack(shapes)) ** 2, -1))
    assert different.shape == (24, 24)
    assert (different + 9 * np.eye(24)).min() > 0.15


def test_each_phone_but_silence_sounds() -> None:
    for number, phone in enumerate(PHONES[1:], 1):
        assert phone in VOICED or number in NOISY_IDS
        assert held(phone, 52 if phone in VOICED else 0, 1).any()
    assert not held("SIL", 0).any()


@pytest.mark.parametrize("timbre", range(4))
@pytest.mark.parametrize("chord", ["C major", "A minor", "F# major", "B minor"])
def test_a_chord_has_its_notes(chord: str, timbre: int) -> None:
    label = codes.CHORDS.index(chord)
    bass, *notes = chord_notes(label)
    minor, root = divmod(label - 1, 12)
    assert bass % 12 == root and 36 <= bass <= 47 and all(52 <= note <= 67 for note in notes)
    assert {note % 12 for note in notes} == {root, (root + 4 - minor) % 12, (root + 7) % 12}
    labels, pulse = np.full(20, label), np.zeros(20, np.int64)
    pulse[0] = codes.BAR
    power = spectrum(play_chords(labels, pulse > 0, timbre)[:, : PERIOD * 2].mean(0))[1]
    for note in (bass, *notes):
        bin_of = 2 * grid_steps(note)  # 20 frames: bins of 1.25 Hz
        around = power[bin_of - 6 : bin_of + 7]
        assert power[bin_of] == around.max() and power[bin_of] > 1e-3 * power.max()


def test_plucked_chords_die_away_and_are_struck_on_beats_or_eighths() -> None:
    chord, pulse = np.full(40, 1), np.zeros(40, np.int64)
    pulse[::20], pulse[10::20] = codes.BEAT, codes.OFF_BEAT

    def loudness(timbre: int) -> np.ndarray:
        wave = play_chords(chord, pulse >= STRUCK_BY[codes.TIMBRES[timbre]], timbre)
        return np.sqrt((wave.reshape(2, 40, FRAME) ** 2).mean((0, 2)))

    piano, guitar, organ = loudness(0), loudness(1), loudness(2)
    assert piano[18] < 0.5 * piano[1] and piano[21] > 1.8 * piano[18] and piano[11] < piano[8]
    assert guitar[8] < 0.5 * guitar[1] and guitar[11] > 1.8 * guitar[8]
    assert organ[5:35].min() > 0.7 * organ[5:35].max()


def test_drums_sound_where_they_are_struck_and_differ() -> None:
    drum = np.zeros(40, np.int64)
    drum[[3, 13, 23, 33]] = codes.DRUMS.index("kick"), codes.DRUMS.index("snare"), codes.DRUMS.index("hat"), 4
    wave = play_drums(drum)
    frames = (wave.reshape(2, 40, FRAME) ** 2).sum((0, 2))
    assert not frames[:3].any() and not frames[9:13].any() and not frames[18:23].any()
    kick, snare, hat, both = (wave[0, start * FRAME : (start + 6) * FRAME] for start in (3, 13, 23, 33))
    assert share(kick, 0, 160) > 0.9 and share(hat, 6000, 12000) > 0.8
    assert share(snare, 150, 230) > 0.1 and share(snare, 1000, 7000) > 0.3
    assert np.allclose(both, kick + hat, atol=1e-6)
    assert not play_drums(np.zeros(5, np.int64)).any()
