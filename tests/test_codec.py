"""Rendering that goes on from a recording, and files of codes."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from songgen_core import Progress, Prompt, RenderOptions, UserError
from songgen_core.codec import SongCodec, render_audio, with_prompt
from songgen_core.codes_file import load_codes, save_codes
from songgen_core.generation.windows import output_samples
from songgen_core.prompts.readers import PromptReaders
from songgen_core.selftest import RENDERER_CONFIG, VAE_CONFIG, selftest_networks

CPU = torch.device("cpu")
FAST = RenderOptions(num_steps=2)


@pytest.fixture(scope="module")
def codec() -> SongCodec:
    _, _, renderer, vae = selftest_networks()
    return SongCodec(renderer, vae, PromptReaders(None), device=CPU)


def codes_of(frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(16384, (1, 3, frames), generator=torch.Generator().manual_seed(seed))


def prompt_of(frames: int = 50, seed: int = 1) -> Prompt:
    generator = torch.Generator().manual_seed(seed)
    names = ("mixed", "vocal", "bgm")
    latents = {n: torch.randn(1, RENDERER_CONFIG.latent_dim, frames, generator=generator) for n in names}
    return Prompt(codes_of(frames + 1, seed), latents, "a recording")


@pytest.mark.parametrize("frames", [1, 30, 960, 1000])
@pytest.mark.parametrize("shifted", [False, True])
def test_the_recording_itself_is_not_in_the_song(codec: SongCodec, frames: int, shifted: bool) -> None:
    options = RenderOptions(num_steps=1, shifted_prompt=shifted)
    seen: list[Progress] = []
    audio = codec.render(codes_of(frames), prompt=prompt_of(), rendering=options, on_progress=seen.append)
    assert audio.shape == (1, 2, output_samples(frames, 48000))
    assert [p.done for p in seen] == list(range(1, seen[-1].total + 1))
    window = (RENDERER_CONFIG.window_frames, RENDERER_CONFIG.latent_dim)
    assert seen[0].made.shape == window and seen[0].made.isfinite().all() and seen[-1].made is None


def test_the_song_goes_on_from_the_recording(codec: SongCodec) -> None:
    codes = codes_of(40)
    plain = codec.render(codes, seed=1, rendering=FAST)
    one, again, other = (
        codec.render(codes, seed=1, prompt=prompt_of(seed=s), rendering=FAST) for s in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, plain) and not torch.equal(one, other)
    shifted = RenderOptions(num_steps=2, shifted_prompt=True)
    assert not torch.equal(one, codec.render(codes, seed=1, prompt=prompt_of(), rendering=shifted))


def test_a_stored_prompt_leaves_the_sound_alone(codec: SongCodec) -> None:
    codes = codes_of(20)
    assert torch.equal(
        codec.render(codes, rendering=FAST),
        codec.render(codes, prompt=Prompt(codes_of(250, 3)), rendering=FAST),
    )


def test_prompt_codes_go_in_front() -> None:
    codes, prompt = codes_of(20), prompt_of(50)
    fixed, latents = with_prompt(codes, prompt, "vocal", RENDERER_CONFIG)
    assert torch.equal(fixed, torch.cat([prompt.codes[:, 1:, :50], codes[:, 1:]], -1))
    assert latents is prompt.latents["vocal"]
    shifted, _ = with_prompt(codes, prompt, "vocal", RENDERER_CONFIG, shifted=True)
    assert torch.equal(shifted, torch.cat([prompt.codes[:, 1:], codes[:, 1:]], -1))


@pytest.mark.parametrize("latents", [torch.zeros(1, 3, 50), torch.zeros(1, 8, 1000), torch.zeros(8, 50)])
def test_latents_of_another_model_are_refused(codec: SongCodec, latents: torch.Tensor) -> None:
    with pytest.raises(UserError, match="make the prompt with the same model"):
        codec.render(codes_of(20), prompt=Prompt(codes_of(51), {"mixed": latents}), rendering=FAST)


def test_the_mixed_row_is_not_read(codec: SongCodec) -> None:
    """Recordings that were encoded without the mixed codec have special codes there."""
    codes = codes_of(20)
    marked = codes.clone()
    marked[:, 0] = 16385
    assert torch.equal(codec.render(codes, rendering=FAST), codec.render(marked, rendering=FAST))


def test_prompts_leave_no_trace_on_the_networks(codec: SongCodec) -> None:
    codec.render(codes_of(5), prompt=prompt_of(), rendering=FAST)
    assert not [m for n in (codec.renderer, codec.vae) for m in n.modules() if m._forward_pre_hooks]


def test_codes_survive_the_disk(tmp_path) -> None:
    codes = codes_of(300)
    path = save_codes(tmp_path / "deep" / "song.safetensors", codes, {"song": "名前.mp3"})
    loaded, notes = load_codes(path)
    assert torch.equal(loaded, codes) and loaded.dtype == torch.int64
    assert notes["song"] == "名前.mp3" and notes["seconds"] == "12.00" and notes["frame_rate"] == "25"
    assert load_file(path)["codes"].dtype == torch.int32
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(os.name != "posix", reason="file modes are of POSIX")
def test_codes_may_be_read_by_whoever_may_read_any_new_file(tmp_path) -> None:
    before = os.umask(0o022)
    try:
        path = save_codes(tmp_path / "a.safetensors", codes_of(9))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_names_that_are_no_utf8_do_not_cost_the_codes(tmp_path) -> None:
    path = save_codes(tmp_path / "x.safetensors", codes_of(3), {"song": "caf\udce9.mp3"})
    assert load_codes(path)[1]["song"] == "caf?.mp3"


def test_codes_must_be_whole_numbers(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"codes": torch.rand(1, 3, 5)}, path, {"format": "songgen-codes", "format_version": "1"})
    with pytest.raises(UserError, match="must be"):
        load_codes(path)


@pytest.mark.parametrize(
    "codes", [torch.zeros(1, 2, 5), torch.zeros(3, 5), torch.zeros(1, 3, 0), torch.zeros(1, 3, 4)]
)
def test_what_is_no_codes_is_not_saved(codes: torch.Tensor, tmp_path) -> None:
    with pytest.raises(UserError, match="codes are"):
        save_codes(tmp_path / "x.safetensors", codes)
    assert not list(tmp_path.iterdir())


def test_files_that_hold_no_codes_are_refused(tmp_path) -> None:
    foreign, newer, torn = (tmp_path / f"{n}.safetensors" for n in ("foreign", "newer", "torn"))
    save_file({"codes": torch.zeros(1, 3, 4, dtype=torch.int32)}, foreign)
    note = {"format": "songgen-codes", "format_version": "2"}
    save_file({"codes": torch.zeros(1, 3, 4, dtype=torch.int32)}, newer, note)
    torn.write_bytes(save_codes(tmp_path / "x.safetensors", codes_of(9)).read_bytes()[:-8])
    for path, words in (
        (foreign, "no file of codes"),
        (newer, "newer version"),
        (torn, "damaged"),
        (tmp_path / "lost.safetensors", "no such file"),
    ):
        with pytest.raises(UserError, match=words):
            load_codes(path)


def test_render_audio_is_what_the_codec_calls(codec: SongCodec) -> None:
    codes, prompt = codes_of(10), prompt_of()
    direct = render_audio(
        codec.renderer, codec.vae, codes, seed=4, device=CPU, prompt=prompt, options=FAST, output="bgm"
    )
    assert torch.equal(direct, codec.render(codes, seed=4, prompt=prompt, rendering=FAST, output="bgm"))
    assert VAE_CONFIG.hop_length == 1920
