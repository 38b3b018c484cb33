"""Lesson 03: from lesion probabilities to clean masks, and from masks to the crops that lesson 04 learns from.

Otsu's threshold, the baseline that needs no learning, belongs here too (lesson 02 compares the U-Net with it).
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage

from skinlib.dataset import CLASS_NAMES, LesionDataset, resize_image, resize_mask
from skinlib.files import CourseError, folder_written_whole, read_image, write_image, write_json
from skinlib.progress import progress

CROP_SIZE = 180  # what the CNN reads
CROP_MARGIN = 0.15  # skin kept around the lesion, as a share of the lesion's longer side
CROP_VARIANTS = ("crop with margin", "tight crop", "whole image", "background painted out", "crop and whole image")
MASK_THRESHOLD = 0.5


def otsu_mask(image: np.ndarray) -> np.ndarray:
    """The baseline: dark is lesion. uint8 RGB (h, w, 3) to bool (h, w). Lesson 02.

    Melanin swallows blue light most, so the blue channel shows a lesion best; Otsu (1979) chooses the threshold that
    parts its grey values into two groups of the least spread.
    """
    blue = cv2.GaussianBlur(image[..., 2], (0, 0), max(image.shape[:2]) / 64)
    threshold, _ = cv2.threshold(blue, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return clean_mask(blue <= threshold) if blue.min() < blue.max() else np.zeros(blue.shape, bool)


def clean_mask(mask: np.ndarray) -> np.ndarray:
    """Keep one lesion and fill its holes: bool (h, w) to bool (h, w). Lesson 03.

    Of several parts the one wins that is large and near the middle, where a dermoscope is aimed: its area counts,
    weighted by a bell curve around the picture's centre. An empty mask stays empty.
    """
    parts, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(mask.shape, bool)
    lesion = parts > 0
    if count > 1:
        height, width = mask.shape
        rows, columns = np.ogrid[:height, :width]
        from_centre = ((rows + 0.5) / height - 0.5) ** 2 + ((columns + 0.5) / width - 0.5) ** 2
        worth = ndimage.sum_labels(np.exp(-from_centre / (2 * 0.25**2)), parts, np.arange(1, count + 1))
        lesion = parts == 1 + int(np.argmax(worth))
    # What is left when the skin that reaches the picture's border is taken away is the lesion and its holes. (SciPy's
    # binary_fill_holes finds the same, ten times slower.) The frame joins the skin of all four borders.
    skin, _ = ndimage.label(np.pad(~lesion, 1, constant_values=True))
    return skin[1:-1, 1:-1] != skin[0, 0]


def lesion_box(mask: np.ndarray, margin: float) -> tuple[int, int, int, int]:
    """Square around the lesion with a margin, moved to lie in the picture: top, bottom, left, right. Lesson 03.

    A lesion larger than the picture's shorter side gives a box as large as fits. An empty mask gives the whole
    picture: no crop is better than a wrong one.
    """
    height, width = mask.shape
    if not mask.any():
        return 0, height, 0, width
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    longer = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    side = max(8, round(longer * (1 + 2 * margin)))
    sides = min(side, height), min(side, width)
    middles = (rows[0] + rows[-1] + 1) / 2, (columns[0] + columns[-1] + 1) / 2
    starts = [
        int(np.clip(round(middle - length / 2), 0, limit - length))
        for middle, length, limit in zip(middles, sides, mask.shape, strict=True)
    ]
    return starts[0], starts[0] + sides[0], starts[1], starts[1] + sides[1]


def crop_lesion(
    image: np.ndarray, mask: np.ndarray, margin: float | None = None, variant: str = "crop with margin"
) -> np.ndarray:
    """The lesion with some skin around it: uint8 RGB (h, w, 3) and bool (h, w) to uint8 (180, 180, 3). Lesson 03.

    variant    one of `CROP_VARIANTS`: what of the picture the CNN gets to see; "crop and whole image" are two pictures,
               one behind the other, uint8 (180, 180, 6)
    """
    if variant not in CROP_VARIANTS:
        raise ValueError(f"there is no variant '{variant}'; there are: {', '.join(CROP_VARIANTS)}")
    if variant == "crop and whole image":
        return np.concatenate(
            [crop_lesion(image, mask, margin), crop_lesion(image, mask, variant="whole image")], axis=-1
        )
    margin = 0.0 if variant == "tight crop" else CROP_MARGIN if margin is None else margin
    height, width = mask.shape
    box = (0, height, 0, width) if variant == "whole image" else lesion_box(mask, margin)
    if variant == "background painted out" and mask.any():
        image = np.where(mask[..., None], image, np.uint8(0))
    top, bottom, left, right = box
    return resize_image(np.ascontiguousarray(image[top:bottom, left:right]), CROP_SIZE)


def crop_lesions(images: np.ndarray, masks: np.ndarray, variant: str = "crop with margin") -> np.ndarray:
    """`crop_lesion` of many: uint8 RGB (n, h, w, 3) and bool (n, h, w) to uint8 (n, 180, 180, 3), or 6 of two looks."""
    crops = [crop_lesion(image, mask, variant=variant) for image, mask in zip(images, masks, strict=True)]
    return np.stack(crops) if crops else np.empty((0, CROP_SIZE, CROP_SIZE, 3), np.uint8)


def masks_from_probabilities(probabilities: np.ndarray, size: int) -> np.ndarray:
    """U-Net probabilities float (n, 128, 128) to clean bool masks (n, size, size). Lesson 03."""
    return np.stack([resize_mask(clean_mask(found > MASK_THRESHOLD), size) for found in probabilities])


def write_segmented(data: LesionDataset, masks: np.ndarray, folder: str | Path, made_from: dict) -> pd.DataFrame:
    """Write every labelled image's crop into folder/{train,test}/{benign,malignant}/, and crops.csv beside.

    `masks` are the predicted ones, bool (n, s, s), at the size of `data.images`. The validation part lies in train/:
    crops.csv says which images are it. The whole folder appears at once, or not at all.
    """
    if not (data.labels >= 0).any():
        raise CourseError("no image has a label, benign or malignant: lessons 04 and 05 have nothing to learn from")
    rows = []
    with folder_written_whole(folder) as unfinished:
        for part in ("train", "test"):
            for name in CLASS_NAMES:
                (unfinished / part / name).mkdir(parents=True)
        labelled = np.flatnonzero(data.labels >= 0)
        for i in progress(labelled, "writing crops", len(labelled), "image"):
            image_id = str(data.image_ids[i]).replace("/", "_")
            side = "test" if data.parts[i] == "test" else "train"
            file = f"{side}/{CLASS_NAMES[data.labels[i]]}/{image_id}.png"
            write_image(unfinished / file, crop_lesion(data.images[i], masks[i]))
            rows.append(
                {
                    "file": file,
                    "image_id": data.image_ids[i],
                    "lesion_id": data.groups[i],
                    "part": data.parts[i],
                    "label": int(data.labels[i]),
                    "diagnosis": data.table["diagnosis"].iloc[i],
                    "lesion_area_fraction": round(float(masks[i].mean()), 4),
                }
            )
        table = pd.DataFrame(rows)
        table.to_csv(unfinished / "crops.csv", index=False)
        write_json(unfinished / "made_from.json", made_from)
    return table


def read_segmented(folder: str | Path, made_from: dict) -> tuple[np.ndarray, pd.DataFrame] | None:
    """Crops uint8 RGB (n, 180, 180, 3) and their table, or None if there are none of this data set and setting."""
    folder = Path(folder)
    try:
        if json.loads((folder / "made_from.json").read_text(encoding="utf-8")) != made_from:
            return None
        table = pd.read_csv(folder / "crops.csv", dtype={"image_id": str, "lesion_id": str, "diagnosis": str})
        table["diagnosis"] = table["diagnosis"].fillna("")  # where nobody has told
        return np.stack([read_image(folder / file) for file in table["file"]]), table
    except (CourseError, OSError, ValueError, KeyError):
        return None
