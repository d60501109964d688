"""The linear codec with which the VAE begins."""

import math

import pytest
import torch
from torch import Tensor

from songgen_core.configs import OobleckConfig
from songgen_core.models.oobleck import OobleckVAE
from training.lapped import mdct, start_linear

CONFIG = OobleckConfig(channels=4, c_mults=(1, 4, 16, 16, 32), latent_dim=96)
RATE, HOP = 48000, 1920


def tones(*frequencies: float, seconds: float = 1.0) -> Tensor:
    """Stereo [2, N]: left and right differ in loudness."""
    time = torch.arange(int(seconds * RATE)) / RATE
    sound = sum(torch.sin(2 * math.pi * f * time) for f in frequencies) / len(frequencies)
    return 0.5 * torch.stack([sound, 0.6 * sound])


def snr(made: Tensor, wanted: Tensor) -> float:
    inner = slice(2 * HOP, -2 * HOP)
    noise = (made - wanted)[..., inner].square().mean()
    return 10 * math.log10(wanted[..., inner].square().mean() / noise)


@pytest.fixture(scope="module")
def vae() -> OobleckVAE:
    torch.manual_seed(0)
    vae = OobleckVAE(CONFIG)
    start_linear(vae, [tones(200, 330), tones(440, 560, 1200), tones(1000)])
    return vae.eval().requires_grad_(False)


@pytest.mark.parametrize("bins", [10, 192])
def test_transform_is_undone_by_itself(bins: int) -> None:
    windows = mdct(bins)[:, None]
    sound = torch.randn(1, 1, 20 * bins, generator=torch.Generator().manual_seed(0))
    spectrum = torch.nn.functional.conv1d(sound, windows, stride=bins)
    again = torch.nn.functional.conv_transpose1d(spectrum, windows, stride=bins)
    assert torch.allclose(again[..., bins:-bins], sound[..., bins:-bins], atol=1e-5)


@pytest.mark.parametrize("frequencies", [(200.0, 330.0), (440.0, 560.0, 1200.0), (1000.0,)])
def test_tones_of_the_corpus_come_back(vae: OobleckVAE, frequencies: tuple[float, ...]) -> None:
    sound = tones(*frequencies)[None]
    mean, deviation = vae.encode_distribution(sound)
    assert mean.shape == (1, CONFIG.latent_dim, 25)
    assert deviation.max() < 2e-3
    assert snr(vae.decode(mean), sound) > 30


def test_other_sounds_do_not(vae: OobleckVAE) -> None:
    """The widest layer keeps the corpus alone, which is what makes the codec small."""
    sound = tones(7000)[None]
    assert snr(vae.decode(vae.encode_distribution(sound)[0]), sound) < 10


def test_shares_of_the_energy_grow_to_one() -> None:
    shares = start_linear(OobleckVAE(CONFIG), [tones(200, 330)])
    assert shares.shape == (128,) and (shares.diff() > -1e-6).all()
    assert shares[0] < 0.9 and shares[-1] == pytest.approx(1, abs=1e-3)
