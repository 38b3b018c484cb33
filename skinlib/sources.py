"""Where the real data sets come from, and `skinlib data`: fetched, verified, and laid out as `isic` reads them.

Each set in its official folders, with a table of labels and groups (metadata.csv), attribution.txt, the licences'
texts, and manifest.json, which says for every file where it came from, when, and by what it was verified. Interrupted
at any point, the same command goes on where it stopped. Addresses, sizes and checksums are those that public download
code states; the transfers themselves are made in `fetch`.
"""

import contextlib
import datetime
import hashlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin

import cv2
import filelock
import numpy as np
import pandas as pd

from skinlib import isic
from skinlib.fetch import (
    FetchError,
    HostFailed,
    NotThere,
    RemoteArchive,
    Web,
    checksum_of,
    download,
    fetch_each,
    has_checksum,
    is_member,
    members,
    need_space,
    opened_archive,
    unpack,
)
from skinlib.files import (
    CourseError,
    check_picture,
    decode_picture,
    list_images,
    read_image,
    write_bytes,
    write_image,
    write_json,
    write_text,
    written_whole,
)
from skinlib.progress import progress

API = "https://api.isic-archive.com/api/v2"
PAGE = 100  # images on a page of the API: its own upper limit
THUMBNAIL_BYTES = 20_000  # of one thumbnail, about
DOWNLOADS = ".downloads"  # archives on their way; gone when a set is complete
LOCK = ".lock"
FEW = 100  # images; with fewer, a part of the split may be empty
LICENCES = Path(__file__).parent / "licences"
LICENCE_FILES = {"CC-0": "CC0-1.0.txt", "CC-BY": "CC-BY-4.0.txt", "CC-BY-NC": "CC-BY-NC-4.0.txt"}
COLUMNS = (
    "isic_id", "diagnosis_1", "diagnosis", "lesion_id", "patient_id", "duplicate_group", "age_approx", "sex",
    "anatom_site_general", "copyright_license", "attribution",
)  # fmt: skip
BELONGS = {
    "images": re.compile(r"ISIC_\d+\.jpe?g", re.IGNORECASE).fullmatch,
    "masks": re.compile(r"ISIC_\d+_segmentation\.png", re.IGNORECASE).fullmatch,
}


class Unfit(FetchError):
    """A file that came as its host has it, and can't be used."""


class RemoteFile(NamedTuple):
    """A file of a data set: its addresses, how to know it, and the folder it is unpacked to ("": kept as it is)."""

    name: str
    urls: tuple[str, ...]
    checksum: str | None
    folder: str
    holds: str  # "images", "masks" or "table"
    members: int = 0  # how many files belong to it
    pictures: str = ""  # for masks: the folder of the images that they belong to


class Source(NamedTuple):
    """A data set as its makers serve it; `size` in bytes, of all archives together."""

    title: str
    files: tuple[RemoteFile, ...]
    collections: tuple[int, ...]  # the ISIC Archive's numbers for it
    tells_lesions: bool  # whether its own table says which lesion an image shows
    size: int
    images: int
    licence: str
    citation: str
    page: str


def _challenge(
    year: int, name: str, checksum: str | None, holds: str, members: int = 0, pictures: str = ""
) -> RemoteFile:
    """A file of an ISIC challenge; two forms of its bucket's address are in the wild."""
    urls = (
        f"https://isic-archive.s3.amazonaws.com/challenges/{year}/{name}",
        f"https://isic-challenge-data.s3.amazonaws.com/{year}/{name}",
    )
    folder = "" if holds == "table" else name.removesuffix(".zip")
    return RemoteFile(name, urls, checksum, folder, holds, members, pictures)


def _dataverse(
    number: int, name: str, checksum: str | None, holds: str, members: int = 0, pictures: str = ""
) -> RemoteFile:
    address = f"https://dataverse.harvard.edu/api/access/datafile/{number}"
    if holds == "table":  # Dataverse turns tables into a form of its own, unless asked for the original
        return RemoteFile(name, (f"{address}?format=original",), checksum, "", holds)
    return RemoteFile(name, (address,), checksum, name.removesuffix(".zip"), holds, members, pictures)


