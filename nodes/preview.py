"""Pictures of a song that is being made, for the node that makes it.

Letters: K streams, S columns or W pixels of a row, N frames, C latent channels.
"""

import torch
from PIL import Image
from torch import Tensor

_WIDTH, _BAND, _GAP = 512, 32, 4  # pixels; a band is a stream of codes
_LATENT_HEIGHT = 128
_EMPTY = 24  # grey of what is not written yet
_SILENT = 72  # grey of a stream that has not begun, or has ended
_GOLDEN = 0.6180339887  # neighbouring codes get hues that lie far apart
_REACH = 2.5  # latents have a standard deviation of about 1
_COLOURS = ((0, 0, 16), (80, 18, 123), (221, 81, 58), (252, 255, 164))  # of latents, low to high


def picture(made: Tensor, total: int, num_codes: int | None = None) -> Image.Image:
    """Codes, columns [K, S] int64 of `total`, as bands of colour; latents [N, C] as a map, low to high.

    Ids from `num_codes` on are no codes: they are grey.
    """
    values = made.detach().cpu()
    pixels = _latent_map(values) if values.is_floating_point() else _code_bands(values, total, num_codes)
    return Image.fromarray((pixels * 255).round().to(torch.uint8).numpy())


def _code_bands(columns: Tensor, total: int, num_codes: int | None) -> Tensor:
    """Columns [K, S] of `total` in the end -> pixels [H, W, 3] in 0..1, one band per stream.

    Equal codes have equal colours: silence and loops are seen as stripes.
    """
    places = (torch.arange(_WIDTH) + 0.5) * max(total, columns.shape[1]) / _WIDTH
    written = places.long() < columns.shape[1]
    shown = columns[:, places.long().clamp(max=columns.shape[1] - 1)]  # [K, W]
    colours = _hue((shown * _GOLDEN) % 1)  # [K, W, 3]
    if num_codes is not None:
        colours[shown >= num_codes] = _SILENT / 255
    colours[:, ~written] = _EMPTY / 255
    bands = colours[:, None].repeat(1, _BAND + _GAP, 1, 1)  # [K, H / K, W, 3]
    bands[:, _BAND:] = 0
    return bands.flatten(0, 1)[:-_GAP]


def _hue(hue: Tensor) -> Tensor:
    """[...] in 0..1 -> soft colours [..., 3] of equal lightness."""
    phases = 2 * torch.pi * (hue[..., None] + torch.tensor([0, 1 / 3, 2 / 3]))
    return 0.55 + 0.35 * torch.cos(phases)


def _latent_map(latents: Tensor) -> Tensor:
    """Latents [N, C] -> pixels [H, W, 3] in 0..1: time to the right, channels upwards."""
    level = ((latents.float() / _REACH).clamp(-1, 1) + 1) / 2
    level = torch.nn.functional.interpolate(level.T.flip(0)[None, None], (_LATENT_HEIGHT, _WIDTH))[0, 0]
    colours = torch.tensor(_COLOURS) / 255
    place = level.nan_to_num(0) * (len(colours) - 1)
    low = place.long().clamp(max=len(colours) - 2)
    return torch.lerp(colours[low], colours[low + 1], (place - low)[..., None])
