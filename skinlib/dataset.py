"""LesionDataset: pictures, masks, labels and groups in one object, read from any of the data sets, and split fairly.

Explored in lesson 01, used in all of them.
"""

import dataclasses
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from skinlib import isic, synthetic
from skinlib.files import CourseError, digest, read_image, read_mask
from skinlib.isic import BENIGN, CLASS_NAMES, MALIGNANT, UNKNOWN
from skinlib.progress import progress

READERS = {"isic2018": isic.isic2018_records, "folder": isic.folder_records}
PARTS = ("train", "validation", "test")
WORKING_SIZE = 192  # a little over what the two networks need (128 and 180), so that both views shrink
QUICK_COUNT = 160  # images of a `quick` run: enough to try every cell, too few to learn much
LEAST_USABLE = 0.9  # a run goes on only if this share of the images can be used

ABOUT = {
    "synthetic": "pictures painted by a program: every outline and attribute is known, and no patient is in them",
    "isic2018": "real dermoscopic photographs of ISIC 2018 Task 1; a person drew or approved each mask; "
    "the labels come from the ISIC Archive",
    "folder": "your own pictures and masks",
}


@dataclasses.dataclass(frozen=True)
class LesionDataset:
    """n pictures with all that is known about each.

    images       uint8 RGB (n, s, s, 3), values 0–255; s is WORKING_SIZE where `load_dataset` made it
    masks        bool (n, s, s), True inside the lesion
    labels       int (n,), 0 benign, 1 malignant, -1 not known
    image_ids    str (n,); groups: str (n,), the lesion (or set of near-duplicates) that an image shows
    parts        str (n,), "train", "validation" or "test": one group never stands in two of them
    table        one row per image with whatever else the data set tells
    left_out     file name and reason for each image that could not be used
    sources      the image files, where there are such
    outlines     masks by the name of who drew them, `masks` among them ("exact": as it was painted); none where only
                 one outline of each lesion is known
    """

    name: str
    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    image_ids: np.ndarray
    groups: np.ndarray
    parts: np.ndarray
    table: pd.DataFrame
    left_out: tuple[tuple[str, str], ...] = ()
    sources: tuple[Path, ...] = ()
    outlines: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def about(self) -> str:
        """What this data set is, in one clause that a lesson can print."""
        return ABOUT[self.name]

    @property
    def identity(self) -> dict[str, str]:
        """What a model trained on this data writes down, so that no other data's model is taken for it."""
        content = digest(self.images, self.masks, self.labels, self.image_ids, self.parts)
        return {"dataset": self.name, "content": content}

    def select(self, chosen: np.ndarray) -> "LesionDataset":
        """The images at the given positions (or where a bool array is True), in that order."""
        chosen = np.asarray(chosen)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        fields = ("images", "masks", "labels", "image_ids", "groups", "parts")
        return dataclasses.replace(
            self,
            **{name: getattr(self, name)[chosen] for name in fields},
            table=self.table.iloc[chosen].reset_index(drop=True),
            sources=tuple(self.sources[i] for i in chosen) if self.sources else (),
            outlines={name: masks[chosen] for name, masks in self.outlines.items()},
        )

    def part(self, name: str) -> "LesionDataset":
        """Only "train", only "validation" or only "test"."""
        if name not in PARTS:
            raise ValueError(f"there is no part '{name}'; there are: {', '.join(PARTS)}")
        return self.select(self.parts == name)


def load_dataset(name: str, data_dir: str | Path, quick: bool = False) -> LesionDataset:
    """Read a data set into memory and split it. Raises CourseError with the way out.

    name      "synthetic" (made on first use, kept under data_dir/cache), "isic2018" or "folder"
    quick     take a small share, to try a lesson out
    """
    if name == "synthetic":
        count = QUICK_COUNT if quick else synthetic.DEFAULT_COUNT
        return from_synthetic(synthetic.load(data_dir, count, WORKING_SIZE))
    records = find_records(name, data_dir)
    if quick:
        # A hash of the id chooses, so that a quick run sees every kind of image and always the same ones. It must
        # not be the split's own hash, or all of them would fall into one part.
        order = np.argsort([_unit_hash(f"quick {record.image_id}") for record in records], kind="stable")
        records = [records[i] for i in sorted(order[:QUICK_COUNT])]
    return _read_records(name, records)


def from_synthetic(made: synthetic.SyntheticSet, shares: tuple[float, float] = (0.65, 0.15)) -> LesionDataset:
    """A painted set of any size, split; `shares` as in `split_by_group`."""
    groups = made.table["lesion_id"].to_numpy(dtype=str)
    return LesionDataset(
        name="synthetic",
        images=made.images,
        masks=made.masks,
        labels=made.table["label"].to_numpy(dtype=int),
        image_ids=made.table["image_id"].to_numpy(dtype=str),
        groups=groups,
        parts=split_by_group(groups, shares),
        table=made.table,
        outlines=made.outlines,
    )


def find_records(name: str, data_dir: str | Path) -> list[isic.ImageRecord]:
    """List a real data set's files without decoding them: says at once whether the folder is what it should be."""
    if name not in READERS:
        raise CourseError(f"there is no data set '{name}'; choose one of: synthetic, {', '.join(READERS)}")
    return READERS[name](data_dir)


