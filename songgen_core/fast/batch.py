"""Several growing songs on the device: drawing and writing a column without asking the host.

Letters: B songs, R rows (all songs, then their unconditional twins), K streams, S columns, V logits.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..configs import LeLMConfig
from ..generation.delay import delay_mask, num_columns
from ..generation.sampling import SamplingOptions, guide, penalize_repetition, probabilities
from ..generation.songs import SongTask


class SongBatch:
    """The rules of `DelayedStreams` and `next_logits` for B songs at once."""

    def __init__(
        self, tasks: Sequence[SongTask], config: LeLMConfig, options: SamplingOptions, device: torch.device
    ) -> None:
        self.config, self.options = config, options
        size, streams = len(tasks), config.num_codebooks
        columns = num_columns(max(task.num_frames for task in tasks), config.delays)
        self.sequence = torch.full((size, streams, columns), config.special_id, device=device)
        mask = torch.zeros(size, streams, columns, dtype=torch.bool)
        for row, task in zip(mask, tasks):
            own = delay_mask(task.num_frames, config.delays)
            row[:, : own.shape[1]] = own
        self.mask = mask.to(device)  # where a column holds a code
        self.ended = torch.zeros(size, streams, dtype=torch.bool, device=device)
        self.overflowed = torch.zeros(size, dtype=torch.bool, device=device)
        self.banned = _ban_mask(tasks, config, device)
        self.written = torch.zeros(1, dtype=torch.int64, device=device)  # columns after the start column
        window = max(0, min(options.repetition_window, columns))
        self._recent = torch.arange(1 - window, 1, device=device)  # relative to the last written column

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        return (*self.ended.shape, self.config.eos_id + 1)

    @property
    def draws(self) -> bool:
        """Whether chance plays a part."""
        return self.options.temperature > 0

    def columns(self) -> Tensor:
        """The last written column of every row, [R, K]."""
        last = self.sequence.index_select(2, self.written).squeeze(2)
        return torch.cat([last, last])

    def write(self, logits: Tensor, noise: Tensor | None) -> None:
        """Draw the next column from raw logits [R, K, V]; noise [B, K, V] from Exp(1) where chance plays."""
        cond, uncond = logits.chunk(2)
        final = guide(cond, uncond, self.options.cfg_scale)  # (B, K, V)
        if len(self._recent):
            final = penalize_repetition(final, self._recently_written())
        if self.banned is not None:
            final = final.masked_fill(self.banned, -torch.inf)
        self.overflowed |= final.isnan().flatten(1).any(1)
        probs = probabilities(final, self.options)
        tokens = (probs if noise is None else probs / noise).argmax(-1)  # (B, K)
        column = self.written + 1
        silent = ~self.mask.index_select(2, column).squeeze(2) | self.ended
        tokens = tokens.masked_fill(silent, self.config.special_id)
        self.sequence.index_copy_(2, column, tokens.unsqueeze(2))
        self.ended |= tokens == self.config.eos_id
        self.written += 1

    def _recently_written(self) -> Tensor:
        """[B, K, window], the special id in place of what was not written yet."""
        places = self.written + self._recent  # the start column, 0, does not count
        recent = self.sequence.index_select(2, places.clamp(min=0))
        return recent.masked_fill(places < 1, self.config.special_id)


def draw_noise(generators: Sequence[torch.Generator], shape: tuple[int, int]) -> Tensor:
    """[B, K, V] from Exp(1), each song's from its own generator, as `sampling.draw` takes it."""
    out = torch.empty(len(generators), *shape)
    for row, generator in zip(out, generators):
        row.exponential_(generator=generator)
    return out


def _ban_mask(tasks: Sequence[SongTask], config: LeLMConfig, device: torch.device) -> Tensor | None:
    """True where a song must not use a code, [B, K, V]; None if all may use all."""
    if all(task.banned is None for task in tasks):
        return None
    mask = torch.zeros(len(tasks), config.num_codebooks, config.eos_id + 1, dtype=torch.bool)
    for row, task in zip(mask, tasks):
        if task.banned is not None:
            row[0, task.banned] = True
    return mask.to(device)
