"""Reading and writing files so that nothing is ever half-written and every failure has a name.

Nothing in here knows about lesions.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class CourseError(Exception):
    """Something the person at the keyboard can mend: the message is one line and says how."""


@contextlib.contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` only if the block ends well.

    A reader therefore sees the old file or the new one, never a half. The temporary name keeps the suffix, because
    Keras and OpenCV choose their format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".unfinished-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        # mkstemp makes files private; what the course writes is as readable as any other new file.
        mask = os.umask(0)
        os.umask(mask)
        unfinished.chmod(0o666 & ~mask)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_whole(path: str | Path) -> Iterator[Path]:
    """The same for a folder: an older one of that name is replaced only when the new one is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=path.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)
        # Two renames, so that an interruption leaves either folder whole; what takes time comes after.
        old = unfinished.with_name(f"{unfinished.name}-old")
        if path.exists():
            path.replace(old)
        unfinished.replace(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: dict) -> None:
    """Write a dictionary as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def digest(*arrays: np.ndarray) -> str:
    """A short text that changes with any value in the arrays: is a stored result still of this data?"""
    total = hashlib.blake2b(digest_size=12)
    for array in arrays:
        total.update(f"{array.dtype.kind} {array.shape}".encode())
        total.update("\n".join(array.tolist()).encode() if array.dtype.kind == "U" else np.ascontiguousarray(array))
    return total.hexdigest()


def list_images(folder: str | Path) -> list[Path]:
    """The .jpg, .jpeg and .png files of a folder (in any case), by name; hidden files are left out."""
    return sorted(
        path
        for path in Path(folder).iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def read_image(path: str | Path) -> np.ndarray:
    """An image file as uint8 RGB of shape (height, width, 3), values 0–255. Raises CourseError with the reason."""
    return cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_mask(path: str | Path) -> np.ndarray:
    """A mask file as bool of shape (height, width). True is lesion: grey value above 128, as ISIC's scoring has it."""
    return _decode(path, cv2.IMREAD_GRAYSCALE) > 128


def _decode(path: str | Path, mode: int) -> np.ndarray:
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CourseError(f"{path.name} cannot be read: {error.strerror or error}") from None
    if not content:
        raise CourseError(f"{path.name} is empty (0 bytes)")
    # OpenCV decodes a JPEG that was cut off without complaint and fills the rest with grey; its end marker tells.
    if content[:2] == b"\xff\xd8" and b"\xff\xd9" not in content[-64 * 1024 :]:
        raise CourseError(f"{path.name} is truncated: the end of the JPEG is missing")
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), mode)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise CourseError(f"{path.name} is not a readable JPEG or PNG image")
    return pixels


def write_image(path: str | Path, pixels: np.ndarray) -> None:
    """Write uint8 RGB (height, width, 3) or a mask (height, width; bool becomes 0/255), whole or not at all."""
    pixels = pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    encoded, content = cv2.imencode(Path(path).suffix, pixels)
    if not encoded:
        raise CourseError(f"{path} could not be encoded as an image")
    with written_whole(path) as unfinished:
        unfinished.write_bytes(content.tobytes())
