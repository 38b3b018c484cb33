"""Runs the lessons headlessly: papermill with strict parameters, a run folder, and pages to read afterwards."""

import ast
import html
import json
import os
import re
import shutil
import time
from pathlib import Path

import nbformat
import papermill
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from skinlib.dataset import find_records
from skinlib.files import CourseError, write_json, write_text
from skinlib.progress import HEADLESS

PROJECT = Path(__file__).resolve().parent.parent
NOTEBOOKS = PROJECT / "notebooks"
RESULTS = ("metrics.json", "metrics_summary.txt", "to_predict_results.csv", "classified_results", "masks")
COMMON_PARAMETERS = ("dataset", "data_dir", "run_dir", "seed", "quick")


def lessons(only: list[str] | None = None) -> list[Path]:
    """The numbered notebooks in order, or those whose number or name is in `only` ("02", "2" or "02_unet")."""
    found = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise CourseError(f"there are no lessons in {NOTEBOOKS}: run from a clone of the repository")
    if not only:
        return found
    chosen = []
    for wanted in only:
        matches = [path for path in found if wanted == path.stem or wanted.zfill(2) == path.stem[:2]]
        if not matches:
            raise CourseError(f"there is no lesson {wanted}; there are: {', '.join(path.stem for path in found)}")
        chosen += matches
    return sorted(set(chosen))


def parse_parameters(pairs: list[str]) -> dict[str, object]:
    """NAME=VALUE texts to a dictionary; a value is read as Python would, and is a text where Python would not."""
    parameters = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise CourseError(f"'{pair}' is no parameter: write NAME=VALUE")
        try:
            parameters[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parameters[name] = value
    return parameters


def lesson_parameters(lesson: Path) -> set[str]:
    """The names that a lesson's cell tagged `parameters` assigns."""
    notebook = nbformat.read(lesson, as_version=4)
    sources = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    return {
        target.id
        for source in sources
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
    }


def check_parameters(chosen: list[Path], parameters: dict[str, object]) -> dict[Path, dict[str, object]]:
    """Which parameters go to which lesson. One that no lesson has is refused (papermill itself would ignore it)."""
    known = {lesson: lesson_parameters(lesson) for lesson in chosen}
    every = set().union(*known.values())
    unknown = sorted(set(parameters) - every)
    if unknown:
        raise CourseError(f"no lesson has a parameter '{unknown[0]}'; there are: {', '.join(sorted(every))}")
    for lesson, names in known.items():
        missing = [name for name in COMMON_PARAMETERS if name not in names]
        if missing:
            raise CourseError(f"{lesson.name} lacks the parameter {missing[0]} in its cell tagged 'parameters'")
    return {lesson: {name: parameters[name] for name in parameters if name in known[lesson]} for lesson in chosen}


def run(
    dataset: str = "synthetic",
    data_dir: Path | None = None,
    out: Path | None = None,
    only: list[str] | None = None,
    seed: int = 0,
    quick: bool = False,
    extra: dict[str, object] | None = None,
) -> Path:
    """Run lessons one after the other and return the run's folder. Raises CourseError at the first that fails."""
    chosen = lessons(only)
    if dataset == "synthetic":
        data_dir = data_dir or PROJECT / "data"
    else:
        # A wrong folder should be said now, not when the first lesson has started its kernel. Lesson 01 only looks at
        # the data; the others need masks.
        find_records(dataset, data_dir or Path("DATA_DIR"), masks_needed=any(path.stem[:2] > "01" for path in chosen))
    out = (out or Path("runs") / dataset).resolve()
    taken = sorted(set(extra or {}) & set(COMMON_PARAMETERS))
    if taken:
        raise CourseError(f"set {taken[0]} with its own option, --{taken[0].replace('_', '-')}, not with --parameter")
    common = {
        "dataset": dataset,
        "data_dir": str(data_dir.resolve()),
        "run_dir": str(out),
        "seed": seed,
        "quick": quick,
    }
    extra = dict(extra or {})
    if extra.get("to_predict"):
        # The lessons run in notebooks/, but a path is meant from where the command was given.
        extra["to_predict"] = str(Path(str(extra["to_predict"])).resolve())
    parameters = check_parameters(chosen, common | extra)
    # Bars inside the kernels would end up in the executed notebooks; the bar over the cells is shown here.
    os.environ[HEADLESS] = "1"
    _claim(out, {"dataset": dataset, "seed": seed, "quick": quick})
    # What tells of a whole run must not be taken for this one's, should this one change the models or fail.
    for name in ("index.html", *(RESULTS if any(lesson.stem[:2] > "01" for lesson in chosen) else ())):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).unlink(missing_ok=True)
    print(f"{len(chosen)} lessons on {dataset}, into {out}", flush=True)
    seconds = {}
    for lesson in chosen:
        start = time.perf_counter()
        _run_lesson(lesson, out, parameters[lesson])
        seconds[lesson.stem] = round(time.perf_counter() - start, 1)
    _add_seconds(out, seconds)
    write_index(out, dataset)
    print(_closing_table(out, seconds))
    return out


