"""A font that has every character of a text: boxes are never drawn.

Pillow is asked for only where something is written; the rest of the core works without it.
"""

import importlib
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import UserError

_SUFFIXES = (".ttf", ".ttc", ".otf", ".otc")
_NOT_A_CHARACTER = "\U0010ffff"  # what fonts draw for it is what they draw for all that they lack
_TRIAL_SIZE = 20
_MOST_FONTS = 2000
# Plain sans-serif fonts of the common systems first; part of the file name without blanks, in small letters.
_PREFERRED = (
    *("notosanscjk-regular", "notosanssc-regular", "sourcehansans", "pingfang", "msyh.", "hiraginosansgb"),
    *("wqy-microhei", "wqy-zenhei", "simhei", "dejavusans.", "notosans-regular", "arialunicode", "arial."),
    *("segoeui.", "helvetica", "liberationsans-regular"),
)


def pillow(module: str) -> Any:
    """A module of Pillow, such as "ImageFont". Raises UserError where Pillow is not installed."""
    try:
        return importlib.import_module(f"PIL.{module}")
    except ImportError as error:
        raise UserError(
            "writing on pictures needs the package Pillow; install it: pip install pillow"
        ) from error


def system_font_folders() -> list[Path]:
    """Where this operating system keeps fonts; only those that exist."""
    home = Path.home()
    if sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA", home), "Microsoft", "Windows", "Fonts")
        folders = [Path(os.environ.get("WINDIR", "C:\\Windows"), "Fonts"), local]
    elif sys.platform == "darwin":
        folders = [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    else:
        folders = [home / ".local/share/fonts", home / ".fonts", Path("/usr/local/share/fonts")]
        folders.append(Path("/usr/share/fonts"))
    return [folder for folder in folders if folder.is_dir()]


def find_font(text: str, folders: Sequence[Path], name: str = "") -> Path | None:
    """A font file that has every character of `text`; None is the one built into Pillow.

    `name` is that of a font file in one of the folders; else the user's folders are looked at before the
    system's, in the order given, plain fonts first. Raises UserError if there is none.
    """
    files = list(_font_files(folders))
    if name:
        files = [path for path in files if name.lower() in (path.name.lower(), path.stem.lower())]
        if not files:
            raise UserError(f"there is no font '{name[:80]}'; put its file into {_shown(folders)}")
    fewest: set[str] | None = None
    for path in [*files, *([] if name else [None])]:
        missing = missing_characters(text, path)
        if not missing:
            return path
        fewest = missing if fewest is None or len(missing) < len(fewest) else fewest
    lacking = " ".join(sorted(fewest or set())[:10])
    subject = (
        f"the font '{name[:80]}' lacks" if name else "no font on this machine has all characters; missing:"
    )
    raise UserError(
        f"{subject} {lacking} ; put a font that has them, such as Noto Sans CJK, into {_shown(folders)}"
    )


def load_font(path: Path | None, size: int) -> Any:
    """A font of Pillow in `size` pixels; None is the built-in one (Latin letters only)."""
    fonts = pillow("ImageFont")
    return fonts.load_default(size) if path is None else fonts.truetype(str(path), size)


def missing_characters(text: str, path: Path | None) -> set[str]:
    """Visible characters of `text` that a font cannot draw; all of them if the file is no font."""
    wanted = {char for char in text if _is_visible(char)}
    if not wanted:
        return set()
    pillow("ImageFont")  # its absence is no fault of the file
    try:
        return set(_lacking(path, path.stat().st_mtime_ns if path else 0, "".join(sorted(wanted))))
    except (OSError, ValueError, SyntaxError):  # damaged, or of a kind that FreeType does not read
        return wanted


@lru_cache(maxsize=4096)
def _lacking(path: Path | None, modified: int, wanted: str) -> str:
    """Those of the characters that a font cannot draw.

    Kept, as a character that no font has sends every run through all fonts of the machine.
    """
    font = load_font(path, _TRIAL_SIZE)
    box = _drawn(font, _NOT_A_CHARACTER)
    return "".join(char for char in wanted if _drawn(font, char) in (box, None))


def _drawn(font: Any, char: str) -> bytes | None:
    """What a character looks like; None for nothing."""
    side = 3 * _TRIAL_SIZE
    picture = pillow("Image").new("L", (side, side))
    pillow("ImageDraw").Draw(picture).text((_TRIAL_SIZE, _TRIAL_SIZE // 2), char, fill=255, font=font)
    return picture.tobytes() if picture.getbbox() else None


def _is_visible(char: str) -> bool:
    """Not blanks, and not marks and joiners, which have no picture of their own."""
    return unicodedata.category(char)[0] not in "ZCM"


def _font_files(folders: Iterable[Path]) -> Iterator[Path]:
    """Font files of each folder and below, well-known plain ones first."""
    for folder in folders:
        found: list[Path] = []
        for root, _, names in os.walk(folder):
            found += [Path(root, name) for name in names if name.lower().endswith(_SUFFIXES)]
            if len(found) > _MOST_FONTS:
                break
        yield from sorted(found, key=_rank)


def _rank(path: Path) -> tuple[int, str]:
    name = path.name.lower().replace(" ", "")
    return next((n for n, part in enumerate(_PREFERRED) if part in name), len(_PREFERRED)), str(path)


def _shown(folders: Sequence[Path]) -> str:
    return str(folders[0]) if folders else "a folder of fonts"
