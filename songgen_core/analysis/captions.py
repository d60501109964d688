"""Subtitles drawn into pictures.

Letters: T pictures, H height, W width.
"""

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..progress import IsCancelled, OnProgress, Progress, ignore_progress, never_cancelled
from .fonts import find_font, load_font, pillow
from .lines import TimedLine
from .spectra import check_cancelled
from .subtitles import line_at

PLACES = ("bottom", "middle", "top")
_USED_WIDTH, _USED_HEIGHT = 0.92, 0.9  # of the picture
_MARGIN = 0.06  # of the height, to the edge
_SMALLEST = 8  # pixels of a letter; less cannot be read
_STAGE, _REPORT = "drawing subtitles", 16  # pictures


def burn_subtitles(
    images: Tensor,
    lines: Sequence[TimedLine],
    fps: float,
    *,
    font_folders: Sequence[Path],
    font: str = "",
    size: int = 0,
    colour: tuple[int, int, int] = (255, 255, 255),
    place: str = "bottom",
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> Tensor:
    """Images [T, H, W, 3 or 4] in 0..1 -> a copy with each line drawn while it lasts, outlined in black.

    `size` is the height of a letter in pixels, 0 for a fourteenth of the picture; long lines are wrapped,
    and smaller if they do not fit. Raises UserError if no font has all characters, Cancelled.
    """
    _check(images, fps, place)
    on_progress(Progress(_STAGE, 0, images.shape[0]))  # to look for a font may take long
    shown = [line_at(lines, (number + 0.5) / fps) for number in range(images.shape[0])]
    text = "".join(line.text for line in shown if line)
    file = find_font(text, font_folders, font) if text else None
    height, width = images.shape[1:3]
    output = images.detach().to("cpu", torch.float32, copy=True)
    drawn: dict[str, tuple[Tensor, Tensor, int]] = {}
    for number, line in enumerate(shown):
        check_cancelled(cancelled)
        if line is not None:
            if line.text not in drawn:
                drawn = {line.text: _layer(line.text, file, size, colour, place, height, width)}
            colours, cover, top = drawn[line.text]
            part = output[number, top : top + cover.shape[0]]
            part[..., :3] += (colours - part[..., :3]) * cover
            if part.shape[-1] == 4:
                part[..., 3:] = torch.maximum(part[..., 3:], cover)
        if (number + 1) % _REPORT == 0 or number + 1 == len(shown):
            on_progress(Progress(_STAGE, number + 1, len(shown)))
    return output


def _check(images: Tensor, fps: float, place: str) -> None:
    if images.dim() != 4 or images.shape[3] not in (3, 4) or not images.is_floating_point():
        raise UserError(
            f"images are {images.dtype} {list(images.shape)}; they must be float [pictures, height, width, 3]"
        )
    if not 0 < fps <= 1000:
        raise UserError(f"fps is {fps}; write the pictures per second of the video, such as 24")
    if place not in PLACES:
        raise UserError(f"the place '{place[:40]}' is unknown; choose one of {', '.join(PLACES)}")


def _layer(
    text: str,
    file: Path | None,
    size: int,
    colour: tuple[int, int, int],
    place: str,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, int]:
    """Colours [h, W, 3] and cover [h, W, 1] of a drawn line, and the row of the picture where it begins."""
    font, rows, outline = _fit(text, file, size or max(_SMALLEST, height // 14), height, width)
    step = sum(font.getmetrics()) + outline
    tall = min(height, step * len(rows) + 2 * outline)
    picture = pillow("Image").new("RGBA", (width, tall), (0, 0, 0, 0))
    pen = pillow("ImageDraw").Draw(picture)
    for number, row in enumerate(rows):
        # Glyphs may begin left of their place and end right of it.
        left = (width - font.getlength(row)) / 2
        pen.text(
            (left, number * step + outline),
            row,
            font=font,
            fill=(*colour, 255),
            stroke_width=outline,
            stroke_fill=(0, 0, 0, 255),
        )
    layer = torch.from_numpy(np.array(picture, dtype=np.float32) / 255)
    free = height - tall
    margin = min(round(_MARGIN * height), free)
    top = {"bottom": free - margin, "middle": free // 2, "top": margin}[place]
    return layer[..., :3], layer[..., 3:], top


def _fit(text: str, file: Path | None, size: int, height: int, width: int) -> tuple[Any, list[str], int]:
    """The largest font up to `size` in which the wrapped text fits the picture, its rows and its outline."""
    while True:
        font, outline = load_font(file, size), max(1, round(size / 10))
        rows = wrap(text, font.getlength, _USED_WIDTH * width - 2 * outline)
        tall = len(rows) * (sum(font.getmetrics()) + outline) + 2 * outline
        wide = max(font.getlength(row) for row in rows)
        if size <= _SMALLEST or (tall <= _USED_HEIGHT * height and wide <= width):
            return font, rows, outline
        size = max(_SMALLEST, size * 9 // 10)


def wrap(text: str, length: Callable[[str], float], width: float) -> list[str]:
    """Rows that are at most `width` long: cut at blanks, and anywhere in Han, kana and Hangul."""
    rows = []
    for paragraph in text.split("\n"):
        row = ""
        for piece in _pieces(paragraph):
            if row.strip() and length((row + piece).rstrip()) > width:
                rows.append(row.rstrip())
                row = piece.lstrip()
            else:
                row += piece
        rows.append(row.rstrip())
    return [row for row in rows if row] or [""]


def _pieces(text: str) -> list[str]:
    """What must stay together: words with the blank behind them, wide characters with the mark behind."""
    pieces: list[str] = []
    for char in text:
        wide = unicodedata.east_asian_width(char) in "WF"
        is_mark = unicodedata.category(char)[0] in "PM" and char not in "([\u201c\u2018"
        last = pieces[-1][-1] if pieces else " "
        joins_word = not wide and last != " " and unicodedata.east_asian_width(last) not in "WF"
        if pieces and (char == " " or is_mark or joins_word):
            pieces[-1] += char
        else:
            pieces.append(char)
    return pieces
