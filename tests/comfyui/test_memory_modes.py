"""Songs under ComfyUI's memory flags and on cards of several sizes: the same song, never more than fits.

There is no card: stub_card_pack makes one of RAM, on which the manager's own decisions are real.
"""

import io

import pytest
from comfy_client import ROOT, Client, id_of, song_prompt
from comfy_server import STUB_CARD

soundfile = pytest.importorskip("soundfile")
pytestmark = pytest.mark.comfyui

PARTIALLY, COMPLETELY = "loaded partially", "loaded completely"  # ComfyUI's words
WITH_CARD = {
    ("--lowvram", "--cache-classic"): COMPLETELY,  # there is room
    ("--novram", "--cache-lru", "4"): PARTIALLY,
    ("--highvram", "--bf16-unet"): COMPLETELY,
    ("--gpu-only", "--fp16-unet"): COMPLETELY,
    ("--disable-smart-memory",): COMPLETELY,
}


def song(comfy: Client):
    """Samples, and whether a second run took everything from the cache."""
    prompt = song_prompt(GenerateTokens__seed=71, DiffusionRender__seed=72)
    run = comfy.run(prompt)
    assert run.end == "execution_success", run.error
    (file,) = run.outputs[id_of(prompt, "SaveAudio")]["audio"]
    again = comfy.run(prompt)
    assert again.end == "execution_success", again.error
    return soundfile.read(io.BytesIO(comfy.view(file)))[0], again.executed == set()


@pytest.fixture(scope="module")
def usual(comfy):
    """The song on the CPU, under no flags but --cpu."""
    return song(comfy)[0]


@pytest.mark.parametrize("flags", WITH_CARD, ids=" ".join)
def test_a_song_is_the_same_under_every_flag_for_cards(start_comfy, usual, flags):
    with start_comfy(*flags, packs=(ROOT, STUB_CARD), environment={"STUB_CARD_MB": "6000"}) as server:
        samples, is_cached = song(server)
    assert {words for words in (PARTIALLY, COMPLETELY) if words in server.log} == {WITH_CARD[flags]}
    assert not server.our_tracebacks and "memory leak" not in server.log.lower()
    assert (samples == usual).all() and is_cached


@pytest.mark.parametrize("flags", [("--cache-none",), ("--disable-smart-memory",)], ids=" ".join)
def test_a_song_is_the_same_on_the_cpu(start_comfy, usual, flags):
    with start_comfy("--cpu", *flags) as server:
        samples, is_cached = song(server)
    assert not server.our_tracebacks and "memory leak" not in server.log.lower()
    assert (samples == usual).all() and is_cached == ("--cache-none" not in flags)


CARD = f"import runpy; card = runpy.run_path({str(STUB_CARD / 'prestartup_script.py')!r})"
SONG = """
import gc, weakref
import comfy.model_management as mm, comfy.ops
from comfy.model_patcher import ModelPatcher
GB = 1 << 30

def ballast(count):
    # Layers of 64 MB that nobody calls: they make tiny networks as large as real ones.
    layers = [comfy.ops.disable_weight_init.Linear(4096, 4096, bias=False) for _ in range(count)]
    return torch.nn.ModuleList(layers).requires_grad_(False)

def load():
    with torch.inference_mode():
        model = nodes["LoadLeVoModel"].execute("selftest").result[0]
    for patcher in (model.lm, model.renderer):
        patcher.model.ballast = ballast(12)
        patcher.size = 0  # counted anew
    return model

def write(model, seed=1):
    with torch.inference_mode():
        (codes,), *_ = nodes["GenerateTokens"].execute(model, "[verse] La la la.", seed, 1.0, "mixed").result
        return codes

def render(model, codes):
    with torch.inference_mode():
        return nodes["DiffusionRender"].execute(model, codes, 1, "mixed", 1, 1.5).result[0]["waveform"]

def on_card(patcher):
    known = any(loaded.model is patcher for loaded in mm.current_loaded_models)
    assert known or patcher.loaded_size() == 0, "the manager has forgotten weights on the card"
    return patcher.loaded_size()

placements = []  # weights on the card and bytes asked for beside them, after each placing
place = mm.load_models_gpu
def noted(models, memory_required=0, **options):
    place(models, memory_required=memory_required, **options)
    placements.append((card["used"](), memory_required))
mm.load_models_gpu = noted

model = load()
lm, renderer = model.lm.model_size(), model.renderer.model_size() + model.vae.model_size()
assert 0.7 * GB < min(lm, renderer)
assert host.model_roots() and model.lm.load_device == card["CARD"]
"""


def test_a_card_for_one_network_holds_one_at_a_time(in_comfyui):
    in_comfyui(
        SONG
        + """
mm.stub_card_size = renderer + host.render_memory() + mm.extra_reserved_memory() + 20 * (1 << 20)
codes = write(model)
assert on_card(model.lm) == lm and on_card(model.renderer) == 0
first = render(model, codes)
assert on_card(model.renderer) + on_card(model.vae) == renderer and on_card(model.lm) == 0
assert torch.equal(write(model), codes) and torch.equal(render(model, codes), first)
for weights, working in placements:
    assert working > 0 and weights + working <= mm.stub_card_size, placements
""",
        before=CARD,
    )


