"""InfoNCE with a bilinear score: find each row's own key among the keys of the whole batch.

Shapes: N rows (anchors, each with one key), E code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visrep.objectives.contract import Loss
from visrep.objectives.parts.heads import mlp
from visrep.objectives.parts.masked import masked_mean
from visrep.precision import at_least_float32, without_autocast


def info_nce(predictions: Tensor, keys: Tensor, valid: Tensor | None = None) -> Loss:
    """Cross-entropy of logits ij = prediction_i · key_j with target i (van den Oord et al. 2018; ATC, CURL).

    No temperature, no normalisation of the codes, one direction. A masked row is left out of the mean, but its key
    stays among the others' negatives. In float32 or better whatever the autocast.

    Args:
        predictions: [N, E] anchor codes after the bilinear map; carries gradient.
        keys: [N, E] codes of the positives, in the rows of their anchors; a caller that wants no gradient gives none.
        valid: bool [N]; None takes all rows.

    Returns:
        The 0-d loss (0 with zero gradient where no row is valid), ``accuracy`` (share of valid rows whose best key is
        their own; 0 where none is valid) and the ``logits`` [N, N] less each row's maximum.
    """
    with without_autocast(predictions):
        logits = at_least_float32(predictions) @ at_least_float32(keys).T  # [N, N]
        # The softmax does not see the shift, so the maximum needs no gradient.
        logits = logits - logits.detach().amax(dim=1, keepdim=True)
        own = torch.arange(len(logits), device=logits.device)
        loss = masked_mean(F.cross_entropy(logits, own, reduction="none"), valid)
        found = logits.detach().argmax(dim=1) == own  # [N]
        accuracy = masked_mean(found.to(logits.dtype), valid)
    return Loss(loss, {"accuracy": accuracy}, {"logits": logits.detach()})


class BilinearHead(nn.Module):
    """p = W (c + h(c)): residual predictor h (an MLP of one hidden layer) and bilinear map W without bias (ATC).

    W lies on the anchor's side. ``hidden_dim=None`` leaves h out: p = W c.
    """

    def __init__(self, code_dim: int, hidden_dim: int | None) -> None:
        super().__init__()
        self.predictor = None if hidden_dim is None else mlp(code_dim, hidden_dim, code_dim)
        self.W = nn.Linear(code_dim, code_dim, bias=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Anchor codes [N, E] to predictions of their keys [N, E]."""
        if self.predictor is not None:
            codes = codes + self.predictor(codes)
        predictions: Tensor = self.W(codes)
        return predictions
