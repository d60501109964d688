"""`render_audio`, quicker, and for several songs at once.

Besides quicker networks: audio that two windows share is decoded once, and what lies behind the end of the
song is not decoded at all.

Letters: R rows (songs), T frames of a song, N frames of a window, C channels, P frames of the prompt.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..codec import RenderOptions, check_codes, with_prompt
from ..configs import RendererConfig
from ..devices import exact_float32
from ..generation.flow import denoise
from ..generation.windows import (
    crossfade,
    fade_ramp,
    output_samples,
    plan_windows,
    silence_stream,
)
from ..models.flow_renderer import FlowRenderer
from ..models.oobleck import OobleckVAE
from ..progress import (
    IsCancelled,
    OnProgress,
    UnitDone,
    count_progress,
    ignore_progress,
    interruptible,
    never_cancelled,
)
from ..prompts.prompt import Prompt
from ..seeds import check_seed
from .renderer import FastRenderer, RendererTricks
from .vae import FastVAE, VaeTricks

Span = tuple[int, int]  # first frame and the one behind the last


@dataclass(frozen=True, kw_only=True)
class RenderTricks:
    """The switches of both networks, and one of their own.

    share_overlap: neighbouring windows have the same latents where they overlap, so that their audio differs
        only near either edge: the inner part is decoded once. False: twice, and cross-faded with itself.
    """

    renderer: RendererTricks = field(default_factory=RendererTricks)
    vae: VaeTricks = field(default_factory=VaeTricks)
    share_overlap: bool = True


@dataclass(frozen=True, kw_only=True)
class RenderTask:
    """One song of several: codes [1, 3, T], and the arguments that `render_audio` has for one song."""

    codes: Tensor
    seed: int
    output: str = "mixed"
    prompt: Prompt | None = None


def render_audio_fast(
    renderer: FlowRenderer,
    vae: OobleckVAE,
    codes: Tensor,
    *,
    seed: int,
    device: torch.device,
    output: str = "mixed",
    prompt: Prompt | None = None,
    options: RenderOptions = RenderOptions(),
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
    tricks: RenderTricks = RenderTricks(),
) -> Tensor:
    """As `codec.render_audio`: codes [1, 3, T] -> audio [1, C, N] float32 on the CPU.

    In float32 it agrees within 5e-4 of the largest sample; the same seed gives the same noise. `on_progress`
    counts fewer chunks, as there are fewer. Raises UserError, Cancelled.
    """
    task = RenderTask(codes=codes, seed=seed, output=output, prompt=prompt)
    (audio,) = render_together(
        renderer,
        vae,
        [task],
        device=device,
        options=options,
        on_progress=on_progress,
        cancelled=cancelled,
        tricks=tricks,
    )
    return audio


@torch.inference_mode()
def render_together(
    renderer: FlowRenderer,
    vae: OobleckVAE,
    tasks: Sequence[RenderTask],
    *,
    device: torch.device,
    options: RenderOptions = RenderOptions(),
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
    tricks: RenderTricks = RenderTricks(),
) -> list[Tensor]:
    """Audio [1, C, N] of each task: the outputs of one song, or candidates of any length, in one batch.

    Window k of all songs runs through the network together, two rows for each song; songs that are over drop
    out, and audio is decoded song by song. The windows of one song cannot run together, as each starts from
    the last quarter of the one before. That overlap makes the Euler steps a third more than the song is long:
    a window of 1000 frames brings 750 new ones. Progress shows the first song that is still at work.

    Raises ValueError for no tasks and where their prompts differ in length; UserError, Cancelled.
    """
    songs = [_Song(task, renderer.config, options) for task in tasks]
    if len({song.prompt_frames for song in songs}) != 1:
        raise ValueError("songs that are rendered together need prompts of one length")
    fast = FastRenderer(renderer, device, tricks.renderer)
    decoder = FastVAE(vae, device, tricks.vae)
    joiners = [
        AudioJoiner(decoder, song.plan.overlap, song.sizes, song.frames, tricks.share_overlap)
        for song in songs
    ]
    steps = max(len(song.sizes) for song in songs) * options.num_steps
    chunks = sum(joiner.count_chunks() for joiner in joiners)
    unit_done = count_progress("rendering", steps + chunks, on_progress)
    with interruptible(cancelled, fast, decoder), exact_float32(device):
        fast.prepare(options.num_steps)
        for rows, latents in _windows(fast, songs, device, options, unit_done):
            for row, window in zip(rows, latents.split(1)):
                joiners[row].add(window, unit_done)
    rate = vae.config.sample_rate
    return [joiner.audio()[..., : output_samples(song.frames, rate)] for joiner, song in zip(joiners, songs)]


class _Song:
    """A checked task, and where its windows lie."""

    def __init__(self, task: RenderTask, config: RendererConfig, options: RenderOptions) -> None:
        check_codes(task.codes, config.codebook_size)
        streams, self.context = with_prompt(
            task.codes, task.prompt, task.output, config, shifted=options.shifted_prompt
        )
        self.streams = silence_stream(streams, task.output, config)  # [1, 2, P + T]
        self.frames = task.codes.shape[-1]
        self.prompt_frames = 0 if self.context is None else self.context.shape[-1]
        self.plan = plan_windows(streams.shape[-1], self.prompt_frames, config.window_frames)
        self.generator = torch.Generator().manual_seed(check_seed(task.seed))
        self.sizes = [config.window_frames] * len(self.plan.indices)  # frames of audio that each window gives
        self.sizes[0] -= self.prompt_frames


def _windows(
    renderer: FastRenderer,
    songs: Sequence[_Song],
    device: torch.device,
    options: RenderOptions,
    on_step: Callable[[Tensor], None],
) -> Iterator[tuple[list[int], Tensor]]:
    """Window by window: the rows that have one, and its latents [R, C, N] without the prompt."""
    config = renderer.config
    empty = torch.zeros(1, config.latent_dim, 0)
    contexts = [(empty if song.context is None else song.context).to(device) for song in songs]
    for k in range(max(len(song.sizes) for song in songs)):
        rows = [row for row, song in enumerate(songs) if k < len(song.sizes)]
        codes = torch.cat([songs[row].streams[..., songs[row].plan.indices[k]] for row in rows]).to(device)
        shape = 1, config.window_frames, config.latent_dim
        noise = torch.cat([torch.randn(shape, generator=songs[row].generator) for row in rows]).to(device)
        latents = denoise(
            renderer,  # type: ignore[arg-type]
            renderer.condition(*codes.unbind(1)),
            noise,
            torch.cat([contexts[row] for row in rows]),
            num_steps=options.num_steps,
            guidance_scale=options.guidance_scale,
            on_step=on_step,
        )
        yield rows, latents[..., songs[0].prompt_frames if k == 0 else 0 :]
        for row, window in zip(rows, latents.split(1)):
            contexts[row] = window[..., -songs[row].plan.overlap :]


class AudioJoiner:
    """Windows of latents to the audio of one song, window after window.

    Window k begins `overlap` frames before the end of window k - 1, with the latents that are there. Decoded
    by itself it differs from the other one in its first frames, whose past it does not know, and the other
    one in its last frames, whose future it did not know: `reach` frames each, all that has to be cross-faded.

        window k - 1      ... = = = = = = = = x x |
        window k                  | x x . . . . = = = = = ...      (.) is not decoded
    """

    def __init__(
        self, vae: FastVAE, overlap: int, sizes: Sequence[int], num_frames: int, share_overlap: bool
    ) -> None:
        """`sizes`: latents of each window to come. Nothing is decoded behind `num_frames` of the song."""
        self._vae, self._overlap = vae, overlap
        self._spans = plan_spans(sizes, num_frames, overlap, vae.reach if share_overlap else None)
        self._sizes, self._parts = sizes, list[Tensor]()
        self._window = 0

    def count_chunks(self) -> int:
        """How often `add` will call `on_chunk`, all windows together."""
        return sum(
            self._vae.count_chunks(last - first)
            for size, spans in zip(self._sizes, self._spans)
            for first, last in (widened(span, self._vae.reach, size) for span in spans)
        )

    def add(self, latents: Tensor, on_chunk: UnitDone) -> None:
        """Decode the next window [1, C, n] as far as needed, and fade it in."""
        pieces = [self._decode(latents, span, on_chunk) for span in self._spans[self._window]]
        self._window += 1
        samples = self._overlap * self._vae.config.hop_length
        if not self._parts:
            self._parts += pieces
        elif len(pieces) == 1:
            before = self._parts.pop()
            self._parts += [before[..., :-samples], crossfade([before[..., -samples:], *pieces], samples)]
        else:
            head, body = pieces
            fade_edges(self._parts[-1][..., -samples:], head, body)
            self._parts.append(body[..., head.shape[-1] :])

    def audio(self) -> Tensor:
        """[1, channels, N] on the CPU of what was added."""
        return torch.cat(self._parts, dim=-1)

    def _decode(self, latents: Tensor, span: Span, on_chunk: UnitDone) -> Tensor:
        """Audio on the CPU of the frames of `span`, as decoding all latents would give it."""
        hop = self._vae.config.hop_length
        first, last = widened(span, self._vae.reach, latents.shape[-1])
        audio = self._vae.decode_chunks(latents[..., first:last], on_chunk)
        return audio[..., (span[0] - first) * hop : (span[1] - first) * hop].cpu()


def plan_spans(sizes: Sequence[int], num_frames: int, overlap: int, reach: int | None) -> list[list[Span]]:
    """The frames of each window, counted from its start, that are to be decoded.

    One span is faded in over the whole overlap; of two, the first is the head of the window, as long as the
    decoder's `reach`, and the second the body, from `reach` before the end of the overlap. There is one where
    two would be no less work, where the window before is too short to know the overlap's past, and without a
    `reach`.
    """
    spans: list[list[Span]] = []
    start = 0  # of the window, in frames of the song
    for k, size in enumerate(sizes):
        end = min(size, num_frames - start)
        if k and reach and 4 * reach < overlap <= sizes[k - 1] - reach:
            spans.append([(0, reach), (overlap - reach, end)])
        else:
            spans.append([(0, end)])
        start += size - overlap
    return spans


def widened(span: Span, reach: int, size: int) -> Span:
    """`span` with the frames around it that its audio depends on."""
    return max(0, span[0] - reach), min(size, span[1] + reach)


def fade_edges(shared: Tensor, head: Tensor, body: Tensor) -> None:
    """Cross-fade `shared` [B, C, samples], in place, with a window of which only the first samples (`head`)
    and the last ones (the first of `body`, as many) are known; between them both are the same."""
    edge = head.shape[-1]
    fade_in = fade_ramp(shared.shape[-1])
    for place, other in ((slice(None, edge), head), (slice(-edge, None), body[..., :edge])):
        part = shared[..., place]
        part.copy_(part * (1 - fade_in[place]) + other * fade_in[place])
