"""Audio of a song that is still being written: a window is rendered as soon as its codes are sure.

A frame is sure once every stream has written it and none has ended at it or before: all columns to come lie
behind it, so that no later end token can cut it off. A window whose frames are all sure is a window of the
finished song too, and does not wrap around its end; so it is rendered early, with the noise that it always
gets. The last window waits for the end. The pieces are, put together, what `render_audio` makes of the
finished song, bit by bit.

Letters: T frames (25 per second), W frames of a window, C channels, N samples.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..codec import CHUNK_FRAMES, CHUNK_OVERLAP, RenderOptions, check_codes, with_prompt
from ..configs import OutputType
from ..devices import exact_float32
from ..generation.chunked import chunk_starts, decode_chunked
from ..generation.delay import DelayedStreams
from ..generation.flow import denoise
from ..generation.sampling import SamplingOptions
from ..generation.songs import SongLoop, SongTask, one_by_one
from ..generation.windows import crossfade, output_samples, plan_windows, silence_stream
from ..models.flow_renderer import FlowRenderer
from ..models.lelm import LeLM
from ..models.oobleck import OobleckVAE
from ..progress import (
    IsCancelled,
    OnProgress,
    Progress,
    ignore_progress,
    interruptible,
    never_cancelled,
)
from ..prompts.prompt import RENDERED, Prompt
from ..seeds import check_seed
from ..text.bpe import TextTokenizers
from ..writing import write_codes
from .renderer import FastRenderer
from .vae import FastVAE

Renderer = FlowRenderer | FastRenderer
VAE = OobleckVAE | FastVAE
OnAudio = Callable[[str, Tensor], None]  # output name, the next samples [1, C, n]


def sure_frames(streams: DelayedStreams) -> int:
    """Frames from the start that the finished song will hold exactly as they are now."""
    return min(streams.length, max(0, streams.written - max(streams.delays)))


class StreamedRender:
    """`render_audio` for a song that grows: feed it the streams after every column, or whenever you like.

    Renderer and VAE, or what takes their place, lie on `device` beside the language model. `chunk_frames` of
    VAE decoding other than 128 change the audio by rounding.
    """

    def __init__(
        self,
        renderer: Renderer,
        vae: VAE,
        *,
        seed: int,
        device: torch.device,
        output: str = "mixed",
        prompt: Prompt | None = None,
        options: RenderOptions = RenderOptions(),
        chunk_frames: int = CHUNK_FRAMES,
        on_progress: OnProgress = ignore_progress,
        cancelled: IsCancelled = never_cancelled,
    ) -> None:
        """Raises UserError for an unknown output, a bad seed or a prompt of another model."""
        config = renderer.config
        nothing = torch.zeros(1, 3, 0, dtype=torch.int64)
        front, known = with_prompt(nothing, prompt, output, config, shifted=options.shifted_prompt)
        self._front = silence_stream(front, output, config)  # [1, 2, Q]: codes of the prompt
        self._context = torch.zeros(1, config.latent_dim, 0) if known is None else known
        self._context = self._context.to(device)
        self._prompt_frames = self._context.shape[-1]
        self._generator = torch.Generator().manual_seed(check_seed(seed))
        self._renderer, self._vae, self._device = renderer, vae, device
        self._output, self._options, self._chunk_frames = output, options, chunk_frames
        self._on_progress, self._cancelled = on_progress, cancelled
        self._windows = 0  # rendered so far
        self._units = self._total_units = 0  # of progress: Euler steps and chunks
        self._tail: Tensor | None = None  # [1, C, n], to be cross-faded with the next window
        self._samples = 0  # given out so far
        self.finished = False  # the whole song was given out

    @torch.inference_mode()
    def feed(self, streams: DelayedStreams) -> list[Tensor]:
        """The samples that are final now and were not before: pieces [1, C, n] float32 on the CPU.

        Most columns give none. Once the streams are done the rest of the song comes; after that nothing. An
        empty song has no audio. Raises UserError, Cancelled.
        """
        frames, done = sure_frames(streams), streams.done
        if self.finished or frames == 0:
            self.finished |= done
            return []
        if not done and self._sure_windows(frames) == self._windows:
            return []
        pieces = self._render(streams.codes()[..., :frames], done, expected=streams.length)
        self.finished = done
        return pieces

    def _sure_windows(self, frames: int) -> int:
        """Windows that lie within the prompt's codes and `frames` sure frames."""
        window = self._renderer.config.window_frames
        hop = (window // 4) * 3
        return max(0, (self._front.shape[-1] + frames - (window - hop)) // hop)

    def _render(self, codes: Tensor, done: bool, expected: int) -> list[Tensor]:
        """Render the windows of sure codes [1, 3, T] that are not rendered yet."""
        config, hop = self._renderer.config, self._vae.config.hop_length
        check_codes(codes, config.codebook_size)
        sequence = torch.cat([self._front, silence_stream(codes[:, 1:], self._output, config)], dim=-1)
        plan = plan_windows(sequence.shape[-1], self._prompt_frames, config.window_frames)
        self._total_units = self._count_units(expected)
        ready = plan.indices if done else plan.indices[: self._sure_windows(codes.shape[-1])]
        end = output_samples(codes.shape[-1], self._vae.config.sample_rate)
        pieces: list[Tensor] = []
        with interruptible(self._cancelled, self._renderer, self._vae), exact_float32(self._device):
            for indices in ready[self._windows :]:
                audio = self._render_window(sequence[..., indices].to(self._device), plan.overlap)
                self._windows += 1
                pieces.append(self._join(audio, plan.overlap * hop))
        if done and self._tail is not None:
            pieces.append(self._tail)
        return [piece for piece in map(partial(self._give_out, end=end), pieces) if piece.shape[-1]]

    def _render_window(self, codes: Tensor, overlap: int) -> Tensor:
        """codes [1, 2, W] of the next window -> its audio [1, C, n] on the CPU, without the prompt."""
        renderer, config = self._renderer, self._renderer.config
        noise = torch.randn(1, config.window_frames, config.latent_dim, generator=self._generator)
        latents = denoise(
            renderer,  # type: ignore[arg-type]
            renderer.condition(*codes.unbind(1)),
            noise.to(self._device),
            self._context,
            num_steps=self._options.num_steps,
            guidance_scale=self._options.guidance_scale,
            on_step=self._unit_done,
        )
        self._context = latents[..., -overlap:]
        return decode_chunked(
            self._vae.decode,
            latents if self._windows else latents[..., self._prompt_frames :],
            self._vae.config.hop_length,
            chunk_size=self._chunk_frames,
            overlap=CHUNK_OVERLAP,
            on_chunk=self._unit_done,
        ).cpu()

    def _join(self, audio: Tensor, overlap_samples: int) -> Tensor:
        """Cross-fade with the window before; what the next window cannot change comes back."""
        joined = audio if self._tail is None else crossfade([self._tail, audio], overlap_samples)
        self._tail = joined[..., -overlap_samples:]
        return joined[..., :-overlap_samples]

    def _give_out(self, piece: Tensor, end: int) -> Tensor:
        """The part of `piece` that lies before sample `end` of the song."""
        piece = piece[..., : end - self._samples]
        self._samples += piece.shape[-1]
        return piece

    def _count_units(self, frames: int) -> int:
        """Euler steps and chunks of a song of `frames` frames."""
        window = self._renderer.config.window_frames
        plan = plan_windows(self._front.shape[-1] + frames, self._prompt_frames, window)
        sizes = [window - self._prompt_frames, *[window] * (len(plan.indices) - 1)]
        chunks = sum(len(chunk_starts(size, self._chunk_frames, CHUNK_OVERLAP)) for size in sizes)
        return len(sizes) * self._options.num_steps + chunks

    def _unit_done(self, made: Tensor | None = None) -> None:
        self._units += 1
        self._on_progress(Progress("rendering", self._units, self._total_units, made))


@dataclass(frozen=True)
class StreamedSong:
    """codes [1, 3, T] int64; audio: output name -> [1, C, N] float32, on the CPU; ended: by the model."""

    codes: Tensor
    audio: dict[str, Tensor]
    ended: bool


def sing_streaming(
    lm: LeLM,
    tokenizers: TextTokenizers,
    renderer: Renderer,
    vae: VAE,
    lyrics: str,
    description: str | None = None,
    *,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    on_audio: OnAudio,
    duration: float | None = None,
    sampling: SamplingOptions | None = None,
    rendering: RenderOptions = RenderOptions(),
    output: OutputType = "mixed",
    prompt: Prompt | None = None,
    literal: bool = False,
    loop: SongLoop = one_by_one,
    chunk_frames: int = CHUNK_FRAMES,
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> StreamedSong:
    """`write_codes` and `render_audio` in one: `on_audio` hears the song piece by piece while it is written.

    All networks lie on `device`. `output` "separate" renders mix, vocal and accompaniment. Codes and audio
    are those of the two stages one after the other. The stages "tokens" and "rendering" take turns in
    `on_progress`; the length of the latter shrinks when the model ends the song early. `on_audio` is to look
    at its samples and not to change them.
    Raises LyricsError, UserError (also for an empty song), Cancelled.
    """
    names: Sequence[str] = RENDERED if output == "separate" else (output,)
    report = _Together(len(names), on_progress)
    renders = {
        name: StreamedRender(
            renderer,
            vae,
            seed=seed,
            device=device,
            output=name,
            prompt=prompt,
            options=rendering,
            chunk_frames=chunk_frames,
            on_progress=partial(report, name),
            cancelled=cancelled,
        )
        for name in names
    }
    audio: dict[str, list[Tensor]] = {name: [] for name in names}

    def render(streams: DelayedStreams) -> None:
        for name, streamed in renders.items():
            for piece in streamed.feed(streams):
                audio[name].append(piece)
                on_audio(name, piece)

    codes, ended = write_codes(
        lm,
        tokenizers,
        lyrics,
        description,
        seed=seed,
        device=device,
        dtype=dtype,
        duration=duration,
        sampling=sampling,
        output=output,
        prompt_codes=None if prompt is None else prompt.codes,
        literal=literal,
        loop=_watched(loop, render),
        on_progress=on_progress,
        cancelled=cancelled,
    )
    whole = {name: torch.cat(pieces, dim=-1) for name, pieces in audio.items()}
    return StreamedSong(codes.clone(), whole, ended)  # out of inference mode, to be changed in place


def _watched(loop: SongLoop, watch: Callable[[DelayedStreams], None]) -> SongLoop:
    """`loop` for one song, with `watch` called after every column and its progress."""

    def watched_loop(
        lm: LeLM,
        tasks: Sequence[SongTask],
        options: SamplingOptions,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Iterator[list[DelayedStreams]]:
        (task,) = tasks
        for songs in loop(lm, [task], options, dtype=dtype, device=device):
            yield songs
            watch(songs[0])

    return watched_loop


class _Together:
    """Progress of several renderings as that of one."""

    def __init__(self, parts: int, on_progress: OnProgress) -> None:
        self._parts, self._on_progress = parts, on_progress
        self._counts: dict[str, tuple[int, int]] = {}

    def __call__(self, name: str, progress: Progress) -> None:
        self._counts[name] = progress.done, progress.total
        done, total = (sum(column) for column in zip(*self._counts.values()))
        missing = self._parts - len(self._counts)  # those that have not begun are as long as this one
        self._on_progress(replace(progress, done=done, total=total + missing * progress.total))
