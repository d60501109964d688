"""Flow matching: from noise to the latents of one window by Euler steps (LeVo spec, renderer 7).

Letters: B batch, N frames of a window, C latent channels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..models.flow_renderer import FlowRenderer


def denoise(
    renderer: FlowRenderer,
    condition: Tensor,
    noise: Tensor,
    context: Tensor,
    *,
    num_steps: int,
    guidance_scale: float,
    on_step: Callable[[Tensor], None] = lambda latents: None,
) -> Tensor:
    """Latents [B, C, N] (denormalised) of one window.

    condition [B, N, 2 * cond_dim]; noise [B, N, C] standard normal; context [B, C, n] the known first n
    frames (denormalised, n may be 0). `on_step` is called after every Euler step with
    the latents [N, C] (normalised) that the first row heads for.
    """
    known = context.shape[-1]
    clean = renderer.latent_norm.normalize(context).transpose(1, 2)  # (B, n, C)
    padded = torch.zeros_like(noise)
    padded[:, :known] = clean
    times = torch.linspace(0, 1, num_steps + 1, device=noise.device)
    x = noise.clone()
    for t, dt in zip(times, times.diff()):
        x[:, :known] = (1 - (1 - renderer.config.sigma_min) * t) * noise[:, :known] + t * clean
        velocity = guided_velocity(renderer, x, t, condition, padded, known, guidance_scale)
        x = x + dt * velocity
        on_step(x[0] + (1 - t - dt) * velocity[0])
    x[:, :known] = clean
    return renderer.latent_norm.denormalize(x.transpose(1, 2))


def guided_velocity(
    renderer: FlowRenderer,
    x: Tensor,
    t: Tensor,
    condition: Tensor,
    context: Tensor,
    context_frames: int,
    guidance_scale: float,
) -> Tensor:
    """Velocity [B, N, C]; above a guidance scale of 1 with the unconditional rows (zeros) first."""
    times = t.expand(x.shape[0])
    if guidance_scale <= 1:
        return renderer.velocity(x, times, condition, context, context_frames)
    both = torch.cat([torch.zeros_like(condition), condition])  # (2B, N, 2 * cond_dim)
    velocity = renderer.velocity(
        torch.cat([x, x]), torch.cat([times, times]), both, torch.cat([context, context]), context_frames
    )
    uncond, cond = velocity.chunk(2)
    return uncond + guidance_scale * (cond - uncond)
