"""Measures what the course claims, each claim in one run on one machine: `skinlib benchmark NAME`.

Generator: how fast pictures are painted, how good one can possibly be on them, what predicts their labels, how far
their annotators agree. Transfer: how well do networks that have seen nothing but painted pictures do on real
photographs? Beside them stand Otsu's threshold, which learns nothing, and the same network trained on real ones.
Reading and leak are about data: see `data_benchmark`.
Segmentation, classification, ablation and course are about the networks: see `network_benchmark`.
"""

import time
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skinlib import (
    annotators,
    cnn,
    data_benchmark,
    evaluation,
    network_benchmark,
    segmentation,
    synthetic,
    unet,
)
from skinlib.dataset import LesionDataset, from_synthetic, load_dataset, resize_images, resize_masks
from skinlib.evaluation import Measured, with_interval
from skinlib.files import CourseError, write_json
from skinlib.network_benchmark import Options
from skinlib.quiet import keras
from skinlib.training import save_model, seed_everything

NAMES = ("generator", "transfer", "reading", "leak", *network_benchmark.NAMES)
FIRST_LESION = 1_000_000  # far from the course's own lesions, which count from 0
ABCD = ["asymmetry", "border", "colours", "structures"]
BITS = [name.replace(" ", "_") for name in synthetic.ARTEFACTS]


class Setting(NamedTuple):
    """How much is painted and how long is trained. The U-Net's share is meant to stay under eight minutes."""

    table_rows: int = 6000
    course_pictures: int = synthetic.DEFAULT_COUNT
    course_epochs: int = unet.default_epochs("synthetic", quick=False)
    unet_pictures: int = 6000
    unet_epochs: int = 10
    cnn_pictures: int = 3000
    cnn_epochs: int = cnn.default_epochs(quick=False)
    real_epochs: int = unet.default_epochs("isic2018", quick=False)


QUICK = Setting(600, 160, 1, 200, 1, 160, 1, 1)


def run(options: Options) -> str:
    """Run one benchmark, keep OUT/NAME.json, and return the table to print.

    Raises CourseError, before anything takes time, for a wrong name and for options that do not go together.
    """
    name, data_dir, quick = options.name, options.data_dir, options.quick
    if name not in NAMES:
        raise CourseError(f"there is no benchmark '{name}'; there are: {', '.join(NAMES)}")
    network_benchmark.check(options)
    if name in network_benchmark.NAMES:
        return "\n".join(network_benchmark.run(options))
    if name == "transfer" and data_dir is None:
        raise CourseError("the benchmark 'transfer' needs real pictures: name their folder with --data-dir")
    setting = QUICK if quick else Setting()
    measure, as_text = {
        "generator": (lambda: generator(setting), _generator_text),
        "transfer": (lambda: transfer(data_dir, options.out, options.seed, setting), _transfer_text),
        "reading": (lambda: data_benchmark.reading(data_dir, quick), data_benchmark.reading_text),
        "leak": (lambda: data_benchmark.leak(data_dir, quick), data_benchmark.leak_text),
    }[name]
    result = measure()
    lines = as_text(result)
    about = {"benchmark": name, "quick": quick, "seed": options.seed, "generator": synthetic.VERSION}
    file = Path(options.out) / f"{name}{'-quick' if quick else ''}.json"
    write_json(file, about | setting._asdict() | result)
    if quick:
        lines.append("quick: these figures mean nothing")
    return "\n".join([*lines, f"kept in {file}"])


# -- generator -------------------------------------------------------------------------------------------------------


