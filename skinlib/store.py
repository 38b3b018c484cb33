"""Decode once: images and masks at their working size, kept in the user's cache folder as memory-mapped .npy files.

An entry is known by the files it was made of (name, size, time of change) and by how they were decoded, and carries a
checksum of every array: one that is damaged, half-written or of something else is made again. A cache that cannot be
written costs a line of warning and the time, nothing else.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import platformdirs

from skinlib.files import CourseError, UnreadableFile
from skinlib.pixels import DECODER_VERSION, read_pairs
from skinlib.progress import progress

CACHE_VARIABLE = "SKINLIB_CACHE_DIR"
FORMAT = 1  # raise it when the layout of an entry changes
UNFINISHED = ".unfinished-"
A_DAY = 24 * 3600
SPARE_BYTES = 50 * 2**20  # left free on the disk for what else the course writes

Pairs = Sequence[tuple[Path, Path | None]]
Extra = dict[str, Callable[[np.ndarray], np.ndarray]]


class Stored(NamedTuple):
    """The decoded images of a data set, k of the n that were asked for.

    images      uint8 RGB (k, size, size, 3); masks: bool (k, size, size), all False where there is no mask. Both may
                be mapped from a file; what is written into them stays in memory
    kept        int (k,), which of the n pairs they are, ascending
    left_out    position and reason for each of the others
    remarks     position and what is odd about it
    extra       an array by each name that was asked for
    """

    images: np.ndarray
    masks: np.ndarray
    kept: np.ndarray
    left_out: tuple[tuple[int, str], ...]
    remarks: tuple[tuple[int, str], ...]
    extra: dict[str, np.ndarray]


def cache_folder() -> Path:
    """Where decoded images are kept: SKINLIB_CACHE_DIR, or the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    try:
        return Path(named) if named else platformdirs.user_cache_path("skinlib", appauthor=False)
    except RuntimeError as error:  # nobody has told the process where its user's home is
        raise OSError(str(error)) from None


def load_pixels(
    name: str, root: Path, pairs: Pairs, size: int, choice: str = "whole", extra: Extra | None = None
) -> Stored:
    """The pairs of image and mask files at (size, size): out of the cache, or decoded now and kept there.

    name     of the data set
    root     the folder that all files lie in; nothing is written into it
    choice   what is read of it: a newer entry of one name, folder, size and choice takes the older one's place
    extra    name to function of all images, such as {"signatures-1": signatures}; the result is kept with them. A
             function that changes needs a new name
    """
    extra = extra or {}
    key = _key(root, pairs, size, extra)
    place = hashlib.blake2b(str(root.resolve()).encode(errors="surrogateescape"), digest_size=6).hexdigest()
    family = f"{name}-{choice}-{size}-{place}-"
    try:
        entry = cache_folder() / f"{family}{key}"
        stored = _open(entry, key)
        if stored is not None:
            return stored
        entry.parent.mkdir(parents=True, exist_ok=True)
        _sweep(entry.parent)
        stored = _build(entry, key, name, pairs, size, extra)
    except OSError as error:
        reason = error.strerror or str(error)
        print(f"skinlib: decoded images are not kept for the next time ({reason})", file=sys.stderr)
        return _decode_into_memory(name, pairs, size, extra)
    for other in entry.parent.glob(f"{family}*"):
        if other != entry:
            _remove(other)
    return stored


def _key(root: Path, pairs: Pairs, size: int, extra: Extra) -> str:
    """A short text that changes with any file and any setting an entry depends on."""
    start = f"{root.as_posix()}/"
    lines = [f"{FORMAT} {DECODER_VERSION} {cv2.__version__} {np.__version__.split('.')[0]} {size} {sorted(extra)}"]
    for pair in pairs:
        for path in pair:
            if path is None:
                lines.append("none")
                continue
            try:
                state = os.stat(path)  # noqa: PTH116 (Path.stat is three times as slow, and this is asked 20,000 times)
                lines.append(f"{path.as_posix().removeprefix(start)} {state.st_size} {state.st_mtime_ns}")
            except OSError:
                lines.append(f"{path.as_posix().removeprefix(start)} not there")
    return hashlib.blake2b("\n".join(lines).encode(errors="surrogateescape"), digest_size=12).hexdigest()


