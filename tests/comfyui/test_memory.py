"""ComfyUI's memory manager and our networks, without a graphics card: small budgets, and a device that holds
nothing (`meta`) in place of the card."""

import pytest
from comfy_client import ROOT

pytestmark = pytest.mark.comfyui

LOADED = """
from comfy.model_patcher import ModelPatcher
CPU, META = torch.device("cpu"), torch.device("meta")
def load(**options):
    with torch.inference_mode():
        return nodes["LoadLeVoModel"].execute("selftest", **options).result[0]

model = load()

def song(model=model):
    (codes,), *_ = nodes["GenerateTokens"].execute(model, "[verse] La la la.", 1, 1.0, "mixed").result
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


CACHES = """
from pack.songgen_core.layers.kv_cache import KVCache
made, begin = [], KVCache.__init__
def noted(self, *arguments):
    begin(self, *arguments)
    made.extend([*self.keys, *self.values])
KVCache.__init__ = noted
class FirstColumn(Exception): pass
def stop(self, progress):
    raise FirstColumn
host.NodeProgress.__call__ = stop
"""


def test_the_stated_kv_caches_are_those_that_are_made(in_comfyui):
    in_comfyui(
        LOADED
        + CACHES
        + """
model = load(engine="reference")
for duration in (1.0, 7.0, 30.0):
    made.clear()
    try:
        with torch.inference_mode():
            nodes["GenerateTokens"].execute(model, "[verse] La la la.", 1, duration, "mixed")
        raise AssertionError("no column was written")
    except FirstColumn:
        pass
    assert len(made) == 2 * (model.config.num_hidden_layers + model.config.num_hidden_layers_sub)
    stated = host.lm_memory(model, duration) - 1024 * (1 << 20)
    assert sum(tensor.nbytes for tensor in made) == stated > 0, duration
"""
    )


@pytest.mark.skipif(not (ROOT / "songgen_core" / "fast").is_dir(), reason="there is no fast engine")
def test_the_stated_kv_caches_are_those_of_the_fast_engine(in_comfyui):
    in_comfyui(
        LOADED
        + CACHES
        + """
from pack.songgen_core.fast import songs as loops
make = loops.make_caches
def noted_as_well(*arguments):
    caches = make(*arguments)
    sizes.extend(cache.nbytes for cache in caches)
    return caches
loops.make_caches = noted_as_well
for duration, songs in ((1.0, 1), (7.0, 3)):
    made.clear()
    sizes = []
    try:
        with torch.inference_mode():
            nodes["GenerateTokens"].execute(model, "[verse] La.", 1, duration, "mixed", candidates=songs)
        raise AssertionError("no column was written")
    except FirstColumn:
        pass
    stated = host.lm_memory(model, duration, songs) - 1024 * (1 << 20)
    assert sum(tensor.nbytes for tensor in made) + sum(sizes) == stated > 0, (duration, songs)
"""
    )


# Peaks of what lives beside the weights, at published sizes: on `meta`, where tensors have no content.
PEAK = """
import weakref
from types import SimpleNamespace
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

class Peak(TorchDispatchMode):
    # Counts the bytes of all storages that are made in the block and still alive.
    def __init__(self):
        super().__init__()
        self.alive = self.most = 0
        self.known = set()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        old = self.known | {id(storage) for storage in self.storages((arguments, keywords))}
        for storage in self.storages(result):
            if id(storage) not in old:
                self.add(storage)
        return result

    def storages(self, tree):
        return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]

    def add(self, storage):
        size, name = storage.nbytes(), id(storage)
        self.known.add(name)
        self.alive += size
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self.remove, name, size)

    def remove(self, name, size):
        self.known.discard(name)
        self.alive -= size

META = torch.device("meta")
"""


def test_the_peak_counter_counts(in_comfyui):
    in_comfyui(
        PEAK
        + """
with torch.inference_mode(), Peak() as peak:
    a = torch.zeros(1000, device=META)  # 4 kB
    b = a.view(10, 100).T  # nothing
    c = (a + 1) * 2  # two of them, one of which goes
    del a
    d = torch.zeros(500, device=META)
assert (peak.most, peak.alive) == (12000, 10000), (peak.most, peak.alive)  # b holds on to a
"""
    )


def test_the_language_model_needs_no_more_than_is_stated(in_comfyui):
    in_comfyui(
        PEAK
        + """
from pack.songgen_core.generation.autoregressive import decode_one_frame, prefill
from pack.songgen_core.models.lelm import Conditions, LeLM

def peak_of(c, dtype):
    # Longest song: the caches and the most that was alive, in bytes.
    with META:
        lm = LeLM(c).to(dtype).requires_grad_(False)
        words = torch.zeros(2, c.lyrics_length, dtype=torch.int64)
        style = torch.zeros(2, c.description_length, dtype=torch.int64)
        prompt = torch.zeros(2, c.num_codebooks, c.prompt_length - 1, dtype=torch.int64)
        column = torch.zeros(c.num_codebooks, dtype=torch.int64)
    positions = c.max_seq_len(c.max_frames)
    with torch.inference_mode(), Peak() as peak:
        cache = lm.make_cache(2, positions, dtype, META)
        held = peak.alive
        prefill(lm, Conditions(words, words, style, prompt), column, cache)
        for part in cache:
            part.length = positions - 1
        decode_one_frame(lm, column, cache)
    return held, peak.most

for dtype in (torch.float16, torch.float32):
    for name, variant in VARIANTS.items():
        model = SimpleNamespace(config=variant.lm, dtype=dtype, is_quick=False)
        stated = host.lm_memory(model, variant.lm.max_duration)
        held, most = peak_of(variant.lm, dtype)
        print(f"{name} {dtype}: caches {held >> 20}, peak {most >> 20}, stated {stated >> 20} MB")
        assert held < most <= stated, (name, dtype, held, most, stated)
"""
    )


def test_the_renderer_and_the_vae_need_no_more_than_is_stated(in_comfyui):
    in_comfyui(
        PEAK
        + """
from pack.songgen_core.codec import CHUNK_FRAMES
from pack.songgen_core.configs import OobleckConfig, RendererConfig
from pack.songgen_core.generation.flow import guided_velocity
from pack.songgen_core.models.flow_renderer import FlowRenderer
from pack.songgen_core.models.oobleck import OobleckVAE

config = RendererConfig()
with META:
    codes = torch.zeros(1, config.window_frames, dtype=torch.int64)
    vae = OobleckVAE(OobleckConfig(), with_encoder=False).requires_grad_(False)
    latents = torch.zeros(1, config.latent_dim, CHUNK_FRAMES)
with torch.inference_mode(), Peak() as decoding:
    vae.decode(latents)
for dtype in (torch.float16, torch.float32):
    with META:
        renderer = FlowRenderer(config).to(dtype).requires_grad_(False)
    renderer.compute_dtype = dtype
    with torch.inference_mode(), Peak() as peak:
        noise, known = torch.zeros(2, 1, config.window_frames, config.latent_dim, device=META)
        condition = renderer.condition(codes, codes)
        velocity = guided_velocity(renderer, noise, noise[0, 0, 0], condition, known, 250, 1.5)
    assert velocity.shape == noise.shape
    most = max(peak.most, decoding.most)
    print(f"{dtype}: step {peak.most >> 20}, VAE {decoding.most >> 20} MB")
    assert 100 << 20 < most <= host.render_memory()
"""
    )
