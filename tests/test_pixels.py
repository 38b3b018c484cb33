"""Image files of every kind come out upright, in the right colours and at the right size, or with a reason."""

import io
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from skinlib import files, pixels, synthetic
from skinlib.files import CourseError, PictureHeader, UnreadableFile, picture_header, read_image, write_image
from skinlib.pixels import read_pair, read_pairs, read_small_image, read_small_mask, reduced_mode, resize_image

CORNERS = np.array([[(230, 30, 20), (20, 200, 40)], [(30, 40, 210), (200, 120, 60)]], np.uint8)


@pytest.fixture
def photograph() -> np.ndarray:
    """A picture (300, 400, 3) with another colour in each quarter, so that every turn and swap of channels shows."""
    return CORNERS.repeat(150, axis=0).repeat(200, axis=1)


def encoded(picture, format, mode=None, **options) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(picture)
    (image.convert(mode) if mode else image).save(file, format, **options)
    return file.getvalue()


def quarters(picture):
    rows, columns = (np.array(picture.shape[:2]) // 4).tolist()
    return picture[[rows, rows, -rows, -rows], [columns, -columns, columns, -columns]].astype(int)


def assert_upright(picture, tolerance=6):
    assert np.abs(quarters(picture) - CORNERS.reshape(4, 3)).max() <= tolerance


@pytest.mark.parametrize(
    ("width", "height", "mode"),
    [
        (4000, 3000, cv2.IMREAD_REDUCED_COLOR_8),
        (800, 512, cv2.IMREAD_REDUCED_COLOR_8),
        (800, 504, cv2.IMREAD_REDUCED_COLOR_4),  # an eighth is 63 pixels
        (505, 505, cv2.IMREAD_REDUCED_COLOR_8),  # 63.1, which the codec rounds up
        (256, 5000, cv2.IMREAD_REDUCED_COLOR_4),
        (130, 130, cv2.IMREAD_REDUCED_COLOR_2),
        (126, 130, cv2.IMREAD_COLOR),
        (20, 20, cv2.IMREAD_COLOR),
    ],
)
def test_the_strongest_reduction_that_leaves_enough_is_taken(tmp_path, width, height, mode):
    assert reduced_mode(PictureHeader("jpeg", width, height, 3), 64) == mode
    assert reduced_mode(PictureHeader("png", width, height, 3), 64) == cv2.IMREAD_COLOR
    if width * height < 1e6:
        content = encoded(np.zeros((height, width, 3), np.uint8), "JPEG")
        decoded = files.decode_picture("", content, mode)
        assert min(decoded.shape[:2]) >= min(64, width, height)


def test_decoding_small_is_decoding_whole_and_averaging(tmp_path):
    painted = cv2.resize(synthetic.make_image(1, 512).image, (1600, 1200), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, 5, painted.shape)
    fine = (painted + noise).clip(0, 255).astype(np.uint8)
    (tmp_path / "a.jpg").write_bytes(encoded(fine, "JPEG", quality=95))
    small, shape, remarks = read_small_image(tmp_path / "a.jpg", 96)
    whole = resize_image(read_image(tmp_path / "a.jpg"), 96)
    assert small.shape == (96, 96, 3) and shape == (1200, 1600) and remarks == ()
    assert np.abs(small.astype(int) - whole).mean() < 1 and np.abs(small.astype(int) - whole).max() < 16


def test_a_large_jpeg_is_not_decoded_whole(tmp_path, monkeypatch, photograph):
    large = cv2.resize(photograph, (1600, 1200))
    (tmp_path / "a.jpg").write_bytes(encoded(large, "JPEG"))
    sizes = []
    decode = pixels.decode_picture
    monkeypatch.setattr(pixels, "decode_picture", lambda *args: sizes.append(decode(*args).shape) or decode(*args))
    read_small_image(tmp_path / "a.jpg", 128)
    assert sizes == [(150, 200, 3)]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [32, 290])  # decoded at a fraction, and whole
