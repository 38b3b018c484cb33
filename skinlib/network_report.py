"""Tells what `network_benchmark` measured: tables, figures, and their place in README and figures/ of a clone.

A table is made from the JSON that is kept beside it, and from nothing else: README can only say what was measured.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from IPython.display import Markdown, display

from skinlib import plots
from skinlib.evaluation import with_interval
from skinlib.files import CourseError, write_json, write_text

PROJECT = Path(__file__).resolve().parent.parent
STORE = "figures/benchmarks"  # what README's tables are made from
SAME_ABLATION = ("seeds", "folds", "cores")  # where these agree, the stages of two calls stand in one table
NEW_BLOCKS = "<!-- new benchmarks go above this line -->"
DATA_NAMES = {
    "synthetic": "the embedded data",
    "isic2016": "ISIC 2016",
    "isic2018": "ISIC 2018 Task 1",
    "ham10000": "HAM10000",
    "folder": "own pictures",
}


def stem(result: dict) -> str:
    """The name of a result's file, and of its place in README: "segmentation_isic2018_all_folds"."""
    name = result["benchmark"]
    if name not in ("course", "inference"):
        name = f"{name}_{_data_name(result)}"
    return f"{name}{'-quick' if result['quick'] else ''}"


def picture(result: dict) -> str | None:
    """The name of the figure that belongs to a result, if one does."""
    kind = {"segmentation": "quality_against_cost", "ablation": "ablation"}.get(result["benchmark"])
    if result["benchmark"] == "segmentation" and len(result["rows"]) + len(result["curve"]) < 3:
        return None  # Otsu's threshold and one network: two points
    return kind and f"{kind}_{_data_name(result)}{'-quick' if result['quick'] else ''}.png"


def _data_name(result: dict) -> str:
    """The data set's, with a word where every image was tested once: that is another table than one fold's."""
    return result["dataset"] + ("_all_folds" if len(result["folds"]) > 1 else "")


# -- tables ----------------------------------------------------------------------------------------------------------


def as_text(result: dict) -> list[str]:
    """The result as lines of Markdown whose columns also stand in line in a terminal."""
    tell = {
        "segmentation": _segmentation_text,
        "classification": _classification_text,
        "ablation": _ablation_text,
        "course": _course_text,
        "inference": _inference_text,
    }
    return tell[result["benchmark"]](result)


def _segmentation_text(result: dict) -> list[str]:
    columns = [("mean Dice", "dice"), ("mean Jaccard", "jaccard"), ("thresholded Jaccard", "thresholded_jaccard")]
    rows = [*result["rows"], *result["curve"]]
    return [
        f"**Segmentation**, {_where(result, result)}.",
        "",
        *_scored(rows, columns, "dice", len(result["seeds"])),
        "",
        *_notes(result, rows, _by_fold(rows, "Mean Dice")),
    ]


def _classification_text(result: dict) -> list[str]:
    columns = [("AUROC", "auroc"), ("balanced accuracy", "balanced_accuracy"), ("accuracy", "accuracy")]
    columns += [("average precision", "average_precision"), ("sensitivity", "sensitivity")]
    columns += [("specificity", "specificity")]
    seconds = "" if result["cut_s"] is None else f" in {result['cut_s']:.0f} s"
    # Where there are several, every row names its own.
    variant = f" ({result['variants'][0]})" if len(result["variants"]) == 1 else ""
    return [
        f"**Classification**, {_where(result, result)}. "
        f"Images are cut by {result['cut_by']}{seconds}{variant}; our CNN starts from {result['start']}.",
        "",
        *_scored(result["rows"], columns, "auroc", len(result["seeds"])),
        "",
        *_notes(result, result["rows"], _by_fold(result["rows"], "AUROC")),
    ]


def _by_fold(rows: Sequence[dict], score: str) -> str:
    """How much a single fold can mislead, one sentence per method."""
    return " ".join(
        f"{score} by fold, {row['method']}: {', '.join(f'{value:.3f}' for value in row['by_fold'])}."
        for row in rows
        if "by_fold" in row
    )


