"""Per-channel statistics of the VAE latents, kept as running sums in the checkpoint."""

import torch
from torch import Tensor, nn

STATISTICS_FRAMES = 600  # frames of a latent that enter the sums
MIN_COUNT = 10  # below this the statistics mean nothing: identity
TRAINED_COUNT = 100_000  # the reference keeps updating below this count, even when rendering


class LatentNorm(nn.Module):
    """Normalises latents [B, C, T] per channel; rendering never changes the statistics.

    The reference calls `observe` before each normalisation while `counts` is below 100,000; trained
    checkpoints are past that. See NUMERICS.md.
    """

    counts: Tensor
    sum_x: Tensor
    sum_x2: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(1))
        self.register_buffer("sum_x", torch.zeros(channels))
        self.register_buffer("sum_x2", torch.zeros(channels))

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each [C] float32."""
        if self.counts.item() < MIN_COUNT:
            return torch.zeros_like(self.sum_x), torch.ones_like(self.sum_x)
        mean = self.sum_x / self.counts
        return mean, (self.sum_x2 / self.counts - mean.square()).clamp(min=0).sqrt()

    def normalize(self, latents: Tensor) -> Tensor:
        mean, std = (s.to(latents)[:, None] for s in self.statistics())  # (C, 1)
        return (latents - mean) * std.clamp(min=1e-12).reciprocal()

    def denormalize(self, latents: Tensor) -> Tensor:
        mean, std = (s.to(latents)[:, None] for s in self.statistics())
        return latents * std + mean

    def observe(self, latents: Tensor) -> None:
        """Add a training batch [B, C, T] to the statistics, unless enough was seen."""
        if self.counts.item() >= TRAINED_COUNT:
            return
        head = latents[..., :STATISTICS_FRAMES]
        self.counts += latents.shape[0]
        self.sum_x += head.mean(-1).sum(0)
        self.sum_x2 += head.square().mean(-1).sum(0)
