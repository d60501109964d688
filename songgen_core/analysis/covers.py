"""Covers drawn without a model: a ground of light in the colours of the mood, the song itself, and letters.

Letters: P pictures, H height, W width.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import UserError
from ..progress import IsCancelled, OnProgress, Progress, ignore_progress, never_cancelled
from ..seeds import MAX_SEED, check_seed
from .cover_colours import Mood, mood_for, to_light, to_picture
from .cover_lettering import Lettering
from .cover_motifs import LETTERS_AT_TOP, MOTIFS, Plan, Tell, darkest, strips
from .sound_shape import SoundShape, shape_of_nothing, shape_of_sound
from .spectra import check_cancelled

ASPECTS = {"1:1": (1, 1), "3:4": (3, 4), "9:16": (9, 16), "16:9": (16, 9)}
MIXED = "mixed"
STYLES = (MIXED, *MOTIFS)
SMALLEST, LARGEST, MOST_VARIATIONS = 64, 4096, 16

_STEP = 8  # pixels: sides that video codecs and image models take
_NEXT_SEED = 0x9E3779B97F4A7C15  # far from the seeds that people count up to
_GRAIN = 0.009  # keeps wide gradients from showing steps
_STAGE, _PARTS = "drawing covers", 100  # told of each picture


def draw_covers(
    *,
    title: str = "",
    artist: str = "",
    audio: Tensor | None = None,
    sample_rate: int = 0,
    description: str = "",
    aspect: str = "1:1",
    size: int = 1024,
    seed: int = 0,
    variations: int = 1,
    style: str = MIXED,
    font_folders: Sequence[Path] = (),
    font: str = "",
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> Tensor:
    """Covers [P = `variations`, H, W, 3] float32 in 0..1; the longer side has `size` pixels.

    `audio` [C, N] at `sample_rate` gives the lines, the words of `description` the colours; without them
    both are drawn by lot.
    Each variation is the same however many there are. Raises UserError, also if no font has the characters
    of title and artist, AudioError, Cancelled.
    """
    lettering = lettering_for(title, artist, aspect, size, font_folders, font)
    height, width = _sides(aspect, size)
    if style not in STYLES:
        raise UserError(f"the style '{style[:40]}' is unknown; choose one of {', '.join(STYLES)}")
    if not 1 <= variations <= MOST_VARIATIONS:
        raise UserError(f"variations is {variations}; choose 1 to {MOST_VARIATIONS}")
    check_seed(seed)
    shape = None if audio is None else shape_of_sound(audio, sample_rate, cancelled)
    dice = torch.Generator().manual_seed(seed)  # for what all variations share
    mood = mood_for(description, dice)
    first_motif = int(torch.randint(len(MOTIFS), (1,), generator=dice))
    output = torch.empty(variations, height, width, 3)
    for number in range(variations):
        tell = _teller(number, variations, on_progress, cancelled)
        generator = torch.Generator().manual_seed((seed + number * _NEXT_SEED) & MAX_SEED)
        motif = list(MOTIFS)[(first_motif + number) % len(MOTIFS)] if style == MIXED else style
        free = lettering.free_rows(at_top=motif in LETTERS_AT_TOP)
        plan = _plan(shape, mood, generator, free, tell)
        _draw_cover(output[number], plan, motif, lettering)
        tell(1.0)
    return output


def lettering_for(
    title: str, artist: str, aspect: str, size: int, font_folders: Sequence[Path], font: str
) -> Lettering:
    """The letters of a cover, which shows whether it can be drawn. Raises UserError, as `draw_covers`."""
    return Lettering(title, artist, *_sides(aspect, size), font_folders, font)


def _teller(number: int, variations: int, on_progress: OnProgress, cancelled: IsCancelled) -> Tell:
    """A function that is told which share of picture `number` is drawn, and raises Cancelled."""

    def tell(share: float) -> None:
        check_cancelled(cancelled)
        on_progress(Progress(_STAGE, int((number + share) * _PARTS), variations * _PARTS))

    return tell


def _sides(aspect: str, size: int) -> tuple[int, int]:
    """Height and width in pixels, multiples of 8. Raises UserError."""
    if aspect not in ASPECTS:
        raise UserError(f"the aspect '{str(aspect)[:40]}' is unknown; choose one of {', '.join(ASPECTS)}")
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"size is {size}; choose {SMALLEST} to {LARGEST} pixels")
    across, down = (part / max(ASPECTS[aspect]) * size for part in ASPECTS[aspect])
    return round(down / _STEP) * _STEP, round(across / _STEP) * _STEP


def _plan(
    shape: SoundShape | None,
    mood: Mood,
    generator: torch.Generator,
    free: tuple[int, int],
    tell: Tell,
) -> Plan:
    shape = shape or shape_of_nothing(generator)
    energy = min(1.0, max(0.0, shape.energy + mood.energy))
    return Plan(shape, mood, energy, generator, free, tell)


def _draw_cover(output: Tensor, plan: Plan, motif: str, lettering: Lettering) -> None:
    """Fill one picture [H, W, 3]."""
    height, width = output.shape[:2]
    canvas = _ground(plan.within(0.0, 0.4), height, width)
    canvas = MOTIFS[motif](canvas, plan.within(0.4, 0.9))
    inks = (plan.ink, 0.25 * to_light(darkest(plan.mood)), torch.ones(3))
    plan.tell(0.9)
    canvas = lettering.write(canvas, inks, at_top=motif in LETTERS_AT_TOP)
    plan.tell(0.9)
    grain = _GRAIN * torch.randn(height, width, 1, generator=plan.generator)
    for rows in strips(0, height, width):
        plan.tell(0.9)
        output[rows] = (to_picture(canvas[rows]) + grain[rows]).clamp(0, 1)


def _ground(plan: Plan, height: int, width: int) -> Tensor:
    """A gradient in which soft spots of light lie, bent a little, darker towards the corners."""
    plan.tell(0.0)
    bent = _bent(plan, height, width)
    far, near = (to_light(colour) for colour in plan.mood.ground)
    lean, ratio = plan.between(-0.35, 0.35), width / height
    spots = [
        (plan.between(-0.1, 1.1), plan.between(-0.1, 1.1), plan.between(0.25, 0.55) * max(1.0, ratio) ** 0.5)
        for _ in range(2 * len(plan.mood.glows))
    ]
    output = torch.empty(height, width, 3)
    for rows in strips(0, height, width):
        plan.tell(rows.start / height)
        x, y = (place[rows] for place in bent)
        share = (y + lean * (x - 0.5)).clamp(0, 1)
        share = (share * share * (3 - 2 * share))[..., None]
        canvas = far + (near - far) * share
        for number, (at_x, at_y, reach) in enumerate(spots):
            distance = ((x - at_x) * ratio) ** 2 + (y - at_y) ** 2
            spot = torch.exp(-distance / reach**2 * 2) * (0.45 + 0.4 * plan.energy)
            canvas = canvas + (plan.glow(number) - canvas) * spot[..., None]
        corner = ((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.5
        output[rows] = canvas * (1 - 0.35 * corner.clamp(0, 1) ** 1.5)[..., None]
    return output


def _bent(plan: Plan, height: int, width: int) -> tuple[Tensor, Tensor]:
    """x and y of each pixel in 0..1, moved by slow waves, so that no spot of light is a circle."""
    waves = torch.randn(1, 2, 5, 5, generator=plan.generator) * (0.05 + 0.07 * plan.energy)
    moved = interpolate(waves, (height, width), mode="bicubic", align_corners=True)[0]
    x = (torch.arange(width) + 0.5) / width + moved[0]
    y = ((torch.arange(height) + 0.5) / height)[:, None] + moved[1]
    return x, y
