"""LesionDataset: pictures, masks, labels and groups in one object, read from any of the data sets, and split fairly.

Explored in lesson 01, used in all of them.
"""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from skinlib import isic, synthetic
from skinlib.duplicates import audit, near_duplicates, signatures
from skinlib.files import CourseError, digest
from skinlib.isic import BENIGN, CLASS_NAMES, MALIGNANT, UNKNOWN
from skinlib.pixels import resize_image, resize_mask
from skinlib.store import load_pixels

READERS = {
    "isic2016": isic.isic2016_records,
    "isic2018": isic.isic2018_records,
    "ham10000": isic.ham10000_records,
    "folder": isic.folder_records,
}
PARTS = ("train", "validation", "test")
FOLDS = 5  # ways in which `folds` makes a fifth of real data the test part
WORKING_SIZE = 192  # a little over what the two networks need (128 and 180), so that both views shrink
QUICK_COUNT = 160  # images of a `quick` run: enough to try every cell, too few to learn much
LEAST_USABLE = 0.9  # a run goes on only if this share of the images can be used

ABOUT = {
    "synthetic": "pictures painted by a program: every outline and attribute is known, and no patient is in them",
    "isic2016": "real dermoscopic photographs of ISIC 2016; a person drew or approved each mask; "
    "labels and test part are the challenge's own",
    "isic2018": "real dermoscopic photographs of ISIC 2018 Task 1; a person drew or approved each mask; "
    "the labels come from the ISIC Archive",
    "ham10000": "real dermoscopic photographs of HAM10000, several of many a lesion; the label is benign or malignant "
    "by the diagnosis group",
    "folder": "your own pictures and masks",
}


@dataclasses.dataclass(frozen=True)
class LesionDataset:
    """n pictures with all that is known about each.

    images       uint8 RGB (n, s, s, 3), values 0–255; s is WORKING_SIZE where `load_dataset` made it
    masks        bool (n, s, s), True inside the lesion
    labels       int (n,), 0 benign, 1 malignant, -1 not known
    image_ids    str (n,)
    groups       str (n,): images of one lesion, of one patient, or of one photograph that was published twice share it
    parts        str (n,), "train", "validation" or "test": one group never stands in two of them
    table        one row per image with whatever else the data set tells, diagnosis among it ("" where nobody has told);
                 of the real ones, in the columns `isic.FACTS`
    left_out     file name and reason for each image that is not used; remarks: the same for what is used, but odd
    sources      the image files, where there are such
    has_mask     bool (n,), False where nobody drew a mask (and `masks` is all False)
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
    remarks: tuple[tuple[str, str], ...] = ()
    has_mask: np.ndarray | None = None  # whoever does not say otherwise has a mask for every image

    def __post_init__(self) -> None:
        if self.has_mask is None:
            object.__setattr__(self, "has_mask", np.ones(len(self.images), bool))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def about(self) -> str:
        """What this data set is, in one clause that a lesson can print."""
        return ABOUT[self.name]

    @property
    def label_counts(self) -> dict[str, int]:
        """How many images are "benign", "malignant" and "not known" (indeterminate, contradictory or without label)."""
        names = dict(zip((BENIGN, MALIGNANT, UNKNOWN), (*CLASS_NAMES, "not known"), strict=True))
        return {name: int((self.labels == label).sum()) for label, name in names.items()}

    @property
    def identity(self) -> dict[str, str]:
        """What a model trained on this data writes down, so that no other data's model is taken for it."""
        content = digest(self.images, self.masks, self.labels, self.image_ids, self.parts)
        return {"dataset": self.name, "content": content}

    def select(self, chosen: np.ndarray) -> "LesionDataset":
        """The images at the given positions (or where a bool array is True), in that order."""
        chosen = np.asarray(chosen)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        fields = ("images", "masks", "labels", "image_ids", "groups", "parts", "has_mask")
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


