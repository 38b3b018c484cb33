"""The real data sets: how their folders are laid out and what their tables say. Pixels are read in `pixels`.

Official layouts (https://challenge.isic-archive.com/data, https://doi.org/10.7910/DVN/DBW86T); names in any case:
    isic2016   ISBI2016_ISIC_Part1_Training_Data/ISIC_0000000.jpg, ISBI2016_ISIC_Part1_Training_GroundTruth/
               ISIC_0000000_Segmentation.png, ISBI2016_ISIC_Part3_Training_GroundTruth.csv; the same with Test
    isic2018   ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg, ISIC2018_Task1_Training_GroundTruth/
               ISIC_0000000_segmentation.png, metadata.csv
    ham10000   HAM10000_images/ISIC_0024306.jpg (or HAM10000_images_part_1/ and _part_2/), HAM10000_metadata.csv,
               HAM10000_segmentations_lesion_tschandl/ISIC_0024306_segmentation.png
The archive of ISIC 2018 Task 1 holds no labels: metadata.csv comes from the ISIC Archive, with the columns isic_id and
diagnosis_1 (Benign, Indeterminate, Malignant). It may stand beside the other two as well, and tells whose lesion an
image shows and under which licence.
"""

import io
import os
import warnings
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from scipy.cluster.hierarchy import DisjointSet

from skinlib.files import IMAGE_SUFFIXES, CourseError

BENIGN, MALIGNANT, UNKNOWN = 0, 1, -1
CLASS_NAMES = ("benign", "malignant")

ISIC2016_PARTS = {"train": "Training", "test": "Test"}
ISIC2018_IMAGES = "ISIC2018_Task1-2_Training_Input"
ISIC2018_MASKS = "ISIC2018_Task1_Training_GroundTruth"
HAM10000_IMAGES = ("HAM10000_images", "HAM10000_images_part_1", "HAM10000_images_part_2")
HAM10000_MASKS = "HAM10000_segmentations_lesion_tschandl"
HAM10000_TABLES = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")

LABEL_WORDS = {"benign": BENIGN, "0": BENIGN, "0.0": BENIGN, "malignant": MALIGNANT, "1": MALIGNANT, "1.0": MALIGNANT}
HAM10000_LABELS = dict.fromkeys(("nv", "bkl", "df", "vasc"), BENIGN) | dict.fromkeys(("mel", "bcc", "akiec"), MALIGNANT)
GROUP_COLUMNS = ("lesion_id", "duplicate_group", "patient_id")
# What else a table may tell, under the name it has in `LesionDataset.table`, and the names it has in the tables.
FACTS = {
    "diagnosis": ("dx", "diagnosis", "diagnosis_3", "diagnosis_2"),
    "age": ("age", "age_approx"),
    "sex": ("sex",),
    "site": ("localization", "anatom_site_general", "site"),
    "confirmed": ("dx_type", "diagnosis_confirm_type"),
    "source": ("dataset", "source"),
    "licence": ("copyright_license", "licence", "license"),
    "attribution": ("attribution",),
}

SHOWS_A_TEST_IMAGE = "it shows what a test image shows (the lesion, the patient or a copy), and the test part stays"

Rows = dict[str, list[dict[str, str]]]


class ImageRecord(NamedTuple):
    """One image as its data set lists it.

    mask         None where nobody drew one
    group        the lesion (or patient, or set of near-duplicates) that it shows; part: "" where none is given
    lesion       the lesion's own name, or ""
    facts        what else the table tells, in the order of `FACTS`
    set_aside    why a usable image is not used, or ""
    remarks      what is odd about what the tables say of it
    """

    image_id: str
    image: Path
    mask: Path | None
    label: int
    group: str
    part: str = ""
    facts: tuple[str, ...] = ("",) * len(FACTS)
    set_aside: str = ""
    remarks: tuple[str, ...] = ()
    lesion: str = ""