def _claim(out: Path, settings: dict[str, object]) -> None:
    """Take a folder for a run. One that holds other things is refused: a run replaces what an older run left there."""
    mark = out / "run.json"
    if out.exists() and not mark.is_file() and (not out.is_dir() or any(out.iterdir())):
        raise CourseError(f"{out} holds something else than a run: name a new or empty folder with --out")
    write_json(mark, settings)


def _run_lesson(lesson: Path, out: Path, parameters: dict[str, object]) -> None:
    executed = out / "notebooks" / lesson.name
    executed.parent.mkdir(parents=True, exist_ok=True)
    unfinished = executed.with_name(f"{lesson.stem}.unfinished.ipynb")
    headline = out / "headlines" / f"{lesson.stem}.txt"
    for old in (executed, executed.with_suffix(".html"), unfinished, headline):
        old.unlink(missing_ok=True)
    try:
        notebook = papermill.execute_notebook(
            lesson,
            unfinished,
            parameters=parameters,
            cwd=NOTEBOOKS,
            progress_bar={"desc": f"lesson {lesson.stem}", "leave": False},
            extra_arguments=["--IPKernelApp.log_level=40"],  # a note about transport, at every start
        )
    except PapermillExecutionError as error:
        message = (error.evalue.strip().splitlines() or [""])[0]
        reason = message if error.ename == "CourseError" else f"{error.ename}: {message}"
        if "[Errno 28]" in message:
            reason = "the disk is full: free some space and start again"
        raise CourseError(
            f"lesson {lesson.stem} failed in cell [{error.exec_count}]: {reason} (the half-run notebook: {unfinished})"
        ) from None
    except RuntimeError as error:  # nbclient's word for a kernel that died or did not start
        raise CourseError(
            f"lesson {lesson.stem} stopped: {str(error).splitlines()[0]} (the half-run notebook: {unfinished})"
        ) from None
    page, _ = HTMLExporter(embed_images=True).from_notebook_node(notebook)
    # A lesson's links lead to the next notebook; on a page, to the next page.
    page = re.sub(r'href="([0-9]{2}_\w+)\.ipynb"', r'href="\1.html"', page)
    write_text(executed.with_suffix(".html"), page)
    unfinished.replace(executed)


def _add_seconds(out: Path, seconds: dict[str, float]) -> None:
    path = out / "metrics.json"
    if path.is_file():
        metrics = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, metrics | {"seconds": metrics.get("seconds", {}) | seconds})


def _headline(out: Path, lesson: str) -> str:
    """What a lesson itself wrote as its result, in one line."""
    path = out / "headlines" / f"{lesson}.txt"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _closing_table(out: Path, seconds: dict[str, float]) -> str:
    rows = [(name, f"{spent:.0f} s", _headline(out, name)) for name, spent in seconds.items()]
    rows.append(("all", f"{sum(seconds.values()):.0f} s", f"open {out / 'index.html'}"))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {spent:>{widths[1]}}  {text}" for name, spent, text in rows)


def write_index(out: Path, dataset: str) -> None:
    """index.html in the run's folder: the lessons as pages, their headlines, and the figures."""
    items = []
    for page in sorted((out / "notebooks").glob("[0-9][0-9]_*.html")):
        headline = html.escape(_headline(out, page.stem))
        items.append(f'<li><a href="notebooks/{page.name}">{page.stem.replace("_", " ")}</a> {headline}</li>')
    pictures = "".join(
        f'<figure><img src="figures/{figure.name}" alt="{figure.stem.replace("_", " ")}">'
        f"<figcaption>{figure.stem.replace('_', ' ')}</figcaption></figure>"
        for figure in sorted((out / "figures").glob("*.png"))
    )
    files = "".join(
        f'<li><a href="{name}">{name}</a></li>'
        for name in ("metrics_summary.txt", "metrics.json", "to_predict_results.csv", "classified_results")
        if (out / name).exists()
    )
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Run: {html.escape(out.name)}</title>
<style>body{{font-family:sans-serif;max-width:70em;margin:2em auto;padding:0 1em;line-height:1.5}}
figure{{display:inline-block;margin:1em;vertical-align:top}}img{{max-width:30em}}figcaption{{color:#555}}</style></head>
<body><h1>Skin-lesion analysis: {html.escape(dataset)}</h1><p>For education; not a medical device.</p>
<h2>Lessons</h2><ol>{"".join(items)}</ol><h2>Results</h2><ul>{files}</ul><h2>Figures</h2>{pictures}</body></html>
"""
    write_text(out / "index.html", page)
