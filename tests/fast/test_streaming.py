"""Streamed rendering against the two stages one after the other: the same samples, only sooner."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from tiny import RENDERER, tiny_renderer

from songgen_core import Progress, Prompt, RenderOptions, UserError, write_codes
from songgen_core.codec import render_audio
from songgen_core.configs import OobleckConfig
from songgen_core.errors import Cancelled
from songgen_core.fast.renderer import FastRenderer
from songgen_core.fast.songs import write_together
from songgen_core.fast.streaming import StreamedRender, StreamedSong, sing_streaming, sure_frames
from songgen_core.fast.vae import FastVAE
from songgen_core.generation import songs
from songgen_core.generation.autoregressive import generate
from songgen_core.generation.delay import DelayedStreams
from songgen_core.generation.windows import output_samples
from songgen_core.models.flow_renderer import FlowRenderer
from songgen_core.models.lelm import LeLM
from songgen_core.models.oobleck import OobleckVAE
from songgen_core.selftest import LM_CONFIG, selftest_networks
from songgen_core.text.bpe import QWEN2_FOLDER, load_tokenizers

CPU = torch.device("cpu")
VAE = OobleckConfig(
    channels=2, c_mults=(1, 2), strides=(2, 2), latent_dim=RENDERER.latent_dim, sample_rate=100
)
WINDOW, HOP, DELAY = 40, 30, 3
EOS, SPECIAL = 11, 12
FAST = RenderOptions(num_steps=2)
LYRICS = "[verse]\nhello world\n\n[chorus]\nsing with me"


@pytest.fixture(scope="module")
def renderer() -> FlowRenderer:
    return tiny_renderer()


@pytest.fixture(scope="module")
def vae() -> OobleckVAE:
    torch.manual_seed(1)
    return OobleckVAE(VAE, with_encoder=False).eval().requires_grad_(False)


def growing(
    num_frames: int, ends: dict[int, int] | None = None, seed: int = 0, every: int = 1
) -> Iterator[DelayedStreams]:
    """Random codes, column by column; `ends` tells the frame of a stream's EOS; yields every n-th column."""
    streams = DelayedStreams(num_frames, (0, DELAY, DELAY), EOS, SPECIAL)
    generator = torch.Generator().manual_seed(seed)
    while not streams.done:
        for _ in range(every):
            tokens = torch.randint(EOS, (3,), generator=generator)
            for k, frame in (ends or {}).items():
                if streams.written == frame + streams.delays[k]:
                    tokens[k] = EOS
            streams.write(tokens)
            if streams.done:
                break
        yield streams


def prompt_of(frames: int, seed: int = 3) -> Prompt:
    generator = torch.Generator().manual_seed(seed)
    latents = {n: torch.randn(1, 4, frames, generator=generator) for n in ("mixed", "vocal", "bgm")}
    return Prompt(torch.randint(EOS, (1, 3, frames + 1), generator=generator), latents)


def check_equal(renderer: FlowRenderer, vae: OobleckVAE, columns: Iterator[DelayedStreams], **options) -> int:
    """The streamed song equals the whole one; returns the samples that came before the last column."""
    options = {"seed": 5, "device": CPU, "options": FAST, **options}
    streamed, pieces, early = StreamedRender(renderer, vae, **options), [], 0
    for streams in columns:
        assert sure_frames(streams) <= streams.length
        early = sum(piece.shape[-1] for piece in pieces)
        pieces += streamed.feed(streams)
    assert streamed.finished and streamed.feed(streams) == []
    assert all(piece.shape[-1] and piece.dtype == torch.float32 for piece in pieces)
    whole = render_audio(renderer, vae, streams.codes(), **options)
    assert whole.shape[-1] == output_samples(streams.length, VAE.sample_rate)
    assert torch.equal(torch.cat(pieces, dim=-1), whole)
    return early


