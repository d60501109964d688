"""Preference alignment: pairs that were judged, and a loss that tells them apart."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from songgen_core.models.lelm import LeLM
from songgen_core.writing import default_sampling
from training import preferences
from training.dpo import (
    JudgedPairs,
    PreferenceOptions,
    gains,
    pair_batch,
    preference_loss,
    preference_measure,
    song_log_probs,
    with_reference,
)
from training.lm import make_lm
from training.lm_batches import SongSource
from training.preferences import WEIGHTS, Pair, PairOptions, draw_pairs, score
from training.synth import Key, compose
from training.synth.corpus import random_request

OPTIONS = PairOptions(count=3, candidates=3, margin=0.001, group=2, patience=8)
SECONDS = 2.0, 3.0


@pytest.fixture(scope="module")
def lm(source: SongSource) -> LeLM:
    return make_lm(source.config).eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pairs") / "pairs.pt"


@pytest.fixture(scope="module")
def pairs(lm: LeLM, source: SongSource, file: Path) -> list[Pair]:
    return draw_pairs(lm, source, OPTIONS, SECONDS, 5, file)


def asked_for(source: SongSource, **style):
    request = random_request(np.random.default_rng(3), source.tokenizers.lyrics.lexicon, 8.0)
    return replace(request, **style)


def test_the_song_that_was_asked_for_is_worth_most(source: SongSource) -> None:
    style = {"gender": "female", "emotion": "sad", "instrument": "piano", "bpm": 120, "key": Key(9, True)}
    request = asked_for(source, **style)
    right = score(request, torch.from_numpy(compose(request, 0).codes))
    assert right > 0.7 * sum(weight for weight in WEIGHTS.values() if weight > 0)
    wrongs = (
        {"gender": "male"},
        {"instrument": "guitar"},
        {"bpm": 90},
        {"emotion": None, "key": Key(2, False)},
    )
    for wrong in wrongs:
        other = torch.from_numpy(compose(replace(request, **wrong), 0).codes)
        assert score(request, other) < right - 0.05, wrong
    mute = torch.from_numpy(compose(request, 0).codes)
    mute[0] %= 32  # silence, with the same pulses
    assert score(request, mute) < right - 0.5


def test_a_song_of_nonsense_is_judged_too(source: SongSource) -> None:
    """Ids that mean nothing, ids of recordings, and no frame at all."""
    request = asked_for(source, bpm=120)
    for song in (torch.full((3, 9), 1279), torch.full((3, 9), 1200), torch.zeros(3, 0, dtype=torch.int64)):
        assert score(request, song) <= 0.5


def test_pairs_are_better_and_worse_songs_of_one_request(pairs: list[Pair], source: SongSource) -> None:
    assert len(pairs) == 3
    for pair in pairs:
        best, worst = pair.scores
        assert best - worst >= OPTIONS.margin
        assert pair.best.shape[0] == pair.worst.shape[0] == 3
        assert pair.best.shape[-1] <= pair.longest == 150
        assert [len(part) for part in pair.conditions] == [1, 1, 1, 1]
        assert pair.conditions.lyrics.shape == (1, source.config.lyrics_length)


def test_drawing_goes_on_where_it_stopped(
    lm: LeLM,
    source: SongSource,
    pairs: list[Pair],
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    usual = preferences.write

    def counted(*arguments):
        calls.append(arguments)
        return usual(*arguments)

    monkeypatch.setattr(preferences, "write", counted)
    other = tmp_path / "pairs.pt"
    draw_pairs(lm, source, replace(OPTIONS, count=1), SECONDS, 5, other)
    early = len(calls)
    again = draw_pairs(lm, source, OPTIONS, SECONDS, 5, other)
    assert early >= 1 and len(calls) > early
    for first, second in zip(pairs, again):
        assert torch.equal(first.best, second.best) and torch.equal(first.worst, second.worst)
        assert first.scores == second.scores
    seeds = [seed + n for _, _, requests, _, seed, _ in calls for n in range(len(requests))]
    assert len(set(seeds)) == len(seeds)  # no two songs are drawn with the same one
    assert {call[-1] for call in calls} == {default_sampling(lm.config)}
    wild = replace(OPTIONS, count=1, temperature=1.3)
    draw_pairs(lm, source, wild, SECONDS, 5, tmp_path / "wild" / "pairs.pt")
    assert calls[-1][-1].temperature == 1.3
    shutil.rmtree(tmp_path / "wild")
    calls.clear()
    assert len(draw_pairs(lm, source, OPTIONS, SECONDS, 5, file)) == 3 and not calls  # all there
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.pt"]
    for pair in again:
        for part in (pair.best, pair.worst, *pair.conditions):  # nothing is stored that it was cut from
            assert part.untyped_storage().nbytes() == part.nbytes


def test_songs_that_do_not_differ_are_no_pairs(lm: LeLM, source: SongSource, tmp_path: Path) -> None:
    options = replace(OPTIONS, count=1, candidates=2, margin=50.0, patience=2)
    with pytest.raises(ValueError, match="2 requests gave no songs that differ by 50"):
        draw_pairs(lm, source, options, (1.0, 1.0), 5, tmp_path / "pairs.pt")


def test_log_probabilities_are_those_of_each_song_alone(lm: LeLM, pairs: list[Pair]) -> None:
    batch = pair_batch(pairs, lm)
    with torch.no_grad():
        together, counts = song_log_probs(lm, batch)
        for n, pair in enumerate(pairs):
            alone, (better, _worse) = song_log_probs(lm, pair_batch([pair], lm))
            assert torch.allclose(alone, together[[n, n + 3]], rtol=1e-4)
            ended = pair.best.shape[-1] < pair.longest
            assert better == counts[n] == 3 * (pair.best.shape[-1] + ended)
        table = torch.log_softmax(lm(batch.inputs, prefix=lm.conditioner(batch.conditions)), dim=-1)
        told = batch.targets[0] >= 0
        by_hand = table[0].gather(-1, batch.targets[0].clamp(min=0)[..., None])[..., 0][told].sum()
    assert torch.allclose(by_hand, together[0], rtol=1e-4)


def test_loss_begins_at_ln_2_and_pulls_pairs_apart(source: SongSource, pairs: list[Pair]) -> None:
    lm = make_lm(source.config)
    judged = with_reference(lm, pairs, 2)
    assert judged.reference.shape == (3, 2)
    loss = preference_loss(lm, judged, 3, PreferenceOptions(beta=0.1, supervised=0.0))
    first, details = loss(np.random.default_rng(0))
    assert first.item() == pytest.approx(math.log(2), abs=1e-3)
    assert details["gain"] == pytest.approx(0, abs=0.02)
    optimiser = torch.optim.AdamW(lm.parameters(), lr=3e-4)
    for step in range(4):
        optimiser.zero_grad()
        loss(np.random.default_rng(step))[0].backward()
        optimiser.step()
    figures = preference_measure(lm, judged, 2, lambda: {"more": 1.0})()
    assert figures["preferred"] == 1.0 and figures["preference_gain"] > 1 and figures["more"] == 1.0
    assert loss(np.random.default_rng(9))[0] < first


def test_supervised_term_is_the_cross_entropy_of_the_better_songs(lm: LeLM, pairs: list[Pair]) -> None:
    judged = with_reference(lm, pairs, 3)
    without, _ = preference_loss(lm, judged, 3, PreferenceOptions(supervised=0.0))(np.random.default_rng(0))
    some, details = preference_loss(lm, judged, 3, PreferenceOptions(supervised=0.5))(
        np.random.default_rng(0)
    )
    assert (some - without).item() == pytest.approx(0.5 * details["better"], rel=1e-4)
    assert 6 < details["better"] < 9  # ln 1281, knowing nothing


def test_what_better_songs_gain_counts_against_worse_ones() -> None:
    log_probs = torch.tensor([-10.0, -20.0, -30.0, -40.0])  # better, better, worse, worse
    reference = torch.tensor([[-12.0, -29.0], [-20.0, -45.0]])
    assert gains(log_probs, reference).tolist() == [3.0, -5.0]


def test_ties_count_half(lm: LeLM, pairs: list[Pair]) -> None:
    same = [replace(pair, worst=pair.best) for pair in pairs]
    judged = JudgedPairs(same, torch.zeros(3, 2))
    assert preference_measure(lm, judged, 3, dict)()["preferred"] == 0.5
