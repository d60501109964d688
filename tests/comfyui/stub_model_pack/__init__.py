"""A tiny image model for tests: a real UNet of ComfyUI with random weights, and what KSampler asks for.

Weights, conditioning and latent come from generators of their own, so that two servers have the same.
"""

import comfy.model_base
import comfy.model_management as mm
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.v0_0_2 import ComfyExtension, io

WIDTH, CONTEXT, TOKENS, SIDE = 32, 16, 7, 16
SIZES = {
    "image_size": SIDE,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": WIDTH,
    "channel_mult": (1, 2),
    "num_res_blocks": (1, 1),
    "transformer_depth": [1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1],
    "use_spatial_transformer": True,
    "context_dim": CONTEXT,
    "adm_in_channels": None,
    "use_linear_in_transformer": False,
    "use_temporal_attention": False,
    "dtype": torch.float32,
}


def tiny_model() -> ModelPatcher:
    """A whole SD 1.5 in small; about 0.6 million weights."""
    config = comfy.supported_models.SD15(SIZES)
    model = comfy.model_base.BaseModel(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.diffusion_model.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    model.diffusion_model.eval().requires_grad_(False)
    return ModelPatcher(model, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())


class StubModel(io.ComfyNode):
    """MODEL, two CONDITIONING and LATENT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        outputs = [
            io.Model.Output("model"),
            io.Conditioning.Output("positive"),
            io.Conditioning.Output("negative"),
            io.Latent.Output("latent"),
        ]
        return io.Schema(node_id="StubModel", category="tests", inputs=[], outputs=outputs)

    @classmethod
    def execute(cls) -> io.NodeOutput:
        generator = torch.Generator().manual_seed(1)
        texts = [[[torch.randn(1, TOKENS, CONTEXT, generator=generator), {}]] for _ in range(2)]
        with torch.inference_mode(False):
            model = tiny_model()
        return io.NodeOutput(model, *texts, {"samples": torch.zeros(1, 4, SIDE, SIDE)})


class StubExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [StubModel]


async def comfy_entrypoint() -> ComfyExtension:
    return StubExtension()
