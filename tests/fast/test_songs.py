"""The fast loop against the reference: the same songs, token for token, in float32."""

import os
from dataclasses import replace

import pytest
import torch
from tiny import random_conditions, tiny_lm

from songgen_core.errors import UserError
from songgen_core.fast import songs
from songgen_core.fast.caches import Position, TransposedCache
from songgen_core.fast.decoder import distinct_rows
from songgen_core.fast.options import FastOptions
from songgen_core.fast.projections import Packed, Projector, can_pack
from songgen_core.fast.songs import DecodingSession, write_together
from songgen_core.generation.sampling import SamplingOptions
from songgen_core.generation.songs import SongTask, one_by_one
from songgen_core.models.lelm import LeLM

CPU = {"dtype": torch.float32, "device": torch.device("cpu")}
DELAYS = ((0, 3, 3), (0, 1, 2), (2, 0, 5))
GREEDY = SamplingOptions(temperature=0, top_k=0)
SAMPLINGS = {
    "greedy": GREEDY,
    "top_k": SamplingOptions(temperature=1.0, top_k=5),
    "top_p": SamplingOptions(temperature=1.2, top_p=0.7),
    "all": SamplingOptions(temperature=1.0, top_k=0, repetition_window=0),
    "short memory": SamplingOptions(temperature=0.5, top_k=3, repetition_window=2, cfg_scale=3.0),
}
# float32 caches and products in every layout that the engine knows
PATHS = {
    "default": FastOptions(),
    "not packed": FastOptions(pack=False),
    "plain": FastOptions(pack=False, fuse=False),
    "fixed shapes": FastOptions(fixed_shapes=True),
    "looked at seldom": FastOptions(steps_per_check=5),
    "two at once": FastOptions(songs_at_once=2),
}


def model(seed: int) -> LeLM:
    return tiny_lm(seed, delays=DELAYS[seed % 3])


def tasks_of(lm: LeLM, count: int, frames: tuple[int, ...] = (40, 25)) -> list[SongTask]:
    """Songs of different lyrics, lengths, bans and seeds; the first and the fourth have the same text."""
    return [
        SongTask(
            random_conditions(lm, n % 3),
            frames[n % len(frames)],
            torch.Generator().manual_seed(n),
            torch.tensor([n, n + 1]) if n % 2 else None,
        )
        for n in range(count)
    ]


def songs_of(loop, lm: LeLM, tasks: list[SongTask], sampling: SamplingOptions, **options) -> list:
    for grown in loop(lm, tasks, sampling, **CPU, **options):
        last = grown
    return last


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("seed", range(3))
def test_songs_equal_those_of_the_reference(path: str, sampling: str, seed: int) -> None:
    lm = model(seed)
    expected = songs_of(one_by_one, lm, tasks_of(lm, 4), SAMPLINGS[sampling])
    actual = songs_of(write_together, lm, tasks_of(lm, 4), SAMPLINGS[sampling], options=PATHS[path])
    for fast, slow in zip(actual, expected):
        assert torch.equal(fast.codes(), slow.codes())
        assert (fast.length, fast.eos_frame, fast.written) == (slow.length, slow.eos_frame, slow.written)


def test_songs_of_those_models_end_in_different_ways() -> None:
    """Guards the test above: some end early in either stream, some run to the limit."""
    ends = [
        song.eos_frame
        for seed in range(3)
        for sampling in SAMPLINGS.values()
        for song in songs_of(write_together, model(seed), tasks_of(model(seed), 4), sampling)
    ]
    assert None in ends
    assert len(set(ends)) > 5


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_song_is_the_same_whatever_is_written_beside_it(count: int) -> None:
    lm = model(1)
    sampling = SAMPLINGS["top_k"]
    together = songs_of(write_together, lm, tasks_of(lm, count), sampling)
    for n, song in enumerate(together):
        (alone,) = songs_of(write_together, lm, [tasks_of(lm, count)[n]], sampling)
        assert torch.equal(song.codes(), alone.codes())


