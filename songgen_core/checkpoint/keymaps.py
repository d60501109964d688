"""Key tables of the published checkpoints: foreign name -> our name, None = dropped on purpose.

`{}` stands for a layer number. Tables only; `loader.py` applies them.
"""

KeyMap = dict[str, str | None]

_LLAMA_LAYER = (
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.o_proj.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
)


def _llama(theirs: str, ours: str) -> KeyMap:
    layers: KeyMap = {f"{theirs}.model.layers.{{}}.{k}": f"{ours}.layers.{{}}.{k}" for k in _LLAMA_LAYER}
    return {**layers, f"{theirs}.model.norm.weight": f"{ours}.norm.weight"}


LM_PREFIX = "audiolm."  # of every language model name in a published model.pt
_CONDITIONERS = "condition_provider.conditioners"

# model.pt, after the prefix is gone. The conditioner named "description" holds the lyrics,
# "type_info" the description.
LELM: KeyMap = {
    "emb.0.weight": "code_embeddings.0.weight",
    "layer2_emb.0.weight": None,
    "layer2_emb.1.weight": "code_embeddings.1.weight",
    "layer2_emb.2.weight": "code_embeddings.2.weight",
    **_llama("transformer", "main"),
    **_llama("transformer2", "sub"),
    "transformer.model.embed_tokens.weight": None,
    "transformer2.model.embed_tokens.weight": None,
    "transformer.lm_head.weight": "heads.0.weight",
    "transformer2.lm_head.weight": None,
    "linears.0.weight": "heads.1.weight",
    "linears.1.weight": "heads.2.weight",
    "mlp.0.weight": "bridge.0.weight",
    "mlp.0.bias": "bridge.0.bias",
    "mlp.2.weight": "bridge.2.weight",
    "mlp.2.bias": "bridge.2.bias",
    "out_norm.weight": None,
    "out_norm.bias": None,
    f"{_CONDITIONERS}.description.output_proj.weight": "conditioner.lyrics_embedding.weight",
    f"{_CONDITIONERS}.description.structure_emb.weight": "conditioner.structure_embedding.weight",
    f"{_CONDITIONERS}.type_info.output_proj.weight": "conditioner.description_embedding.weight",
    f"{_CONDITIONERS}.prompt_audio.emb.{{}}.weight": "conditioner.prompt_embeddings.{}.weight",
    f"{_CONDITIONERS}.prompt_audio.EOT_emb": "conditioner.prompt_start.weight",
    f"{_CONDITIONERS}.prompt_audio.layer2_EOT_emb": "conditioner.prompt_start_sub.weight",
}

_BLOCK = "cfm_wrapper.estimator.h.{}"
_TIME = "cfm_wrapper.estimator.adaln_single"


def _both(theirs: str, ours: str) -> KeyMap:
    return {f"{theirs}.{k}": f"{ours}.{k}" for k in ("weight", "bias")}


# The part of model_2.safetensors ("septoken") that renders; weight norm of the two projections folded.
RENDERER: KeyMap = {
    "rvq_bestrq_emb.quantizers.0.codebook.weight": "vocal_codebook.codebook.weight",
    **_both("rvq_bestrq_emb.quantizers.0.out_proj", "vocal_codebook.out_proj"),
    "rvq_bestrq_bgm_emb.quantizers.0.codebook.weight": "bgm_codebook.codebook.weight",
    **_both("rvq_bestrq_bgm_emb.quantizers.0.out_proj", "bgm_codebook.out_proj"),
    "mask_emb.weight": "mask_embedding.weight",
    "normfeat.counts": "latent_norm.counts",
    "normfeat.sum_x": "latent_norm.sum_x",
    "normfeat.sum_x2": "latent_norm.sum_x2",
    "cfm_wrapper.estimator.wpe.weight": "estimator.wpe.weight",
    **_both(f"{_TIME}.emb.timestep_embedder.linear_1", "estimator.time.linear_1"),
    **_both(f"{_TIME}.emb.timestep_embedder.linear_2", "estimator.time.linear_2"),
    **_both(f"{_TIME}.linear", "estimator.time.linear"),
    "cfm_wrapper.estimator.scale_shift_table": "estimator.scale_shift_table.weight",
    **_both("cfm_wrapper.estimator.ln_f", "estimator.ln_f"),
    **_both("cfm_wrapper.estimator.proj_out", "estimator.proj_out"),
    f"{_BLOCK}.scale_shift_table": "estimator.h.{}.scale_shift_table.weight",
    **_both(f"{_BLOCK}.ln_1", "estimator.h.{}.ln_1"),
    **_both(f"{_BLOCK}.ln_2", "estimator.h.{}.ln_2"),
    **_both(f"{_BLOCK}.attn.c_attn", "estimator.h.{}.attn.c_attn"),
    **_both(f"{_BLOCK}.attn.c_proj", "estimator.h.{}.attn.c_proj"),
    **_both(f"{_BLOCK}.mlp.c_fc", "estimator.h.{}.mlp.c_fc"),
    **_both(f"{_BLOCK}.mlp.c_proj", "estimator.h.{}.mlp.c_proj"),
}

