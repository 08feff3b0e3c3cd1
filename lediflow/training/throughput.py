"""How much of a device's arithmetic training uses: FLOP/s, and as a share of the peak (model FLOPs utilisation).

Only the work of the formulas counts (lediflow.nn.cost): the products of three forward passes for the trained model, of
one for the called parts of the frozen parent. Activation recomputation does not count.
MFU: Chowdhery et al., arXiv:2204.02311, appendix B.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lediflow.models.cost import model_cost
from lediflow.models.export import Spec
from lediflow.models.specs import AuxiliarySpec, latent_shape
from lediflow.stages import StageKind

# TFLOP/s of dense products, by a part of torch.cuda.get_device_name(): (bfloat16 summed in float32, float32). From
# NVIDIA's data sheets and architecture white papers (Ampere GA100 and GA102, Ada, Hopper, Blackwell), halved where
# these count sparse matrices. The first name that fits counts, so the more special comes first.
PEAKS: dict[str, tuple[float, float]] = {
    "B200": (2250, 75),
    "GH200": (989, 67),
    "H200 NVL": (835, 60),
    "H200": (989, 67),
    "H100 NVL": (835, 60),
    "H100 PCIe": (756, 51),
    "H100": (989, 67),  # SXM, whose name ends in its memory: "H100 80GB HBM3"
    "A100": (312, 19.5),
    "A40": (150, 37.4),
    "A30": (165, 10.3),
    "A10": (125, 31.2),
    "RTX A6000": (155, 38.7),
    "RTX 6000 Ada": (364, 91.1),
    "L40S": (362, 91.6),
    "L40": (181, 90.5),
    "L4": (121, 30.3),
    "RTX 3090 Ti": (80, 40.0),
    "RTX 3090": (71, 35.6),
    "RTX 4090": (165, 82.6),
    "RTX 5090": (210, 104.8),
}


@dataclass(frozen=True)
class Throughput:
    """Cost of an image and peak of a device; without a known peak no utilisation is reported."""

    flops_per_image: float
    peak_tflops: float | None = None  # of one device

    def at(self, images_per_second: float, devices: int) -> dict[str, float]:
        """For each of the devices that share the images: `tflops`, and `mfu` in [0, 1]."""
        tflops = images_per_second * self.flops_per_image / devices / 1e12
        return {"tflops": tflops} | ({"mfu": tflops / self.peak_tflops} if self.peak_tflops else {})


def peak_tflops(device_name: str, precision: str) -> float | None:
    """Peak TFLOP/s of a device in products of `precision`, by its name; None if it is unknown."""
    for name, (bfloat16, float32) in PEAKS.items():
        if re.search(rf"\b{re.escape(name)}\b", device_name):
            return bfloat16 if precision == "bfloat16" else float32
    return None


def training_flops(
    kind: StageKind,
    trained: Spec,
    parent: AuxiliarySpec | None,
    image_size: int,
    passes: tuple[int, int] = (1, 0),
) -> int:
    """FLOPs of training on one image; a stage on latents computes on the image's latent, others on the image.

    `passes` are those of the trained model and of its teacher, a model of the same specification.
    """
    size = image_size
    if kind.on_latents:
        assert parent is not None  # the latents are its
        size = latent_shape(parent, image_size, image_size)[-1]
    cost, (trained_passes, teacher_passes) = model_cost(trained, size, size), passes
    own = trained_passes * cost.training_flops + teacher_passes * cost.total.flops
    return own + parent_flops(kind, parent, image_size)


def parent_flops(kind: StageKind, parent: AuxiliarySpec | None, image_size: int) -> int:
    """FLOPs of the parts of the frozen parent that the stage calls for each image; 0 without a parent."""
    if parent is None or not kind.calls:
        return 0
    cost = model_cost(parent, image_size, image_size)
    levels = sum(level.total.flops for level in cost.levels if level.name.startswith(kind.calls))
    return levels + cost.besides["latent"].flops
