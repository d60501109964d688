"""The files of a song model -> its networks."""

from pathlib import Path

import torch

from ..configs import LeLMConfig
from ..errors import Cancelled, CheckpointError
from ..models.codec_encoder import CodecEncoder
from ..models.flow_renderer import FlowRenderer
from ..models.lelm import LeLM
from ..models.oobleck import OobleckVAE
from ..progress import IsCancelled, OnProgress, Progress, ignore_progress, never_cancelled
from ..text.bpe import QWEN2_FOLDER, TextTokenizers, load_tokenizers, read_vocab_size
from .files import tensor_shapes
from .keymaps import LM_PREFIX
from .layout import ModelFiles, SharedFiles
from .lm_config import published_lm_config, read_lm_config
from .load_encoder import load_codec_encoder
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
    on_lm = _listener("language model", on_progress, cancelled)
    lm, tokenizers = load_language_model(files, dtype, on_lm)
    renderer, vae = load_codec(files, dtype, on_progress, cancelled)
    if lm.config.codebook_size != renderer.config.codebook_size:
        raise CheckpointError(
            f"{files.weights} writes {lm.config.codebook_size} codes, {files.codec} reads"
            f" {renderer.config.codebook_size}: they do not belong together; use the published pair"
        )
    return lm, tokenizers, renderer, vae


def load_codec(
    files: SharedFiles,
    dtype: torch.dtype,
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> tuple[FlowRenderer, OobleckVAE]:
    """Renderer and VAE decoder on the CPU. Raises CheckpointError, Cancelled."""
    # The renderer runs in float16 or float32: bfloat16 takes as much memory as float16 and is coarser.
    renderer_dtype = torch.float16 if dtype == torch.float16 else torch.float32
    on_renderer, on_vae = (_listener(what, on_progress, cancelled) for what in ("renderer", "VAE"))
    renderer = load_renderer(files.codec, renderer_dtype, on_tensor=on_renderer)
    vae = load_vae(files.vae, on_tensor=on_vae)
    if renderer.config.latent_dim != vae.config.latent_dim:
        raise CheckpointError(
            f"{files.codec} makes latents of size {renderer.config.latent_dim}, {files.vae} reads"
            f" {vae.config.latent_dim}: they do not belong together; use the published pair"
        )
    return renderer, vae


def load_prompt_encoders(
    files: SharedFiles, on_progress: OnProgress = ignore_progress, cancelled: IsCancelled = never_cancelled
) -> tuple[CodecEncoder, CodecEncoder, OobleckVAE]:
    """What reads recordings: mixed and two-track codec encoder, and the encoder of the VAE.

    All in float32 on the CPU. Raises CheckpointError, Cancelled.
    """
    mixed_file = files.find("mixed_codec")
    mixed = load_codec_encoder(mixed_file, _listener("mixed encoder", on_progress, cancelled))
    dual = load_codec_encoder(files.codec, _listener("two-track encoder", on_progress, cancelled))
    if mixed.config.codebook_size != dual.config.codebook_size:
        raise CheckpointError(
            f"{mixed_file} writes {mixed.config.codebook_size} codes, {files.codec}"
            f" {dual.config.codebook_size}: they do not belong together; use the published pair"
        )
    on_tensor = _listener("VAE encoder", on_progress, cancelled)
    return mixed, dual, load_vae(files.vae, with_encoder=True, with_decoder=False, on_tensor=on_tensor)


def _listener(what: str, on_progress: OnProgress, cancelled: IsCancelled) -> OnTensor:
    def on_tensor(done: int, total: int) -> None:
        if cancelled():
            raise Cancelled("stopped by the user")
        on_progress(Progress(f"loading {what}", done, total))

    return on_tensor


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
