"""Scores: their beats, lines, notes and chords are those that were asked for."""

from itertools import pairwise

import numpy as np
import pytest

from songgen_core.text.lyrics import STRUCTURE_TAGS, VOCAL_TAGS, Song
from songgen_core.text.phonetics import PHONES, Lexicon, Syllable
from training import codes
from training.synth import Key, Line, Part, Request, Score, compose, random_request
from training.synth.diction import share_out
from training.synth.harmony import scale_notes

LEXICON = Lexicon(
    {
        "love": "L AH V",
        "you": "Y UW",
        "again": "AH G EH N",
        "street": "S T R IY T",
        "tomorrow": "T AH M AA R OW",
    },
    {"我": "wo", "爱": "ai", "你": "ni", "天": "tian"},
)


def line(text: str) -> Line:
    return Line(text, tuple(LEXICON.syllables(text)))


PARTS = (
    Part("intro-short"),
    Part("verse", (line("you love tomorrow"), line("again love you tomorrow again love street you"))),
    Part("inst-medium"),
    Part("chorus", (line("我爱你"), line("love you again"))),
    Part("outro-short"),
)
SCORES = [compose(random_request(np.random.default_rng(seed), LEXICON), seed) for seed in range(12)]


def same(a: Score, b: Score) -> bool:
    return a.codes.shape == b.codes.shape and bool((a.codes == b.codes).all()) and a.notes == b.notes


def test_a_seed_is_one_song() -> None:
    request = Request(PARTS)
    assert same(compose(request, 3), compose(request, 3))
    assert not same(compose(request, 3), compose(request, 4))


def test_what_is_told_changes_nothing_else() -> None:
    free = compose(Request(PARTS), 3)
    told = compose(
        Request(PARTS, gender=free.gender, genre=free.genre, bpm=round(free.bpm), key=free.key),
        3,
    )
    assert same(free, told)


