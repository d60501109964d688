"""From recordings of any length, rate and number of channels to a prompt or to the codes of a whole song.

Letters: C channels, N samples.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..audio.resample import check_recording, resample_pyav, two_channels
from ..configs import SAMPLE_RATE
from ..devices import exact_float32
from ..errors import AudioError, Cancelled, UserError
from ..generation.segments import count_segments
from ..layers.resample import is_odd_rate
from ..progress import (
    IsCancelled,
    OnProgress,
    count_progress,
    ignore_progress,
    interruptible,
    never_cancelled,
)
from ..seeds import check_seed
from .cache import PromptCache, cache_key
from .chorus import find_best_start
from .clip import clips_of_stems, cut_clip, equal_length, is_silent
from .prompt import PROMPT_SECONDS, Clips, Prompt, PromptEncoders, encode_prompt, encode_recording
from .separation import prompt_stems

log = logging.getLogger("songgen")

SILENT = (
    "the recording is silent where the prompt is taken from, or its channels cancel each other; it steers"
    " nothing: choose another part"
)
_NAMES = {"song": "recording", "vocal": "recording of the voice", "bgm": "recording of the accompaniment"}
_SAME_LENGTH = 0.1  # seconds; encoders of files pad by less
_SHORTEST, _LONGEST = 0.04, 10.0  # seconds of a prompt


@dataclass(frozen=True)
class Recording:
    """samples [C, N] float at sample_rate Hz."""

    samples: Tensor
    sample_rate: int

    @property
    def seconds(self) -> float:
        return self.samples.shape[-1] / self.sample_rate


@dataclass(frozen=True)
class Source:
    """What there is of a song. Voice and accompaniment are separated unless one of them is given.

    A voice or an accompaniment alone is taken for the whole song.
    """

    song: Recording | None = None
    vocal: Recording | None = None
    bgm: Recording | None = None

    def __post_init__(self) -> None:
        if not self.given:
            raise UserError("no recording is given; give a song, or its voice, or its accompaniment")

    @property
    def given(self) -> dict[str, Recording]:
        every = {"song": self.song, "vocal": self.vocal, "bgm": self.bgm}
        return {name: recording for name, recording in every.items() if recording is not None}

    @property
    def needs_separation(self) -> bool:
        return self.given.keys() == {"song"}

    def checked(self) -> "Source":
        """First two channels, float32 on the CPU, at a rate that can be resampled. Raises AudioError."""
        kept = {}
        for name, recording in self.given.items():
            try:
                check_recording(recording.samples, recording.sample_rate)
            except AudioError as error:
                raise AudioError(f"{name}: {error}") from error
            samples, rate = recording.samples[:2].detach().to("cpu", torch.float32), recording.sample_rate
            if is_odd_rate(rate):
                log.warning("%d Hz is an unusual sample rate; FFmpeg brings the recording to 48 kHz", rate)
                samples, rate = resample_pyav(samples, rate, SAMPLE_RATE), SAMPLE_RATE
            kept[name] = Recording(samples, rate)
        return Source(**kept)


@dataclass(frozen=True)
class PromptOptions:
    """Which part of a recording is used, and how.

    start: seconds; None finds the part that is most like a chorus. faithful: the first seconds, with all that
    the reference does on the way (whole file separated, voice through 16 bits, mono left mono).
    """

    start: float | None = None
    seconds: float = PROMPT_SECONDS
    seed: int = 0
    faithful: bool = False

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not _SHORTEST <= self.seconds <= _LONGEST:  # also catches NaN
            raise UserError(
                f"the prompt's length is {self.seconds:g} s; choose {_SHORTEST:g} to {_LONGEST:g} s"
            )
        if self.start is not None and not 0 <= self.start < math.inf:
            raise UserError(f"the prompt's start is {self.start:g} s; choose 0 or later, or leave it out")
        if self.faithful and self.start:
            raise UserError(
                "the faithful way takes the first 10 s, as the reference does; set no start, or do without it"
            )


# Load networks where they are needed and put them on their device.
GetSeparator = Callable[[], tuple[nn.Module, torch.device]]
GetEncoders = Callable[[], tuple[PromptEncoders, torch.device]]


def make_prompt(
    source: Source,
    options: PromptOptions,
    *,
    separator: GetSeparator,
    encoders: GetEncoders,
    cache: PromptCache | None = None,
    fingerprint: str = "",
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> Prompt:
    """The prompt that a recording makes; from the cache where the same one was made before.

    Networks are asked for only if they are needed. `fingerprint` names the files of the networks in the
    cache. Raises AudioError, UserError, Cancelled.
    """
    source = source.checked()
    key = "" if cache is None else cache_key(source.given, options, fingerprint)
    if cache is not None and (known := cache.load(key)) is not None:
        log.info("prompt taken from the cache: %s", known.about)
        return known
    start = choose_start(source, options)
    stop_if(cancelled)
    clips = clips_of(
        source,
        start,
        options.seconds,
        options,
        separator=separator,
        on_progress=on_progress,
        cancelled=cancelled,
    )
    if is_silent(clips.mix):
        log.warning(SILENT)
    networks, device = encoders()
    seconds = clips.vocal.shape[-1] / SAMPLE_RATE
    prompt = encode_prompt(
        networks,
        clips,
        seed=options.seed,
        device=device,
        split_mono=options.faithful,
        about=f"{seconds:.1f} s of a recording from {start:.1f} s on",
        on_progress=on_progress,
        cancelled=cancelled,
    )
    if cache is not None:
        cache.save(key, prompt)
    return prompt


def encode_song(
    source: Source,
    *,
    separator: GetSeparator,
    encoders: GetEncoders,
    seed: int = 0,
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> Tensor:
    """A whole recording -> codes [1, 3, T] int64 on the CPU, as many as fit. Raises AudioError, Cancelled."""
    source = source.checked()
    lengths = [recording.seconds for recording in source.given.values()]
    seconds, common = max(lengths), min(lengths)
    if seconds - common > _SAME_LENGTH:
        log.warning("the longest recording lasts %.1f s; only the first %.1f s are in all", seconds, common)
    clips = clips_of(
        source,
        0.0,
        seconds,
        PromptOptions(seed=seed),
        separator=separator,
        on_progress=on_progress,
        cancelled=cancelled,
    )
    length = clips.vocal.shape[-1]
    networks, device = encoders()
    step = count_progress("encoding", 3 * count_segments(length), on_progress)
    with (
        torch.inference_mode(),
        interruptible(cancelled, *networks.networks),
        exact_float32(device),
    ):
        codes = encode_recording(networks, clips, device=device, on_segment=step)
    # The encoder's extra code hears the repeated beginning; a song shorter than a frame has no other.
    # A clone out of inference mode, so that callers may change it in place.
    return codes[..., : max(1, length // networks.vae.config.hop_length)].clone()


@dataclass(frozen=True)
class Part:
    """What of a source a prompt is made of: mix [2, N] at 48 kHz, from `start` (seconds) on."""

    mix: Tensor
    start: float

    @property
    def seconds(self) -> float:
        return self.mix.shape[-1] / SAMPLE_RATE

    @property
    def is_silent(self) -> bool:
        return is_silent(self.mix)


def part_of(source: Source, options: PromptOptions) -> Part:
    """The part that `make_prompt` takes with these options, to be listened to. Raises AudioError."""
    source = source.checked()
    start = choose_start(source, options)
    cut = cut_source(source, start, options.seconds)
    stereo = {name: two_channels(clip) for name, clip in cut.items()}
    mix = stereo["song"] if source.needs_separation else clips_of_stems(stereo).mix
    return Part(mix.clone(), start)  # a cut may be a view of the recording itself


def cut_source(
    source: Source, start: float, seconds: float, cancelled: IsCancelled = never_cancelled
) -> dict[str, Tensor]:
    """`seconds` of every recording of a checked source, [C, N] at 48 kHz. Raises AudioError, Cancelled."""
    return {
        name: cut_clip(r.samples, r.sample_rate, start, seconds, lambda: stop_if(cancelled))
        for name, r in source.given.items()
    }


def choose_start(source: Source, options: PromptOptions) -> float:
    """Seconds at which the prompt begins. Raises AudioError where no prompt fits behind it."""
    name, shortest = min(source.given.items(), key=lambda item: item[1].seconds)
    start = options.start or 0.0
    if shortest.seconds - start < _SHORTEST:
        long = f"the {_NAMES[name]} is {shortest.seconds:.3f} s long"
        raise AudioError(
            f"the prompt starts at {start:g} s, {long}; start earlier"
            if start
            else f"{long}; give {_SHORTEST:g} s at least, best 10 s"
        )
    if options.start is not None or options.faithful:
        return start
    heard = source.song or source.vocal or source.bgm
    assert heard is not None
    # Not behind the end of a stem that is shorter.
    common = heard.samples[:, : math.ceil(shortest.seconds * heard.sample_rate)]
    return find_best_start(common, heard.sample_rate, options.seconds)


def stop_if(cancelled: IsCancelled) -> None:
    if cancelled():
        raise Cancelled("stopped by the user")


def clips_of(
    source: Source,
    start: float,
    seconds: float,
    options: PromptOptions,
    separator: GetSeparator,
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> Clips:
    """`seconds` of a checked source from `start` (seconds) on: mix and stems of one length at 48 kHz.

    Raises AudioError, Cancelled.
    """
    if source.needs_separation:
        assert source.song is not None
        network, device = separator()
        vocal, bgm = prompt_stems(
            network,
            source.song.samples,
            source.song.sample_rate,
            start=round(start * source.song.sample_rate),
            seconds=seconds,
            faithful=options.faithful,
            seed=options.seed,
            device=device,
            on_progress=on_progress,
            cancelled=cancelled,
        )
        mix = cut_source(source, start, seconds, cancelled)["song"]
        # Quirk: the reference leaves a mono mix mono, which its segments then mistake (`split_mono`).
        return equal_length(mix if options.faithful else two_channels(mix), vocal, bgm)
    cut = cut_source(source, start, seconds, cancelled)
    return clips_of_stems({name: two_channels(clip) for name, clip in cut.items()})