def _scored(rows: Sequence[dict], columns: list[tuple[str, str]], main: str, seeds: int) -> list[str]:
    """A table with a line per method: scores, the main one's range over seeds, costs."""
    head = ["method", *(title for title, _ in columns)]
    cells: list[Callable[[dict], str]] = [lambda row: row["method"]]
    cells += [lambda row, name=name: with_interval(row[name]) for _, name in columns]
    if seeds > 1:
        head.append(f"{columns[0][0]} by seed")
        cells.append(lambda row: _span(row["by_seed"][main]))
    head += ["parameters", "MACs × views", "training", "images/s, training", "images/s, answering", "peak memory"]
    cells += [
        lambda row: _figure(row, "parameters", "{:,.0f}"),
        lambda row: f"{row['macs'] / 1e6:,.0f} M × {row['views']:.0f}" if "macs" in row else "–",
        lambda row: _figure(row, "training_s", "{:.0f} s"),
        lambda row: _figure(row, "training_images_per_s", "{:.0f}"),
        lambda row: _figure(row, "inference_images_per_s", "{:,.0f}"),
        lambda row: _figure(row, "peak_bytes", "{:.2f} GB", 1e9),
    ]
    return _table(head, [[cell(row) for cell in cells] for row in rows])


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.3f}–{max(values):.3f}" if min(values) < max(values) else "–"


def _figure(row: dict, name: str, form: str, unit: float = 1) -> str:
    return "–" if row.get(name) is None else form.format(row[name] / unit)


def _ablation_text(result: dict) -> list[str]:
    lines = []
    for stage, about in result["stages"].items():
        scores = [("mean Dice", "dice")]
        if stage == "classification":
            scores = [("AUROC", "auroc"), ("balanced accuracy", "balanced_accuracy")]
        head = ["recipe", *(f(name) for name, _ in scores for f in (str, "difference in {}".format)), "training"]
        rows = []
        for row in about["rows"]:
            told = [row["arm"]]
            for _, name in scores:
                difference = "–" if row is about["rows"][0] else _signed(row[f"{name}_difference"])
                told += [with_interval(row[name]), difference]
            rows.append([*told, _figure(row, "training_s", "{:.0f} s") if row["epochs"] else "none of its own"])
        cut = ""
        if stage == "classification":
            cut = f" Images are cut by {about['cut_by']}. Our CNN starts from {about['start']}."
        lines += [
            f"**One choice taken back at a time: {stage}**, {_where(result, about)}; epochs: {about['epochs']}.{cut}",
            "",
            *_table(head, rows),
            "",
        ]
    everything = [row for about in result["stages"].values() for row in about["rows"]]
    return [*lines, *_notes(result, everything, "A difference is paired: both recipes on the same pictures.")]


def _course_text(result: dict) -> list[str]:
    rows = [
        [
            name,
            f"{seconds:.0f} s",
            f"{result['training_cells'][name]:.0f} s" if name in result["training_cells"] else "–",
        ]
        for name, seconds in result["lessons"].items()
    ]
    rows.append(
        ["all, with the start", f"{result['seconds']:.0f} s", f"{sum(result['training_cells'].values()):.0f} s"]
    )
    lines = [
        f"**The course itself**, on the embedded data, {result['cores']} CPU cores.",
        "",
        *_table(["lesson", "seconds", "of which its network trains"], rows),
    ]
    return [*lines, "", "quick: these figures mean nothing"] if result["quick"] else lines


