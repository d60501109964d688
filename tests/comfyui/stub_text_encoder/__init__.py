"""Takes the place of CLIPLoader in tests: UMT5-XXL has 11 GB, and ComfyUI knows no smaller one for Wan."""

import hashlib
from typing import Any

import torch
from comfy_api.v0_0_2 import ComfyExtension, io

TOKENS, WIDTH = 16, 4096  # the width that every Wan model reads


class RandomTextEncoder:
    """What CLIPTextEncode asks a CLIP for; each text has random numbers of its own."""

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, text: str) -> list[Any]:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        return [[torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed)), {}]]


class StubTextEncoder(io.ComfyNode):
    """Nothing -> CLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="StubTextEncoder", category="tests", outputs=[io.Clip.Output()])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(RandomTextEncoder())


class StubExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [StubTextEncoder]


async def comfy_entrypoint() -> ComfyExtension:
    return StubExtension()
