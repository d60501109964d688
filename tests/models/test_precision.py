"""Half precisions: how far they are from float32, and that float32 islands stay where they belong."""

import pytest
import torch
from tiny import random_conditions, tiny_lm, tiny_renderer

from songgen_core.generation.flow import denoise
from songgen_core.layers.attention import attention

FLOAT32_PARTS = ("wpe", "mask_embedding", "scale_shift_table", ".ln_", "latent_norm")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_fused_attention_agrees_with_the_formula(dtype: torch.dtype, tolerance: float) -> None:
    q, k, v = (torch.randn(2, 3, n, 16, generator=torch.Generator().manual_seed(n)) for n in (5, 9, 9))
    for causal in (False, True):
        exact = attention(q, k, v, causal=causal)
        half = attention(q.to(dtype), k.to(dtype), v.to(dtype), causal=causal)
        assert half.dtype == dtype
        torch.testing.assert_close(half.float(), exact, atol=tolerance, rtol=tolerance * 4)


def test_causal_attention_aligns_the_last_query_with_the_last_key() -> None:
    q, k, v = (torch.randn(1, 1, n, 4) for n in (3, 7, 7))
    together = attention(q, k, v, causal=True)
    for i in range(3):
        alone = attention(q[:, :, i : i + 1], k[:, :, : 5 + i], v[:, :, : 5 + i], causal=True)
        torch.testing.assert_close(together[:, :, i : i + 1], alone)


def test_language_model_in_float16_stays_close() -> None:
    lm = tiny_lm()
    conditions, codes = random_conditions(lm), torch.randint(11, (2, 3, 6))
    with torch.inference_mode():
        exact = lm(codes, prefix=lm.conditioner(conditions))
        half = lm.half()(codes, prefix=lm.conditioner(conditions))
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), exact, atol=0.05, rtol=0.05)


def test_renderer_in_float16_keeps_its_float32_islands() -> None:
    renderer = tiny_renderer()
    condition = renderer.condition(torch.randint(50, (1, 20)), torch.randint(50, (1, 20)))
    noise, context = torch.randn(1, 20, 4), torch.randn(1, 4, 5)
    arguments = {"num_steps": 4, "guidance_scale": 1.5}
    with torch.inference_mode():
        exact = denoise(renderer, condition, noise, context, **arguments)
        for name, parameter in renderer.named_parameters():
            if not any(part in name for part in FLOAT32_PARTS):
                parameter.data = parameter.data.half()
        renderer.compute_dtype = torch.float16
        residual_dtypes = set()
        for block in renderer.estimator.h:
            block.register_forward_hook(lambda module, args, out: residual_dtypes.add(out.dtype))
        half = denoise(renderer, condition, noise, context, **arguments)
    assert residual_dtypes == {torch.float32}
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, atol=0.02, rtol=0.02)
