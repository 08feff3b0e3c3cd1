"""Cost of a network, computed from its specification: parameters, FLOPs and activation memory of one image.

FLOPs are those of the forward pass, 2 per multiply-add, matrix products only: linear maps, and the two products
of attention. A query of a neighborhood level counts kernel_size^2 keys, as in the formula, whatever the
implementation computes. By this count the paper's flow models take 119.6 GFLOP (RGB) and 88.5 GFLOP (SDV).
Training takes three times the forward pass.

Activation memory is what one more image in the batch adds to the tensors that autograd stores for the backward
pass in eager PyTorch: each operation stores what its derivative needs, norms and lengths use float32 copies, and
attention is a fused kernel that stores queries, keys, values, output and one log-sum-exp per query and head.
A compiler or a fused kernel that recomputes more stores less.
"""

from lediflow.nn.cost.bricks import Cost
from lediflow.nn.cost.hourglass import LevelCost, ModelCost, hourglass_cost
from lediflow.nn.cost.table import cost_table

__all__ = ["Cost", "LevelCost", "ModelCost", "cost_table", "hourglass_cost"]