def test_exif_orientation_is_applied(tmp_path, photograph, orientation, size):
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}  # fmt: skip
    stored = Image.fromarray(photograph)
    stored = stored.transpose(undo[orientation]) if orientation > 1 else stored
    tags = Image.Exif()
    tags[0x010F], tags[0x0112] = "maker", orientation
    stored.save(tmp_path / "turned.jpg", exif=tags, quality=95)
    write_image(tmp_path / "mask.png", np.arange(400) < np.full((300, 1), 100))
    read = read_pair(tmp_path / "turned.jpg", tmp_path / "mask.png", size)
    assert_upright(read.image)
    assert read.mask[:, : size // 4 - 1].all() and not read.mask[:, size // 4 + 1 :].any()
    assert read.remarks == (("it is turned as its EXIF orientation says",) if orientation > 1 else ())
    if orientation >= 5:
        write_image(tmp_path / "as stored.png", np.ones((400, 300), bool))
        with pytest.raises(CourseError, match="mask is 300×400, the image 400×300"):
            read_pair(tmp_path / "turned.jpg", tmp_path / "as stored.png", size)


@pytest.mark.parametrize(
    ("format", "mode", "remark"),
    [
        ("JPEG", "CMYK", "it is CMYK, turned into RGB without a colour profile"),
        ("PNG", "RGBA", "its transparency (alpha channel) is ignored"),
        ("PNG", "P", None),
        ("PNG", None, None),
        ("JPEG", None, None),
    ],
)
def test_kinds_of_colour_files_are_read_right(tmp_path, photograph, format, mode, remark):
    path = tmp_path / f"picture.{format.lower()}"
    path.write_bytes(encoded(photograph, format, mode, **({"quality": 95} if format == "JPEG" else {})))
    for size in (32, 290):
        small, _, remarks = read_small_image(path, size)
        assert_upright(small, 40 if mode == "P" else 6)  # Pillow's palette has no such green
        assert remarks == ((remark,) if remark else ())
    assert_upright(read_image(path), 40 if mode == "P" else 6)


def test_grey_and_16_bit_files_are_read_right_and_remarked_on(tmp_path, photograph):
    grey = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)
    for name, content in {"a.jpg": encoded(grey, "JPEG"), "a.png": encoded(grey, "PNG")}.items():
        (tmp_path / name).write_bytes(content)
        small, _, remarks = read_small_image(tmp_path / name, 64)
        assert remarks == ("it is grey, without colour",)
        assert np.abs(quarters(small) - quarters(grey)[:, None]).max() < 5
    cv2.imwrite(str(tmp_path / "deep.png"), photograph[..., ::-1].astype(np.uint16) * 257)
    small, _, remarks = read_small_image(tmp_path / "deep.png", 64)
    assert_upright(small, 1)
    assert remarks == ("it has 16 bits per channel, of which 8 are used",)


def test_headers_tell_size_and_kind(photograph):
    header = picture_header(encoded(photograph, "JPEG", progressive=True))
    assert header[:6] == ("jpeg", 400, 300, 3, 8, 1) and header.oriented_shape == (300, 400)
    assert picture_header(encoded(photograph, "PNG"))[:5] == ("png", 400, 300, 3, 8)
    assert picture_header(encoded(photograph, "PNG", "1"))[:5] == ("png", 400, 300, 1, 1)
    assert picture_header(encoded(photograph, "PNG", "LA")).channels == 2
    assert picture_header(b"GIF89a") == PictureHeader()
    whole = encoded(photograph, "JPEG")
    for end in range(2, 400, 7):  # cut anywhere in its header
        assert picture_header(whole[:end]).format == "jpeg"


@pytest.mark.parametrize(
    "block", [b"", b"II", b"XX*\0\0\0\0\0", b"II*\0\xff\xff\0\0", b"MM\0*\0\0\0\x08\0\x01\x01\x12"]
)
def test_a_damaged_exif_block_means_upright(block):
    assert files._exif_orientation(block) == 1


def jpeg_with_thumbnail(picture) -> bytes:
    """A JPEG whose header holds another, complete JPEG, as cameras write them."""
    thumbnail = encoded(picture[::8, ::8], "JPEG")
    segment = b"Exif\0\0" + thumbnail
    whole = encoded(picture, "JPEG")
    return whole[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + whole[2:]


def test_a_cut_jpeg_is_found_out_even_with_a_thumbnail(tmp_path, photograph):
    content = jpeg_with_thumbnail(photograph)
    (tmp_path / "whole.jpg").write_bytes(content)
    assert_upright(read_small_image(tmp_path / "whole.jpg", 64)[0], 12)
    for left in (0.3, 0.7, 0.99):
        (tmp_path / "cut.jpg").write_bytes(content[: int(len(content) * left)])
        for read in (read_image, lambda path: read_small_image(path, 64)):
            with pytest.raises(CourseError, match=r"cut.jpg is truncated"):
                read(tmp_path / "cut.jpg")


def test_what_a_telephone_writes_behind_a_jpeg_does_not_matter(tmp_path, photograph):
    (tmp_path / "motion.jpg").write_bytes(encoded(photograph, "JPEG") + b"\xff\xda" + bytes(100_000))
    assert_upright(read_small_image(tmp_path / "motion.jpg", 64)[0], 12)


@pytest.mark.parametrize("left", [0.02, 0.5, 0.999])
def test_a_cut_png_has_its_reason(tmp_path, left):
    content = encoded(np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8), "PNG")
    (tmp_path / "cut.png").write_bytes(content[: int(len(content) * left)])
    with pytest.raises(CourseError, match=r"cut.png is not a readable JPEG or PNG image"):
        read_small_image(tmp_path / "cut.png", 32)


def test_what_cannot_be_opened_has_its_reason(tmp_path, monkeypatch):
    (tmp_path / "folder.jpg").mkdir()
    for name in ("folder.jpg", "nowhere.jpg"):
        with pytest.raises(UnreadableFile, match="cannot be read: ") as error:
            read_small_image(tmp_path / name, 32)
        assert str(tmp_path) not in str(error.value)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files.Path, "read_bytes", refuse)
    with pytest.raises(UnreadableFile, match=r"^a.jpg cannot be read: Permission denied$"):
        read_small_image(tmp_path / "a.jpg", 32)


