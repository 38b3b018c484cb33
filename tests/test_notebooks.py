"""The form of every lesson as it is committed, and that the comparison of outputs can really fail."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from skinlib.course import COMMON_PARAMETERS, NOTEBOOKS, lesson_parameters
from tools import links

LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))
SANITIZER = Path(__file__).with_name("nbval_sanitize.cfg")


def missing_outputs(notebook: nbformat.NotebookNode) -> list[str]:
    """What shows that a notebook was not run from first to last and kept: an empty list for a good one."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code]
    faults = [] if counts == list(range(1, len(code) + 1)) else [f"execution counts are {counts}"]
    return faults if sum(bool(cell.outputs) for cell in code) * 2 >= len(code) else [*faults, "few cells have outputs"]


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def lesson(request):
    return request.param, nbformat.read(request.param, as_version=4)


def test_there_are_lessons():
    assert [path.stem[:2] for path in LESSONS] == [f"{n:02d}" for n in range(1, len(LESSONS) + 1)]
    assert len(LESSONS) >= 5


def test_it_was_run_from_first_to_last_and_kept_its_outputs(lesson):
    assert missing_outputs(lesson[1]) == []


def test_the_guard_sees_a_cleared_and_a_half_run_notebook():
    cells = [nbformat.v4.new_code_cell("1", execution_count=n, outputs=[nbformat.v4.new_output("stream", text="1")])
             for n in (1, 2)]  # fmt: skip
    assert missing_outputs(nbformat.v4.new_notebook(cells=cells)) == []
    cells[1].execution_count = 4
    assert missing_outputs(nbformat.v4.new_notebook(cells=cells))
    cleared = [nbformat.v4.new_code_cell("1"), nbformat.v4.new_code_cell("2")]
    assert len(missing_outputs(nbformat.v4.new_notebook(cells=cleared))) == 2


def test_no_output_is_an_error_a_warning_or_a_progress_bar(lesson):
    for cell in lesson[1].cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def test_no_output_names_a_path_or_an_address_in_memory(lesson):
    for cell in lesson[1].cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = output.get("text", "") + data.get("text/plain", "") + data.get("text/html", "")
            assert not re.search(r"0x[0-9a-f]{6,}|/(home|root|work|tmp|Users|content)/", text), text


def test_kernelspec_and_metadata_are_plain(lesson):
    metadata = lesson[1].metadata
    assert metadata.kernelspec.name == "python3"
    assert set(metadata) == {"kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags"} for cell in lesson[1].cells)


def test_parameters_stand_in_one_tagged_cell(lesson):
    path, notebook = lesson
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert set(COMMON_PARAMETERS) <= lesson_parameters(path)
    assert 'dataset = "synthetic"' in tagged[0].source and "quick = False" in tagged[0].source


def test_it_opens_with_its_own_badge_its_time_and_what_it_is_not(lesson):
    path, notebook = lesson
    first = notebook.cells[0].source
    assert first.startswith(f"# {int(path.stem[:2])} · ")
    assert links.wrong_badges(path) == []
    assert "Time on two cores, no GPU" in first and "not a medical device" in first
    assert "You will learn" in notebook.cells[1].source
    assert "bootstrap" in notebook.cells[2].metadata.tags and "google.colab" in notebook.cells[2].source
    assert "Take-aways" in notebook.cells[-1].source and "Where to go on" in notebook.cells[-1].source


def test_cells_are_short_and_prose_stands_between_them(lesson):
    for cell in lesson[1].cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 20, cell.source
            if "bootstrap" not in cell.metadata.get("tags", []):
                assert not re.search(r"^\s*[!%]|sys\.path|pip install", cell.source, re.MULTILINE), cell.source
    kinds = "".join("c" if cell.cell_type == "code" else "m" for cell in lesson[1].cells)
    assert "cccccc" not in kinds


def test_it_is_small_enough(lesson):
    assert lesson[0].stat().st_size < 1.5e6


def test_links_between_lessons_lead_somewhere(lesson):
    for cell in lesson[1].cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", cell.source):
                assert (NOTEBOOKS / target).exists(), target


@pytest.mark.parametrize(
    ("before", "after", "passes"),
    [
        ("", "", True),
        ("<b>0.952</b>", "<b>0.413</b>", True),  # this run's own figure, in its span
        ("within 0.930–0.980", "within 0.830–0.980", False),
        ("mean Dice</td>", "mean dice</td>", False),
        ("800 pictures", "801 pictures", False),
    ],
)
def test_comparing_outputs_fails_on_a_changed_number_and_only_then(tmp_path, before, after, passes):
    from skinlib.plots import Scoreboard

    board = Scoreboard("U-Net", [("mean Dice", 0.952, (0.93, 0.98), (0.94, 0.96))])
    source = (
        "from skinlib.plots import Scoreboard\nprint('800 pictures')\n"
        "Scoreboard('U-Net', [('mean Dice', 0.952, (0.93, 0.98), (0.94, 0.96))])"
    )
    outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="800 pictures\n"),
        nbformat.v4.new_output(
            "execute_result", execution_count=1, data={"text/plain": repr(board), "text/html": board._repr_html_()}
        ),
    ]
    cell = nbformat.v4.new_code_cell(source, execution_count=1, outputs=outputs)
    found = 0
    for output in cell.outputs:
        texts = output.data if "data" in output else output
        for kind, text in texts.items():
            if before and kind in ("text", "text/plain", "text/html") and before in text:
                texts[kind], found = text.replace(before, after), found + 1
    assert bool(found) == bool(before)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), tmp_path / "lesson.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", "lesson.ipynb"]
    done = subprocess.run(
        [*command, "--nbval-sanitize-with", str(SANITIZER)], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode == 0) == passes, done.stdout[-1500:]


def test_the_figures_on_the_page_keep_what_the_text_promises(lesson):
    """The comparison blanks this run's own figures; here they are held against the range beside them."""
    for cell in lesson[1].cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            shown = re.findall(r"<b>([-\d.,]+)</b>", data.get("text/html", ""))
            promised = re.findall(
                r"^  .*: (?:within ([-\d.,]+)–([-\d.,]+)|([-\d.,]+))$", data.get("text/plain", ""), re.MULTILINE
            )
            if "<caption>" in data.get("text/html", ""):
                assert len(shown) == len(promised) > 0
            for figure, (low, high, exact) in zip(shown, promised, strict=True):
                assert float(low or exact) <= float(figure) <= float(high or exact), (figure, low, high, exact)
