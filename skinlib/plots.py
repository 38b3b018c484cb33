"""Every figure of the course, in one style, and the tables of figures that a lesson shows.

Benign and malignant are told apart by shape, hatch or line as well as by colour (Okabe and Ito's palette).
"""

import html
import io
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image, display
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from sklearn.calibration import calibration_curve
from sklearn.metrics import classification_report as report_of
from sklearn.metrics import confusion_matrix as matrix_of
from sklearn.metrics import roc_auc_score, roc_curve

from skinlib import synthetic
from skinlib.colour import SKIN_TONES
from skinlib.dataset import CLASS_NAMES
from skinlib.files import CourseError, write_image, written_whole
from skinlib.progress import HEADLESS

BLUE, ORANGE, GREEN, YELLOW, GREY = "#0072B2", "#D55E00", "#009E73", "#F0E442", "#555555"
CLASS_STYLE = ({"color": BLUE, "linestyle": "-", "hatch": ""}, {"color": ORANGE, "linestyle": "--", "hatch": "///"})

# How the measures of `evaluation` are written in a table.
MEASURE_NAMES = {
    "dice": "mean Dice",
    "jaccard": "mean Jaccard",
    "thresholded_jaccard": "thresholded Jaccard",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "brier": "Brier score (0 is best)",
    "ece": "expected calibration error (0 is best)",
}

plt.rcParams.update(
    {"figure.dpi": 80, "savefig.dpi": 120, "axes.spines.top": False, "axes.spines.right": False, "font.size": 10}
)


# -- figures that are numbers ----------------------------------------------------------------------------------------


