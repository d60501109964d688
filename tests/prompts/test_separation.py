"""Stems: every kind of file, exactly demucs's own result, and prompts that lie where they were asked for.

`Splitter` stands for the network where only time and level matter: its stems are fixed shares of the mix.
"""

import json
import random
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from songgen_core.audio.resample import resample_pyav
from songgen_core.errors import AudioError, Cancelled, CheckpointError, UserError
from songgen_core.layers.resample import resample
from songgen_core.prompts.load_separator import STEMS, load_separator, selftest_separator
from songgen_core.prompts.separation import prompt_stems, separate, split_stems

apply = pytest.importorskip("demucs.apply", reason="the separator needs demucs")
htdemucs = pytest.importorskip("demucs.htdemucs")

SIZES = {
    "channels": 8,
    "bottom_channels": 16,
    "t_layers": 3,
    "t_heads": 2,
    "samplerate": 1000,
    "segment": Fraction(5, 2),
}
SOURCES = ["drums", "bass", "other", "vocals"]
SETTINGS = {"samplerate": "1000", "segment": "5/2", "t_heads": "2"}
SHARES = {"drums": 0.1, "bass": 0.2, "other": 0.3, "vocal": 0.4}


def network(**changes: object) -> nn.Module:
    """HTDemucs as demucs itself makes it, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = htdemucs.HTDemucs(SOURCES, dconv_mode=3, **{**SIZES, **changes})
        for name, parameter in made.named_parameters():
            if "scale" in name:  # which begin so small that nothing passes
                nn.init.uniform_(parameter, 0.1, 0.5)
    return made.eval()


NETWORK = network()


@pytest.fixture
def separator(tmp_path) -> nn.Module:
    save_file(NETWORK.state_dict(), tmp_path / "tiny.safetensors", metadata=SETTINGS)
    return load_separator(tmp_path / "tiny.safetensors")


class Splitter(nn.Module):
    """Every stem is a share of the mix; counts how often it runs."""

    def __init__(self, samplerate: int = 44100, segment: float = 0.25) -> None:
        super().__init__()
        self.shares = nn.Parameter(torch.tensor(list(SHARES.values())))
        self.samplerate, self.segment, self.sources = samplerate, segment, list(STEMS)
        self.runs = 0

    def forward(self, mix: Tensor) -> Tensor:
        self.runs += 1
        return self.shares[:, None, None] * mix[:, None]

    def valid_length(self, length: int) -> int:
        return int(self.samplerate * self.segment)


def noise(channels: int, length: int, seed: int = 0) -> Tensor:
    """With an offset, and nothing near half the sample rate, so that resampling loses nothing."""
    white = torch.randn(channels, length, generator=torch.Generator().manual_seed(seed))
    spectrum = torch.fft.rfft(white)
    spectrum[:, int(spectrum.shape[1] * 0.3) :] = 0
    return 0.2 * torch.fft.irfft(spectrum, n=length) + 0.01


def same_weights(loaded: nn.Module, state: dict[str, Tensor]) -> bool:
    ours = loaded.state_dict()
    return ours.keys() == state.keys() and all(torch.equal(ours[k], state[k].float()) for k in state)


def package(**changes: object) -> dict:
    """What Meta's .th files hold; the class is stored by its name alone."""
    kwargs = {"sources": SOURCES, "dconv_mode": 3, "freq_emb": 0.2, "t_emb": "sin", **SIZES}
    state = {name: tensor.half() for name, tensor in NETWORK.state_dict().items()}
    whole = {"klass": htdemucs.HTDemucs, "args": (), "kwargs": kwargs, "state": state}
    return {**whole, "training_args": {"optim": {"lr": 3e-4}, "dset": ["musdb", None]}, **changes}


# Files


@pytest.mark.parametrize("name", ["htdemucs.pth", "htdemucs.safetensors", "wrapped.ckpt"])
def test_published_table_of_tensors(tmp_path, name):
    state = network(t_heads=8).state_dict()
    if name.endswith("safetensors"):
        save_file(state, tmp_path / name)
    else:
        torch.save({"state_dict": state} if name == "wrapped.ckpt" else state, tmp_path / name)
    loaded = load_separator(tmp_path / name)
    assert same_weights(loaded, state)
    assert loaded.sources == ["drums", "bass", "other", "vocal"] and not loaded.training
    assert (loaded.samplerate, loaded.segment) == (44100, Fraction(39, 5))
    assert not any(p.requires_grad or p.dtype != torch.float32 for p in loaded.parameters())