@pytest.mark.parametrize(("bpm", "frames"), [(75, 20), (100, 15), (120, 13), (150, 10)])
def test_beats_lie_where_the_tempo_says(bpm: int, frames: int) -> None:
    score = compose(Request(PARTS, bpm=bpm), 0)
    beats = np.arange(0, score.num_frames, frames)
    assert score.frames_per_beat == frames and score.num_frames % (4 * frames) == 0
    assert np.array_equal(np.flatnonzero(score.pulse >= codes.BEAT), beats)
    assert np.array_equal(np.flatnonzero(score.pulse == codes.BAR), beats[::4])
    assert np.array_equal(np.flatnonzero(score.pulse == codes.OFF_BEAT), beats + frames // 2)


def test_sections_have_their_bars() -> None:
    score = compose(Request(PARTS, bpm=100), 0)
    bar = 4 * 15
    lengths = [(span.name, (span.end - span.start) // bar) for span in score.sections]
    # Thirteen syllables of an eighth each need two bars.
    assert lengths == [
        ("intro-short", 2),
        ("verse", 3),
        ("inst-medium", 4),
        ("chorus", 2),
        ("outro-short", 2),
    ]
    assert [span.start % bar for span in score.lines] == [0] * 4
    assert score.sections[0].start == 0 and score.sections[-1].end == score.num_frames
    assert all(a.end == b.start for a, b in pairwise(score.sections))


@pytest.mark.parametrize("score", SCORES, ids=range(12))
def test_only_sung_sections_are_sung(score: Score) -> None:
    sung = np.zeros(score.num_frames, bool)
    for span in score.sections:
        if span.name in ("verse", "chorus", "bridge"):
            sung[span.start : span.end] = True
    assert (score.phone[~sung] == 0).all() and (score.phone[sung] > 0).mean() > 0.4
    assert (score.midi[score.phone == 0] == 0).all()


@pytest.mark.parametrize("score", SCORES, ids=range(12))
def test_syllables_are_numbered_and_sung_on_eighths(score: Score) -> None:
    assert score.notes
    k = np.full(score.num_frames, 7)
    for number, note in enumerate(score.notes):
        k[note.start :] = number % 8
        frames = score.phone[note.start : note.end]
        vowels = [PHONES[phone] for phone in frames if phone < codes.FIRST_CONSONANT]
        assert note.end - note.start >= 6 and score.pulse[note.start] > 0
        assert len(vowels) >= 2 and set(vowels) == set(note.phones) & set(PHONES[1:12])
        assert set(score.midi[note.start : note.end].tolist()) <= {0, note.midi}
        vowel = (frames > 0) & (frames < codes.FIRST_CONSONANT)
        assert (score.midi[note.start : note.end][vowel] == note.midi).all()
    assert np.array_equal(score.k, k)
    assert all(a.end <= b.start for a, b in pairwise(score.notes))
    for number, span in enumerate(score.lines):
        *held, last = [note for note in score.notes if note.line == number]
        assert (held or [last])[0].start == span.start and last.end == span.end
        assert score.pulse[span.start] == codes.BAR
        assert last.end - last.start <= 2 * score.frames_per_beat


def test_a_word_is_sung_as_it_is_spelled() -> None:
    def frames(onset: str, vowel: str, coda: str, count: int) -> list[str]:
        syllable = Syllable(tuple(onset.split()), vowel, tuple(coda.split()))
        return [PHONES[phone] for phone in share_out(syllable, count)]

    assert frames("L", "AH", "V", 6) == ["L", "AH", "AH", "AH", "AH", "V"]
    assert frames("L", "AH", "V", 10) == ["L", *["AH"] * 7, "V", "V"]
    assert frames("S T R", "IY", "T S", 7) == ["S", "T", "R", "IY", "IY", "T", "S"]
    assert frames("S T R", "IY", "T S", 6) == ["S", "R", "IY", "IY", "T", "S"]
    assert frames("S T R", "IY", "T S", 10) == ["S", "T", "R", *["IY"] * 3, "T", "T", "S", "S"]
    assert frames("", "AA", "", 6) == ["AA"] * 6


def test_voices_keep_their_range_and_the_chorus_lies_higher() -> None:
    parts = tuple(Part(tag, (line("我爱你我爱你我爱"),) * 4) for tag in ("verse", "chorus"))
    lifts = []
    for seed in range(20):
        for gender, low, high in (("female", 60, 76), ("male", 48, 64)):
            score = compose(Request(parts, gender=gender, bpm=100), seed)
            verse, chorus = ([n.midi for n in score.notes if n.line // 4 == part] for part in (0, 1))
            assert all(low <= midi <= high for midi in verse + chorus)
            assert set(verse + chorus) <= set(scale_notes(score.key, low, high))
            lifts.append(np.mean(chorus) - np.mean(verse))
    assert 1.5 < np.mean(lifts) < 5


def test_a_chorus_that_comes_again_has_the_same_tune() -> None:
    chorus = Part("chorus", (line("love you again"), line("你爱我天天爱")))
    score = compose(Request((chorus, Part("verse", (line("again"),)), chorus)), 1)
    first, second = ([n for n in score.notes if n.line in lines] for lines in ((0, 1), (3, 4)))
    assert [(n.midi, n.end - n.start) for n in first] == [(n.midi, n.end - n.start) for n in second]
    assert len({n.midi for n in first}) > 1


@pytest.mark.parametrize("key", [Key(9, True), Key(3, False)], ids=str)
def test_chords_are_those_of_the_key(key: Key) -> None:
    score = compose(Request(PARTS, key=key, bpm=100), 5)
    bars = score.chord[::60]
    assert np.array_equal(np.repeat(bars, 60), score.chord)
    every = {"piano": 15, "guitar": None, "synthesizer": 60, "strings": 60}[codes.TIMBRES[score.timbre]]
    strokes = np.flatnonzero(score.pulse) if every is None else np.arange(0, score.num_frames, every)
    assert np.array_equal(np.flatnonzero(score.struck), strokes)
    tonic = codes.CHORDS.index(str(key))
    assert bars[0] == tonic and (bars == tonic).mean() >= 0.25
    scale = {note % 12 for note in scale_notes(key, 0, 127)}
    for chord in set(bars.tolist()):
        minor, root = divmod(chord - 1, 12)
        assert {root, (root + (3 if minor else 4)) % 12, (root + 7) % 12} <= scale


def test_melody_and_chords_meet_on_the_beats() -> None:
    for score in SCORES:
        for note in score.notes:
            if score.pulse[note.start] >= codes.BEAT:
                minor, root = divmod(int(score.chord[note.start]) - 1, 12)
                assert (note.midi - root) % 12 in (0, 3 if minor else 4, 7)


def test_drums_follow_the_genre() -> None:
    for genre, first_eighths in (
        ("pop", [1, 3, 2, 3]),
        ("rock", [4, 3, 2, 1]),
        ("electronic", [1, 3, 4, 3]),
        ("ballad", [3, 0, 3, 0]),
    ):
        score = compose(Request(PARTS, genre=genre, bpm=125), 0)
        assert not score.drum[:48].any()  # the first bar of the intro
        assert score.drum[48 : 48 + 24 : 6].tolist() == first_eighths
        assert not score.drum[score.pulse == 0].any()


def test_silence_is_silent() -> None:
    score = compose(Request((Part("verse", (line("love"),)), Part("silence")), bpm=100), 0)
    assert score.num_frames == 120 and not score.codes[2, 60:].any() and (score.phone[60:] == 0).all()


def test_emotion_is_the_mode() -> None:
    for seed in range(6):
        assert compose(Request(PARTS, emotion="sad"), seed).key.minor
        assert not compose(Request(PARTS, emotion="happy"), seed).key.minor


def test_texts_are_those_that_the_model_reads() -> None:
    request = Request(PARTS, "female", "pop", "sad", "piano", 120, Key(9, True))
    assert request.description == "female, pop, sad, piano, the bpm is 120, the key is A minor."
    assert request.lyrics.startswith("[intro-short] ; [verse] you love tomorrow. again love")
    assert request.lyrics.endswith("[chorus] 我爱你.love you again ; [outro-short]")
    assert Request(PARTS).description is None


@pytest.mark.parametrize(
    "wrong", [{"gender": "robot"}, {"genre": "polka"}, {"instrument": "tuba"}, {"emotion": "hungry"}]
)
def test_an_unknown_word_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is not one of"):
        Request(PARTS, **wrong)
    with pytest.raises(ValueError, match="is not one of verse"):
        Part("intro-short", (line("love"),))


@pytest.mark.parametrize("lexicon", [None, LEXICON], ids=["made-up words", "lexicon"])
@pytest.mark.parametrize("seconds", [6.0, 14.0, 30.0])
def test_random_requests_fit_their_length_and_can_be_read(lexicon: Lexicon | None, seconds: float) -> None:
    rng, lengths = np.random.default_rng(1), []
    for seed in range(40):
        request = random_request(rng, lexicon, seconds)
        score = compose(request, seed)
        lengths.append(score.num_frames / 25)
        read = Song.parse(request.lyrics)
        assert [section.tag for section in read.sections] == [part.tag for part in request.parts]
        for section, part in zip(read.sections, request.parts):
            assert section.lines == tuple(sung.text for sung in part.lines)
            for sung in part.lines:
                assert (lexicon or Lexicon({})).syllables(sung.text) == list(sung.syllables)
                assert 1 <= len(sung.syllables) <= 13
        assert 1 <= len(request.parts) <= 8
        assert request.bpm is None or abs(request.bpm - score.bpm) < 0.6
    assert max(lengths) <= max(seconds, 6.4) and np.median(lengths) > 0.75 * seconds


def test_random_songs_have_any_sections_in_any_order() -> None:
    """A form that is never seen is one that the model cannot follow: sections get lost or come twice."""
    rng = np.random.default_rng(4)
    songs = [[part.tag for part in random_request(rng, LEXICON, 40.0).parts] for _ in range(400)]
    assert len({tuple(tags) for tags in songs}) > 300
    assert {tag for tags in songs for tag in tags} == set(STRUCTURE_TAGS) - {"silence"}
    for tags in songs:
        assert not any(tag.startswith("intro") for tag in tags[1:])
        assert not any(tag.startswith("outro") for tag in tags[:-1])
    unsung = np.mean([not set(tags) & set(VOCAL_TAGS) for tags in songs])
    assert 0.01 < unsung < 0.1


def test_random_requests_leave_things_open() -> None:
    rng = np.random.default_rng(2)
    requests = [random_request(rng, LEXICON, 10.0) for _ in range(300)]
    for name in ("gender", "genre", "emotion", "instrument", "bpm", "key"):
        told = np.mean([getattr(request, name) is not None for request in requests])
        assert 0.5 < told < 0.8, name
    assert 0.05 < np.mean([request.description is None for request in requests]) < 0.2
    assert 0.2 < np.mean(["我" in r.lyrics or "爱" in r.lyrics for r in requests]) < 0.5
    assert all(r.key is None or r.emotion in (None, ("happy", "sad")[r.key.minor]) for r in requests)