class Scoreboard:
    """A table of measured figures for the end of a cell: `Scoreboard("U-Net", [("mean Dice", 0.95, (0.93, 0.98))])`.

    The page shows this run's own figures. The plain text says what must hold: "within 0.93–0.98" if the value lies
    in the expected range, and otherwise the value itself. Training differs a little between machines, so the plain
    text is what a comparison of outputs can ask for.

    rows    (name, value, expected range or None[, (low, high)]): the last is a 95 % interval
    """

    def __init__(self, title: str, rows: Sequence[tuple]) -> None:
        self.title = title
        self.rows = [(MEASURE_NAMES.get(name, name), *rest) for name, *rest in rows]

    def __repr__(self) -> str:
        lines = [self.title]
        for name, value, expected, *_ in self.rows:
            lines.append(f"  {name}: {within(value, *expected) if expected else _number(value)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cells = []
        for name, value, _, *interval in self.rows:
            figure = f"<b>{_number(value)}</b>"
            if interval:
                figure += f" &ensp;(95 %: {_number(interval[0][0])} to {_number(interval[0][1])})"
            cells.append(
                f"<tr><td style='text-align:left'>{html.escape(name)}</td>"
                f"<td style='text-align:left'><span class='measured'>{figure}</span></td></tr>"
            )
        return f"<table><caption>{html.escape(self.title)}</caption>{''.join(cells)}</table>"


class Table:
    """A table whose figures differ from run to run: shown on the page, named by its caption in the plain text."""

    def __init__(self, table: pd.DataFrame, caption: str) -> None:
        self.table, self.caption = table, caption

    def __repr__(self) -> str:
        return f"{self.caption}: {len(self.table)} rows of {', '.join(self.table.columns)}"

    def _repr_html_(self) -> str:
        return f"<span class='measured'>{self.table.to_html(index=False, border=0)}</span>"


class Note:
    """One line that is always the same, with a detail that may differ from run to run (shown only on the page)."""

    def __init__(self, line: str, detail: str) -> None:
        self.line, self.detail = line, detail

    def __repr__(self) -> str:
        return self.line

    def _repr_html_(self) -> str:
        return f"{html.escape(self.line)} <span class='measured'><i>{html.escape(self.detail)}</i></span>"


def within(value: float, low: float, high: float) -> str:
    """ "within LOW–HIGH" if the value is, else the value: what a printed line can promise on every machine."""
    return f"within {_number(low)}–{_number(high)}" if low <= value <= high else _number(value)


def about(share: float) -> str:
    """A share rounded to 5 %: "about 35 %". For printed lines about pixels, which may differ a little by machine."""
    return f"about {5 * round(20 * share)} %"


def _number(value: float) -> str:
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    return "not defined" if np.isnan(value) else f"{value:.3f}"


# -- figures that are pictures ---------------------------------------------------------------------------------------


def _finish(figure: Figure, path: str | Path | None, of_pictures: bool = False, show: bool = True) -> None:
    """Show the figure once (a command does not), and keep it under `path` if one is given.

    Figures made of pictures are shown as JPEG: as PNG, they would make a notebook several times larger.
    """
    if path is not None:
        with written_whole(path) as unfinished:
            figure.savefig(unfinished, bbox_inches="tight")
    if not show:
        pass
    elif of_pictures:
        shown = io.BytesIO()
        figure.savefig(shown, format="jpeg", dpi=90, bbox_inches="tight", pil_kwargs={"quality": 85})
        display(Image(shown.getvalue(), format="jpeg"))
    else:
        display(figure)
    plt.close(figure)


def _outline(axis: plt.Axes, mask: np.ndarray, color: str, style: str = "solid") -> None:
    contours, _ = cv2.findContours(np.asarray(mask, np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        ring = np.vstack([contour[:, 0], contour[:1, 0]])
        axis.plot(ring[:, 0], ring[:, 1], color="black", linewidth=2.4, linestyle=style)
        axis.plot(ring[:, 0], ring[:, 1], color=color, linewidth=1.3, linestyle=style)


def image_grid(
    images: Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
    masks: Sequence[np.ndarray] | None = None,
    found: Sequence[np.ndarray] | None = None,
    columns: int = 6,
    path: str | Path | None = None,
) -> None:
    """Pictures in rows. `masks` are outlined in yellow, solid; `found` masks in blue, dashed."""
    if not len(images):
        return
    rows = -(-len(images) // columns)
    lines = max((title.count("\n") for title in titles), default=0) if titles is not None else 0
    figure, axes = plt.subplots(rows, columns, figsize=(1.75 * columns, (1.95 + 0.17 * lines) * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
        axis.imshow(image)
        if masks is not None:
            _outline(axis, masks[i], YELLOW)
        if found is not None:
            _outline(axis, found[i], "#56B4E9", "dashed")
        axis.set(xlim=(0, image.shape[1] - 1), ylim=(image.shape[0] - 1, 0))
        if titles is not None:
            axis.set_title(titles[i], fontsize=8)
    figure.tight_layout(pad=0.4)
    _finish(figure, path, of_pictures=True)


def contact_sheet(
    images: Sequence[np.ndarray], columns: int = 12, side: int = 128, path: str | Path | None = None
) -> None:
    """Many pictures edge to edge, uint8 RGB, each `side` pixels wide: for the first look, before any single one."""
    tiles = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images]
    tiles += [np.full((side, side, 3), 255, np.uint8)] * (-len(tiles) % columns)
    sheet = np.vstack([np.hstack(tiles[row : row + columns]) for row in range(0, len(tiles), columns)])
    if path is not None:
        write_image(path, sheet)
    encoded = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    display(Image(encoded.tobytes(), format="jpeg", width=min(sheet.shape[1], 1000)))


def steps(pictures: dict[str, np.ndarray], path: str | Path | None = None) -> None:
    """Named pictures side by side; two-dimensional ones in grey, from their least to their greatest value."""
    figure, axes = plt.subplots(1, len(pictures), figsize=(2.5 * len(pictures), 2.8), squeeze=False)
    for axis, (name, picture) in zip(axes.flat, pictures.items(), strict=True):
        axis.imshow(picture, cmap="gray" if picture.ndim == 2 else None)
        axis.set_title(name, fontsize=9)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=True, color=GREY)
        if len(picture) < 10:  # so small that single pixels are the point
            axis.hlines(np.arange(0.5, len(picture) - 1), -0.5, picture.shape[1] - 0.5, color=GREY)
            axis.vlines(np.arange(0.5, picture.shape[1] - 1), -0.5, len(picture) - 0.5, color=GREY)
    figure.tight_layout(pad=0.4)
    _finish(figure, path, of_pictures=True)


def class_counts(parts: np.ndarray, labels: np.ndarray, path: str | Path | None = None) -> None:
    """How many benign and malignant images stand in each part."""
    figure, axis = plt.subplots(figsize=(6, 3))
    names = ("train", "validation", "test")
    for label, (name, style) in enumerate(zip(CLASS_NAMES, CLASS_STYLE, strict=True)):
        counts = [int(np.sum((parts == part) & (labels == label))) for part in names]
        bars = axis.bar(
            np.arange(3) + 0.4 * label - 0.2, counts, 0.38, label=name, color=style["color"], hatch=style["hatch"],
            edgecolor="white",
        )  # fmt: skip
        axis.bar_label(bars, fontsize=8)
    axis.set(xticks=range(3), xticklabels=names, ylabel="images")
    axis.legend(frameon=False)
    _finish(figure, path)


def distributions(
    columns: dict[str, np.ndarray], labels: np.ndarray, bins: int = 20, path: str | Path | None = None
) -> None:
    """One histogram per named quantity, benign against malignant, each scaled to its own number of images."""
    figure, axes = plt.subplots(1, len(columns), figsize=(3.4 * len(columns), 2.8), squeeze=False)
    for axis, (name, values) in zip(axes.flat, columns.items(), strict=True):
        edges = np.histogram_bin_edges(values, bins)
        for label, (class_name, style) in enumerate(zip(CLASS_NAMES, CLASS_STYLE, strict=True)):
            if np.any(labels == label):
                axis.hist(
                    values[labels == label], edges, density=True, histtype="step", linewidth=1.8, label=class_name,
                    color=style["color"], linestyle=style["linestyle"],
                )  # fmt: skip
        axis.set(xlabel=name, ylabel="density", yticks=[])
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    _finish(figure, path)


def skin_tones(angles: np.ndarray, path: str | Path | None = None) -> None:
    """Histogram of individual typology angles (degrees) over the six groups; a group without a picture is hatched."""
    figure, axis = plt.subplots(figsize=(8.4, 2.8))
    upper = 90.0
    groups = []
    for name, least in SKIN_TONES:
        least = max(least, -90)
        inside = np.mean((angles > least) & (angles <= upper)) if upper < 90 else np.mean(angles > least)
        groups.append((name, least, upper, inside))
        upper = least
    counts, _, _ = axis.hist(np.clip(angles, -90, 90), np.arange(-90, 91, 5), color=BLUE)
    top = counts.max() * 1.5
    for place, (name, least, upper, inside) in enumerate(groups):
        axis.axvline(least, color=GREY, linewidth=0.8, linestyle=":")
        if inside == 0:
            axis.add_patch(plt.Rectangle((least, 0), upper - least, top, fill=False, hatch="///", edgecolor="#bbbbbb"))
        share = "nobody" if inside == 0 else "< 1 %" if inside < 0.01 else f"{inside:.0%}"
        # The groups in the middle are narrow: their names stand at two heights.
        height = top * (0.98 if place % 2 else 0.83)
        axis.text((least + upper) / 2, height, f"{name}\n{share}", ha="center", va="top", fontsize=9)
    axis.set(
        xlabel="individual typology angle (degrees; the outermost bars hold whatever lies beyond)", ylabel="pictures",
        xlim=(-90, 90), ylim=(0, top),
    )  # fmt: skip
    figure.tight_layout()
    _finish(figure, path)


def training_curves(
    history: dict[str, list[float]],
    metric: str,
    metric_name: str,
    last_epoch: bool = False,
    path: str | Path | None = None,
) -> None:
    """Loss and one metric over the epochs, training (solid) against validation (dashed), with the epoch kept.

    last_epoch    the last was kept, not the one with the lowest validation loss
    """
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.1))
    epochs = np.arange(1, len(history["loss"]) + 1)
    kept = len(epochs) if last_epoch else 1 + int(np.argmin(history["val_loss"]))
    for axis, name, label in ((axes[0], "loss", "loss"), (axes[1], metric, metric_name)):
        axis.plot(epochs, history[name], "o-", color=BLUE, markersize=3, label="training")
        axis.plot(epochs, history[f"val_{name}"], "s--", color=ORANGE, markersize=3, label="validation")
        axis.axvline(kept, color=GREY, linestyle=":", label=f"kept: epoch {kept}")
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    _finish(figure, path)


def score_histograms(scores: dict[str, np.ndarray], name: str, path: str | Path | None = None) -> None:
    """One score per image, by method: every image counts, not only the mean (the vertical line)."""
    figure, axis = plt.subplots(figsize=(7, 3))
    styles = (("-", BLUE), ("--", ORANGE), (":", GREEN))
    edges = np.linspace(0, 1, 41)
    for (method, values), (line, color) in zip(scores.items(), styles, strict=False):
        axis.hist(values, edges, histtype="step", linewidth=1.8, linestyle=line, color=color, label=method)
        axis.axvline(np.mean(values), color=color, linestyle=line, linewidth=1)
    axis.set(xlabel=f"{name} of one image", ylabel="images", xlim=(0, 1))
    axis.legend(frameon=False, loc="upper left")
    _finish(figure, path)


def scatter(
    x: np.ndarray, y: np.ndarray, x_name: str, y_name: str, diagonal: bool = False, path: str | Path | None = None
) -> None:
    """One dot per image."""
    figure, axis = plt.subplots(figsize=(4.6, 3.4))
    axis.scatter(x, y, s=14, color=BLUE, alpha=0.6, edgecolors="none")
    if diagonal:
        axis.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    axis.set(xlabel=x_name, ylabel=y_name)
    _finish(figure, path)


def confusion_matrix(labels: np.ndarray, called: np.ndarray, path: str | Path | None = None) -> None:
    """Who was called what: counts, and the share of each true class."""
    counts = matrix_of(labels, called, labels=[0, 1])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    texts = np.array(
        [[f"{n}\n{share:.0%}" for n, share in zip(*row, strict=True)] for row in zip(counts, shares, strict=True)]
    )
    figure, axis = plt.subplots(figsize=(4.2, 3.4))
    sns.heatmap(
        shares, annot=texts, fmt="", cmap="Blues", vmin=0, vmax=1, xticklabels=CLASS_NAMES, yticklabels=CLASS_NAMES,
        cbar_kws={"label": "share of the true class"}, ax=axis,
    )  # fmt: skip
    axis.set(xlabel="called", ylabel="truly")
    _finish(figure, path)


def classification_report(labels: np.ndarray, called: np.ndarray, path: str | Path | None = None) -> None:
    """Precision, recall (for malignant: sensitivity) and F1 of both classes as a heat map."""
    report = report_of(labels, called, labels=[0, 1], target_names=CLASS_NAMES, output_dict=True, zero_division=0)
    table = pd.DataFrame(report).T.loc[[*CLASS_NAMES, "macro avg"], ["precision", "recall", "f1-score"]]
    figure, axis = plt.subplots(figsize=(5, 2.8))
    sns.heatmap(table, annot=True, fmt=".2f", cmap="Blues", vmin=0, vmax=1, ax=axis)
    axis.tick_params(axis="y", rotation=0)
    _finish(figure, path)


def roc(
    labels: np.ndarray, curves: dict[str, np.ndarray], threshold: float = 0.5, path: str | Path | None = None
) -> None:
    """ROC curves of named probabilities; the first one's operating point is marked."""
    figure, axis = plt.subplots(figsize=(4.8, 4))
    axis.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="guessing")
    for (name, probabilities), (line, color) in zip(curves.items(), (("-", BLUE), ("--", GREEN)), strict=False):
        false_alarms, hits, _ = roc_curve(labels, probabilities)
        area = roc_auc_score(labels, probabilities)
        axis.plot(false_alarms, hits, color=color, linestyle=line, linewidth=1.8, label=f"{name} (AUROC {area:.2f})")
    called = next(iter(curves.values())) >= threshold
    axis.plot(
        np.mean(called[labels == 0]), np.mean(called[labels == 1]), "o", color=ORANGE, markersize=9,
        label=f"operating point, {threshold}",
    )  # fmt: skip
    axis.set(xlabel="false alarms: 1 − specificity", ylabel="hits: sensitivity", aspect="equal")
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    _finish(figure, path)


def reliability(labels: np.ndarray, probabilities: np.ndarray, path: str | Path | None = None) -> None:
    """Calibration: of the images given a probability, how many were malignant? On the diagonal, words keep."""
    figure, axis = plt.subplots(figsize=(4.4, 3.6))
    observed, stated = calibration_curve(labels, probabilities, n_bins=6, strategy="quantile")
    axis.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect")
    axis.plot(stated, observed, "o-", color=BLUE, label="CNN, six equal groups")
    axis.set(xlabel="probability stated", ylabel="share that was malignant", xlim=(0, 1), ylim=(0, 1))
    axis.legend(frameon=False, fontsize=8)
    _finish(figure, path)


# -- figures of the benchmarks ---------------------------------------------------------------------------------------


def quality_against_cost(rows: Sequence[dict], curve: Sequence[dict], title: str, path: str | Path) -> None:
    """Mean Dice against training seconds, and against operations per picture, of the rows of a benchmark.

    rows     Otsu's threshold first, which costs no training: a line; then plain, if it was trained, and ours last:
             points with 95 % intervals
    curve    ours after less and more training, joined by a line
    """
    figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.8), sharey=True)
    baseline, *networks = rows

    def point(axis: plt.Axes, x: float, row: dict, marker: str, color: str, size: float, name: str | None) -> None:
        value, low, high = (row["dice"][key] for key in ("value", "low", "high"))
        axis.errorbar(
            x, value, [[value - low], [high - value]], fmt=marker, color=color, markersize=size, capsize=3, label=name
        )

    costs = (lambda row: row["training_s"], lambda row: row["macs"] * row["views"] / 1e6)
    for axis, cost in zip(axes, costs, strict=True):
        axis.axhspan(baseline["dice"]["low"], baseline["dice"]["high"], color=GREY, alpha=0.15, linewidth=0)
        axis.axhline(baseline["dice"]["value"], color=GREY, linestyle="--", label=f"{baseline['method']} (no training)")
        for row in networks:
            point(axis, cost(row), row, *(("o", BLUE) if row is networks[-1] else ("s", ORANGE)), 8, row["method"])
        if axis is axes[0] and curve:
            ordered = sorted(curve, key=cost)
            axis.plot([cost(row) for row in ordered], [row["dice"]["value"] for row in ordered], "-", color=BLUE)
            for place, row in enumerate(ordered):
                point(axis, cost(row), row, "o", BLUE, 4, None if place else "ours, trained for less or longer")
        axis.set_xscale("log")
        axis.margins(x=0.25)
        # Names at 2 and 5 as well, or a short span would show a single number.
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.xaxis.set_minor_formatter("{x:.0f}")
        axis.tick_params("x", which="both", length=3, pad=3)  # so that all numbers stand in line
        axis.grid(axis="y", color="#dddddd", linewidth=0.8)
        axis.set_axisbelow(True)
    axes[0].set(xlabel="seconds of training", ylabel="mean Dice of a test picture")
    axes[1].set(xlabel="million multiply-accumulates per picture, all views")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=4)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    _finish(figure, path, show=False)


