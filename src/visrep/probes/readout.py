"""Reading a quantity out of features: ridge regression, nearest neighbours, a small network, logistic regression.

Every readout fits on train rows, chooses its settings on val rows and predicts all rows. Targets and predictions are
float64 in the targets' own units.

Shapes: N samples (train, val, test in this order), n train samples, D features, E compact features, T targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visrep.probes.data import Split

LAMBDAS = tuple(10.0**power for power in range(-3, 5))
WIDE_LAMBDAS = tuple(100.0 * penalty for penalty in LAMBDAS)  # the Gram matrix of more features than rows is larger
LARGEST = 10.0  # standard deviations
COMPACT = 2048  # widest code that neighbours and networks get
NEIGHBOURS = 10
HIDDEN = 256
EPOCHS, PATIENCE, BATCH, LEARNING_RATE = 100, 10, 256, 1e-3
DECAYS = (1e-4, 1e-2, 1.0)  # L2 of the logistic regression, relative to the mean log loss
_COLUMNS = 2048  # features standardised at a time, so that wide ones need no float64 copy
_ROWS = 1024  # rows of the Gram matrix computed at a time


class Standardised:
    """Features with train mean 0 and train variance 1, clipped to ±10; those that hardly vary on train are dropped.

    A unit that fires in one train row of ten thousand would be a hundred standard deviations high there, and thousands
    in a test row where it fires more: one such feature would decide a prediction.

    Dropped is a feature whose standard deviation is below 1e-6 of the largest, or within rounding (1e-6) of its own
    mean: dividing by it would blow up noise.
    """

    def __init__(self, features: Tensor, train: int) -> None:
        """``features``: [N, D], its first ``train`` rows the train rows. Not copied."""
        self.features = features
        self.train = train
        parts = [_moments(part[:train].double()) for part in features.split(_COLUMNS, dim=1)]
        mean, deviation = (torch.cat(values) for values in zip(*parts, strict=True))
        noise = torch.maximum(1e-6 * deviation.max(), 1e-6 * mean.abs())
        self.kept = torch.nonzero(deviation > noise).flatten()
        self._mean, self._deviation = mean[self.kept], deviation[self.kept]

    @property
    def width(self) -> int:
        """Features that are kept."""
        return len(self.kept)

    def chunks(self) -> Iterator[Tensor]:
        """Standardised features, float64, some columns at a time: [N, <= 2048] each."""
        for kept, mean, deviation in zip(*(v.split(_COLUMNS) for v in (self.kept, self._mean, self._deviation))):
            values = ((self.features[:, kept].double() - mean) / deviation).clamp_(-LARGEST, LARGEST)
            yield values.sub_(values[: self.train].mean(0))

    def dense(self) -> Tensor:
        """All of them at once, float64 [N, width]."""
        parts = [*self.chunks(), self.features.new_empty((len(self.features), 0), dtype=torch.float64)]
        return torch.cat(parts, dim=1)

    def compact(self, seed: int) -> Tensor:
        """float32 [N, E]: the standardised features, or a Gaussian random projection of them to 2,048 dimensions.

        A random projection keeps distances to a few per cent (Johnson and Lindenstrauss 1984), at a cost that does not
        grow with the width of the code.
        """
        if not self.width:
            return torch.zeros(len(self.features), 1)
        if self.width <= COMPACT:
            return self.dense().float()
        generator = torch.Generator().manual_seed(seed)
        total = torch.zeros(len(self.features), COMPACT)
        for chunk in self.chunks():
            total += chunk.float() @ torch.randn(chunk.shape[1], COMPACT, generator=generator)
        return total / COMPACT**0.5

    @cached_property
    def gram(self) -> Tensor:
        """Inner products of all rows with the train rows, float64 [N, n]; kept, because two readouts use it."""
        return self.add_gram(torch.zeros(len(self.features), self.train, dtype=torch.float64))

    def add_gram(self, total: Tensor) -> Tensor:
        """Add the inner products to a sum of such matrices and return it; nothing is kept."""
        for chunk in self.chunks():
            for start in range(0, len(chunk), _ROWS):
                # Between train rows it is symmetric: what lies right of the diagonal is copied below.
                rows, width = slice(start, start + _ROWS), min(start + _ROWS, self.train)
                total[rows, :width].addmm_(chunk[rows], chunk[:width].T)
        for start in range(0, self.train, _ROWS):
            stop = min(start + _ROWS, self.train)
            total[start:stop, stop:] = total[stop : self.train, start:stop].T
        return total


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.mean(0), values.std(0, correction=0)


class RidgeFit(NamedTuple):
    """Predictions [N, T] and the penalty chosen for each target [T]."""

    predictions: Tensor
    penalties: Tensor


def ridge(blocks: Sequence[Standardised], targets: Tensor, split: Split) -> RidgeFit:
    """min_W ‖Y - XW‖² + λ‖W‖² on the train rows, exactly, with λ chosen per target by the val error.

    λ is one of 10^{-3..4}; of 10^{-1..6} with more features than train rows. X are the blocks side by side. With more
    features than train rows the dual form W = Xᵀ(XXᵀ + λ)⁻¹Y is solved, so that 39,200 features need no square matrix
    of their width.

    Args:
        blocks: standardised features of the same rows. The last one's Gram matrix is kept for another call.
        targets: float64 [N, T].
        split: of the rows.
    """
    n = split.train
    mean = targets[:n].mean(0)
    y = targets[:n] - mean
    wide = sum(block.width for block in blocks) > n
    system, project, right = _dual(blocks, n, y) if wide else _primal(blocks, n, y)
    choice = WIDE_LAMBDAS if wide else LAMBDAS
    best = torch.full((targets.shape[1],), torch.inf, dtype=torch.float64)
    predictions = mean.expand_as(targets).clone()
    penalties = torch.full_like(best, choice[-1])
    for penalty in choice:
        loaded = system.clone()
        loaded.diagonal().add_(penalty)
        factor, failed = torch.linalg.cholesky_ex(loaded)
        if bool(failed):  # below the rounding noise of the Gram matrix; the next one is ten times larger
            continue
        candidate = project @ torch.cholesky_solve(right, factor) + mean
        error = (candidate[split.vals] - targets[split.vals]).square().mean(0)
        better = error < best
        best = torch.where(better, error, best)
        predictions = torch.where(better, candidate, predictions)
        penalties = torch.where(better, penalty, penalties)
    return RidgeFit(predictions, penalties)


def _primal(blocks: Sequence[Standardised], n: int, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.cat([block.dense() for block in blocks], dim=1)
    return x[:n].T @ x[:n], x, x[:n].T @ y


def _dual(blocks: Sequence[Standardised], n: int, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gram = blocks[-1].gram
    if len(blocks) > 1:
        gram = gram.clone()
        for block in blocks[:-1]:
            block.add_gram(gram)
    return gram[:n], gram, y


def neighbours(code: Tensor, targets: Tensor, split: Split, k: int = NEIGHBOURS) -> Tensor:
    """Mean target of the k nearest train rows, [N, E] and [N, T] to [N, T] (train rows count themselves)."""
    train = code[: split.train].double()
    squares, predictions = train.square().sum(1), []
    for part in code.split(1024):
        ranking = torch.addmm(squares, part.double(), train.T, alpha=-2.0)  # ‖a - b‖² less ‖a‖², the same in a row
        nearest = ranking.topk(min(k, split.train), dim=1, largest=False).indices
        predictions.append(targets[nearest].mean(1))
    return torch.cat(predictions)


def network(code: Tensor, targets: Tensor, split: Split, seed: int) -> Tensor:
    """One hidden layer of 256 ReLU units, Adam, stopped at the best val error: [N, E] and [N, T] to [N, T].

    What it reads out and ridge does not is there, but not linearly. The global random streams stay untouched.
    """
    n = split.train
    mean, deviation = targets[:n].mean(0), targets[:n].std(0, correction=0).clamp_min(1e-12)
    goal = ((targets - mean) / deviation).float()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
        net = nn.Sequential(nn.Linear(code.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, goal.shape[1]))
        optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
        best, best_state, waited = float("inf"), _copy(net), 0
        for _ in range(EPOCHS):
            for rows in torch.randperm(n).split(BATCH):
                optimizer.zero_grad()
                F.mse_loss(net(code[rows]), goal[rows]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            with torch.no_grad():
                error = float(F.mse_loss(net(code[split.vals]), goal[split.vals]))
            waited += 1
            if error < best:
                best, best_state, waited = error, _copy(net), 0
            if waited >= PATIENCE:
                break
    net.load_state_dict(best_state)
    with torch.no_grad():
        return net(code).double() * deviation + mean


def _copy(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def classify(code: Tensor, labels: Tensor, classes: int, split: Split) -> Tensor:
    """Multinomial logistic regression, L2 chosen on the val rows: [N, E] and int64 [N] to predicted classes [N]."""
    n, best, chosen = split.train, -1.0, labels
    inputs = code.double()
    for decay in DECAYS:
        weight, bias = _logistic(inputs[:n], labels[:n], classes, decay)
        predicted = (inputs @ weight + bias).argmax(1)
        right = float((predicted[split.vals] == labels[split.vals]).double().mean())
        if right > best:
            best, chosen = right, predicted
    return chosen


def _logistic(inputs: Tensor, labels: Tensor, classes: int, decay: float) -> tuple[Tensor, Tensor]:
    """Weight [E, classes] and bias [classes] that minimise mean log loss + decay/2 ‖weight‖² (convex; L-BFGS)."""
    weight = torch.zeros(inputs.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(inputs @ weight + bias, labels) + 0.5 * decay * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[arg-type, no-untyped-call]
    return weight.detach(), bias.detach()