CHALLENGE_PAGE = "https://challenge.isic-archive.com/data"
SOURCES = {
    "isic2016": Source(
        "ISIC 2016: 900 + 379 images with masks and labels",
        (
            _challenge(2016, "ISBI2016_ISIC_Part3_Training_GroundTruth.csv", None, "table"),
            _challenge(2016, "ISBI2016_ISIC_Part3_Test_GroundTruth.csv", None, "table"),
            _challenge(
                2016, "ISBI2016_ISIC_Part1_Training_GroundTruth.zip", "md5:fbd77134298f3511479a37bac93109c7", "masks",
                900, "ISBI2016_ISIC_Part1_Training_Data",
            ),
            _challenge(
                2016, "ISBI2016_ISIC_Part1_Test_GroundTruth.zip", "md5:492a7711a2e19b96114cab6c96bd1ad5", "masks",
                379, "ISBI2016_ISIC_Part1_Test_Data",
            ),
            _challenge(
                2016, "ISBI2016_ISIC_Part1_Training_Data.zip", "md5:2029f387e62dcc062b1370b1efc1f7fb", "images", 900
            ),
            _challenge(
                2016, "ISBI2016_ISIC_Part1_Test_Data.zip", "md5:efebcaeaae751007401a40a60d391f93", "images", 379
            ),
        ),
        (74, 61),
        False,
        840_000_000,
        1279,
        "CC-0",
        "Gutman et al., Skin Lesion Analysis toward Melanoma Detection: A Challenge at ISBI 2016, arXiv:1605.01397",
        CHALLENGE_PAGE,
    ),
    "isic2018": Source(
        "ISIC 2018 Task 1: 2,594 images with masks; labels from the ISIC Archive",
        (
            _challenge(
                2018, "ISIC2018_Task1_Training_GroundTruth.zip",
                "sha256:99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c", "masks", 2594,
                isic.ISIC2018_IMAGES,
            ),
            _challenge(
                2018, "ISIC2018_Task1-2_Training_Input.zip",
                "sha256:80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f", "images", 2594,
            ),
        ),
        (63,),
        False,
        11_192_761_461,
        2594,
        "CC-0",
        "Codella et al., Skin Lesion Analysis Toward Melanoma Detection 2018: A Challenge Hosted by the International "
        "Skin Imaging Collaboration (ISIC), arXiv:1902.03368",
        CHALLENGE_PAGE,
    ),
    "ham10000": Source(
        "HAM10000: 10,015 images of 7,470 lesions, with Tschandl's masks",
        (
            _dataverse(4338392, "HAM10000_metadata.csv", None, "table"),
            _dataverse(
                3838943, "HAM10000_segmentations_lesion_tschandl.zip", "md5:6e8d252e09cfdb0189199f15985a5b84", "masks",
                10_015, isic.HAM10000_IMAGES[0],
            ),
            _dataverse(3172585, "HAM10000_images_part_1.zip", "md5:4639bfa73ab251610530a97c898e6e46", "images", 5000),
            _dataverse(3172584, "HAM10000_images_part_2.zip", "md5:da43d6cc50f6613013be07e8986b384b", "images", 5015),
        ),
        (212,),
        True,
        2_780_000_000,
        10_015,
        "CC-BY-NC",
        "Tschandl, Rosendahl, Kittler, The HAM10000 dataset, Sci. Data 5, 180161 (2018); masks: Tschandl et al., "
        "Nat. Med. 26, 1229 (2020)",
        "https://doi.org/10.7910/DVN/DBW86T",
    ),
}  # fmt: skip


def fetch_dataset(
    name: str, to: str | Path, limit: int | None = None, thumbnails: bool = False, web: Web | None = None
) -> list[str]:
    """Fetch a real data set into a folder; returns lines that say what is there now.

    limit         only so many images, read singly out of the large archives: the same share of each label as in the
                  whole set, and always the same ones; a larger limit later adds to a smaller one
    thumbnails    the Archive's pictures of at most 256 pixels, with masks shrunk to fit: some 20 kB an image
    Raises FetchError, with what is needed and how to get it by hand. What has come is kept; the next call goes on.
    """
    if name not in SOURCES:
        raise CourseError(f"there is no data set '{name}'; there are: {', '.join(SOURCES)}, synthetic")
    if limit is not None and limit < 1:
        raise CourseError(f"--limit {limit} asks for no image: give a number from 1 up")
    fetching = _Fetching(name, Path(to), "thumbnails" if thumbnails else "full size", web or Web())
    try:
        fetching.run(limit)
    except HostFailed as error:
        raise FetchError(f"{error}. {fetching.way_out()}") from None
    return fetching.summary()


