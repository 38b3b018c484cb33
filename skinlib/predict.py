"""Both stages on unseen pictures: lesion outline, label and confidence. Used in lesson 05 and by `skinlib predict`."""

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from skinlib.cnn import CNN_FILE, predict_labels
from skinlib.cnn import RECIPE as CNN_RECIPE
from skinlib.dataset import WORKING_SIZE, resize_image, resize_mask
from skinlib.files import CourseError, list_images, read_image, write_image, write_text
from skinlib.pixels import in_parallel
from skinlib.progress import progress
from skinlib.quiet import keras
from skinlib.segmentation import crop_lesion, masks_from_probabilities
from skinlib.training import open_model
from skinlib.unet import RECIPE as UNET_RECIPE
from skinlib.unet import UNET_FILE, predict_masks

RESULTS_FILE = "to_predict_results.csv"
COLUMNS = (
    "image", "status", "label", "malignant_probability", "confidence", "tag", "lesion_area_fraction", "message",
)  # fmt: skip
VIEWS = (UNET_RECIPE.views, CNN_RECIPE.views)  # of each picture, which the U-Net and the CNN are asked about
BATCH = 32  # pictures that go through the networks together
LARGE = 3 * 2_000_000  # values; a larger picture is not kept for its overlay but read again, or memory would fill
TINT = np.array([255, 210, 0], np.float32)  # yellow, told from skin by everyone


class Prediction(NamedTuple):
    """What both stages say of one picture; `mask` is bool, of the picture's own size."""

    mask: np.ndarray
    malignant_probability: float

    @property
    def malignant(self) -> bool:
        return self.malignant_probability >= 0.5

    @property
    def label(self) -> str:
        return "Malignant" if self.malignant else "Benign"

    @property
    def tag(self) -> str:
        return "Skin Cancer" if self.malignant else "No Cancer"

    @property
    def confidence(self) -> float:
        """Probability of the label that was given, 0.5–1."""
        return max(self.malignant_probability, 1 - self.malignant_probability)


def load_models(folder: str | Path) -> tuple[keras.Model, keras.Model]:
    """The U-Net and the CNN out of a run's models folder. Raises CourseError if one is missing or damaged."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CourseError(f"there is no folder {folder}: `skinlib run` makes one, RUN/models")
    return open_model(folder / UNET_FILE), open_model(folder / CNN_FILE)


def predict_image(image: np.ndarray, unet: keras.Model, cnn: keras.Model) -> Prediction:
    """Segment, crop, classify, just as in training: uint8 RGB (h, w, 3) of any size. Lesson 05."""
    masks, probabilities = _both_stages(resize_image(image, WORKING_SIZE)[None], unet, cnn)
    return Prediction(resize_mask(masks[0], image.shape[:2]), float(probabilities[0]))


def _both_stages(
    pictures: np.ndarray, unet: keras.Model, cnn: keras.Model, views: tuple[int, int] = VIEWS
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, s, s, 3) to clean masks bool (n, s, s) and the probability of "malignant" (n,)."""
    masks = masks_from_probabilities(predict_masks(unet, pictures, views=views[0]), pictures.shape[1])
    crops = np.stack([crop_lesion(picture, mask) for picture, mask in zip(pictures, masks, strict=True)])
    return masks, predict_labels(cnn, crops, views=views[1])


class _Read(NamedTuple):
    """A picture on its way: at the working size, its own (height, width), and itself unless it is large."""

    small: np.ndarray
    shape: tuple[int, int]
    image: np.ndarray | None


def _read(path: Path) -> _Read | CourseError:
    try:
        image = read_image(path)
    except CourseError as error:
        return error
    return _Read(resize_image(image, WORKING_SIZE), image.shape[:2], image if image.size <= LARGE else None)


def _predicted(
    paths: Sequence[Path], unet: keras.Model, cnn: keras.Model, views: tuple[int, int] = VIEWS
) -> Iterator[tuple[_Read | CourseError, np.ndarray | None, float]]:
    """What was read of each file, its clean mask at the working size, and the probability of "malignant", in order.

    Threads read the next files while the networks are busy with a batch.
    """
    reading = in_parallel(_read, paths, ahead=2 * BATCH)
    while batch := list(islice(reading, BATCH)):
        pictures = [read.small for read in batch if isinstance(read, _Read)]
        found = zip(*_both_stages(np.stack(pictures), unet, cnn, views), strict=True) if pictures else iter(())
        for read in batch:
            yield read, *(next(found) if isinstance(read, _Read) else (None, np.nan))