class _Notes(NamedTuple):
    """What became of each pair; `lasting` is False where the file system refused one, which may pass."""

    kept: list[int]
    left_out: list[tuple[int, str]]
    remarks: list[tuple[int, str]]
    lasting: bool


def _decode(name: str, pairs: Pairs, size: int, keep: Callable[[np.ndarray, np.ndarray], None]) -> _Notes:
    """Decode all pairs and hand each usable image and mask to `keep`, in order."""
    notes, lasting = _Notes([], [], [], True), True
    for position, read in enumerate(progress(read_pairs(pairs, size), f"reading {name}", len(pairs), "image")):
        if isinstance(read, CourseError):
            notes.left_out.append((position, str(read)))
            lasting = lasting and not isinstance(read, UnreadableFile)
            continue
        keep(read.image, read.mask)
        notes.kept.append(position)
        notes.remarks.extend((position, remark) for remark in read.remarks)
    return notes._replace(lasting=lasting)


def _decode_into_memory(name: str, pairs: Pairs, size: int, extra: Extra) -> Stored:
    images, masks = np.empty((len(pairs), size, size, 3), np.uint8), np.empty((len(pairs), size, size), bool)
    count = 0

    def keep(image: np.ndarray, mask: np.ndarray) -> None:
        nonlocal count
        images[count], masks[count] = image, mask
        count += 1

    notes = _decode(name, pairs, size, keep)
    made = {key: make(images[:count]) for key, make in extra.items()} if count else {}
    return _stored(images[:count], masks[:count], notes, made)


def _stored(images: np.ndarray, masks: np.ndarray, notes: _Notes, extra: dict[str, np.ndarray]) -> Stored:
    kept = np.array(notes.kept, int)
    return Stored(images, masks, kept, tuple(map(tuple, notes.left_out)), tuple(map(tuple, notes.remarks)), extra)


# An entry is a folder with images.npy, masks.npy, one extra-NAME.npy for each extra, and record.json.


class _Rows:
    """A .npy file that grows row by row. It is written as a file and not through a memory map, because a full disk
    is then an error like any other, and not the end of the process; and no more than a row is held in memory."""

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: type):
        self.file, self.row_shape, self.dtype = path.open("wb"), row_shape, np.dtype(dtype)
        self.count, self.checksum = 0, 0
        self._write_header()
        self.begin = self.file.tell()

    def append(self, row: np.ndarray) -> None:
        content = np.ascontiguousarray(row, self.dtype).data.cast("B")
        self.file.write(content)
        self.checksum = zlib.crc32(content, self.checksum)
        self.count += 1

    def close(self) -> list:
        """Write how many rows there are, close the file, and return what `_described` will say of it."""
        self.file.seek(0)
        self._write_header()
        if self.file.tell() != self.begin:
            raise OSError(f"the header of {self.file.name} has grown")
        self.file.close()
        return [self.checksum, [self.count, *self.row_shape], self.dtype.str]

    def _write_header(self) -> None:
        # NumPy leaves room in the header for the first length to grow, so that it can be written over.
        shape = (self.count, *self.row_shape)
        described = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, described)


