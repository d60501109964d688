"""Layers of the language model in 8 or 4 bit, under ComfyUI's memory manager."""

from pathlib import Path

import pytest
from comfy_client import Client, id_of, song_prompt

pytestmark = [
    pytest.mark.comfyui,
    pytest.mark.skipif(
        not (Path(__file__).parents[2] / "songgen_core" / "fast").is_dir(), reason="there is no fast engine"
    ),
]


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_a_song_with_narrow_weights_runs_and_runs_again(comfy: Client, weights: str) -> None:
    prompt = song_prompt(GenerateTokens__seed=341, LoadLeVoModel__weights=weights)
    run = comfy.run(prompt)
    assert run.end == "execution_success", run.error
    assert run.outputs[id_of(prompt, "SaveAudio")]["audio"]
    again = comfy.run(song_prompt(GenerateTokens__seed=342, LoadLeVoModel__weights=weights))
    assert again.end == "execution_success", again.error
    assert id_of(prompt, "LoadLeVoModel") not in again.executed


def test_narrow_weights_move_as_a_whole_and_come_back(in_comfyui) -> None:
    in_comfyui("""
    def write(model):
        asked = (model, "[verse] La la la.", 5, 2.0, "mixed")
        with torch.inference_mode():
            return nodes["GenerateTokens"].execute(*asked).result[0][0]
    with torch.inference_mode():
        model, told = nodes["LoadLeVoModel"].execute("selftest", weights="int8").result
    assert "layers in int8" in told
    usual, _ = nodes["LoadLeVoModel"].execute("selftest").result
    narrow, wide = (
        sum(t.nbytes for t in m.lm.model.main.layers.state_dict().values()) for m in (model, usual)
    )
    assert narrow < 0.3 * wide and model.lm.model_size() < usual.lm.model_size()
    first = write(model)
    host.mm.unload_all_models()
    assert torch.equal(write(model), first)
    kinds = {type(layer).__name__ for layer in model.lm.model.main.layers.modules()}
    assert "QuantizedLinear" in kinds and "Linear" not in kinds
    for options in ({"weights": "int8", "engine": "reference"}, {"weights": "int3"}):
        with torch.inference_mode():
            told = message(lambda: nodes["LoadLeVoModel"].execute("selftest", **options))
        assert "weights" in told and ("engine 'auto'" in told or "choose one of" in told), told
    """)