def generator(setting: Setting) -> dict:
    """Speed, ceiling, what predicts the label, and agreement of the annotators, on painted pictures alone."""
    start = time.perf_counter()
    made = synthetic.generate(setting.course_pictures)
    seconds = time.perf_counter() - start
    table = synthetic.describe(setting.table_rows)
    planted = synthetic.describe(setting.table_rows, shortcut={"ruler": 0.9})
    label = table["label"].to_numpy()
    names = table["lesion_id"].unique()
    shuffled = dict(zip(names, np.random.default_rng(0).permutation(label)[: len(names)], strict=True))
    aurocs = {
        "true A, B, C, D": auroc_of(ABCD, table, label),
        "the same, labels shuffled": auroc_of(ABCD, table, table["lesion_id"].map(shuffled).to_numpy()),
        "artefacts": auroc_of(BITS, table, label),
        "artefacts, ruler planted at 0.9": auroc_of(BITS, planted, planted["label"].to_numpy()),
    }
    groups = made.table["lesion_id"].to_numpy()
    people = {name: made.outlines[name] for name in annotators.STYLES}
    pairs = {f"{a}, {b}": evaluation.dice(people[a], people[b]) for a, b in combinations(people, 2)}
    pairs["mean of the pairs"] = np.mean([*pairs.values()], axis=0)
    pairs["reference, exact"] = evaluation.dice(made.masks, made.outlines["exact"])
    agreement = {name: evaluation.bootstrap(_mean, groups, scores)["mean"] for name, scores in pairs.items()}
    return {
        "seconds": seconds,
        "images_per_second": len(made.images) / seconds,
        "ceiling": made.ceiling,
        "ceiling_of_the_long_table": synthetic.SyntheticSet(made.images, made.outlines, table).ceiling,
        "auroc": evaluation.as_json(aurocs),
        "agreement": evaluation.as_json(agreement),
    }


