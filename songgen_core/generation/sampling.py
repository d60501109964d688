"""From logits to the next code of each stream: pure functions on tensors (LeVo spec 8).

Letters: K streams, V logits per stream (codes 0..V-2 and EOS = V-1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError

REPETITION_PENALTY = 1.1
_COLDEST = 1e-3  # below this temperature logits / temperature could overflow; it is argmax by then


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How the language model draws.

    temperature: 0 takes the most likely code (argmax). top_k: candidates of the mixed stream; the other
    streams stay greedy, as the model was tuned. top_p: 0 is off; when on it replaces top_k and makes all
    streams random. repetition_window: frames in which repeated codes are penalised, 0 is off.
    """

    temperature: float = 0.8
    top_k: int = 5000
    top_p: float = 0.0
    cfg_scale: float = 1.5
    repetition_window: int = 50

    def __post_init__(self) -> None:
        _check_range("temperature", self.temperature, 0.0, 10.0)
        _check_range("top_k", self.top_k, 0, 1_000_000, whole=True)
        _check_range("top_p", self.top_p, 0.0, 1.0)
        _check_range("cfg_scale", self.cfg_scale, 0.0, 100.0)
        _check_range("repetition_window", self.repetition_window, 0, 10_000, whole=True)


def _check_range(name: str, value: float, low: float, high: float, *, whole: bool = False) -> None:
    if not low <= value <= high or (whole and int(value) != value):  # also catches NaN
        kind = "whole number" if whole else "value"
        raise UserError(f"{name} is {value}; choose a {kind} from {low} to {high}")


def guide(cond_logits: Tensor, uncond_logits: Tensor, cfg_scale: float) -> Tensor:
    """Classifier-free guidance in float32."""
    cond, uncond = cond_logits.float(), uncond_logits.float()
    return uncond + (cond - uncond) * cfg_scale


def penalize_repetition(logits: Tensor, recent: Tensor) -> Tensor:
    """Divide the logits [..., K, V] of codes among `recent` [..., K, window] by 1.1, once each.

    Quirk: negative logits are divided as well and so become more likely; EOS is exempt.
    """
    eos_id = logits.shape[-1] - 1
    seen = torch.zeros(*logits.shape[:-1], eos_id + 2, dtype=torch.bool, device=logits.device)
    seen.scatter_(-1, recent.to(logits.device), True)
    seen[..., eos_id:] = False
    return torch.where(seen[..., :-1], logits / REPETITION_PENALTY, logits)


def ban(logits: Tensor, banned: Tensor | None) -> Tensor:
    """Forbid the ids `banned` [n] on stream 0, so that the song cannot copy its prompt."""
    if banned is None or not banned.numel():
        return logits
    logits = logits.clone()
    logits[0, banned.to(logits.device)] = -torch.inf
    return logits


def probabilities(logits: Tensor, options: SamplingOptions) -> Tensor:
    """What a draw sees: logits [..., K, V] -> renormalised probabilities float32, in token order."""
    if options.temperature < _COLDEST:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    probs = torch.softmax(logits / options.temperature, dim=-1)
    if options.top_p > 0:
        return _nucleus(probs, options.top_p)
    if options.top_k > 0:
        return torch.cat([_top_k(probs[..., :1, :], options.top_k), _top_k(probs[..., 1:, :], 1)], dim=-2)
    return probs


def draw(probs: Tensor, generator: torch.Generator | None) -> Tensor:
    """One id per stream from probs [K, V] -> [K] int64.

    The noise is made on the CPU, so that every device draws the same song from the same seed. The largest
    p / e with e from Exp(1) is a multinomial draw.
    """
    noise = torch.empty(probs.shape).exponential_(generator=generator)
    return (probs / noise.to(probs.device)).argmax(-1)


def _top_k(probs: Tensor, k: int) -> Tensor:
    """Keep everything not below the k-th largest entry; ties at the threshold all stay."""
    largest = probs.topk(min(k, probs.shape[-1]), dim=-1, sorted=False).values
    threshold = largest.amin(-1, keepdim=True)
    kept = torch.where(probs >= threshold, probs, 0.0)
    return kept / kept.sum(-1, keepdim=True)


def _nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Keep an entry when the sum of all larger ones is at most `top_p`."""
    ordered, order = probs.sort(dim=-1, descending=True)
    kept = torch.where(ordered.cumsum(-1) - ordered <= top_p, ordered, 0.0)
    kept = kept / kept.sum(-1, keepdim=True)
    return torch.zeros_like(probs).scatter_(-1, order, kept)
