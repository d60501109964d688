"""The delay pattern: stream k at frame t lives in column 1 + t + delays[k].

Example, T = 3 frames, delays (0, 2, 2), `*` = special id:

    column     0   1   2   3   4   5
    stream 0   *   a0  a1  a2  *   *
    stream 1   *   *   *   b0  b1  b2
    stream 2   *   *   *   c0  c1  c2

Letters: B batch, K streams, T frames, S = T + max(delays) + 1 columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def num_columns(num_frames: int, delays: Sequence[int]) -> int:
    return num_frames + max(delays) + 1


def delay_mask(num_frames: int, delays: Sequence[int]) -> Tensor:
    """True where a column holds a code, [K, S] bool."""
    columns = torch.arange(num_columns(num_frames, delays))
    start = 1 + torch.tensor(delays)[:, None]  # (K, 1)
    return (columns >= start) & (columns < start + num_frames)


def apply_delay(codes: Tensor, delays: Sequence[int], special_id: int) -> Tensor:
    """codes [B, K, T] -> sequence [B, K, S] with `special_id` wherever no code lives."""
    mask = delay_mask(codes.shape[-1], delays).to(codes.device)
    sequence = codes.new_full((*codes.shape[:2], mask.shape[-1]), special_id)
    sequence[:, mask] = codes.flatten(1)
    return sequence


def undo_delay(sequence: Tensor, delays: Sequence[int]) -> Tensor:
    """sequence [B, K, S] -> codes [B, K, T]."""
    num_frames = sequence.shape[-1] - max(delays) - 1
    return torch.stack([sequence[:, k, 1 + d : 1 + d + num_frames] for k, d in enumerate(delays)], dim=1)


class DelayedStreams:
    """The columns of one song while it is being written (LeVo spec 7.2).

    A stream that wrote EOS gets `special_id` ever after. Columns never reached hold `special_id` too.
    """

    def __init__(self, num_frames: int, delays: Sequence[int], eos_id: int, special_id: int) -> None:
        self.num_frames, self.delays = num_frames, tuple(delays)
        self.eos_id, self.special_id = eos_id, special_id
        self.mask = delay_mask(num_frames, delays)
        self.sequence = torch.full(self.mask.shape, special_id)  # (K, S) int64
        self.ended = torch.zeros(len(self.delays), dtype=torch.bool)
        self.written = 0  # columns written after the start column
        self.eos_frame: int | None = None  # earliest frame of an EOS in any stream

    def write(self, tokens: Tensor) -> Tensor:
        """Write sampled `tokens` [K] into the next column; returns what was written after masking."""
        column = self.written + 1
        silent = ~self.mask[:, column] | self.ended
        tokens = torch.where(silent, self.special_id, tokens.cpu())
        self.sequence[:, column] = tokens
        self.ended |= tokens == self.eos_id
        for k in (tokens == self.eos_id).nonzero().flatten().tolist():
            frame = column - 1 - self.delays[k]
            self.eos_frame = frame if self.eos_frame is None else min(frame, self.eos_frame)
        self.written = column
        return tokens

    @property
    def length(self) -> int:
        """Frames that the finished song will have, as far as is known now."""
        return self.num_frames if self.eos_frame is None else self.eos_frame

    @property
    def done(self) -> bool:
        """True when every frame before the earliest EOS is complete in all streams.

        The reference runs on until all streams have ended; those columns are cut away afterwards.
        """
        return self.length == 0 or self.written >= self.length + max(self.delays)

    def recent(self, window: int) -> Tensor:
        """The last `window` written columns, [K, <= window]; the start column never counts."""
        return self.sequence[:, max(1, self.written + 1 - window) : self.written + 1]

    def codes(self) -> Tensor:
        """The song so far cut at the earliest EOS, [1, K, length] int64."""
        return undo_delay(self.sequence[None], self.delays)[..., : self.length]
