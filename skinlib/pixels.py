"""From image files to small arrays, and no slower than need be: a JPEG is decoded at a fraction of its size.

A photograph of 12 megapixels is wanted at 192×192 pixels. The JPEG codec itself can give half, a quarter or an eighth
of the size for little more than the reading of its bits, and several files are decoded at a time.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from skinlib.files import CourseError, PictureHeader, decode_picture, read_picture_file

DECODER_VERSION = 1  # part of what a stored decoding is known by: raise it with every change that alters a pixel
REDUCTIONS = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
THREADS = min(8, os.cpu_count() or 1)  # each may hold a whole mask of 24 megapixels, so not without limit
GREY_VALUES = slice(16, 240)  # what a clean mask holds only along the lesion's edge
MOST_GREY = 0.10  # share of such pixels above which a mask is taken for something else, such as a picture


class Pixels(NamedTuple):
    """One image at its working size.

    image      uint8 RGB (size, size, 3)
    mask       bool (size, size), True inside the lesion; all False where there is no mask
    remarks    what is odd about the files, each a short clause
    """

    image: np.ndarray
    mask: np.ndarray
    remarks: tuple[str, ...]


def read_pairs(pairs: Sequence[tuple[Path, Path | None]], size: int) -> Iterator[Pixels | CourseError]:
    """Decode images and their masks in parallel, in order; for one that cannot be used, the error that says why."""

    def read(pair: tuple[Path, Path | None]) -> Pixels | CourseError:
        try:
            return read_pair(*pair, size)
        except CourseError as error:
            return error

    yield from in_parallel(read, pairs)


def in_parallel(work: Callable, items: Iterable, ahead: int = 8 * THREADS) -> Iterator:
    """`work(item)` of each item, in their order, done by threads; `items` may be an iterator that makes them.

    Only about `ahead` items are under way at a time: whoever uses the results may be slower than the work. Raises
    what `work` raises.
    """
    # OpenCV lets go of Python's lock while it decodes, so threads do.
    pool, waiting = ThreadPoolExecutor(THREADS), deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # at an interruption, the rest is not done first


def read_pair(image: Path, mask: Path | None, size: int) -> Pixels:
    """One image and its mask at (size, size). Raises CourseError with the reason if either cannot be used."""
    pixels, shape, remarks = read_small_image(image, size)
    if mask is None:
        return Pixels(pixels, np.zeros((size, size), bool), remarks)
    small, more = read_small_mask(mask, size, shape)
    return Pixels(pixels, small, remarks + more)


def read_small_image(path: Path, size: int) -> tuple[np.ndarray, tuple[int, int], tuple[str, ...]]:
    """An image file as uint8 RGB (size, size, 3), its own (height, width) as it is to be seen, and remarks."""
    content, header = read_picture_file(path)
    decoded = decode_picture(path.name, content, reduced_mode(header, size))
    small = cv2.cvtColor(resize_image(decoded, size), cv2.COLOR_BGR2RGB)
    # OpenCV turns PNG files too, whose header is not searched for an orientation: they are decoded whole.
    shape = header.oriented_shape if header.format == "jpeg" else decoded.shape[:2]
    return small, shape, _remarks_on(header)


def reduced_mode(header: PictureHeader, size: int) -> int:
    """The OpenCV reading mode with the strongest reduction that leaves both sides at least `size` pixels long."""
    if header.format == "jpeg":
        for factor, mode in REDUCTIONS.items():
            if -(-min(header.width, header.height) // factor) >= size:  # the codec rounds up
                return mode
    return cv2.IMREAD_COLOR


def read_small_mask(path: Path, size: int, shape: tuple[int, int]) -> tuple[np.ndarray, tuple[str, ...]]:
    """A mask file as bool (size, size), and remarks; `shape` is the (height, width) that it must have.

    Raises CourseError with the reason if it is none: of another size, empty, or grey where it should be black or
    white. More than 128 is lesion, as in ISIC's scoring.
    """
    content, _ = read_picture_file(path)
    grey = decode_picture(path.name, content, cv2.IMREAD_GRAYSCALE)
    height, width = grey.shape
    if grey.shape != tuple(shape):
        raise CourseError(f"its mask is {width}×{height}, the image {shape[1]}×{shape[0]}")
    counts = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel()
    if not counts[129:].any():
        if counts[1] and not counts[2:].any():
            raise CourseError("its mask holds the values 0 and 1 where 0 and 255 are meant: multiply it by 255")
        raise CourseError("its mask has no pixel above 128 (masks are 0 and 255)")
    share = counts[GREY_VALUES].sum() / grey.size
    if share > MOST_GREY:
        raise CourseError(f"{share:.0%} of its mask is grey (masks are 0 and 255): is it a mask?")
    mask = grey > 128
    small = resize_mask(mask, size)
    if not small.any():
        raise CourseError(f"its mask marks {int(counts[129:].sum())} of {grey.size} pixels: nothing of it is left")
    return small, () if counts[:129].any() else ("its mask covers the whole image",)


def _remarks_on(header: PictureHeader) -> tuple[str, ...]:
    remarks = {
        "it is grey, without colour": header.channels in (1, 2),
        "it is CMYK, turned into RGB without a colour profile": header.format == "jpeg" and header.channels == 4,
        "its transparency (alpha channel) is ignored": header.format == "png" and header.channels in (2, 4),
        f"it has {header.bits} bits per channel, of which 8 are used": header.bits > 8,
        "it is turned as its EXIF orientation says": header.orientation != 1,
    }
    return tuple(text for text, holds in remarks.items() if holds)


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """One picture (h, w, 3) to (size, size, 3), uint8. The aspect ratio is not kept: 4:3 photographs get narrower."""
    shrink = min(image.shape[:2]) >= size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)


def resize_mask(mask: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """One bool mask (h, w) to (size, size), or to a (height, width): a pixel is lesion where half its area is."""
    height, width = (size, size) if isinstance(size, int) else size
    shrink = mask.shape[0] >= height and mask.shape[1] >= width
    share = cv2.resize(
        mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    )
    return share >= 0.5