def test_takes_of_one_song_share_their_prefix() -> None:
    lm = model(0)
    conditions = random_conditions(lm, 0)
    tasks = [SongTask(conditions, 20, torch.Generator().manual_seed(n)) for n in range(3)]
    passes = []
    handle = lm.main.register_forward_hook(lambda _, args, __: passes.append(args[0].shape[0]))
    takes = songs_of(write_together, lm, tasks, SAMPLINGS["all"])
    handle.remove()
    assert passes == [2], "conditional and unconditional row, once"
    assert len({tuple(take.codes().flatten().tolist()) for take in takes}) > 1, "each seed its own song"


def test_distinct_rows_are_found_in_order_of_appearance() -> None:
    lm = model(0)
    a, b = random_conditions(lm, 0), random_conditions(lm, 1)
    stacked = type(a)(*(torch.cat([x, y, x]) for x, y in zip(a, b)))
    rows, unique = distinct_rows(stacked)
    assert rows.tolist() == [0, 1, 2, 3, 0, 1]
    assert unique.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kv", ["float32", "native", "int8"])
def test_logits_of_a_step_stay_near_with_narrower_caches(kv: str) -> None:
    lm = model(2)
    full, narrow = (
        DecodingSession(lm, tasks_of(lm, 2), GREEDY, **CPU, options=FastOptions(kv=kind, pack=False))
        for kind in ("float32", kv)
    )
    with torch.inference_mode():
        for session in (full, narrow):
            session.prefill()
            session.at.number += 1
            session.at.index += 1
        columns = full.batch.columns()
        expected, actual = (s.lm.step(columns, s.at) for s in (full, narrow))
    spread = expected.std()
    assert (actual - expected).abs().max() < (0.05 if kv == "int8" else 1e-5) * spread


def test_an_overflow_is_told_and_not_sung() -> None:
    lm = model(0)
    with torch.no_grad():
        lm.heads[0].weight.fill_(torch.nan)
    with pytest.raises(UserError, match=r"overflowed in torch\.float32"):
        songs_of(write_together, lm, tasks_of(lm, 2), GREEDY)


