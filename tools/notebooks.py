"""Run the lessons anew, in order, and keep their outputs in notebooks/: the only way in which they are committed.

    python tools/notebooks.py [NN ...]

Each is run from an empty run folder with its own default parameters, and written only if all its cells ran.
"""

import os
import shutil
import sys

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from skinlib.course import NOTEBOOKS, PROJECT, lessons
from skinlib.files import CourseError, write_text
from skinlib.progress import HEADLESS

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what tools left: timings, widget state, editor settings. Join text that came in several pieces."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        joined = []
        for output in cell.get("outputs", []):
            output.pop("metadata", None) if output.output_type == "stream" else output.metadata.clear()
            if joined and output.output_type == "stream" and joined[-1].get("name") == output.name:
                joined[-1].text += output.text
            else:
                joined.append(output)
        if cell.cell_type == "code":
            cell.outputs = joined
    return notebook


def main(only: list[str]) -> int:
    os.environ[HEADLESS] = "1"
    shutil.rmtree(PROJECT / "runs" / "lessons", ignore_errors=True)
    try:
        for lesson in lessons(only):
            notebook = nbformat.read(lesson, as_version=4)
            client = NotebookClient(
                notebook,
                timeout=1200,
                resources={"metadata": {"path": NOTEBOOKS}},
                extra_arguments=["--IPKernelApp.log_level=40"],
            )
            client.execute()
            write_text(lesson, nbformat.writes(tidy(notebook)) + "\n")
            print(f"{lesson.name}: {lesson.stat().st_size / 1e6:.2f} MB")
    except CellExecutionError as error:
        print(f"{lesson.name} failed and was not written: {error.ename}: {error.evalue}", file=sys.stderr)
        return 1
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
