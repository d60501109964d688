"""An Oobleck VAE that begins as a linear codec: two lapped transforms and the corpus' principal components.

Strides 2, 4 and 4 only sort samples into channels (nothing is lost), stride 6 is a lapped cosine transform
(an MDCT) of 384 samples, stride 10 another one along time in each of its bands, and of the numbers that a
frame then has (1280 in the mini model), the widest layer keeps those that carry the corpus best. Every stage
is orthonormal, so that the decoder is the encoder read backwards. Residual units begin as identities, and
activations next to one.

Letters: C channels, D latent channels, M bins of a transform, N samples, T frames.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from songgen_core.layers.snake import SnakeBeta
from songgen_core.models.oobleck import DecoderBlock, EncoderBlock, OobleckVAE, ResidualUnit

MID_SHARE = 0.75  # of the bands go to the sum of left and right, the rest to their difference
_LOG_STDEV = -7.0  # softplus of it is the noise of a latent: none to speak of
_QUIET_ALPHA, _QUIET_BETA = -2.0, 4.0  # a snake that changes values of order 1 by less than a thousandth


def mdct(bins: int) -> Tensor:
    """Analysis windows of the lapped cosine transform, [M, 2 M] float32; its own inverse, overlapped."""
    n, k = (torch.arange(count, dtype=torch.float64) + 0.5 for count in (2 * bins, bins))
    window = torch.sin(math.pi * n / (2 * bins))
    waves = torch.cos(math.pi / bins * (n + bins / 2) * k[:, None])
    return (window * math.sqrt(2 / bins) * waves).float()


@torch.no_grad()
def start_linear(vae: OobleckVAE, songs: Iterable[Tensor]) -> Tensor:
    """Set the weights of `vae` from the corpus `songs` (stereo [2, N] each).

    Returns the share of the weighted energy that the first d components carry, [widest layer].
    """
    encoder, decoder, config = vae.encoder, vae.decoder, vae.config
    assert encoder is not None and decoder is not None
    for module in vae.modules():
        if isinstance(module, ResidualUnit):
            for parameter in module.layers[-1].parameters():
                nn.init.zeros_(parameter)
    downs: list[Any] = [block.layers[-1] for block in encoder.layers if isinstance(block, EncoderBlock)]
    ups: list[Any] = [block.layers[1] for block in decoder.layers if isinstance(block, DecoderBlock)]
    for snake in _path_snakes(vae):
        nn.init.constant_(snake.alpha, _QUIET_ALPHA)
        nn.init.constant_(snake.beta, _QUIET_BETA)
    outermost: tuple[Any, ...] = encoder.layers[0], encoder.layers[-1], decoder.layers[0], decoder.layers[-1]
    first, inner, outer, last = outermost  # the way of a sound
    for layer in (*outermost, *downs, *ups):
        layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()

    middle = first.weight.shape[-1] // 2
    half = math.sqrt(0.5)
    for row, (left, right) in enumerate(((half, half), (half, -half))):
        first.weight[row, 0, middle], first.weight[row, 1, middle] = left, right
        last.weight[0, row, middle], last.weight[1, row, middle] = left, right
    block = 1  # samples that one position of the last sorting stage holds
    for down, stride in zip(downs[:-2], config.strides):
        _sort(down.weight, 2 * block, stride)
        block *= stride
    bands, stride = downs[-2].out_channels, config.strides[-2]
    _bands(downs[-2].weight, block, config.strides[:-2], stride, int(MID_SHARE * bands))
    components, weights, shares = _principal(vae, downs, songs, config.strides[-1])
    windows = mdct(config.strides[-1])  # (M, 2 M)
    bands = components.shape[1] // len(windows)
    analysis, synthesis = components * weights, components / weights
    for kernel, rows in ((downs[-1].weight, analysis), (ups[0].weight, synthesis)):
        kernel.copy_(torch.einsum("kbm,mt->kbt", rows.unflatten(1, (bands, len(windows))), windows))
    for up, down in zip(ups[1:], downs[-2::-1]):
        up.weight.copy_(down.weight)
    for k in range(config.latent_dim):
        inner.weight[k, k, 1] = 1
        outer.weight[k, k, outer.kernel_size[0] // 2] = 1
    nn.init.constant_(inner.bias[config.latent_dim :], _LOG_STDEV)
    return shares


def _path_snakes(vae: OobleckVAE) -> list[SnakeBeta]:
    """Activations that lie on the way itself, not in a residual branch."""
    inside = {m for unit in vae.modules() if isinstance(unit, ResidualUnit) for m in unit.modules()}
    return [m for m in vae.modules() if isinstance(m, SnakeBeta) and m not in inside]


def _sort(weight: Tensor, channels: int, stride: int) -> None:
    """Strided convolution [out, in, 2 stride] that lays `stride` neighbours of each channel side by side."""
    for channel in range(channels):
        for offset in range(stride):
            weight[channel * stride + offset, channel, stride // 2 + offset] = 1


def _bands(weight: Tensor, block: int, strides: tuple[int, ...], stride: int, mid: int) -> None:
    """The lapped transform over `stride` blocks of sorted samples; `mid` bands of the sum, the rest of the
    difference."""
    windows = mdct(block * stride)  # (M, 2 M)
    place = torch.zeros(block, dtype=torch.long)  # channel of each sample within a block
    for sample in range(block):
        rest, index, scale = sample, 0, 1
        for s in strides:
            index, rest, scale = index * s + rest % s, rest // s, scale * s
        place[sample] = index
    for band in range(weight.shape[0]):
        side = int(band >= mid)
        window = windows[band - mid * side].reshape(2 * stride, block)  # (taps, samples of a block)
        weight[band, side * block + place] = window.T


def _principal(
    vae: OobleckVAE, downs: list[nn.Conv1d], songs: Iterable[Tensor], hop: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the corpus' principal components, [widest layer, bands * hop], the weights of the numbers they
    mix, and the share of the energy that the first d rows carry."""
    assert vae.encoder is not None
    windows, bands = mdct(hop), downs[-1].in_channels
    covariance, energy = torch.zeros(bands * hop, bands * hop, dtype=torch.float64), 0.0
    lapped = windows[:, None].repeat(bands, 1, 1)  # (bands * hop, 1, 2 hop)
    for song in songs:
        x = vae.encoder.layers[0](song[None])
        for down in downs[:-1]:
            x = down(x)
        numbers = nn.functional.conv1d(x, lapped, stride=hop, padding=math.ceil(hop / 2), groups=bands)[0]
        covariance += (numbers @ numbers.T).double()
        energy += numbers.shape[-1]
    covariance /= energy
    spread = covariance.diagonal().unflatten(0, (bands, hop)).mean(1)  # energy of each band
    # Ears hear levels, not energies: bands count by the fourth root of what they hold.
    weights = (spread + 1e-4 * spread.mean()).pow(-0.25).repeat_interleave(hop)
    values, vectors = torch.linalg.eigh(weights[:, None] * covariance * weights)
    order = values.argsort(descending=True)[: downs[-1].out_channels]
    shares = values[order].cumsum(0) / values.sum()
    return vectors[:, order].T.float(), weights.float(), shares.float()
