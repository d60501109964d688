"""Memory plans as they are kept: a plan is nothing but switches, and what it counts is what is taken."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from songgen_core import SongPipeline, UserError, pipeline
from songgen_core.engine import Planned, load_engine
from songgen_core.fast.engine import FastEngine
from songgen_core.fast.memory_plan import GB, Estimate, MemoryPlan, make_plan, nbytes, reserve
from songgen_core.fast.options import FastOptions
from songgen_core.fast.peak_memory import PeakMemory
from songgen_core.fast.quantize import QuantizedLinear
from songgen_core.fast.renderer import RendererTricks
from songgen_core.fast.rendering import RenderTricks
from songgen_core.fast.vae import VaeTricks
from songgen_core.selftest import LM_CONFIG, RENDERER_CONFIG, VAE_CONFIG, selftest_networks

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LYRICS = "[verse]\nA little song\n\n[chorus]\nSing it again"
SECONDS = 2
Placement = tuple[list[nn.Module], bool]  # networks, and whether they stay


@pytest.fixture(autouse=True)
def one_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured once is not measured again."""
    monkeypatch.setattr("songgen_core.fast.engine.Estimate", measured)


measured = cache(Estimate)


@pytest.fixture(scope="module")
def plan_of() -> Callable[..., MemoryPlan]:
    """Plans of the self-test model for songs of 2 s."""
    estimate = measured(LM_CONFIG, RENDERER_CONFIG, VAE_CONFIG, dtype=torch.float32, duration=SECONDS)
    return lambda budget, **options: make_plan(budget, estimate, **options)


def first(plan_of: Callable[..., MemoryPlan], wanted: Callable[[MemoryPlan], bool], **options: str) -> float:
    """The smallest budget in GB whose plan works and is as `wanted`."""
    for budget in range(200 * 10**6, 400 * 10**6, 10**6):
        plan = plan_of(budget, **options)
        if plan.works and wanted(plan):
            return budget / GB
    pytest.fail("there is no such budget")


def planned(budget: float, device: torch.device = CUDA, **options: object) -> Planned:
    configs = LM_CONFIG, RENDERER_CONFIG, VAE_CONFIG
    arguments = {"device": device, "dtype": torch.float32, "longest": SECONDS, **options}
    return FastEngine().plan(budget, *configs, **arguments)


# --- what is planned ---------------------------------------------------------------------------------------


def test_each_step_of_a_plan_is_a_switch(plan_of: Callable[..., MemoryPlan]) -> None:
    tight = planned(first(plan_of, lambda p: p.kv == "int8"))
    assert tight.engine.options.kv == "int8" and tight.weights != "native"
    assert tight.low_memory and tight.text_tables_in_ram
    better = planned(first(plan_of, lambda p: (p.weights, p.kv) == ("native", "native")))
    assert better.engine.options.kv == better.weights == "native" and better.low_memory
    together = planned(first(plan_of, lambda p: p.together))
    assert not together.low_memory and together.text_tables_in_ram
    roomy = planned(8)
    assert not roomy.low_memory and not roomy.text_tables_in_ram
    assert roomy.engine.options.songs_at_once == 8 and "8.0 GB of card memory" in roomy.summary
    assert roomy.num_frames == SECONDS * 25 and roomy.budget == 8 * GB


def test_few_songs_and_small_chunks_are_switches_too() -> None:
    large = replace(VAE_CONFIG, channels=64)
    estimate = measured(LM_CONFIG, RENDERER_CONFIG, large, dtype=torch.float32, duration=SECONDS)
    plan = next(p for b in range(200, 2000, 10) if (p := make_plan(b * 10**6, estimate)).works)
    assert plan.chunk_frames == 64
    chosen = FastEngine().plan(
        plan.budget / GB, LM_CONFIG, RENDERER_CONFIG, large, device=CUDA, dtype=torch.float32, longest=SECONDS
    )
    assert isinstance(chosen.engine, FastEngine) and chosen.engine.tricks.vae.chunk_frames == 64