def _inference_text(result: dict) -> list[str]:
    ways = [
        ("plain", "plain loop: one picture after the other, `model.predict` for each stage"),
        ("ours", "ours, asked the same"),
        ("course", "ours, as the course asks"),
    ]
    rows = []
    for name, words in ways:
        way = result[name]
        times = f"{way['ratio']:.1f} ({way['ratio_low']:.1f}–{way['ratio_high']:.1f})" if "ratio" in way else "–"
        views = " and ".join(map(str, result["asked_views"][name]))
        processor = f"{1000 * way['processor_seconds_per_image']:.1f} ms"
        rows.append([words, views, f"{way['images_per_second']:.1f}", times, processor])
    process, (low, high), (width, height) = result["process"], result["cold_range"], result["size"]
    alone = [
        f"{name} {', '.join(f'{rate:.0f} with {views}' for views, rate in rates.items())}"
        for name, rates in result["views"].items()
    ]
    memory = ""
    if process["peak_bytes"]:
        one, all_of_them = (process[name] / 1e6 for name in ("peak_bytes_one", "peak_bytes"))
        memory = f" Its peak memory: {one:.0f} MB for one picture, {all_of_them:.0f} MB for all."
    lines = [
        f"**Inference**, both stages: {result['images']:,} JPEGs of {width}×{height} from disk, masks and labels out; "
        f"the plain loop on {result['sample']}; {result['rounds']} rounds by turns, {result['cores']} CPU cores.",
        "",
        *_table(["way", "views, U-Net and CNN", "images/s", "times as many", "processor time an image"], rows),
        "",
        "Times as many: the median of the rounds, in brackets the least and the most. Asked the same, both give the "
        f"same masks (Dice at least {result['least_dice']:.4f}) and probabilities that differ by "
        f"{result['largest_difference']:.0e} at most.",
        "",
        f"`skinlib predict` on one picture, from a cold process: {result['cold_seconds']:.1f} s ({low:.1f}–{high:.1f}; "
        f"{result['cold_processor_seconds']:.1f} s of processor time). With the networks loaded, a process gives its "
        f"first answer after {process['first_seconds']:.2f} s, the second after "
        f"{1000 * process['second_seconds']:.0f} ms.{memory}",
        "",
        "Parts of ours, each alone, in milliseconds an image: "
        f"{', '.join(f'{name} {taken:.2f}' for name, taken in result['stages'].items())}. "
        f"Each network alone, images/s by views: {'; '.join(alone)}.",
    ]
    return [*lines, "", "quick: these figures mean nothing"] if result["quick"] else lines


def _where(result: dict, about: dict) -> str:
    images, name = about["images"], DATA_NAMES[result["dataset"]]
    part = (
        "its train and validation parts, and new pictures to test"
        if result["dataset"] == "synthetic"
        else f"fold {result['folds'][0]} of 5"
    )
    if len(result["folds"]) > 1:
        part = f"all {len(result['folds'])} folds, so that every image is tested once"
    seeds = ", ".join(str(seed) for seed in result["seeds"])
    average = " on average" if len(result["folds"]) > 1 else ""
    return (
        f"{name}, {part}: {images['train']:,} images to train, {images['validation']:,} to validate{average}, "
        f"{images['test']:,} ({about['test_lesions']:,} lesions) to test; {result['cores']} CPU cores; "
        f"{'seed' if len(result['seeds']) == 1 else 'seeds'} {seeds}"
    )


def _notes(result: dict, rows: Sequence[dict], more: str = "") -> list[str]:
    several = [name for name in ("seeds", "folds") if len(result[name]) > 1]
    means = {
        (): "",
        ("seeds",): " Scores and costs are means over the seeds.",
        ("folds",): " Costs are means over the folds.",
        ("seeds", "folds"): " Scores are means over the seeds, costs over seeds and folds.",
    }[tuple(several)]
    lines = [f"In brackets: 95 % intervals, by drawing lesions.{means} {more}".rstrip()]
    trained = [row for row in rows if "kept" in row]
    kept = [row.get("method", row.get("arm")) for row in trained if row["kept"]]
    if kept:
        # The names of all, two dozen in an ablation, would say no more.
        names = "every network" if len(kept) == len(trained) > 1 else "; ".join(kept)  # "our U-Net, 30 s" has a comma
        some = ", in one training at least" if several else ""
        lines += ["", f"Kept from before, not trained anew in this call{some}: {names}."]
    if result["quick"]:
        lines += ["", "quick: these figures mean nothing"]
    return lines


