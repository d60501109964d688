"""A model on disk -> a handle whose networks ComfyUI may move; downloads it first where the user says so."""

import logging
from pathlib import Path

import torch
from comfy_api.v0_0_2 import io

from ..songgen_core import VARIANTS, UserError
from ..songgen_core.checkpoint.layout import (
    MINI,
    ModelFiles,
    find_model,
    find_variant,
    list_models,
    published_variant,
)
from ..songgen_core.checkpoint.load_model import load_networks
from ..songgen_core.devices import DTYPES
from ..songgen_core.engine import ENGINES, WEIGHTS, Engine, load_engine, on_layer
from ..songgen_core.hub.download import download, plan_download
from ..songgen_core.hub.licence import accept, is_accepted, licence_text
from ..songgen_core.models.flow_renderer import FlowRenderer
from ..songgen_core.models.lelm import LeLM
from ..songgen_core.models.oobleck import OobleckVAE
from ..songgen_core.progress import OnProgress
from ..songgen_core.prompts.readers import PromptReaders
from ..songgen_core.selftest import NOTICE, SELFTEST, selftest_networks
from ..songgen_core.text.bpe import TextTokenizers, tokenizer_files
from . import host
from ._compat import inp, schema
from .sockets import SongModelSocket

log = logging.getLogger("songgen")

Networks = tuple[LeLM, TextTokenizers, FlowRenderer, OobleckVAE, torch.dtype]

AUTO = "auto"
LICENCE_NOTE = (
    "Published model weights are Tencent's, for research and education only; read their licence before use."
)
MINI_NOTE = "mini is small and was taught by a synthesiser: simple songs, for trying out; it is free to use."
NEVER, IF_MISSING = "never", "if missing"
NOT_ACCEPTED, ACCEPTED = "not accepted", "I accept it: research and education only"
FEATURES = {
    "text": (),
    "text + recordings": ("prompts",),
    "text + recordings + genres": ("prompts", "genres"),
}


class LoadLeVoModel(io.ComfyNode):
    """Model files -> SONGGEN_MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenLoadLeVoModel",
            display_name="Load LeVo Model",
            description=(
                "Loads a LeVo / SongGeneration model: language model, renderer and VAE. Put each model in"
                " a folder of its own under ComfyUI/models/songgen, or let this node download it; nothing is"
                f" downloaded unless you say so. {LICENCE_NOTE}"
            ),
            search_aliases=["song", "music", "SongGeneration", "LeVo"],
            inputs=[
                model_input(),
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
                *download_inputs(_features_input()),
                _engine_input(),
                _weights_input(),
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
    def validate_inputs(cls, model: str | None = None) -> bool | str:
        """In place of ComfyUI's own check: a published name is right before and after its download."""
        return host.problem((check_model, model))

    @classmethod
    def fingerprint_inputs(
        cls,
        model: str | None = None,
        dtype: str | None = None,
        variant: str | None = None,
        download: str | None = None,
        features: str | None = None,
        licence: str | None = None,
        engine: str | None = None,
        weights: str | None = None,
    ) -> str:
        """State of the files. A linked input is not known yet (None): then that of all models."""
        if model == SELFTEST:
            return SELFTEST
        try:
            if model is None or variant is None:
                return host.state_of(list_models(host.model_roots()).values())
            files = files_of(model, variant)
            parts = (files.weights, files.config, files.codec, files.vae, *tokenizer_files(files.tokenizer))
            return host.state_of(p for p in parts if p is not None)
        except (UserError, OSError) as error:
            return str(error)

    @classmethod
    def execute(
        cls,
        model: str,
        dtype: str = AUTO,
        variant: str = AUTO,
        download: str = NEVER,
        features: str = "text",
        licence: str = NOT_ACCEPTED,
        engine: str = ENGINES[0],
        weights: str = WEIGHTS[0],
    ) -> io.NodeOutput:
        quick = load_engine(engine)
        host.check_choice("weights", weights, WEIGHTS)
        quick.check_weights(weights, host.mm.get_torch_device())
        host.check_choice("download", download, (NEVER, IF_MISSING))
        host.check_choice("features", features, tuple(FEATURES))
        check_model(model)
        progress = host.NodeProgress(cls)
        if download == IF_MISSING and (published := published_name(model, variant)) is not None:
            get_missing(published, FEATURES[features], licence == ACCEPTED, progress)
        files = None if model == SELFTEST else files_of(model, variant)
        lm, tokenizers, renderer, vae, precision = _networks(files, dtype, progress)
        _narrow(quick, lm, weights, progress)
        handle = host.SongModel(
            name=SELFTEST if files is None else files.name,
            config=lm.config,
            dtype=precision,
            tokenizers=tokenizers,
            # Layers of narrow weights are of our own making, which ComfyUI moves as a whole or not at all.
            lm=host.managed(lm) if weights == WEIGHTS[0] else host.whole(lm),
            renderer=host.managed(renderer),
            vae=host.managed(vae),
            is_selftest=files is None,
            is_mini=files is not None and files.is_mini,
            readers=host.Readers(PromptReaders(files)),
            engine=quick,
            weights=weights,
        )
        return io.NodeOutput(handle, describe(handle))


