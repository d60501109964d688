"""The files of a song model -> its networks."""

from pathlib import Path

import torch

from ..configs import LeLMConfig
from ..errors import Cancelled, CheckpointError
from ..models.flow_renderer import FlowRenderer
from ..models.lelm import LeLM
from ..models.oobleck import OobleckVAE
from ..progress import IsCancelled, OnProgress, Progress, ignore_progress, never_cancelled
from ..text.bpe import QWEN2_FOLDER, TextTokenizers, load_tokenizers, read_vocab_size
from .files import tensor_shapes
from .keymaps import LM_PREFIX
from .layout import ModelFiles
from .lm_config import published_lm_config, read_lm_config
from .loader import OnTensor, load_lelm, load_renderer, load_vae, unheard


def load_networks(
    files: ModelFiles,
    dtype: torch.dtype,
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> tuple[LeLM, TextTokenizers, FlowRenderer, OobleckVAE]:
    """All networks on the CPU; language model and renderer matrices in `dtype`.

    Raises CheckpointError, Cancelled.
    """

    def listener(what: str) -> OnTensor:
        def on_tensor(done: int, total: int) -> None:
            if cancelled():
                raise Cancelled("stopped by the user")
            on_progress(Progress(f"loading {what}", done, total))

        return on_tensor

    lm, tokenizers = load_language_model(files, dtype, listener("language model"))
    # The renderer runs in float16 or float32: bfloat16 takes as much memory as float16 and is coarser.
    renderer_dtype = torch.float16 if dtype == torch.float16 else torch.float32
    renderer = load_renderer(files.codec, renderer_dtype, on_tensor=listener("renderer"))
    vae = load_vae(files.vae, on_tensor=listener("VAE"))
    if renderer.config.latent_dim != vae.config.latent_dim:
        raise CheckpointError(
            f"{files.codec} makes latents of size {renderer.config.latent_dim}, {files.vae} reads"
            f" {vae.config.latent_dim}: they do not belong together; use the published pair"
        )
    if lm.config.codebook_size != renderer.config.codebook_size:
        raise CheckpointError(
            f"{files.weights} writes {lm.config.codebook_size} codes, {files.codec} reads"
            f" {renderer.config.codebook_size}: they do not belong together; use the published pair"
        )
    return lm, tokenizers, renderer, vae


def load_language_model(
    files: ModelFiles, dtype: torch.dtype, on_tensor: OnTensor = unheard
) -> tuple[LeLM, TextTokenizers]:
    """The language model in `dtype` on the CPU, and its tokenizers. Raises CheckpointError."""
    folder = files.tokenizer or QWEN2_FOLDER
    config = language_model_config(files, folder)
    return load_lelm(files.weights, config, dtype, on_tensor), load_tokenizers(folder, config.text_version)


def language_model_config(files: ModelFiles, tokenizer: Path) -> LeLMConfig:
    """From the config.yaml beside the weights, else from the table of published variants."""
    shapes = {n.replace(LM_PREFIX, ""): s for n, s in tensor_shapes(files.weights).items()}
    vocab_size = read_vocab_size(tokenizer)
    if files.config is not None:
        return read_lm_config(files.config, shapes, vocab_size)
    assert files.variant is not None
    return published_lm_config(files.variant, shapes, vocab_size, files.weights)
