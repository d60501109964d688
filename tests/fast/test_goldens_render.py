"""The recorded cases of renderer and VAE, replayed through the fast path by the checks of the reference."""

from pathlib import Path

import checks_renderer
import checks_vae
import pytest
import test_goldens as goldens
import torch
from compare import assert_close, tensors
from torch import Tensor, nn

from songgen_core.fast import vae as fast_vae
from songgen_core.fast.renderer import FastRenderer, RendererTricks
from songgen_core.fast.vae import FastVAE, VaeTricks, snake
from songgen_core.models.flow_renderer import FlowRenderer
from songgen_core.models.oobleck import OobleckVAE

CPU = torch.device("cpu")
TRICKS = {
    "default": RendererTricks(),
    "padded": RendererTricks(pad_heads=True, pack=False),
    "formula": RendererTricks(fused_attention=False, share_times=False, pack=False),
}


def cases(*kinds: str) -> list:
    found = [case for case in goldens.CASES if case.id.startswith(kinds)]
    reason = f"no recorded cases under {goldens.GOLDENS}; set SONGGEN_GOLDENS"
    return found or [pytest.param(None, None, id="none", marks=pytest.mark.skip(reason=reason))]


class WatchedEstimate(nn.Module):
    """What the checks hang their hooks on: input frames and velocity of every step."""

    def __init__(self, fast: "WatchedRenderer") -> None:
        super().__init__()
        self.fast = [fast]  # out of reach of `modules`, which would never end

    def forward(self, frames: Tensor, t: Tensor) -> Tensor:
        return FastRenderer.estimate(self.fast[0], frames.clone(), t)


class WatchedRenderer(FastRenderer):
    def __init__(self, renderer: FlowRenderer, tricks: RendererTricks) -> None:
        super().__init__(renderer, CPU, tricks)
        self.estimator = WatchedEstimate(self)

    def estimate(self, frames: Tensor, t: Tensor) -> Tensor:
        return self.estimator(frames, t)


@pytest.mark.parametrize("tricks", TRICKS)
@pytest.mark.parametrize(("folder", "meta"), cases("renderer/solver", "renderer/render/"))
def test_renderer(monkeypatch, folder: Path, meta: dict, tricks: str) -> None:
    reference, used = checks_renderer.case_renderer, []

    def fast(folder: Path, meta: dict) -> FastRenderer:
        used.append(WatchedRenderer(reference(folder, meta), TRICKS[tricks]))
        return used[-1]

    monkeypatch.setattr(checks_renderer, "case_renderer", fast)
    checks_renderer.CHECKS[meta["kind"]](folder, meta)
    assert used or meta["case"] == "prompt_crop", "the case was checked without the fast path"


@pytest.mark.parametrize("tricks", TRICKS)
@pytest.mark.parametrize(("folder", "meta"), cases("renderer/velocity"))
@torch.inference_mode()
def test_velocity(folder: Path, meta: dict, tricks: str) -> None:
    renderer = checks_renderer.case_renderer(folder, meta)
    inputs, recorded = tensors(folder, "inputs"), tensors(folder, "outputs")
    fast = FastRenderer(renderer, CPU, TRICKS[tricks])
    velocity = fast.estimate(inputs["model_input"], inputs["t"])
    assert_close(velocity, recorded["velocity"], checks_renderer.tolerance(meta), "velocity")


@pytest.mark.parametrize("tile", [None, 64])
@pytest.mark.parametrize(("folder", "meta"), cases("vae/autoencoder"))
def test_vae(monkeypatch, folder: Path, meta: dict, tile: int | None) -> None:
    reference, used = checks_vae.case_vae, []
    monkeypatch.setattr(fast_vae, "_TILE_BYTES", tile or fast_vae._TILE_BYTES)

    def case_vae(folder: Path, meta: dict, config) -> OobleckVAE:
        """Decodes twice: the reference for those who watch its layers, the fast one for the result."""
        vae = reference(folder, meta, config)
        slow, fast = vae.decode, FastVAE(vae, CPU, VaeTricks(tile_last_stage=tile is not None))

        def decode(latents: Tensor) -> Tensor:
            used.append(fast.decode(latents))  # first, as the hooks keep what they see last
            slow(latents)
            return used[-1]

        vae.decode = decode
        return vae

    monkeypatch.setattr(checks_vae, "case_vae", case_vae)
    checks_vae.check_autoencoder(folder, meta)
    assert used


@pytest.mark.parametrize(("folder", "meta"), cases("vae/snake"))
def test_snake(monkeypatch, folder: Path, meta: dict) -> None:
    class FastSnake(checks_vae.SnakeBeta):
        def forward(self, x: Tensor) -> Tensor:
            gain = (self.beta[:, None].exp() + 1e-9).reciprocal()
            return snake(x, self.alpha[:, None].exp(), gain, False)

    monkeypatch.setattr(checks_vae, "SnakeBeta", FastSnake)
    checks_vae.check_snake(folder, meta)
