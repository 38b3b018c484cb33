"""Reading, leaving out, splitting and resizing."""

import re

import numpy as np
import pytest

from skinlib import dataset, isic, synthetic
from skinlib.dataset import PARTS, groups_on_both_sides, load_dataset, split_by_group
from skinlib.files import CourseError, write_image
from skinlib.isic import ISIC2018_IMAGES, ISIC2018_MASKS


def test_embedded_set_has_all_parts_and_no_leak(small_data):
    assert set(small_data.parts) == set(PARTS)
    assert groups_on_both_sides(small_data.groups, small_data.parts) == 0
    assert small_data.images.shape == (160, 192, 192, 3) and small_data.images.dtype == np.uint8
    assert small_data.masks.dtype == bool and set(small_data.labels) == {0, 1}
    assert len(small_data.part("train")) + len(small_data.part("validation")) + len(small_data.part("test")) == 160


def test_select_keeps_all_columns_together(small_data):
    chosen = small_data.select([5, 3])
    assert list(chosen.image_ids) == [small_data.image_ids[5], small_data.image_ids[3]]
    assert (chosen.images[1] == small_data.images[3]).all()
    assert list(chosen.table["image_id"]) == list(chosen.image_ids)
    with pytest.raises(ValueError, match="no part 'tset'"):
        small_data.part("tset")


def test_identity_changes_with_any_pixel(small_data):
    copy = small_data.select(np.arange(len(small_data)))
    assert copy.identity == small_data.identity
    copy.images[0, 0, 0, 0] ^= 1
    assert copy.identity != small_data.identity


def test_split_keeps_groups_together_and_has_the_stated_shares():
    groups = np.array([f"lesion {i // 2}" for i in range(8000)])
    parts = split_by_group(groups)
    assert groups_on_both_sides(groups, parts) == 0
    shares = [np.mean(parts == part) for part in PARTS]
    assert shares == pytest.approx([0.65, 0.15, 0.20], abs=0.03)


def test_split_does_not_move_when_images_are_added():
    groups = np.array([f"lesion {i}" for i in range(300)])
    more = np.array([f"new {i}" for i in range(50)])
    assert (split_by_group(np.concatenate([more, groups]))[50:] == split_by_group(groups)).all()


def test_split_is_pinned():
    """The parts must never move: a model trained yesterday must not meet its training images in a test tomorrow."""
    names = np.array(["SYN_00000", "SYN_00001", "ISIC_0000000", "ISIC_0000003", "a"])
    assert list(split_by_group(names)) == ["train", "train", "train", "train", "validation"]


def test_split_is_pinned_in_its_shares():
    parts = split_by_group(np.array([f"lesion {number}" for number in range(2000)]))
    assert [int((parts == part).sum()) for part in PARTS] == [1304, 270, 426]


def test_leak_is_counted():
    groups = np.array(["a", "a", "b", "b", "c"])
    assert groups_on_both_sides(groups, np.array(["train", "test", "train", "train", "test"])) == 1


def test_official_layout_is_read(isic_folder):
    data = load_dataset("isic2018", isic_folder)
    assert len(data) == 20 and not data.left_out
    assert data.labels[0] == dataset.UNKNOWN and set(data.labels[1:]) == {0, 1}
    assert data.groups[18] == data.groups[19]
    assert data.parts[18] == data.parts[19]
    assert [path.stem for path in data.sources] == list(data.image_ids)
    assert 0.005 < data.masks.mean() < 0.7


def test_quick_takes_a_share_of_every_part(isic_folder, monkeypatch):
    monkeypatch.setattr(dataset, "QUICK_COUNT", 10)
    data = load_dataset("isic2018", isic_folder, quick=True)
    whole = load_dataset("isic2018", isic_folder)
    assert len(data) == 10 and set(data.parts) == set(whole.parts)
    assert list(data.parts) == [whole.parts[list(whole.image_ids).index(name)] for name in data.image_ids]


def test_images_joined_by_any_key_share_a_group():
    keys = {"a": ["L1", "G"], "b": ["", "G"], "c": ["L1", ""], "d": ["L2", ""], "e": ["", ""], "f": ["", "e"]}
    groups = isic.joined_groups(keys)
    assert groups["a"] == groups["b"] == groups["c"] == "G"
    assert groups["d"] == "L2" and groups["e"] == groups["f"] == "e"


def noise(number):
    """A picture like no other: equal ones would be taken for one photograph."""
    return np.random.default_rng(number).integers(0, 256, (90, 120, 3), np.uint8)


def test_equal_names_in_a_folder_of_ones_own_are_different_lesions(tmp_path, disc):
    numbers = iter(range(100))
    for part in ("train", "test"):
        for name in ("benign", "malignant"):
            for number in range(8):
                write_image(tmp_path / part / name / f"{number}.png", noise(next(numbers)))
                write_image(tmp_path / "masks" / part / name / f"{number}_segmentation.png", disc[1])
    data = load_dataset("folder", tmp_path)
    assert len(set(data.groups)) == len(data) == 32
    assert groups_on_both_sides(data.groups, data.parts) == 0


