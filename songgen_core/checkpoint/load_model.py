"""The files of a song model -> its networks."""

from dataclasses import replace
from pathlib import Path

import torch

from ..configs import VARIANTS, LeLMConfig
from ..models.flow_renderer import FlowRenderer
from ..models.lelm import LeLM
from ..models.oobleck import OobleckVAE
from ..text.bpe import QWEN2_FOLDER, TextTokenizers, load_tokenizers, read_vocab_size
from .files import tensor_shapes
from .layout import ModelFiles
from .lm_config import read_lm_config
from .loader import load_lelm, load_renderer, load_vae


def load_networks(files: ModelFiles, dtype: torch.dtype) -> tuple[LeLM, TextTokenizers, FlowRenderer, OobleckVAE]:
    """All networks on the CPU; language model and renderer matrices in `dtype`. Raises CheckpointError."""
    lm, tokenizers = load_language_model(files, dtype)
    # bfloat16 is too coarse for the renderer's matrices; it has float16's memory in neither case to win.
    renderer_dtype = torch.float16 if dtype == torch.float16 else torch.float32
    return lm, tokenizers, load_renderer(files.codec, renderer_dtype), load_vae(files.vae)


def load_language_model(files: ModelFiles, dtype: torch.dtype) -> tuple[LeLM, TextTokenizers]:
    folder = files.tokenizer or QWEN2_FOLDER
    config = language_model_config(files, folder)
    return load_lelm(files.weights, config, dtype), load_tokenizers(folder, config.text_version)


def language_model_config(files: ModelFiles, tokenizer: Path) -> LeLMConfig:
    """From the config.yaml beside the weights, else from the table of published variants."""
    shapes = {n.replace("audiolm.", ""): s for n, s in tensor_shapes(files.weights).items()}
    if files.config is not None:
        return read_lm_config(files.config, shapes, read_vocab_size(tokenizer))
    assert files.variant is not None
    config = VARIANTS[files.variant].lm
    rows = shapes.get("condition_provider.conditioners.type_info.output_proj.weight", (config.description_vocab_size,))
    return replace(config, description_vocab_size=rows[0])
