"""Whole songs by the fast path: the audio of the reference, counted, stopped, alone or together."""

import logging

import pytest
import torch
from torch import Tensor

from songgen_core import Progress, Prompt, RenderOptions, UserError
from songgen_core.codec import render_audio
from songgen_core.errors import Cancelled
from songgen_core.fast.renderer import FastRenderer
from songgen_core.fast.rendering import (
    AudioJoiner,
    RenderTask,
    RenderTricks,
    plan_spans,
    render_audio_fast,
    render_together,
)
from songgen_core.fast.vae import FastVAE, VaeTricks
from songgen_core.generation.windows import crossfade, plan_windows
from songgen_core.selftest import RENDERER_CONFIG, selftest_networks

CPU = torch.device("cpu")
WINDOW, HOP = RENDERER_CONFIG.window_frames, 1920


@pytest.fixture(scope="module")
def networks():
    _, _, renderer, vae = selftest_networks()
    return renderer, vae


def codes_of(frames: int, seed: int = 0) -> Tensor:
    return torch.randint(16384, (1, 3, frames), generator=torch.Generator().manual_seed(seed))


def prompt_of(frames: int = 250, seed: int = 1) -> Prompt:
    generator = torch.Generator().manual_seed(seed)
    names = ("mixed", "vocal", "bgm")
    latents = {n: torch.randn(1, RENDERER_CONFIG.latent_dim, frames, generator=generator) for n in names}
    return Prompt(codes_of(frames + 1, seed), latents, "a recording")


def error(quick: Tensor, exact: Tensor) -> float:
    """Relative to the largest sample. The VAE's random weights amplify a last bit of the latents 500 times,
    so that 5e-7 of the renderer are heard as 2e-4; what is decoded wrongly differs by 1e-2 and more."""
    assert quick.shape == exact.shape and quick.dtype == torch.float32
    return ((quick - exact).abs().max() / exact.abs().max()).item()


@pytest.mark.parametrize(
    ("frames", "prompt_frames", "shifted"),
    [(1, 0, False), (1, 250, True), (960, 0, False), (1000, 50, False), (1001, 0, False), (1760, 250, True)],
)
def test_the_audio_is_that_of_the_reference(networks, frames: int, prompt_frames: int, shifted: bool) -> None:
    prompt = prompt_of(prompt_frames) if prompt_frames else None
    options = RenderOptions(num_steps=2, shifted_prompt=shifted)
    arguments = {"seed": 3, "device": CPU, "output": "vocal", "prompt": prompt, "options": options}
    seen: list[Progress] = []
    exact = render_audio(*networks, codes_of(frames), **arguments)
    quick = render_audio_fast(*networks, codes_of(frames), **arguments, on_progress=seen.append)
    assert error(quick, exact) < 5e-4
    assert [p.done for p in seen] == list(range(1, seen[-1].total + 1))
    assert {p.stage for p in seen} == {"rendering"}
    made = [p.made for p in seen if p.made is not None]
    windows = len(plan_windows(frames + prompt_frames + shifted, prompt_frames, WINDOW).indices)
    assert [m.shape for m in made] == [(WINDOW, RENDERER_CONFIG.latent_dim)] * 2 * windows
    assert not [m for network in networks for m in network.modules() if m._forward_pre_hooks]


def test_the_parts_work_in_the_core_unchanged(networks) -> None:
    arguments = {"seed": 5, "device": CPU, "options": RenderOptions(num_steps=3, guidance_scale=1.0)}
    exact = render_audio(*networks, codes_of(40), **arguments)
    parts = FastRenderer(networks[0], CPU), FastVAE(networks[1], CPU)
    assert error(render_audio(*parts, codes_of(40), **arguments), exact) < 5e-4


def test_songs_together_are_those_songs_alone(networks) -> None:
    """The outputs of a song, and a longer and a shorter one beside it."""
    options, codes = RenderOptions(num_steps=2), codes_of(1300)
    tasks = [
        RenderTask(codes=codes, seed=1),
        RenderTask(codes=codes, seed=1, output="bgm"),
        RenderTask(codes=codes_of(1800, 5), seed=2),
        RenderTask(codes=codes_of(30, 6), seed=3, output="vocal"),
    ]
    seen: list[Progress] = []
    together = render_together(*networks, tasks, device=CPU, options=options, on_progress=seen.append)
    assert seen[-1].done == seen[-1].total == len(seen)
    for task, audio in zip(tasks, together):
        alone = render_audio(
            *networks, task.codes, seed=task.seed, output=task.output, device=CPU, options=options
        )
        assert error(audio, alone) < 5e-4
    assert error(together[1], together[0]) > 0.01, "mix and accompaniment are not the same"


def test_prompts_of_different_length_are_refused(networks) -> None:
    tasks = [RenderTask(codes=codes_of(9), seed=1, prompt=p) for p in (None, prompt_of(50))]
    with pytest.raises(ValueError, match="one length"):
        render_together(*networks, tasks, device=CPU)


