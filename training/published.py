"""Our networks under the names and in the shapes of published files: `songgen_core.checkpoint`, backwards.

Matrices are stored in float16. Vectors stay in float32, they are few, and so does what resamples recordings.

Letters: V rows of a codebook, D its width, H width of a network.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from songgen_core.checkpoint.keymaps import CODEC_ENCODER, LELM, LM_PREFIX, RENDERER, KeyMap
from songgen_core.checkpoint.loader import State, translate, transposed_names
from songgen_core.configs import FRAME_RATE, SAMPLE_RATE, LeLMConfig, RendererConfig
from songgen_core.models.codec_encoder import CodecEncoder
from songgen_core.models.flow_renderer import FlowRenderer
from songgen_core.models.lelm import LeLM
from songgen_core.models.oobleck import OobleckVAE

_IN_FLOAT32 = re.compile(r"^mel\.window$|^resampling_kernel$")


def lm_file(lm: LeLM) -> State:
    """Tensors of a model.safetensors."""
    return {LM_PREFIX + name: tensor for name, tensor in _published(_half(lm.state_dict()), LELM).items()}


def dual_file(renderer: FlowRenderer, encoder: CodecEncoder) -> State:
    """Tensors of a two-track codec file: the renderer, and the encoder whose codes it reads.

    Such a file has one codebook per stream for both. Ours were trained apart, so their rows are laid side by
    side (`join_codebooks`) and each network looks at its own part.
    """
    rendered, heard = dict(renderer.state_dict()), dict(encoder.state_dict())
    for number, name in enumerate(("vocal_codebook", "bgm_codebook")):
        join_codebooks(heard, f"quantizers.{number}", rendered, name)
    rendered = _half(rendered)
    for name in transposed_names(rendered):
        rendered[name] = rendered[name].T
    ours = (_half(heard), CODEC_ENCODER), (rendered, RENDERER)
    first, second = (_published(_convolutions(state), keymap) for state, keymap in ours)
    return first | second


def dual_notes(config: RendererConfig) -> dict[str, str]:
    """What the shapes in a two-track codec file do not tell, for its metadata."""
    names = "num_attention_heads", "silent_vocal_code", "silent_bgm_code"
    return {name: str(getattr(config, name)) for name in names}


def mixed_file(encoder: CodecEncoder) -> State:
    """Tensors of a mixed codec file; nothing of it but the encoder is ever read."""
    return _published(_convolutions(_half(encoder.state_dict())), CODEC_ENCODER)


def vae_file(vae: OobleckVAE) -> State:
    """Tensors of a VAE file."""
    return _half(vae.state_dict())


def settings_file(config: LeLMConfig) -> dict[str, Any]:
    """What the config.yaml beside a model.safetensors says."""
    rest = [f"{name}{end}" for name in ("rope_theta", "max_position_embeddings") for end in ("", "_sub")]
    if config.prompt_frames % FRAME_RATE:
        raise ValueError(f"prompt_frames is {config.prompt_frames}: no whole seconds")
    sampling = {name: getattr(config, name) for name in ("temperature", "top_k", "repetition_window")}
    return {
        "max_dur": config.max_duration,
        "prompt_len": config.prompt_frames // FRAME_RATE,
        "audio_tokenizer_frame_rate": FRAME_RATE,
        "sample_rate": SAMPLE_RATE,
        "lm": {
            "lm_type": "Llama",
            "dim": config.hidden_size,
            "num_heads": config.num_attention_heads,
            "intermediate_size": config.intermediate_size,
            "num_layers": config.num_hidden_layers,
            "num_layers_sub": config.num_hidden_layers_sub,
            **{name: getattr(config, name) for name in rest},
            "code_depth": config.num_codebooks,
            "code_size": config.codebook_size,
        },
        "codebooks_pattern": {
            "modeling": "delay",
            "delay": {"delays": list(config.delays), "flatten_first": 0, "empty_initial": 0},
        },
        "classifier_free_guidance": {"inference_coef": config.cfg_scale},
        "sampling": {name: value for name, value in sampling.items() if value is not None},
        "fuser": {"sum": [], "prepend": ["description", "prompt_audio", "type_info"]},
        "conditioners": {
            "prompt_audio": _conditioner("qt_embedding", config.prompt_length),
            "description": _conditioner("QwTokenizer", config.lyrics_length),
            "type_info": _conditioner("QwTextTokenizer", config.description_length),
        },
    }


def _conditioner(model: str, length: int) -> dict[str, Any]:
    return {"model": model, model: {"max_len": length}}


def join_codebooks(heard: State, quantizer: str, rendered: State, codebook: str) -> None:
    """Give an encoder's and a renderer's stream one codebook, in place; neither computes anything else.

    Encoders find the nearest row by its direction. A row is the direction of the encoder's [V, D], the
    renderer's [V, D'] made so small that none is longer than 1, and one number that makes all rows equally
    long: so the other parts change no choice.
    """
    rows = rendered[f"{codebook}.codebook.weight"]
    scale = rows.norm(dim=1).max()
    rows = rows / scale
    rest = (1 - rows.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
    directions = normalize(heard[f"{quantizer}.codebook.weight"], dim=1)
    joined = torch.cat([directions, rows, rest], dim=1)  # (V, D + D' + 1)
    before, behind = directions.shape[1], rows.shape[1] + 1
    for name, padding in (("weight", (0, 0, 0, behind)), ("bias", (0, behind))):
        heard[f"{quantizer}.in_proj.{name}"] = pad(heard[f"{quantizer}.in_proj.{name}"], padding)
    out_proj = f"{codebook}.out_proj.weight"  # (H, D')
    rendered[out_proj] = pad(rendered[out_proj] * scale, (before, 1))
    heard[f"{quantizer}.codebook.weight"] = rendered[f"{codebook}.codebook.weight"] = joined


def _published(state: State, keymap: KeyMap) -> State:
    back: KeyMap = {ours: theirs for theirs, ours in keymap.items() if ours is not None}
    return {str(translate(name, back)): tensor for name, tensor in state.items()}


def _convolutions(state: State) -> State:
    """Projections beside a codebook are 1x1 convolutions in published files."""
    ends = ".in_proj.weight", "_codebook.out_proj.weight"
    return {name: t[..., None] if name.endswith(ends) else t for name, t in state.items()}


def _half(state: Mapping[str, Tensor]) -> State:
    """Raises ValueError where float16 does not reach."""
    out = {}
    for name, tensor in state.items():
        small = tensor.ndim < 2 or _IN_FLOAT32.search(name)
        out[name] = tensor.float() if small else tensor.half()
        if not out[name].isfinite().all():
            raise ValueError(f"{name} has values of up to {tensor.abs().max():g}, which float16 cannot hold")
    return out


def num_parameters(network: nn.Module) -> int:
    """How many numbers were trained, shared ones once."""
    return sum(p.numel() for p in network.parameters())
