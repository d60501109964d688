"""Codec files and the VAE -> what turns recordings into codes and latents."""

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..configs import CodecEncoderConfig
from ..errors import CheckpointError
from ..models.codec_encoder import CodecEncoder
from .files import read_state_dict
from .keymaps import CODEC_ENCODER
from .loader import OnTensor, State, assign, fold_weight_norm, translate, unheard

MIXED_TAPS, DUAL_TAPS = (6,), (7, 3)  # hidden states of mixed; of vocal and accompaniment
_LAYER = re.compile(r"conformer\.layers\.(\d+)\.")
_READ = ("rsq48tobestrq.", "bestrq.model.", "rvq_bestrq_")
_PASSED_OVER = ("bestrq.model.conformer.pos_conv_embed.", "bestrq.model.rvq.")
_CODEBOOK = "quantizers.{}.codebook.weight"


def load_codec_encoder(path: Path, on_tensor: OnTensor = unheard) -> CodecEncoder:
    """The prompt encoder of a mixed or two-track codec file, full or slim, in float32 on the CPU.

    Raises CheckpointError.
    """
    state, taps = codec_encoder_state(read_state_dict(path), str(path))
    config = codec_encoder_config(state, taps)
    return assign(CodecEncoder, config, state, str(path), keymap=CODEC_ENCODER, on_tensor=on_tensor)


def has_prompt_encoder(state: State) -> bool:
    """Files that were cut down to the renderer lack it."""
    return any(name.startswith("bestrq.model.conformer.layers.") for name in state)


def codec_encoder_state(state: State, source: str) -> tuple[State, tuple[int, ...]]:
    """Published names -> names of `CodecEncoder`, nothing else, and the hidden states of its streams."""
    names = ["rvq_bestrq_emb.quantizers.0.", "rvq_bestrq_bgm_emb.quantizers.0."]
    is_dual = f"{names[1]}codebook.weight" in state
    if not is_dual and f"{names[0]}codebook.weight" not in state:
        raise CheckpointError(
            f"{source} is no codec file (model_1rvq or model_septoken); choose the published one"
        )
    if not has_prompt_encoder(state):
        raise CheckpointError(
            f"{source} lacks the prompt encoder (bestrq.*), which recordings need; use the published file"
        )
    taps = DUAL_TAPS if is_dual else MIXED_TAPS
    kept = {n: t for n, t in state.items() if n.startswith(_READ) and not n.startswith(_PASSED_OVER)}
    renamed = {}
    for name, tensor in fold_weight_norm(kept, source).items():
        with suppress(KeyError):  # everything else in these files is no concern of the encoder
            ours = translate(name, CODEC_ENCODER)
            if ours and _reads(ours, taps):
                renamed[ours] = tensor.squeeze(-1) if ours.endswith("in_proj.weight") else tensor
    return renamed, taps


def _reads(name: str, taps: tuple[int, ...]) -> bool:
    """Layers behind the last hidden state that is read are left out."""
    layer = _LAYER.match(name)
    return int(layer[1]) < max(taps) if layer else True


def codec_encoder_config(state: State, taps: tuple[int, ...]) -> CodecEncoderConfig:
    """Sizes from the shapes of a (renamed) state; published ones if it tells none."""
    published = CodecEncoderConfig(taps=taps)
    try:
        codebook_size, codebook_dim = state[_CODEBOOK.format(0)].shape
        hidden_size, head_dim = (
            state["conv.linear.bias"].shape[0],
            2 * state["conformer.inv_freq"].shape[0],
        )
        return replace(
            published,
            hidden_size=hidden_size,
            num_attention_heads=hidden_size // head_dim,
            intermediate_size=state["conformer.layers.0.ffn1.output_dense.weight"].shape[1],
            conv_kernel_size=state["conformer.layers.0.conv_module.depthwise_conv.weight"].shape[2],
            subsampling_channels=state["conv.blocks.0.conv1.weight"].shape[0],
            num_mel_bins=state["mel.filters"].shape[1],
            codebook_size=codebook_size,
            codebook_dim=codebook_dim,
            n_fft=state["mel.window"].shape[0],
        )
    except (KeyError, IndexError, ZeroDivisionError):
        return published