@pytest.mark.parametrize(
    ("overlap", "last", "first", "share", "decoded"),
    [
        (20, 30, 90, True, [90, 90, 59]),  # two spans would be more work
        (37, 30, 90, True, [90, 18, 90 - 19, 18, 76 - 19]),
        (45, 0, 90, True, [90, 18, 90 - 27, 18, 54 - 27]),
        (45, 1, 90, True, [90, 18, 90 - 27, 18, 55 - 27]),
        (45, 45, 90, True, [90, 18, 90 - 27, 18, 90 - 27]),
        (45, 45, 54, True, [54, 18, 90 - 27, 18, 90 - 27]),
        (45, 45, 53, True, [53, 90, 18, 90 - 27]),  # the first window does not know the past of the overlap
        (45, 1, 90, False, [90, 90, 55]),
    ],
)
@torch.inference_mode()
def test_audio_that_windows_share_is_decoded_once(
    monkeypatch, overlap: int, last: int, first: int, share: bool, decoded: list[int]
) -> None:
    """In float64, so that nothing but the pasting in float32 differs. `last`: frames behind the overlap."""
    vae = selftest_networks()[3].double()
    sizes = [first, 90, 90]
    starts = [0, first - overlap, first + 90 - 2 * overlap]
    frames = starts[2] + overlap + last
    latents = torch.randn(1, 8, starts[2] + 90, generator=torch.Generator().manual_seed(0)).double()
    windows = [latents[..., start : start + size] for start, size in zip(starts, sizes)]
    exact = crossfade([vae.decode(w) for w in windows], overlap * HOP)[..., : frames * HOP]

    fast = FastVAE(vae, CPU, VaeTricks(tile_last_stage=False))
    seen, chunks, decode = [], [], fast.decode
    monkeypatch.setattr(fast, "decode", lambda x: seen.append(x.shape[-1]) or decode(x))
    joiner = AudioJoiner(fast, overlap, sizes, frames, share)
    for window in windows:
        joiner.add(window, lambda made=None: chunks.append(1))
    audio = joiner.audio()
    assert ((audio - exact).abs().max() / exact.abs().max()).item() < 1e-6
    assert seen == decoded and len(chunks) == len(decoded) == joiner.count_chunks()


def test_nothing_behind_the_song_is_decoded(networks, monkeypatch) -> None:
    decoded, decode = [], FastVAE.decode
    monkeypatch.setattr(FastVAE, "decode", lambda self, x: decoded.append(x.shape[-1]) or decode(self, x))
    render_audio_fast(*networks, codes_of(10), seed=0, device=CPU, options=RenderOptions(num_steps=1))
    assert decoded == [19]  # ten, and nine that they depend on


def test_spans() -> None:
    shared = plan_spans([1000, 1000, 1000], 2000, 250, 9)
    assert shared == [[(0, 1000)], [(0, 9), (241, 1000)], [(0, 9), (241, 500)]]
    assert plan_spans([1000, 1000], 1500, 250, None) == [[(0, 1000)], [(0, 750)]]
    assert plan_spans([1000], 30, 250, 9) == [[(0, 30)]]
    too_short = plan_spans([255, 1000, 1000], 1500, 250, 9)  # the first window does not know its own past
    assert too_short == [[(0, 255)], [(0, 1000)], [(0, 9), (241, 745)]]


@pytest.mark.parametrize("asked", [1, 2, 5, 40])
def test_a_stop_is_heard_at_once(networks, asked: int) -> None:
    calls, seen = [], []

    def cancelled() -> bool:
        calls.append(1)
        return len(calls) >= asked

    with pytest.raises(Cancelled):
        render_audio_fast(
            *networks, codes_of(20), seed=0, device=CPU, cancelled=cancelled, on_progress=seen.append
        )
    assert len(calls) == asked
    assert len(seen) <= asked / 2, "two blocks a step"
    assert not [m for network in networks for m in network.modules() if m._forward_pre_hooks]


@pytest.mark.parametrize("codes", [torch.zeros(1, 3, 4), torch.full((1, 3, 4), 16384), codes_of(3)[:, :2]])
def test_what_is_no_codes_is_refused_as_by_the_reference(networks, codes: Tensor) -> None:
    with pytest.raises(UserError) as exact:
        render_audio(*networks, codes, seed=0, device=CPU)
    with pytest.raises(UserError) as quick:
        render_audio_fast(*networks, codes, seed=0, device=CPU)
    assert str(quick.value) == str(exact.value)


def test_unknown_outputs_and_seeds_are_refused(networks) -> None:
    with pytest.raises(UserError, match="output 'drums'"):
        render_audio_fast(*networks, codes_of(3), seed=0, device=CPU, output="drums")
    with pytest.raises(UserError, match="seed"):
        render_audio_fast(*networks, codes_of(3), seed=-1, device=CPU)


def test_the_log_is_silent_where_all_works(networks, caplog) -> None:
    with caplog.at_level(logging.INFO, "songgen"):
        render_audio_fast(
            *networks,
            codes_of(3),
            seed=0,
            device=CPU,
            options=RenderOptions(num_steps=1),
            tricks=RenderTricks(),
        )
    assert not caplog.text