class _Fetching:
    """One set on its way into one folder."""

    def __init__(self, name: str, root: Path, pictures: str, web: Web) -> None:
        self.name, self.root, self.pictures, self.web = name, root, pictures, web
        self.source = SOURCES[name]
        self.facts: dict[str, dict[str, str]] = {}  # by image: what metadata.csv will say
        self.waits_for_archive = False
        self.manifest = self._claim()

    def _claim(self) -> dict:
        """The folder's manifest. A folder that holds something else is refused."""
        if self.root.exists() and not self.root.is_dir():
            raise CourseError(f"{self.root} is a file: name a folder with --to")
        new = {"dataset": self.name, "pictures": self.pictures, "complete": False, "files": {}, "images": {}}
        path = self.root / "manifest.json"
        if not path.is_file():
            inside = {entry.name for entry in self.root.iterdir()} if self.root.is_dir() else set()
            inside -= {".DS_Store", "Thumbs.db", LOCK, DOWNLOADS}
            official = {file.name for file in self.source.files} | {file.folder for file in self.source.files}
            if inside and inside != {"metadata.csv"} and (not inside & official or "synthetic.json" in inside):
                raise CourseError(f"{self.root} holds other things: name a new or empty folder with --to")
            return new
        try:
            manifest = new | json.loads(path.read_text(encoding="utf-8"))
            held = manifest["dataset"], manifest["pictures"]
            if not isinstance(manifest["files"], dict) or not isinstance(manifest["images"], dict):
                raise TypeError
        except (ValueError, TypeError):
            raise CourseError(f"{path} is none that this command has written: name another folder with --to") from None
        if held != (self.name, self.pictures):
            raise CourseError(f"{self.root} holds {held[0]} ({held[1]}) already: name another folder with --to")
        return manifest

    def run(self, limit: int | None) -> None:
        """Fetch whatever is missing; the small and telling things come first."""
        limit = None if limit is None or limit >= self.source.images else limit
        has = self.manifest.get("limit")
        enough = has is None or (limit is not None and limit <= has)
        untouched = self.manifest.get("here") == self._here() and not self.manifest.get("left_out")
        if self.manifest["complete"] and enough and untouched:
            return
        self._check_space(limit)
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(self.root / LOCK, timeout=0):
                self._run(limit)
        except filelock.Timeout:
            raise CourseError(f"another `skinlib data` is at work in {self.root}: let it finish") from None

    def _run(self, limit: int | None) -> None:
        for path in self.root.rglob(".unfinished-*"):  # of a process that was killed
            path.unlink()
        self.manifest["complete"] = False
        self._save()
        fetch = self._thumbnails if self.pictures == "thumbnails" else self._whole if limit is None else self._single
        try:
            for file in self._files("table"):
                self._table(file)
            fetch(limit)
        finally:
            self._save()  # also when interrupted: what has come is written down
        self._describe()
        for path in (self.root / DOWNLOADS).glob("[!.]*"):  # what was cut waits for its rest
            path.unlink()
        with contextlib.suppress(OSError):
            (self.root / DOWNLOADS).rmdir()
        self.manifest |= {"complete": True, "limit": limit, "here": self._here()}
        self._save()

    def way_out(self) -> str:
        """What a person can do whose host does not answer."""
        kept = "What has come is kept, and the same command goes on from there"
        if self.waits_for_archive and self.pictures == "thumbnails":
            return f"{kept}; without --thumbnails, other hosts serve the pictures"
        if self.waits_for_archive:
            return (
                f"{kept}. By hand: put a table metadata.csv with the columns isic_id and diagnosis_1, as "
                f"https://www.isic-archive.com exports it, into {self.root} and run this again"
            )
        wanted = [file for file in self.source.files if self.pictures != "thumbnails" or file.holds != "images"]
        missing = [file.name for file in wanted if not self._has(file)]
        if not missing:
            return kept
        return (
            f"{kept}. By hand: get {', '.join(missing)} with a browser from {self.source.page}, "
            f"put {'it' if len(missing) == 1 else 'them'} into {self.root} and run this again"
        )

    def summary(self) -> list[str]:
        """What is in the folder now."""
        rows = isic.metadata_rows(self.root / "metadata.csv")
        ids = self._image_ids()
        count = Counter(rows.get(image_id, {}).get("diagnosis_1", "") for image_id in ids)
        masks = len(self._mask_ids())
        by_hand = [name for name, entry in self.manifest["files"].items() if "not verified" in entry["verified_by"]]
        command = f"skinlib run --dataset {self.name} --data-dir {shlex.quote(str(self.root))} --out runs/{self.name}"
        return [
            *(f"left out: {name}: {reason}" for name, reason in self.manifest.get("left_out", {}).items()),
            *self.manifest.get("notes", []),
            *([f"unpacked by hand, and not verified: {', '.join(by_hand)}"] if by_hand else []),
            f"{self.name}: {len(ids)} images ({self.pictures}), {masks} masks; {count['Benign']} benign, "
            f"{count['Malignant']} malignant, {len(ids) - count['Benign'] - count['Malignant']} without such a label",
            f"licence {self.source.licence}, see attribution.txt and licences/; to cite: {self.source.citation}",
            f"next: {command}" if len(ids) >= FEW else f"to train on, the course wants {FEW} images or more",
        ]

    # -- the three ways to the images --------------------------------------------------------------------------------

    def _whole(self, limit: int | None) -> None:
        """All archives, unpacked."""
        for file in self._files("masks"):
            self._unpack(file)
        self._learn(self._mask_ids())
        for file in self._files("images"):
            self._unpack(file)

    def _single(self, limit: int | None) -> None:
        """`limit` images, read out of the archives where they are."""
        for file in self._files("masks"):
            self._unpack(file)
        places = {}
        for file in self._files("images"):
            archive = RemoteArchive(self.web, file.name, file.urls, BELONGS["images"])
            places |= {_id_of(name): (archive, name, self.root / file.folder) for name in archive.members}
        self._learn(self._mask_ids())
        # An official test part gets its share, too.
        usable = self._mask_ids() & set(places)
        strata = {name: f"{places[name][2].name} {self.facts[name]['diagnosis_1']}" for name in usable}
        chosen = choose(strata, limit)
        packed = sum(places[image_id][0].members[places[image_id][1]].file_size for image_id in chosen)
        need_space(self.root, packed, f"{limit} images of {self.name}")

        def fetch(image_id: str) -> None:
            archive, name, folder = places[image_id]
            if not is_member(folder / name, archive.members[name]):
                content = archive.read(name)
                write_bytes(folder / name, content)
                self._note_image(folder / name, f"{archive.url}#{name}", "CRC-32 of the archive")

        self._each(chosen, fetch)

    def _thumbnails(self, limit: int | None) -> None:
        """The Archive's small pictures, and the masks shrunk to fit them."""
        with contextlib.ExitStack() as stack:
            masks = {}
            for file in self._files("masks"):
                archive = stack.enter_context(opened_archive(self._archive(file)))
                for name, info in members(archive, file.name, BELONGS["masks"]).items():
                    picture = self.root / file.pictures / f"{_id_of(name)}.jpg"
                    masks[_id_of(name)] = archive, info, self.root / file.folder / name, picture
            self._learn(set(masks), thumbnails=True)
            strata = {name: f"{masks[name][3].parent.name} {self.facts[name]['diagnosis_1']}" for name in masks}

            def fetch(image_id: str) -> None:
                archive, info, mask, picture = masks[image_id]
                if not is_picture(picture):
                    self._thumbnail(image_id, picture)
                if not is_picture(mask):
                    write_image(mask, fitting_mask(archive.read(info), read_image(picture).shape[:2], mask.name))

            self._each(choose(strata, limit) if limit else sorted(masks), fetch)

    def _thumbnail(self, image_id: str, picture: Path) -> None:
        """Fetch a small picture; one that cannot be decoded to its end is asked for again."""
        url = self.thumbnails.get(image_id)
        if url is None:
            raise NotThere(f"the ISIC Archive serves no picture of {image_id}")
        for _ in self.web.attempts():
            content = self.web.content(url)
            if is_whole(picture.name, content):
                write_bytes(picture, content)
                self._note_image(picture, url.split("?")[0], "decoded whole")
                return
        raise HostFailed(f"{self.web.host(url)} keeps sending a broken {picture.name}")

    # -- single steps ------------------------------------------------------------------------------------------------

    def _files(self, holds: str) -> list[RemoteFile]:
        return [file for file in self.source.files if file.holds == holds]

    def _image_ids(self) -> set[str]:
        names = {file.folder for file in self._files("images")} | {file.pictures for file in self._files("masks")}
        return self._ids_in(names, "images")

    def _mask_ids(self) -> set[str]:
        return self._ids_in({file.folder for file in self._files("masks")}, "masks")

    def _ids_in(self, folders: set[str], holds: str) -> set[str]:
        here = [self.root / name for name in folders if (self.root / name).is_dir()]
        return {_id_of(path.name) for folder in here for path in list_images(folder) if BELONGS[holds](path.name)}

    def _here(self) -> list[int]:
        """How many images, masks and tables there are: has somebody taken some away?"""
        return [len(self._image_ids()), len(self._mask_ids()), int((self.root / "metadata.csv").is_file())]

    def _check_space(self, limit: int | None) -> None:
        """Archives, and what comes out of them, lie side by side for a while."""
        number = limit or self.source.images
        each = 2 * THUMBNAIL_BYTES if self.pictures == "thumbnails" else self.source.size // self.source.images
        needed = number * each * (2 if limit is None and self.pictures != "thumbnails" else 1)
        here = sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file()) if self.root.is_dir() else 0
        advice = ", or fetch less, with --thumbnails or --limit" if self.pictures != "thumbnails" else ""
        need_space(self.root, max(0, needed - here), self.name, advice)

    def _has(self, file: RemoteFile) -> bool:
        downloaded = (self.root / DOWNLOADS / file.name).is_file()
        return downloaded or self._table_path(file).is_file() or self._is_unpacked(file)

    def _is_unpacked(self, file: RemoteFile) -> bool:
        return file.members > 0 and len(self._ids_in({file.folder}, file.holds)) >= file.members

    def _table(self, file: RemoteFile) -> None:
        """A small table. Nobody states its checksum, so it gets its name when it can be read as what it should be."""
        if self._table_path(file).is_file():
            return
        unread = self.root / DOWNLOADS / file.name
        unread.parent.mkdir(parents=True, exist_ok=True)
        reasons = []
        for url in file.urls:
            unread.unlink(missing_ok=True)
            try:
                download(self.web, [url], unread, file.checksum)
                isic.official_labels(unread)
            except HostFailed as error:
                reasons.append(str(error))
            except CourseError as error:
                reasons.append(f"{self.web.host(url)} sent something else as {file.name} ({error})")
            else:
                self._note(file, url, unread, "read as a table; nobody states a checksum")
                unread.replace(self.root / file.name)
                return
        unread.unlink(missing_ok=True)
        raise HostFailed("; ".join(dict.fromkeys(reasons)))

    def _table_path(self, file: RemoteFile) -> Path:
        """Where a table is or should be: a browser may have saved HAM10000's under another of its names."""
        names = isic.HAM10000_TABLES if file.name in isic.HAM10000_TABLES else (file.name,)
        found = [self.root / name for name in names if (self.root / name).is_file()]
        return found[0] if found else self.root / file.name

    def _archive(self, file: RemoteFile) -> Path:
        """An archive of the right checksum on this disk: put there by hand, or fetched now."""
        path = self.root / file.name
        if path.is_file():
            if not has_checksum(path, file.checksum):
                raise FetchError(f"{path} is not the official file (its checksum is wrong): fetch it again")
            self._note(file, "put here by hand", path, "stated checksum")
            return path
        path = self.root / DOWNLOADS / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._note(file, download(self.web, file.urls, path, file.checksum), path, "stated checksum")
        return path

    def _unpack(self, file: RemoteFile) -> None:
        """An archive's files in their official folder. All of them there already are taken as they are."""
        entry = self.manifest["files"].get(file.name)
        if self._is_unpacked(file):
            if entry is None:
                self.manifest["files"][file.name] = _entry("unpacked by hand", 0, "", "not verified")
            return
        path = self._archive(file)
        unpack(path, self.root / file.folder, BELONGS[file.holds])
        if not self._is_unpacked(file):
            raise FetchError(f"{file.name} holds fewer than the {file.members} files that it should")
        if path.parent.name == DOWNLOADS:
            path.unlink()

    def _each(self, chosen: list[str], fetch: Callable[[str], None]) -> None:
        """Fetch image after image. A few that nobody can have are left out and named; all else is an error."""
        if not chosen:
            raise FetchError(f"none of the images of {self.name} was found where they should be")
        failed = fetch_each(chosen, fetch, f"fetching {self.name}")
        left_out = {name: str(error) for name, error in failed.items() if isinstance(error, NotThere | Unfit)}
        self.manifest["left_out"] = left_out
        if len(failed) > len(left_out) or len(left_out) > 0.1 * len(chosen):
            name = next((name for name in failed if name not in left_out), next(iter(failed)))
            raise FetchError(
                f"{len(failed)} of {len(chosen)} images could not be fetched (such as {name}: {failed[name]}); "
                "what has come is kept: run the same command again"
            )

    def _learn(self, ids: set[str], thumbnails: bool = False) -> None:
        """What is known about each image: from the set's own tables, a metadata.csv put here, the ISIC Archive."""
        labels: dict[str, str] = {}
        for file in self._files("table"):
            labels |= isic.official_labels(self._table_path(file))
        path = self.root / "metadata.csv"
        given = isic.metadata_rows(path) if path.is_file() else {}
        rows: dict[str, dict[str, str]] = {}
        needed = thumbnails or not ids <= set(labels) | {name for name, row in given.items() if row.get("diagnosis_1")}
        wanted = not self.source.tells_lesions and not any(row.get("lesion_id") for row in given.values())
        self.manifest["notes"] = []
        if needed or wanted:
            self.waits_for_archive = True
            try:
                rows = archive_rows(self.web, self.source.collections, ids)
            except HostFailed as error:
                if needed:
                    raise
                self.manifest["notes"] = [f"without the ISIC Archive's lesion and patient numbers ({error})"]
            self.waits_for_archive = False
        self.thumbnails = {name: row["thumbnail"] for name, row in rows.items() if row["thumbnail"]}
        for image_id in sorted(ids | set(given)):
            told = {name: text for name, text in rows.get(image_id, {}).items() if text and name != "thumbnail"}
            by_hand = {name: text for name, text in given.get(image_id, {}).items() if text or name not in told}
            row = dict.fromkeys(COLUMNS, "") | told | by_hand | {"isic_id": image_id}
            # The challenge's own label stands where the Archive's would differ.
            row["diagnosis_1"] = labels.get(image_id) or row["diagnosis_1"]
            row["copyright_license"] = row["copyright_license"] or self.source.licence
            self.facts[image_id] = row

    def _describe(self) -> None:
        """Write metadata.csv, attribution.txt and the licences' texts. What a person put into the table is kept."""
        with written_whole(self.root / "metadata.csv") as unfinished:
            pd.DataFrame(self.facts.values()).fillna("").to_csv(unfinished, index=False)
        rows = [self.facts[image_id] for image_id in sorted(self._image_ids() & set(self.facts))]
        people = Counter(row["attribution"] for row in rows if row["attribution"])
        lines = [self.source.title, f"To cite: {self.source.citation}", f"Fetched from: {self.source.page}", ""]
        lines += [f"{name}: {number} images" for name, number in people.most_common()]
        write_text(self.root / "attribution.txt", "\n".join(lines).rstrip() + "\n")
        for licence in sorted({row["copyright_license"] for row in rows} & set(LICENCE_FILES)):
            write_bytes(
                self.root / "licences" / LICENCE_FILES[licence], (LICENCES / LICENCE_FILES[licence]).read_bytes()
            )

    def _note(self, file: RemoteFile, address: str, path: Path, verified: str) -> None:
        checksum = file.checksum or checksum_of(path)
        self.manifest["files"][file.name] = _entry(address, path.stat().st_size, checksum, verified)
        self._save()

    def _note_image(self, path: Path, address: str, verified: str) -> None:
        self.manifest["images"][path.name] = _entry(address, path.stat().st_size, checksum_of(path), verified)

    def _save(self) -> None:
        write_json(self.root / "manifest.json", self.manifest)


