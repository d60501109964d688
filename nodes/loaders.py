"""A model on disk -> a handle whose networks ComfyUI may move."""

import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from comfy_api.v0_0_2 import io

from ..songgen_core import VARIANTS, UserError
from ..songgen_core.checkpoint.layout import ModelFiles, find_model, list_models
from ..songgen_core.checkpoint.load_model import load_networks
from ..songgen_core.devices import DTYPES
from ..songgen_core.models.flow_renderer import FlowRenderer
from ..songgen_core.models.lelm import LeLM
from ..songgen_core.models.oobleck import OobleckVAE
from ..songgen_core.selftest import NOTICE, SELFTEST, selftest_networks
from ..songgen_core.text.bpe import TextTokenizers
from . import host
from ._compat import inp, schema
from .sockets import SongModelSocket

log = logging.getLogger("songgen")

Networks = tuple[LeLM, TextTokenizers, FlowRenderer, OobleckVAE, torch.dtype]

AUTO = "auto"
LICENCE_NOTE = "Model weights are Tencent's, for research and education only; read their licence before use."


class LoadLeVoModel(io.ComfyNode):
    """Model files -> SONGGEN_MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        models = [*list_models(host.model_roots()), SELFTEST]
        return schema(
            node_id="SongGenLoadLeVoModel",
            display_name="Load LeVo Model",
            description=(
                "Loads a LeVo / SongGeneration model: language model, renderer and VAE. Put each model in"
                f" a folder of its own under ComfyUI/models/songgen. {LICENCE_NOTE}"
            ),
            search_aliases=["song", "music", "SongGeneration", "LeVo"],
            inputs=[
                inp(
                    io.Combo.Input,
                    "model",
                    options=models,
                    default=models[0],
                    tooltip=(
                        "A model found under models/songgen or models/SongGeneration. 'selftest' needs no"
                        " files"
                        f" and makes noise, not music: it only shows that everything works. {LICENCE_NOTE}"
                    ),
                ),
                inp(
                    io.Combo.Input,
                    "dtype",
                    options=[AUTO, *sorted(DTYPES)],
                    default=AUTO,
                    tooltip=(
                        "Number format of the weights. auto: float16 where the card is fit for it, as the"
                        " models were trained, and float32 on the CPU."
                    ),
                ),
                inp(
                    io.Combo.Input,
                    "variant",
                    options=[AUTO, *VARIANTS],
                    default=AUTO,
                    advanced=True,
                    tooltip=(
                        "Sizes of the model. auto: from the config.yaml beside the weights, else from the"
                        " folder's name. Choose the published variant where neither tells."
                    ),
                ),
            ],
            outputs=[
                SongModelSocket.Output(
                    "loaded", display_name="model", tooltip="For Generate Tokens and Diffusion Render."
                ),
                io.String.Output("info", display_name="info", tooltip="What was loaded, in words."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, model: str, dtype: str, variant: str) -> str:
        """State of the files. A linked input is not known yet (None): then that of all models."""
        if model == SELFTEST:
            return SELFTEST
        try:
            if None in (model, variant):
                return _state(list_models(host.model_roots()).values())
            files = _files_of(model, variant)
            return _state(p for p in (files.weights, files.config, files.codec, files.vae) if p is not None)
        except UserError as error:
            return str(error)

    @classmethod
    def execute(cls, model: str, dtype: str = AUTO, variant: str = AUTO) -> io.NodeOutput:
        lm, tokenizers, renderer, vae, precision = cls._networks(model, dtype, variant)
        handle = host.SongModel(
            name=model,
            config=lm.config,
            dtype=precision,
            tokenizers=tokenizers,
            lm=host.managed(lm),
            renderer=host.managed(renderer),
            vae=host.managed(vae),
            is_selftest=model == SELFTEST,
        )
        return io.NodeOutput(handle, describe(handle))

    @classmethod
    def _networks(cls, model: str, dtype: str, variant: str) -> Networks:
        precision = host.compute_dtype(dtype)
        # The executor is in inference mode; weights born in it break when "unload models" moves them outside.
        with torch.inference_mode(False):
            if model == SELFTEST:
                log.warning(NOTICE)
                return *selftest_networks(), torch.float32
            files = _files_of(model, variant)
            networks = load_networks(files, precision, host.NodeProgress(cls), host.stop_if_cancelled)
            return *networks, precision


def _state(paths: Iterable[Path]) -> str:
    """Sizes and times of files, to notice when one is replaced."""
    return "; ".join(f"{p} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in paths)


def _files_of(model: str, variant: str) -> ModelFiles:
    """Files of a model that was found under the model folders, and of no other. Raises UserError."""
    roots = host.model_roots()
    known = list_models(roots)
    if model not in known:
        raise UserError(
            f"model '{str(model)[:80]}' was not found; choose one of {', '.join([*known, SELFTEST])},"
            f" or put it with codec and VAE into {roots[0]} (see Models in the README) and press R"
        )
    host.check_choice("variant", variant, (AUTO, *VARIANTS))
    return find_model(model, roots, None if variant == AUTO else variant)


def describe(model: host.SongModel) -> str:
    """What a user wants to know about a loaded model, one fact a line."""
    size = sum(patcher.model_size() for patcher in model.get_models())
    precision = str(model.dtype).removeprefix("torch.")
    lines = [
        f"model: {model.name} ({precision}, {size / 1e9:.1f} GB)",
        f"longest song: {model.config.max_duration:g} s",
        f"Attention: {NOTICE}" if model.is_selftest else LICENCE_NOTE,
    ]
    return "\n".join(lines)
