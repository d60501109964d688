"""A program for ComfyUI's Python: random weights in the files that the audio-driven examples name.

    python write_wan_models.py <models folder>        (in the folder of ComfyUI)

Names and shapes of the weights are those of ComfyUI's own networks, as small as its detection allows: two
blocks 128 wide for the video models. VAE and audio encoders have one size only, hence 8 bits per weight.
"""

import math
import os
import sys
from pathlib import Path

sys.path.insert(0, os.getcwd())
import utils.extra_config  # noqa: F401  before ComfyUI puts its comfy folder, with a utils.py, on the path
from comfy.cli_args import args

args.cpu = True  # before the rest of ComfyUI looks for a card
import comfy.ops  # noqa: E402
import torch  # noqa: E402
from comfy.audio_encoders.wav2vec2 import Wav2Vec2Model  # noqa: E402
from comfy.audio_encoders.whisper import AudioEncoder  # noqa: E402
from comfy.ldm.wan.model import HumoWanModel, WanModel_S2V  # noqa: E402
from comfy.ldm.wan.vae import WanVAE  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

HALF, BYTE = torch.float16, torch.float8_e4m3fn
TINY = {"dim": 128, "ffn_dim": 128, "num_heads": 1, "num_layers": 2}
LARGE = {"embed_dim": 1024, "num_heads": 16, "num_layers": 24}  # of Wav2Vec2, which S2V was made for
ON_META = {"device": "meta", "dtype": torch.float32, "operations": comfy.ops.disable_weight_init}
VAE_SIZES = {"dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]}
NOISE = torch.randn(2**20, generator=torch.Generator().manual_seed(0))


def random_weights(network: torch.nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A state dict that keeps signals in range: scales are 1, the rest goes by the number of inputs."""
    weights = {}
    for name, shape in ((name, weight.shape) for name, weight in network.state_dict().items()):
        if name.endswith("gamma") or (name.endswith("weight") and len(shape) == 1):
            weights[name] = torch.ones(shape, dtype=dtype)
        else:
            repeats = math.ceil(shape.numel() / len(NOISE))
            values = NOISE.repeat(repeats)[: shape.numel()].reshape(shape)
            weights[name] = (values / math.sqrt(shape.numel() / shape[0])).to(dtype)
    return weights


def lora(layer: str) -> dict[str, torch.Tensor]:
    """Of rank 4, for one layer."""
    down = NOISE[: 4 * TINY["dim"]].reshape(4, TINY["dim"]).to(HALF)
    return {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": down.T}


def write(path: Path, weights: dict[str, torch.Tensor], prefix: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({prefix + name: weight.contiguous() for name, weight in weights.items()}, path)


def main(models: Path) -> None:
    s2v, humo = WanModel_S2V(**TINY, **ON_META), HumoWanModel(in_dim=36, **TINY, **ON_META)
    write(models / "diffusion_models" / "wan2.2_s2v_14B_fp8_scaled.safetensors", random_weights(s2v, HALF))
    write(models / "diffusion_models" / "humo_17B_fp8_e4m3fn.safetensors", random_weights(humo, HALF))
    name = "lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors"
    write(models / "loras" / name, lora("diffusion_model.blocks.0.self_attn.q"))

    with torch.device("meta"):
        vae = WanVAE(**VAE_SIZES)
    write(models / "vae" / "wan_2.1_vae.safetensors", random_weights(vae, BYTE))

    encoders = models / "audio_encoders"
    wav2vec2 = random_weights(Wav2Vec2Model(**LARGE, **ON_META), BYTE)
    write(encoders / "wav2vec2_large_english_fp16.safetensors", wav2vec2, "wav2vec2.")
    whisper = random_weights(AudioEncoder(**ON_META), BYTE)
    write(encoders / "whisper_large_v3_fp16.safetensors", whisper, "model.encoder.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
