"""From lyrics to audio with the self-test model."""

import random
import time

import numpy as np
import pytest
import torch

from songgen_core import (
    Cancelled,
    LyricsError,
    Progress,
    Prompt,
    RenderOptions,
    SamplingOptions,
    SongPipeline,
    UserError,
)
from songgen_core.generation.windows import output_samples

LYRICS = "[intro-short] ; [verse] Morning light on the window. I am on my way. ; [outro-short]"
FAST = RenderOptions(num_steps=2)


@pytest.fixture(scope="module")
def pipeline() -> SongPipeline:
    return SongPipeline.from_pretrained("selftest", device="cpu")


def test_a_song_has_the_length_that_was_asked_for(pipeline: SongPipeline) -> None:
    song = pipeline.generate(LYRICS, "female, pop", seed=1, duration=2.3, rendering=FAST)
    assert song.codes.shape == (1, 3, 57)  # int(2.3 * 25): the product is truncated
    assert song.audio["mixed"].shape == (1, 2, output_samples(57, 48000))
    assert song.audio["mixed"].dtype == torch.float32
    assert song.audio["mixed"].isfinite().all()
    assert song.audio["mixed"].std() > 0.01, "noise, but not silence"
    assert not song.ended


def test_longer_than_one_window(pipeline: SongPipeline) -> None:
    song = pipeline.generate(LYRICS, seed=1, duration=45, rendering=RenderOptions(num_steps=1))
    assert song.audio["mixed"].shape[-1] == 45 * 48000


def test_same_seed_same_song_whatever_ran_before(pipeline: SongPipeline) -> None:
    first = pipeline.generate(LYRICS, "pop", seed=7, duration=1, rendering=FAST)
    pipeline.generate(LYRICS, "rock", seed=8, duration=2, rendering=FAST)
    torch.rand(17)
    fresh = SongPipeline.from_pretrained("selftest", device="cpu")
    for again in (pipeline, fresh):
        second = again.generate(LYRICS, "pop", seed=7, duration=1, rendering=FAST)
        assert torch.equal(first.codes, second.codes)
        assert torch.equal(first.audio["mixed"], second.audio["mixed"])
    other = pipeline.generate(LYRICS, "pop", seed=9, duration=1, rendering=FAST)
    assert not torch.equal(first.codes, other.codes)


def test_lyrics_and_description_reach_the_model(pipeline: SongPipeline) -> None:
    def codes(lyrics: str, description: str) -> torch.Tensor:
        return pipeline.generate(lyrics, description, seed=1, duration=2, rendering=FAST).codes

    song = codes(LYRICS, "pop")
    assert not torch.equal(song, codes(LYRICS, "metal"))
    assert not torch.equal(song, codes(LYRICS.replace("Morning", "Evening"), "pop"))


def test_separate_renders_three_tracks_from_the_same_codes(pipeline: SongPipeline) -> None:
    song = pipeline.generate(LYRICS, seed=3, duration=1, rendering=FAST, output="separate")
    assert song.audio.keys() == {"mixed", "vocal", "bgm"}
    shapes = {a.shape for a in song.audio.values()}
    assert len(shapes) == 1
    assert not torch.equal(song.audio["vocal"], song.audio["bgm"])
    alone = pipeline.codec.render(song.codes, seed=3, output="vocal", rendering=FAST)
    assert torch.equal(alone, song.audio["vocal"])


def test_progress_counts_up_to_the_end_of_each_stage(pipeline: SongPipeline) -> None:
    seen: list[Progress] = []
    pipeline.generate(LYRICS, seed=1, duration=2, rendering=FAST, on_progress=seen.append)
    for stage in ("tokens", "rendering"):
        steps = [p for p in seen if p.stage == stage]
        assert [p.done for p in steps] == list(range(1, steps[-1].total + 1))
    assert {p.stage for p in seen} == {"tokens", "rendering"}


@pytest.mark.parametrize("stage", ["tokens", "rendering"])
def test_cancel_stops_within_a_second_and_leaves_a_usable_pipeline(
    pipeline: SongPipeline, stage: str
) -> None:
    reached = []

    def note(progress: Progress) -> None:
        if progress.stage == stage and not reached:
            reached.append(time.monotonic())

    with pytest.raises(Cancelled):
        pipeline.generate(LYRICS, seed=1, duration=60, on_progress=note, cancelled=lambda: bool(reached))
    assert time.monotonic() - reached[0] < 1
    assert pipeline.generate(LYRICS, seed=1, duration=1, rendering=FAST).seconds == 1
    networks = pipeline.lm, pipeline.codec.renderer, pipeline.codec.vae
    hooks = [m for n in networks for m in n.modules() if m._forward_pre_hooks]
    assert not hooks


