"""Checks of the separator's cases, one function per `kind`."""

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path

import pytest
import torch
from compare import assert_close, tensors
from safetensors.torch import save_file
from torch import Tensor, nn

from songgen_core.audio.resample import resample_pyav
from songgen_core.layers.resample import resample
from songgen_core.prompts.load_separator import STEMS, load_separator
from songgen_core.prompts.separation import (
    apply_moved,
    draw_offsets,
    prompt_stems,
    rescale_peak,
    separate,
    to_16_bits,
)

RATE = 48000  # of the recorded file and of prompts
SECONDS = 10.0  # of a prompt
RULE = (
    r"(\d+) frames: v = \(\(n\*n\*\((\d+)\+(\d+)c\+(\d+)\)\)//(\d+) \+ n\*\((\d+)\+(\d+)c\)\)"
    r" mod (\d+) - (\d+); sample = floor\(v\*\(1\+\(n//(\d+)\) mod (\d+)\)/4\)"
)
SHARED = Path(os.environ.get("SONGGEN_SHARED", Path(__file__).parents[3] / "shared"))


def check_all(recorded: dict[str, Tensor], actual: dict[str, Tensor], atol: float) -> None:
    unchecked = recorded.keys() - actual.keys()
    assert not unchecked, f"recorded tensors without a check: {sorted(unchecked)}"
    for name, expected in recorded.items():
        assert_close(actual[name], expected, atol, name)


def check_audio_io(folder: Path, meta: dict) -> None:
    inputs, recorded = tensors(folder, "inputs"), tensors(folder, "outputs")
    actual = {}
    for name, audio in inputs.items():
        actual[f"{name}.rescaled"] = rescale_peak(audio)
        actual[f"{name}.flac16"] = to_16_bits(rescale_peak(audio))
    actual["resampled48"] = resample(inputs["wav44"], 44100, RATE)
    check_all(recorded, actual, meta["tolerance"]["float32_max_abs"])


def case_separator(weights: Path, settings: dict) -> nn.Module:
    """The recorded network, by way of a file that notes what shapes do not tell."""
    pytest.importorskip("demucs", reason="the separator needs demucs")
    notes = {name: str(settings[name]) for name in ("samplerate", "segment", "t_heads")}
    # The weights are views of the file, and some systems do not remove a file in use.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "case.safetensors")
        save_file(tensors(weights.parent, weights.stem), path, metadata=notes)
        return load_separator(path)


@torch.inference_mode()
def check_htdemucs(folder: Path, meta: dict) -> None:
    inputs, recorded = tensors(folder, "inputs"), tensors(folder, "outputs")
    separator = case_separator(folder / "weights.safetensors", meta["kwargs"])
    assert int(separator.samplerate * separator.segment) == meta["segment_samples"]
    assert meta["stems"] == list(STEMS) == separator.sources
    actual = activations(separator, inputs["x"])
    actual["spec.real"], actual["spec.imag"] = torch.view_as_real(separator._spec(inputs["x"])).unbind(-1)
    actual["forward"], actual["forward.short"] = separator(inputs["x"]), separator(inputs["x_short"])
    offsets = draw_offsets(meta["shift"]["python_random_seed"], 1, meta["shift"]["max_shift"])
    assert offsets == [meta["shift"]["drawn_offset"]]
    actual["apply.shifts1"] = apply_moved(separator, inputs["clip"], offsets, 0.25)
    actual["apply.shifts0"] = apply_moved(separator, inputs["clip"], [], 0.25)
    actual["apply.short"] = apply_moved(separator, inputs["x_short"], [], 0.25)
    check_all(recorded, actual, meta["tolerance"]["float32_max_abs"])


