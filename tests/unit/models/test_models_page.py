"""docs/models.md: its examples run, in the order of the page."""

import re
from pathlib import Path

import torch

from lediflow.models import count_parameters

PAGE = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_examples_run_and_the_converted_hourglass_is_the_same(capsys):
    found: dict = {}
    for code in EXAMPLES:
        exec(code, found)
    converted = found["hourglass"].state_dict()
    for name, weight in found["flow"].hourglass.state_dict().items():
        assert torch.equal(converted[name], weight), name
    assert f"{count_parameters(found['auxiliary']):,}" in capsys.readouterr().out.splitlines()[0]
