"""Title and artist on a cover.

Letters: H height, W width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .captions import wrap
from .cover_colours import brightness
from .fonts import find_font, load_font, pillow

MOST_CHARACTERS = 200

_MARGIN = 0.075  # of the shorter side
_LARGEST, _MOST_HEIGHT = 0.13, 0.27  # a letter and all rows of the title, of the shorter side
_SMALLEST = 6  # pixels of a letter
_ARTIST = 0.36  # its letters beside those of the title
_TRACKING = 0.22  # blank between the letters of the artist, of their size
_LATIN_ENDS = "\u0250"  # other scripts join their letters, or stand apart by themselves


class Lettering:
    """Title and artist as they will stand on covers of one size.

    Raises UserError for over 200 characters, without a font that has them, and where they do not fit.
    """

    def __init__(
        self, title: str, artist: str, height: int, width: int, font_folders: Sequence[Path], font: str = ""
    ) -> None:
        title, artist = (" ".join(text.split()) for text in (title, artist))
        for name, text in (("title", title), ("artist", artist)):
            if len(text) > MOST_CHARACTERS:
                raise UserError(f"the {name} has {len(text)} characters; {MOST_CHARACTERS} are the most")
        self._height, self._margin = height, round(_MARGIN * min(height, width))
        self._cover = _drawn(title, artist, height, width, font_folders, font) if title or artist else None
        first, last = self.free_rows(at_top=False)
        if first >= last:
            raise _too_long(height, width)

    def free_rows(self, at_top: bool) -> tuple[int, int]:
        """The first row for pictures and the one after the last: apart from letters and edges."""
        letters = self._margin + (0 if self._cover is None else self._cover.shape[0] + self._margin // 3)
        free = (letters, self._margin) if at_top else (self._margin, letters)
        return free[0], self._height - free[1]

    def write(self, canvas: Tensor, inks: Sequence[Tensor], at_top: bool) -> Tensor:
        """Canvas [H, W, 3] in linear light -> another with the text, in the ink [3] that is seen best there.

        Where the ground is uneven it is calmed softly, away from the ink.
        """
        if self._cover is None:
            return canvas
        tall = self._cover.shape[0]
        first = self._margin if at_top else self._height - self._margin - tall
        region = brightness(canvas[first : first + tall])
        middle = float(region.mean())
        ink = max(inks, key=lambda light: abs(float(brightness(light)) - middle))
        away = min if float(brightness(ink)) > middle else max
        contrary = away(inks, key=lambda light: float(brightness(light)))
        uneven = min(1.0, 0.25 + 3 * float(region.std()))
        shade = _shade(self._height, first, tall, at_top)[:, None, None]
        canvas = canvas + (contrary - canvas) * shade * 0.6 * uneven
        canvas[first : first + tall] += (ink - canvas[first : first + tall]) * self._cover[..., None]
        return canvas


def _too_long(height: int, width: int) -> UserError:
    return UserError(
        f"title and artist do not fit into {width}x{height}; shorten them or choose a larger size"
    )


def _shade(height: int, first: int, tall: int, at_top: bool) -> Tensor:
    """[H]: 1 at the edge of the picture, 0 some way beyond the text."""
    reach = (first + tall if at_top else height - first) + 0.12 * height
    row = torch.arange(height) if at_top else torch.arange(height).flip(0)
    share = (1 - row / reach).clamp(0, 1)
    return share * share * (3 - 2 * share)


def _drawn(
    title: str, artist: str, height: int, width: int, font_folders: Sequence[Path], font: str
) -> Tensor:
    """[h, W] in 0..1: the artist in small letters over the title, at the left margin."""
    file = find_font(title + artist, font_folders, font)
    side = min(height, width)
    margin, most = round(_MARGIN * side), width - 2 * _MARGIN * side
    large, rows = _fitted(title, file, round(_LARGEST * side), most, _MOST_HEIGHT * side)
    small = max(_SMALLEST, round((_ARTIST if title else 1.0) * _LARGEST * side * 0.8))
    small_font = load_font(file, small)
    while artist and small > _SMALLEST and _tracked_length(artist, small_font, small) > most:
        small = max(_SMALLEST, small * 9 // 10)
        small_font = load_font(file, small)
    widest = max(map(large.getlength, rows), default=0.0) if title else 0.0
    if margin + max(widest, _tracked_length(artist, small_font, small)) > width:
        raise _too_long(height, width)  # the smallest letters would be cut off at the edge
    step = round(1.02 * sum(large.getmetrics())) if title else 0
    above = round(1.35 * sum(small_font.getmetrics())) if artist else 0
    picture = pillow("Image").new("L", (width, max(1, above + step * len(rows))), 0)
    pen = pillow("ImageDraw").Draw(picture)
    if artist:
        _write_tracked(pen, artist, (margin, 0), small_font, small)
    stroke = max(0, round(large.size / 60)) if title else 0  # plain fonts are thin at this size
    for number, row in enumerate(rows if title else []):
        pen.text((margin, above + number * step), row, font=large, fill=255, stroke_width=stroke)
    drawn = torch.from_numpy(np.array(picture, dtype=np.float32) / 255)
    used = drawn.any(1).nonzero()
    return drawn[int(used[0]) : int(used[-1]) + 1] if len(used) else drawn


def _fitted(text: str, file: Path | None, size: int, width: float, height: float) -> tuple[Any, list[str]]:
    """The largest font up to `size` in which the wrapped text fits, and its rows."""
    while True:
        font = load_font(file, size)
        rows = wrap(text, font.getlength, width)
        wide = max(font.getlength(row) for row in rows)
        if size <= _SMALLEST or (len(rows) * sum(font.getmetrics()) <= height and wide <= width):
            return font, _balanced(text, font, rows, wide)
        size = max(_SMALLEST, size * 93 // 100)


def _balanced(text: str, font: Any, rows: list[str], width: float) -> list[str]:
    """The same number of rows, as narrow as they can be: no word is left alone in the last one."""
    while True:
        width -= max(1.0, font.size / 4)
        narrower = wrap(text, font.getlength, width)
        if len(narrower) > len(rows) or max(map(font.getlength, narrower)) > width:
            return rows
        rows = narrower


def _tracking(text: str, size: int) -> float:
    return _TRACKING * size if all(char < _LATIN_ENDS for char in text) else 0.0


def _tracked_length(text: str, font: Any, size: int) -> float:
    return font.getlength(text) + _tracking(text, size) * len(text)


def _write_tracked(pen: Any, text: str, at: tuple[int, int], font: Any, size: int) -> None:
    """Latin letters one by one with a blank between; other scripts as they are."""
    blank = _tracking(text, size)
    if not blank:
        pen.text(at, text, font=font, fill=255)
        return
    left = float(at[0])
    for char in text.upper():
        pen.text((left, at[1]), char, font=font, fill=255)
        left += font.getlength(char) + blank