def test_songs_at_once_are_those_beside_what_stays(plan_of: Callable[..., MemoryPlan]) -> None:
    budget = int(first(plan_of, lambda p: p.together) * GB)
    together, apart = plan_of(budget), plan_of(budget, take_turns=True)
    assert together.together and not apart.together
    assert together.most_candidates < apart.most_candidates
    assert planned(budget / GB, low_memory=True).low_memory


def test_weights_that_are_asked_for_stay(plan_of: Callable[..., MemoryPlan]) -> None:
    for weights in ("native", "int8", "fp8", "int4"):
        assert planned(8, weights=weights).weights == weights
    tight = first(plan_of, lambda p: p.weights == "int8")
    with pytest.raises(UserError, match="or leave the choice of weights to the plan"):
        planned(tight, weights="native")


def test_one_memory_for_all_holds_all(plan_of: Callable[..., MemoryPlan]) -> None:
    for device in ("cpu", "mps"):
        plan = plan_of(int(first(plan_of, lambda p: True, device=device) * GB), device=device)
        assert plan.together and not plan.text_tables_in_ram
        assert {"text tables", "renderer", "VAE"} <= plan.writing.keys() & plan.rendering.keys()
        assert plan.peak <= plan.budget
    layers = {device: plan_of(GB, device=device, weights="int8").writing for device in ("cpu", "mps")}
    counted = Estimate(LM_CONFIG, dtype=torch.float32).writing("int8", "native", 1).layers
    copies = layers["cpu"]["language model"] - layers["mps"]["language model"]
    assert copies == counted, "a CPU keeps its kernels' copy of narrow layers"


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_too_small_a_budget_names_one_that_does(device: torch.device) -> None:
    with pytest.raises(UserError, match=r"0\.1 GB are too few to make songs of 2 s; give 0\.\d+ GB") as error:
        planned(0.1, device)
    least = float(str(error.value).split("give ")[1].split(" GB")[0])
    assert planned(least, device).budget == pytest.approx(least * GB)
    with pytest.raises(UserError, match="are too few"):
        planned(least - 0.02, device)


