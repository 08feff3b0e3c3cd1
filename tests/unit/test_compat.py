"""Each case in a process of its own: an import cannot be undone."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes


def run_alone(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_modules_that_need_torchvision_can_be_imported_after_the_fix():
    code = (
        "from lediflow.compat import fix_torchvision; fix_torchvision(); fix_torchvision();"
        "import torchvision.transforms, torchvision.models"
    )
    assert run_alone(code).stderr == ""


def test_without_torchvision_there_is_nothing_to_fix():
    code = (
        "import sys; sys.modules['torchvision'] = None;"  # what Python takes for not installed
        "from lediflow.compat import fix_torchvision; fix_torchvision()"
    )
    assert run_alone(code).stderr == ""


def test_preparing_photographs_waits_for_no_torch():
    code = "import sys, lediflow.data.prepare; assert 'torch' not in sys.modules"
    assert run_alone(code).stderr == ""
