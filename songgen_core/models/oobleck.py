"""The Oobleck waveform VAE: 48 kHz stereo to 64 latent channels at 25 Hz and back, in float32.

Layer names are those of stable-audio-tools' checkpoints; weight norm is folded by the loader.
Letters: B batch, C channels, N samples, T latent frames.
"""

from math import ceil

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ..configs import OobleckConfig
from ..layers.snake import SnakeBeta


class ResidualUnit(nn.Module):
    """x + conv1(snake(conv7(snake(x)))), same length."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            SnakeBeta(channels),
            nn.Conv1d(channels, channels, kernel_size=7, dilation=dilation, padding=3 * dilation),
            SnakeBeta(channels),
            nn.Conv1d(channels, channels, kernel_size=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def residual_units(channels: int) -> list[nn.Module]:
    return [ResidualUnit(channels, dilation) for dilation in (1, 3, 9)]


class EncoderBlock(nn.Module):
    """Residual units, then a strided convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        down = nn.Conv1d(in_channels, out_channels, 2 * stride, stride=stride, padding=ceil(stride / 2))
        self.layers = nn.Sequential(*residual_units(in_channels), SnakeBeta(in_channels), down)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class DecoderBlock(nn.Module):
    """A transposed convolution, then residual units."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        up = nn.ConvTranspose1d(
            in_channels, out_channels, 2 * stride, stride=stride, padding=ceil(stride / 2)
        )
        self.layers = nn.Sequential(SnakeBeta(in_channels), up, *residual_units(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def stage_widths(config: OobleckConfig) -> list[int]:
    """Channels before the first and after each strided stage."""
    return [m * config.channels for m in (1, *config.c_mults)]


class OobleckEncoder(nn.Module):
    """Audio [B, C, N] -> moments [B, 2 * latent_dim, T]: mean, then the raw scale."""

    def __init__(self, config: OobleckConfig) -> None:
        super().__init__()
        widths = stage_widths(config)
        blocks = [EncoderBlock(*sizes) for sizes in zip(widths, widths[1:], config.strides)]
        self.layers = nn.Sequential(
            nn.Conv1d(config.audio_channels, widths[0], kernel_size=7, padding=3),
            *blocks,
            SnakeBeta(widths[-1]),
            nn.Conv1d(widths[-1], 2 * config.latent_dim, kernel_size=3, padding=1),
        )

    def forward(self, audio: Tensor) -> Tensor:
        return self.layers(audio)


class OobleckDecoder(nn.Module):
    """Latents [B, latent_dim, T] -> audio [B, C, T * hop_length], unbounded: real songs exceed 1.0."""

    def __init__(self, config: OobleckConfig) -> None:
        super().__init__()
        widths = stage_widths(config)[::-1]
        blocks = [DecoderBlock(*sizes) for sizes in zip(widths, widths[1:], config.strides[::-1])]
        self.layers = nn.Sequential(
            nn.Conv1d(config.latent_dim, widths[0], kernel_size=7, padding=3),
            *blocks,
            SnakeBeta(widths[-1]),
            nn.Conv1d(widths[-1], config.audio_channels, kernel_size=7, padding=3, bias=False),
        )

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents)


def encoded_frames(num_samples: int, config: OobleckConfig) -> int:
    """Latent frames of `num_samples` of audio: with even strides num_samples // hop_length."""
    for stride in config.strides:
        num_samples = (num_samples + 2 * ceil(stride / 2) - 2 * stride) // stride + 1
    return num_samples


class OobleckVAE(nn.Module):
    """Encoder and decoder; either half may be absent (rendering needs the decoder alone)."""

    def __init__(
        self, config: OobleckConfig, *, with_encoder: bool = True, with_decoder: bool = True
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = OobleckEncoder(config) if with_encoder else None
        self.decoder = OobleckDecoder(config) if with_decoder else None

    def encode(self, audio: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sample latents [B, latent_dim, floor(N / hop_length)] of audio [B, C, N] float32.

        One standard normal draw of the latents' shape, made on the CPU from `generator` so that every
        device hears the same prompt. Raises ValueError on less than one frame of audio.
        """
        mean, stdev = self.encode_distribution(audio)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        return mean + stdev * noise.to(mean.device)

    def encode_distribution(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, each [B, latent_dim, T]."""
        assert self.encoder is not None, "this VAE was loaded without its encoder"
        if encoded_frames(audio.shape[-1], self.config) < 1:
            raise ValueError(
                f"audio of {audio.shape[-1]} samples; the VAE needs {self.config.hop_length} or more"
            )
        mean, scale = self.encoder(audio).chunk(2, dim=1)
        return mean, softplus(scale) + 1e-4

    def decode(self, latents: Tensor) -> Tensor:
        """Audio [B, C, T * hop_length] of latents [B, latent_dim, T] float32, not clipped."""
        assert self.decoder is not None, "this VAE was loaded without its decoder"
        return self.decoder(latents)
