"""Where in a recording the chorus is: the part that comes back, is loud, and begins something.

    recording --> features [T, D] --> how well does each window match others? --\\
                  loudness [T] -----> how loud is it, does it begin louder? ------> best window --> onset

Letters: C channels, N samples, T frames of a fifth of a second, D features, P positions of a window.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..audio.resample import check_recording
from ..errors import AudioError

_FRAME_RATE = 5  # frames per second; each looks at twice its share of the sound
_BLOCK = 256  # frames per pass, which bounds the memory
_LONGEST = 900  # seconds that are looked at; the table of matches grows with the square
_SILENCE = 1e-10  # mean power, -100 dB

_CHROMA_HZ = (130.0, 2100.0)  # where the chords are
_BANDS_HZ = (60.0, 8000.0)
_NUM_BANDS = 24
_HEARD_FROM_HZ = 150.0  # a bass makes no chorus
_FLOOR_DB = 60.0  # what lies this far below the loudest counts as silent
_FEATURE_DB = 20.0  # this much in all bands weighs as much as another chord

# The second-best match counts a little: a chorus comes more often than a verse.
_BEST_MATCH, _SECOND_MATCH = 0.85, 0.15
_LOUDNESS, _LOUDNESS_DB = 0.5, 10.0  # weight against a perfect match; decibels from nothing to full
_BEGINNING, _BEGINNING_SECONDS, _BEGINNING_DB = 0.2, 3.0, 6.0

_SNAP_SECONDS = 0.5  # an onset is looked for this far on both sides
_ONSET_RATE = 100  # frames per second there
_ONSET_MARGIN = 0.01  # seconds kept before the onset
_PROMINENT = 3.0  # an onset rises by so many times the usual amount


def find_best_start(audio: Tensor, sample_rate: int, seconds: float = 10.0) -> float:
    """Start, in seconds, of the most chorus-like `seconds` of audio [C, N]; just before an onset nearby.

    A part that is repeated wins over one that is not, a louder one over a quieter one, and its beginning
    over its middle. 0.0 for silence and for a recording that is not longer than `seconds`. Only the first
    15 minutes are looked at. The same recording has the same start. Raises AudioError for unusable audio.
    """
    check_recording(audio, sample_rate)
    if not 0 < seconds < math.inf:
        raise AudioError(f"seconds is {seconds}; it must be the length of the wanted part, such as 10")
    audio = audio[:, : max(_LONGEST, math.ceil(seconds)) * sample_rate]
    latest = audio.shape[1] / sample_rate - seconds
    if latest <= 0:
        return 0.0
    mono = _mono(audio)
    power = _power_bands(mono, sample_rate)
    loudness, features = power[:, 0], _features(power[:, 1:])
    if float(loudness.max()) < _SILENCE:
        return 0.0
    width = max(1, round(seconds * _FRAME_RATE))
    repetition, where = _repetition(features, width)
    score = repetition + _loudness(loudness, width) + _beginning(loudness, features, where)
    # Not torch's argmax: of several best ones it may return any.
    best = int((score == score.max()).nonzero()[0, 0])
    return _snap(mono, sample_rate, min(best / _FRAME_RATE, latest), latest)


def _mono(audio: Tensor) -> Tensor:
    """[C, N] -> [N] float32: the mean of the channels, or the first one where they cancel each other."""
    audio = audio.detach().to("cpu", torch.float32)
    mono = audio.mean(0)
    return audio[0] if mono.square().mean() < 1e-3 * audio[0].square().mean() else mono


def _power_bands(mono: Tensor, sample_rate: int) -> Tensor:
    """[N] -> [T, 1 + 12 + bands]: power of what is heard, of the pitch classes and of the bands."""
    size = 2 ** round(math.log2(2 * sample_rate / _FRAME_RATE))
    num_frames = max(1, round(mono.shape[0] / sample_rate * _FRAME_RATE))
    # Not a fixed step in samples: it would add up to seconds at odd sample rates.
    starts = (torch.arange(num_frames, dtype=torch.float64) * sample_rate / _FRAME_RATE).long()
    padded = pad(mono, (size // 4, size + sample_rate))
    window, filters = torch.hann_window(size) / size, _filters(size, sample_rate)
    blocks = []
    for first in starts.split(_BLOCK):
        frames = torch.stack([padded[s : s + size] for s in first.tolist()])
        blocks.append(torch.fft.rfft(frames * window).abs().square() @ filters)
    return torch.cat(blocks)


def _filters(size: int, sample_rate: int) -> Tensor:
    """[size / 2 + 1, 1 + 12 + bands]: which frequency belongs where."""
    hertz = torch.fft.rfftfreq(size, 1 / sample_rate)
    heard = (hertz >= min(_HEARD_FROM_HZ, sample_rate / 8)).float()[:, None]
    pitch = (12 * torch.log2(hertz.clamp(min=1.0) / 440.0)).round().long() % 12
    tonal = ((hertz >= _CHROMA_HZ[0]) & (hertz < _CHROMA_HZ[1])).float()[:, None]
    low, high = (math.log(hz) for hz in _BANDS_HZ)
    band = ((hertz.clamp(min=1.0).log() - low) / (high - low) * _NUM_BANDS).floor().long()
    bands = (band[:, None] == torch.arange(_NUM_BANDS)).float()
    return torch.cat([heard, torch.nn.functional.one_hot(pitch, 12) * tonal, bands], dim=1)


def _features(power: Tensor) -> Tensor:
    """Power [T, 12 + bands] -> [T, D]: chord and timbre, as they differ from the whole song's."""
    chroma = power[:, :12].sqrt()
    chroma = chroma / chroma.norm(dim=1, keepdim=True).clamp(min=1e-5)
    timbre = _decibels(power[:, 12:]) / _FEATURE_DB / math.sqrt(_NUM_BANDS)
    features = torch.cat([chroma, timbre], dim=1)
    return features - features.mean(0)


