"""Python in a process of its own: what it printed, or one line that says why it failed; and how much memory it took.

A measurement wants one where nothing may be warm, and where no other's memory may count.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from skinlib.files import CourseError
from skinlib.progress import HEADLESS


def run_python(arguments: list[str], failed: str, given: str = "", environment: dict[str, str] | None = None) -> str:
    """Run `python ARGUMENTS` without progress bars, and return what it printed.

    given    what it reads from standard input; environment: variables to set on top of this process's own
    failed   what has failed, should it fail: CourseError then gives this and the last line that was said
    """
    command = [sys.executable, *arguments]
    variables = {**os.environ, HEADLESS: "1", **(environment or {})}
    done = subprocess.run(command, env=variables, input=given, capture_output=True, text=True)
    if done.returncode < 0:
        raise CourseError(f"{failed}: it was killed (signal {-done.returncode}); is there enough memory?")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise CourseError(f"{failed}: {said.removeprefix('skinlib: ')}")
    return done.stdout


def peak_bytes() -> int | None:
    """The most memory that this process has held so far; None where the system does not tell (not on Linux)."""
    status = Path("/proc/self/status")  # not getrusage, whose figure begins with the memory of whoever started this
    return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status.read_text()).group(1)) if status.is_file() else None