def model_input() -> io.Input:
    """Every model that is there or can be downloaded."""
    models = model_choices()
    return inp(
        io.Combo.Input,
        "model",
        options=models,
        default=MINI if models[0] in VARIANTS else models[0],
        tooltip=(
            "A model found under models/songgen or models/SongGeneration, a published one to download, or"
            " 'mini', which comes with this pack: simple songs of up to a minute, at once, on any machine."
            f" 'selftest' makes noise, to test with. {LICENCE_NOTE}"
        ),
    )


def download_inputs(*more: io.Input) -> list[io.Input]:
    """Whether to download, `more`, and the licence."""
    return [
        inp(
            io.Combo.Input,
            "download",
            options=[NEVER, IF_MISSING],
            default=NEVER,
            optional=True,
            tooltip=(
                "if missing: get what the chosen published model lacks from Hugging Face, some 13 to 26 GB,"
                " once the licence below is accepted. A stopped download goes on where it was."
            ),
        ),
        *more,
        inp(
            io.Combo.Input,
            "licence",
            options=[NOT_ACCEPTED, ACCEPTED],
            default=NOT_ACCEPTED,
            optional=True,
            tooltip=licence_text(),
        ),
    ]


def _features_input() -> io.Input:
    return inp(
        io.Combo.Input,
        "features",
        options=list(FEATURES),
        default="text",
        optional=True,
        tooltip=(
            "What a download is for. recordings: Audio Prompt, Encode Audio Tokens and Separate Audio,"
            " 5 GB more. genres: Genre Prompt, 15 MB more."
        ),
    )


def _engine_input() -> io.Input:
    return inp(
        io.Combo.Input,
        "engine",
        options=list(ENGINES),
        default=ENGINES[0],
        optional=True,
        advanced=True,
        tooltip=(
            "What computes the songs. auto: the fast engine where it can run, with the whole language model"
            " on the device, else the reference. reference: the plain path, slower, to compare with."
        ),
    )


def _weights_input() -> io.Input:
    return inp(
        io.Combo.Input,
        "weights",
        options=list(WEIGHTS),
        default=WEIGHTS[0],
        optional=True,
        advanced=True,
        tooltip=(
            "How the layers of the language model are stored. native: as dtype says. int8: half of 16 bit,"
            " and quicker. fp8: likewise, coarser. int4: a quarter, some quality is lost. Needs engine auto."
        ),
    )


def model_choices() -> list[str]:
    """Models that were found, published ones that were not, the one of this pack, the self-test model."""
    found = list_models(host.model_roots())
    present = {published_of(path) for path in found.values()}
    others = [*(name for name in VARIANTS if name not in present), MINI, SELFTEST]
    return list(dict.fromkeys([*found, *others]))


