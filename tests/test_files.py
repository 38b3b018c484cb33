"""Nothing is left half-written, and every unreadable file has its reason."""

import errno

import numpy as np
import pytest

from skinlib import files
from skinlib.files import CourseError


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "metrics.json"
    files.write_text(path, "old")
    with pytest.raises(OSError, match="No space"), files.written_whole(path) as unfinished:
        unfinished.write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_who_reads_while_a_file_is_rewritten_sees_the_old_one_whole(tmp_path):
    path = tmp_path / "metrics.json"
    files.write_text(path, "old")
    with path.open() as reader:
        files.write_text(path, "new and longer")
        assert reader.read() == "old"
    assert path.read_text() == "new and longer"


def test_a_failing_folder_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "segmented"
    with files.folder_written_whole(folder) as unfinished:
        (unfinished / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), files.folder_written_whole(folder) as unfinished:
        (unfinished / "b").write_text("new")
        raise KeyboardInterrupt
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_new_folder_replaces_the_old_one_whole(tmp_path):
    for name in ("a", "b"):
        with files.folder_written_whole(tmp_path / "segmented") as unfinished:
            (unfinished / name).write_text("")
    assert [path.name for path in (tmp_path / "segmented").iterdir()] == ["b"]


def test_colour_order_survives_writing_and_reading(tmp_path):
    red = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    files.write_image(tmp_path / "red.png", red)
    assert (files.read_image(tmp_path / "red.png") == red).all()


def test_masks_are_written_as_0_and_255(tmp_path):
    mask = np.eye(8, dtype=bool)
    files.write_image(tmp_path / "mask.png", mask)
    assert set(np.unique(files.read_image(tmp_path / "mask.png"))) == {0, 255}
    assert (files.read_mask(tmp_path / "mask.png") == mask).all()


def test_list_images_takes_any_case_and_leaves_the_rest(tmp_path):
    for name in ("b.JPG", "a.png", "c.jpeg", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in files.list_images(tmp_path)] == ["a.png", "b.JPG", "c.jpeg"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "0 bytes"), (b"GIF89a", "not a readable"), (b"\xff\xd8\xff\xe0" + b"\0" * 500, "truncated")],
)
def test_unreadable_images_have_a_reason(tmp_path, content, reason):
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    with pytest.raises(CourseError, match=reason):
        files.read_image(path)
    with pytest.raises(CourseError, match="cannot be read"):
        files.read_image(tmp_path / "nowhere.jpg")


def test_a_truncated_jpeg_is_not_taken_for_a_grey_one(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    files.write_image(tmp_path / "whole.jpg", picture)
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(CourseError, match="truncated"):
        files.read_image(tmp_path / "cut.jpg")


def test_digest_sees_values_types_and_shapes():
    numbers = np.arange(6)
    digests = {
        files.digest(numbers),
        files.digest(numbers.reshape(2, 3)),
        files.digest(numbers.astype(float)),
        files.digest(numbers + 1),
        files.digest(np.array(["a", "b"])),
        files.digest(np.array(["a", "c"])),
    }
    assert len(digests) == 6
    assert files.digest(numbers) == files.digest(np.arange(6))
