"""Run a module with a part of the GPU's memory only, as on a smaller GPU; its further arguments follow.

    torchrun --nproc_per_node=2 tools/bench/held_memory.py 24 lediflow.train engine=workstation_2x3090 ...

PyTorch raises its out-of-memory error at that many GiB (`torch.cuda.set_per_process_memory_fraction`).
"""

import os
import runpy
import sys

import torch


def main() -> None:
    gib, module = float(sys.argv[1]), sys.argv[2]
    if torch.cuda.is_available():
        device = int(os.environ.get("LOCAL_RANK", "0"))
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * 2**30 / total), device)
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