def test_metas_package(tmp_path):
    torch.save(package(), tmp_path / "955717e8.th")
    before = set(torch.serialization.get_safe_globals())
    loaded = load_separator(tmp_path / "955717e8.th")
    assert same_weights(loaded, package()["state"])
    assert loaded.sources[-1] == "vocal"
    assert (loaded.samplerate, loaded.segment) == (1000, Fraction(5, 2))
    assert loaded.crosstransformer.layers[0].self_attn.num_heads == 2
    assert set(torch.serialization.get_safe_globals()) == before


def test_metas_safetensors(tmp_path):
    segment = {"_type": "fraction", "numerator": 5, "denominator": 2}
    notes = {"klass": "demucs.htdemucs.HTDemucs", "args": "[]"}
    notes["kwargs"] = json.dumps({**package()["kwargs"], "segment": segment})
    save_file(package()["state"], tmp_path / "a.safetensors", metadata=notes)
    loaded = load_separator(tmp_path / "a.safetensors")
    assert same_weights(loaded, package()["state"]) and loaded.segment == Fraction(5, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": 16, "bottom_channels": 0, "t_hidden_scale": 2.0},
        {"depth": 3, "nfft": 2048, "growth": 3},
        {"bottom_channels": 24, "t_layers": 1, "t_hidden_scale": 2.5},
    ],
)
def test_sizes_are_read_from_the_weights(tmp_path, changes):
    made = network(**changes)
    save_file(made.state_dict(), tmp_path / "a.safetensors", metadata=SETTINGS)
    loaded = load_separator(tmp_path / "a.safetensors")
    mix = noise(2, 2500)[None]
    with torch.no_grad():
        assert torch.equal(loaded(mix), made(mix))


def test_loading_leaves_global_randomness_alone(tmp_path):
    save_file(NETWORK.state_dict(), tmp_path / "a.safetensors", metadata=SETTINGS)
    before = torch.random.get_rng_state(), random.getstate()
    load_separator(tmp_path / "a.safetensors")
    assert torch.equal(torch.random.get_rng_state(), before[0]) and random.getstate() == before[1]


def test_without_demucs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "demucs.htdemucs", None)
    with pytest.raises(UserError, match=r'pip install "demucs>=4\.1"'):
        load_separator(tmp_path / "a.pth")


