"""The flow renderer: codes of vocal and accompaniment to VAE latents, by conditional flow matching.

A third of the pieces has one track alone, the other's codes being silence, as stems are rendered. Some have
known frames in front, as windows of a song and prompts do.

Letters: B batch, N frames of a window, C latent channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from songgen_core.atomic import complete_or_nothing
from songgen_core.configs import RendererConfig
from songgen_core.layers.latent_norm import TRAINED_COUNT
from songgen_core.models.flow_renderer import FlowRenderer
from songgen_core.models.oobleck import OobleckVAE

from .factors import bgm_labels, label_tables, share_labels, vocal_labels
from .loop import Loss, Measure
from .takes import Take

PERIOD = 10  # frames after which a held note repeats
_JOINT = "+"
_TRACKS = (("vocal", "bgm"), ("vocal", "bgm"), ("vocal",), ("bgm",))


@dataclass(frozen=True, eq=False)
class Latents:
    """A song as the renderer sees it: codes [2, T] int64, and latents [T, C] of mix, vocal and bgm."""

    codes: Tensor
    latents: dict[tuple[str, ...], Tensor]


@torch.inference_mode()
def encode_takes(vae: OobleckVAE, takes: Sequence[Take]) -> list[Latents]:
    """Latents' means of all takes, tracks together and alone. In bfloat16: their errors are at -45 dB."""
    songs = []
    for take in tqdm(takes, desc="latents", mininterval=2):
        latents = {}
        for tracks in dict.fromkeys(_TRACKS):
            with torch.autocast("cpu", torch.bfloat16):
                mean, _ = vae.encode_distribution(take.sound(0, take.num_frames, tracks)[None])
            latents[tracks] = mean[0].float().T.clone()
        songs.append(Latents(torch.from_numpy(take.score.codes[1:]), latents))
    return songs


def save_latents(path: Path, songs: Sequence[Latents], key: str) -> None:
    """`key` tells what they were made from."""
    rows = [{"codes": s.codes, **{_JOINT.join(k): t for k, t in s.latents.items()}} for s in songs]
    with complete_or_nothing(path) as temporary:
        torch.save({"key": key, "songs": rows}, temporary)


def read_latents(path: Path, key: str) -> list[Latents] | None:
    """None if there are none of that key."""
    if not path.exists() or (state := torch.load(path, weights_only=True))["key"] != key:
        return None
    return [
        Latents(row.pop("codes"), {tuple(name.split(_JOINT)): t for name, t in row.items()})
        for row in state["songs"]
    ]


def make_renderer(config: RendererConfig, songs: Sequence[Latents], seed: int = 0) -> FlowRenderer:
    """A new renderer that knows the spread of the latents, and that sounds repeat every 10 frames."""
    torch.manual_seed(seed)
    renderer = FlowRenderer(config)
    for module in renderer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for block in renderer.estimator.h:
        for name in ("scale_shift_table", "attn.c_proj", "mlp.c_proj"):
            nn.init.normal_(block.get_parameter(f"{name}.weight"), std=0.02)
    nn.init.normal_(renderer.estimator.scale_shift_table.weight, std=0.02)
    nn.init.zeros_(renderer.estimator.time.linear.weight)
    with torch.no_grad():  # gates of 1 at the start: every block takes part
        renderer.estimator.time.linear.bias.unflatten(0, (6, -1))[[2, 5]] = 1
    nn.init.zeros_(renderer.estimator.proj_out.weight)
    share_labels(
        renderer.estimator.wpe,
        (np.arange(config.window_frames) % PERIOD)[:, None],
        label_tables([PERIOD], config.hidden_size),
    )
    for codebook, (labels, counts) in (
        (renderer.vocal_codebook, vocal_labels()),
        (renderer.bgm_codebook, bgm_labels()),
    ):
        tables = label_tables(counts, config.codebook_dim)
        for table in tables:
            nn.init.normal_(table.weight[1:])
        share_labels(codebook.codebook, labels, tables)
    frames = torch.cat([latents for song in songs for latents in song.latents.values()])
    norm = renderer.latent_norm
    norm.counts.fill_(TRAINED_COUNT)
    norm.sum_x.copy_(frames.mean(0) * TRAINED_COUNT)
    norm.sum_x2.copy_(frames.square().mean(0) * TRAINED_COUNT)
    return renderer


