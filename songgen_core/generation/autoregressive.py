"""The decoding loop: prefix in, one column of codes per step out (LeVo spec 7.2).

Letters: K streams, S columns, V logits per stream. Row 0 is conditional, row 1 its unconditional twin.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..errors import UserError
from ..models.lelm import Conditions, LeLM, LMCache
from .delay import DelayedStreams
from .sampling import SamplingOptions, ban, draw, guide, penalize_repetition, probabilities

Draw = Callable[[Tensor], Tensor]


def prefill(lm: LeLM, conditions: Conditions, column: Tensor, cache: LMCache) -> Tensor:
    """Run the prefix and the start column [K]; logits [2, K, V] of the next column."""
    return lm(_both_rows(column), cache, lm.conditioner(conditions))[:, :, -1]


def decode_one_frame(lm: LeLM, column: Tensor, cache: LMCache) -> Tensor:
    """Run one column [K] behind the cache; logits [2, K, V] of the next column."""
    return lm(_both_rows(column), cache)[:, :, -1]


def _both_rows(column: Tensor) -> Tensor:
    return column.expand(2, -1)[..., None]  # (2, K, 1)


def next_logits(
    logits: Tensor, streams: DelayedStreams, options: SamplingOptions, banned: Tensor | None
) -> Tensor:
    """Raw logits [2, K, V] -> guided, penalised and banned logits [K, V] float32."""
    final = guide(logits[0], logits[1], options.cfg_scale)
    if options.repetition_window and streams.written:
        final = penalize_repetition(final, streams.recent(options.repetition_window))
    return ban(final, banned)


@torch.inference_mode()
def generate(
    lm: LeLM,
    conditions: Conditions,
    num_frames: int,
    options: SamplingOptions,
    *,
    banned: Tensor | None = None,
    dtype: torch.dtype,
    device: torch.device,
    generator: torch.Generator | None = None,
    draw_codes: Draw | None = None,
    decode_step: Callable[[LeLM, Tensor, LMCache], Tensor] = decode_one_frame,
) -> Iterator[DelayedStreams]:
    """Write a song of at most `num_frames` frames; yields the growing streams after every column.

    `conditions` hold two rows (conditional, unconditional). Stops as soon as all frames before the
    earliest EOS are complete. `banned` [n] are codes that stream 0 must not use. `draw_codes` replaces the
    random draw (probabilities [K, V] -> ids [K]); `decode_step` replaces the network step.
    """
    config = lm.config
    streams = DelayedStreams(num_frames, config.delays, config.eos_id, config.special_id)
    cache = lm.make_cache(2, config.max_seq_len(num_frames), dtype, device)
    draw_codes = draw_codes or (lambda probs: draw(probs, generator))
    logits = prefill(lm, conditions.to(device), streams.sequence[:, 0].to(device), cache)
    while True:
        final = next_logits(logits, streams, options, banned)
        if final.isnan().any():
            raise UserError(f"the model overflowed in {dtype}; choose bfloat16 or float32")
        column = streams.write(draw_codes(probabilities(final, options)))
        yield streams
        if streams.done:
            return
        logits = decode_step(lm, column.to(device), cache)
