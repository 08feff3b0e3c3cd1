"""What is silenced, and that nothing else is."""

import logging
import warnings

import pytest

import lediflow  # noqa: F401


def test_log_messages_that_ask_for_nothing_are_silent_and_others_are_not(caplog):
    log = logging.getLogger("torch._library.triton")
    log.warning("Triton not available, find_triton_kernels = []")
    log.warning("something else")
    assert caplog.messages == ["something else"]


def test_warnings_about_foreign_code_are_silent_and_others_are_not():
    from lediflow.quiet import silence_third_parties

    with pytest.warns(FutureWarning) as shown:
        silence_third_parties()  # as at the import: pytest sets its own filters for each test
        warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated, use", FutureWarning, stacklevel=1)
        warnings.warn("something new", FutureWarning, stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["something new"]
