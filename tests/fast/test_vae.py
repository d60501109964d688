"""The fast VAE decodes what the reference decodes, and reaches exactly as far as it says."""

import logging

import pytest
import torch
from torch import Tensor

from songgen_core.configs import OobleckConfig
from songgen_core.errors import Cancelled
from songgen_core.fast import vae as fast_vae
from songgen_core.fast.peak_memory import PeakMemory
from songgen_core.fast.vae import (
    FastVAE,
    VaeTricks,
    decoder_reach,
    last_stage_reach,
    snake,
)
from songgen_core.layers.snake import SnakeBeta
from songgen_core.models.oobleck import DecoderBlock, OobleckVAE
from songgen_core.progress import interruptible
from songgen_core.selftest import selftest_networks

CPU = torch.device("cpu")
PLAIN = VaeTricks(tile_last_stage=False)
CONFIGS = [
    OobleckConfig(channels=2, latent_dim=3),
    OobleckConfig(channels=2, c_mults=(1, 2, 4), strides=(2, 2, 2), latent_dim=3),
    OobleckConfig(channels=2, c_mults=(1, 2), strides=(4, 8), latent_dim=3),
    OobleckConfig(channels=2, c_mults=(1, 2), strides=(3, 5), latent_dim=3),
]


@pytest.fixture(scope="module")
def vae() -> OobleckVAE:
    """In float64, as random weights amplify a last bit a thousand times. (What is pasted is float32.)"""
    return random_snakes(selftest_networks()[3]).double()


def random_snakes(network: OobleckVAE) -> OobleckVAE:
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, SnakeBeta):
            for parameter in (module.alpha, module.beta):
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


def random_vae(config: OobleckConfig) -> OobleckVAE:
    torch.manual_seed(0)
    return random_snakes(OobleckVAE(config, with_encoder=False).eval().requires_grad_(False))


def random_latents(frames: int, channels: int, seed: int = 0) -> Tensor:
    return torch.randn(1, channels, frames, generator=torch.Generator().manual_seed(seed))


def assert_audio_close(quick: Tensor, exact: Tensor, tolerance: float = 1e-6) -> None:
    """Relative to the largest sample."""
    assert quick.shape == exact.shape
    error = ((quick - exact).abs().max() / exact.abs().max()).item()
    assert error <= tolerance, error


@torch.inference_mode()
@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("frames", [1, 2, 50])
def test_bit_equal_where_nothing_is_tiled(config: OobleckConfig, frames: int) -> None:
    vae, latents = random_vae(config), random_latents(frames, 3)
    before = latents.clone()
    assert torch.equal(FastVAE(vae, CPU, PLAIN).decode(latents), vae.decode(latents))
    assert torch.equal(latents, before)


@torch.inference_mode()
@pytest.mark.parametrize("tile", [1, 10_000, 100_000])
def test_tiles_of_the_last_stage_change_rounding_only(vae: OobleckVAE, monkeypatch, tile: int) -> None:
    monkeypatch.setattr(fast_vae, "_TILE_BYTES", tile)
    latents = random_latents(7, 8).double()
    tiled = FastVAE(vae, CPU, VaeTricks(tile_last_stage=True)).decode(latents)
    assert_audio_close(tiled, vae.decode(latents))