def test_a_song_that_is_over_cannot_spoil_the_others() -> None:
    """Its row runs on; what overflows there is nobody's song."""
    lm = model(0)
    session = DecodingSession(lm, tasks_of(lm, 2), GREEDY, **CPU, options=FastOptions())
    with torch.inference_mode():
        session.prefill()
        logits = torch.zeros(4, 3, lm.config.eos_id + 1)
        logits[1, 0, 0] = torch.nan  # the conditional row of the second song
        session.batch.write(logits, None)
    assert session.batch.overflowed.tolist() == [False, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_beyond_half_precision_do_not_overflow(dtype: torch.dtype) -> None:
    cache = TransposedCache(1, (1, 1, 4, 128), dtype, CPU["device"])
    large = torch.full((1, 1, 128), 40.0, dtype=dtype)
    at = Position(1, torch.tensor([1]))
    cache.load(0, large[:, :, None], large[:, :, None], torch.tensor([0]), torch.tensor([0]))
    assert cache.attend(0, large, large, large, at).eq(40).all()


def test_weights_are_shared_for_a_song_and_their_own_again_after_it() -> None:
    """As on a card, where nothing is packed."""
    lm = model(3)
    kept = {name: weight.clone() for name, weight in lm.state_dict().items()}
    query = lm.main.layers[0].self_attn.q_proj.weight
    fused, plain = (
        Projector(2, pack=0, fuse=True, join=True),
        Projector(2, pack=0, fuse=False, join=False),
    )
    for layer in (*lm.main.layers, *lm.sub.layers):
        parts = [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj]
        x = torch.randn(2, 16)
        torch.testing.assert_close(fused(parts)(x), plain(parts)(x))
    assert query.untyped_storage().nbytes() == 3 * query.nbytes, "no second copy"
    assert all(torch.equal(weight, kept[name]) for name, weight in lm.state_dict().items())
    fused.close()
    assert query.untyped_storage().nbytes() == query.nbytes
    assert not query.is_inference()
    assert all(torch.equal(weight, kept[name]) for name, weight in lm.state_dict().items())


def test_layers_are_packed_as_far_as_memory_goes() -> None:
    if not can_pack(torch.float32, CPU["device"]):
        pytest.skip("this build of torch cannot pack")
    layers = [torch.nn.Linear(16, 16, bias=False) for _ in range(4)]
    project = Projector(2, pack=3 * 16 * 16 * 4, fuse=False, join=False)
    products = [project(layers[:2]), project(layers[2:]), project(layers[2:3])]
    assert [isinstance(product, Packed) for product in products] == [True, False, True]
    x = torch.randn(2, 16)
    torch.testing.assert_close(products[0](x), torch.cat([layer(x) for layer in layers[:2]], -1))
    torch.testing.assert_close(products[1](x), torch.cat([layer(x) for layer in layers[2:]], -1))


def test_a_song_that_is_not_waited_for_leaves_the_weights_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, closed = model(0), []
    monkeypatch.setattr(Projector, "close", lambda self: closed.append(True))
    growing = write_together(lm, tasks_of(lm, 1), GREEDY, **CPU)
    next(growing)
    growing.close()
    assert closed == [True]


@pytest.mark.parametrize(("free", "passes"), [(None, [6]), (10**9, [6]), (150_000, [4, 2]), (1, [2, 2, 2])])
def test_as_many_songs_at_a_time_as_there_is_memory_for(free, passes, monkeypatch) -> None:
    lm, rows = model(0), []
    monkeypatch.setattr(songs, "free_memory", lambda: free)
    caches = songs.make_caches
    monkeypatch.setattr(songs, "make_caches", lambda lm, n, *rest: rows.append(n) or caches(lm, n, *rest))
    together = songs_of(write_together, lm, tasks_of(lm, 3, frames=(20,)), GREEDY)
    assert rows == passes
    monkeypatch.undo()
    expected = songs_of(write_together, lm, tasks_of(lm, 3, frames=(20,)), GREEDY)
    assert all(torch.equal(a.codes(), b.codes()) for a, b in zip(together, expected))


def test_bad_switches_are_refused() -> None:
    with pytest.raises(UserError, match="kv is 'int3'"):
        replace(FastOptions(), kv="int3")
    with pytest.raises(UserError, match="songs_at_once"):
        FastOptions(songs_at_once=0)


def test_a_compiler_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def broken(network, **_):
        def fail(*args):
            raise RuntimeError("no compiler here")

        return fail

    lm = model(2)
    expected = songs_of(write_together, lm, tasks_of(lm, 2), GREEDY)
    monkeypatch.setattr(torch, "compile", broken)
    actual = songs_of(write_together, lm, tasks_of(lm, 2), GREEDY, options=FastOptions(compile=True))
    assert all(torch.equal(a.codes(), b.codes()) for a, b in zip(actual, expected))
    assert "compile is off for step (no compiler here)" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kv", ["native", "int8"])
def test_graphs_write_what_steps_write_on_a_card(kv: str) -> None:
    lm, card = model(1).cuda(), {"dtype": torch.float32, "device": torch.device("cuda")}
    written = {}
    for graph in (False, True):
        options = FastOptions(cuda_graph=graph, kv=kv, steps_per_check=3)
        for grown in write_together(lm, tasks_of(lm, 4), SAMPLINGS["top_k"], **card, options=options):
            written[graph] = grown
    assert all(torch.equal(a.codes(), b.codes()) for a, b in zip(written[False], written[True]))


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1 and triton")
@pytest.mark.parametrize("kv", ["native", "int8"])
def test_songs_by_the_attention_kernel_equal_those_by_torch(kv: str) -> None:
    lm = tiny_lm(3, hidden_size=32)
    tasks = [tasks_of(lm, 2, frames=(12,)) for _ in range(2)]
    options = FastOptions(kv=kv, fixed_shapes=True)
    by_torch, by_kernel = (
        songs_of(write_together, lm, own, GREEDY, options=replace(options, attention=kind))
        for own, kind in zip(tasks, ("torch", "triton"))
    )
    for a, b in zip(by_torch, by_kernel):
        assert torch.equal(a.codes(), b.codes())
