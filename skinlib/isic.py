"""The real data sets: how their folders are laid out and what their tables say. Pixels are read in `dataset`.

Official layout of ISIC 2018 Task 1 (https://challenge.isic-archive.com/data):
    ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg
    ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png
    metadata.csv  with the columns isic_id and diagnosis_1 (Benign, Indeterminate, Malignant), from the ISIC Archive
The challenge archive itself holds no benign/malignant labels: they come from the ISIC Archive's metadata.
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from skinlib.files import CourseError, list_images

BENIGN, MALIGNANT, UNKNOWN = 0, 1, -1
CLASS_NAMES = ("benign", "malignant")

ISIC2018_IMAGES = "ISIC2018_Task1-2_Training_Input"
ISIC2018_MASKS = "ISIC2018_Task1_Training_GroundTruth"


class ImageRecord(NamedTuple):
    """One image as its data set lists it; `mask` is None where nobody drew one, `part` is "" where none is given."""

    image_id: str
    image: Path
    mask: Path | None
    label: int
    group: str
    part: str = ""


def isic2018_records(data_dir: str | Path) -> list[ImageRecord]:
    """List ISIC 2018 Task 1 in its official folders. Images of one `lesion_id` or `duplicate_group` share a group."""
    root = _existing_folder(data_dir, "isic2018")
    images, masks = root / ISIC2018_IMAGES, root / ISIC2018_MASKS
    for folder in (images, masks):
        if not folder.is_dir():
            raise CourseError(
                f"{root} has no folder {folder.name}: unpack the ISIC 2018 Task 1 archives there "
                f"(expected: {ISIC2018_IMAGES}/, {ISIC2018_MASKS}/ and a table metadata.csv)"
            )
    table = _read_labels(root)
    records = []
    for image in list_images(images):
        row = table.get(image.stem, {})
        mask = masks / f"{image.stem}_segmentation.png"
        records.append(
            ImageRecord(
                image_id=image.stem,
                image=image,
                mask=mask,
                label={"Benign": BENIGN, "Malignant": MALIGNANT}.get(row.get("diagnosis_1", ""), UNKNOWN),
                group=row.get("lesion_id") or row.get("duplicate_group") or image.stem,
            )
        )
    if not records:
        raise CourseError(f"{images} holds no .jpg or .png image: unpack the ISIC 2018 Task 1 images there")
    if not any(record.mask.is_file() for record in records):
        raise CourseError(f"{masks} holds no mask named like {records[0].mask.name}: unpack the ground truth there")
    return records


def folder_records(data_dir: str | Path) -> list[ImageRecord]:
    """List a folder of one's own: train|test/benign|malignant/*.jpg|png, masks beside as NAME_segmentation.png.

    A mask may also stand in a folder `masks/` under `data_dir`. Names of folders may be in any case.
    """
    root = _existing_folder(data_dir, "folder")
    folders = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
    mask_folder = folders.get("masks")
    records = []
    for part in ("train", "test"):
        classes = {p.name.lower(): p for p in folders[part].iterdir() if p.is_dir()} if part in folders else {}
        for label, name in enumerate(CLASS_NAMES):
            for image in list_images(classes[name]) if name in classes else []:
                if image.stem.endswith("_segmentation"):
                    continue
                beside = image.with_name(f"{image.stem}_segmentation.png")
                apart = mask_folder / beside.name if mask_folder else beside
                records.append(
                    ImageRecord(f"{part}/{name}/{image.stem}", image, beside if beside.is_file() else apart, label,
                                image.stem, part)
                )  # fmt: skip
    if not records:
        raise CourseError(
            f"{root} holds no images as train/benign, train/malignant, test/benign, test/malignant: put them so"
        )
    if not any(record.mask.is_file() for record in records):
        raise CourseError(
            f"{root} holds no masks: lesson 02 learns from masks, so put NAME_segmentation.png beside each NAME.jpg "
            f"(or into {root / 'masks'}); to classify pictures without masks, use `skinlib predict`"
        )
    return records


def _existing_folder(data_dir: str | Path, dataset: str) -> Path:
    root = Path(data_dir)
    if not root.is_dir():
        raise CourseError(f"the data folder {root} does not exist: name the one that holds {dataset} with --data-dir")
    return root


def _read_labels(root: Path) -> dict[str, dict[str, str]]:
    path = root / "metadata.csv"
    if not path.is_file():
        raise CourseError(f"{path} is missing: it is the table of labels, with the columns isic_id and diagnosis_1")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", sep=None, engine="python")
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise CourseError(f"{path} is not a readable CSV table: {' '.join(str(error).split())}") from None
    missing = [name for name in ("isic_id", "diagnosis_1") if name not in table]
    if missing:
        raise CourseError(f"{path} has no column {' or '.join(missing)}; it has: {', '.join(map(str, table.columns))}")
    return {row["isic_id"]: row for row in table.to_dict("records")}
