"""Workarounds for third-party packages, applied before these are imported. Imports no other module of lediflow.

torchvision from PyPI is built for CUDA. With a CPU-only torch its import fails because two operators are missing, and
so do the imports of open_clip and diffusers. Declaring the operators is enough for models and transforms; the operators
themselves (for detection) remain without an implementation.
"""

import importlib
import sys

import torch

_KEPT_ALIVE: list[torch.library.Library] = []  # definitions are removed when the Library object is deleted

NMS = "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
QNMS = "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def fix_torchvision() -> None:
    """Make `import torchvision` work, if it is installed; call it before importing what needs torchvision."""
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _forget("torchvision")
        _declare_operators()
        importlib.import_module("torchvision")


def _forget(package: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "DEF")
    library.define(NMS)
    library.define(QNMS)
    _KEPT_ALIVE.append(library)