def load_dataset(
    name: str,
    data_dir: str | Path,
    quick: bool = False,
    size: int = WORKING_SIZE,
    masks_needed: bool = True,
) -> LesionDataset:
    """Read a data set into memory and split it. Raises CourseError with the way out.

    name            "synthetic" (made on first use, kept under data_dir/cache) or one of `READERS`, whose pixels are
                    decoded on first use and kept in the user's cache folder (`store`)
    quick           take a small share, to try a lesson out
    size            width and height of the images, in pixels
    masks_needed    leave out images without a mask; if False, `has_mask` tells them
    """
    if not 16 <= size <= 2048:
        raise CourseError(f"images can be 16 to 2048 pixels wide, not {size}")
    if name == "synthetic":
        count = QUICK_COUNT if quick else synthetic.DEFAULT_COUNT
        return from_synthetic(synthetic.load(data_dir, count, size))
    records = find_records(name, data_dir, masks_needed)
    left_out = [(record.image.name, record.set_aside) for record in records if record.set_aside]
    records = [record for record in records if not record.set_aside]
    if quick:
        # A hash of the id chooses, so that a quick run sees every kind of image and always the same ones. It must
        # not be the split's own hash, or all of them would fall into one part.
        order = np.argsort([_unit_hash(f"quick {record.image_id}") for record in records], kind="stable")
        records = [records[i] for i in sorted(order[:QUICK_COUNT])]
    read = _read_records(name, Path(data_dir), records, quick, size, masks_needed)
    return dataclasses.replace(read, left_out=(*left_out, *read.left_out))


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


def find_records(name: str, data_dir: str | Path, masks_needed: bool = True) -> list[isic.ImageRecord]:
    """List a real data set's files without decoding them: says at once whether the folder is what it should be.

    Raises CourseError with the way out, also if `masks_needed` and there are none at all.
    """
    if name not in READERS:
        raise CourseError(f"there is no data set '{name}'; choose one of: synthetic, {', '.join(READERS)}")
    return READERS[name](data_dir, masks_needed)


def split_by_group(groups: np.ndarray, shares: tuple[float, float] = (0.65, 0.15)) -> np.ndarray:
    """Part of each image, "train" (65 %), "validation" (15 %) or "test" (the rest): str (n,). Lesson 01.

    `shares` are those of train and validation.

    A group's own name decides, by its hash: all images of one lesion land together, and adding images moves no
    other. No random number is drawn, so that every machine and every run has the same test part.
    """
    place = np.array([_unit_hash(group) for group in groups])
    return np.where(place < shares[0], "train", np.where(place < sum(shares), "validation", "test"))


def folds(data: LesionDataset, fold: int) -> LesionDataset:
    """The data in new parts: fold number `fold` of 0 to 4 is the test part, a tenth of the rest validates.

    A group's name decides by its hash, as in `split_by_group`: over all folds every image is tested once, and no
    group stands in two parts. Raises CourseError for a fold that there is not, and where a part stays empty.
    """
    if not 0 <= fold < FOLDS:
        raise CourseError(f"there is no fold {fold}: they are numbered 0 to {FOLDS - 1}")
    place = np.array([int(FOLDS * _unit_hash(f"fold {group}")) for group in data.groups])
    validates = np.array([_unit_hash(f"validation {group}") < 0.1 for group in data.groups])
    parts = np.where(place == fold, "test", np.where(validates, "validation", "train"))
    absent = [part for part in PARTS if part not in parts]
    if absent:
        raise CourseError(f"{len(data)} images are too few for {FOLDS} folds: none falls into the {absent[0]} part")
    return dataclasses.replace(data, parts=parts)


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


def _empty(size: int, channels: int, dtype: type) -> np.ndarray:
    return np.empty((0, size, size, channels), dtype)


def _unit_hash(text: str) -> float:
    """A text's place in [0, 1), evenly spread and the same everywhere (Python's own `hash` changes per process)."""
    return int.from_bytes(hashlib.sha256(str(text).encode()).digest()[:8], "big") / 2**64