def test_a_shorter_song_is_offered_where_it_helps() -> None:
    estimate = measured(LM_CONFIG, RENDERER_CONFIG, VAE_CONFIG, dtype=torch.float32)
    budget = make_plan(GB // 10, estimate).needed / GB - 0.002
    with pytest.raises(UserError, match=r"or make songs of \d+ s at most") as error:
        planned(budget, longest=None)
    shorter = float(str(error.value).rsplit("make songs of ")[-1].split(" s")[0])
    assert planned(budget, longest=shorter).num_frames == shorter * 25
    with pytest.raises(UserError, match="duration is 500 s"):
        planned(8, longest=500)


# --- what is kept ------------------------------------------------------------------------------------------


def by_hand(weights: str, options: FastOptions, tricks: RenderTricks) -> SongPipeline:
    made = SongPipeline.from_pretrained("selftest", device="cpu", weights=weights)
    made.engine = FastEngine(options, tricks)
    made.codec._render_audio = made.engine.render_audio
    return made


@pytest.mark.parametrize("step", ["native", "narrow", "roomy"])
def test_a_song_with_a_plan_is_the_song_with_its_switches(step: str, plan_of, caplog) -> None:
    wanted: dict[str, Callable[[MemoryPlan], bool]] = {
        "native": lambda p: (p.weights, p.kv) == ("native", "native"),
        "narrow": lambda p: (p.weights, p.kv) == ("int8", "int8"),
        "roomy": lambda p: p.most_candidates == 8 and p.budget - p.peak > 60 * 10**6,
    }
    budget = first(plan_of, wanted[step], device="cpu")
    with caplog.at_level("INFO", logger="songgen"):
        kept = SongPipeline.from_pretrained("selftest", device="cpu", memory=budget, longest=SECONDS)
    assert "GB of memory, a song of 2 s: takes" in caplog.text
    narrow = "int8" if step == "narrow" else "native"
    options = FastOptions(kv=narrow, pack=step == "roomy", songs_at_once=8 if step == "roomy" else 1)
    tricks = RenderTricks(renderer=RendererTricks(pack=step == "roomy"), vae=VaeTricks(chunk_frames=128))
    kinds = {module.kind for module in kept.lm.modules() if isinstance(module, QuantizedLinear)}
    assert kinds == ({"int8"} if step == "narrow" else set())
    assert isinstance(kept.engine, FastEngine)
    assert (kept.engine.options, kept.engine.tricks) == (options, tricks)
    one, two = (
        p.generate(LYRICS, "pop", seed=3, duration=SECONDS) for p in (kept, by_hand(narrow, options, tricks))
    )
    assert torch.equal(one.codes, two.codes)
    assert torch.equal(one.audio["mixed"], two.audio["mixed"])


def test_a_planned_song_takes_what_was_planned(plan_of) -> None:
    """Weights and all tensors together, on the CPU."""
    budget = first(plan_of, lambda p: p.weights == "native", device="cpu")
    kept = SongPipeline.from_pretrained("selftest", device="cpu", memory=budget, longest=SECONDS)
    with PeakMemory() as memory:
        kept.generate(LYRICS, seed=3, duration=SECONDS)
    taken = nbytes(kept.lm, kept.codec.renderer, kept.codec.vae) + memory.peak
    room = budget * GB - reserve(int(budget * GB))
    assert 0.5 * room < taken <= room


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> tuple[SongPipeline, list[Placement]]:
    """A pipeline whose plan is one of a tight card, on the CPU; and what it placed."""
    placements: list[Placement] = []
    placed = pipeline.placed

    def watched(networks, device, *, stay):
        placements.append((list(networks), stay))
        return placed(networks, device, stay=stay)

    monkeypatch.setattr(pipeline, "placed", watched)
    plan = replace(planned(8), low_memory=True, text_tables_in_ram=True)
    plain = SongPipeline.from_pretrained("selftest", device="cpu")
    kept = SongPipeline(
        plain.lm, plain.tokenizers, plain.codec, name="t", device=CPU, dtype=torch.float32, plan=plan
    )
    return kept, placements


def test_text_tables_stay_where_they_are(in_turn) -> None:
    kept, placements = in_turn
    song = kept.generate(LYRICS, "pop", seed=3, duration=1)
    (writing, stayed), (rendering, _) = placements
    assert not stayed
    modules = {id(m) for network in writing for m in network.modules()}
    left = {name for name, m in kept.lm.named_modules() if id(m) not in modules and m is not kept.lm}
    assert left and all(name.split(".")[0] == "conditioner" for name in left)
    assert rendering == [kept.codec.renderer, kept.codec.vae]
    plain = SongPipeline.from_pretrained("selftest", device="cpu").generate(LYRICS, "pop", seed=3, duration=1)
    assert torch.equal(song.codes, plain.codes)


def test_torch_is_held_to_the_budget_only_while_it_works(in_turn, monkeypatch) -> None:
    kept, _ = in_turn
    limits: list[object] = []
    limited = pipeline.limited

    def watched(device, budget):
        limits.append(budget)
        return limited(device, budget)

    monkeypatch.setattr(pipeline, "limited", watched)
    for _ in kept.generate_candidates(LYRICS, seeds=[1, 2], duration=1):
        pass
    assert limits == [8 * GB] * 3, "one pass that writes, two songs rendered"


def test_a_recording_is_read_while_no_other_network_is_there(in_turn, monkeypatch) -> None:
    kept, _ = in_turn
    moved = []
    monkeypatch.setattr(nn.Module, "to", lambda self, *args: moved.append((self, args)) or self)
    source, cached, seen = object(), object(), []

    def make_prompt(given, options, *, separator, encoders, cache, **rest):
        if cache is not cached:
            with pytest.raises(ZeroDivisionError):
                encoders()
        seen.append(len(moved))

    monkeypatch.setattr("songgen_core.codec.make_prompt", make_prompt)
    monkeypatch.setattr(kept.codec, "_placed_encoders", lambda *args: 1 / 0)
    monkeypatch.setattr(kept.codec.readers, "fingerprint", lambda: "")
    kept.prompt_of(source, cache=cached)
    assert seen == [0], "a prompt of the cache needs no room"
    kept.prompt_of(source)
    assert seen == [0, 3]
    assert {id(m) for m, _ in moved} == {id(m) for m in (kept.lm, kept.codec.renderer, kept.codec.vae)}
    assert all(args == ("cpu",) for _, args in moved)


def test_longer_songs_than_planned_are_refused() -> None:
    kept = SongPipeline.from_pretrained("selftest", device="cpu", memory=1, longest=SECONDS)
    for duration in (3, None):
        with pytest.raises(UserError, match="memory is planned for songs of 2 s; give a duration of no more"):
            kept.generate(LYRICS, duration=duration)
    assert kept.generate(LYRICS, duration=1).seconds == 1


def test_a_bad_budget_is_refused_before_anything_is_read(monkeypatch) -> None:
    monkeypatch.setattr(pipeline, "selftest_networks", lambda: pytest.fail("read too early"))
    for memory in (0, -1, float("nan"), 5000):
        with pytest.raises(UserError, match="is none; give it in GB"):
            SongPipeline.from_pretrained("selftest", device="cpu", memory=memory)
    with pytest.raises(UserError, match="a budget of memory needs the engine 'auto'"):
        SongPipeline.from_pretrained("selftest", device="cpu", memory=8, engine="reference")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    with pytest.raises(UserError, match="on the current card alone"):
        load_engine().check_memory(8, torch.device("cuda", 1))


def test_less_free_memory_than_planned_is_warned_of(monkeypatch, caplog) -> None:
    monkeypatch.setattr("songgen_core.fast.engine.free_memory", lambda: 3 * GB)
    load_engine().check_memory(2, CPU)
    assert not caplog.records
    load_engine().check_memory(8, CPU)
    assert "memory of 8 GB is planned, but only 3.0 GB are free" in caplog.text


# --- on a card ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("step", ["in turn", "together"])
def test_a_song_within_a_budget_on_a_card(step: str, plan_of) -> None:
    """Text tables in RAM, networks in turn or side by side: the song is that of the switches alone."""
    together = step == "together"
    budget = first(plan_of, lambda p: (p.weights, p.kv, p.together) == ("native", "native", together))
    kept = SongPipeline.from_pretrained("selftest", device="cuda", memory=budget, longest=SECONDS)
    assert kept.plan is not None and kept.plan.text_tables_in_ram and kept.low_memory != together
    before = torch.cuda.get_per_process_memory_fraction(0)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    one = kept.generate(LYRICS, "pop", seed=3, duration=SECONDS)
    assert torch.cuda.max_memory_reserved() <= kept.plan.budget
    assert torch.cuda.get_per_process_memory_fraction(0) == before
    homes = [kept.lm.main.norm.weight, kept.codec.renderer.estimator.proj_out.weight]
    assert [t.device.type for t in homes] == ["cuda" if together else "cpu"] * 2
    assert kept.lm.conditioner.lyrics_embedding.weight.device.type == "cpu"
    plain = SongPipeline.from_pretrained("selftest", device="cuda")
    two = plain.generate(LYRICS, "pop", seed=3, duration=SECONDS)
    assert torch.equal(one.codes, two.codes)
    assert (one.audio["mixed"] - two.audio["mixed"]).abs().max() < 1e-4
    assert selftest_networks()[0].config == kept.lm.config