def differences(
    panels: Sequence[tuple[str, Sequence[tuple[str, dict]]]], title: str, path: str | Path | None = None
) -> None:
    """By how much each choice counts: a dot and its 95 % interval for every arm, against the line of no difference.

    It goes into a file if a path is given, and else into the notebook. Lessons 02 and 04.

    panels    (name of the score, (arm, difference as `evaluation.as_json` has it) for each); drawn from top to bottom
    A dot is filled where the interval lies apart from zero.
    """
    heights = [len(arms) + 1.5 for _, arms in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(7.6, 0.32 * sum(heights) + 0.7), squeeze=False, height_ratios=heights
    )
    for axis, (name, arms) in zip(axes.flat, panels, strict=True):
        axis.axvline(0, color=GREY, linestyle="--", linewidth=1)
        for place, (_, found) in enumerate(arms):
            if found["value"] is None:
                continue
            apart = found["low"] > 0 or found["high"] < 0
            color = GREY if not apart else ORANGE if found["value"] < 0 else BLUE
            axis.plot([found["low"], found["high"]], [place, place], color=color, linewidth=1.8)
            axis.plot(found["value"], place, "o", color=color, markersize=7, fillstyle="full" if apart else "none")
        axis.set(yticks=range(len(arms)), yticklabels=[arm for arm, _ in arms], ylim=(len(arms) - 0.4, -0.6))
        axis.set_xlabel(f"difference in {name} to the full recipe (left: the choice had helped)", fontsize=9)
        axis.grid(axis="x", color="#dddddd", linewidth=0.8)
        axis.set_axisbelow(True)
    figure.suptitle(f"{title}\nfilled: the 95 % interval lies apart from zero", fontsize=11)
    figure.tight_layout()
    _finish(figure, path, show=path is None)


