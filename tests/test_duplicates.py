"""Copies are found however they were saved, different lesions are not, and the audit says what crosses."""

import dataclasses

import cv2
import numpy as np
import pandas as pd
import pytest

from skinlib import duplicates, isic, synthetic
from skinlib.dataset import LesionDataset, load_dataset, resize_image, split_by_group
from skinlib.duplicates import audit, exact_duplicates, near_duplicates, signatures
from skinlib.files import read_image


@pytest.fixture(scope="module")
def painted() -> np.ndarray:
    """Thirty different lesions, and at the end a second photograph of each of two of them."""
    pictures = [(number, 0) for number in range(30)] + [(2, 1), (7, 1)]
    return np.stack([synthetic.make_image(number, view=view).image for number, view in pictures])


def in_pairs(found) -> list[tuple[int, int]]:
    return list(zip(found.first.tolist(), found.second.tolist(), strict=True))


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


CHANGES = {
    "JPEG": lambda image: as_jpeg(image, 40),
    "smaller": lambda image: resize_image(resize_image(image, 110), 192),
    "brighter": lambda image: np.clip(image * 1.1 + 8, 0, 255).astype(np.uint8),
    "other colours": lambda image: (image * np.array([0.95, 0.8, 0.7])).astype(np.uint8),
    "shifted": lambda image: np.roll(image, (9, -12), (0, 1)),
    "cropped": lambda image: resize_image(image[8:-8, 8:-8], 192),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_nothing_else(painted, change):
    copies = np.stack([CHANGES[change](image) for image in painted[:10]])
    found = near_duplicates(signatures(np.concatenate([painted, copies])))
    assert in_pairs(found) == [(i, len(painted) + i) for i in range(10)]
    assert (found.similarity >= duplicates.NEAR_DUPLICATE).all() and (found.similarity <= 1).all()


def test_mirrored_and_turned_copies_are_found_if_asked_for(painted):
    turns = [lambda image, k=k, m=m: np.rot90(image[:, ::-1] if m else image, k) for m in (0, 1) for k in range(4)]
    copies = np.stack([turn(painted[i]) for i, turn in enumerate(turns)])
    made = signatures(np.concatenate([painted, copies]))
    assert in_pairs(near_duplicates(made)) == [(0, 32)]  # the one that was not turned at all
    assert in_pairs(near_duplicates(made, turned=True)) == [(i, 32 + i) for i in range(8)]


def test_different_lesions_are_no_duplicates(painted):
    assert in_pairs(near_duplicates(signatures(painted), turned=True)) == []
    assert in_pairs(exact_duplicates(painted)) == []


def test_flat_pictures_are_only_ever_identical():
    images = np.full((4, 96, 96, 3), 200, np.uint8)
    images[3] = 201
    assert in_pairs(near_duplicates(signatures(images))) == []
    assert in_pairs(exact_duplicates(images)) == [(0, 1), (0, 2), (1, 2)]


def test_identical_means_every_pixel(painted):
    images = np.concatenate([painted[:3], painted[:2]])
    images[4, 0, 0, 0] ^= 1
    made = signatures(images)
    assert in_pairs(exact_duplicates(images, made)) == [(0, 3)]
    assert in_pairs(near_duplicates(made)) == [(0, 3), (1, 4)]


def test_order_does_not_matter(painted):
    images = np.concatenate([painted[:6], [CHANGES["cropped"](image) for image in painted[:3]]])
    forward, backward = near_duplicates(signatures(images)), near_duplicates(signatures(images[::-1]))
    assert sorted((8 - j, 8 - i) for i, j in in_pairs(backward)) == in_pairs(forward) == [(0, 6), (1, 7), (2, 8)]
    assert sorted(forward.similarity) == pytest.approx(sorted(backward.similarity))


def test_a_read_only_memory_map_will_do(painted, tmp_path):
    np.save(tmp_path / "images.npy", painted[:3])
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert (signatures(mapped) == signatures(painted[:3])).all()
    assert signatures(painted[:3]).shape == (3, 4096) and signatures(painted[:3]).dtype == np.uint8


def test_no_images_and_one_have_no_pairs(painted):
    for images in (painted[:0], painted[:1]):
        assert in_pairs(near_duplicates(signatures(images), turned=True)) == in_pairs(exact_duplicates(images)) == []


@pytest.mark.parametrize("wrong", [np.zeros((2, 64, 64), np.uint8), np.zeros((2, 64, 64, 3), np.float32)])
def test_other_arrays_are_refused(wrong):
    with pytest.raises(ValueError, match="uint8"):
        signatures(wrong)


# -- audit -----------------------------------------------------------------------------------------------------------


def made_dataset(images: np.ndarray, labels: list[int], groups: str, parts: str) -> LesionDataset:
    """`groups` is a letter per image, `parts` one of t, v and e (test)."""
    names = {"t": "train", "v": "validation", "e": "test"}
    ids = np.array([f"image {i}" for i in range(len(images))])
    return LesionDataset(
        name="folder",
        images=images,
        masks=np.zeros(images.shape[:3], bool),
        labels=np.array(labels),
        image_ids=ids,
        groups=np.array(list(groups)),
        parts=np.array([names[part] for part in parts]),
        table=pd.DataFrame({"image_id": ids}),
    )


def test_the_embedded_set_is_clean(small_data):
    found = audit(small_data)
    assert found.clean and not found.across_groups
    assert list(found.parts) == ["train", "validation", "test"]
    assert sum(part.images for part in found.parts.values()) == len(small_data)
    assert found.lines()[-1] == "clean" == str(found).splitlines()[-1]


def test_everything_that_crosses_is_named(painted):
    images = np.concatenate([painted[:5], [painted[0], as_jpeg(painted[1], 60), painted[2]]])
    found = audit(made_dataset(images, [0, 1, 0, 0, 1, 0, 1, 1], "abcddefc", "tttvetet"))
    assert found.split_groups == {"d": ("validation", "test")}
    assert [pair.image_ids for pair in found.across_parts] == [("image 1", "image 6")]
    assert [(pair.groups, pair.exact) for pair in found.across_groups] == [(("a", "e"), True), (("b", "f"), False)]
    assert found.parts["train"] == (5, 4, 0.4, 0, 2)
    # One group with two labels, and the other one's images 3 and 4.
    assert [(c.groups, c.benign, c.malignant) for c in found.conflicts] == [
        (("c",), ("image 2",), ("image 7",)),
        (("d",), ("image 3",), ("image 4",)),
    ]
    assert not found.clean
    assert str(found).splitlines() == [
        "train: 5 images of 4 groups, 40 % malignant",
        "validation: 1 image of 1 group, 0 % malignant",
        "test: 2 images of 2 groups, 100 % malignant",
        "groups in more than one part: 1",
        "  d: validation, test",
        "duplicates across parts: 1",
        "  image 1 (train) and image 6 (test): nearly the same",
        "duplicates across groups: 2",
        "  image 0 (train) and image 5 (train): identical",
        "  image 1 (train) and image 6 (test): nearly the same",
        "duplicates within a part: 2",
        "lesions with two labels: 2",
        "  benign image 2; malignant image 7",
        "  benign image 3; malignant image 4",
        "NOT CLEAN: results on these parts would flatter",
    ]


def test_a_chain_of_groups_and_copies_is_one_lesion(painted):
    images = np.concatenate([painted[:3], painted[1:2]])
    found = audit(made_dataset(images, [0, -1, 0, 1], "aabc", "tttt"))
    assert found.conflicts == ((("a", "c"), ("image 0",), ("image 3",)),)


def test_an_unknown_label_contradicts_nothing(painted):
    found = audit(made_dataset(painted[:3], [-1, 1, -1], "aab", "ttv"))
    assert found.clean and not found.conflicts
    assert found.parts["train"].malignant == 1 and found.parts["validation"].malignant is None
    assert found.lines()[1] == "validation: 1 image of 1 group, no label known"


def test_a_long_report_is_cut_and_says_so(painted):
    found = audit(made_dataset(np.concatenate([painted[:7]] * 2), [0] * 14, "abcdefghijklmn", "t" * 7 + "e" * 7))
    assert len(found.across_parts) == 7 and all(pair.exact for pair in found.across_parts)
    assert found.lines().count("  and 2 more") == 2


# -- real images -----------------------------------------------------------------------------------------------------


def test_real_isic2018_holds_more_copies_than_its_metadata_say(real_isic2018):
    data = load_dataset("isic2018", real_isic2018)
    table = pd.read_csv(real_isic2018 / "metadata.csv", dtype=str, keep_default_na=False)
    named = table[table["duplicate_group"] != ""].groupby("duplicate_group")["isic_id"].agg(list)
    made = near_duplicates(signatures(data.images), turned=True)
    all_pairs = {(data.image_ids[i], data.image_ids[j]) for i, j in in_pairs(made)}
    assert {tuple(sorted(ids)) for ids in named if len(ids) == 2} <= all_pairs
    # Looked at by a person: same hairs, other colours; the last one is upside down.
    known = {("0000215", "0015313"), ("0000206", "0014739"), ("0000162", "0014826"), ("0000228", "0014964")}
    assert len(all_pairs) == 29  # 10 that the table names, and 19 more
    joined = {frozenset(f"ISIC_{name}" for name in pair) for pair in known}
    assert joined <= {frozenset(pair) for pair in all_pairs}
    # As the course splits, none of them stands on two sides, nor in two groups.
    found = audit(data)
    assert found.clean and not found.across_groups
    by_image = audit(dataclasses.replace(data, parts=split_by_group(data.image_ids)))
    assert len(by_image.across_parts) >= 10 and not by_image.clean


def test_real_ham10000_copies_are_of_one_lesion(real_ham10000):
    table = pd.read_csv(real_ham10000 / "HAM10000_metadata.csv").sort_values("lesion_id")[:3000]
    files = [real_ham10000 / "HAM10000_images" / f"{name}.jpg" for name in table["image_id"]]
    found = near_duplicates(signatures(np.stack([resize_image(read_image(file), 192) for file in files])))
    lesions = table["lesion_id"].to_numpy()
    other = {tuple(sorted(lesions[list(pair)])) for pair in in_pairs(found) if len(set(lesions[list(pair)])) == 2}
    # Two numbers, one lesion: a person has looked.
    assert other <= {("HAM_0000792", "HAM_0002366"), ("HAM_0000896", "HAM_0002517")}
    assert len(found.first) > 60


def test_labels_have_the_meaning_that_the_audit_gives_them():
    assert (isic.BENIGN, isic.MALIGNANT, isic.UNKNOWN) == (0, 1, -1)
