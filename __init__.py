"""SongGen for ComfyUI, which imports this file; whoever needs the library imports songgen_core."""

from typing import Any

WEB_DIRECTORY = "./web"
__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint() -> Any:
    """The extension with all nodes. Nothing is imported before ComfyUI asks for it."""
    from .nodes import comfy_entrypoint as entrypoint

    return await entrypoint()