def test_one_photograph_under_two_names_stays_on_one_side(isic_folder):
    """The copy has other colours, another size and JPEG's traces; no table says that it is one."""
    images = isic_folder / ISIC2018_IMAGES
    image = synthetic.make_image(40, 192).image
    write_image(images / "ISIC_9000003.jpg", image)
    copy = np.clip(image[..., ::-1] * 0.8 + 30, 0, 255).astype(np.uint8)
    write_image(images / "ISIC_9000011.jpg", dataset.resize_image(copy, 180))
    for name in ("ISIC_9000003", "ISIC_9000011"):
        size = 192 if name.endswith("3") else 180
        write_image(isic_folder / ISIC2018_MASKS / f"{name}_segmentation.png", np.eye(size, dtype=bool))
    data = load_dataset("isic2018", isic_folder)
    assert data.groups[3] == data.groups[11] == "ISIC_9000003" and data.parts[3] == data.parts[11]
    assert len(set(data.groups)) == 18  # and the pair that the table names
    report = dataset.audit(data)
    assert not report.across_parts and not report.across_groups and not report.split_groups


def test_copies_of_a_test_image_are_left_out_of_training(tmp_path, disc):
    for number in range(40):
        part = "test" if number < 10 else "train"
        name = tmp_path / part / ("benign", "malignant")[number % 2] / f"{number}.png"
        write_image(name, noise(3 if number == 20 else number))
        write_image(name.with_name(f"{number}_segmentation.png"), disc[1])
    data = load_dataset("folder", tmp_path)
    assert [name for name, _ in data.left_out] == ["20.png"] and "a copy" in data.left_out[0][1]
    assert len(data) == 39 and (data.parts == "test").sum() == 10


def test_training_images_that_are_all_copies_of_test_images_are_no_training_part(tmp_path, disc):
    for part in ("train", "test"):
        for number in range(8):
            name = tmp_path / part / ("benign", "malignant")[number % 2] / f"{part}{number}.png"
            write_image(name, noise(number))
            write_image(name.with_name(f"{part}{number}_segmentation.png"), disc[1])
    with pytest.raises(CourseError, match="of 8 images in 8 groups, none falls into the train part"):
        load_dataset("folder", tmp_path)


def test_joining_is_transitive_and_named_by_the_first():
    groups = np.array(["c", "a", "b", "d"])
    assert list(dataset._joined(groups, np.array([[0, 2], [2, 3]]))) == ["b", "a", "b", "b"]
    assert list(dataset._joined(groups, np.empty((0, 2), int))) == list(groups)


def test_one_mask_for_two_images_is_refused(tmp_path, disc):
    for name in ("benign", "malignant"):
        write_image(tmp_path / "train" / name / "1.png", disc[0])
    write_image(tmp_path / "masks" / "1_segmentation.png", disc[1])
    with pytest.raises(CourseError, match="would be the mask of both"):
        load_dataset("folder", tmp_path)


def test_images_are_rgb(isic_folder):
    image = isic_folder / ISIC2018_IMAGES / "ISIC_9000003.jpg"
    write_image(image, np.full((64, 64, 3), (250, 120, 10), np.uint8))
    data = load_dataset("isic2018", isic_folder)
    assert data.images[3].mean((0, 1)) == pytest.approx([250, 120, 10], abs=4)


def test_folder_layout_is_read_and_its_own_test_part_kept(tmp_path, disc):
    numbers = iter(range(100))
    for part, name, count in (("Train", "benign", 12), ("Train", "Malignant", 12), ("test", "benign", 3)):
        for i in range(count):
            suffix = (".jpg", ".JPEG", ".png")[i % 3]
            write_image(tmp_path / part / name / f"{part}{name}{i}.png", noise(next(numbers)))
            (tmp_path / part / name / f"{part}{name}{i}.png").rename(tmp_path / part / name / f"{name}{i}{suffix}")
            write_image(tmp_path / part / name / f"{name}{i}_segmentation.png", disc[1])
    data = load_dataset("folder", tmp_path)
    assert len(data) == 27 and not data.left_out
    assert (data.parts == "test").sum() == 3 and {"train", "validation"} <= set(data.parts)
    assert (data.labels == 1).sum() == 12