def isic2016_records(data_dir: str | Path, masks_needed: bool = True) -> list[ImageRecord]:
    """List ISIC 2016 in its official folders, with its own test part.

    Where metadata.csv (isic_id, lesion_id, patient_id, duplicate_group) says that a training image shows what a test
    image shows, the training image is set aside.
    """
    root = _existing_folder(data_dir, "isic2016")
    table = _find(root, "metadata.csv")
    rows = _read_rows(table, ("isic_id",), ()) if table else {}
    records = []
    for part, word in ISIC2016_PARTS.items():
        images = _needed_folder(root, f"ISBI2016_ISIC_Part1_{word}_Data", "ISIC 2016 Part 1", is_folder=True)
        masks = f"ISBI2016_ISIC_Part1_{word}_GroundTruth"
        found = _masks_in(root, masks, "ISIC 2016 Part 1", masks_needed)
        labels = _needed_folder(root, f"ISBI2016_ISIC_Part3_{word}_GroundTruth.csv", "ISIC 2016 Part 3")
        said = _read_rows(labels, ("isic_id",), (), header=("isic_id", "label"))
        records += _records([images], found, said, "label", LABEL_WORDS.get, labels.name, rows, part)
    _check_masks(records, "ISBI2016_ISIC_Part1_Training_GroundTruth", "the ground truth", masks_needed)
    records = _grouped(records, rows)
    tested = {record.group for record in records if record.part == "test"}
    return [
        record._replace(set_aside=record.set_aside or SHOWS_A_TEST_IMAGE)
        if record.part == "train" and record.group in tested
        else record
        for record in records
    ]


def isic2018_records(data_dir: str | Path, masks_needed: bool = True) -> list[ImageRecord]:
    """List ISIC 2018 Task 1 in its official folders.

    Images of one `lesion_id`, `duplicate_group` or `patient_id` share a group.
    """
    root = _existing_folder(data_dir, "isic2018")
    images = _needed_folder(root, ISIC2018_IMAGES, "ISIC 2018 Task 1", is_folder=True)
    masks = _masks_in(root, ISIC2018_MASKS, "ISIC 2018 Task 1", masks_needed)
    table = _find(root, "metadata.csv")
    if table is None:
        raise CourseError(
            f"{root / 'metadata.csv'} is missing: it is the table of labels, with the columns isic_id and diagnosis_1"
        )
    rows = _read_rows(table, ("isic_id",), ("diagnosis_1",))
    records = _records([images], masks, rows, "diagnosis_1", LABEL_WORDS.get, table.name, rows)
    _check_masks(records, ISIC2018_MASKS, "the ground truth", masks_needed)
    return _grouped(records, rows)


def ham10000_records(data_dir: str | Path, masks_needed: bool = True) -> list[ImageRecord]:
    """List HAM10000: 10,015 images of 7,470 lesions; melanoma, basal-cell carcinoma and actinic keratosis (with
    Bowen's disease) are malignant, as Tschandl, Rosendahl, Kittler, Sci. Data 5, 180161 (2018) group them."""
    root = _existing_folder(data_dir, "ham10000")
    folders = [folder for name in HAM10000_IMAGES if (folder := _find(root, name)) and folder.is_dir()]
    if not folders:
        raise CourseError(
            f"{root} has no folder HAM10000_images (nor HAM10000_images_part_1, HAM10000_images_part_2): unpack the "
            "HAM10000 archives there"
        )
    tables = [table for name in HAM10000_TABLES if (table := _find(root, name)) and table.is_file()]
    if not tables:
        raise CourseError(
            f"{root / HAM10000_TABLES[0]} is missing: it is the table of diagnoses, with the columns image_id, "
            "lesion_id and dx"
        )
    labels = _read_rows(tables[0], ("image_id", "isic_id"), ("lesion_id", "dx"))
    more = _find(root, "metadata.csv")
    told = _read_rows(more, ("isic_id", "image_id"), ()) if more else {}
    rows = {image_id: of_image + told.get(image_id, []) for image_id, of_image in labels.items()}
    masks = _masks_in(root, HAM10000_MASKS, "HAM10000", masks_needed)
    records = _records(folders, masks, labels, "dx", HAM10000_LABELS.get, tables[0].name, rows)
    _check_masks(records, HAM10000_MASKS, f"{HAM10000_MASKS}.zip", masks_needed)
    return _grouped(records, rows)


