"""Which prior draw x_0 is paired with which image x_1.

A draw from the learned prior belongs to its image, so there is nothing to choose. The Gaussian baseline may
pair at random, or so that the paths of a batch are as short as they can be together (minibatch optimal
transport, which straightens the flow): Tong et al., arXiv:2302.00482; Pooladian et al., arXiv:2304.14772.

The optimum is that of the batch at hand: it changes with the batch's size, and draws that were each sample's
own become the batch's. With class labels it also lets x_0 depend on the class, which N(0, I) at sampling
does not.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Samples = Float[Tensor, "batch *dims"]
Coupling = Callable[[Samples, Samples], Samples]  # (x_0, x_1) -> the x_0 of each x_1


def independent(x_0: Samples, x_1: Samples) -> Samples:
    """Every x_1 keeps the x_0 that was drawn with it."""
    return x_0


def minibatch_optimal_transport(x_0: Samples, x_1: Samples) -> Samples:
    """The permutation of x_0 with the least sum of squared distances to x_1, found exactly."""
    return x_0[optimal_partners(x_0, x_1)]


@torch.no_grad()
def optimal_partners(x_0: Samples, x_1: Samples) -> Int64[Tensor, " batch"]:
    """The index in x_0 of each x_1's partner. The cost matrix goes to the host, where POT's simplex solves it."""
    if x_0.shape != x_1.shape:
        raise ValueError(
            f"x_0 is {tuple(x_0.shape)} and x_1 {tuple(x_1.shape)}; a coupling pairs equal shapes"
        )
    cost = torch.cdist(x_0.flatten(1).double(), x_1.flatten(1).double()).square()
    if not cost.isfinite().all():
        raise ValueError(
            "x_0 or x_1 is not finite, so no coupling is the best; look at the data and the draws"
        )
    # With equal masses a vertex of the transport polytope is a permutation: one entry per row and column.
    plan = earth_movers_solver()([], [], cost.cpu().numpy(), numItermax=10_000_000)
    return torch.from_numpy(plan.argmax(axis=0)).to(x_0.device)


def earth_movers_solver() -> Callable:
    """POT's exact solver."""
    try:
        import ot  # heavy: only where it is used
    except ImportError as error:
        raise ImportError("optimal transport needs POT, which is not installed: pip install POT") from error
    return ot.emd


COUPLINGS: dict[str, Coupling] = {
    "independent": independent,
    "optimal_transport": minibatch_optimal_transport,
}