def published_of(weights: Path) -> str | None:
    """The published variant that weights are named after."""
    return published_variant(weights.stem) or published_variant(weights.absolute().parent.name)


def check_model(model: str) -> str:
    """`model`, or UserError unless it is one of `model_choices`, or a published one."""
    if str(model) not in VARIANTS and model not in (choices := model_choices()):
        raise UserError(
            f"model {str(model)[:80]!r} was not found; choose one of {', '.join(choices)}, or put it with"
            f" codec and VAE into {host.model_roots()[0]} (see Models in the README) and press R"
        )
    return model


def published_name(model: str, variant: str) -> str | None:
    """The published variant that is meant; None for a model of one's own."""
    if model in VARIANTS:
        return model
    weights = list_models(host.model_roots()).get(model)
    named = None if weights is None else published_of(weights)
    return named or (variant if variant in VARIANTS and weights is not None else None)


def get_missing(variant: str, features: tuple[str, ...], accepted: bool, on_progress: OnProgress) -> None:
    """Download what `variant` lacks. Raises UserError, DownloadError."""
    roots = host.model_roots()
    plan = plan_download(variant, features, roots[0], roots)
    if plan.missing:
        if not accepted:
            raise UserError(
                f"{variant} lacks files ({plan.total_bytes / 1e9:.1f} GB), which are not downloaded before"
                f" the licence is accepted. {' '.join(licence_text().split())} If you accept that, set"
                f" licence to '{ACCEPTED}'"
            )
        if not is_accepted(plan.root):
            accept(plan.root)
    download(plan, on_progress=on_progress, cancelled=host.stop_if_cancelled)


def files_of(model: str, variant: str) -> ModelFiles:
    """Files of a model under the model folders or of this pack, and of no other. Raises UserError."""
    roots = host.model_roots()
    host.check_choice("variant", variant, (AUTO, *VARIANTS))
    weights = list_models(roots).get(model) or (find_variant(model, roots) if model in VARIANTS else None)
    if weights is None and model in VARIANTS:
        size = plan_download(model, (), roots[0], roots).total_bytes / 1e9
        raise UserError(
            f"{model} is not on this machine ({size:.1f} GB): set download to '{IF_MISSING}' and accept the"
            f" licence, or run 'songgen download {model}', or put its files into {roots[0]} (see Models in"
            " the README)"
        )
    return find_model(weights or check_model(model), roots, None if variant == AUTO else variant)


def _networks(files: ModelFiles | None, dtype: str, on_progress: OnProgress) -> Networks:
    precision = host.compute_dtype(dtype)
    # The executor is in inference mode; weights born in it break when "unload models" moves them outside.
    with torch.inference_mode(False):
        if files is None:
            log.warning(NOTICE)
            return *selftest_networks(), torch.float32
        return *load_networks(files, precision, on_progress, host.stop_if_cancelled), precision


def _narrow(engine: Engine, lm: LeLM, weights: str, on_progress: OnProgress) -> None:
    """Store the layers of `lm` as asked for. Raises UserError."""
    with torch.inference_mode(False):  # as in _networks
        engine.narrow(lm, weights, on_layer(weights, on_progress, host.stop_if_cancelled))


def describe(model: host.SongModel) -> str:
    """What a user wants to know about a loaded model, one fact a line."""
    size = sum(patcher.model_size() for patcher in model.get_models())
    precision = str(model.dtype).removeprefix("torch.")
    if model.weights != WEIGHTS[0]:
        precision += f", layers in {model.weights}"
    lines = [
        f"model: {model.name} ({precision}, {size / 1e9:.1f} GB)",
        f"longest song: {model.config.max_duration:g} s",
        f"Attention: {NOTICE}" if model.is_selftest else MINI_NOTE if model.is_mini else LICENCE_NOTE,
    ]
    return "\n".join(lines)
