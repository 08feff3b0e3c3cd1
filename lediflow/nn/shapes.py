"""Names of the tensor shapes that the building blocks exchange."""

from jaxtyping import Float, Int64
from torch import Tensor

Image = Float[Tensor, "batch channels height width"]
Tokens = Float[Tensor, "batch height width channels"]
Heads = Float[Tensor, "batch height width heads head_dim"]
Condition = Float[Tensor, "batch condition_width"]
SampleKeys = Int64[Tensor, " batch"]  # seeds of the dropout masks, see lediflow.nn.dropout