def split_by_group(groups: np.ndarray, shares: tuple[float, float] = (0.65, 0.15)) -> np.ndarray:
    """Part of each image, "train" (65 %), "validation" (15 %) or "test" (the rest): str (n,). Lesson 01.

    `shares` are those of train and validation.

    A group's own name decides, by its hash: all images of one lesion land together, and adding images moves no
    other. No random number is drawn, so that every machine and every run has the same test part.
    """
    place = np.array([_unit_hash(group) for group in groups])
    return np.where(place < shares[0], "train", np.where(place < sum(shares), "validation", "test"))


def groups_on_both_sides(groups: np.ndarray, parts: np.ndarray) -> int:
    """How many groups have images in more than one part: 0 in a fair split. Lesson 01."""
    pairs = pd.DataFrame({"group": groups, "part": parts}).drop_duplicates()
    return int((pairs["group"].value_counts() > 1).sum())


def resize_images(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 (n, h, w, 3) to uint8 (n, size, size, 3) by area averaging (bilinear where a picture must grow)."""
    return np.stack([resize_image(image, size) for image in images]) if len(images) else _empty(size, 3, np.uint8)


def resize_masks(masks: np.ndarray, size: int) -> np.ndarray:
    """bool (n, h, w) to bool (n, size, size): a pixel is lesion where at least half of its area is."""
    return np.stack([resize_mask(mask, size) for mask in masks]) if len(masks) else _empty(size, 1, bool)[..., 0]


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """One picture (h, w, 3) to (size, size, 3), uint8. The aspect ratio is not kept: 4:3 photographs get narrower."""
    shrink = min(image.shape[:2]) >= size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)


def resize_mask(mask: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """One bool mask (h, w) to (size, size), or to a (height, width)."""
    height, width = (size, size) if isinstance(size, int) else size
    shrink = mask.shape[0] >= height and mask.shape[1] >= width
    share = cv2.resize(
        mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    )
    return share >= 0.5


def _empty(size: int, channels: int, dtype: type) -> np.ndarray:
    return np.empty((0, size, size, channels), dtype)


def _unit_hash(text: str) -> float:
    """A text's place in [0, 1), evenly spread and the same everywhere (Python's own `hash` changes per process)."""
    return int.from_bytes(hashlib.sha256(str(text).encode()).digest()[:8], "big") / 2**64


def _read_records(name: str, records: list[isic.ImageRecord]) -> LesionDataset:
    """Decode all images and masks in parallel; an unusable one is left out with its reason."""

    def read(record: isic.ImageRecord) -> tuple[np.ndarray, np.ndarray] | str:
        try:
            image = read_image(record.image)
            if not record.mask.is_file():
                return f"its mask {record.mask.name} is missing"
            mask = read_mask(record.mask)
            if mask.shape != image.shape[:2]:
                return f"its mask is {mask.shape[1]}×{mask.shape[0]}, the image {image.shape[1]}×{image.shape[0]}"
            if not mask.any():
                return "its mask has no pixel above 128 (masks are 0 and 255)"
            return resize_image(image, WORKING_SIZE), resize_mask(mask, WORKING_SIZE)
        except CourseError as error:
            return str(error)

    images = np.empty((len(records), WORKING_SIZE, WORKING_SIZE, 3), np.uint8)
    masks = np.empty((len(records), WORKING_SIZE, WORKING_SIZE), bool)
    kept, left_out = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = progress(pool.map(read, records), f"reading {name}", len(records), "image")
        for record, pixels in zip(records, decoded, strict=True):
            if isinstance(pixels, str):
                left_out.append((record.image.name, pixels))
            else:
                images[len(kept)], masks[len(kept)] = pixels
                kept.append(record)
    if len(kept) < LEAST_USABLE * len(records):
        first = "; ".join(f"{file}: {reason}" for file, reason in left_out[:3])
        raise CourseError(f"{len(left_out)} of {len(records)} images cannot be used, more than one in ten: {first}")
    groups = np.array([record.group for record in kept])
    parts = split_by_group(groups)
    has_own_parts = any(record.part for record in kept)
    if has_own_parts:
        # The data set names its own test part; only the validation part is ours to choose.
        parts = np.array(
            [
                "test" if record.part == "test" else "validation" if part == "validation" else "train"
                for record, part in zip(kept, parts, strict=True)
            ]
        )
    absent = [part for part in PARTS if part not in parts]
    if absent:
        own_test = has_own_parts and absent == ["test"]
        advice = "put some into test/benign and test/malignant" if own_test else "add more"
        raise CourseError(f"of {len(kept)} images, none falls into the {absent[0]} part: {advice}")
    table = pd.DataFrame(
        {"image_id": [r.image_id for r in kept], "lesion_id": groups, "label": [r.label for r in kept]}
    )
    return LesionDataset(
        name=name,
        images=images[: len(kept)],
        masks=masks[: len(kept)],
        labels=table["label"].to_numpy(dtype=int),
        image_ids=table["image_id"].to_numpy(dtype=str),
        groups=groups,
        parts=parts,
        table=table,
        left_out=tuple(left_out),
        sources=tuple(record.image for record in kept),
    )


__all__ = [
    "BENIGN", "CLASS_NAMES", "MALIGNANT", "PARTS", "UNKNOWN", "WORKING_SIZE", "LesionDataset", "find_records",
    "from_synthetic", "groups_on_both_sides", "load_dataset", "resize_image", "resize_images", "resize_mask",
    "resize_masks", "split_by_group",
]  # fmt: skip
