"""Applies to the unit tests and to the lessons that nbval runs: no bars in outputs that are compared."""

import os

from skinlib.progress import HEADLESS

os.environ[HEADLESS] = "1"
