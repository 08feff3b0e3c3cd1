"""What every Python process on the test cluster begins with.

It does without PyTorch's compiler, whose import is a third of the start of a rank and which no cluster test uses:
optimizers and DeepSpeed import it for two functions that mean nothing without it. Whoever asks for more of it gets it.
It also does without the operators on meta tensors that are written in Python, a fifth of what is left: models are built
on the meta device by those in C++.

A rank also runs the file that the environment variable RANK_CODE names (`on_every_rank`), before its command.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

RANK_CODE = "LEDIFLOW_TEST_RANK_CODE"
COMPILER = "torch._dynamo"
META_OPERATORS = "torch._meta_registrations"
MUON = "deepspeed.runtime.zero.muon.original_muon"  # an optimizer that is compiled when it is imported


class UnusedCompiler(types.ModuleType):
    """Stands for torch._dynamo until anything is asked of it that is not here."""

    trace_rules = types.SimpleNamespace(clear_lru_cache=lambda: None)

    @staticmethod
    def disable(function: Callable[..., Any], *arguments: object, **options: object) -> Callable[..., Any]:
        return function

    @staticmethod
    def graph_break(message: str = "") -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # inspect asks every module for its file
            raise AttributeError(name)
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
        return getattr(importlib.import_module(COMPILER), name)


class UnusedOperators(Loader, MetaPathFinder):
    """Imports the random generators instead of the operators on meta tensors, which import them otherwise."""

    def find_spec(self, name: str, *places: Any) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == META_OPERATORS else None

    def exec_module(self, module: types.ModuleType) -> None:
        importlib.import_module("torch._prims.rng_prims")


class UnusedOptimizer(types.ModuleType):
    """Stands for the module of Muon, which DeepSpeed looks at without using it."""

    class MuonWithAuxAdam:
        pass

    adam_update = muon_update = None


sys.modules[COMPILER] = UnusedCompiler(COMPILER)
sys.meta_path.insert(0, UnusedOperators())
sys.modules[MUON] = UnusedOptimizer(MUON)
if "lediflow.cluster.running.task" in sys.orig_argv and RANK_CODE in os.environ:
    exec(compile(Path(os.environ[RANK_CODE]).read_text(), os.environ[RANK_CODE], "exec"), {})
