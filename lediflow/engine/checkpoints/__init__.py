"""Checkpoints that are whole or absent, written by all ranks together while training goes on.

A checkpoint is a folder `checkpoints/<images seen, 12 digits>`: one safetensors file of flat pieces per rank that wrote
it, the averaged weights as an export needs them, a record of clock, stream and identity, and a manifest of SHA-256
sums. Ranks coordinate through files only: no collective is called, so threads may do the work.
"""

from lediflow.engine.checkpoints.folder import Checkpoint, CheckpointConfig, CheckpointFolder, find_fault
from lediflow.engine.checkpoints.writing import CheckpointWriter, Failed, Saved

__all__ = [
    "Checkpoint",
    "CheckpointConfig",
    "CheckpointFolder",
    "CheckpointWriter",
    "Failed",
    "Saved",
    "find_fault",
]