def test_no_global_state_is_left_changed(pipeline: SongPipeline) -> None:
    def state() -> tuple:
        return (
            torch.random.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),
            random.getstate(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.benchmark,
        )

    before = state()
    pipeline.generate(LYRICS, seed=1, duration=1, rendering=FAST)
    assert state() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"duration": 0}, "1 to 270 s"),
        ({"duration": -1}, "1 to 270 s"),
        ({"duration": 1e9}, "1 to 270 s"),
        ({"duration": float("nan")}, "1 to 270 s"),
        ({"seed": -1}, "whole number from 0"),
        ({"seed": 2**64}, "whole number from 0"),
        ({"seed": float("nan")}, "whole number from 0"),
        ({"seed": True}, "whole number from 0"),
        ({"output": "drums"}, "mixed, vocal, bgm, separate"),
    ],
)
def test_bad_requests_say_what_is_allowed(pipeline: SongPipeline, changes: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        pipeline.generate(LYRICS, **{"duration": 1, "rendering": FAST, **changes})


def test_bad_options_say_what_is_allowed() -> None:
    for name, value in (("temperature", -1), ("temperature", float("nan")), ("top_k", -1), ("top_p", 2)):
        with pytest.raises(UserError, match=f"{name} is {value}; choose"):
            SamplingOptions(**{name: value})
    for steps in (0, 201, 1.5):
        with pytest.raises(UserError, match=f"steps is {steps}; choose a whole number from 1 to 200"):
            RenderOptions(num_steps=steps)
    with pytest.raises(UserError, match=r"top_k is 5\.5; choose a whole number"):
        SamplingOptions(top_k=5.5)


def test_lyrics_without_a_section_are_refused(pipeline: SongPipeline) -> None:
    with pytest.raises(LyricsError):
        pipeline.generate("just words", duration=1)


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (torch.zeros(1, 3, 0, dtype=torch.long), "one frame at least"),
        (torch.zeros(1, 2, 5, dtype=torch.long), "shape"),
        (torch.full((1, 3, 5), 16384), "knows 0 to 16383"),
        (torch.full((1, 3, 5), -1), "knows 0 to 16383"),
    ],
)
def test_bad_codes_are_refused(pipeline: SongPipeline, codes: torch.Tensor, words: str) -> None:
    with pytest.raises(UserError, match=words):
        pipeline.codec.render(codes)


def test_a_song_that_ends_at_once_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = SongPipeline.from_pretrained("selftest", engine="reference")
    eos = pipeline.lm.config.eos_id
    monkeypatch.setattr(
        "songgen_core.generation.autoregressive.draw", lambda probs, generator: torch.full((3,), eos)
    )
    with pytest.raises(UserError, match="try another seed"):
        pipeline.generate(LYRICS, duration=1)


def test_unknown_devices_are_named() -> None:
    for device in ("toaster", "meta", "cuda:99"):
        with pytest.raises(UserError, match="use auto, cpu, cuda or mps"):
            SongPipeline.from_pretrained("selftest", device=device)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_self_test_model_runs_whatever_precision_is_asked_for(dtype: str) -> None:
    pipeline = SongPipeline.from_pretrained("selftest", device="cpu", dtype=dtype)
    assert pipeline.generate(LYRICS, seed=1, duration=1, rendering=FAST).seconds == 1


def test_results_may_be_changed_in_place(pipeline: SongPipeline) -> None:
    song = pipeline.generate(LYRICS, seed=1, duration=1, rendering=FAST)
    song.audio["mixed"].mul_(0.5)
    song.codes.add_(0)


def test_not_a_number_is_reported_not_sung() -> None:
    pipeline = SongPipeline.from_pretrained("selftest", device="cpu")
    pipeline.lm.heads[0].weight[3] = float("nan")
    with pytest.raises(UserError, match="choose bfloat16 or float32"):
        pipeline.generate(LYRICS, duration=1)


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (torch.zeros(2, 3, 5, dtype=torch.long), r"of shape \[1, 3, frames\]"),
        (torch.zeros(3, 5, dtype=torch.long), r"of shape \[1, 3, frames\]"),
        (torch.zeros(1, 3, 5), "float32"),
        (torch.full((1, 3, 5), 16386), "knows 0 to 16385"),
        (torch.full((1, 3, 5), -1), "knows 0 to 16385"),
    ],
)
def test_bad_prompt_codes_are_refused(pipeline: SongPipeline, codes: torch.Tensor, words: str) -> None:
    with pytest.raises(UserError, match=words):
        pipeline.generate(LYRICS, duration=1, prompt=Prompt(codes))


def test_prompt_codes_steer_the_song(pipeline: SongPipeline) -> None:
    prompt = torch.randint(16384, (1, 3, 250), generator=torch.Generator().manual_seed(0))
    plain = pipeline.generate(LYRICS, seed=1, duration=1, rendering=FAST).codes
    steered = pipeline.generate(LYRICS, seed=1, duration=1, rendering=FAST, prompt=Prompt(prompt)).codes
    assert not torch.equal(plain, steered)
    assert not torch.isin(steered[0, 0], prompt[0, 0]).any(), "the mixed stream must not copy its prompt"
