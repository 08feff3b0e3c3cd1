"""Couplings: the pairing of prior draws x_0 with images x_1.

A draw from the learned prior belongs to its image, so there is no choice. The Gaussian baseline can pair at random,
or so that the sum of squared path lengths in a batch is minimal (minibatch optimal transport, which straightens the
flow): Tong et al., arXiv:2302.00482; Pooladian et al., arXiv:2304.14772.

The optimal pairing depends on the batch and its size, so a sample's draw is no longer independent of its batch. With
class labels, x_0 also becomes dependent on the class, which N(0, I) in sampling is not.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Samples = Float[Tensor, "batch *dims"]
Coupling = Callable[[Samples, Samples], Samples]  # (x_0, x_1) -> x_0 reordered to match x_1


def independent(x_0: Samples, x_1: Samples) -> Samples:
    """The independent coupling: returns x_0 unchanged."""
    return x_0


def minibatch_optimal_transport(x_0: Samples, x_1: Samples) -> Samples:
    """The permutation of x_0 with the smallest sum of squared distances to x_1 (exact)."""
    return x_0[optimal_partners(x_0, x_1)]


@torch.no_grad()
def optimal_partners(x_0: Samples, x_1: Samples) -> Int64[Tensor, " batch"]:
    """For each x_1 the index of its x_0; solved on the CPU by POT's network simplex. Empty for an empty batch."""
    if x_0.shape != x_1.shape:
        raise ValueError(
            f"x_0 is {tuple(x_0.shape)} and x_1 {tuple(x_1.shape)}; a coupling pairs equal shapes"
        )
    if not len(x_0):  # POT reads beyond the end of an empty plan, which ends the process
        return torch.empty(0, dtype=torch.int64, device=x_0.device)
    cost = torch.cdist(x_0.flatten(1).double(), x_1.flatten(1).double()).square()
    if not cost.isfinite().all():
        raise ValueError("x_0 or x_1 is not finite, so no coupling is optimal; check the data and the draws")
    # With equal masses a vertex of the transport polytope is a permutation: one entry per row and column.
    plan = earth_movers_solver()([], [], cost.cpu().numpy(), numItermax=10_000_000)
    return torch.from_numpy(plan.argmax(axis=0)).to(x_0.device)


def earth_movers_solver() -> Callable:
    """POT's exact solver; ImportError with advice if POT is not installed."""
    try:
        import ot  # slow to import
    except ImportError as error:
        raise ImportError("optimal transport needs POT, which is not installed: pip install POT") from error
    return ot.emd


COUPLINGS: dict[str, Coupling] = {
    "independent": independent,
    "optimal_transport": minibatch_optimal_transport,
}
