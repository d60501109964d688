"""One schema for every supported ComfyUI: keywords that an older one does not know are left out."""

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
