"""A seeded random model of tiny size: the whole path on any machine in seconds. Its output is noise."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from .configs import VARIANTS, CodecEncoderConfig, OobleckConfig, RendererConfig
from .layers.resample import sinc_kernel
from .layers.rope import rope_frequencies
from .models.codec_encoder import CodecEncoder
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
ENCODER_CONFIG = CodecEncoderConfig(
    hidden_size=32,
    num_attention_heads=2,
    intermediate_size=64,
    subsampling_channels=8,
    num_mel_bins=32,
    codebook_dim=8,
)
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
    assert vae.decoder is not None
    last = list(vae.decoder.parameters())[-1]
    sample = vae.decode(torch.randn(1, VAE_CONFIG.latent_dim, 8, generator=generator))
    last.mul_(_LEVEL / sample.std())
    return lm, load_tokenizers(QWEN2_FOLDER, LM_CONFIG.text_version), renderer, vae


def selftest_encoders(seed: int = 0) -> tuple[CodecEncoder, CodecEncoder, OobleckVAE]:
    """Mixed and two-track codec encoder and VAE encoder to go with `selftest_networks`."""
    generator = torch.Generator().manual_seed(seed)
    mixed, dual = (
        _random(CodecEncoder, replace(ENCODER_CONFIG, taps=taps), generator) for taps in ((6,), (7, 3))
    )
    steps = torch.randn(1, 2, 40, generator=generator).repeat_interleave(4800, dim=-1)
    sample = _LEVEL * steps * torch.randn(1, 2, 40 * 4800, generator=generator)  # noise of changing loudness
    for encoder in (mixed, dual):
        _tune(encoder, sample)
    vae = _random(partial(OobleckVAE, with_decoder=False), VAE_CONFIG, generator)
    mean, _ = vae.encode_distribution(sample)
    for parameter in list(vae.encoder.layers[-1].parameters()):  # type: ignore[union-attr]
        parameter.div_(mean.std())
    return mixed, dual, vae


def _tune(encoder: CodecEncoder, sample: Tensor) -> None:
    """Set what is no weight, and centre what is quantised, so that different sounds get different codes."""
    config = encoder.config
    encoder.resampling_kernel.copy_(sinc_kernel(2, 1))
    encoder.mel.window.copy_(torch.hann_window(config.n_fft))
    bands = torch.eye(config.num_mel_bins).repeat_interleave(config.n_fft // 2 // config.num_mel_bins, dim=0)
    encoder.mel.filters.zero_()
    encoder.mel.filters[: len(bands)] = bands
    encoder.conformer.inv_freq.copy_(rope_frequencies(config.head_dim, 10000.0))
    for quantizer, tap in zip(encoder.quantizers, config.taps):
        heard = encoder.features(encoder.downsample(sample), tap)
        quantizer.in_proj.bias.copy_(-quantizer.in_proj(heard).mean((0, 1)))  # type: ignore[union-attr, operator]


def selftest_presets(genres: Sequence[str], seed: int = 0) -> dict[str, dict[str, tuple[Tensor, ...]]]:
    """Random stored prompts: genre -> language -> prompts [1, 3, T] int64."""
    generator = torch.Generator().manual_seed(seed)
    shape = 1, LM_CONFIG.num_codebooks, LM_CONFIG.prompt_frames

    def prompts() -> tuple[Tensor, ...]:
        return tuple(torch.randint(LM_CONFIG.codebook_size, shape, generator=generator) for _ in range(2))

    return {genre: {language: prompts() for language in ("zh", "en")} for genre in genres}


def _random(make: Callable[[Config], Network], config: Config, generator: torch.Generator) -> Network:
    """Weights that keep activations of order 1; draws nothing from the global generator."""
    with torch.device("meta"):
        network = make(config)
    state = {name: _fill(name, t.shape, generator) for name, t in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _fill(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Matrices and tables random, norms and variances one, all else (biases, snakes, statistics) zero."""
    if len(shape) > 1:
        return torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
    return torch.ones(shape) if name.endswith((".weight", "running_var")) else torch.zeros(shape)
