"""Decode side of the one-codebook vector quantizer of each stream."""

from torch import Tensor, nn


class CodebookDecoder(nn.Module):
    """code -> codebook row -> 1x1 projection: codes [B, T] -> [B, T, cond_dim].

    The stored projection is weight-normalised; the loader folds it.
    """

    def __init__(self, codebook_size: int, codebook_dim: int, cond_dim: int) -> None:
        super().__init__()
        self.codebook = nn.Embedding(codebook_size, codebook_dim)
        self.out_proj = nn.Linear(codebook_dim, cond_dim)

    def forward(self, codes: Tensor) -> Tensor:
        return self.out_proj(self.codebook(codes))
