"""The benchmarks are scripts in a folder of their own: here they are imported as when they run."""

import sys

from tests.recipes.tiny_run import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