def predict_pictures(
    paths: Sequence[Path], unet: keras.Model, cnn: keras.Model, views: tuple[int, int] = VIEWS
) -> Iterator[Prediction | CourseError]:
    """Both stages on image files, in their order; for one that cannot be read, the error that says why.

    The same answers as `predict_image` gives one by one, many times as fast. Only a few dozen pictures are in memory
    at a time, however many files there are.

    views    how many mirror images and turns the U-Net and the CNN see of each picture (`inference.answers`)
    """
    for read, mask, probability in _predicted(paths, unet, cnn, views):
        yield Prediction(resize_mask(mask, read.shape), float(probability)) if isinstance(read, _Read) else read


def draw_overlay(image: np.ndarray, prediction: Prediction) -> np.ndarray:
    """The picture with the lesion's outline and tint, and a bar with label, confidence and tag: uint8 RGB."""
    height, width = image.shape[:2]
    drawn = image.astype(np.float32)
    drawn[prediction.mask] = 0.8 * drawn[prediction.mask] + 0.2 * TINT
    drawn = np.ascontiguousarray(drawn.astype(np.uint8))
    contours, _ = cv2.findContours(prediction.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, TINT.tolist(), max(1, round(min(height, width) / 150)), cv2.LINE_AA)
    words = f"{prediction.label} {prediction.confidence:.0%} - {prediction.tag}"
    font = cv2.FONT_HERSHEY_SIMPLEX
    (length, tall), _ = cv2.getTextSize(words, font, 1.0, 2)
    scale = min(0.92 * width / length, max(height, 120) / 14 / tall)
    bar = np.full((max(12, int(2.2 * tall * scale)), width, 3), 30, np.uint8)
    cv2.putText(
        bar, words, (int(0.03 * width), int(1.6 * tall * scale)), font, scale, (255, 255, 255),
        max(1, round(2 * scale)), cv2.LINE_AA,
    )  # fmt: skip
    return np.vstack([drawn, bar])


def find_images(paths: list[str | Path]) -> list[Path]:
    """The image files named, and those in the folders named. Raises CourseError for a path that is not there."""
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            found += list_images(path)
        elif path.exists():
            found.append(path)
        else:
            raise CourseError(f"there is no file or folder {path}")
    if not found:
        raise CourseError(f"no .jpg or .png image in {', '.join(map(str, paths))}")
    return list(dict.fromkeys(found))


def predict_files(images: list[Path], models: str | Path, out: str | Path) -> pd.DataFrame:
    """Classify image files; write masks/, classified_results/ and to_predict_results.csv under `out`.

    A file that cannot be read becomes a row with status "error" and the reason. Returns the table of the CSV.
    """
    unet, cnn = load_models(models)
    out = Path(out)

    def written(job: tuple) -> dict:
        path, name, (read, mask, probability) = job
        if isinstance(read, CourseError):
            return {"image": path.name, "status": "error", "message": str(read)}
        found = Prediction(resize_mask(mask, read.shape), float(probability))
        image = read_image(path) if read.image is None else read.image
        write_image(out / "masks" / f"{name}.png", found.mask)
        write_image(out / "classified_results" / f"{name}.jpg", draw_overlay(image, found))
        return {
            "image": path.name,
            "status": "ok",
            "label": found.label,
            "malignant_probability": round(found.malignant_probability, 4),
            "confidence": round(found.confidence, 4),
            "tag": found.tag,
            "lesion_area_fraction": round(float(found.mask.mean()), 4),
            "message": "" if found.mask.any() else "no lesion found: the whole picture was classified",
        }

    jobs = zip(images, _names(images), _predicted(images, unet, cnn), strict=True)
    rows = list(progress(in_parallel(written, jobs, ahead=BATCH), "classifying", len(images), "image"))
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(out / RESULTS_FILE, text.getvalue())
    return pd.DataFrame(rows, columns=COLUMNS)


def _names(paths: list[Path]) -> list[str]:
    """A name for the outputs of each file: two folders may hold files of one name."""
    names = {}
    for path in paths:
        name, number = path.stem if path.stem not in names else f"{path.stem}_{path.suffix[1:]}", 2
        while name in names:
            name, number = f"{path.stem}_{number}", number + 1
        names[name] = path
    return list(names)