def folder_records(data_dir: str | Path, masks_needed: bool = True) -> list[ImageRecord]:
    """List a folder of one's own: train|test/benign|malignant/*.jpg|png, masks beside as NAME_segmentation.png.

    A mask may also stand in a folder `masks/` under `data_dir`. Names of folders may be in any case.
    """
    root = _existing_folder(data_dir, "folder")
    mask_folder = _find(root, "masks")
    apart = _mask_files(mask_folder) if mask_folder and mask_folder.is_dir() else {}
    records = []
    for part in ("train", "test"):
        for label, name in enumerate(CLASS_NAMES):
            folder = _find(root, part, name)
            if folder is None or not folder.is_dir():
                continue
            beside = _mask_files(folder)
            for image, set_aside in _images_in([folder]):
                # A name says nothing about the lesion: benign/1.jpg and malignant/1.jpg are two.
                image_id, stem = f"{part}/{name}/{image.stem}", image.stem.lower()
                places = (beside.get(stem), apart.get(f"{part}/{name}/{stem}"), apart.get(stem))
                mask = next((place for place in places if place), None)
                records.append(ImageRecord(image_id, image, mask, label, image_id, part, set_aside=set_aside))
    if not records:
        raise CourseError(
            f"{root} holds no images as train/benign, train/malignant, test/benign, test/malignant: put them so"
        )
    if masks_needed and not any(record.mask for record in records):
        raise CourseError(
            f"{root} holds no masks: lesson 02 learns from masks, so put NAME_segmentation.png beside each NAME.jpg "
            f"(or into {root / 'masks'}); to classify pictures without masks, use `skinlib predict`"
        )
    owners: dict[Path, Path] = {}
    for record in records:
        other = owners.setdefault(record.mask, record.image) if record.mask and not record.set_aside else record.image
        if other != record.image:
            raise CourseError(
                f"{record.mask.name} would be the mask of both {other} and {record.image}: "
                "put each mask beside its image, or give the images different names"
            )
    return records


# -- folders ---------------------------------------------------------------------------------------------------------


def _existing_folder(data_dir: str | Path, dataset: str) -> Path:
    root = Path(data_dir)
    if not root.is_dir():
        raise CourseError(f"the data folder {root} does not exist: name the one that holds {dataset} with --data-dir")
    return root


def _find(folder: Path, *names: str) -> Path | None:
    """The file or folder of that name, in whatever case it is written; with several names, one inside the other."""
    for name in names:
        if not folder.is_dir():
            return None
        with os.scandir(folder) as entries:
            found = sorted(entry.name for entry in entries if entry.name.lower() == name.lower())
        if not found:
            return None
        folder = folder / (name if name in found else found[0])
    return folder


def _needed_folder(root: Path, name: str, archives: str, is_folder: bool = False) -> Path:
    found = _find(root, name)
    if found is None or found.is_dir() != is_folder:
        kind = "folder" if is_folder else "file"
        raise CourseError(f"{root} has no {kind} {name}: unpack the {archives} archives there, or fetch them again")
    return found


def _images_in(folders: list[Path]) -> list[tuple[Path, str]]:
    """Image files by name, each with "" or why it is set aside; masks, superpixels and hidden files are left out.

    Of two files with one image's name the first is taken. A copy of it in another folder is not mentioned.
    """
    entries = []
    for folder in folders:
        with os.scandir(folder) as listed:
            entries += [entry for entry in listed if _is_image(entry.name)]
    found, first = [], {}
    for entry in sorted(entries, key=lambda entry: entry.name):
        path = Path(entry.path)
        other = first.setdefault(path.stem.lower(), entry)
        if other is entry:
            found.append((path, ""))
        elif other.name != entry.name or other.stat().st_size != entry.stat().st_size:
            where = f" in {Path(other.path).parent.name}" if other.name == entry.name else ""
            found.append((path, f"{other.name}{where} has the same image id, and is used"))
    return found


def _is_image(name: str) -> bool:
    stem, suffix = os.path.splitext(name.lower())  # noqa: PTH122 (asked of every file of a folder; a Path is slow)
    return suffix in IMAGE_SUFFIXES and not stem.endswith(("_segmentation", "_superpixels")) and name[0] != "."


