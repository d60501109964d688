"""What is drawn on the ground of a cover: a song as rings, mountains, a field of lines or a sun.

Every motif takes a canvas [H, W, 3] in linear light, which it may draw on, and returns one. Edges are a
pixel soft.
Letters: H height, W width, T moments, B bands.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .cover_colours import Mood, to_light
from .sound_shape import SoundShape, smooth

Tell = Callable[[float], None]  # told which share of the work is done, 0..1; raises Cancelled

_RINGS, _CHAINS, _LINES, _RAYS = 34, 7, 36, 144
_PASSAGE = 72  # moments
_STRIP = 1 << 20  # pixels
_BEFORE_END = 0.998  # of a song that is not closed to a circle


@dataclass(frozen=True)
class Plan:
    """What motifs share: the sound, colours, how wild it is (0..1), the dice, rows without letters."""

    shape: SoundShape
    mood: Mood
    energy: float
    generator: torch.Generator
    free: tuple[int, int]  # first row, and the one after the last
    tell: Tell

    def within(self, low: float, high: float) -> "Plan":
        """The plan of a part of the work, from the share `low` to `high`."""
        return replace(self, tell=lambda share: self.tell(low + (high - low) * share))

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=self.generator))

    def glow(self, number: int) -> Tensor:
        return to_light(self.mood.glows[number % len(self.mood.glows)])

    @property
    def ink(self) -> Tensor:
        return to_light(self.mood.ink)


def paint(canvas: Tensor, cover: Tensor, colour: Tensor) -> Tensor:
    """Canvas [H, W, 3], cover [H, W] in 0..1, colour [3] or [H, W, 3]."""
    return canvas + (colour - canvas) * cover[..., None]


def strips(first: int, last: int, width: int) -> Iterator[slice]:
    """Rows from `first` to before `last`, so many at once that a stop need not wait for long."""
    step = max(1, _STRIP // width)
    for row in range(first, last, step):
        yield slice(row, min(row + step, last))


def rings(canvas: Tensor, plan: Plan) -> Tensor:
    """The song runs once around; each ring is a band, bass inside."""
    height, width = canvas.shape[:2]
    x, y, side = _round_place(plan, height, width)
    radius = torch.hypot(x, y).reshape(-1)  # [H * W], as the turn and the pixels
    turn = (torch.atan2(y, x).reshape(-1) / (2 * math.pi) + plan.between(0, 1)) % 1
    pixels = canvas.view(-1, 3)
    inner, outer, swing = 0.12 * side, 0.45 * side, (0.04 + 0.06 * plan.energy) * side
    thick = max(1.0, 0.0032 * side)
    rows = _around(_resampled(plan.shape.bands, _RINGS))
    for number in range(_RINGS):
        plan.tell(number / _RINGS)
        share = number / (_RINGS - 1)
        row, base, swung = rows[number], inner + (outer - inner) * share, swing * (0.3 + 0.7 * share)
        near = ((radius - base).abs() < _reach(row, base, swung, thick)).nonzero()[:, 0]
        level, slope = _sampled(row, turn[near])
        target = base + swung * (level - 0.5)
        # The distance to a sloping line is less than the distance along the radius.
        lean = torch.sqrt(1 + (swung * slope / (2 * math.pi * target)) ** 2)
        cover = (0.5 + thick / 2 - (radius[near] - target).abs() / lean).clamp(0, 1)
        colour = torch.lerp(plan.glow(0), plan.ink, 0.35 + 0.65 * share)
        pixels[near] = paint(pixels[near], cover * (0.35 + 0.6 * level), colour)
    return canvas


def _reach(row: Tensor, base: float, swung: float, thick: float) -> float:
    """How far from the circle `base` a ring can be seen: pixels beyond are not looked at."""
    steepest = float((row.roll(-1) - row).abs().max()) * len(row)
    lean = math.hypot(1, swung * steepest / (2 * math.pi * (base - swung / 2)))
    return swung / 2 + lean * (0.5 + thick / 2) + 1  # one more for rounding


def mountains(canvas: Tensor, plan: Plan) -> Tensor:
    """Bands as chains of mountains, treble far away and bass near, under a sun or moon."""
    height, width = canvas.shape[:2]
    canvas = _disc(canvas, plan)
    far, near = torch.lerp(plan.glow(1), plan.ink, 0.25), to_light(darkest(plan.mood)) * 0.6
    rows = _resampled(plan.shape.bands, _CHAINS).flip(0)
    across = torch.linspace(0, _BEFORE_END, width)
    down = torch.arange(height)[:, None] + 0.5
    for number in range(_CHAINS):
        share = number / (_CHAINS - 1)
        row = rows[number : number + 1]
        fine, _ = _sampled(smooth(row, 5)[0], across)
        # Near mountains are broad: less of the song from edge to edge.
        broad, _ = _sampled(
            _whole_range(smooth(row, 9 + 8 * (_CHAINS - number))[0]),
            across * (0.7 - 0.3 * share) + plan.between(0, 0.3),
        )
        rise = (0.10 + 0.12 * plan.energy + 0.05 * (1 - share)) * min(height, width)
        top = (0.64 + 0.31 * share) * height - rise * (0.85 * broad + 0.15 * fine)
        body = torch.lerp(far, near, share**0.8)
        for part in strips(max(0, int(top.min()) - 1), height, width):
            plan.tell(number / _CHAINS)
            depth = down[part] - top
            mist = (depth / (0.16 * height)).clamp(0, 1)[..., None]
            colour = body + (far - body) * 0.45 * mist * (1 - share)
            canvas[part] = paint(canvas[part], (depth + 0.5).clamp(0, 1), colour)
    return canvas


def field(canvas: Tensor, plan: Plan) -> Tensor:
    """Lines one behind the other, each a band in a passage of the song, the end in front."""
    ground, (height, width) = canvas.clone(), canvas.shape[:2]
    tall = plan.free[1] - plan.free[0]
    rise = (0.16 + 0.16 * plan.energy) * tall
    top, bottom = plan.free[0] + 0.12 * tall + 0.6 * rise, plan.free[1] - 0.08 * tall
    half = min(0.4 * width, 0.75 * tall)
    thick = max(1.0, 0.003 * min(height, width))
    across = ((torch.arange(width) + 0.5 - 0.5 * width) / half).clamp(-1, 1)
    swell = torch.cos(across * math.pi / 2) ** 2
    ends = ((1 - across.abs()) * 6).clamp(0, 1)  # lines fade in and out
    down = torch.arange(height)[:, None] + 0.5
    lots = torch.randint(len(plan.shape.bands), (_LINES,), generator=plan.generator)
    for number in range(_LINES):
        plan.tell(number / _LINES)
        share = number / (_LINES - 1)
        start = round(share * (plan.shape.bands.shape[1] - _PASSAGE))
        passage = plan.shape.bands[lots[number], start : start + _PASSAGE]
        level, _ = _sampled(passage, (across + 1) / 2 * _BEFORE_END)
        base = top + (bottom - top) * share
        line = base - rise * level**1.5 * (0.06 + 0.94 * swell)
        lean = torch.sqrt(1 + torch.gradient(line)[0] ** 2)
        rows = slice(max(0, int(line.min()) - 3), min(height, int(base) + 4))
        hidden = (down[rows] - line + 0.5).clamp(0, 1) * (ends > 0)
        cover = (0.5 + thick / 2 - (down[rows] - line).abs() / lean).clamp(0, 1) * ends
        colour = torch.lerp(plan.glow(1), plan.ink, 0.3 + 0.7 * share)
        part = paint(canvas[rows], hidden, ground[rows])
        canvas[rows] = paint(part, cover, colour)
    return canvas


def sun(canvas: Tensor, plan: Plan) -> Tensor:
    """A disc with a ray for each moment, as long as it is loud."""
    height, width = canvas.shape[:2]
    x, y, side = _round_place(plan, height, width)
    levels = _around(_resampled(plan.shape.loudness[:, None], _RAYS).T)[0]
    for rows in strips(0, height, width):
        plan.tell(rows.start / height)
        canvas[rows] = _sunlit(canvas[rows], plan, x[rows], y[rows], side, levels)
    return canvas


def _sunlit(canvas: Tensor, plan: Plan, x: Tensor, y: Tensor, side: int, levels: Tensor) -> Tensor:
    """Rows of a canvas [h, W, 3] with the sun; x and y [h, W] from its middle, `levels` of its rays."""
    radius = torch.hypot(x, y)
    place = (torch.atan2(y, x) / (2 * math.pi) + 0.75) % 1 * _RAYS
    number = place.long().clamp(max=_RAYS - 1)
    core, begin = 0.21 * side, 0.24 * side
    reach = begin + (0.05 + 0.17 * (0.4 + 0.6 * plan.energy) * levels[number]) * side
    beside = ((place - number - 0.5).abs() * 2 * math.pi / _RAYS) * radius
    half = 0.30 * 2 * math.pi * core / _RAYS
    # Round ends: the distance to the middle line of the ray.
    beyond = torch.relu(begin + half - radius) + torch.relu(radius - reach)
    cover = (0.5 + half - torch.hypot(beside, beyond)).clamp(0, 1)
    share = ((radius - begin) / (0.24 * side)).clamp(0, 1)[..., None]
    canvas = paint(canvas, cover * 0.95, torch.lerp(plan.ink, plan.glow(1).expand(3), share))
    from_top = ((y / core + 1) / 2).clamp(0, 1)[..., None]
    return paint(canvas, (core - radius + 0.5).clamp(0, 1), torch.lerp(plan.ink, plan.glow(0), from_top))


MOTIFS = {"rings": rings, "mountains": mountains, "field": field, "sun": sun}
LETTERS_AT_TOP = ("mountains",)  # else at the bottom


def darkest(mood: Mood) -> str:
    """The darkest of the colours of a mood."""
    return min((*mood.ground, *mood.glows, mood.ink), key=lambda colour: float(to_light(colour).sum()))


def _disc(canvas: Tensor, plan: Plan) -> Tensor:
    """A sun or moon with its glow, behind mountains."""
    height, width = canvas.shape[:2]
    side = min(height, width)
    size = plan.between(0.10, 0.16) * side
    # Below the letters, even if little of it is seen.
    centre_y = max(plan.between(0.38, 0.48) * height, plan.free[0] + 1.3 * size)
    x, y = _offsets(height, width, centre_y, plan.between(0.3, 0.7) * width)
    light = torch.lerp(plan.glow(1), torch.ones(3), 0.55)
    for rows in strips(0, height, width):
        plan.tell(0.0)
        radius = torch.hypot(x[rows], y[rows])
        part = paint(canvas[rows], 0.55 * torch.exp(-((radius / (2.6 * size)) ** 2)), plan.glow(1))
        canvas[rows] = paint(part, (size - radius + 0.5).clamp(0, 1), light)
    return canvas


def _round_place(plan: Plan, height: int, width: int) -> tuple[Tensor, Tensor, int]:
    """x and y [H, W] from the middle of the free rows, and the side of the square that fits there."""
    first, last = plan.free
    return *_offsets(height, width, (first + last) / 2, width / 2), min(last - first, width)


def _offsets(height: int, width: int, centre_y: float, centre_x: float) -> tuple[Tensor, Tensor]:
    """x [1, W] and y [H, 1] of the middles of pixels, from a centre, as [H, W] each."""
    x = torch.arange(width) + 0.5 - centre_x
    y = torch.arange(height)[:, None] + 0.5 - centre_y
    return x.expand(height, width), y.expand(height, width)


def _whole_range(row: Tensor) -> Tensor:
    return (row - row.min()) / (row.max() - row.min()).clamp(min=1e-3)


def _resampled(rows: Tensor, count: int) -> Tensor:
    """[R, T] -> [count, T]: rows in between, or fewer."""
    at = torch.linspace(0, len(rows) - 1, count)
    low = at.long().clamp(max=len(rows) - 1)
    high = (low + 1).clamp(max=len(rows) - 1)
    return torch.lerp(rows[low], rows[high], (at - low)[:, None])


def _around(rows: Tensor) -> Tensor:
    """[R, T] -> the same, its end led softly into its beginning, for what closes to a circle."""
    length = rows.shape[1]
    blend = max(1, length // 8)
    weight = torch.linspace(0, 1, blend)
    tail = rows[:, -blend:] * (1 - weight) + rows[:, :1] * weight
    return torch.cat([rows[:, :-blend], tail], 1)


def _sampled(row: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """A row [T] in 0..1 at any places in 0..1 on a smooth curve (Catmull-Rom), and its slope there.

    The end is followed by the beginning.
    """
    at = place * len(row)
    number = at.long()
    share = at - number
    before, here, following, later = (row[(number + step) % len(row)] for step in (-1, 0, 1, 2))
    bend = 2 * before - 5 * here + 4 * following - later
    turn = 3 * (here - following) + later - before
    level = here + 0.5 * share * (following - before + share * (bend + share * turn))
    return level.clamp(0, 1), (following - here) * len(row)
