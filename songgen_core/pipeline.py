"""Lyrics and a style in, a song out: text -> codes -> latents -> audio.

The two stages are functions on networks that somebody else has placed (`writing`, `codec`); `SongPipeline`
holds the networks, places them and calls both.

Letters: T frames (25 per second), N samples.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .checkpoint.layout import find_model
from .checkpoint.load_model import load_networks
from .codec import RenderOptions, SongCodec
from .configs import FRAME_RATE, OutputType
from .devices import choose_device, choose_dtype, limited, placed
from .engine import Engine, Planned, ReferenceEngine, load_engine, on_layer
from .errors import UserError
from .generation.sampling import SamplingOptions
from .models.lelm import LeLM
from .progress import IsCancelled, OnProgress, Progress, ignore_progress, never_cancelled
from .prompts.cache import PromptCache
from .prompts.prompt import Prompt
from .prompts.readers import PromptReaders
from .prompts.recording import PromptOptions, Source
from .selftest import NOTICE, SELFTEST, selftest_networks
from .text.bpe import TextTokenizers
from .writing import EMPTY_SONG, SongRequest, check_duration, write_songs

log = logging.getLogger("songgen")

OnAudio = Callable[[str, Tensor], None]  # output name, the next samples [1, C, n]

OUTPUTS: tuple[OutputType, ...] = ("mixed", "vocal", "bgm", "separate")


@dataclass(frozen=True)
class SongResult:
    """A finished song.

    codes: [1, 3, T] int64 (mixed, vocal, accompaniment). audio: output name -> [1, 2, N] float32 on the CPU,
    not clipped. ended: the model itself ended the song (otherwise the time was up).
    """

    codes: Tensor
    audio: dict[str, Tensor]
    sample_rate: int
    seed: int
    ended: bool
    model: str

    @property
    def seconds(self) -> float:
        return self.codes.shape[-1] / FRAME_RATE


class SongPipeline:
    """The networks of one model, and the way from lyrics to audio on one device."""

    def __init__(
        self,
        lm: LeLM,
        tokenizers: TextTokenizers,
        codec: SongCodec,
        *,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        low_memory: bool = False,
        engine: Engine | None = None,
        plan: Planned | None = None,
    ) -> None:
        """`low_memory` keeps each network on the device only while it works; no engine is the reference.

        A `plan` brings both of them, and a limit that is kept.
        """
        self.lm, self.tokenizers, self.codec = lm, tokenizers, codec
        self.name, self.device, self.dtype, self.plan = name, device, dtype, plan
        self.low_memory = low_memory if plan is None else plan.low_memory
        self.engine = (engine or ReferenceEngine()) if plan is None else plan.engine

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        roots: Sequence[Path] = (),
        variant: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        low_memory: bool = False,
        engine: str = "auto",
        weights: str | None = None,
        memory: float | None = None,
        longest: float | None = None,
        on_progress: OnProgress = ignore_progress,
        cancelled: IsCancelled = never_cancelled,
    ) -> "SongPipeline":
        """Load a model by name (looked up under `roots`), folder or file; "selftest" needs no files.

        `engine` "auto" takes the fast path where it can run, "reference" never does. `weights` in "int8",
        "fp8" or "int4" make the language model smaller and, with the fast engine, quicker; None is "native".

        `memory` in GB (1e9 bytes) has a plan made for songs of up to `longest` seconds (None: the model's
        limit), which is logged and kept: it decides what lies on the device and how wide it is, `weights`
        included unless they are given. On the CPU it bounds the RAM that making songs takes. Reading weights,
        and recordings as prompts, may take more. Raises CheckpointError, UserError, Cancelled.
        """
        quick = load_engine(engine)
        where = choose_device(device)
        quick.check_weights(weights or "native", where)
        if memory is not None:
            quick.check_memory(memory, where)
        precision = choose_dtype(where, dtype)
        if str(model) == SELFTEST:
            log.warning(NOTICE)
            networks, name, precision, files = selftest_networks(), SELFTEST, torch.float32, None
        else:
            files = find_model(model, roots, variant)
            networks, name = load_networks(files, precision, on_progress, cancelled), files.name
        lm, tokenizers, renderer, vae = networks
        plan = None
        if memory is not None:
            on_progress(Progress("planning memory", 0, 1))  # takes seconds
            plan = quick.plan(
                memory,
                lm.config,
                renderer.config,
                vae.config,
                device=where,
                dtype=precision,
                weights=weights,
                low_memory=low_memory,
                longest=longest,
            )
            on_progress(Progress("planning memory", 1, 1))
            log.info("%s", plan.summary)
            quick, weights = plan.engine, plan.weights
        weights = weights or "native"
        quick.narrow(lm, weights, on_layer(weights, on_progress, cancelled))
        codec = SongCodec(
            renderer,
            vae,
            PromptReaders(files),
            device=where,
            low_memory=low_memory or plan is not None,  # what the plan knows is placed here, the rest leaves
            render=quick.render_audio,
        )
        return cls(
            lm,
            tokenizers,
            codec,
            name=name,
            device=where,
            dtype=precision,
            low_memory=low_memory,
            engine=quick,
            plan=plan,
        )

    def prompt_of(
        self,
        source: Source,
        options: PromptOptions = PromptOptions(),
        *,
        cache: PromptCache | None = None,
        on_progress: OnProgress = ignore_progress,
        cancelled: IsCancelled = never_cancelled,
    ) -> Prompt:
        """As `codec.prompt_of`; where memory is planned the song's networks leave the device for those of
        prompts, unless the cache has the prompt."""
        return self.codec.prompt_of(
            source,
            options,
            cache=cache,
            make_room=self._make_room,
            on_progress=on_progress,
            cancelled=cancelled,
        )

    def generate(
        self,
        lyrics: str,
        description: str | None = None,
        *,
        seed: int = 0,
        duration: float | None = None,
        sampling: SamplingOptions | None = None,
        rendering: RenderOptions = RenderOptions(),
        output: OutputType = "mixed",
        prompt: Prompt | None = None,
        literal: bool = False,
        on_progress: OnProgress = ignore_progress,
        cancelled: IsCancelled = never_cancelled,
    ) -> SongResult:
        """Make a song. `output` "separate" renders vocal, accompaniment and mix from the same codes.

        A `prompt` (from `prompt_of`, or stored codes) steers style and voice. The same seed gives the same
        codes and audio on the same device. Raises LyricsError, UserError, Cancelled.
        """
        (song,) = self.generate_candidates(
            lyrics,
            description,
            seeds=[seed],
            duration=duration,
            sampling=sampling,
            rendering=rendering,
            output=output,
            prompt=prompt,
            literal=literal,
            on_progress=on_progress,
            cancelled=cancelled,
        )
        return song

    def generate_candidates(
        self,
        lyrics: str,
        description: str | None = None,
        *,
        seeds: Sequence[int],
        duration: float | None = None,
        sampling: SamplingOptions | None = None,
        rendering: RenderOptions = RenderOptions(),
        output: OutputType = "mixed",
        prompt: Prompt | None = None,
        literal: bool = False,
        on_audio: OnAudio | None = None,
        on_progress: OnProgress = ignore_progress,
        cancelled: IsCancelled = never_cancelled,
    ) -> Iterator[SongResult]:
        """Songs that differ by their seed alone, see `generate`: written in one go, each there once it is
        rendered. One that the model ends before its first sound is left out, unless all are.

        `on_audio` hears a single song as it grows, where the engine can do that and all networks stay on the
        device; otherwise each song when it is done.
        """
        if output not in OUTPUTS:
            raise UserError(f"output '{output}' is unknown; choose one of {', '.join(OUTPUTS)}")
        self._check_planned(duration)
        stream = self.engine.sing_streaming
        if on_audio is not None and stream is not None and len(seeds) == 1 and not self.low_memory:
            with self._at_work(*self._writers(), self.codec.renderer, self.codec.vae):
                made = stream(
                    self.lm,
                    self.tokenizers,
                    self.codec.renderer,
                    self.codec.vae,
                    lyrics,
                    description,
                    seed=seeds[0],
                    device=self.device,
                    dtype=self.dtype,
                    duration=duration,
                    sampling=sampling,
                    rendering=rendering,
                    output=output,
                    prompt=prompt,
                    literal=literal,
                    loop=self.engine.song_loop(self.lm, self.device),
                    on_audio=on_audio,
                    on_progress=on_progress,
                    cancelled=cancelled,
                )
            rate = self.codec.vae.config.sample_rate
            yield SongResult(made.codes, made.audio, rate, seeds[0], made.ended, self.name)
            return
        prompt_codes = None if prompt is None else prompt.codes
        requests = [
            SongRequest(lyrics, description, seed, duration, output, prompt_codes, literal) for seed in seeds
        ]
        with self._at_work(*self._writers()):
            songs = write_songs(
                self.lm,
                self.tokenizers,
                requests,
                device=self.device,
                dtype=self.dtype,
                sampling=sampling,
                loop=self.engine.song_loop(self.lm, self.device),
                on_progress=on_progress,
                cancelled=cancelled,
            )
        if songs and all(song.is_empty for song in songs):
            raise UserError(EMPTY_SONG)
        wanted = ("mixed", "vocal", "bgm") if output == "separate" else (output,)
        for seed, song in zip(seeds, songs):
            if song.is_empty:
                continue
            codes = song.codes.clone()  # out of inference mode, so that callers may change it in place
            audio = {}
            with self._at_work(self.codec.renderer, self.codec.vae):
                for name in wanted:
                    audio[name] = self.codec.render(
                        codes,
                        seed=seed,
                        output=name,
                        prompt=prompt,
                        rendering=rendering,
                        on_progress=on_progress,
                        cancelled=cancelled,
                    )
            if on_audio is not None:
                for name, whole in audio.items():
                    on_audio(name, whole)
            rate = self.codec.vae.config.sample_rate
            yield SongResult(codes, audio, rate, seed, song.ended, self.name)

    @contextmanager
    def _at_work(self, *networks: nn.Module) -> Iterator[None]:
        """`networks` on the device, afterwards too if they may stay; torch takes no more than is planned."""
        budget = None if self.plan is None else self.plan.budget
        with limited(self.device, budget), placed(networks, self.device, stay=not self.low_memory):
            yield

    def _make_room(self) -> None:
        """Free the device for networks that the plan does not know."""
        if self.plan is not None:
            for network in (self.lm, self.codec.renderer, self.codec.vae):
                network.to("cpu")

    def _writers(self) -> list[nn.Module]:
        """What of the language model lies on the device while it writes."""
        if self.plan is None or not self.plan.text_tables_in_ram:
            return [self.lm]
        return [part for part in self.lm.children() if part is not self.lm.conditioner]

    def _check_planned(self, duration: float | None) -> None:
        """Raise UserError for songs that are longer than memory was planned for."""
        if self.plan is not None and check_duration(duration, self.lm.config) > self.plan.num_frames:
            seconds = self.plan.num_frames / FRAME_RATE
            raise UserError(f"memory is planned for songs of {seconds:g} s; give a duration of no more")
