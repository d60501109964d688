"""Tiny networks with seeded random weights for tests."""

from dataclasses import replace

import torch

from songgen_core.configs import LeLMConfig, RendererConfig
from songgen_core.models.flow_renderer import FlowRenderer
from songgen_core.models.lelm import Conditions, LeLM

LM = LeLMConfig(
    hidden_size=16,
    intermediate_size=24,
    num_attention_heads=2,
    num_hidden_layers=2,
    num_hidden_layers_sub=2,
    rope_theta=100000.0,
    rope_theta_sub=500000.0,
    max_position_embeddings=256,
    max_position_embeddings_sub=256,
    lyrics_length=7,
    description_length=5,
    prompt_length=6,
    prompt_frames=4,
    max_duration=40,
    lyrics_vocab_size=30,
    description_vocab_size=30,
    text_version="v2",
    delays=(0, 3, 3),
    codebook_size=11,
)
RENDERER = RendererConfig(
    latent_dim=4,
    cond_dim=6,
    codebook_dim=3,
    codebook_size=50,
    mask_dim=4,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=20,
    window_frames=40,
    time_embedding_dim=16,
    silent_vocal_code=7,
    silent_bgm_code=9,
)


def tiny_lm(seed: int = 0, **changes) -> LeLM:
    torch.manual_seed(seed)
    lm = LeLM(replace(LM, **changes)).eval().requires_grad_(False)
    for head in lm.heads:
        head.weight.mul_(4)
    return lm


def random_conditions(lm: LeLM, seed: int = 0) -> Conditions:
    c, generator = lm.config, torch.Generator().manual_seed(seed)

    def ids(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=generator)

    return Conditions(
        ids(c.lyrics_vocab_size, 2, c.lyrics_length),
        ids(14, 2, c.lyrics_length),
        ids(c.description_vocab_size, 2, c.description_length),
        ids(c.codebook_size, 2, 3, c.prompt_length - 1),
    )


def tiny_renderer(seed: int = 0) -> FlowRenderer:
    torch.manual_seed(seed)
    renderer = FlowRenderer(RENDERER).eval().requires_grad_(False)
    norm = renderer.latent_norm
    norm.counts.fill_(200_000)
    norm.sum_x.normal_().mul_(100_000)
    norm.sum_x2.copy_(norm.sum_x.square() / 200_000 + 300_000)
    return renderer