@torch.inference_mode()
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_reach_is_what_the_weights_show(config: OobleckConfig) -> None:
    """Not a frame less, or chunks would differ, and not one more, which would be wasted."""
    vae, middle = random_vae(config).double(), 60
    latents = random_latents(2 * middle + 1, 3).double()
    changed = latents.clone()
    changed[..., middle] += 10
    assert vae.decoder is not None
    difference = (vae.decode(changed) - vae.decode(latents)).abs().amax(1)[0]
    touched = difference.nonzero()[:, 0]
    hop = config.hop_length
    reach = decoder_reach(config)
    assert max(middle - touched.min() // hop, touched.max() // hop - middle) == reach
    block = vae.decoder.layers[len(config.strides)]
    assert isinstance(block, DecoderBlock)
    end, stride, length = vae.decoder.layers[len(config.strides) :], config.strides[0], 141
    x = torch.randn(1, block.layers[1].in_channels, length).double()  # type: ignore[arg-type]
    changed = x.clone()
    changed[..., length // 2] += 10
    touched = (end(changed) - end(x)).abs().amax(1)[0].nonzero()[:, 0]
    far = max(length // 2 - touched.min() // stride, touched.max() // stride - length // 2)
    assert far == last_stage_reach(stride)


def test_the_published_reach() -> None:
    assert decoder_reach(OobleckConfig()) == 9


@torch.inference_mode()
@pytest.mark.parametrize("frames", [1, 35, 36, 37, 100])
def test_chunks_are_the_whole(vae: OobleckVAE, frames: int) -> None:
    latents, seen = random_latents(frames, 8).double(), []
    fast = FastVAE(vae, CPU, VaeTricks(chunk_frames=1))
    assert (fast.chunk_frames, fast.overlap) == (36, 18)
    assert_audio_close(fast.decode_chunks(latents, lambda: seen.append(1)), vae.decode(latents))
    assert len(seen) == fast.count_chunks(frames)
    assert FastVAE(vae, CPU, VaeTricks(close_chunks=False)).overlap == 32


@torch.inference_mode()
def test_an_overlap_below_the_reach_is_heard(vae: OobleckVAE) -> None:
    """So the tests above would see a reach that is too small."""
    latents = random_latents(100, 8).double()
    fast = FastVAE(vae, CPU, VaeTricks(chunk_frames=36))
    fast.overlap = 8
    with pytest.raises(AssertionError):
        assert_audio_close(fast.decode_chunks(latents), vae.decode(latents))


@pytest.mark.parametrize("in_place", [False, True])
def test_the_activation_is_bit_equal(in_place: bool) -> None:
    module = SnakeBeta(4)
    module.alpha.data, module.beta.data = torch.tensor([0.0, 1, -2, 3]), torch.tensor([0.0, -30, 2, -5])
    x = torch.randn(2, 4, 100)
    with torch.inference_mode():
        exact = module(x)
        gain = (module.beta[:, None].exp() + 1e-9).reciprocal()
        assert torch.equal(snake(x, module.alpha[:, None].exp(), gain, in_place), exact)


@torch.inference_mode()
@pytest.mark.parametrize("tiled", [False, True])
def test_decoding_takes_two_thirds_of_the_memory_and_tiled_one_third(tiled: bool) -> None:
    config, meta = OobleckConfig(), torch.device("meta")
    with meta:
        vae = OobleckVAE(config, with_encoder=False)
    fast = FastVAE(vae, meta, VaeTricks(tile_last_stage=tiled))
    latents = torch.empty(1, 64, 128, device=meta)
    with PeakMemory() as fast_memory:
        fast.decode(latents)
    with PeakMemory() as memory:
        vae.decode(latents)
    assert fast_memory.peak < (0.34 if tiled else 0.67) * memory.peak


@torch.inference_mode()
def test_a_stop_takes_effect_within_one_layer(vae: OobleckVAE) -> None:
    fast, asked = FastVAE(vae, CPU), []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) == 20

    with pytest.raises(Cancelled), interruptible(cancelled, fast):
        fast.decode(random_latents(20, 8).double())
    assert not [m for m in fast.modules() if m._forward_pre_hooks]


@torch.inference_mode()
def test_compiled_activations(vae: OobleckVAE, monkeypatch, caplog) -> None:
    fast_vae.compiled_snake.cache_clear()
    compile_real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **k: compile_real(f, backend="aot_eager", **k))
    latents = random_latents(9, 8).double()
    with caplog.at_level(logging.WARNING, "songgen"):
        quick = FastVAE(vae, CPU, VaeTricks(compile=True)).decode(latents)
    fast_vae.compiled_snake.cache_clear()
    assert "compile is off" not in caplog.text
    assert_audio_close(quick, vae.decode(latents))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("tricks", [VaeTricks(compile=False), VaeTricks(), VaeTricks(autotune=True)], ids=str)
@torch.inference_mode()
def test_on_cuda(tricks: VaeTricks) -> None:
    cuda = torch.device("cuda")
    network, latents = random_snakes(selftest_networks()[3]), random_latents(50, 8)
    exact, before = network.decode(latents), torch.backends.cudnn.benchmark
    fast = FastVAE(network.to(cuda), cuda, tricks)
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert_audio_close(fast.decode_chunks(latents.to(cuda)).cpu(), exact, 1e-3)
    assert torch.backends.cudnn.benchmark == before