def test_unusable_images_are_left_out_and_named(isic_folder):
    images, masks = isic_folder / ISIC2018_IMAGES, isic_folder / ISIC2018_MASKS
    content = (images / "ISIC_9000005.jpg").read_bytes()
    (images / "ISIC_9000005.jpg").write_bytes(content[: len(content) // 2])
    (masks / "ISIC_9000006_segmentation.png").unlink()
    data = load_dataset("isic2018", isic_folder)
    assert len(data) == 18
    reasons = dict(data.left_out)
    assert "truncated" in reasons["ISIC_9000005.jpg"]
    assert "missing" in reasons["ISIC_9000006.jpg"]


@pytest.mark.parametrize(
    ("number", "damage", "reason"),
    [
        (7, lambda image, mask: image.write_bytes(b""), "0 bytes"),
        (7, lambda image, mask: image.write_bytes(b"not an image"), "not a readable"),
        (7, lambda image, mask: write_image(mask, np.zeros((64, 64), bool)), "no pixel above 128"),
        (7, lambda image, mask: write_image(mask, np.ones((60, 64), bool)), "mask is 64×60, the image 64×64"),
    ],
)
def test_each_damage_has_its_reason(isic_folder, number, damage, reason):
    name = f"ISIC_900000{number}"
    damage(isic_folder / ISIC2018_IMAGES / f"{name}.jpg", isic_folder / ISIC2018_MASKS / f"{name}_segmentation.png")
    data = load_dataset("isic2018", isic_folder)
    assert len(data) == 19
    assert reason in dict(data.left_out)[f"{name}.jpg"]


def test_too_many_unusable_images_stop_the_run(isic_folder):
    for number in range(5):
        (isic_folder / ISIC2018_IMAGES / f"ISIC_900000{number}.jpg").write_bytes(b"")
    with pytest.raises(CourseError, match="5 of 20 images cannot be used"):
        load_dataset("isic2018", isic_folder)


def _remove(path):
    for child in path.iterdir():
        child.unlink()
    path.rmdir()


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda root: _remove(root / ISIC2018_MASKS), "no folder ISIC2018_Task1_Training_GroundTruth"),
        (lambda root: [path.unlink() for path in (root / ISIC2018_MASKS).iterdir()], "holds no mask"),
        (lambda root: [path.unlink() for path in (root / ISIC2018_IMAGES).iterdir()], "holds no .jpg"),
        (lambda root: (root / "metadata.csv").unlink(), "metadata.csv is missing"),
        (lambda root: (root / "metadata.csv").write_text("id,label\n1,2\n"), "no column isic_id or diagnosis_1"),
    ],
)
def test_wrong_folders_are_explained_in_one_line(isic_folder, break_it, words):
    break_it(isic_folder)
    with pytest.raises(CourseError, match=re.escape(words)) as error:
        load_dataset("isic2018", isic_folder)
    assert "\n" not in str(error.value)


def test_unknown_data_set_and_missing_or_empty_folder(tmp_path):
    with pytest.raises(
        CourseError, match="no data set 'isic2081'; choose one of: synthetic, isic2016, isic2018, ham10000, folder"
    ):
        load_dataset("isic2081", tmp_path)
    with pytest.raises(CourseError, match="does not exist"):
        load_dataset("isic2018", tmp_path / "nowhere")
    with pytest.raises(CourseError, match="train/benign"):
        load_dataset("folder", tmp_path)


def test_too_few_images_to_split_say_so(tmp_path, disc):
    for name in ("a.png", "a_segmentation.png"):
        write_image(tmp_path / "train" / "benign" / name, disc[name != "a.png"])
    with pytest.raises(CourseError, match="of 1 images in 1 groups, none falls into the"):
        load_dataset("folder", tmp_path)


def test_folder_without_masks_says_so(tmp_path, disc):
    write_image(tmp_path / "train" / "benign" / "a.png", disc[0])
    with pytest.raises(CourseError, match="holds no masks"):
        load_dataset("folder", tmp_path)


def test_resizing_averages_areas():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, :2] = 200
    assert (dataset.resize_image(image, 2)[0, 0] == 200).all()
    mask = np.zeros((6, 6), bool)
    mask[:3, :3] = True
    assert dataset.resize_mask(mask, 2).tolist() == [[True, False], [False, False]]
    assert dataset.resize_mask(mask, (12, 6)).shape == (12, 6)
    half = np.array([[1, 1, 0, 0], [0, 0, 0, 1]], bool)  # half of the left block, a quarter of the right one
    assert dataset.resize_mask(half, (1, 2)).tolist() == [[True, False]]


def test_real_isic2018_is_whole_and_without_leak(real_isic2018):
    data = load_dataset("isic2018", real_isic2018)
    assert len(data) == 1973 and not data.left_out
    assert (data.labels == 0).sum() == 1582 and (data.labels == 1).sum() == 391
    assert groups_on_both_sides(data.groups, data.parts) == 0
    assert len(set(data.groups)) < 1973  # near-duplicates share a group


def test_real_ham10000_is_whole_and_no_lesion_crosses(real_ham10000):
    data = load_dataset("ham10000", real_ham10000, masks_needed=False)
    lesions = data.table["lesion_id"].to_numpy(dtype=str)
    assert len(data) == 10_015 and len(set(lesions)) == 7470 and not data.left_out
    assert data.label_counts == {"benign": 8061, "malignant": 1954, "not known": 0}
    assert groups_on_both_sides(lesions, data.parts) == groups_on_both_sides(data.groups, data.parts) == 0
    assert set(data.table["confirmed"]) == {"histo", "follow_up", "consensus", "confocal"}
    report = dataset.audit(data)
    assert report.clean and not report.across_groups