def _read_records(
    name: str, root: Path, records: list[isic.ImageRecord], quick: bool, size: int, masks_needed: bool
) -> LesionDataset:
    """Decode all images and masks; an unusable one is left out with its reason."""
    wanted = [record for record in records if record.mask or not masks_needed]
    left_out = [
        (record.image.name, f"its mask {record.image.stem}_segmentation.png is missing")
        for record in records
        if masks_needed and not record.mask
    ]
    # Entries of the cache stand side by side for what is read side by side.
    choice = "quick" * quick + "unmasked" * any(record.mask is None for record in wanted)
    pairs = [(record.image, record.mask) for record in wanted]
    pixels = load_pixels(name, root, pairs, size, choice or "whole", {"one-photograph-1": _one_photograph})
    left_out += [(wanted[position].image.name, reason) for position, reason in pixels.left_out]
    if len(pixels.kept) < LEAST_USABLE * len(records):
        first = "; ".join(f"{file}: {reason}" for file, reason in left_out[:3])
        raise CourseError(f"{len(left_out)} of {len(records)} images cannot be used, more than one in ten: {first}")
    kept = [wanted[position] for position in pixels.kept]
    remarks = [(record.image.name, remark) for record in kept for remark in record.remarks]
    remarks += [(wanted[position].image.name, remark) for position, remark in pixels.remarks]
    groups = _joined(np.array([record.group for record in kept]), pixels.extra["one-photograph-1"])
    parts = _parts(kept, groups)
    table = pd.DataFrame(
        {
            "image_id": [r.image_id for r in kept],
            "lesion_id": [r.lesion or r.group for r in kept],
            "label": [r.label for r in kept],
        }
        | {fact: [r.facts[i] for r in kept] for i, fact in enumerate(isic.FACTS)}
    )
    table["age"] = pd.to_numeric(table["age"], errors="coerce")  # years; NaN where it is not told
    data = LesionDataset(
        name=name,
        images=pixels.images,
        masks=pixels.masks,
        labels=table["label"].to_numpy(dtype=int),
        image_ids=table["image_id"].to_numpy(dtype=str),
        groups=groups,
        parts=parts,
        table=table,
        left_out=tuple(left_out),
        sources=tuple(record.image for record in kept),
        remarks=tuple(remarks),
        has_mask=np.array([record.mask is not None for record in kept]),
    )
    has_own_parts = any(record.part for record in kept)
    data = _without_copies_of_the_test_part(data) if has_own_parts else data
    absent = [part for part in PARTS if part not in data.parts]
    if absent:
        own_test = has_own_parts and absent == ["test"]
        advice = "put some into test/benign and test/malignant" if own_test else "add more"
        groups = f"{len(data)} images in {len(set(data.groups))} groups"
        raise CourseError(f"of {groups}, none falls into the {absent[0]} part: {advice}")
    return data


def _one_photograph(images: np.ndarray) -> np.ndarray:
    """Pairs of positions, int (m, 2), that join all pictures of which one is a copy of the other."""
    made = signatures(images)
    # Equal ones are joined in a chain first: a thousand copies of one picture would make half a million pairs.
    different, first, place = np.unique(made, axis=0, return_index=True, return_inverse=True)
    chain = np.column_stack([first[place.ravel()], np.arange(len(made))])
    near = near_duplicates(different, turned=True)
    return np.concatenate([chain[chain[:, 0] < chain[:, 1]], np.column_stack([first[near.first], first[near.second]])])


def _joined(groups: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The groups, with those made one that a pair of positions joins."""
    keys = {position: [group] for position, group in enumerate(groups)}
    for first, second in pairs.tolist():
        keys[second].append(groups[first])
    joined = isic.joined_groups(keys)
    return np.array([joined[position] for position in range(len(groups))])


def _parts(records: list[isic.ImageRecord], groups: np.ndarray) -> np.ndarray:
    """The part of each image; where the data set names its own test part, only the validation part is ours."""
    parts = split_by_group(groups)
    if any(record.part for record in records):
        parts = np.array(
            [
                "test" if record.part == "test" else "validation" if part == "validation" else "train"
                for record, part in zip(records, parts, strict=True)
            ]
        )
    return parts


def _without_copies_of_the_test_part(data: LesionDataset) -> LesionDataset:
    """A data set's own test part stays as it is; what shows the same elsewhere is left out, and named."""
    copies = (data.parts != "test") & np.isin(data.groups, data.groups[data.parts == "test"])
    left_out = [(data.sources[i].name, isic.SHOWS_A_TEST_IMAGE) for i in np.flatnonzero(copies)]
    return dataclasses.replace(data.select(~copies), left_out=(*data.left_out, *left_out))


__all__ = [
    "BENIGN", "CLASS_NAMES", "FOLDS", "MALIGNANT", "PARTS", "UNKNOWN", "WORKING_SIZE", "LesionDataset", "audit",
    "find_records", "folds", "from_synthetic", "groups_on_both_sides", "load_dataset", "resize_image", "resize_images",
    "resize_mask", "resize_masks", "split_by_group",
]  # fmt: skip
