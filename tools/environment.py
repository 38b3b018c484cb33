"""Write requirements.lock's versions into environment.yml, for conda.

Hashes stay behind: pip refuses to install an editable package beside hashed ones in one call, which is how conda
calls it.
"""

import re
import sys
from pathlib import Path

from skinlib.files import write_text

PROJECT = Path(__file__).resolve().parent.parent
HEAD = """# For conda: conda env create --file environment.yml
# Written by `make lock` from requirements.lock.
name: skinlib
channels:
  - conda-forge
dependencies:
  - python>=3.11,<3.14
  - pip
  - pip:
"""


def pins() -> list[str]:
    """Every requirement of requirements.lock, with its marker and without its hashes."""
    lines = (PROJECT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line.removesuffix("\\").strip() for line in lines if re.match(r"[A-Za-z0-9]", line)]


def environment() -> str:
    """What environment.yml has to hold."""
    return HEAD + "".join(f'      - "{pin}"\n' for pin in pins()) + '      - "--editable ."\n'


if __name__ == "__main__":
    write_text(PROJECT / "environment.yml", environment())
    sys.exit(0)
