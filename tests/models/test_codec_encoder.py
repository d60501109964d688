"""The encoder without torchaudio, and equal to torchaudio where it is there."""

import importlib
import subprocess
import sys

import pytest
import torch

from songgen_core.generation.segments import segments
from songgen_core.layers import resample as module
from songgen_core.layers.resample import resample, sinc_kernel


def torchaudio_functional():
    """Its compiled part may be missing or made for another torch; the functions are plain Python."""
    try:
        return importlib.import_module("torchaudio.functional")
    except (ImportError, OSError) as error:
        pytest.skip(f"torchaudio cannot be used here: {error}")


@pytest.mark.parametrize(
    "rates", [(44100, 48000), (8000, 48000), (96000, 48000), (48000, 44100), (48000, 24000)]
)
def test_resampling_equals_torchaudio(rates: tuple[int, int]) -> None:
    theirs = torchaudio_functional()
    audio = torch.randn(2, 5001, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(resample(audio, *rates), theirs.resample(audio, *rates), atol=1e-6, rtol=0)


def test_resampling_keeps_a_tone_and_its_level() -> None:
    t = torch.arange(44100) / 44100
    made = resample(torch.sin(2 * torch.pi * 1000 * t)[None], 44100, 48000)[0]
    expected = torch.sin(2 * torch.pi * 1000 * torch.arange(48000) / 48000)
    assert made.shape == (48000,)
    assert (made - expected)[1000:-1000].abs().max() < 2e-3


@pytest.mark.parametrize(
    "rates", [(44100, 48000), (8000, 48000), (192000, 48000), (48000, 44100), (11025, 48000)]
)
def test_blocks_leave_no_trace(rates: tuple[int, int], monkeypatch) -> None:
    audio = torch.randn(2, 20001, generator=torch.Generator().manual_seed(0))
    whole, passes = resample(audio, *rates), []
    for block in (1, 1000, 5000):
        monkeypatch.setattr(module, "_BLOCK", block)
        made = resample(audio, *rates, on_block=lambda: passes.append(1))
        torch.testing.assert_close(made, whole, atol=1e-6, rtol=0)
    assert len(passes) > 10


def test_segments_are_made_one_at_a_time() -> None:
    """Or an hour of sound would lie in memory twice."""
    assert next(iter(segments(torch.ones(1, 3), 5, 10**9))).shape == (2, 5)


def test_equal_rates_change_nothing_and_bad_ones_are_refused() -> None:
    audio = torch.randn(2, 100)
    assert resample(audio, 48000, 48000) is audio
    with pytest.raises(ValueError, match="must be positive"):
        resample(audio, 0, 48000)


def test_kernels_have_unit_gain() -> None:
    assert sinc_kernel(2, 1).sum().item() == pytest.approx(1.0005, abs=1e-4)


def test_the_encoder_needs_no_torchaudio() -> None:
    program = (
        "import sys; sys.modules['torchaudio'] = None\n"
        "from songgen_core.selftest import selftest_encoders\n"
        "import torch\n"
        "mixed, dual, vae = selftest_encoders()\n"
        "assert mixed(torch.zeros(1, 2, 96000)).shape == (1, 50)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
