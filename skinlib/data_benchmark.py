"""Measures what the course claims about data: `skinlib benchmark reading | leak`.

Reading: how much sooner large photographs are decoded than by reading each whole, how long a data set takes from cold
and from warm, and how much memory. Leak: what a split by image would have pretended, and what an audit finds in it.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.neighbors import KNeighborsClassifier

from skinlib import evaluation, leakage, synthetic
from skinlib.dataset import WORKING_SIZE, LesionDataset, audit, find_records, load_dataset, split_by_group
from skinlib.evaluation import with_interval
from skinlib.files import read_image
from skinlib.pixels import read_pairs, read_small_image, resize_image
from skinlib.processes import run_python
from skinlib.store import CACHE_VARIABLE

WIDTH, HEIGHT = 4000, 3000  # of a 12-megapixel photograph
MANY, SMALL = 2594, 128  # the whole of ISIC 2018 Task 1, at the size of the U-Net
MODELS = {
    "nearest neighbour": (KNeighborsClassifier(1), 100),
    "five nearest neighbours": (KNeighborsClassifier(5), 20),
    "extra trees": (ExtraTreesClassifier(200, min_samples_leaf=2, random_state=0, n_jobs=2), 20),
}


# -- reading ---------------------------------------------------------------------------------------------------------


def reading(data_dir: str | Path | None, quick: bool) -> dict:
    """Images per second of large photographs; seconds and memory of whole data sets.

    data_dir    ISIC 2018 Task 1 in its official layout; without it, only painted pictures are read
    Raises CourseError for a wrong folder before anything takes time.
    """
    if data_dir is not None:
        find_records("isic2018", data_dir)
    with tempfile.TemporaryDirectory() as folder:
        files = write_photographs(Path(folder), 4)
        result = {"large": _side_by_side(files * (1 if quick else 6), 1 if quick else 5)}
        many = Path(folder) / "set"
        synthetic.export(many, 60 if quick else MANY, 256)
        with tempfile.TemporaryDirectory() as cache:
            result["many"] = [_in_a_process(many, SMALL, cache) for _ in ("cold", "warm")]
    if data_dir is not None:
        with tempfile.TemporaryDirectory() as cache:
            result["set"] = [_in_a_process(data_dir, WORKING_SIZE, cache) for _ in ("cold", "warm")]
    return result


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Painted lesions as JPEG files (quality 90) of a camera's size, with the fine noise that a sensor adds."""
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        painted = synthetic.make_image(number, 1024).image
        large = cv2.resize(painted, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        # Blurred a little, as a camera's colour filter does it; four grey levels strong.
        grain = cv2.GaussianBlur(rng.standard_normal(large.shape, np.float32), (0, 0), 0.7)
        large += grain * (4 / grain.std())
        paths.append(folder / f"{number}.jpg")
        pixels = cv2.cvtColor(large.clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(paths[-1]), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths


def _side_by_side(files: list[Path], rounds: int) -> dict[str, float]:
    """Images per second of the plain loop and of ours, by turns, so that other work on the machine hits both."""
    ways = {
        "plain": lambda: [cv2.resize(cv2.imread(str(path)), (WORKING_SIZE, WORKING_SIZE)) for path in files],
        "ours": lambda: list(read_pairs([(path, None) for path in files], WORKING_SIZE)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, read in ways.items():
            start = time.perf_counter()
            read()
            seconds[name].append(time.perf_counter() - start)
    ratios = [plain / ours for plain, ours in zip(seconds["plain"], seconds["ours"], strict=True)]
    whole = resize_image(read_image(files[0]), WORKING_SIZE).astype(int)
    return {
        **{name: len(files) / statistics.median(taken) for name, taken in seconds.items()},
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "difference": float(np.abs(whole - read_small_image(files[0], WORKING_SIZE)[0].astype(int)).mean()),
    }


PROGRAM = """
import json, sys, time
from skinlib.dataset import load_dataset
from skinlib.processes import peak_bytes
start = time.perf_counter()
data = load_dataset("isic2018", sys.argv[1], size=int(sys.argv[2]))
seconds = time.perf_counter() - start
touched = int(sum(int(image.sum()) for image in data.images))  # every pixel has been in memory
print(json.dumps({"images": len(data), "size": data.images.shape[1], "seconds": seconds, "peak_bytes": peak_bytes()}))
"""


def _in_a_process(root: str | Path, size: int, cache: str) -> dict[str, float]:
    """Load a set in a process of its own, so that its memory can be told from ours."""
    arguments = ["-c", PROGRAM, str(root), str(size)]
    return json.loads(run_python(arguments, f"{root} could not be read", environment={CACHE_VARIABLE: cache}))


def reading_text(result: dict) -> list[str]:
    """What `reading` found, to be printed."""
    large = result["large"]
    lines = [
        f"JPEGs of {WIDTH}×{HEIGHT}: read whole and shrunk {large['plain']:.1f} images/s, ours {large['ours']:.1f}: "
        f"{large['ratio']:.1f} times as many ({large['ratio_low']:.1f}–{large['ratio_high']:.1f} in single rounds; "
        f"mean difference {large['difference']:.2f} grey levels)"
    ]
    for name, about in (("many", "painted pictures of 256×256 with masks"), ("set", "images of ISIC 2018 with masks")):
        for state, row in zip(("cold", "warm"), result.get(name, ()), strict=False):
            memory = f"{row['peak_bytes'] / 1e6:.0f} MB" if row["peak_bytes"] else "measured on Linux only"
            lines.append(
                f"{row['images']:,} {about} at {row['size']} pixels, {state} cache: {row['seconds']:.2f} s, "
                f"peak memory of the process: {memory}"
            )
    return lines


# -- leak ------------------------------------------------------------------------------------------------------------


def leak(data_dir: str | Path | None, quick: bool) -> dict:
    """What a split by image pretends, on the embedded set and on HAM10000.

    data_dir    HAM10000 in one of its layouts, masks not needed; without it, the embedded set alone
    Raises CourseError for a wrong folder before anything takes time.
    """
    if data_dir is not None:
        find_records("ham10000", data_dir, masks_needed=False)
    painted = synthetic.generate(200 if quick else synthetic.DEFAULT_COUNT)
    lesions = painted.table["lesion_id"].to_numpy(dtype=str)
    result = {"embedded set": _pretended(painted.images, painted.table["label"].to_numpy(), lesions, quick)}
    if data_dir is not None:
        data = load_dataset("ham10000", data_dir, quick, masks_needed=False)
        lesions = data.table["lesion_id"].to_numpy(dtype=str)
        result["HAM10000"] = _pretended(data.images, data.labels, lesions, quick)
        result["audit"] = _audits(data)
        result["about"] = _about_lesions(data)
    return result


def _pretended(images: np.ndarray, labels: np.ndarray, lesions: np.ndarray, quick: bool) -> dict:
    features = leakage.image_features(images)
    rows = {}
    for name, (model, repeats) in MODELS.items():
        found = leakage.pretended(features, labels, lesions, repeats=3 if quick else repeats, model=model)
        rows[name] = evaluation.as_json(found.summary)
    return {"images": len(images), "lesions": len(set(lesions)), "malignant": int(np.sum(labels == 1)), "models": rows}


def _audits(data: LesionDataset) -> dict[str, list[str]]:
    """The audit's reports on a split by image, by lesion as the table names it, and as the course makes it."""
    lesions = data.table["lesion_id"].to_numpy(dtype=str)
    splits = {
        "by image": dataclasses.replace(data, parts=split_by_group(data.image_ids)),
        "by lesion_id": dataclasses.replace(data, parts=split_by_group(lesions), groups=lesions),
        "as the course splits": data,
    }
    return {name: audit(split).lines() for name, split in splits.items()}


def _about_lesions(data: LesionDataset) -> dict:
    """How the labels were confirmed, and how many pairs of pictures of one lesion are known as copies by the pixels."""
    lesions = data.table["lesion_id"].to_numpy(dtype=str)
    sizes = np.unique(lesions, return_counts=True)[1]
    # All pairs that are found, wherever they stand, less those that the table gives to two lesions.
    report = audit(dataclasses.replace(data, parts=np.full(len(data), "all"), groups=lesions))
    found = report.parts["all"].near_duplicates + report.parts["all"].exact_duplicates
    confirmed = data.table.assign(malignant=data.labels == 1).groupby("confirmed")["malignant"].agg(["size", "sum"])
    return {
        "pairs_of_one_lesion": int((sizes * (sizes - 1) // 2).sum()),
        "found_as_copies": found - len(report.across_groups),
        "confirmed": {how: [int(row["size"]), int(row["sum"])] for how, row in confirmed.iterrows()},
    }


def leak_text(result: dict) -> list[str]:
    """What `leak` found, to be printed."""
    lines = ["balanced accuracy of one classifier, scored on two splits of the same size"]
    for name in ("embedded set", "HAM10000"):
        if name not in result:
            continue
        about = result[name]
        siblings = about["models"]["extra trees"]
        lines += [
            "",
            f"{name}: {about['images']:,} images of {about['lesions']:,} lesions, {about['malignant']:,} malignant; "
            f"split by image, {siblings['siblings']['value']:.1%} of the test images "
            f"({siblings['malignant_siblings']['value']:.1%} of the malignant ones) have a sibling in training",
            f"  {'':26}{'by image':10}{'by lesion':11}{'pretended':24}with and without siblings, same test images",
        ]
        for model, row in about["models"].items():
            lines.append(
                f"  {model:26}{row['by_image_balanced_accuracy']['value']:<10.3f}"
                f"{row['by_lesion_balanced_accuracy']['value']:<11.3f}{with_interval(row['gap_balanced_accuracy']):24}"
                f"{with_interval(row['effect_balanced_accuracy'])}"
            )
    lines.append("In brackets: 95 % intervals over repeated splits of this data.")
    if "about" in result:
        about = result["about"]
        ways = ", ".join(f"{how} {size:,} ({ill:,} malignant)" for how, (size, ill) in about["confirmed"].items())
        lines += [
            "",
            f"HAM10000's labels rest on: {ways}",
            f"of {about['pairs_of_one_lesion']:,} pairs of pictures of one lesion, the pixels tell "
            f"{about['found_as_copies']:,} as copies",
        ]
    for name, report in result.get("audit", {}).items():
        lines += ["", f"audit of HAM10000, {name}:", *(f"  {line}" for line in report)]
    return lines
