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
    found = list_images(images)
    groups = _joined_groups(
        {
            path.stem: [table.get(path.stem, {}).get(name, "") for name in ("lesion_id", "duplicate_group")]
            for path in found
        }
    )
    records = []
    for image in found:
        row = table.get(image.stem, {})
        mask = masks / f"{image.stem}_segmentation.png"
        records.append(
            ImageRecord(
                image_id=image.stem,
                image=image,
                mask=mask,
                label={"Benign": BENIGN, "Malignant": MALIGNANT}.get(row.get("diagnosis_1", ""), UNKNOWN),
                group=groups[image.stem],
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
                # A name says nothing about the lesion: benign/1.jpg and malignant/1.jpg are two.
                image_id = f"{part}/{name}/{image.stem}"
                mask = _mask_of(image, mask_folder, part, name)
                records.append(ImageRecord(image_id, image, mask, label, image_id, part))
    if not records:
        raise CourseError(
            f"{root} holds no images as train/benign, train/malignant, test/benign, test/malignant: put them so"
        )
    if not any(record.mask.is_file() for record in records):
        raise CourseError(
            f"{root} holds no masks: lesson 02 learns from masks, so put NAME_segmentation.png beside each NAME.jpg "
            f"(or into {root / 'masks'}); to classify pictures without masks, use `skinlib predict`"
        )
    owners: dict[Path, Path] = {}
    for record in records:
        other = owners.setdefault(record.mask, record.image)
        if other != record.image and record.mask.is_file():
            raise CourseError(
                f"{record.mask.name} would be the mask of both {other} and {record.image}: "
                "put each mask beside its image, or give the images different names"
            )
    return records


def _mask_of(image: Path, mask_folder: Path | None, part: str, name: str) -> Path:
    """Where the mask of one image in a folder of one's own lies; a path that need not exist."""
    file = f"{image.stem}_segmentation.png"
    places = [image.with_name(file)]
    if mask_folder:
        places += [mask_folder / part / name / file, mask_folder / file]
    return next((place for place in places if place.is_file()), places[0])


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
    return {row["isic_id"]: row for row in table.fillna("").to_dict("records")}


def _joined_groups(keys_of: dict[str, list[str]]) -> dict[str, str]:
    """Group of each image: images that share any key, directly or through others, share the group.

    An image may name its lesion and its near-duplicates apart; both must keep it on one side of a split. The group
    is called by the first of its keys in the alphabet, or by the image's own name where it has none.
    """
    leader: dict[str, str] = {}

    def leader_of(key: str) -> str:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    given = {image: [key for key in keys if key] or [image] for image, keys in keys_of.items()}
    for keys in given.values():
        first, *others = sorted({leader_of(key) for key in keys})
        for other in others:
            leader[other] = first
    return {image: leader_of(keys[0]) for image, keys in given.items()}
