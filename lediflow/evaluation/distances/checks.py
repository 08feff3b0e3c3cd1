"""What no distance can be computed from is refused."""

from torch import Tensor


def check_embeddings(x: Tensor, y: Tensor, fewest: int) -> None:
    """Two sets of finite embeddings of one size."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"cannot compare embeddings of shapes {tuple(x.shape)} and {tuple(y.shape)}; "
            "both must be (count, dim) with the same dim: use one feature extractor for both sets"
        )
    if min(len(x), len(y)) < fewest:
        raise ValueError(
            f"{len(x)} and {len(y)} embeddings, at least {fewest} needed in each set; add images"
        )
    for embeddings in (x, y):
        is_broken = ~embeddings.isfinite().all(dim=1)
        if is_broken.any():
            raise ValueError(
                f"{int(is_broken.sum())} of {len(embeddings)} embeddings are not finite, the first is row "
                f"{int(is_broken.nonzero()[0])}; look at that image, and at the extractor's weights"
            )
