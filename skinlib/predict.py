"""Both stages on unseen pictures: lesion outline, label and confidence. Used in lesson 05 and by `skinlib predict`."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from skinlib.cnn import CNN_FILE, predict_labels
from skinlib.dataset import WORKING_SIZE, resize_image, resize_mask
from skinlib.files import CourseError, list_images, read_image, write_image, write_text
from skinlib.progress import progress
from skinlib.quiet import keras
from skinlib.segmentation import crop_lesion, masks_from_probabilities
from skinlib.training import open_model
from skinlib.unet import UNET_FILE, predict_masks

RESULTS_FILE = "to_predict_results.csv"
COLUMNS = (
    "image", "status", "label", "malignant_probability", "confidence", "tag", "lesion_area_fraction", "message",
)  # fmt: skip
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
    small = resize_image(image, WORKING_SIZE)[None]
    mask = masks_from_probabilities(predict_masks(unet, small), WORKING_SIZE)[0]
    probability = float(predict_labels(cnn, crop_lesion(small[0], mask)[None])[0])
    return Prediction(resize_mask(mask, image.shape[:2]), probability)


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
    rows, used = [], set()
    for path in progress(images, "classifying", len(images), "image"):
        name = path.stem if path.stem not in used else f"{path.stem}_{path.suffix[1:]}"
        number = 2
        while name in used:  # two folders may hold files of one name
            name, number = f"{path.stem}_{number}", number + 1
        used.add(name)
        try:
            image = read_image(path)
        except CourseError as error:
            rows.append({"image": path.name, "status": "error", "message": str(error)})
            continue
        found = predict_image(image, unet, cnn)
        write_image(out / "masks" / f"{name}.png", found.mask)
        write_image(out / "classified_results" / f"{name}.jpg", draw_overlay(image, found))
        rows.append(
            {
                "image": path.name,
                "status": "ok",
                "label": found.label,
                "malignant_probability": round(found.malignant_probability, 4),
                "confidence": round(found.confidence, 4),
                "tag": found.tag,
                "lesion_area_fraction": round(float(found.mask.mean()), 4),
                "message": "" if found.mask.any() else "no lesion found: the whole picture was classified",
            }
        )
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(out / RESULTS_FILE, text.getvalue())
    return pd.DataFrame(rows, columns=COLUMNS)