def _masks_in(root: Path, name: str, archives: str, needed: bool) -> dict[str, Path]:
    """The masks in a folder of that name. Raises CourseError if it is not there though masks are needed."""
    folder = _find(root, name)
    if folder is None and not needed:
        return {}
    return _mask_files(_needed_folder(root, name, archives, is_folder=True) if folder is None else folder)


def _mask_files(folder: Path) -> dict[str, Path]:
    """NAME_segmentation.png in a folder and the folders in it: "name", or "folder/name", in small letters, to file."""
    masks = {}
    for place, folders, files in os.walk(folder):
        # A zip made on a Mac carries a second file for each, which is no picture.
        folders[:] = sorted(name for name in folders if name.lower() != "__macosx" and not name.startswith("."))
        inside = Path(place).relative_to(folder).as_posix().lower()
        prefix = "" if inside == "." else f"{inside}/"
        for file in sorted(files):
            stem, suffix = os.path.splitext(file.lower())  # noqa: PTH122
            if suffix in IMAGE_SUFFIXES and stem.endswith("_segmentation") and not file.startswith("."):
                masks.setdefault(prefix + stem.removesuffix("_segmentation"), Path(place, file))
    return masks


def _check_masks(records: list[ImageRecord], folder: str, archive: str, needed: bool) -> None:
    if needed and not any(record.mask for record in records):
        example = f"{records[0].image.stem}_segmentation.png"
        raise CourseError(f"{folder} holds no mask named like {example}: unpack {archive} there")


# -- tables ----------------------------------------------------------------------------------------------------------