def renderer_loss(
    renderer: FlowRenderer, songs: Sequence[Latents], size: int, frames: int, drop: float = 0.1
) -> Loss:
    """Squared error of the velocity in windows of at most `frames`; conditions are dropped at times."""

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        codes, clean = window_batch(renderer, songs, size, frames, rng)
        condition = renderer.condition(*codes.unbind(1))
        dropped = torch.from_numpy(rng.random(size) < drop)
        condition = condition.masked_fill(dropped[:, None, None], 0)
        with torch.autocast("cpu", torch.bfloat16):
            return flow_error(renderer, clean, condition, rng), {}

    return loss


def flow_error(renderer: FlowRenderer, clean: Tensor, condition: Tensor, rng: np.random.Generator) -> Tensor:
    """Mean squared error of the velocity towards `clean` [B, N, C] (normalised), at random flow times.

    Early times are drawn more often: there the sound comes from the codes alone. Close to the end the error
    is that of the noise, which no longer matters.
    """
    noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
    t = torch.from_numpy(rng.random(len(clean), np.float32) ** 2)
    known = int(rng.integers(1, clean.shape[1] // 2)) if rng.random() < 0.4 else 0
    context = torch.cat([clean[:, :known], torch.zeros_like(clean[:, known:])], dim=1)
    keep = 1 - renderer.config.sigma_min
    state = (1 - keep * t[:, None, None]) * noise + t[:, None, None] * clean
    velocity = renderer.velocity(state, t, condition, context, known)
    return (velocity.float() - (clean - keep * noise))[:, known:].square().mean()


def window_batch(
    renderer: FlowRenderer, songs: Sequence[Latents], size: int, frames: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Codes [B, 2, N] and normalised latents [B, N, C] of pieces that begin where the period does."""
    silent = renderer.config.silent_vocal_code, renderer.config.silent_bgm_code
    codes, latents = [], []
    for number in range(size):
        song = songs[int(rng.integers(len(songs)))]
        tracks = _TRACKS[number % len(_TRACKS)]
        start = int(rng.integers(max(0, song.codes.shape[-1] - frames) // PERIOD + 1)) * PERIOD
        piece = song.codes[:, start : start + frames].clone()
        for row, track in enumerate(("vocal", "bgm")):
            if track not in tracks:
                piece[row] = silent[row]
        codes.append(piece)
        latents.append(song.latents[tracks][start : start + frames])
    shortest = min(piece.shape[-1] for piece in codes)
    clean = torch.stack([part[:shortest] for part in latents])
    normalised = renderer.latent_norm.normalize(clean.transpose(1, 2)).transpose(1, 2)
    return torch.stack([piece[:, :shortest] for piece in codes]), normalised


def renderer_measure(
    renderer: FlowRenderer, songs: Sequence[Latents], size: int, frames: int, seed: int = 1
) -> Measure:
    """On held-out songs: the error of the velocity, and of the latents after four steps from noise to sound,
    as a share of their energy."""

    def measure() -> dict[str, float]:
        rng = np.random.default_rng(seed)
        codes, clean = window_batch(renderer, songs, size, frames, rng)
        condition = renderer.condition(*codes.unbind(1))
        x = torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
        for step in range(4):
            t = torch.full((len(x),), step / 4)
            x = x + renderer.velocity(x, t, condition, torch.zeros_like(x), 0) / 4
        error = (x - clean).square().mean() / clean.square().mean()
        return {
            "velocity": flow_error(renderer, clean, condition, np.random.default_rng(seed)).item(),
            "latents": error.item(),
        }

    return measure
