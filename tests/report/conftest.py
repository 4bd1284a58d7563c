"""The report's tests use the tiny sets of the tests of scoring."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "scores"))

from tiny_set import scored  # noqa: E402, F401
