"""A recording into its four stems, and into the vocal and accompaniment that a prompt is made of.

    recording --> 44.1 kHz (FFmpeg) --> separate --> vocal --> 48 kHz ----------> vocal prompt
        |                                                         |
        +----------------------------------------> 48 kHz --------(-)----------> accompaniment prompt

LeVo spec, separator 2 and 3. Letters: C channels, N samples of the recording, M samples at 48 kHz.
"""

import importlib
import logging
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..audio.resample import check_recording, resample_pyav, two_channels
from ..configs import SAMPLE_RATE
from ..devices import exact_float32, placed
from ..errors import AudioError, UserError
from ..layers.resample import is_odd_rate, resample
from ..progress import IsCancelled, OnProgress, Progress, ignore_progress, interruptible, never_cancelled
from ..seeds import check_seed
from .load_separator import STEMS

log = logging.getLogger("songgen")

_SILENCE = 1e-10  # -200 dB: far below the last bit of any recording


def separate(
    separator: nn.Module,
    audio: Tensor,
    *,
    seed: int | None,
    shifts: int = 1,
    overlap: float = 0.25,
    device: torch.device | str = "cpu",
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> dict[str, Tensor]:
    """Audio [2, N] float32 at the separator's rate -> {stem: [2, N] float32 on the CPU}.

    The network sees `shifts` copies, each moved by up to half a second, and the mean counts; `seed` draws
    the moves, None means one copy that is not moved. Recording and stems stay on the CPU, one chunk at a
    time is on `device`; the separator goes there and comes back. A silent recording has silent stems.
    Raises AudioError, UserError for impossible settings and Cancelled within one block of the network.
    """
    if seed is not None:
        check_seed(seed)
    rate, _ = _grid(separator)
    check_recording(audio, rate)
    if audio.shape[0] != 2:
        raise AudioError(f"the separator takes two channels, not {audio.shape[0]}; use split_stems")
    if shifts < 0 or not 0 <= overlap < 1:
        raise UserError(f"shifts is {shifts} and overlap {overlap}; use shifts 0 or more, overlap 0 to 0.9")
    audio = audio.detach().to("cpu", torch.float32)
    # The mean of the channels sets level and offset of both, over the whole recording.
    mean, std = _statistics(audio)
    if not std > _SILENCE:
        log.warning("the recording is silent, or its channels cancel each other; so its stems are silent")
        return {stem: torch.zeros_like(audio) for stem in STEMS}
    mix = ((audio - mean) / std)[None]
    offsets = draw_offsets(seed, shifts, _reach(separator))
    total = _count_chunks(separator, audio.shape[1], offsets, overlap)
    device = torch.device(device)
    with (
        interruptible(cancelled, separator),
        exact_float32(device),
        placed([separator], device, stay=False),
        _counted(separator, total, on_progress),
    ):
        out = apply_moved(separator, mix, offsets, overlap, device)[0]  # [4, 2, N]
    return dict(zip(STEMS, out.mul_(std).add_(mean)))


def split_stems(
    separator: nn.Module,
    audio: Tensor,
    sample_rate: int,
    *,
    seed: int | None,
    shifts: int = 1,
    overlap: float = 0.25,
    device: torch.device | str = "cpu",
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> dict[str, Tensor]:
    """Audio [C, N] at any rate -> {stem: [2, N] float32} at the same rate and of the same length.

    Mono is duplicated, of more than two channels the first two are kept. The rest is as in `separate`.
    """
    mix = _at_separator_rate(separator, audio, sample_rate)
    stems = separate(
        separator,
        mix,
        seed=seed,
        shifts=shifts,
        overlap=overlap,
        device=device,
        on_progress=on_progress,
        cancelled=cancelled,
    )
    rate, _ = _grid(separator)
    back = ((name, resample_pyav(stem, rate, sample_rate)) for name, stem in stems.items())
    # The way there and back rounds the length up twice.
    return {name: pad(stem, (0, audio.shape[1] - stem.shape[1])) for name, stem in back}


def prompt_stems(
    separator: nn.Module,
    audio: Tensor,
    sample_rate: int,
    *,
    start: int = 0,
    seconds: float = 10.0,
    faithful: bool = False,
    seed: int | None,
    shifts: int = 1,
    overlap: float = 0.25,
    device: torch.device | str = "cpu",
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> tuple[Tensor, Tensor]:
    """Audio [C, N] -> (vocal [2, M], accompaniment [2, M]) float32 at 48 kHz; M covers up to `seconds`.

    `start` is a sample of the recording. Accompaniment is the mix minus the vocal. Separates only the wanted
    part and one segment around it. `faithful` does as the reference: it separates the whole recording,
    brings the vocal below full scale and rounds it to 16 bits; it knows only the beginning, so `start` must
    be 0. Other arguments and errors are those of `separate`.
    """
    check_recording(audio, sample_rate)
    _check_window(audio, sample_rate, start, seconds, faithful)
    if is_odd_rate(sample_rate):
        audio, start = (
            resample_pyav(two_channels(audio), sample_rate, SAMPLE_RATE),
            round(start * SAMPLE_RATE / sample_rate),
        )
        sample_rate = SAMPLE_RATE
    audio, skip = (audio, 0) if faithful else _around(separator, audio, sample_rate, start, seconds)
    stems = separate(
        separator,
        _at_separator_rate(separator, audio, sample_rate),
        seed=seed,
        shifts=shifts,
        overlap=overlap,
        device=device,
        on_progress=on_progress,
        cancelled=cancelled,
    )
    vocal, (rate, _) = stems["vocal"], _grid(separator)
    if faithful:
        vocal = to_16_bits(rescale_peak(vocal))
    vocal = _at_prompt_rate(vocal, rate, skip, seconds)
    mix = _at_prompt_rate(two_channels(audio), sample_rate, skip, seconds)
    # Quirk: the reference stops where the trip through 44.1 kHz returned a sample more than the mix has.
    length = min(vocal.shape[1], mix.shape[1])
    vocal, mix = vocal[:, :length], mix[:, :length]
    return vocal.clone(), mix - vocal


def rescale_peak(audio: Tensor) -> Tensor:
    """audio / max(1.01 * peak, 1): what the reference does to each stem before it writes a file."""
    return audio / max(1.01 * float(audio.abs().max()), 1.0)


def to_16_bits(audio: Tensor) -> Tensor:
    """The float32 values that come back from a 16-bit file of `audio`."""
    return (audio * 32768.0).round().clamp(-32768, 32767) / 32768.0


def _grid(separator: nn.Module) -> tuple[int, int]:
    """Sample rate of the separator in Hz and length of its segment in samples."""
    network = cast(Any, separator)
    return int(network.samplerate), int(network.samplerate * network.segment)


def _reach(separator: nn.Module) -> int:
    """The largest move, in samples: half a second."""
    return int(0.5 * _grid(separator)[0])


def _at_separator_rate(separator: nn.Module, audio: Tensor, sample_rate: int) -> Tensor:
    """[C, N] -> [2, samples at the separator's rate], with FFmpeg's resampler as in the reference."""
    check_recording(audio, sample_rate)
    return resample_pyav(two_channels(audio), sample_rate, _grid(separator)[0])


def _at_prompt_rate(audio: Tensor, rate: int, skip: int, seconds: float) -> Tensor:
    """[2, N] -> [2, M] at 48 kHz: `seconds` from sample `skip` (at 48 kHz) on, or what there is of them."""
    count = round(seconds * SAMPLE_RATE)
    needed = math.ceil(((skip + count) / SAMPLE_RATE + 1.0) * rate)  # the filter reaches milliseconds
    return resample(audio[:, :needed], rate, SAMPLE_RATE)[:, skip : skip + count]


def _check_window(audio: Tensor, sample_rate: int, start: int, seconds: float, faithful: bool) -> None:
    length = audio.shape[1]
    if not 1.0 / SAMPLE_RATE <= seconds < math.inf:
        raise AudioError(f"seconds is {seconds}; it must be the length of the wanted part, such as 10")
    if faithful and start != 0:
        raise UserError(
            "the faithful way knows only the beginning of a recording; set start to 0 or switch it off"
        )
    if not 0 <= start < length:
        raise AudioError(
            f"start is at {start / sample_rate:.1f} s, but the recording lasts {length / sample_rate:.1f} s;"
            " choose an earlier start"
        )


def _around(
    separator: nn.Module, audio: Tensor, sample_rate: int, start: int, seconds: float
) -> tuple[Tensor, int]:
    """The wanted part with a segment of margin on both sides, and how many samples at 48 kHz precede it.

    The cut lies where the grids of all three sample rates meet, so that no part of a sample is shifted.
    """
    rate, segment = _grid(separator)
    step = sample_rate // math.gcd(sample_rate, rate, SAMPLE_RATE)
    margin = math.ceil(segment * sample_rate / (rate * step)) * step
    before = min(margin, start // step * step)
    stop = start + math.ceil(seconds * sample_rate) + margin
    return audio[:, start - before : stop], before * SAMPLE_RATE // sample_rate


def _statistics(audio: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased deviation of the mean of both channels; a single sample deviates by 0."""
    mono = audio.mean(0)
    return mono.mean(), mono.std() if mono.numel() > 1 else torch.zeros(())


def draw_offsets(seed: int | None, shifts: int, reach: int) -> list[int]:
    """One move per shift, as Python's random module draws them after `random.seed(seed)`."""
    if seed is None:
        return []
    generator = random.Random(seed)
    return [generator.randint(0, reach) for _ in range(shifts)]


def _count_chunks(separator: nn.Module, length: int, offsets: Sequence[int], overlap: float) -> int:
    """How often the network runs for a recording of `length` samples."""
    stride = int((1 - overlap) * _grid(separator)[1])
    if stride < 1:
        raise UserError(f"overlap is {overlap}, which leaves no step between chunks; use 0.25")
    lengths = [length + _reach(separator) - offset for offset in offsets] or [length]
    return sum(math.ceil(n / stride) for n in lengths)


def apply_moved(
    separator: nn.Module,
    mix: Tensor,
    offsets: Sequence[int],
    overlap: float,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Mix [1, 2, N] -> [1, 4, 2, N]: the mean over moved copies, which is demucs's own shift layer.

    Written out because demucs draws its moves from Python's global random module.
    """
    demucs = importlib.import_module("demucs.apply")
    run = partial(demucs.apply_model, separator, shifts=0, split=True, overlap=overlap, device=device)
    if not offsets:
        return run(mix)
    reach, length = _reach(separator), mix.shape[-1]
    padded = pad(mix, (reach, reach))
    mean: Tensor | None = None
    for offset in offsets:
        part = run(demucs.TensorChunk(padded, offset, length + reach - offset))[..., reach - offset :]
        mean = part if mean is None else mean.add_(part)
    assert mean is not None
    return mean.div_(len(offsets))


@contextmanager
def _counted(separator: nn.Module, total: int, on_progress: OnProgress) -> Iterator[None]:
    """While active every run of the network is reported."""
    done = 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1
        on_progress(Progress("separating", done, total))

    on_progress(Progress("separating", done, total))
    handle = separator.register_forward_hook(count)
    try:
        yield
    finally:
        handle.remove()