def activations(separator: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Outputs of all modules while the network works on x; of several outputs the first."""
    seen: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(module, args, output) -> None:
            seen[f"act.{name}"] = output[0] if isinstance(output, tuple) else output

        return hook

    def keep_pair(module, args, output) -> None:
        seen["act.crosstransformer.in"], seen["act.crosstransformer.in_t"] = args
        seen["act.crosstransformer.out"], seen["act.crosstransformer.out_t"] = output

    handles = [module.register_forward_hook(keep(name)) for name, module in separator.named_modules()]
    handles.append(separator.crosstransformer.register_forward_hook(keep_pair))
    separator(x)
    for handle in handles:
        handle.remove()
    return seen


def recorded_file(meta: dict) -> Tensor:
    """[2, N] float32: the recording, made by the rule that `input_rule` states, checked by its digest."""
    found = re.search(RULE, meta["input_rule"])
    assert found, f"cannot read the rule {meta['input_rule']!r}"
    frames, *sizes = (int(number) for number in found.groups())
    square, square_c, more, divisor, line, line_c, modulus, middle, block, steps = sizes
    n = torch.arange(frames)
    channels = []
    for c in (0, 1):
        v = (n * n * (square + square_c * c + more)) // divisor + n * (line + line_c * c)
        v = v % modulus - middle
        channels.append((v * (1 + (n // block) % steps)).div(4, rounding_mode="floor"))
    samples = torch.stack(channels).to(torch.int16)
    digest = hashlib.sha256(samples.T.contiguous().numpy().astype("<i2").tobytes()).hexdigest()
    assert digest == meta["input_sha256_interleaved_int16_le"], "the rule makes another recording"
    return samples.float() / 32768


def windows(audio: Tensor, length: int, positions: list[int]) -> Tensor:
    return torch.cat([audio[..., p : p + length] for p in positions], dim=-1)


@torch.inference_mode()
def check_prompt_file(folder: Path, meta: dict) -> None:
    weights = folder / (named := meta["weights"].split()[0])
    if not weights.exists():  # a case that was recorded with the weights of one kept elsewhere
        weights = SHARED / "goldens" / "separator" / Path(named).parent.name / Path(named).name
    settings = json.loads((weights.parent / "meta.json").read_text(encoding="utf-8"))["kwargs"]
    separator = case_separator(weights, {**settings, "samplerate": 44100, "segment": "39/5"})
    recorded, audio, seed = (
        tensors(folder, "outputs"),
        recorded_file(meta),
        meta["shift"]["python_random_seed"],
    )
    assert draw_offsets(seed, 1, 22050) == [meta["shift"]["drawn_offset"]]
    wav44 = resample_pyav(audio, RATE, 44100)
    stems = torch.stack(list(separate(separator, wav44, seed=seed).values()))
    mono = wav44.mean(0)
    assert rescale_peak(stems[3]).abs().max() <= 1 and meta["vocal_peak"] == pytest.approx(
        float(stems[3].abs().max()), abs=2e-5
    )
    vocal16 = to_16_bits(rescale_peak(stems[3]))
    vocal48, bgm48 = prompt_stems(separator, audio, RATE, faithful=True, seconds=SECONDS, seed=seed)
    size = meta["windows"]["length"]
    at44, at48 = (meta["windows"][f"positions_{rate}"] for rate in ("44k", "48k"))
    actual = {
        "wav44": windows(wav44, size, at44),
        "mean": mono.mean()[None],
        "std": mono.std()[None],
        "stems44": windows(stems, size, at44),
        "stems44_rms": stems.square().mean((1, 2)).sqrt(),
        "vocal_pcm16": windows((vocal16 * 32768).to(torch.int32), size, at44),
        "full48": windows(vocal48 + bgm48, size, at48),
        "vocal48": windows(vocal48, size, at48),
        "bgm48": windows(bgm48, size, at48),
    }
    unchecked = recorded.keys() - actual.keys()
    assert not unchecked, f"recorded tensors without a check: {sorted(unchecked)}"
    for name, expected in recorded.items():
        assert_close(actual[name], expected, tolerance(name, meta), name)


def tolerance(name: str, meta: dict) -> float:
    """What the case states, in words that begin with the number; the resampler is exact."""
    stated = {
        key: float(text.split()[0]) for keys, text in meta["tolerance"].items() for key in keys.split("/")
    }
    # Sums over half a million samples round differently from processor to processor.
    return stated.get(name, {"stems44_rms": stated["stems44"], "full48": 1e-6}.get(name, 1e-7))


CHECKS = {"audio_io": check_audio_io, "htdemucs_tiny": check_htdemucs, "prompt_file": check_prompt_file}