# -- masks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def half() -> np.ndarray:
    """A mask (60, 80) as it should be: its upper half is lesion."""
    return np.repeat(np.array([255, 0], np.uint8), 30)[:, None].repeat(80, axis=1)


def save(path, picture, mode=None, **options):
    path.write_bytes(encoded(picture, "PNG", mode, **options))
    return path


def test_masks_of_every_kind_come_out_alike(tmp_path, half):
    palette = Image.fromarray(np.uint8(half == 0), "P")  # index 0 is white: an inverted palette, as in HAM10000
    palette.putpalette([255, 255, 255, 0, 0, 0])
    kinds = {
        "grey": encoded(half, "PNG"), "one bit": encoded(half, "PNG", "1"), "alpha": encoded(half, "PNG", "LA"),
        "colour": encoded(half, "PNG", "RGB")
    }  # fmt: skip
    for bits in (1, 8):
        file = io.BytesIO()
        palette.save(file, "PNG", bits=bits)
        assert set(np.unique(np.array(Image.open(file))[:30])) == {0}  # the lesion's index is 0
        kinds[f"palette, {bits} bits"] = file.getvalue()
    for name, content in kinds.items():
        (tmp_path / "mask.png").write_bytes(content)
        mask, remarks = read_small_mask(tmp_path / "mask.png", 20, (60, 80))
        assert mask[:10].all() and not mask[10:].any() and remarks == (), name


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda mask: mask // 255, "its mask holds the values 0 and 1 where 0 and 255 are meant: multiply it by 255"),
        (lambda mask: mask * 0, "its mask has no pixel above 128"),
        (lambda mask: mask // 2, "its mask has no pixel above 128"),
        (lambda mask: np.where(np.arange(80) % 4 == 0, 150, mask).astype(np.uint8), "25% of its mask is grey"),
        (lambda mask: mask.T, "its mask is 60×80, the image 80×60"),
        (lambda mask: np.uint8(np.arange(4800).reshape(60, 80) == 7) * 255, "its mask marks 1 of 4800 pixels"),
    ],
)
def test_what_is_no_mask_has_its_reason(tmp_path, half, change, reason):
    with pytest.raises(CourseError) as error:
        read_small_mask(save(tmp_path / "mask.png", np.ascontiguousarray(change(half))), 20, (60, 80))
    assert str(error.value).startswith(reason) and "\n" not in str(error.value)


def test_more_than_128_is_lesion(tmp_path):
    rows = np.repeat(np.array([255, 129, 128, 127, 0], np.uint8), [20, 1, 1, 1, 17])
    mask, _ = read_small_mask(save(tmp_path / "mask.png", rows[:, None].repeat(40, axis=1)), 40, (40, 40))
    assert mask[:21].all() and not mask[21:].any()


def test_a_smooth_edge_is_no_fault_and_a_full_mask_is_remarked_on(tmp_path, disc):
    smooth = cv2.GaussianBlur(np.uint8(disc[1]) * 255, (0, 0), 1)
    assert ((smooth > 16) & (smooth < 240)).mean() > 0.02
    mask, remarks = read_small_mask(save(tmp_path / "smooth.png", smooth), 90, (90, 120))
    assert mask.mean() == pytest.approx(disc[1].mean(), rel=0.05) and remarks == ()
    full = save(tmp_path / "full.png", np.full((60, 80), 255, np.uint8))
    mask, remarks = read_small_mask(full, 20, (60, 80))
    assert mask.all() and remarks == ("its mask covers the whole image",)


def test_pairs_come_in_order_with_errors_in_their_places(tmp_path):
    pairs = []
    for number in range(150):
        path = save(tmp_path / f"{number:03}.png", np.full((9, 9, 3), number, np.uint8))
        if number % 7 == 0:
            path.write_bytes(b"")
        pairs.append((path, None))
    found = list(read_pairs(pairs, 8))
    assert [isinstance(read, CourseError) for read in found] == [number % 7 == 0 for number in range(150)]
    assert all((read.image == number).all() for number, read in enumerate(found) if number % 7)
    assert not found[1].mask.any() and found[1].mask.shape == (8, 8)


def test_at_an_interruption_what_waits_is_not_decoded_first(monkeypatch):
    begun = []

    def decode(image, mask, size):
        begun.append(image)
        time.sleep(0.02)

    monkeypatch.setattr(pixels, "read_pair", decode)
    reading = read_pairs([(number, None) for number in range(10_000)], 8)
    next(reading)
    reading.close()
    assert len(begun) < 4 * pixels.THREADS  # of the 8 for each thread that wait


def test_only_a_few_images_are_decoded_ahead(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(pixels, "read_pair", lambda image, mask, size: begun.append(image))
    reading = read_pairs([(number, None) for number in range(10_000)], 8)
    next(reading)
    reading.close()
    assert len(begun) <= 8 * pixels.THREADS + 2