class Evil:
    """A pickle that writes a file where it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (str(self.path), "w"))


def test_files_that_would_run_code(tmp_path):
    evil, path = Evil(tmp_path / "evil"), tmp_path / "a.th"
    for content in (
        {**NETWORK.state_dict(), "evil": evil},
        package(training_args=evil),
        package(klass=nn.Linear),
        package(kwargs={**package()["kwargs"], "segment": evil}),
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match="refused"):
            load_separator(path)
    assert not evil.path.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"klass": "demucs.htdemucs.HTDemucs"}, "no HTDemucs as Meta publishes it"),
        ({"args": (SOURCES,)}, "no HTDemucs as Meta publishes it"),
        ({"state": {"__quantized": True}}, "no table of named tensors"),
        ({"state": None}, "no table of named tensors"),
        ({"kwargs": None}, "no table of named tensors"),
        ({"kwargs": {"sources": [*SOURCES, "piano"]}}, r"splits into .*'piano'.*, not into drums, bass"),
        ({"kwargs": {"sources": None}}, "splits into None"),
        ({"kwargs": {"t_sparse_self_attn": True}}, "t_sparse_self_attn is True, not False"),
        ({"kwargs": {"freq_emb": 0.4}}, r"freq_emb is 0\.4, not 0\.2"),
        ({"kwargs": {"segment": 0}}, r"make no sense \(segment 0\)"),
        ({"kwargs": {"segment": "1e999999999"}}, "make no sense"),
        ({"kwargs": {"segment": None}}, "make no sense"),
        ({"kwargs": {"samplerate": float("inf")}}, "make no sense"),
        ({"kwargs": {"t_heads": 3}}, "make no network"),
    ],
)
def test_packages_of_other_networks(tmp_path, changes, message):
    torch.save(package(**changes), tmp_path / "a.th")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_separator(tmp_path / "a.th")
    assert "\n" not in str(caught.value) and "a.th" in str(caught.value)


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({"samplerate": "fast"}, r"make no sense \(samplerate 'fast'\)"),
        ({"segment": "5/0"}, "make no sense"),
        ({"kwargs": "{"}, "metadata is damaged"),
        ({"kwargs": "[]"}, "no table of settings"),
        ({"kwargs": '{"segment": {"numerator": 5}}'}, "make no sense"),
    ],
)
def test_metadata_that_makes_no_sense(tmp_path, notes, message):
    save_file(NETWORK.state_dict(), tmp_path / "a.safetensors", metadata=notes)
    with pytest.raises(CheckpointError, match=message):
        load_separator(tmp_path / "a.safetensors")


def test_other_and_damaged_tables(tmp_path):
    state, path = NETWORK.state_dict(), tmp_path / "a.pth"

    def failure(content: object) -> str:
        torch.save(content, path)
        with pytest.raises(CheckpointError) as caught:
            load_separator(path)
        return str(caught.value)

    assert "holds no HTDemucs network" in failure({"weight": torch.zeros(3)})
    assert "holds no HTDemucs network" in failure({})
    assert "no table of named tensors" in failure([torch.zeros(3)])
    fewer = {name: tensor for name, tensor in state.items() if name != "decoder.1.rewrite.bias"}
    assert "1 missing (decoder.1.rewrite.bias)" in failure(fewer)
    assert "1 unexpected (more)" in failure({**state, "more": torch.zeros(1)})
    assert "1 of another shape (decoder.1.rewrite.bias" in failure(
        {**fewer, "decoder.1.rewrite.bias": torch.zeros(3)}
    )
    assert "encoder layers" in failure(
        state | {f"encoder.{i}.conv.weight": torch.zeros(8, 4, 8, 1) for i in range(99)}
    )


def test_damaged_files(tmp_path):
    path = tmp_path / "htdemucs.th"
    with pytest.raises(CheckpointError, match="does not exist"):
        load_separator(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match="Git-LFS pointer"):
        load_separator(path)
    path.write_text("<!doctype html>")
    with pytest.raises(CheckpointError, match="no PyTorch file"):
        load_separator(path)
    torch.save(package(), path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load_separator(path)
    with pytest.raises(CheckpointError, match=r"unknown kind of weight file '\.yaml'"):
        load_separator(path.rename(tmp_path / "htdemucs.yaml"))


# Separation


@pytest.mark.parametrize(("seed", "shifts"), [(None, 1), (5, 0), (5, 1), (6, 3)])
@pytest.mark.parametrize("length", [1200, 6000])
def test_exactly_what_demucs_makes(separator, seed, shifts, length):
    audio = noise(2, length)
    mono = audio.mean(0)
    random.seed(seed)
    with torch.no_grad():
        expected = apply.apply_model(
            separator, ((audio - mono.mean()) / mono.std())[None], shifts=0 if seed is None else shifts
        )
    expected = expected[0] * mono.std() + mono.mean()
    stems = separate(separator, audio, seed=seed, shifts=shifts)
    assert tuple(stems) == STEMS
    for stem, recorded in zip(stems.values(), expected):
        assert torch.equal(stem, recorded) and stem.shape == (2, length)


@pytest.mark.parametrize("kind", ["loaded", "selftest"])
def test_the_seed_decides_and_nothing_else(separator, kind):
    separator = separator if kind == "loaded" else selftest_separator()
    audio = noise(2, 3000)
    kept, before = audio.clone(), (torch.random.get_rng_state(), random.getstate())
    first, again, other = (separate(separator, audio, seed=seed)["vocal"] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert torch.equal(audio, kept)


@pytest.mark.parametrize(
    "audio", [torch.zeros(2, 3000), torch.full((2, 3000), 0.5), torch.ones(2, 1), torch.full((2, 9), 1e-30)]
)
def test_silence_has_silent_stems(separator, audio):
    for stem in separate(separator, audio, seed=1).values():
        assert torch.equal(stem, torch.zeros_like(audio))


def test_quiet_and_opposed_channels_give_no_nan(separator):
    audio = noise(1, 3000)
    for pair in (torch.cat([audio, -audio]), 1e-6 * torch.cat([audio, audio])):
        assert all(stem.isfinite().all() for stem in separate(separator, pair, seed=1).values())


def test_stems_can_be_changed_and_the_separator_used_again(separator):
    with torch.inference_mode():
        first = separate(separator, noise(2, 3000), seed=1)
    again = separate(separator, noise(2, 3000), seed=1)
    assert all(torch.equal(first[name], again[name]) for name in STEMS)
    again["vocal"].mul_(2.0)
    assert torch.equal(first["drums"], again["drums"])


@pytest.mark.parametrize(("seed", "shifts", "overlap"), [(None, 1, 0.25), (3, 1, 0.25), (3, 2, 0.5)])
def test_progress_counts_the_runs_of_the_network(seed, shifts, overlap):
    splitter, seen = Splitter(samplerate=1000), []
    separate(splitter, noise(2, 1900), seed=seed, shifts=shifts, overlap=overlap, on_progress=seen.append)
    assert splitter.runs > 5 * max(shifts, 1)
    assert [(p.stage, p.done, p.total) for p in seen] == [
        ("separating", done, splitter.runs) for done in range(splitter.runs + 1)
    ]


def test_a_stop_takes_effect_within_a_chunk_and_leaves_no_trace(separator):
    asked = []

    def cancelled() -> bool:
        asked.append(None)
        return len(asked) > 5

    done = []
    with pytest.raises(Cancelled):
        separate(separator, noise(2, 9000), seed=1, on_progress=done.append, cancelled=cancelled)
    assert len(asked) == 6 and [p.done for p in done] == [0]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in separator.modules())


def test_what_a_listener_returns_is_not_taken_for_stems():
    splitter = Splitter(samplerate=1000)
    stems = separate(splitter, noise(2, 900), seed=1, on_progress=lambda progress: torch.zeros(1))
    assert stems["vocal"].abs().max() > 0


@pytest.mark.parametrize(
    ("audio", "options", "message"),
    [
        (torch.zeros(2, 0), {}, "empty"),
        (torch.zeros(1, 9), {}, "two channels, not 1; use split_stems"),
        (torch.full((2, 9), float("nan")), {}, "invalid samples"),
        (noise(2, 900), {"shifts": -1}, "shifts is -1"),
        (noise(2, 900), {"overlap": 1.0}, "overlap 1.0"),
        (noise(2, 900), {"overlap": 0.99999}, "no step between chunks"),
    ],
)
def test_unusable_input(audio, options, message):
    with pytest.raises(UserError, match=message):
        separate(Splitter(samplerate=1000), audio, **{"seed": 1, **options})


# Stems and prompts of recordings at any rate


def assert_shares(stems: dict[str, Tensor], audio: Tensor, margin: int = 200) -> None:
    for name, share in SHARES.items():
        error = (stems[name] - share * audio)[:, margin:-margin].abs().max()
        # Demucs adds the mean of the recording to each of the four stems.
        assert error < 1e-3 + abs(float(audio.mean())), name


@pytest.mark.parametrize("rate", [22050, 44100, 48000, 44056])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_stems_keep_rate_length_and_place(rate, channels):
    audio = noise(channels, rate // 2 + 77)
    stems = split_stems(Splitter(), audio, rate, seed=1)
    assert tuple(stems) == STEMS
    assert all(stem.shape == (2, audio.shape[1]) and stem.dtype == torch.float32 for stem in stems.values())
    assert_shares(stems, audio.expand(2, -1) if channels == 1 else audio[:2])


def assert_prompt(vocal: Tensor, bgm: Tensor, mix: Tensor) -> None:
    """The sum is the mix [2, M] and the vocal its share, but for the edges of the filters."""
    assert vocal.shape == bgm.shape == mix.shape and vocal.dtype == bgm.dtype == torch.float32
    inner = slice(300, -300)
    assert float((vocal + bgm - mix)[:, inner].abs().max()) < 1e-6
    assert float((vocal - SHARES["vocal"] * mix)[:, inner].abs().max()) < 1e-3 + abs(float(mix.mean()))


@pytest.mark.parametrize("rate", [11025, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("start", [0, 1, 12_345])
def test_prompt_lies_where_it_was_asked_for(rate, start):
    audio = noise(2, 3 * rate)
    vocal, bgm = prompt_stems(Splitter(), audio, rate, start=start, seconds=0.5, seed=1)
    assert_prompt(vocal, bgm, resample(audio[:, start : start + rate], rate, 48000)[:, :24000])


def test_odd_rates_need_no_gigabytes():
    """The windowed sinc would take a filter for each of 48000 phases."""
    rate, start = 44099, 30_001
    audio = noise(2, 3 * rate)
    vocal, bgm = prompt_stems(Splitter(), audio, rate, start=start, seconds=0.5, seed=1)
    at48 = resample_pyav(audio, rate, 48000)
    first = round(start * 48000 / rate)
    assert_prompt(vocal, bgm, at48[:, first : first + 24000])


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("rate", [44100, 48000])
def test_short_recordings_give_short_prompts(rate, faithful):
    audio = noise(2, rate // 3 + 5)
    vocal, bgm = prompt_stems(Splitter(), audio, rate, faithful=faithful, seed=1)
    whole = resample(audio, rate, 48000)
    assert 0 <= whole.shape[1] - vocal.shape[1] <= 1
    assert vocal.shape == bgm.shape
    vocal, bgm = prompt_stems(Splitter(), audio, rate, start=0, seconds=0.1, faithful=faithful, seed=1)
    assert vocal.shape == bgm.shape == (2, 4800)


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("channels", [1, 5])
def test_other_numbers_of_channels(channels, faithful):
    audio = noise(channels, 48000)
    stereo = torch.cat([audio, audio]) if channels == 1 else audio[:2]
    options = {"seconds": 0.5, "faithful": faithful, "seed": 1}
    prompts = prompt_stems(Splitter(), audio, 48000, **options)
    expected = prompt_stems(Splitter(), stereo, 48000, **options)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(prompts, expected))


def test_only_the_wanted_part_and_a_segment_around_it_are_separated():
    rate, segment = 48000, 12_000  # samples of 0.25 s
    audio, start, length = noise(2, 20 * rate), 8 * rate, rate // 2
    splitter = Splitter()
    prompts = prompt_stems(splitter, audio, rate, start=start, seconds=0.5, seed=None)
    assert splitter.runs == 6  # one second of chunks that advance by 0.1875 s
    inside, outside = audio.clone(), audio.clone()
    outside[:, : start - segment - 200] = outside[:, start + length + segment + 200 :] = 0.9
    again = prompt_stems(Splitter(), outside, rate, start=start, seconds=0.5, seed=None)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(prompts, again))
    inside[:, start - segment + 200 : start - 1000] = 0.9
    other = prompt_stems(Splitter(), inside, rate, start=start, seconds=0.5, seed=None)
    assert not torch.equal(prompts[0], other[0])


def test_faithful_prompt_is_the_references():
    """Level and offset of the whole recording, the vocal below full scale and in 16 bits, then 48 kHz."""
    audio = 12.0 * noise(2, 2 * 44100)
    audio[:, 44100:] *= 3
    vocal, bgm = prompt_stems(Splitter(), audio, 44100, faithful=True, seconds=0.5, seed=1)
    stem = separate(Splitter(), audio, seed=1)["vocal"]
    assert stem.abs().max() > 1
    codes = (stem / (1.01 * stem.abs().max()) * 32768).round()
    expected = resample(codes / 32768, 44100, 48000)[:, :24000]
    assert float((vocal - expected).abs().max()) < 1e-6
    mix = resample(audio, 44100, 48000)[:, :24000]
    assert float((vocal + bgm - mix).abs().max()) < 1e-5


def test_the_seed_decides_the_prompt(separator):
    audio = noise(2, 3000)
    first, again, other = (
        prompt_stems(separator, audio, 1000, seconds=2.0, seed=seed)[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (2, 96000)


def test_silent_recordings_give_silent_prompts():
    vocal, bgm = prompt_stems(Splitter(), torch.zeros(2, 48000), 48000, seconds=0.5, seed=1)
    assert vocal.shape == (2, 24000) and not vocal.any() and not bgm.any()


def test_progress_and_stopping_reach_through():
    for split in (split_stems, prompt_stems):
        seen = []
        split(Splitter(), noise(2, 48000), 48000, seed=1, on_progress=seen.append)
        assert seen[-1].done == seen[-1].total > 1
        with pytest.raises(Cancelled):
            split(Splitter(), noise(2, 48000), 48000, seed=1, cancelled=lambda: True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 48000}, r"start is at 1\.0 s, but the recording lasts 1\.0 s; choose an earlier start"),
        ({"start": -1}, "choose an earlier start"),
        ({"start": 9, "faithful": True}, "only the beginning"),
        ({"seconds": 0.0}, r"seconds is 0\.0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seconds": float("inf")}, "seconds is inf"),
        ({"audio": torch.zeros(2, 0)}, "empty"),
        ({"audio": torch.zeros(48000)}, r"\[channels, samples\]"),
        ({"audio": torch.zeros(2, 2)}, "too short"),
    ],
)
def test_unusable_prompts(options, message):
    audio = options.get("audio", noise(2, 48000))
    options = {name: value for name, value in options.items() if name != "audio"}
    with pytest.raises(UserError, match=message):
        prompt_stems(Splitter(), audio, 48000, seed=1, **options)


def test_an_empty_recording_cannot_be_split():
    with pytest.raises(AudioError, match="empty"):
        split_stems(Splitter(), torch.zeros(2, 0), 48000, seed=1)