def _build(entry: Path, key: str, name: str, pairs: Pairs, size: int, extra: Extra) -> Stored:
    """Decode into a temporary folder, put it in place when it is whole, and open it there."""
    wanted = len(pairs) * size * size * 4 + SPARE_BYTES
    free = shutil.disk_usage(entry.parent).free
    if free < wanted:
        raise OSError(f"{wanted / 2**20:.0f} MB wanted, {free / 2**20:.0f} MB free on the disk of the cache")
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=entry.parent))
    with contextlib.ExitStack() as cleaning:
        cleaning.callback(_remove, unfinished)
        images = _Rows(unfinished / "images.npy", (size, size, 3), np.uint8)
        cleaning.callback(_close, images.file)
        masks = _Rows(unfinished / "masks.npy", (size, size), bool)
        cleaning.callback(_close, masks.file)

        def keep(image: np.ndarray, mask: np.ndarray) -> None:
            images.append(image)
            masks.append(mask)

        notes = _decode(name, pairs, size, keep)
        arrays = {"images": images.close(), "masks": masks.close()}
        if extra and notes.kept:
            decoded = np.load(unfinished / "images.npy", mmap_mode="r", allow_pickle=False)
            for extra_name, make in extra.items():
                path = unfinished / f"extra-{extra_name}.npy"
                np.save(path, np.ascontiguousarray(make(decoded)), allow_pickle=False)
                arrays[path.stem] = _described(path, np.load(path, mmap_mode="r", allow_pickle=False))
            del decoded  # or Windows will not rename the folder
        _write_record(unfinished / "record.json", {"key": key, "arrays": arrays, **notes._asdict()})
        if not notes.kept:  # nothing to keep, and nothing can be mapped from an empty file
            return _stored(np.empty((0, size, size, 3), np.uint8), np.empty((0, size, size), bool), notes, {})
        _publish(unfinished, entry, key)
        stored = _open(entry, key, lasting=False)
    if stored is None:
        raise OSError(f"another process took {entry.name} away")
    return stored


def _publish(unfinished: Path, entry: Path, key: str) -> None:
    """Rename a finished folder to its place; where another process was quicker, leave that one's."""
    for _ in range(3):
        try:
            unfinished.rename(entry)
            return
        except OSError:
            if _open(entry, key) is not None:
                return
            # What is there is damaged, or may have been made while a file could not be read.
            aside = Path(f"{unfinished}-old")
            with contextlib.suppress(OSError):
                entry.rename(aside)
            _remove(aside)
    raise OSError(f"{entry.name} cannot be put in place")


def _write_record(path: Path, content: dict) -> None:
    text = json.dumps(content)
    path.write_text(f"{zlib.crc32(text.encode())}\n{text}", encoding="utf-8")


def _read_record(path: Path) -> dict:
    checksum, _, text = path.read_text(encoding="utf-8").partition("\n")
    if checksum != str(zlib.crc32(text.encode())):
        raise ValueError(f"{path} is damaged")
    return json.loads(text)


def _open(entry: Path, key: str, lasting: bool = True) -> Stored | None:
    """An entry as it was stored, or None if it is not there, not whole or not this one.

    lasting    take none that was made while the file system refused a file
    """
    try:
        record = _read_record(entry / "record.json")
        notes = _Notes(*(record[name] for name in _Notes._fields))
        if record["key"] != key or (lasting and not notes.lasting):
            return None
        arrays = {}
        for name, described in record["arrays"].items():
            path = entry / f"{name}.npy"
            # "c": what is written into the array stays in this process.
            mapped = np.load(path, mmap_mode="c", allow_pickle=False)
            if _described(path, mapped) != described:
                return None
            arrays[name] = mapped.view(np.ndarray)
        images, masks = arrays.pop("images"), arrays.pop("masks")
    except (OSError, EOFError, ValueError, KeyError, TypeError):  # NumPy raises the second for an empty file
        return None
    return _stored(images, masks, notes, {name.removeprefix("extra-"): array for name, array in arrays.items()})


def _described(path: Path, mapped: np.memmap) -> list:
    """Checksum, shape and type of an array's file. It is read piece by piece: through the map, all of it would count
    as memory in use."""
    checksum, piece = 0, memoryview(bytearray(2**20))
    with path.open("rb", buffering=0) as file:
        file.seek(mapped.offset)
        while count := file.readinto(piece):
            checksum = zlib.crc32(piece[:count], checksum)
    return [checksum, list(mapped.shape), mapped.dtype.str]


def _sweep(folder: Path) -> None:
    """Remove what a process that was killed has left half-written."""
    for path in folder.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - A_DAY:
                _remove(path)


def _close(file: BinaryIO) -> None:
    with contextlib.suppress(OSError):  # a full disk refuses what is still to be flushed
        file.close()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