def test_a_card_for_all_keeps_all(in_comfyui):
    in_comfyui(
        SONG
        + """
mm.stub_card_size = 8 * GB
codes = write(model)
render(model, codes)
assert on_card(model.lm) == lm and on_card(model.renderer) + on_card(model.vae) == renderer
assert placements[-1][0] == lm + renderer
""",
        before=CARD,
    )


def test_a_card_for_no_network_as_a_whole_makes_the_same_song(in_comfyui):
    in_comfyui(
        SONG
        + """
mm.stub_card_size = 64 * GB
codes = write(model)
usual = render(model, codes)
for state in (mm.VRAMState.NORMAL_VRAM, mm.VRAMState.LOW_VRAM, mm.VRAMState.NO_VRAM):
    mm.unload_all_models()
    assert card["used"]() == 0
    mm.vram_state, mm.stub_card_size = state, host.render_memory() + mm.extra_reserved_memory() + (300 << 20)
    assert torch.equal(write(model), codes) and torch.equal(render(model, codes), usual), state
    assert on_card(model.renderer) < 0.5 * renderer, state
    assert model.renderer.model.model_lowvram
""",
        before=CARD,
    )


def test_songs_that_do_not_fit_together_are_written_in_groups(in_comfyui):
    in_comfyui(
        SONG
        + """
class Noting(type(model.engine)):
    def song_loop(self, lm, device):
        loop = super().song_loop(lm, device)
        def noted(lm, tasks, *arguments, **options):
            groups.append(len(tasks))
            return loop(lm, tasks, *arguments, **options)
        return noted
model = dataclasses.replace(model, engine=Noting())
if not model.is_quick:
    sys.exit()  # the reference writes one by one anyway
long = 100.0
def fits(songs):
    return lm + host.lm_memory(model, long, songs) + mm.extra_reserved_memory() + (2 << 20)
for room, expected in ((fits(4), [4]), (fits(2), [2, 2]), (fits(1), [1, 1, 1, 1]), (1, [1, 1, 1, 1])):
    mm.unload_all_models()
    groups, mm.stub_card_size = [], max(room, fits(1) // 2)
    device, at_once = host.place_for_songs(model, long, 4)
    assert device == card["CARD"] and at_once == expected[0], (room, at_once)
    assert (on_card(model.lm) == lm) == (room > 1)
    host.place_for_songs, placed = lambda *a: (device, at_once), host.place_for_songs
    with torch.inference_mode():
        codes = nodes["GenerateTokens"].execute(model, "[verse] La.", 1, 1.0, "mixed", candidates=4).result[0]
    host.place_for_songs = placed
    assert groups == expected and len(codes) == 4
    first = first if room != fits(4) else codes
    assert all(torch.equal(a, b) for a, b in zip(first, codes))
""",
        before=CARD + "\nimport dataclasses\nfirst = None",
    )


def test_networks_of_others_push_ours_out_and_ours_come_back(in_comfyui):
    in_comfyui(
        SONG
        + """
mm.stub_card_size = 8 * GB
codes = write(model)
usual = render(model, codes)
foreign = ModelPatcher(ballast(8), load_device=card["CARD"], offload_device=torch.device("cpu"))
rest = mm.stub_card_size - 1.1 * foreign.model_size() - mm.extra_reserved_memory()
mm.load_models_gpu([foreign], memory_required=int(rest))
assert on_card(foreign) == foreign.model_size()
assert [on_card(patcher) for patcher in model.get_models()] == [0, 0, 0]
assert torch.equal(write(model), codes) and torch.equal(render(model, codes), usual)
assert on_card(model.lm) == lm
""",
        before=CARD,
    )


def test_nothing_is_held_once_the_model_is_let_go(in_comfyui):
    in_comfyui(
        SONG
        + """
mm.stub_card_size = 8 * GB
tone = {"waveform": torch.rand(1, 2, 48000) - 0.5, "sample_rate": 48000}
def use(model):
    codes = write(model)
    render(model, codes)
    with torch.inference_mode():
        prompt = nodes["AudioPrompt"].execute(model, 1, False, 0.0, 0.5, vocal=tone, bgm=tone).result[0]
        nodes["GenerateTokens"].execute(model, "[verse] La", 1, 1.0, "mixed", prompt=prompt)
        nodes["GenrePrompt"].execute(model, "Pop", "en", 1)
        nodes["SplitStems"].execute(model, codes, 1, 1, 1.5)
use(model)
patchers = model.get_models()
assert len(patchers) == 6  # with what reads recordings
held = [weakref.ref(thing) for patcher in patchers for thing in (patcher, patcher.model)]
held += [weakref.ref(model), weakref.ref(model.readers.core)]
mm.unload_all_models()
assert card["used"]() == 0 and not mm.current_loaded_models
del patchers, model
gc.collect()
assert not [ref() for ref in held if ref() is not None]

# Without unloading, as when another model is chosen: gone all the same, and no leak is noticed.
model = load()
codes = write(model)
held = [weakref.ref(patcher.model) for patcher in model.get_models()]
del model, codes
gc.collect()
assert not [ref() for ref in held if ref() is not None]
mm.cleanup_models_gc()
assert card["used"]() == 0 and not mm.current_loaded_models
""",
        before=CARD,
    )
