"""Python in a process of its own: what it says when it fails, and how much memory it took."""

import sys

import pytest

from skinlib.files import CourseError
from skinlib.processes import peak_bytes, run_python


def test_what_it_printed_comes_back_and_it_gets_what_it_is_given():
    program = "import os; print(input(), os.environ['COLOUR'], os.environ['SKINLIB_HEADLESS'])"
    assert run_python(["-c", program], "nothing", "a lesion", {"COLOUR": "brown"}) == "a lesion brown 1\n"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit('skinlib: no such lesion')", "asking failed: no such lesion"),
        ("raise ValueError('first line')", "asking failed: ValueError: first line"),
        ("import sys; sys.exit(3)", "asking failed: exit status 3"),
        pytest.param(
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "asking failed: it was killed (signal 9); is there enough memory?",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal 9"),
        ),
    ],
)
def test_a_failure_is_one_line(program, said):
    with pytest.raises(CourseError) as caught:
        run_python(["-c", program], "asking failed")
    assert str(caught.value) == said


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is told on Linux only")
def test_the_peak_is_of_the_process_itself():
    program = "from skinlib.processes import peak_bytes; {}; print(peak_bytes())"
    small, large = (int(run_python(["-c", program.format(what)], "x")) for what in ("0", "bytearray(200_000_000)"))
    assert 150e6 < large - small < 250e6
    ours = bytearray(100_000_000)
    assert peak_bytes() > len(ours) and small < 150e6