# GPT-2 "Conv1D" matrices, stored [in, out]: transposed on load.
RENDERER_TRANSPOSED = tuple(
    f"{_BLOCK}.{k}.weight" for k in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
)

# Everything else in that file: prompt encoder, training losses, and zero_cond_embedding1, which only ever
# replaces frames of mask class 0 - there are none when rendering.
RENDERER_IGNORED = (
    "hubert.",
    "bestrq.",
    "cfm_wrapper.mlp.",
    "cfm_wrapper.estimator.wte.",
    "zero_cond_embedding1",
    "normfeat.sum_target_x2",
    "rvq_bestrq_emb.quantizers.0.in_proj.",
    "rvq_bestrq_emb.quantizers.0.stale_counter",
    "rvq_bestrq_bgm_emb.quantizers.0.in_proj.",
    "rvq_bestrq_bgm_emb.quantizers.0.stale_counter",
    "rsp48toclap.",
    "rsq48towav2vec.",
    "rsq48tohubert.",
    "rsq48tobestrq.",
)


_CONV, _CONFORMER = "bestrq.model.conv", "bestrq.model.conformer.layers.{}"
_STATISTICS = ("weight", "bias", "running_mean", "running_var")


def _encoder_layer() -> KeyMap:
    names = ["conv_module.pointwise_conv1.weight", "conv_module.depthwise_conv.weight"]
    names += ["conv_module.pointwise_conv2.weight"]
    names += [f"conv_module.batch_norm.{k}" for k in _STATISTICS]
    for layer in (
        *("ffn1_layer_norm", "ffn1.intermediate_dense", "ffn1.output_dense", "self_attn_layer_norm"),
        *("self_attn.linear_q", "self_attn.linear_k", "self_attn.linear_v", "self_attn.linear_out"),
        *("conv_module.layer_norm", "ffn2_layer_norm", "ffn2.intermediate_dense", "ffn2.output_dense"),
        "final_layer_norm",
    ):
        names += [f"{layer}.weight", f"{layer}.bias"]
    return {f"{_CONFORMER}.{name}": f"conformer.layers.{{}}.{name}" for name in names}


# The prompt encoder of either codec file; weight norm of the projections folded. Everything else in these
# files is passed over.
CODEC_ENCODER: KeyMap = {
    "rsq48tobestrq.kernel": "resampling_kernel",
    "bestrq.model.preprocessor_melspec_2048.mel_stft.spectrogram.window": "mel.window",
    "bestrq.model.preprocessor_melspec_2048.mel_stft.mel_scale.fb": "mel.filters",
    **{
        f"{_CONV}.conv.{{}}.{layer}{i}.{name}": f"conv.blocks.{{}}.{layer}{i}.{name}"
        for layer, names in (("conv", ("weight", "bias")), ("bn", _STATISTICS))
        for i in (1, 2, 3)
        for name in names
    },
    **_both(f"{_CONV}.linear", "conv.linear"),
    "bestrq.model.conformer.embed_positions.inv_freq": "conformer.inv_freq",
    **_encoder_layer(),
    **_both("rvq_bestrq_emb.quantizers.0.in_proj", "quantizers.0.in_proj"),
    "rvq_bestrq_emb.quantizers.0.codebook.weight": "quantizers.0.codebook.weight",
    **_both("rvq_bestrq_bgm_emb.quantizers.0.in_proj", "quantizers.1.in_proj"),
    "rvq_bestrq_bgm_emb.quantizers.0.codebook.weight": "quantizers.1.codebook.weight",
}
