"""Reading and writing files so that nothing is ever half-written and every failure has a name.

Nothing in here knows about lesions.
"""

import contextlib
import hashlib
import json
import os
import shutil
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


_UMASK = threading.Lock()


class CourseError(Exception):
    """Something the person at the keyboard can mend: the message is one line and says how."""


class UnreadableFile(CourseError):
    """The file system refused a file: another attempt may succeed, which a damaged file's never will."""


class PictureHeader(NamedTuple):
    """What a JPEG or PNG file says of itself before any pixel is decoded; zeros for other formats.

    width, height    pixels as they are stored, before the EXIF orientation is applied
    channels         1 grey, 2 grey with alpha, 3 colour, 4 colour with alpha (PNG) or CMYK (JPEG)
    bits             per channel
    orientation      EXIF, 1–8; from 5 on, width and height change places. Of a JPEG only
    pixel_data       where the compressed pixels of a JPEG begin in the file
    """

    format: str = ""
    width: int = 0
    height: int = 0
    channels: int = 0
    bits: int = 8
    orientation: int = 1
    pixel_data: int = 0

    @property
    def oriented_shape(self) -> tuple[int, int]:
        """(height, width) as the picture is to be seen."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


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
        with _UMASK:  # it can only be read by setting it, for all threads
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


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write bytes, whole or not at all."""
    with written_whole(path) as unfinished:
        unfinished.write_bytes(content)


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
    """An image file as uint8 RGB of shape (height, width, 3), values 0–255, turned as its EXIF orientation says.

    Raises CourseError with the reason.
    """
    content, _ = read_picture_file(path)
    return cv2.cvtColor(decode_picture(Path(path).name, content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_mask(path: str | Path) -> np.ndarray:
    """A mask file as bool of shape (height, width). True is lesion: grey value above 128, as ISIC's scoring has it."""
    content, _ = read_picture_file(path)
    return decode_picture(Path(path).name, content, cv2.IMREAD_GRAYSCALE) > 128


def read_picture_file(path: str | Path) -> tuple[bytes, PictureHeader]:
    """The bytes of an image file and its header. Raises CourseError for one that is unreadable, empty or cut off."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{path.name} cannot be read: {error.strerror or type(error).__name__}") from None
    return content, check_picture(path.name, content)


def check_picture(name: str, content: bytes) -> PictureHeader:
    """The header of an image file's bytes. Raises CourseError, naming `name`, if they are empty or cut off."""
    if not content:
        raise CourseError(f"{name} is empty (0 bytes)")
    header = picture_header(content)
    # OpenCV decodes a JPEG that was cut off without complaint and fills the rest with grey; its end marker tells. It
    # is looked for behind the header, where the thumbnail that a camera puts there has one of its own.
    if header.format == "jpeg":
        last = max(header.pixel_data, len(content) - 64 * 1024)
        if content.find(b"\xff\xd9", last) < 0 and content.find(b"\xff\xd9", header.pixel_data) < 0:
            raise CourseError(f"{name} is truncated: the end of the JPEG is missing")
    return header


def decode_picture(name: str, content: bytes, mode: int) -> np.ndarray:
    """The pixels of an image file's bytes as `cv2.imdecode` gives them (BGR). Raises CourseError, naming `name`."""
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), mode)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise CourseError(f"{name} is not a readable JPEG or PNG image")
    return pixels


def picture_header(content: bytes) -> PictureHeader:
    """Size and kind of picture of a file's bytes, without decoding it (a 24-megapixel JPEG: microseconds)."""
    try:
        if content[:2] == b"\xff\xd8":
            return _jpeg_header(content)
        if content[:8] == b"\x89PNG\r\n\x1a\n":
            width, height, bits, colours = struct.unpack(">IIBB", content[16:26])
            return PictureHeader("png", width, height, {0: 1, 2: 3, 3: 3, 4: 2}.get(colours, 4), bits)
    except (struct.error, IndexError, ValueError):  # it ends inside its header, and so the decoder will refuse it
        return PictureHeader("jpeg" if content[:2] == b"\xff\xd8" else "", pixel_data=len(content))
    return PictureHeader()


def _jpeg_header(content: bytes) -> PictureHeader:
    """Walk the segments of a JPEG up to its pixels: marker, length, and what it holds (ITU T.81, annex B)."""
    header, place = PictureHeader("jpeg"), 2
    while True:
        place = content.index(b"\xff", place)  # decoders skip stray bytes before a marker, and fill bytes
        while content[place + 1] == 0xFF:
            place += 1
        marker, length = struct.unpack(">xBH", content[place : place + 4])
        if marker == 0xDA:
            return header._replace(pixel_data=place)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, channels = struct.unpack(">BHHB", content[place + 4 : place + 10])
            header = header._replace(width=width, height=height, channels=channels, bits=bits)
        if marker == 0xE1 and content[place + 4 : place + 10] == b"Exif\0\0":
            header = header._replace(orientation=_exif_orientation(content[place + 10 : place + 2 + length]))
        place += 2 + length


def _exif_orientation(block: bytes) -> int:
    """Tag 0x0112 of an EXIF block (a small TIFF), or 1, "upright", where it has none that makes sense."""
    try:
        order = {b"II": "<", b"MM": ">"}[block[:2]]
        (first,) = struct.unpack(f"{order}I", block[4:8])
        (count,) = struct.unpack(f"{order}H", block[first : first + 2])
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack(f"{order}HHIH", block[entry : entry + 10])
            if tag == 0x0112:
                return value if 1 <= value <= 8 else 1
    except (KeyError, struct.error):
        pass
    return 1


def write_image(path: str | Path, pixels: np.ndarray) -> None:
    """Write uint8 RGB (height, width, 3) or a mask (height, width; bool becomes 0/255), whole or not at all."""
    pixels = pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    encoded, content = cv2.imencode(Path(path).suffix, pixels)
    if not encoded:
        raise CourseError(f"{path} could not be encoded as an image")
    write_bytes(path, content.tobytes())