def _entry(address: str, size: int, checksum: str, verified: str) -> dict[str, str | int]:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"address": address, "bytes": size, "checksum": checksum, "verified_by": verified, "date": today}


def _id_of(name: str) -> str:
    """ISIC_0000000 of ISIC_0000000.jpg and of ISIC_0000000_Segmentation.png."""
    return re.match(r"ISIC_\d+", name, re.IGNORECASE).group().upper()


def choose(labels: dict[str, str], number: int) -> list[str]:
    """`number` ids with the same share of each label as in the whole; always the same ones, and fewer within more.

    labels    by id. A hash orders the ids of each label; each stands in the middle of its share of that order, and the
    first `number` of all are taken.
    """
    of_label: dict[str, list[str]] = {}
    for image_id in sorted(labels, key=lambda name: hashlib.sha256(f"limit {name}".encode()).digest()):
        of_label.setdefault(labels[image_id], []).append(image_id)
    place = {image_id: (rank + 0.5) / len(ids) for ids in of_label.values() for rank, image_id in enumerate(ids)}
    return sorted(sorted(labels, key=lambda name: (place[name], name))[:number])


def is_picture(path: Path) -> bool:
    """Whether a picture file is there, and can be decoded to its end."""
    return path.is_file() and is_whole(path.name, path.read_bytes())


