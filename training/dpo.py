"""Preference alignment, the third stage of the LeVo paper: songs that were judged good become more likely.

Direct preference optimisation: of each pair the better song shall gain more than the worse one, against the
model as it was. A song's log-probability is the sum over all columns of all three streams.

Letters: B songs, K streams, S columns, V logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from songgen_core.models.lelm import Conditions, LeLM

from .lm import all_logits
from .lm_batches import SongBatch, columns
from .loop import Loss, Measure
from .preferences import Pair


@dataclass(frozen=True)
class PreferenceOptions:
    """beta: how dear it is to leave the reference. supervised: weight of the better songs' cross entropy."""

    beta: float = 0.1
    supervised: float = 0.05


@dataclass(frozen=True)
class JudgedPairs:
    """Pairs, and the log-probabilities [pairs, 2] of their better and worse songs before the stage."""

    pairs: Sequence[Pair]
    reference: Tensor


def pair_batch(pairs: Sequence[Pair], lm: LeLM) -> SongBatch:
    """The better songs, then the worse ones."""
    rows = [*pairs, *pairs]
    conditions = Conditions(*(torch.cat(parts) for parts in zip(*(pair.conditions for pair in rows))))
    songs = [*(pair.best for pair in pairs), *(pair.worst for pair in pairs)]
    (longest,) = {pair.longest for pair in pairs}
    return SongBatch(conditions, *columns(songs, longest, lm.config))


def song_log_probs(lm: LeLM, batch: SongBatch) -> tuple[Tensor, Tensor]:
    """Log-probability of each song [B], and its number of codes [B]."""
    logits = all_logits(lm, batch).float()
    losses = cross_entropy(logits.flatten(0, 2), batch.targets.flatten(), reduction="none")
    return -losses.view_as(batch.targets).sum((1, 2)), (batch.targets >= 0).sum((1, 2))


@torch.inference_mode()
def with_reference(lm: LeLM, pairs: Sequence[Pair], size: int) -> JudgedPairs:
    """`pairs` with what `lm` gives them now, `size` at a time."""
    parts = []
    for start in range(0, len(pairs), size):
        log_probs, _ = song_log_probs(lm, pair_batch(pairs[start : start + size], lm))
        parts.append(log_probs.unflatten(0, (2, -1)).T)
    return JudgedPairs(pairs, torch.cat(parts).clone())


def gains(log_probs: Tensor, reference: Tensor) -> Tensor:
    """How much more better songs gained than worse ones, [n]; log_probs [2 n], reference [n, 2]."""
    better, worse = log_probs.unflatten(0, (2, -1)) - reference.T
    return better - worse


def preference_loss(lm: LeLM, judged: JudgedPairs, size: int, options: PreferenceOptions) -> Loss:
    """DPO loss of `size` pairs, and the cross entropy of their better songs."""

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = rng.choice(len(judged.pairs), min(size, len(judged.pairs)), replace=False)
        batch = pair_batch([judged.pairs[n] for n in chosen], lm)
        log_probs, counts = song_log_probs(lm, batch)
        gained = gains(log_probs, judged.reference[torch.from_numpy(chosen)])
        preference = -logsigmoid(options.beta * gained).mean()
        better = log_probs[: len(chosen)].sum() / counts[: len(chosen)].sum()
        details = {"preference": preference.item(), "better": -better.item(), "gain": gained.mean().item()}
        return preference - options.supervised * better, details

    return loss


def preference_measure(lm: LeLM, judged: JudgedPairs, size: int, more: Measure) -> Measure:
    """On held-out pairs: how often the better song gained more (a tie counts half), and by
    how much on average; and what `more` says."""

    def measure() -> dict[str, float]:
        now = with_reference(lm, judged.pairs, size).reference
        gained = gains(now.T.flatten(), judged.reference)
        right = (gained > 0).float() + (gained == 0) / 2
        figures = {"preferred": right.mean().item(), "preference_gain": gained.mean().item()}
        return {**figures, **more()}

    return measure
