"""One schema for every supported ComfyUI: keywords that an older one does not know are left out.

Inputs that several nodes have in common are here too."""

from dataclasses import fields
from inspect import signature
from typing import Any

from comfy_api.v0_0_2 import io

_SCHEMA_KEYS = {f.name for f in fields(io.Schema)}


def schema(**keywords: Any) -> io.Schema:
    """`io.Schema` in our category, without the keywords that this ComfyUI does not know."""
    known = {name: value for name, value in keywords.items() if name in _SCHEMA_KEYS}
    return io.Schema(**{"category": "SongGen", **known})


def inp(cls: type, name: str, **keywords: Any) -> Any:
    """An input such as `inp(io.Int.Input, "steps", default=10, advanced=True)`, likewise."""
    known = signature(cls).parameters
    return cls(name, **{key: value for key, value in keywords.items() if key in known})


def fps_input(tooltip: str, default: float = 30.0) -> Any:
    """Pictures per second, in the range of ComfyUI's video nodes."""
    return inp(
        io.Float.Input,
        "fps",
        default=default,
        min=1.0,
        max=120.0,
        step=0.01,
        round=0.001,
        tooltip=tooltip,
    )


def font_input() -> Any:
    """The letters that a picture is written with, as `songgen_core.analysis.fonts` looks for them."""
    return inp(
        io.String.Input,
        "font",
        default="",
        optional=True,
        advanced=True,
        tooltip=(
            "Name of a font file in models/fonts or among the system's fonts; empty: the first"
            " one that has all characters."
        ),
    )