@pytest.mark.parametrize("frames", [1, 2, 9, 10, 11, 29, 39, 40, 41, 57, 58, 69, 70, 71, 99, 100, 101, 135])
def test_songs_of_all_lengths(renderer: FlowRenderer, vae: OobleckVAE, frames: int) -> None:
    early = check_equal(renderer, vae, growing(frames))
    windows = max(0, (frames - 1 - 10) // HOP)  # whose codes are sure one column before the last
    assert early == windows * HOP * 4


@pytest.mark.parametrize("stream", [0, 1, 2])
@pytest.mark.parametrize("end", [1, 10, 28, 39, 40, 41, 43, 44, 70, 71, 73, 74, 98, 99])
def test_songs_that_the_model_ends(renderer: FlowRenderer, vae: OobleckVAE, stream: int, end: int) -> None:
    check_equal(renderer, vae, growing(100, {stream: end}))


@pytest.mark.parametrize("ends", [{0: 90, 1: 71}, {0: 43, 2: 41}, {0: 80, 1: 75, 2: 39}, {1: 72, 2: 70}])
def test_a_later_end_token_may_lie_earlier_in_the_song(
    renderer: FlowRenderer, vae: OobleckVAE, ends: dict[int, int]
) -> None:
    """Stream 0 is ahead by the delay, so that another stream can end the song before the end known so far."""
    lengths = [streams.length for streams in growing(100, ends)]
    assert lengths == sorted(lengths, reverse=True) and lengths[-1] == min(ends.values())
    check_equal(renderer, vae, growing(100, ends))


@pytest.mark.parametrize("output", ["mixed", "vocal", "bgm"])
@pytest.mark.parametrize("prompt_frames", [1, 25, 30])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("frames", "end"), [(8, None), (45, 44), (75, None), (100, 41), (100, 70)])
def test_prompts_and_outputs(
    renderer: FlowRenderer,
    vae: OobleckVAE,
    output: str,
    prompt_frames: int,
    shifted: bool,
    frames: int,
    end: int | None,
) -> None:
    check_equal(
        renderer,
        vae,
        growing(frames, {} if end is None else {1: end}),
        output=output,
        prompt=prompt_of(prompt_frames),
        options=RenderOptions(num_steps=1, shifted_prompt=shifted),
    )


def test_a_prompt_that_nearly_fills_a_window(renderer: FlowRenderer, vae: OobleckVAE) -> None:
    check_equal(renderer, vae, growing(1), prompt=prompt_of(WINDOW - 1))


@pytest.mark.parametrize("every", [7, 64, 1000])
def test_a_loop_may_show_its_columns_in_groups(renderer: FlowRenderer, vae: OobleckVAE, every: int) -> None:
    for ends in ({}, {2: 77}):
        check_equal(renderer, vae, growing(135, ends, every=every))


