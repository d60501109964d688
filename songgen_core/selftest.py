"""A seeded random model of tiny size: the whole path on any machine in seconds. Its output is noise."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from .configs import VARIANTS, OobleckConfig, RendererConfig
from .models.flow_renderer import FlowRenderer
from .models.lelm import LeLM
from .models.oobleck import OobleckVAE
from .text.bpe import QWEN2_FOLDER, TextTokenizers, load_tokenizers

SELFTEST = "selftest"
NOTICE = "the self-test model has random weights: what it makes is noise, not music"

LM_CONFIG = replace(
    VARIANTS["v2-medium"].lm,
    hidden_size=32,
    intermediate_size=64,
    num_attention_heads=2,
    num_hidden_layers=2,
    num_hidden_layers_sub=1,
)
RENDERER_CONFIG = RendererConfig(
    latent_dim=8,
    cond_dim=16,
    codebook_dim=8,
    mask_dim=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=96,
)
VAE_CONFIG = OobleckConfig(channels=4, latent_dim=8)
Network = TypeVar("Network", bound=nn.Module)
Config = TypeVar("Config")
_HEAD_GAIN = 6.0  # logits peaked enough that what the model reads shows in what it writes
_LEVEL = 0.1  # root mean square of the noise that comes out


def selftest_networks(seed: int = 0) -> tuple[LeLM, TextTokenizers, FlowRenderer, OobleckVAE]:
    """Networks in the published architecture with random weights from `seed`, float32 on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    lm = _random(LeLM, LM_CONFIG, generator)
    for weight in lm.heads.parameters():
        weight.mul_(_HEAD_GAIN)
        # A zero row keeps EOS at the median of the logits: the song runs to the length that was asked for.
        weight[LM_CONFIG.eos_id] = 0
    renderer = _random(FlowRenderer, RENDERER_CONFIG, generator)
    vae = _random(OobleckVAE, VAE_CONFIG, generator)
    last = list(vae.decoder.parameters())[-1]
    sample = vae.decode(torch.randn(1, VAE_CONFIG.latent_dim, 8, generator=generator))
    last.mul_(_LEVEL / sample.std())
    return lm, load_tokenizers(QWEN2_FOLDER, LM_CONFIG.text_version), renderer, vae


def _random(make: Callable[[Config], Network], config: Config, generator: torch.Generator) -> Network:
    """Weights that keep activations of order 1; draws nothing from the global generator."""
    with torch.device("meta"):
        network = make(config)
    state = {name: _fill(name, t.shape, generator) for name, t in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _fill(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Matrices and tables random, norms one, everything else (biases, snakes, statistics) zero."""
    if len(shape) > 1:
        return torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
    return torch.ones(shape) if name.endswith(".weight") else torch.zeros(shape)
