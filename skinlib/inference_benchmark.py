"""Measures how fast both stages answer: `skinlib benchmark inference`.

A thousand photographs from disk to masks and labels, beside the plain loop that asks the networks for one picture at
a time; how much memory that takes; how long the first answer of a fresh process takes, and the second.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from skinlib import cnn, segmentation, synthetic, unet
from skinlib.dataset import WORKING_SIZE, from_synthetic, resize_image, resize_mask
from skinlib.evaluation import dice
from skinlib.files import CourseError, read_image, write_image
from skinlib.pixels import in_parallel
from skinlib.predict import VIEWS, Prediction, load_models, predict_pictures
from skinlib.processes import run_python
from skinlib.quiet import keras
from skinlib.training import save_model, seed_everything

WIDTH, HEIGHT = 600, 450
ONE_VIEW = (1, 1)  # of each picture, for the U-Net and the CNN: what the plain loop asks
TRIED_VIEWS = (1, 2, 4, 8)


def inference(quick: bool) -> dict:
    """Pictures per second, agreement, memory and seconds to the first answer."""
    painted, copies, sample, rounds = (8, 5, 6, 2) if quick else (40, 25, 60, 3)
    with tempfile.TemporaryDirectory() as folder:
        files = _write_pictures(Path(folder) / "pictures", painted, copies)
        models = _train(Path(folder) / "models", quick)
        # Before this process has networks of its own that compete with the others for memory.
        process = _in_a_process(files, models)
        cold = [_cold_start(files[0], models, Path(folder) / "out") for _ in range(1 if quick else 5)]
        segmenter, classifier = load_models(models)
        result = {
            "size": [WIDTH, HEIGHT],
            **_side_by_side(files, sample, rounds, segmenter, classifier),
            "stages": _stages(files[: 2 * sample], segmenter, classifier),
            "views": _views(2 * sample, segmenter, classifier),
            "process": process,
            "cold_seconds": statistics.median(seconds for seconds, _ in cold),
            "cold_range": [min(cold)[0], max(cold)[0]],
            "cold_processor_seconds": statistics.median(seconds for _, seconds in cold),
        }
    return result


def _write_pictures(folder: Path, painted: int, copies: int) -> list[Path]:
    """Painted lesions as JPEG files of 600×450, each several times, in a mixed order."""
    paths = []
    for number in range(painted):
        image = synthetic.make_image(number, WIDTH).image
        edge = (WIDTH - HEIGHT) // 2
        for copy in range(copies):
            paths.append(folder / f"{copy:02}_{number:02}.jpg")
            write_image(paths[-1], image[edge : edge + HEIGHT])
    return sorted(paths)


def _train(folder: Path, quick: bool) -> Path:
    """A U-Net that has seen enough to draw lesions, as noise would be slow to clean, and a CNN that has not learned."""
    seed_everything(0)
    model, _ = unet.train_unet(from_synthetic(synthetic.generate(80 if quick else 160)), 1 if quick else 2, seed=0)
    save_model(model, folder / unet.UNET_FILE, {}, {})
    save_model(cnn.build_cnn(), folder / cnn.CNN_FILE, {}, {})
    return folder


# -- both ways, by turns ---------------------------------------------------------------------------------------------


def plain_loop(paths: list[Path], segmenter: keras.Model, classifier: keras.Model) -> list[Prediction]:
    """One picture after the other: read, shrink, `model.predict`, clean mask, crop, `model.predict`."""
    found = []
    for path in paths:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        picture = resize_image(image, WORKING_SIZE)
        small = resize_image(picture, segmenter.input_shape[1]).astype(np.float32)
        probabilities = segmenter.predict(small[None], verbose=0)[..., 0]
        mask = segmentation.masks_from_probabilities(probabilities, WORKING_SIZE)[0]
        crop = segmentation.crop_lesion(picture, mask).astype(np.float32)
        probability = classifier.predict(crop[None], verbose=0)[0, 1]
        found.append(Prediction(resize_mask(mask, image.shape[:2]), float(probability)))
    return found


def _side_by_side(
    files: list[Path], sample: int, rounds: int, segmenter: keras.Model, classifier: keras.Model
) -> dict[str, object]:
    """The plain loop on a sample and ours on all files, by turns, so that other work on the machine hits both."""
    ways = {
        "plain": lambda paths: plain_loop(paths, segmenter, classifier),
        "ours": lambda paths: list(predict_pictures(paths, segmenter, classifier, ONE_VIEW)),
        "course": lambda paths: list(predict_pictures(paths, segmenter, classifier, VIEWS)),
    }
    for way in ways.values():
        way(files[:3])  # each network is compiled before its time is taken
    wall, processor = ({name: [] for name in ways} for _ in range(2))
    dices, differences = [], []
    for number in range(rounds):
        some = [files[(number * sample + i) % len(files)] for i in range(sample)]
        found = {}
        for name, way in ways.items():
            paths = some if name == "plain" else some + sorted(set(files) - set(some))
            start, start_processor = time.perf_counter(), time.process_time()
            found[name] = way(paths)
            wall[name].append((time.perf_counter() - start) / len(paths))
            processor[name].append((time.process_time() - start_processor) / len(paths))
        for one, other in zip(found["plain"], found["ours"], strict=False):
            dices.append(dice(one.mask[None], other.mask[None])[0])
            differences.append(abs(one.malignant_probability - other.malignant_probability))
    if min(dices) < 0.999 or max(differences) > 1e-4:
        raise CourseError("the two ways do not answer alike, so their speeds cannot be compared")
    rates = {
        name: {
            "images_per_second": 1 / statistics.median(wall[name]),
            "processor_seconds_per_image": statistics.median(processor[name]),
        }
        for name in ways
    }
    for name in ("ours", "course"):
        ratios = [plain / ours for plain, ours in zip(wall["plain"], wall[name], strict=True)]
        rates[name] |= {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}
    return {
        "images": len(files),
        "sample": sample,
        "rounds": rounds,
        "asked_views": {"plain": ONE_VIEW, "ours": ONE_VIEW, "course": VIEWS},
        **rates,
        "least_dice": float(min(dices)),
        "largest_difference": float(max(differences)),
    }


# -- parts of ours ---------------------------------------------------------------------------------------------------


def _seconds(work: Callable[[], object]) -> float:
    """The shortest of three times, after one that is not counted."""
    work()
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _stages(files: list[Path], segmenter: keras.Model, classifier: keras.Model) -> dict[str, float]:
    """Milliseconds per picture of each part alone. Together they take less: the files are read meanwhile."""

    def read(path: Path) -> np.ndarray:
        return resize_image(read_image(path), WORKING_SIZE)

    pictures = np.stack(list(in_parallel(read, files)))
    probabilities = unet.predict_masks(segmenter, pictures)
    masks = segmentation.masks_from_probabilities(probabilities, WORKING_SIZE)
    crops = segmentation.crop_lesions(pictures, masks)
    parts = {
        "read and shrink": lambda: list(in_parallel(read, files)),
        "U-Net, one view": lambda: unet.predict_masks(segmenter, pictures, views=1),
        "clean masks": lambda: segmentation.masks_from_probabilities(probabilities, WORKING_SIZE),
        "crops": lambda: segmentation.crop_lesions(pictures, masks),
        "CNN, one view": lambda: cnn.predict_labels(classifier, crops, views=1),
        "masks of full size": lambda: [resize_mask(mask, (HEIGHT, WIDTH)) for mask in masks],
    }
    return {name: 1000 * _seconds(part) / len(files) for name, part in parts.items()}


def _views(count: int, segmenter: keras.Model, classifier: keras.Model) -> dict[str, dict[str, float]]:
    """Pictures per second of each network alone, by the number of views of each picture."""
    rng = np.random.default_rng(0)
    asked = {"U-Net": (unet.predict_masks, segmenter), "CNN": (cnn.predict_labels, classifier)}
    rates = {}
    for name, (predict, model) in asked.items():
        pictures = rng.integers(0, 256, (count, *model.input_shape[1:]), dtype=np.uint8)
        rates[name] = {
            str(views): count / _seconds(lambda p=predict, m=model, x=pictures, v=views: p(m, x, views=v))
            for views in TRIED_VIEWS
        }
    return rates


# -- other processes -------------------------------------------------------------------------------------------------


PROGRAM = """
import json, sys, time
from pathlib import Path
from skinlib.predict import load_models, predict_pictures
from skinlib.processes import peak_bytes
networks = load_models(sys.argv[1])
files = [Path(line) for line in sys.stdin.read().splitlines()]
def seconds(paths):
    start = time.perf_counter()
    for _ in predict_pictures(paths, *networks):
        pass
    return time.perf_counter() - start
first, second, one = seconds(files[:1]), seconds(files[1:2]), peak_bytes()
seconds(files)
print(json.dumps({"first_seconds": first, "second_seconds": second, "peak_bytes_one": one, "peak_bytes": peak_bytes()}))
"""


def _in_a_process(files: list[Path], models: Path) -> dict[str, float | None]:
    """Memory for one picture and for all, and the seconds of the first two, in a process of its own."""
    names = "\n".join(map(str, files))
    return json.loads(run_python(["-c", PROGRAM, str(models)], "the pictures could not be classified", names))


def _cold_start(file: Path, models: Path, out: Path) -> tuple[float, float]:
    """`skinlib predict` on one picture, from the first import to the last file written: seconds, and the processor's.

    The second figure tells a slow program from a busy machine.
    """
    arguments = ["-m", "skinlib", "predict", str(file), "--models", str(models), "--out", str(out)]
    start, before = time.perf_counter(), os.times()
    run_python(arguments, "`skinlib predict` failed")
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, processor