def is_whole(name: str, content: bytes) -> bool:
    """Whether bytes are a picture that can be decoded to its end."""
    try:
        check_picture(name, content)
        decode_picture(name, content, cv2.IMREAD_REDUCED_GRAYSCALE_8)
    except CourseError:
        return False
    return True


def fitting_mask(content: bytes, shape: tuple[int, int], name: str) -> np.ndarray:
    """A mask file of a large image, as bool (height, width) of its small one. Raises Unfit where they differ."""
    large = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    if large is None:
        raise Unfit(f"{name} is not a readable mask")
    height, width = shape
    # The small picture's sides were rounded, each by at most a pixel.
    if abs(large.shape[0] * width - large.shape[1] * height) > max(large.shape):
        raise Unfit(f"{name} is {large.shape[1]}×{large.shape[0]}: not of the shape of its picture")
    share = cv2.resize(np.float32(large > 128), (width, height), interpolation=cv2.INTER_AREA)
    return share >= 0.5


def archive_rows(web: Web, collections: tuple[int, ...], ids: set[str]) -> dict[str, dict[str, str]]:
    """What the ISIC Archive tells about images: by id, the columns of metadata.csv and the thumbnail's address.

    Whole collections are read page by page. An image that no page held (a listing may end early, or turn in circles)
    is asked for by its id; one that the Archive does not know is left out. Raises HostFailed.
    """
    rows: dict[str, dict[str, str]] = {}
    for collection in collections:
        url, seen = f"{API}/images/search/?collections={collection}&limit={PAGE}", set()
        with progress(None, "asking the ISIC Archive", len(ids), "image") as bar:
            while url and url not in seen:
                seen.add(url)
                page = web.json(url)
                with _understood(web, url):
                    found = page.get("results") or []
                    rows |= {image["isic_id"]: _row(image) for image in found if image["isic_id"] in ids}
                    bar.update(len(found))
                    url = urljoin(url, page.get("next") or "") if page.get("next") else ""

    def ask(image_id: str) -> None:
        url = f"{API}/images/{image_id}/"
        with contextlib.suppress(NotThere):
            image = web.json(url)
            with _understood(web, url):
                rows[image_id] = _row(image)

    failed = fetch_each(sorted(ids - set(rows)), ask, "asking the ISIC Archive")
    if failed:
        raise next(iter(failed.values()))
    return rows


@contextlib.contextmanager
def _understood(web: Web, url: str) -> Iterator[None]:
    """An answer in another form than the Archive's becomes one line."""
    try:
        yield
    except (TypeError, AttributeError, KeyError, ValueError):
        raise HostFailed(f"{web.host(url)} sent an answer in an unknown form to {url}") from None


def _row(image: dict) -> dict[str, str]:
    """One image of the Archive's answer as texts; what it does not say is ""."""
    clinical = (image.get("metadata") or {}).get("clinical") or {}
    files = image.get("files") or {}
    row = {name: str(clinical[name]) for name in COLUMNS if clinical.get(name) not in (None, "")}
    diagnoses = [str(clinical[f"diagnosis_{level}"]) for level in range(2, 6) if clinical.get(f"diagnosis_{level}")]
    return row | {
        "diagnosis": diagnoses[-1] if diagnoses else "",
        "copyright_license": str(image.get("copyright_license") or ""),
        "attribution": str(image.get("attribution") or ""),
        "thumbnail": urljoin(API, str((files.get("thumbnail_256") or {}).get("url") or "")) if files else "",
    }