def _signed(quantity: dict) -> str:
    if quantity["value"] is None:
        return "not defined"
    return f"{quantity['value']:+.3f} ({quantity['low']:+.3f} to {quantity['high']:+.3f})".replace("-", "−")


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return [
        "| " + " | ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]


# -- figures ---------------------------------------------------------------------------------------------------------


def draw(result: dict, folder: str | Path) -> Path | None:
    """Draw the figure that belongs to a result into a folder, and say where it lies; None where none belongs."""
    name = picture(result)
    if name is None:
        return None
    path, data = Path(folder) / name, DATA_NAMES[result["dataset"]]
    quick = " (quick: it means nothing)" if result["quick"] else ""
    if result["benchmark"] == "segmentation":
        title = f"Quality against cost: {data}, {result['images']['test']:,} test pictures{quick}"
        plots.quality_against_cost(result["rows"], result["curve"], title, path)
        return path
    _draw_ablation(result, f"One choice taken back at a time: {data}{quick}", path)
    return path


def _draw_ablation(result: dict, title: str, path: Path | None) -> None:
    panels = []
    for stage, about in result["stages"].items():
        score, key = ("mean Dice", "dice") if stage == "segmentation" else ("AUROC", "auroc")
        arms = [(row["arm"], row[f"{key}_difference"]) for row in about["rows"][1:]]
        panels.append((f"{score}, {about['images']['test']:,} test pictures,", arms))
    plots.differences(panels, title, path)


def show_ablation(file: str | Path, stage: str) -> None:
    """One stage of a kept ablation in a notebook, as a figure and as a table. Lessons 02 and 04.

    file    the JSON that `skinlib benchmark ablation` keeps; stage: "segmentation" or "classification"
    Raises CourseError if it is not there.
    """
    try:
        result = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CourseError(f"there is no ablation in {file}: `skinlib benchmark ablation --write` makes one") from None
    result["stages"] = {stage: result["stages"][stage]}
    _draw_ablation(result, f"One choice taken back at a time: {DATA_NAMES[result['dataset']]}", None)
    display(Markdown("\n".join(as_text(result))))


# -- README ----------------------------------------------------------------------------------------------------------


def check_clone(project: Path) -> None:
    """Raise CourseError where there is no clone of the course to write into."""
    readme = project / "README.md"
    if not (project / "notebooks").is_dir() or not readme.is_file():
        raise CourseError(f"--write puts tables into a clone of the course, and {project} is none: leave it out")
    if NEW_BLOCKS not in readme.read_text(encoding="utf-8"):
        raise CourseError(f"{readme} has lost the line '{NEW_BLOCKS}', above which --write puts new tables")


def readme_block(result: dict) -> str:
    """What README shows of a result, between its two comments."""
    lines = as_text(result)
    name = picture(result)
    if name:
        what = "Mean Dice against cost" if result["benchmark"] == "segmentation" else "What each choice counts for"
        lines = [*lines, "", f"![{what}, {DATA_NAMES[result['dataset']]}](figures/{name})"]
    return "\n".join([f"<!-- benchmark:{stem(result)} -->", "", *lines, "", "<!-- /benchmark -->"])


def readme_blocks(text: str) -> dict[str, str]:
    """The blocks that a README holds, by their names."""
    found = re.finditer(r"<!-- benchmark:(\S+) -->.*?<!-- /benchmark -->", text, re.DOTALL)
    return {match.group(1): match.group(0) for match in found}


def write(result: dict, project: Path) -> list[Path]:
    """Put a result's JSON, figure and table where the repository keeps them; returns the files.

    An ablation of one stage leaves what is kept of the other, if it was made in the same way. A figure that the kept
    result had, and the new one has not, goes.
    """
    check_clone(project)
    store, readme = project / STORE / f"{stem(result)}.json", project / "README.md"
    kept = json.loads(store.read_text(encoding="utf-8")) if store.is_file() else None
    alike = kept and result["benchmark"] == "ablation" and all(kept[key] == result[key] for key in SAME_ABLATION)
    if alike:
        result = result | {"stages": kept["stages"] | result["stages"]}
    write_json(store, result)
    figure = draw(result, project / "figures")
    if kept and not figure and picture(kept):
        (project / "figures" / picture(kept)).unlink(missing_ok=True)
    text, block = readme.read_text(encoding="utf-8"), readme_block(result)
    old = readme_blocks(text).get(stem(result))
    write_text(readme, text.replace(old, block) if old else text.replace(NEW_BLOCKS, f"{block}\n\n{NEW_BLOCKS}", 1))
    return [readme, store, *([figure] if figure else [])]