def auroc_of(features: list[str], table: pd.DataFrame, labels: np.ndarray) -> Measured:
    """AUROC of a logistic regression on columns of the table, asked about lesions it has not learned from."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=100))
    columns = table[features].to_numpy(float)
    groups = table["lesion_id"].to_numpy()
    scores = cross_val_predict(model, columns, labels, groups=groups, cv=GroupKFold(5), method="predict_proba")
    return evaluation.bootstrap(_auroc, groups, labels, scores[:, 1])["auroc"]


def _auroc(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    return {"auroc": roc_auc_score(labels, scores) if 0 < labels.mean() < 1 else np.nan}


def _mean(scores: np.ndarray) -> dict[str, float]:
    return {"mean": float(scores.mean())}


def _generator_text(result: dict) -> list[str]:
    best = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in result["ceiling"].items())
    lines = [
        f"painted at {result['images_per_second']:.0f} images/s; the course's own set in {result['seconds']:.1f} s",
        f"best possible on the course's own set: {best}",
        "",
        "AUROC of a logistic regression on columns of a longer table "
        f"(best possible {result['ceiling_of_the_long_table']['auroc']:.3f})",
        *(f"  {name:34}{with_interval(quantity)}" for name, quantity in result["auroc"].items()),
        "",
        "mean Dice between outlines of one lesion",
        *(f"  {name:34}{with_interval(quantity)}" for name, quantity in result["agreement"].items()),
        "In brackets: 95 % intervals, by drawing lesions.",
    ]
    return lines


# -- transfer --------------------------------------------------------------------------------------------------------


def transfer(data_dir: str | Path, out: str | Path, seed: int, setting: Setting) -> dict:
    """Train on painted pictures only, score on every real one.

    data_dir    ISIC 2018 Task 1 in its official layout; out: a folder, where the painted U-Net is kept under models/
    The network trained on real pictures learns from their train part, so it is scored on the test part alone, and so
    are the others, once more, beside it. Raises CourseError for a wrong folder before anything takes time.
    """
    real = load_dataset("isic2018", data_dir)
    if not {0, 1} <= set(real.labels):
        raise CourseError(f"{data_dir} needs labels of both classes (metadata.csv, column diagnosis_1)")
    images, masks = resize_images(real.images, unet.UNET_SIZE), resize_masks(real.masks, unet.UNET_SIZE)
    is_test = real.parts == "test"
    rows = []

    def add(method: str, found: np.ndarray, chosen: np.ndarray, seconds: float) -> None:
        measured = evaluation.measure_segmentation(masks[chosen], found, real.groups[chosen])
        about = {"images": int(chosen.sum()), "part": "all" if chosen.all() else "test part"}
        rows.append({"method": method, **about, "training_s": round(seconds), **evaluation.as_json(measured)})

    def add_both(method: str, found: np.ndarray, seconds: float) -> None:
        add(method, found, np.ones(len(real), bool), seconds)
        add(method, found[is_test], is_test, seconds)

    add_both("Otsu's threshold", np.stack([segmentation.otsu_mask(image) for image in images]), 0)

    course = from_synthetic(synthetic.generate(setting.course_pictures))
    model, seconds = _train_unet(course, setting.course_epochs, seed)
    add_both(f"U-Net, {len(course.part('train')):,} of the course's own", _found(model, images), seconds)

    painted = from_synthetic(
        synthetic.generate(setting.unet_pictures, unet.UNET_SIZE, FIRST_LESION, synthetic.ISIC2018), (0.95, 0.05)
    )
    painted_unet, seconds = _train_unet(painted, setting.unet_epochs, seed)
    save_model(painted_unet, Path(out) / "models" / unet.UNET_FILE, painted.identity | {"seed": seed}, {})
    add_both(f"U-Net, {len(painted.part('train')):,} painted", _found(painted_unet, images), seconds)

    # What painted pictures are measured against: the same network on real ones, as a real run of the course has it.
    model, seconds = _train_unet(real, setting.real_epochs, seed)
    add(f"U-Net, {len(real.part('train')):,} real", _found(model, images[is_test]), is_test, seconds)
    return {
        "segmentation": rows,
        "unet_weights": painted_unet.count_params(),
        "classification": _classifier_transfer(real, painted_unet, setting, seed),
    }


def _train_unet(data: LesionDataset, epochs: int, seed: int) -> tuple[keras.Model, float]:
    seed_everything(seed)
    start = time.perf_counter()
    model, _ = unet.train_unet(data, epochs, seed)
    return model, time.perf_counter() - start


def _found(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return segmentation.masks_from_probabilities(unet.predict_masks(model, images), images.shape[1])


def _classifier_transfer(real: LesionDataset, painted_unet: keras.Model, setting: Setting, seed: int) -> dict:
    """Scores on all labelled real pictures of a CNN that saw painted ones only; so did the U-Net that cuts for it."""
    labelled = real.select(real.labels >= 0)
    painted = from_synthetic(
        synthetic.generate(setting.cnn_pictures, synthetic.DEFAULT_SIZE, 2 * FIRST_LESION, synthetic.ISIC2018),
        (0.9, 0.1),
    )
    table = pd.DataFrame({"part": painted.parts, "label": painted.labels})
    seed_everything(seed)
    start = time.perf_counter()
    crops = segmentation.crop_lesions(painted.images, painted.masks)
    model, _ = cnn.train_cnn(crops, table, setting.cnn_epochs, seed, start=painted_unet)
    seconds = time.perf_counter() - start
    found = segmentation.masks_from_probabilities(
        unet.predict_masks(painted_unet, labelled.images), labelled.images.shape[1]
    )
    probability = cnn.predict_labels(model, segmentation.crop_lesions(labelled.images, found))
    measured = evaluation.measure_classification(labelled.labels, probability, labelled.groups)
    about = {"method": f"CNN, {(table['part'] == 'train').sum():,} painted", "images": len(labelled)}
    return {**about, "training_s": round(seconds), **evaluation.as_json(measured)}


def _transfer_text(result: dict) -> list[str]:
    lines = [
        f"{'on real images':36}{'images':>16}{'training':>10}   {'mean Dice':22}{'mean Jaccard':22}thresholded Jaccard"
    ]
    for row in result["segmentation"]:
        figures = "".join(f"{with_interval(row[name]):22}" for name in ("dice", "jaccard", "thresholded_jaccard"))
        where = f"{row['images']:,} ({row['part']})"
        lines.append(f"{row['method']:36}{where:>16}{row['training_s']:>8} s   {figures}".rstrip())
    row = result["classification"]
    lines += [
        f"The U-Net has {result['unet_weights']:,} weights.",
        "",
        f"{row['method']}: AUROC {with_interval(row['auroc'])}, "
        f"average precision {with_interval(row['average_precision'])} "
        f"on {row['images']:,} real images, {row['training_s']} s of training",
        "In brackets: 95 % intervals, by drawing lesions.",
    ]
    return lines
