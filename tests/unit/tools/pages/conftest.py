"""Lets the tests import the package tools/pages as tools/render_results.py does."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[4] / "tools"))
