"""The files of a song model -> its networks."""

from pathlib import Path

import torch

from ..configs import LeLMConfig
from ..errors import CheckpointError
from ..models.flow_renderer import FlowRenderer
from ..models.lelm import LeLM
from ..models.oobleck import OobleckVAE
from ..text.bpe import QWEN2_FOLDER, TextTokenizers, load_tokenizers, read_vocab_size
from .files import tensor_shapes
from .keymaps import LM_PREFIX
from .layout import ModelFiles
from .lm_config import published_lm_config, read_lm_config
from .loader import load_lelm, load_renderer, load_vae


def load_networks(
    files: ModelFiles, dtype: torch.dtype
) -> tuple[LeLM, TextTokenizers, FlowRenderer, OobleckVAE]:
    """All networks on the CPU; language model and renderer matrices in `dtype`. Raises CheckpointError."""
    lm, tokenizers = load_language_model(files, dtype)
    # The renderer runs in float16 or float32: bfloat16 takes as much memory as float16 and is coarser.
    renderer_dtype = torch.float16 if dtype == torch.float16 else torch.float32
    renderer, vae = load_renderer(files.codec, renderer_dtype), load_vae(files.vae)
    if renderer.config.latent_dim != vae.config.latent_dim:
        raise CheckpointError(
            f"{files.codec} makes latents of size {renderer.config.latent_dim}, {files.vae} reads"
            f" {vae.config.latent_dim}: they do not belong together; use the published pair"
        )
    return lm, tokenizers, renderer, vae


def load_language_model(files: ModelFiles, dtype: torch.dtype) -> tuple[LeLM, TextTokenizers]:
    """The language model in `dtype` on the CPU, and its tokenizers. Raises CheckpointError."""
    folder = files.tokenizer or QWEN2_FOLDER
    config = language_model_config(files, folder)
    return load_lelm(files.weights, config, dtype), load_tokenizers(folder, config.text_version)


def language_model_config(files: ModelFiles, tokenizer: Path) -> LeLMConfig:
    """From the config.yaml beside the weights, else from the table of published variants."""
    shapes = {n.replace(LM_PREFIX, ""): s for n, s in tensor_shapes(files.weights).items()}
    vocab_size = read_vocab_size(tokenizer)
    if files.config is not None:
        return read_lm_config(files.config, shapes, vocab_size)
    assert files.variant is not None
    return published_lm_config(files.variant, shapes, vocab_size, files.weights)
