"""The complete lists of published names and shapes, at full size on the meta device."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import pytest
import torch
from checkpoint_cases import manifest, needs_manifests, one_line
from torch import Tensor

from songgen_core.checkpoint import keymaps
from songgen_core.checkpoint.layout import published_variant
from songgen_core.checkpoint.load_encoder import codec_encoder_config, codec_encoder_state
from songgen_core.checkpoint.loader import (
    assign,
    check_state,
    lelm_state,
    load_renderer,
    load_vae,
    renderer_config,
    renderer_state,
    vae_config,
    vae_state,
)
from songgen_core.configs import FRAME_RATE, VARIANTS, CodecEncoderConfig, OobleckConfig, RendererConfig
from songgen_core.errors import CheckpointError
from songgen_core.models.codec_encoder import CodecEncoder
from songgen_core.models.flow_renderer import FlowRenderer
from songgen_core.models.lelm import LeLM
from songgen_core.models.oobleck import OobleckVAE

pytestmark = needs_manifests
LELM, RENDERER, VAE = manifest("lelm"), manifest("renderer"), manifest("vae")
CODECS = manifest("codec_encoder", "files")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "int64": torch.int64}
DTYPES |= {"F32": torch.float32, "F16": torch.float16, "I64": torch.int64}

State = dict[str, Tensor]


def empty(shapes: dict[str, list[int]]) -> State:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def lm_manifest_state(variant: dict) -> State:
    return empty({n: k["shape"] for n, k in variant["state_dict"].items()})


def codec_manifest_state(variant: dict) -> State:
    return {
        n: torch.empty(k["shape"], dtype=DTYPES[k["dtype"]], device="meta")
        for n, k in variant["keys"].items()
    }


def vae_manifest_state(variant: dict) -> State:
    return empty({k["key"]: k["shape"] for k in variant["keys"]})


def one_of_each(names: Iterable[str]) -> list[str]:
    """The first name of every kind: names that differ in layer numbers only are one kind."""
    return list({re.sub(r"\d+", "{}", n): n for n in reversed(list(names))}.values())


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def load_lm(config, state: State) -> LeLM:
    return assign(LeLM, config, lelm_state(state, "file"), "file", keymap=keymaps.LELM)


@pytest.fixture
def load_codec(monkeypatch) -> Callable[[State], FlowRenderer]:
    def load(state: State) -> FlowRenderer:
        monkeypatch.setattr("songgen_core.checkpoint.loader.read_state_dict", lambda path: state)
        return load_renderer("file", num_attention_heads=20)

    return load


@pytest.fixture
def load_decoder(monkeypatch) -> Callable[..., OobleckVAE]:
    def load(state: State, with_encoder: bool = True) -> OobleckVAE:
        monkeypatch.setattr("songgen_core.checkpoint.loader.read_state_dict", lambda path: state)
        return load_vae("file", with_encoder=with_encoder)

    return load


@pytest.mark.parametrize("name", CODECS)
def test_codec_encoder_takes_exactly_its_used_keys(name: str) -> None:
    published = codec_manifest_state(CODECS[name])
    state, taps = codec_encoder_state(published, name)
    config = codec_encoder_config(state, taps)
    assert config == CodecEncoderConfig(taps=taps)
    assert taps == ((6,) if "1rvq" in name else (7, 3))
    encoder = assign(CodecEncoder, config, state, name, keymap=keymaps.CODEC_ENCODER)
    used = CODECS[name]["used_elements"]
    gains = sum(
        k["shape"][0] for n, k in CODECS[name]["keys"].items() if k["used"] and n.endswith("in_proj.weight_g")
    )
    assert sum(t.numel() for t in encoder.state_dict().values()) == used - gains  # folded into the weights


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_encoder_without_one_of_its_tensors_is_refused(name: str) -> None:
    published = codec_manifest_state(CODECS[name])
    for lost in one_of_each(n for n, k in CODECS[name]["keys"].items() if k["used"]):
        state = {n: t for n, t in published.items() if n != lost}
        with pytest.raises(CheckpointError) as caught:
            renamed, taps = codec_encoder_state(state, "file")
            assign(
                CodecEncoder,
                codec_encoder_config(renamed, taps),
                renamed,
                "file",
                keymap=keymaps.CODEC_ENCODER,
            )
        assert one_line(caught.value), lost


@pytest.mark.parametrize("name", LELM)
def test_song_model_takes_exactly_its_used_keys(name: str) -> None:
    lm = load_lm(VARIANTS[published_variant(name)].lm, lm_manifest_state(LELM[name]))
    assert count(lm) == LELM[name]["parameters_used"]
    assert lm.config.prefix_length == LELM[name]["prefix_length"]
    used = [n for n, k in LELM[name]["state_dict"].items() if k["used"]]
    assert len(lm.state_dict()) == len(used)


@pytest.mark.parametrize("name", LELM)
def test_published_sizes_are_those_of_the_manifest(name: str) -> None:
    theirs, ours = LELM[name]["config"], VARIANTS[published_variant(name)].lm
    fields = {
        "max_dur": ours.max_duration,
        "prompt_len": ours.prompt_frames / FRAME_RATE,
        "lm.dim": ours.hidden_size,
        "lm.intermediate_size": ours.intermediate_size,
        "lm.num_heads": ours.num_attention_heads,
        "lm.num_layers": ours.num_hidden_layers,
        "lm.num_layers_sub": ours.num_hidden_layers_sub,
        "lm.code_size": ours.codebook_size,
        "lm.code_depth": ours.num_codebooks,
        "lm.max_position_embeddings": ours.max_position_embeddings,
        "lm.max_position_embeddings_sub": ours.max_position_embeddings_sub,
        "lm.rope_theta": ours.rope_theta,
        "lm.rope_theta_sub": ours.rope_theta_sub,
        "codebooks_pattern.delay.delays": list(ours.delays),
        "conditioners.description.max_len": ours.lyrics_length,
        "conditioners.type_info.max_len": ours.description_length,
        "conditioners.prompt_audio.max_len": ours.prompt_length,
    }
    assert fields == theirs
    assert ours.text_version == LELM[name]["version"]
    assert ours.max_frames == LELM[name]["max_T"]
    assert ours.max_seq_len(ours.max_frames) == LELM[name]["max_kv_length"]
    rows = {
        n.rsplit("conditioners.")[1]: k["shape"][0]
        for n, k in LELM[name]["state_dict"].items()
        if "conditioners." in n
    }
    assert rows["description.output_proj.weight"] == ours.lyrics_vocab_size
    assert rows["description.structure_emb.weight"] == ours.num_structures
    assert rows["type_info.output_proj.weight"] == ours.description_vocab_size


def test_v2_medium_is_v1_full_with_the_description_table_of_v2() -> None:
    """Its numbers are not in the manifest; these are stated in the file list (packaging 2 and 3)."""
    medium, full, large = (VARIANTS[n].lm for n in ("v2-medium", "base-full", "v2-large"))
    assert medium == replace(full, text_version="v2", description_vocab_size=151652)
    with torch.device("meta"):
        assert count(LeLM(medium)) == 2_728_912_896
        assert count(LeLM(large)) == 4_988_100_608
    assert VARIANTS["v2-medium"].model_bytes == 7_343_951_582
    assert VARIANTS["v2-large"].model_bytes == 12_899_965_446


def test_every_manifest_variant_has_sizes_and_every_published_one_but_v2_medium_a_manifest() -> None:
    assert {published_variant(name) for name in LELM} == VARIANTS.keys() - {"v2-medium"}


@pytest.mark.parametrize("name", ["songgeneration_v2_large"])
def test_song_model_without_any_one_key_is_refused_by_name(name: str) -> None:
    config, state = VARIANTS[published_variant(name)].lm, lm_manifest_state(LELM[name])
    with torch.device("meta"):
        network = LeLM(config)
    for key in [n for n, k in LELM[name]["state_dict"].items() if k["used"]]:
        partly = lelm_state({n: t for n, t in state.items() if n != key}, "file")
        with pytest.raises(CheckpointError, match="1 missing") as caught:
            check_state(network, partly, "file", keymaps.LELM)
        assert f"({key.removeprefix('audiolm.')})" in one_line(caught.value)


def test_song_model_with_a_misshapen_key_is_refused_by_name() -> None:
    variant = LELM["songgeneration_base"]
    with torch.device("meta"):
        network = LeLM(VARIANTS["base"].lm)
    for key in [n for n, k in variant["state_dict"].items() if k["used"]]:
        state = lm_manifest_state(variant)
        state[key] = torch.empty(*state[key].shape[:-1], 7, device="meta")
        with pytest.raises(CheckpointError, match="1 of another shape") as caught:
            check_state(network, lelm_state(state, "file"), "file", keymaps.LELM)
        assert key.removeprefix("audiolm.") in one_line(caught.value)


def test_song_model_reports_all_three_troubles_at_once() -> None:
    state = lm_manifest_state(LELM["songgeneration_large"])
    del state["audiolm.transformer.model.layers.35.mlp.up_proj.weight"]
    state["audiolm.transformer3.extra"] = torch.empty(1, device="meta")
    state["audiolm.mlp.2.bias"] = torch.empty(3, device="meta")
    with pytest.raises(CheckpointError) as caught:
        load_lm(VARIANTS["large"].lm, state)
    assert one_line(caught.value) == (
        "file does not fit this model: 1 missing (transformer.model.layers.35.mlp.up_proj.weight);"
        " 1 unexpected (transformer3.extra); 1 of another shape (mlp.2.bias [3] instead of [2048])."
        " Use the published file and its own config"
    )


def test_a_long_list_of_troubles_is_cut() -> None:
    state = lm_manifest_state(LELM["songgeneration_base"])
    with pytest.raises(CheckpointError, match=r"and \d\d+ more") as caught:
        load_lm(VARIANTS["large"].lm, state)
    assert len(one_line(caught.value)) < 2000


@pytest.mark.parametrize("name", RENDERER)
def test_codec_takes_exactly_its_render_keys(name: str, load_codec) -> None:
    variant = RENDERER[name]
    state = codec_manifest_state(variant)
    renderer = load_codec(state)
    assert renderer.config == RendererConfig()
    assert len(renderer.state_dict()) == 230
    assert sum(t.numel() for t in renderer.state_dict().values()) == 663_309_761
    needed = {n: t for n, t in state.items() if variant["keys"][n]["used_by_render"]}
    assert len(needed) == variant["render_tensors_stored"] == 232
    assert load_codec(needed).state_dict().keys() == renderer.state_dict().keys()


@pytest.mark.parametrize("name", RENDERER)
def test_codec_without_any_one_render_key_is_refused_by_name(name: str, load_codec) -> None:
    keys = RENDERER[name]["keys"]
    state = codec_manifest_state({"keys": {n: k for n, k in keys.items() if k["used_by_render"]}})
    for key in one_of_each(state):
        with pytest.raises(CheckpointError) as caught:
            load_codec({n: t for n, t in state.items() if n != key})
        assert key in one_line(caught.value)


def test_codec_with_a_misshapen_key_is_refused_by_name(load_codec) -> None:
    state = codec_manifest_state(RENDERER["model_2.safetensors [slim]"])
    used = [n for n, k in RENDERER["model_2.safetensors"]["keys"].items() if k["used_by_render"]]
    sizes_of_their_own = {"cfm_wrapper.estimator.adaln_single.emb.timestep_embedder.linear_1.weight"}
    for key in one_of_each(n for n in used if n not in sizes_of_their_own):
        wrong = torch.empty(*state[key].shape[:-1], state[key].shape[-1] + 1, device="meta")
        with pytest.raises(CheckpointError) as caught:
            load_codec({**state, key: wrong})
        assert key.removesuffix("_g").removesuffix("_v") in one_line(caught.value)


def test_codec_with_an_unknown_key_is_refused_by_name(load_codec) -> None:
    state = codec_manifest_state(RENDERER["model_2.safetensors"])
    for extra in (
        "foo.bar",
        "cfm_wrapper.estimator.h.16.ln_1.weight",
        "cfm_wrapper.estimator.h.99.ln_3.bias",
    ):
        with pytest.raises(CheckpointError, match="unexpected") as caught:
            load_codec({**state, extra: torch.empty(2200, device="meta")})
        assert extra in one_line(caught.value)


def test_codec_roles_of_the_manifest_are_ours() -> None:
    """What the table ignores is what rendering does not use - no more and no less."""
    for variant in RENDERER.values():
        ignored = {n for n in variant["keys"] if n.startswith(keymaps.RENDERER_IGNORED)}
        assert ignored == {n for n, k in variant["keys"].items() if not k["used_by_render"]}


@pytest.mark.parametrize("with_encoder", [True, False])
def test_vae_takes_exactly_its_keys(with_encoder: bool, load_decoder) -> None:
    (variant,) = VAE.values()
    state = vae_manifest_state(variant)
    vae = load_decoder(state, with_encoder)
    assert vae.config == OobleckConfig()
    assert count(vae.decoder) == 84_395_776
    assert len(vae.decoder.state_dict()) == 145
    assert sum(t.numel() for t in state.values()) == variant["parameters"]
    needed = {k["key"] for k in variant["keys"] if with_encoder or k["used"] == "always"}
    load_decoder({n: t for n, t in state.items() if n in needed}, with_encoder)


def test_vae_without_any_one_key_is_refused_by_name(load_decoder) -> None:
    (variant,) = VAE.values()
    state = vae_manifest_state(variant)
    for key in one_of_each(state):
        with pytest.raises(CheckpointError) as caught:
            load_decoder({n: t for n, t in state.items() if n != key})
        assert key in one_line(caught.value)


def test_vae_with_a_misshapen_or_unknown_key_is_refused_by_name(load_decoder) -> None:
    (variant,) = VAE.values()
    state = vae_manifest_state(variant)
    for key in one_of_each(state):
        wrong = torch.empty(*state[key].shape[:-1], state[key].shape[-1] + 1, device="meta")
        with pytest.raises(CheckpointError) as caught:
            load_decoder({**state, key: wrong})
        assert key.removesuffix("_g").removesuffix("_v") in one_line(caught.value)
    for extra in ("foo.bar", "decoder.layers.9.layers.1.bias", "encoder.layers.5.layers.7.bias"):
        with pytest.raises(CheckpointError, match="unexpected") as caught:
            load_decoder({**state, extra: torch.empty(1, device="meta")})
        assert extra in one_line(caught.value)


def test_sizes_are_read_from_the_shapes() -> None:
    (variant,) = VAE.values()
    assert vae_config(vae_state(vae_manifest_state(variant), "file", with_encoder=False)) == OobleckConfig()
    codec = renderer_state(codec_manifest_state(RENDERER["model_2.safetensors"]), "file")
    assert renderer_config(codec, 20) == RendererConfig()


@pytest.mark.parametrize(
    ("make", "config"),
    [(partial(renderer_config, num_attention_heads=20), RendererConfig()), (vae_config, OobleckConfig())],
)
def test_sizes_of_a_state_that_tells_none_are_the_published_ones(make, config) -> None:
    assert make({}) == config
    assert make({"decoder.layers.1.layers.x": torch.empty(1), "latent_norm.sum_x": torch.empty(())}) == config