def _read_rows(
    path: Path, id_columns: tuple[str, ...], needed: tuple[str, ...], header: tuple[str, ...] | None = None
) -> Rows:
    """A table's rows by image id in small letters; an id may have several. Column names are taken in small letters.

    id_columns    the names that the column of ids may have; needed: the columns that must be there too
    header        the names of the columns, for a table that does not begin with them
    Raises CourseError, in one line, for what is no such table.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CourseError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from None
    try:
        # Spreadsheets write "Unicode text" as UTF-16, with a mark at the beginning.
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if text.lower().startswith("sep="):  # a line for the spreadsheet
        text = text.partition("\n")[2]
    first_line = text.partition("\n")[0]
    delimiter = max(",;\t", key=first_line.count)
    names = {"names": list(header), "usecols": range(len(header))} if header else {}
    try:
        with warnings.catch_warnings():
            # Rows that end in a delimiter are one field too long; what has no column's name is not asked for.
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            table = pd.read_csv(
                io.StringIO(text), sep=delimiter, dtype=str, keep_default_na=False, index_col=False,
                header=None if header else 0, **names,
            ).fillna("")  # fmt: skip
    except (ValueError, pd.errors.ParserError) as error:
        raise CourseError(f"{path} is not a readable CSV table: {' '.join(str(error).split())}") from None
    table.columns = [str(name).strip().lower() for name in table.columns]
    table = table.loc[:, ~table.columns.duplicated()]
    id_column = next((name for name in id_columns if name in table), None)
    missing = [*([] if id_column else id_columns[:1]), *(name for name in needed if name not in table)]
    if missing:
        raise CourseError(f"{path} has no column {' or '.join(missing)}; it has: {', '.join(table.columns)}")
    rows: Rows = {}
    for row in table.to_dict("records"):
        row = {name: value.strip() for name, value in row.items()}
        rows.setdefault(row[id_column].lower().removesuffix(".jpg"), []).append(row)
    return rows


def official_labels(path: Path) -> dict[str, str]:
    """ "Benign" or "Malignant" by image id, of a table of the ISIC 2016 challenge or of HAM10000.

    Raises CourseError for what is no such table.
    """
    if "Part3" in path.name:
        rows, column, meaning = _read_rows(path, ("isic_id",), (), header=("isic_id", "label")), "label", LABEL_WORDS
    else:
        rows, column, meaning = _read_rows(path, ("image_id", "isic_id"), ("lesion_id", "dx")), "dx", HAM10000_LABELS
    labels = {key.upper(): _label_of(found, column, meaning.get, path.name)[0] for key, found in rows.items()}
    known = {key: CLASS_NAMES[label].capitalize() for key, label in labels.items() if label != UNKNOWN}
    if not known:
        raise CourseError(f"{path.name} has no row that says benign or malignant")
    return known


def metadata_rows(path: Path) -> dict[str, dict[str, str]]:
    """The first row of each image in a metadata.csv, by image id. Raises CourseError for what is no such table."""
    return {key.upper(): found[0] for key, found in _read_rows(path, ("isic_id",), ()).items()}


def _records(
    folders: list[Path],
    masks: dict[str, Path],
    label_rows: Rows,
    label_column: str,
    meaning: Callable[[str, int], int],
    table_name: str,
    fact_rows: Rows,
    part: str = "",
) -> list[ImageRecord]:
    """One record for each image in the folders, not yet grouped."""
    by_name = {key.rpartition("/")[2]: mask for key, mask in reversed(masks.items())}
    records = []
    for image, set_aside in _images_in(folders):
        key = image.stem.lower()
        label, remarks = _label_of(label_rows.get(key, []), label_column, meaning, table_name)
        facts = _facts_of(fact_rows.get(key, []))
        records.append(
            ImageRecord(image.stem, image, by_name.get(key), label, image.stem, part, facts, set_aside, remarks)
        )
    if not records:
        raise CourseError(f"{folders[0]} holds no .jpg or .png image: unpack the images there")
    if not any(record.image.stem.lower() in label_rows for record in records):
        raise CourseError(f"{table_name} has no row for any image in {folders[0]}, such as {records[0].image_id}")
    return records


def _label_of(
    rows: list[dict[str, str]], column: str, meaning: Callable[[str, int], int], table_name: str
) -> tuple[int, tuple[str, ...]]:
    """Benign, malignant or not known, and a remark where the table is silent or contradicts itself."""
    said = sorted({" ".join(row[column].split()) for row in rows} - {""}, key=str.lower)
    if not said:
        return UNKNOWN, (f"{table_name} gives no label for it",)
    labels = {meaning(word.lower(), UNKNOWN) for word in said}
    if len(labels) > 1:
        return UNKNOWN, (f"{table_name} contradicts itself ({', '.join(said)}): its label is taken as not known",)
    return labels.pop(), ()


def _facts_of(rows: list[dict[str, str]]) -> tuple[str, ...]:
    """What the rows of one image tell, in the order of `FACTS`: the first that says anything."""
    return tuple(next((row[name] for name in names for row in rows if row.get(name)), "") for names in FACTS.values())


def _grouped(records: list[ImageRecord], rows: Rows) -> list[ImageRecord]:
    """The records with the groups that the table's columns of `GROUP_COLUMNS` give them."""
    keys = {}
    # A table may call a set of near-duplicates by the name of one of its images.
    named = {row.get("duplicate_group", "") for of_image in rows.values() for row in of_image}
    for record in records:
        of_image = rows.get(record.image_id.lower(), [])
        keys[record.image_id] = [record.image_id] if record.image_id in named else []
        keys[record.image_id] += [
            # Lesions and duplicates are named alike in all tables; a patient's number may be that of a lesion.
            f"patient {row[name]}" if name == "patient_id" else row[name]
            for row in of_image
            for name in GROUP_COLUMNS
            if row.get(name)
        ]
    groups = joined_groups(keys)
    lesion_of = {
        key: next((row["lesion_id"] for row in found if row.get("lesion_id")), "") for key, found in rows.items()
    }
    return [
        record._replace(group=groups[record.image_id], lesion=lesion_of.get(record.image_id.lower(), ""))
        for record in records
    ]


def joined_groups(keys_of: dict[Hashable, list[str]]) -> dict[Hashable, str]:
    """Group of each image: images that share any key, directly or through others, share the group.

    An image may name its lesion and its near-duplicates apart; both must keep it on one side of a split. The group
    is called by the first of its keys in the alphabet, or by the image itself where it has none.
    """
    given = {image: [key for key in keys if key] or [image] for image, keys in keys_of.items()}
    sets = DisjointSet(key for keys in given.values() for key in keys)
    for first, *others in given.values():
        for other in others:
            sets.merge(first, other)
    name_of = {key: min(keys) for keys in sets.subsets() for key in keys}
    return {image: name_of[keys[0]] for image, keys in given.items()}
