"""ComfyUI's memory manager and our networks, without a graphics card: small budgets, and a device that holds
nothing (`meta`) in place of the card."""

import pytest

pytestmark = pytest.mark.comfyui

LOADED = """
from comfy.model_patcher import ModelPatcher
CPU, META = torch.device("cpu"), torch.device("meta")
def load():
    with torch.inference_mode():
        return nodes["LoadLeVoModel"].execute("selftest").result[0]

model = load()

def song(model=model):
    codes, *_ = nodes["GenerateTokens"].execute(model, "[verse] La la la.", 1, 1.0, "mixed").result
    (audio,) = nodes["DiffusionRender"].execute(model, codes, 1, "mixed", 1, 1.5).result
    return codes, audio["waveform"]
"""


def test_nothing_is_left_unmanaged(in_comfyui):
    """With no room at all, every weight either moved or belongs to a layer that is cast at use."""
    in_comfyui(
        LOADED
        + """
own = ("RMSNorm", "SnakeBeta", "LatentNorm")  # which bring their few values along by themselves
for patcher in (model.lm, model.renderer, model.vae):
    network = patcher.model
    ModelPatcher(network, META, CPU).partially_load(META, 1)
    for name, module in network.named_modules():
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for key, tensor in tensors:
            cared_for = hasattr(module, "comfy_cast_weights") or type(module).__name__ in own
            assert tensor.is_meta or cared_for, f"{type(network).__name__}: {name}.{key}"
    assert network.model_lowvram
"""
    )


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_a_part_on_the_card_makes_the_same_song(in_comfyui, share):
    in_comfyui(
        LOADED
        + f"""
with torch.inference_mode():
    codes, audio = song()
    in_part = load()
    for patcher in in_part.get_models():
        patcher.partially_load(CPU, max(1, int(patcher.model_size() * {share})))
        assert patcher.model.model_lowvram
    host.mm.load_models_gpu = lambda *a, **k: None  # the budget stays as it is
    again = song(in_part)
assert torch.equal(codes, again[0]) and torch.equal(audio, again[1])
"""
    )


def test_unloading_frees_and_the_next_run_works(in_comfyui):
    in_comfyui(
        LOADED
        + """
import comfy.model_management as mm
with torch.inference_mode():
    first = song()
mm.unload_all_models()
assert not mm.current_loaded_models
with torch.inference_mode():
    second = song()
assert all(torch.equal(a, b) for a, b in zip(first, second))
loaded = [known.model for known in mm.current_loaded_models]
assert all(patcher in loaded for patcher in model.get_models()), "the manager knows all of them"
"""
    )


def test_layers_are_comfyuis_and_weights_are_untouched(in_comfyui):
    in_comfyui("""
    import comfy.ops
    from pack.nodes.managed import manage_layers
    from pack.songgen_core.selftest import selftest_networks
    lm, _, renderer, vae = selftest_networks()
    for network in (lm, renderer, vae):
        before = {name: tensor for name, tensor in network.state_dict().items()}
        manage_layers(network)
        after = network.state_dict()
        assert before.keys() == after.keys()
        assert all(after[name].data_ptr() == tensor.data_ptr() for name, tensor in before.items())
        plain = [type(m) for m in network.modules() if type(m).__module__.startswith("torch.nn.modules.")]
        assert not {t.__name__ for t in plain} & {"Linear", "Embedding", "LayerNorm", "Conv1d"}, plain
    """)