# -- sliders ---------------------------------------------------------------------------------------------------------


def lesion_sliders() -> None:
    """Sliders for a painted lesion's attributes: every move paints it anew. Lesson 01.

    Needs a browser behind it. Where outputs are kept or compared, one line says so instead.
    """
    if HEADLESS in os.environ:
        print("The sliders move in JupyterLab and in Colab; the grid below shows the same without them.")
        return
    display(lesion_workbench())


def lesion_workbench() -> "ipywidgets.Widget":  # noqa: F821
    """The widget that `lesion_sliders` shows: controls on the left, picture and score on the right."""
    import ipywidgets

    def slider(low: float, high: float, value: float, step: float) -> ipywidgets.Widget:
        whole = isinstance(step, int)
        kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        return kind(min=low, max=high, value=value, step=step, continuous_update=False)

    def several(names: Sequence[str], chosen: int) -> ipywidgets.Widget:
        return ipywidgets.SelectMultiple(options=list(names), value=list(names)[:chosen], rows=min(6, len(names)))

    controls = {
        "seed": slider(0, 500, 7, 1),
        "asymmetry": slider(0, 2, 1, 1),
        "border": slider(0, 8, 3, 1),
        "colours": several(synthetic.COLOURS, 2),
        "structures": several(synthetic.STRUCTURES, 1),
        "seven_point": several(synthetic.SEVEN_POINT, 0),
        "radius": slider(0.05, 0.9, 0.27, 0.01),
        "contrast": slider(0.05, 2.0, 0.8, 0.05),
        "softness": slider(0.0, 0.6, 0.15, 0.01),
        "ita": slider(-50, 80, 50, 1),
        "hair": slider(0, 60, 0, 1),
        "ruler": ipywidgets.Checkbox(value=False, indent=False),
        "ink": ipywidgets.Checkbox(value=False, indent=False),
        "patches": ipywidgets.Checkbox(value=False, indent=False),
        "dark_corners": ipywidgets.Checkbox(value=False, indent=False),
    }
    # What has no control stays away, so that nothing comes and goes with the lesion's number.
    absent = {"bubbles": 0, "gel_border": False, "reflections": False, "patchiness": 0, "satellites": 0, "cysts": 0}
    outline = ipywidgets.Checkbox(value=True, indent=False)
    picture, text = ipywidgets.Image(format="png", width=384), ipywidgets.HTML()

    def paint(change: dict | None = None) -> None:
        chosen = {name: control.value for name, control in controls.items()}
        chosen = {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}
        try:
            sample = synthetic.make_image(chosen.pop("seed"), 384, **absent, vessels=False, **chosen)
        except CourseError as error:
            text.value = f"<b>{html.escape(str(error))}</b>"
            return
        shown = sample.image.copy()
        if outline.value:
            contours, _ = cv2.findContours(sample.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(shown, contours, -1, (240, 228, 66), 2)
        picture.value = cv2.imencode(".png", shown[..., ::-1])[1].tobytes()
        row = sample.attributes
        text.value = (
            f"TDS {row['tds']}, seven-point score {row['seven_point_score']}<br>"
            f"probability of malignant {row['true_probability']:.2f}; its label was drawn: "
            f"<b>{CLASS_NAMES[row['label']]}</b> ({row['diagnosis']})"
        )

    for control in (*controls.values(), outline):
        control.observe(paint, "value")
    paint()
    named = {**controls, "outline": outline}
    names = [ipywidgets.Label(name.replace("_", " "), layout={"width": "90px"}) for name in named]
    rows = [ipywidgets.HBox([name, control]) for name, control in zip(names, named.values(), strict=True)]
    return ipywidgets.HBox([ipywidgets.VBox(rows), ipywidgets.VBox([picture, text])])
