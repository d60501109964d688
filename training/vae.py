"""The waveform VAE: begins as a linear codec of the corpus (`lapped.py`), then learns what no linear one can.

Letters: B batch, C channels, N samples.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from songgen_core.configs import OobleckConfig
from songgen_core.models.oobleck import OobleckVAE

from .lapped import start_linear
from .loop import Loss, Measure
from .takes import HOP, Take, crop

FFT_SIZES = (256, 512, 1024, 2048)
_FLOOR = 1e-3  # magnitudes below it are silence
TRACKS = (("vocal", "bgm"), ("vocal", "bgm"), ("vocal",), ("bgm",))  # what a piece holds, by turns


def make_vae(config: OobleckConfig, takes: Sequence[Take], seed: int = 0) -> OobleckVAE:
    """A VAE that reads and writes the corpus as well as a linear codec of its size can."""
    torch.manual_seed(seed)
    vae = OobleckVAE(config)
    start_linear(vae, (take.sound(0, take.num_frames) for take in takes))
    return vae


def spectral_distance(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean over several resolutions of the distances of magnitudes and of their logarithms; [B, C, N]."""
    total = made.new_zeros(())
    for size in FFT_SIZES:
        window = torch.hann_window(size)
        a, b = (
            torch.stft(x.flatten(0, 1), size, size // 4, window=window, return_complex=True)
            .abs()
            .div(window.square().sum().sqrt())
            for x in (made, wanted)
        )
        convergence = (a - b).norm(dim=(1, 2)) / b.norm(dim=(1, 2)).clamp(min=_FLOOR * b[0].numel() ** 0.5)
        total = total + convergence.mean() + l1_loss((a + _FLOOR).log(), (b + _FLOOR).log())
    return total / len(FFT_SIZES)


def pieces(takes: Sequence[Take], count: int, frames: int, rng: np.random.Generator) -> Tensor:
    """Pieces of mixes, voices and accompaniments, [B, 2, N] float32."""
    rows = []
    for number in range(count):
        take = takes[int(rng.integers(len(takes)))]
        start = crop(take, frames, rng)
        rows.append(take.sound(start, start + frames, TRACKS[number % len(TRACKS)]))
    return torch.stack(rows)


def vae_loss(vae: OobleckVAE, takes: Sequence[Take], size: int, frames: int) -> Loss:
    """Spectral distance and the error of the wave itself, of reconstructions from the latents' means."""

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        wanted = pieces(takes, size, frames, rng)
        mean, _ = vae.encode_distribution(wanted)
        made = vae.decode(mean)
        spectral = spectral_distance(made, wanted)
        wave = l1_loss(made, wanted) / wanted.abs().mean()
        return spectral + wave, {"spectral": spectral.item(), "wave": wave.item()}

    return loss


def vae_measure(vae: OobleckVAE, takes: Sequence[Take], frames: int = 125, seed: int = 1) -> Measure:
    """On held-out songs: spectral distance and signal-to-noise ratio in dB, of mixes, voices, bands."""
    frames = min(frames, *(take.num_frames for take in takes))

    def measure() -> dict[str, float]:
        figures = {}
        for name, tracks in (("mix", ("vocal", "bgm")), ("vocal", ("vocal",)), ("bgm", ("bgm",))):
            rng = np.random.default_rng(seed)
            starts = [(take, crop(take, frames, rng)) for take in takes]
            wanted = torch.stack([t.sound(s, s + frames, tracks) for t, s in starts])
            made = vae.decode(vae.encode_distribution(wanted)[0])
            inner = slice(HOP, -HOP)  # edges lack what lies outside the piece
            noise = (made - wanted)[..., inner].square().mean((1, 2))
            ratio = wanted[..., inner].square().mean((1, 2)) / noise.clamp(min=1e-12)
            figures[f"{name}_snr"] = 10 * ratio.clamp(min=1e-6).log10().mean().item()
            figures[f"{name}_spectral"] = spectral_distance(made, wanted).item()
        return figures

    return measure
