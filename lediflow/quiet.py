"""Messages of third-party packages that are silenced, one by one, by their source and their first words.

They ask a user for nothing, or are about code that only the authors of those packages can change. Every other message
is shown. Imports no package whose messages it silences.
"""

from __future__ import annotations

import logging
import re
import warnings

# (logger, first words) of log messages that are dropped
SILENT_LOGS = (
    # torch without Triton, as on CPUs: the kernels here are not used then
    ("torch._library.triton", "Triton not available"),
    ("torch.utils.flop_counter", "triton not found"),
)
# (class, first words, module) of warnings that are dropped
SILENT_WARNINGS: tuple[tuple[type[Warning], str, str], ...] = (
    # building packages for `runtime=exported`: torch about code of its own
    (UserWarning, "While compiling, we found certain side effects happened in the model.forward", "torch"),
    (FutureWarning, "`isinstance(treespec, LeafSpec)` is deprecated", ""),
    # DeepSpeed's calls, with ZeRO in every step and from every rank
    (FutureWarning, "`torch.distributed.all_gather_into_tensor` is deprecated", ""),
    (FutureWarning, "`torch.distributed.reduce_scatter_tensor` is deprecated", ""),
)


class FirstWords(logging.Filter):
    """Drops the records of a logger whose message begins with certain words."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.words)


def silence_third_parties() -> None:
    """Drop the messages of SILENT_LOGS and SILENT_WARNINGS; called once, when the package is imported."""
    for name, words in SILENT_LOGS:
        logging.getLogger(name).addFilter(FirstWords(words))
    for category, words, module in SILENT_WARNINGS:
        warnings.filterwarnings("ignore", re.escape(words), category, module)
