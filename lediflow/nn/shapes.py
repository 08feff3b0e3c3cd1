"""Names for the tensor shapes that the bricks hand to each other."""

from jaxtyping import Float, Int64
from torch import Tensor

Image = Float[Tensor, "batch channels height width"]
Tokens = Float[Tensor, "batch height width channels"]
Heads = Float[Tensor, "batch height width heads head_dim"]
Condition = Float[Tensor, "batch condition_width"]
SampleKeys = Int64[Tensor, " batch"]  # what a sample's dropout masks are made from
