"""The benchmarks run at tiny size and keep the promise of their last line; the speeds themselves are free."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SHARED = {
    "benchmark", "size", "device", "dtype", "repeats", "peak_memory_bytes", "realtime_factor", "command",
    "commit", "load_average", "hardware",
}  # fmt: skip
LM = SHARED | {
    "position", "kv_positions", "steps", "parameters", "prefill_ms", "ceiling_prefill_ms", "prefill_share",
    "step_ms", "network_ms", "sampling_ms", "steps_per_second", "ceiling_steps_per_second", "achieved_share",
    "weight_bytes", "kv_bytes", "bytes_per_step", "bandwidth_copy", "bandwidth_read", "song_seconds",
}  # fmt: skip
RENDER = SHARED | {
    "frames", "windows", "steps", "vae_frames", "euler_step_seconds", "ceiling_euler_step_seconds",
    "step_share", "step_flops", "vae_seconds", "vae_chunk_flops", "vae_share", "window_seconds",
    "vae_window_seconds", "vae_seconds_per_audio_second", "seconds_per_audio_second", "extrapolated",
}  # fmt: skip

PROMPT = SHARED | {
    "encoder_seconds", "encoder_flops", "encoder_share", "vae_seconds", "vae_flops", "vae_share",
    "separator_chunk_seconds", "prompt_seconds", "matmul_float32",
}  # fmt: skip


FIRST_AUDIO = SHARED | {
    "engine", "frames", "steps", "song_seconds", "pieces_seconds", "largest_difference",
    "streamed_first_audio_seconds", "streamed_gapless_start_seconds", "streamed_whole_seconds",
    "in_turn_first_audio_seconds", "in_turn_gapless_start_seconds", "in_turn_whole_seconds",
}  # fmt: skip


def last_line(script: str, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{script}", "--device", "cpu", "--repeats", "1", *options]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) > 5, "a table comes before the JSON line"
    result: dict[str, Any] = json.loads(lines[-1])
    assert result["hardware"]["torch"] and result["hardware"]["threads"] >= 1
    assert result["peak_memory_bytes"] >= 0
    return result


def test_lm_decode() -> None:
    result = last_line(
        "lm_decode", "--dtype", "bfloat16", "--steps", "3", "--warmup", "1", "--position", "300"
    )
    assert result.keys() >= LM
    assert (result["benchmark"], result["size"], result["dtype"]) == ("lm_decode", "tiny", "bfloat16")
    itemsize = 2
    assert result["kv_positions"] == 600 + 252 + 100 + 300 + 1 + 1  # prefix, written, warm-up, half the steps
    assert result["kv_bytes"] == 2 * 2 * result["kv_positions"] * 32 * 3 * itemsize
    # 3 layers of 4 * 32 * 32 + 3 * 32 * 64 and two norms, final norms, bridge, three heads of 16385 codes
    layer = 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32
    weights = 3 * layer + 2 * 32 + (64 * 32 + 32 + 32 * 32 + 32) + 3 * 16385 * 32
    assert result["weight_bytes"] == weights * itemsize
    assert result["bytes_per_step"] == result["weight_bytes"] + result["kv_bytes"]
    for name in ("prefill_ms", "step_ms", "network_ms", "ceiling_steps_per_second", "bandwidth_copy"):
        assert result[name] > 0, name
    assert 0 < result["achieved_share"] < 2
    assert result["song_seconds"] == 270 and result["passes"] == 7000


def test_a_position_behind_the_song_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks.lm_decode", "--position", "6990"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode != 0 and "behind the end" in run.stderr


def test_render() -> None:
    result = last_line("render", "--frames", "160", "--steps", "2", "--windows", "2")
    assert result.keys() >= RENDER
    assert (result["benchmark"], result["size"], result["extrapolated"]) == ("render", "tiny", True)
    assert result["vae_frames"] == 160 and result["vae_decoded"] == 2 * 128
    # Two rows of 160 frames through 2 blocks of width 56 and 96, by hand within the small time embedding.
    width, inner, frames = 56, 96, 2 * 160
    block = 2 * frames * (4 * width * width + 2 * width * inner) + 4 * frames * 160 * width
    assert 1 < result["step_flops"] / (2 * block + 2 * frames * width * width) < 1.1
    audio_second = result["window_seconds"] + result["vae_window_seconds"]
    assert result["seconds_per_audio_second"] == pytest.approx(audio_second / (120 / 25))
    assert result["realtime_factor"] == pytest.approx(1 / result["seconds_per_audio_second"])
    for name in ("euler_step_seconds", "vae_seconds", "vae_chunk_flops", "ceiling_euler_step_seconds"):
        assert result[name] > 0, name
    assert 0 < result["step_share"] < 2 and 0 < result["vae_share"] < 2
    if find_spec("songgen_core.fast"):
        assert result["fast_vae_decoded"] == 2 * 128
        # Chunks of a window without the overlap of 40, which is decoded once: a head of 18, and 160 - 22.
        fast_window = (18 + 2 * 128) * result["fast_vae_seconds_per_decoded_frame"]
        assert result["fast_vae_window_seconds"] == pytest.approx(fast_window)
        for name in ("euler_step_seconds", "realtime_factor", "peak_memory_bytes", "step_share", "vae_share"):
            assert result[f"fast_{name}"] > 0, name


def test_prompt() -> None:
    result = last_line("prompt")
    assert result.keys() >= PROMPT
    assert (result["benchmark"], result["size"]) == ("prompt", "tiny")
    passes = 3 * (result["encoder_seconds"] + result["vae_seconds"])
    assert result["prompt_seconds"] == pytest.approx(passes)
    # The second block of the subsampling is the largest product that can be counted by hand.
    channels, mels, frames = 8, 32, 4000
    inner = 2 * 9 * channels * channels * (mels // 2) * (frames // 2)
    assert result["encoder_flops"] > inner
    assert 0 < result["encoder_share"] < 2 and 0 < result["vae_share"] < 2


def test_lm_fast() -> None:
    pytest.importorskip("songgen_core.fast")
    result = last_line("lm_fast", "--steps", "3", "--warmup", "1", "--position", "300", "--songs", "2")
    assert result.keys() >= SHARED | {
        "rtf",
        "floor_ms",
        "bandwidth_share",
        "speedup",
        "setup_ms",
        "prefill_ms",
    }
    assert (result["benchmark"], result["size"], result["songs"]) == ("lm_fast", "tiny", 2)
    positions = 600 + 252 + 100 + 300 + 1 + 1  # prefix, written, warm-up, half the steps
    assert result["kv_bytes"] == 2 * 2 * 2 * positions * 32 * 3 * 4
    fast, slow = result["fast"], result["reference"]
    assert fast["song_steps_per_second"] == pytest.approx(2000 / fast["step_ms"])
    assert result["speedup"] == pytest.approx(fast["song_steps_per_second"] / slow["steps_per_second"])
    narrow = last_line("lm_fast", "--steps", "2", "--warmup", "1", "--weights", "int8", "--no-reference")
    assert narrow["reference"] is None
    assert 0 < narrow["weight_bytes"] < result["weight_bytes"]


def test_first_audio() -> None:
    pytest.importorskip("songgen_core.fast")
    result = last_line(
        "first_audio", "--song-seconds", "8", "--frames", "60", "--steps", "1", "--engine", "reference"
    )
    assert result.keys() >= FIRST_AUDIO
    assert (result["benchmark"], result["size"], result["engine"]) == ("first_audio", "tiny", "reference")
    # 200 frames in windows of 60 with 45 new ones each; the last piece is what is left.
    assert result["pieces_seconds"] == [1.8, 1.8, 1.8, 1.8, 0.8]
    assert result["largest_difference"] == 0
    assert 0 < result["streamed_first_audio_seconds"] <= result["streamed_gapless_start_seconds"]
    assert result["streamed_first_audio_seconds"] < result["streamed_whole_seconds"]
    assert result["in_turn_first_audio_seconds"] == result["in_turn_whole_seconds"]


def test_whole_song() -> None:
    result = last_line("whole_song", "--model", "mini", "--song-seconds", "2", "--steps", "1")
    assert result.keys() >= SHARED and (result["benchmark"], result["model"]) == ("whole_song", "mini")
    for engine in ("auto", "reference"):
        song = result[engine]
        parts = song["load_seconds"], song["tokens_seconds"], song["sound_seconds"]
        assert min(parts) > 0 and sum(parts) == pytest.approx(song["total_seconds"])
        assert song["song_seconds"] == 2 and not song["ended"]
    assert result["realtime_factor"] == pytest.approx(2 / result["auto"]["total_seconds"])


def test_quality() -> None:
    pytest.importorskip("songgen_core.fast")
    options = ("--dtype", "float32", "--frames", "8", "--weights", "wide", "int8", "int4")
    result = last_line("quality", *options, "--activations", "float32", "bfloat16")
    assert (result["benchmark"], result["size"], result["dtype"]) == ("quality", "tiny", "float32")
    found = {(c["weights"], c["activations"]): c for c in result["candidates"]}
    assert list(found) == [
        ("int8", "float32"), ("int4", "float32"),
        ("wide", "bfloat16"), ("int8", "bfloat16"), ("int4", "bfloat16"),
    ]  # fmt: skip
    for kind, candidate in found.items():
        assert len(candidate["kl"]) == 3 and min(candidate["kl"]) > 0, kind
        assert 0 < candidate["logit_error"] < 1 and 0 < candidate["top1"] <= 1, kind
        assert 0 <= candidate["equal_before"] <= candidate["equal"] <= 1, kind
    int8, int4 = found["int8", "float32"], found["int4", "float32"]
    assert int8["logit_error"] < int4["logit_error"] and max(int8["kl"]) < min(int4["kl"])
    # 3 layers of 4 * 32 * 32 + 3 * 32 * 64 with a scale for each output, norms in float32
    outputs = 4 * 32 + 2 * 64 + 32
    assert int8["layer_bytes"] == 3 * (4 * 32 * 32 + 3 * 32 * 64 + 4 * outputs) + 4 * (3 * 2 + 2) * 32
    assert result["layer_bytes"] == 4 * (3 * (4 * 32 * 32 + 3 * 32 * 64) + (3 * 2 + 2) * 32)


@pytest.mark.skipif(find_spec("songgen_core.fast") is None, reason="measures the fast engine")
def test_one_command_measures_a_card_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    out = tmp_path / "card.jsonl"

    def card(*names: str) -> list[str]:
        command = [sys.executable, "-m", "benchmarks.card", "--tiny", "--out", str(out), "--only", *names]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout.splitlines()

    assert json.loads(card("v2-large 16 bit")[-1])["runs"] == ["v2-large 16 bit"]
    lines = card("v2-large 16 bit", "renderer")
    assert sum(line.startswith("== ") for line in lines) == 1, "the first one is not run again"
    assert any(line.startswith("v2-large 16 bit") and "RTF" in line for line in lines)
    assert [json.loads(line)["run"] for line in out.read_text().splitlines()] == [
        "v2-large 16 bit",
        "renderer",
    ]