def _decibels(power: Tensor) -> Tensor:
    """Decibels above a floor that lies 60 dB below the largest value."""
    level = 10 * torch.log10(power.clamp(min=1e-20))
    return (level - level.max() + _FLOOR_DB).clamp(min=0.0)


def _windowed(values: Tensor, width: int) -> Tensor:
    """[T] -> [P]: mean of each window of `width` frames."""
    sums = pad(values.double().cumsum(0), (1, 0))
    return ((sums[width:] - sums[:-width]) / width).float()


def _repetition(features: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """[T, D] -> [P] in 0..1: how well a window matches the two others that match it best; [P]: the best.

    Two windows match by the correlation of their frames; they and the two matches do not overlap.
    """
    num_frames = features.shape[0]
    positions = num_frames - width + 1
    energy = _windowed(features.square().sum(1), width).clamp(min=1e-9).sqrt()  # [P]
    match = torch.zeros(positions, positions)
    for lag in range(width, positions):
        products = (features[:-lag] * features[lag:]).sum(1)
        match.diagonal(lag).copy_(_windowed(products, width) / (energy[:-lag] * energy[lag:]))
    match += match.T.clone()
    best, where = match.max(dim=1)
    others = torch.arange(positions, dtype=torch.int32)
    match[(others - where.int()[:, None]).abs() < width] = 0.0
    second = match.max(dim=1).values
    return _BEST_MATCH * best.clamp(0, 1) + _SECOND_MATCH * second.clamp(0, 1), where


def _loudness(power: Tensor, width: int) -> Tensor:
    """[T] -> [P]: the loudness of each window, from 10 dB below the loudest one."""
    level = 10 * torch.log10(_windowed(power, width).clamp(min=1e-20))
    return _LOUDNESS * (1 + (level - level.max()) / _LOUDNESS_DB).clamp(min=0.0)


def _beginning(power: Tensor, features: Tensor, where: Tensor) -> Tensor:
    """[T], [T, D], [P] -> [P]: does a part begin here, after something else?

    Three signs count alike: it gets louder, the music is other than just before, and what was before is
    other than what was before the best match (`where`), so that the repetition begins here.
    """
    span, length = round(_BEGINNING_SECONDS * _FRAME_RATE), power.shape[0]
    after = torch.arange(where.shape[0])
    before, end = (after - span).clamp(min=0), (after + span).clamp(max=length)
    rows = torch.cat([_decibels(power)[:, None], features], dim=1)
    sums = pad(rows.double().cumsum(0), (0, 0, 1, 0))
    later = (sums[end] - sums[after]) / (end - after)[:, None]
    earlier = (sums[after] - sums[before]) / (after - before).clamp(min=1)[:, None]
    rise = ((later - earlier)[:, 0] / _BEGINNING_DB).clamp(0, 1)
    change = (later - earlier)[:, 1:].norm(dim=1)
    change = change / change.max().clamp(min=1e-9)
    score = (rise + change + 1 - _match_before(features, where, span)) / 3
    return _BEGINNING * torch.where(after > 0, score, 0.0).float()


def _match_before(features: Tensor, where: Tensor, span: int) -> Tensor:
    """[T, D], [P] -> [P] in 0..1: how well the `span` frames before a window match those before its match."""
    padded = pad(features, (0, 0, span, 0))  # nothing was before the beginning
    back = torch.arange(span)
    ours = padded[torch.arange(where.shape[0])[:, None] + back].flatten(1)  # [P, span * D]
    theirs = padded[where[:, None] + back].flatten(1)
    return torch.nn.functional.cosine_similarity(ours, theirs).clamp(0, 1)


def _snap(mono: Tensor, sample_rate: int, start: float, latest: float) -> float:
    """The time of the clearest onset around `start`, a little early; `start` itself where there is none."""
    hop, size = max(1, round(sample_rate / _ONSET_RATE)), max(16, round(sample_rate / 40))
    low, high = max(0.0, start - _SNAP_SECONDS), min(latest, start + _SNAP_SECONDS)
    first, last = round(low * sample_rate), round(high * sample_rate)
    # Frames are centred; the beginning of the recording counts as an onset after silence.
    reach = size // 2 + hop
    piece = pad(mono, (reach, reach))[first : last + 2 * reach]
    spectra = torch.fft.rfft(piece.unfold(0, size, hop) * torch.hann_window(size)).abs()
    scale = 10.0 / spectra.max().clamp(min=1e-9)
    rises = torch.log1p(scale * spectra).diff(dim=0).clamp(min=0.0).sum(1)  # one per hop, from `low` on
    times = low + torch.arange(rises.shape[0]) * hop / sample_rate
    near = 1 - (times - start).abs() / (2 * _SNAP_SECONDS)
    best = int((rises * near).argmax())
    if float(rises[best]) <= _PROMINENT * float(rises.median()):
        return start
    return min(max(float(times[best]) - _ONSET_MARGIN, 0.0), latest)
