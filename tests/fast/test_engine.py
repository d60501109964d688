"""When the fast engine is taken, when it steps aside, and that nothing needs it."""

import ast
import gc
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny import random_conditions, tiny_lm

from songgen_core import SongPipeline
from songgen_core.engine import ReferenceEngine, load_engine
from songgen_core.errors import UserError
from songgen_core.fast import projections, songs
from songgen_core.fast.engine import FastEngine
from songgen_core.fast.songs import write_together
from songgen_core.generation.sampling import SamplingOptions
from songgen_core.generation.songs import SongTask, one_by_one

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
LYRICS = "[verse]\nA little song\n\n[chorus]\nSing it again"


def test_auto_is_fast_and_reference_is_not() -> None:
    assert isinstance(load_engine("auto"), FastEngine)
    assert isinstance(load_engine("reference"), ReferenceEngine)
    with pytest.raises(UserError, match="engine 'warp' is unknown; choose one of auto, reference"):
        load_engine("warp")


def test_the_fast_loop_is_for_weights_that_lie_on_the_device() -> None:
    lm = tiny_lm()
    loop = FastEngine().song_loop(lm, CPU)
    assert isinstance(loop, partial) and loop.func is write_together
    lm.conditioner.to("meta")
    assert FastEngine().song_loop(lm, CPU) is not one_by_one, "text tables may lie elsewhere"
    lm.sub.layers[0].mlp.up_proj.to("meta")
    assert FastEngine().song_loop(lm, CPU) is one_by_one


def test_a_pipeline_sings_the_same_song_with_either_engine() -> None:
    results = {}
    for engine in ("auto", "reference"):
        pipeline = SongPipeline.from_pretrained("selftest", engine=engine)
        results[engine] = pipeline.generate(LYRICS, "pop, sad", seed=3, duration=3)
    fast, slow = results["auto"], results["reference"]
    assert torch.equal(fast.codes, slow.codes)
    assert fast.audio["mixed"].shape == slow.audio["mixed"].shape
    assert (fast.audio["mixed"] - slow.audio["mixed"]).abs().max() < 1e-4


@pytest.mark.parametrize("weights", ["int8", "fp8", "int4"])
def test_a_model_can_be_stored_in_fewer_bits(weights: str) -> None:
    pipeline = SongPipeline.from_pretrained("selftest", weights=weights)
    layers = [m for m in pipeline.lm.modules() if type(m).__name__ == "QuantizedLinear"]
    config = pipeline.lm.config
    assert len(layers) == 7 * (config.num_hidden_layers + config.num_hidden_layers_sub)
    song = pipeline.generate(LYRICS, seed=3, duration=2)
    assert song.codes.shape == (1, 3, 50)


def test_fewer_bits_need_the_fast_engine() -> None:
    with pytest.raises(UserError, match="weights in int8 need the engine 'auto'"):
        SongPipeline.from_pretrained("selftest", weights="int8", engine="reference")
    with pytest.raises(UserError, match="weights in 'int3' are unknown; choose one of native, int8"):
        SongPipeline.from_pretrained("selftest", weights="int3")


def test_nothing_is_left_to_the_garbage_collector() -> None:
    """Cycles would keep networks that their owner has let go; a memory manager takes that for a leak."""
    pipeline = SongPipeline.from_pretrained("selftest")
    pipeline.generate(LYRICS, seed=1, duration=1)  # whatever is made once
    gc.collect()
    gc.disable()
    try:
        pipeline.generate(LYRICS, seed=2, duration=1)
        assert gc.collect() == 0
    finally:
        gc.enable()


def one_song() -> torch.Tensor:
    lm = tiny_lm(5)
    task = SongTask(random_conditions(lm), 20, torch.Generator().manual_seed(0))
    for grown in write_together(lm, [task], SamplingOptions(temperature=0), dtype=torch.float32, device=CPU):
        last = grown
    return last[0].codes()


@pytest.mark.parametrize("trouble", ["no kernel", "wrong kernel", "no memory", "unknown memory"])
def test_packing_steps_aside_by_itself(trouble: str, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    expected, packed = one_song(), []

    class Counting(projections.Packed):
        def __init__(self, layers, rows: int) -> None:
            if trouble == "no kernel":
                raise RuntimeError("no such operator")
            super().__init__(layers, rows)
            if layers[0].weight.shape != (48, 32):  # the probe
                packed.append(rows)

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return super().__call__(x) * (2 if trouble == "wrong kernel" else 1)

    monkeypatch.setattr(projections, "Packed", Counting)
    if "memory" in trouble:
        monkeypatch.setattr(songs, "free_memory", lambda: 1 if trouble == "no memory" else None)
    with caplog.at_level("INFO", logger="songgen"):
        assert torch.equal(one_song(), expected)
    assert packed == []
    assert "pack is off" in caplog.text


def test_packing_is_used_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    if not projections.can_pack(torch.float32, CPU):
        pytest.skip("this build of torch cannot pack")
    made = []

    class Counting(projections.Packed):
        def __init__(self, layers, rows: int) -> None:
            made.append(rows)
            super().__init__(layers, rows)

    monkeypatch.setattr(projections, "Packed", Counting)
    one_song()
    assert len(made) == 1 + 4 * (2 + 2) + 2 + 2, "the probe; four products a layer, the bridge's, the heads'"


def test_nothing_imports_the_fast_path_but_its_door() -> None:
    """Statically: engine.py finds it by name at run time; only its own tests and benchmarks import it."""
    own = {ROOT / "songgen_core" / "fast", ROOT / "tests" / "fast"}
    for path in [*ROOT.glob("songgen_core/**/*.py"), *ROOT.glob("nodes/*.py"), *ROOT.glob("tests/**/*.py")]:
        if own & set(path.parents):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += (
                [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            )
            assert not any("fast" in name.split(".") for name in names), path


def test_everything_else_works_without_the_folder(tmp_path: Path) -> None:
    """A copy of the project without the fast path passes tests of the loop, the pipeline and the command."""
    ignored = shutil.ignore_patterns("fast", "__pycache__", ".*", "images", "workflows", "web", "locales")
    shutil.copytree(ROOT, tmp_path / "project", ignore=ignored)
    assert not (tmp_path / "project" / "songgen_core" / "fast").exists()
    tests = [
        "tests/generation",
        "tests/test_pipeline.py",
        "tests/test_architecture.py",
        "tests/test_codec.py",
    ]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=tmp_path / "project",
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:]
