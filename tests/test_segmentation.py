"""Otsu, clean masks, crops, and the folder that lesson 4 reads."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from skinlib import evaluation, segmentation, synthetic
from skinlib.files import CourseError
from skinlib.segmentation import clean_mask, crop_lesion, lesion_box


def test_otsu_finds_a_dark_disc(disc):
    image, mask = disc
    assert evaluation.dice(mask, segmentation.otsu_mask(image)) > 0.95


def test_otsu_on_a_plain_picture_finds_nothing():
    assert not segmentation.otsu_mask(np.full((40, 40, 3), 128, np.uint8)).any()


def test_clean_mask_keeps_the_part_in_the_middle_and_fills_holes():
    mask = np.zeros((40, 40), bool)
    mask[14:26, 14:26] = True
    mask[18:20, 18:20] = False
    mask[0:3, 0:3] = True
    expected = np.zeros((40, 40), bool)
    expected[14:26, 14:26] = True
    assert (clean_mask(mask) == expected).all()


def test_clean_mask_prefers_a_large_part_beside_the_middle_to_a_speck_in_it():
    mask = np.zeros((40, 40), bool)
    mask[20, 20] = True
    mask[5:15, 5:15] = True
    assert clean_mask(mask).sum() == 100


def test_clean_mask_of_nothing_is_nothing():
    assert not clean_mask(np.zeros((5, 5), bool)).any()


def cleaned_by_definition(mask):
    """What lesson 03 derives: every part weighed pixel by pixel, and SciPy's own filling of holes."""
    parts, count = ndimage.label(mask)
    rows, columns = np.indices(mask.shape)
    height, width = mask.shape
    from_centre = ((rows + 0.5) / height - 0.5) ** 2 + ((columns + 0.5) / width - 0.5) ** 2
    worth = ndimage.sum_labels(np.exp(-from_centre / (2 * 0.25**2)), parts, np.arange(1, count + 1))
    return ndimage.binary_fill_holes(parts == 1 + int(np.argmax(worth))) if count else np.zeros(mask.shape, bool)


def test_clean_mask_is_what_its_definition_says():
    rng = np.random.default_rng(0)
    painted = [synthetic.make_image(number, 96).mask for number in range(8)]
    noise = [rng.random(rng.integers(1, 60, 2)) < rng.random() for _ in range(150)]
    coarse = [np.kron(rng.random((12, 9)) < 0.5, np.ones((5, 7))) > 0 for _ in range(50)]
    ring = ~np.pad(np.zeros((5, 5), bool), 1, constant_values=True)
    twins = np.tile(np.pad(np.ones((4, 4), bool), 3), (2, 2))  # equally worthy: the first one wins
    for mask in [*painted, *noise, *coarse, ring, ~ring, twins, np.ones((6, 4), bool), np.zeros((3, 3), bool)]:
        assert (clean_mask(mask) == cleaned_by_definition(mask)).all()
    assert clean_mask(twins)[:10, :10].sum() == clean_mask(twins).sum() == 16


def test_box_has_the_margin_and_stays_square(disc):
    _, mask = disc
    top, bottom, left, right = lesion_box(mask, margin=0.5)
    assert bottom - top == right - left == pytest.approx(2 * 39, abs=2)
    assert (top + bottom) / 2 == pytest.approx(45, abs=1) and (left + right) / 2 == pytest.approx(60, abs=1)


@pytest.mark.parametrize("corner", [(0, 0), (0, 110), (80, 0), (80, 110)])
def test_box_at_the_edge_is_moved_into_the_picture(corner):
    mask = np.zeros((90, 120), bool)
    mask[corner[0] : corner[0] + 10, corner[1] : corner[1] + 10] = True
    top, bottom, left, right = lesion_box(mask, 0.5)
    assert 0 <= top < bottom <= 90 and 0 <= left < right <= 120
    assert bottom - top == right - left == 20
    assert mask[top:bottom, left:right].sum() == 100


def test_box_of_no_lesion_is_the_whole_picture_and_of_a_huge_one_what_fits():
    assert lesion_box(np.zeros((90, 120), bool), 0.15) == (0, 90, 0, 120)
    assert lesion_box(np.ones((90, 120), bool), 0.15) == (0, 90, 0, 120)


def test_crop_is_what_the_cnn_reads(disc):
    crop = crop_lesion(*disc)
    assert crop.shape == (180, 180, 3) and crop.dtype == np.uint8
    assert np.abs(crop[90, 90].astype(int) - (90, 60, 40)).max() < 3
    assert np.abs(crop[2, 2].astype(int) - (220, 180, 160)).max() < 3