def test_progress_counts_to_the_end_that_turns_out(renderer: FlowRenderer, vae: OobleckVAE) -> None:
    for ends in ({}, {0: 72}):
        seen: list[Progress] = []
        check_equal(renderer, vae, growing(135, ends), options=FAST, on_progress=seen.append)
        seen, ordinary = seen[: len(seen) // 2], seen[len(seen) // 2 :]  # the second half is `render_audio`'s
        assert [p.done for p in seen] == list(range(1, len(ordinary) + 1))
        assert seen[-1].total == seen[-1].done == ordinary[-1].total
        assert all(p.stage == "rendering" and p.done <= p.total for p in seen)
        assert seen[0].made is not None and seen[0].made.shape == (WINDOW, RENDERER.latent_dim)


def test_an_empty_song_has_no_audio(renderer: FlowRenderer, vae: OobleckVAE) -> None:
    render = StreamedRender(renderer, vae, seed=0, device=CPU)
    assert [render.feed(streams) for streams in growing(50, {0: 0})] == [[]]
    assert render.finished


def test_mistakes_are_told_at_once(renderer: FlowRenderer, vae: OobleckVAE) -> None:
    with pytest.raises(UserError, match="choose mixed, vocal or bgm"):
        StreamedRender(renderer, vae, seed=0, device=CPU, output="drums")
    with pytest.raises(UserError, match="seed is -1"):
        StreamedRender(renderer, vae, seed=-1, device=CPU)
    with pytest.raises(UserError, match="make the prompt with the same model"):
        StreamedRender(renderer, vae, seed=0, device=CPU, prompt=prompt_of(WINDOW))


# --- language model and renderer together ------------------------------------------------------------------


class Studio:
    """Networks for whole songs; renderer windows of 40 frames, streams delayed by three."""

    def __init__(self) -> None:
        torch.manual_seed(2)
        config = replace(LM_CONFIG, delays=(0, DELAY, DELAY), max_duration=8)
        _, _, renderer, self.vae = selftest_networks()
        self.lm = LeLM(config).eval().requires_grad_(False)
        self.tokenizers = load_tokenizers(QWEN2_FOLDER, config.text_version)
        self.renderer = (
            FlowRenderer(replace(renderer.config, window_frames=WINDOW)).eval().requires_grad_(False)
        )

    def stream(self, **options) -> StreamedSong:
        options = {"seed": 3, "rendering": FAST, "on_audio": lambda name, piece: None, **options}
        return sing_streaming(
            self.lm,
            self.tokenizers,
            self.renderer,
            self.vae,
            LYRICS,
            "female, pop",
            device=CPU,
            dtype=torch.float32,
            **options,
        )

    def check(self, **options) -> StreamedSong:
        """The streamed song is that of the two stages, and that of its pieces."""
        heard: dict[str, list[torch.Tensor]] = {}
        song = self.stream(
            on_audio=lambda name, piece: heard.setdefault(name, []).append(piece.clone()), **options
        )
        prompt, output = options.pop("prompt", None), options.pop("output", "mixed")
        codes, ended = write_codes(
            self.lm,
            self.tokenizers,
            LYRICS,
            "female, pop",
            seed=3,
            device=CPU,
            dtype=torch.float32,
            output=output,
            prompt_codes=None if prompt is None else prompt.codes,
            **options,
        )
        assert torch.equal(song.codes, codes) and song.ended == ended
        assert list(song.audio) == (["mixed", "vocal", "bgm"] if output == "separate" else [output])
        for name, audio in song.audio.items():
            whole = render_audio(
                self.renderer, self.vae, codes, seed=3, device=CPU, output=name, prompt=prompt, options=FAST
            )
            assert torch.equal(audio, whole)
            assert torch.equal(torch.cat(heard[name], dim=-1), whole)
        return song


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio()


def with_ends(monkeypatch: pytest.MonkeyPatch, ends: dict[int, int]) -> None:
    """Let the reference loop write random codes with end tokens at these frames of these streams."""

    def scripted(*args, **options) -> Iterator[DelayedStreams]:
        generator, column = options["generator"], iter(range(10_000))

        def draw(probs: torch.Tensor) -> torch.Tensor:
            tokens = torch.randint(LM_CONFIG.codebook_size, (3,), generator=generator)
            written = next(column)
            for k, frame in ends.items():
                if written == frame + (0, DELAY, DELAY)[k]:
                    tokens[k] = LM_CONFIG.eos_id
            return tokens

        return generate(*args, **options, draw_codes=draw)

    monkeypatch.setattr(songs, "generate", scripted)


def test_a_song_is_the_same_streamed(studio: Studio) -> None:
    song = studio.check(duration=6)
    assert song.codes.shape == (1, 3, 150)
    song.codes[:], song.audio["mixed"][:] = 0, 0  # callers may change both


@pytest.mark.parametrize("output", ["vocal", "bgm", "separate"])
def test_every_output_is_the_same_streamed(studio: Studio, output: str) -> None:
    studio.check(duration=3, output=output)


def test_a_song_with_a_prompt_is_the_same_streamed(studio: Studio) -> None:
    generator = torch.Generator().manual_seed(8)
    latents = {"mixed": torch.randn(1, 8, 20, generator=generator)}
    codes = torch.randint(LM_CONFIG.codebook_size, (1, 3, 21), generator=generator)
    studio.check(duration=3, prompt=Prompt(codes, latents))
    studio.check(duration=3, prompt=Prompt(codes))  # a stored prompt, that the renderer does not hear


@pytest.mark.parametrize("ends", [{1: 20}, {0: 40}, {0: 72, 2: 70}, {1: 71}])
def test_a_song_that_ends_early_is_the_same_streamed(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, ends: dict[int, int]
) -> None:
    with_ends(monkeypatch, ends)
    song = studio.check(duration=6)
    assert song.ended and song.codes.shape[-1] == min(ends.values())


def test_audio_comes_while_tokens_are_written(studio: Studio) -> None:
    """The first piece comes as soon as a window of frames is complete in all streams: after 43 columns."""
    written, pieces = [], []
    studio.stream(
        duration=6,
        on_audio=lambda name, piece: pieces.append((written[-1], piece.shape[-1])),
        on_progress=lambda p: written.append(p.done) if p.stage == "tokens" else None,
    )
    assert written == list(range(1, 150 + DELAY + 1))
    hop = 1920
    assert pieces[:4] == [(WINDOW + k * HOP + DELAY, HOP * hop) for k in range(4)]
    assert {column for column, _ in pieces[4:]} == {150 + DELAY}


def test_progress_of_all_outputs_is_one(studio: Studio) -> None:
    seen: list[Progress] = []
    studio.stream(duration=6, output="separate", on_progress=seen.append)
    rendering = [p for p in seen if p.stage == "rendering"]
    assert [p.done for p in rendering] == list(range(1, rendering[-1].total + 1))
    assert {p.total for p in rendering} == {rendering[-1].total}
    tokens = [n for n, p in enumerate(seen) if p.stage == "tokens"]
    assert tokens[0] < seen.index(rendering[0]) < tokens[-1] < seen.index(rendering[-1])


def test_cancel_stops_both_stages(studio: Studio) -> None:
    for stage in ("tokens", "rendering"):
        seen: list[Progress] = []
        with pytest.raises(Cancelled):
            studio.stream(
                duration=6,
                on_progress=seen.append,
                cancelled=lambda seen=seen, stage=stage: bool(seen) and seen[-1].stage == stage,
            )
        assert seen[-1].stage == stage and sum(p.stage == stage for p in seen) == 1
    for network in (studio.lm, studio.renderer, studio.vae):
        assert not [m for m in network.modules() if m._forward_pre_hooks]


def test_a_song_without_a_sound_is_refused(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    with_ends(monkeypatch, {0: 0})
    with pytest.raises(UserError, match="before its first sound"):
        studio.stream(duration=6)


def test_small_chunks_change_the_sound_by_rounding_only(studio: Studio) -> None:
    seen: list[Progress] = []
    whole = studio.stream(duration=1)
    chunked = studio.stream(duration=1, chunk_frames=36, on_progress=seen.append)
    rendering = [p for p in seen if p.stage == "rendering"]
    assert len(rendering) == FAST.num_steps + 2, "a window of 40 frames is two chunks"
    torch.testing.assert_close(chunked.audio["mixed"], whole.audio["mixed"])


def test_the_quick_networks_take_part(studio: Studio, renderer: FlowRenderer, vae: OobleckVAE) -> None:
    """Streamed, the fast renderer and VAE make what they make of the whole song, up to rounding."""
    quick = FastRenderer(studio.renderer, CPU), FastVAE(studio.vae, CPU)
    song = sing_streaming(
        studio.lm,
        studio.tokenizers,
        *quick,
        LYRICS,
        seed=3,
        device=CPU,
        dtype=torch.float32,
        duration=3,
        rendering=FAST,
        loop=write_together,
        on_audio=lambda name, piece: None,
    )
    whole = render_audio(studio.renderer, studio.vae, song.codes, seed=3, device=CPU, options=FAST)
    torch.testing.assert_close(song.audio["mixed"], whole, atol=1e-4, rtol=1e-4)
