"""Recordings to prompts: what is heard, what is asked for, what is kept."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from songgen_core import (
    AudioError,
    Cancelled,
    CheckpointError,
    Progress,
    PromptOptions,
    Recording,
    SongPipeline,
    Source,
    UserError,
)
from songgen_core.prompts import recording as module
from songgen_core.prompts.cache import PromptCache, fingerprint_of
from songgen_core.prompts.clip import clips_of_stems, cut_clip
from songgen_core.prompts.prompt import Prompt
from songgen_core.prompts.readers import PromptReaders
from songgen_core.selftest import selftest_encoders

RATE = 48000


@pytest.fixture(scope="module")
def pipeline() -> SongPipeline:
    return SongPipeline.from_pretrained("selftest", device="cpu")


def tone(seconds: float, hertz: float = 330.0, rate: int = RATE, channels: int = 2) -> Tensor:
    t = torch.arange(round(seconds * rate)) / rate
    return 0.3 * torch.sin(2 * math.pi * hertz * t).expand(channels, -1)


def stems(seconds: float = 3.0) -> Source:
    return Source(vocal=Recording(tone(seconds), RATE), bgm=Recording(tone(seconds, 110.0), RATE))


@pytest.mark.parametrize(
    ("seconds", "codes", "frames"),
    [(0.5, 13, 12), (3.0, 76, 75), (9.99, 250, 249), (10.0, 251, 250), (20.0, 251, 250)],
)
def test_lengths_of_codes_and_latents(
    pipeline: SongPipeline, seconds: float, codes: int, frames: int
) -> None:
    prompt = pipeline.codec.prompt_of(stems(seconds), PromptOptions(start=0.0))
    assert prompt.codes.shape == (1, 3, codes) and prompt.codes.dtype == torch.int64
    assert {name: t.shape[-1] for name, t in prompt.latents.items()} == dict.fromkeys(
        ("mixed", "vocal", "bgm"), frames
    )
    assert all(t.isfinite().all() for t in prompt.latents.values())


def test_each_stream_hears_its_own_stem(pipeline: SongPipeline) -> None:
    here = PromptOptions(start=0.0)
    both = pipeline.codec.prompt_of(stems(), here)
    noise = torch.rand(2, 3 * RATE, generator=torch.Generator().manual_seed(0)) - 0.5
    other_voice = Source(vocal=Recording(noise, RATE), bgm=stems().bgm)
    changed = pipeline.codec.prompt_of(other_voice, here)
    same = [torch.equal(both.codes[:, k], changed.codes[:, k]) for k in range(3)]
    assert same == [False, False, True], "mix and voice changed, the accompaniment did not"
    assert torch.equal(both.latents["bgm"], changed.latents["bgm"])
    assert not torch.equal(both.latents["mixed"], changed.latents["mixed"])


def test_the_seed_draws_the_latents_and_nothing_else(pipeline: SongPipeline) -> None:
    one, again, two = (
        pipeline.codec.prompt_of(stems(1.0), PromptOptions(start=0.0, seed=seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one.latents["mixed"], again.latents["mixed"])
    assert not torch.equal(one.latents["mixed"], two.latents["mixed"])
    assert torch.equal(one.codes, two.codes)


def test_mono_is_heard_like_two_equal_channels(pipeline: SongPipeline) -> None:
    mono = Source(vocal=Recording(tone(3.0, channels=1), RATE))
    stereo = Source(vocal=Recording(tone(3.0, channels=2), RATE))
    codes = [pipeline.codec.prompt_of(s, PromptOptions(start=0.0)).codes for s in (mono, stereo)]
    assert torch.equal(*codes)


def test_odd_sample_rates_take_no_gigabytes(pipeline: SongPipeline) -> None:
    odd = Source(vocal=Recording(tone(3.0, rate=44099), 44099))
    codes = pipeline.codec.prompt_of(odd, PromptOptions(start=0.0)).codes
    assert codes.shape[-1] in (75, 76)


def test_what_is_missing_is_the_difference_or_silence() -> None:
    song, voice = tone(1.0), tone(0.9, 500.0)
    clips = clips_of_stems({"song": song, "vocal": voice})
    assert clips.mix.shape == clips.vocal.shape == clips.bgm.shape == voice.shape
    torch.testing.assert_close(clips.vocal + clips.bgm, clips.mix)
    alone = clips_of_stems({"bgm": song})
    assert torch.equal(alone.mix, song) and not alone.vocal.any()


def test_a_clip_lies_where_it_was_asked_for() -> None:
    ramp = torch.linspace(-0.5, 0.5, 44100 * 4)[None]
    clip = cut_clip(ramp, 44100, start=2.0, seconds=1.0)
    assert clip.shape == (1, RATE)
    assert clip[0, 1000:-1000].mean().item() == pytest.approx(
        ramp[0, 44100 * 2 : 44100 * 3].mean().item(), abs=1e-3
    )
    assert cut_clip(ramp, 44100, start=3.5, seconds=1.0).shape[-1] == pytest.approx(RATE / 2, abs=1)


def test_the_best_part_is_looked_for_unless_it_is_named(pipeline: SongPipeline, monkeypatch) -> None:
    asked: list[float] = []

    def find(samples: Tensor, rate: int, seconds: float) -> float:
        asked.append(seconds)
        return 1.5

    monkeypatch.setattr(module, "find_best_start", find)
    assert "from 1.5 s on" in pipeline.codec.prompt_of(stems(), PromptOptions(seconds=1.0)).about
    assert "from 0.5 s on" in pipeline.codec.prompt_of(stems(), PromptOptions(start=0.5)).about
    assert "from 0.0 s on" in pipeline.codec.prompt_of(stems(), PromptOptions(faithful=True)).about
    assert asked == [1.0]


BAD = {
    "nothing": (lambda: Source(), "no recording is given"),
    "empty": (lambda: Source(vocal=Recording(torch.zeros(2, 0), RATE)), "is empty"),
    "not a number": (lambda: Source(vocal=Recording(torch.full((2, RATE), math.nan), RATE)), "NaN"),
    "integers": (
        lambda: Source(vocal=Recording(torch.zeros(2, 9, dtype=torch.int16), RATE)),
        "must be float",
    ),
    "no rate": (lambda: Source(vocal=Recording(tone(1.0), 0)), "sample_rate is 0"),
    "which one": (
        lambda: Source(vocal=stems().vocal, bgm=Recording(torch.zeros(2, 0), RATE)),
        "bgm: the recording is empty",
    ),
    "less than a frame": (lambda: Source(vocal=Recording(tone(0.03), RATE)), "give 0.04 s at least"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_recordings_are_refused(name: str, pipeline: SongPipeline) -> None:
    make, words = BAD[name]
    with pytest.raises(UserError, match=words) as caught:
        pipeline.codec.prompt_of(make())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        *({"seconds": 0.0}, {"seconds": 10.5}, {"seconds": math.nan}),
        *({"start": -1.0}, {"start": math.inf}, {"start": math.nan}),
    ],
)
def test_bad_options_are_refused(options: dict) -> None:
    with pytest.raises(UserError):
        PromptOptions(**options)


def test_a_start_at_the_very_end_is_refused_before_any_network_runs() -> None:
    networks = {"separator": None, "encoders": None}  # a call of them would fail
    with pytest.raises(AudioError, match=r"the recording is 3\.000 s long; start earlier"):
        source = Source(song=Recording(tone(3.0), RATE))
        module.make_prompt(source, PromptOptions(start=3.0 - 1 / RATE), **networks)
    with pytest.raises(AudioError, match=r"recording of the accompaniment is 2\.000 s long; start"):
        source = Source(vocal=Recording(tone(3.0), RATE), bgm=Recording(tone(2.0), RATE))
        module.make_prompt(source, PromptOptions(start=2.5), **networks)


def test_the_best_part_lies_in_all_recordings(pipeline: SongPipeline) -> None:
    loud_end = torch.cat([0.01 * tone(30.0), tone(15.0)], dim=1)
    source = Source(vocal=Recording(loud_end, RATE), bgm=Recording(tone(12.0), RATE))
    assert module.part_of(source, PromptOptions()).start <= 2.0


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5])
def test_bad_seeds_are_refused(pipeline: SongPipeline, seed) -> None:
    with pytest.raises(UserError, match="seed is"):
        pipeline.codec.prompt_of(stems(), PromptOptions(start=0.0, seed=seed))
    with pytest.raises(UserError, match="seed is"):
        pipeline.codec.encode(stems(), seed=seed)


def test_silence_is_what_the_encoders_hear_none_of() -> None:
    inverted = tone(1.0) * torch.tensor([[1.0], [-1.0]])
    for samples in (torch.zeros(2, RATE), inverted, torch.full((1, RATE), 0.3)):
        assert module.part_of(Source(song=Recording(samples, RATE)), PromptOptions()).is_silent
    assert not module.part_of(Source(song=Recording(tone(1.0), RATE)), PromptOptions()).is_silent


def test_callers_may_change_what_they_get(pipeline: SongPipeline) -> None:
    source = stems(1.0)
    before = source.vocal.samples.clone()
    prompt = pipeline.codec.prompt_of(source, PromptOptions(start=0.0))
    part = module.part_of(source, PromptOptions(start=0.0))
    for tensor in (prompt.codes, *prompt.latents.values(), pipeline.codec.encode(source), part.mix):
        tensor.add_(1)
    assert torch.equal(source.vocal.samples, before)
    mono = module.part_of(Source(song=Recording(tone(1.0, channels=1), RATE)), PromptOptions(start=0.0))
    mono.mix.add_(1)  # two channels of their own


def test_a_long_recording_can_be_stopped_while_it_is_resampled() -> None:
    source = Source(vocal=Recording(tone(60.0, rate=44100), 44100))
    calls = iter([False])
    with pytest.raises(Cancelled):
        module.encode_song(source, separator=None, encoders=None, cancelled=lambda: next(calls, True))


def test_whole_recordings_are_encoded_without_tf32(pipeline: SongPipeline, monkeypatch) -> None:
    entered = []

    @contextmanager
    def exact(device: torch.device) -> Iterator[None]:
        entered.append(device)
        yield

    monkeypatch.setattr(module, "exact_float32", exact)
    pipeline.codec.encode(stems(0.1))
    assert entered == [torch.device("cpu")]


def test_stems_of_different_lengths_are_told_of(pipeline: SongPipeline, caplog) -> None:
    source = Source(vocal=Recording(tone(3.0), RATE), bgm=Recording(tone(1.0), RATE))
    assert pipeline.codec.encode(source).shape[-1] == 25
    assert "only the first 1.0 s are in all" in caplog.text


def test_progress_and_cancel(pipeline: SongPipeline) -> None:
    seen: list[Progress] = []
    pipeline.codec.prompt_of(stems(1.0), PromptOptions(start=0.0), on_progress=seen.append)
    assert [p.done for p in seen] == list(range(1, seen[-1].total + 1))
    calls = iter([False] * 3)
    with pytest.raises(Cancelled):
        pipeline.codec.prompt_of(stems(1.0), PromptOptions(start=0.0), cancelled=lambda: next(calls, True))
    networks = pipeline.codec.readers.encoders().networks
    assert not [m for n in networks for m in n.modules() if m._forward_pre_hooks]


def test_a_whole_recording_becomes_codes(pipeline: SongPipeline) -> None:
    codes = pipeline.codec.encode(stems(41.0))
    assert codes.shape == (1, 3, 41 * 25)
    short = pipeline.codec.encode(stems(0.01))
    assert short.shape == (1, 3, 1)
    with pytest.raises(AudioError):
        pipeline.codec.encode(Source(vocal=Recording(torch.zeros(2, 0), RATE)))


def test_the_beginning_of_a_long_recording_is_coded_as_in_its_first_segment(pipeline: SongPipeline) -> None:
    """40 s and more: the encoder hears the same first segment, whatever follows."""
    long, longer = (pipeline.codec.encode(stems(s)) for s in (45.0, 50.0))
    assert torch.equal(long[..., :1000], longer[..., :1000])


def test_the_cache_knows_what_a_prompt_depends_on(pipeline: SongPipeline, tmp_path) -> None:
    cache = PromptCache(tmp_path / "prompts")
    here = PromptOptions(start=0.0)
    made = pipeline.codec.prompt_of(stems(1.0), here, cache=cache)
    assert len(list(cache.folder.iterdir())) == 1
    for source, options in (
        (stems(1.1), here),
        (Source(vocal=stems(1.0).vocal), here),
        (Source(vocal=stems(1.0).bgm, bgm=stems(1.0).vocal), here),
        (stems(1.0), PromptOptions(start=0.1)),
        (stems(1.0), PromptOptions(start=0.0, seed=1)),
    ):
        pipeline.codec.prompt_of(source, options, cache=cache)
    assert len(list(cache.folder.iterdir())) == 6
    again = pipeline.codec.prompt_of(stems(1.0), here, cache=cache)
    assert torch.equal(made.codes, again.codes) and made.about == again.about
    assert made.latents.keys() == again.latents.keys()
    assert all(torch.equal(made.latents[k], again.latents[k]) for k in made.latents)


def test_a_damaged_entry_is_made_anew_and_a_locked_folder_does_no_harm(tmp_path, caplog) -> None:
    cache = PromptCache(tmp_path / "prompts")
    prompt = Prompt(torch.zeros(1, 3, 5, dtype=torch.long), about="x")
    cache.save("abc", prompt)
    path = next(cache.folder.iterdir())
    path.write_bytes(path.read_bytes()[:20])
    assert cache.load("abc") is None and "made anew" in caplog.text
    blocked = PromptCache(tmp_path / "file" / "prompts")
    (tmp_path / "file").write_text("in the way")
    blocked.save("abc", prompt)
    assert "was not kept" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="file modes are of POSIX")
def test_kept_prompts_may_be_read_by_whoever_may_read_any_new_file(tmp_path) -> None:
    before = os.umask(0o022)
    try:
        PromptCache(tmp_path).save("abc", Prompt(torch.zeros(1, 3, 5, dtype=torch.long)))
    finally:
        os.umask(before)
    assert (tmp_path / "abc.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_folder_that_may_only_be_read_serves(tmp_path, monkeypatch, caplog) -> None:
    cache = PromptCache(tmp_path)
    cache.save("abc", Prompt(torch.zeros(1, 3, 5, dtype=torch.long), about="x"))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    assert cache.load("abc").about == "x" and not caplog.records


def test_a_file_that_another_process_removes_is_no_failure(tmp_path, caplog) -> None:
    (tmp_path / "0.safetensors").symlink_to("gone")
    PromptCache(tmp_path).save("abc", Prompt(torch.zeros(1, 3, 5, dtype=torch.long)))
    assert PromptCache(tmp_path).load("abc") and not caplog.records


def test_without_a_cache_nothing_is_hashed(pipeline: SongPipeline, monkeypatch) -> None:
    monkeypatch.setattr(module, "cache_key", None)  # a call of it would fail
    monkeypatch.setattr(PromptReaders, "fingerprint", None)
    pipeline.codec.prompt_of(stems(0.1), PromptOptions(start=0.0))


def test_another_separator_makes_another_prompt(tmp_path) -> None:
    for name in ("mixed_codec", "codec", "vae", "separator"):
        (tmp_path / name).write_bytes(name.encode())

    class Files:
        codec, vae = tmp_path / "codec", tmp_path / "vae"

        def find(self, kind: str):
            if not (tmp_path / kind).exists():
                raise CheckpointError(kind)
            return tmp_path / kind

    one = PromptReaders(Files()).fingerprint()
    (tmp_path / "separator").write_bytes(b"another")
    two = PromptReaders(Files()).fingerprint()
    (tmp_path / "separator").unlink()
    assert len({one, two, PromptReaders(Files()).fingerprint()}) == 3


def test_the_oldest_prompts_go(tmp_path) -> None:
    cache = PromptCache(tmp_path, kept=3)
    for k in range(5):
        cache.save(f"{k:064x}", Prompt(torch.zeros(1, 3, 5, dtype=torch.long)))
        os.utime(tmp_path / f"{k:064x}.safetensors", (k, k))
    cache.save("f" * 64, Prompt(torch.zeros(1, 3, 5, dtype=torch.long)))
    assert len(list(tmp_path.iterdir())) == 3


def test_fingerprints_tell_files_apart(tmp_path) -> None:
    for name, data in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        (tmp_path / name).write_bytes(data)
    a, b, c = (fingerprint_of([tmp_path / name]) for name in "abc")
    assert a == c != b


def test_the_self_test_encoders_hear_differences() -> None:
    mixed, dual, vae = selftest_encoders()
    high, low = tone(2.0, 2000.0)[None], tone(2.0, 200.0)[None]
    for encoder, stream in ((mixed, 0), (dual, 0), (dual, 1)):
        assert not torch.equal(encoder(high, stream), encoder(low, stream))
    assert vae.decoder is None