def test_probabilities_become_clean_masks_of_the_asked_size():
    probabilities = np.zeros((2, 128, 128), np.float32)
    probabilities[0, 40:80, 40:80] = 0.9
    masks = segmentation.masks_from_probabilities(probabilities, 192)
    assert masks.shape == (2, 192, 192) and masks.dtype == bool
    assert masks[0].mean() == pytest.approx((40 / 128) ** 2, rel=0.03) and not masks[1].any()


def test_segmented_folder_is_laid_out_and_read_back(small_data, tmp_path):
    data = small_data.select(np.arange(40))
    data.labels[0] = -1
    data.table.loc[3, "diagnosis"] = ""  # of which nobody has told
    folder, made_from = tmp_path / "segmented", {"dataset": "synthetic", "unet": "abc"}
    table = segmentation.write_segmented(data, data.masks, folder, made_from)
    assert len(table) == 39
    for _, row in table.iterrows():
        side = "test" if row["part"] == "test" else "train"
        assert row["file"].startswith(f"{side}/{('benign', 'malignant')[row['label']]}/")
    files = {str(path.relative_to(folder)).replace("\\", "/") for path in folder.rglob("*.png")}
    assert files == set(table["file"])
    crops, again = segmentation.read_segmented(folder, made_from)
    assert crops.shape == (39, 180, 180, 3)
    assert (crops[5] == crop_lesion(data.images[6], data.masks[6])).all()
    pd.testing.assert_frame_equal(again, table, check_dtype=False)
    assert again["diagnosis"][2] == "" and set(again["diagnosis"]) > {""}


def test_a_data_set_without_labels_cannot_be_cropped_for_lesson_4(small_data, tmp_path):
    data = small_data.select([0, 1])
    data.labels[:] = -1
    with pytest.raises(CourseError, match="no image has a label"):
        segmentation.write_segmented(data, data.masks, tmp_path / "segmented", {})
    assert list(tmp_path.iterdir()) == []


def test_segmented_folder_of_another_origin_or_incomplete_is_not_believed(small_data, tmp_path):
    data, folder, made_from = small_data.select(np.arange(10)), tmp_path / "segmented", {"unet": "abc"}
    assert segmentation.read_segmented(folder, made_from) is None
    table = segmentation.write_segmented(data, data.masks, folder, made_from)
    assert segmentation.read_segmented(folder, {"unet": "other"}) is None
    assert json.loads((folder / "made_from.json").read_text()) == made_from
    kept = (folder / "crops.csv").read_text()
    table.drop(columns="diagnosis").to_csv(folder / "crops.csv", index=False)  # as it was before they were kept
    assert segmentation.read_segmented(folder, made_from) is None
    (folder / "crops.csv").write_text(kept)
    assert segmentation.read_segmented(folder, made_from) is not None
    (folder / table["file"][3]).unlink()
    assert segmentation.read_segmented(folder, made_from) is None


def test_crop_variants_show_the_cnn_more_or_less(disc):
    image, mask = disc
    crops = {variant: segmentation.crop_lesion(image, mask, variant=variant) for variant in segmentation.CROP_VARIANTS}
    inside = {variant: (crop.mean(axis=2) < 120).mean() for variant, crop in crops.items()}
    assert inside["whole image"] < inside["crop with margin"] < inside["tight crop"]
    assert inside["whole image"] == pytest.approx(mask.mean(), abs=0.01)
    assert inside["tight crop"] == pytest.approx(mask[26:65, 41:80].mean(), abs=0.01)  # the disc's own square
    assert (crops["background painted out"][0] == 0).all() and (crops["crop with margin"][0] > 150).any()
    nothing = np.zeros_like(mask)
    for variant in segmentation.CROP_VARIANTS:
        assert segmentation.crop_lesion(image, nothing, variant=variant).mean() > 100
    with pytest.raises(ValueError, match="no variant 'crop'"):
        segmentation.crop_lesion(image, mask, variant="crop")
    assert segmentation.crop_lesions(image[None], mask[None], "tight crop").shape == (1, 180, 180, 3)
    two = crops["crop and whole image"]
    assert two.shape == (180, 180, 6) and two.dtype == np.uint8
    np.testing.assert_array_equal(two[..., :3], crops["crop with margin"])
    np.testing.assert_array_equal(two[..., 3:], crops["whole image"])
    assert segmentation.crop_lesions(image[None][:0], mask[None][:0]).shape == (0, 180, 180, 3)
