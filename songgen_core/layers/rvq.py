"""Both sides of the one-codebook vector quantizer of each stream."""

from torch import Tensor, nn
from torch.nn.functional import normalize


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


class CodebookEncoder(nn.Module):
    """1x1 projection -> nearest codebook row by cosine: x [B, T, hidden_size] -> codes [B, T] int64.

    The stored projection is weight-normalised; the loader folds it (LeVo spec, codec encoder 5.5).
    """

    def __init__(self, codebook_size: int, codebook_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(hidden_size, codebook_dim)
        self.codebook = nn.Embedding(codebook_size, codebook_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.distances(self.in_proj(x)).argmin(-1)

    def distances(self, x: Tensor) -> Tensor:
        """Squared distances of projected x [B, T, codebook_dim] to all rows, [B, T, codebook_size]."""
        x, rows = normalize(x, dim=-1), normalize(self.codebook.weight, dim=-1)
        return x.square().sum(-1, keepdim=True) - 2 * x @ rows.T + rows.square().sum(-1)
