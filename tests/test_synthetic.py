"""The embedded data set: deterministic, exact, labelled by its stated rule, and never read from a damaged file."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from skinlib import evaluation, synthetic
from skinlib.files import CourseError


@pytest.fixture(scope="module")
def painted():
    return synthetic.generate(240, 64)


def test_shapes_types_and_table(painted):
    images, masks, table = painted
    assert images.shape == (240, 64, 64, 3) and images.dtype == np.uint8
    assert masks.shape == (240, 64, 64) and masks.dtype == bool
    assert len(table) == 240 and table["image_id"].is_unique
    assert masks.any(axis=(1, 2)).all()
    assert images.std(axis=(1, 2, 3)).min() > 3


def test_same_pixels_again_and_in_another_process():
    program = (
        "import hashlib; from skinlib.synthetic import make_image; s = make_image(5, 96); "
        "print(hashlib.sha256(s.image.tobytes() + s.mask.tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    here = synthetic.make_image(5, 96)
    assert there.strip() == hashlib.sha256(here.image.tobytes() + here.mask.tobytes()).hexdigest()


def test_the_data_card_states_the_rule_that_draws_the_labels():
    card = (Path(__file__).parent.parent / "data" / "README.md").read_text(encoding="utf-8")
    slope, middle = map(float, re.search(r"1 / \(1 \+ exp\(−([\d.]+) \(TDS − ([\d.]+)\)\)\)", card).groups())
    for tds in (1.0, 4.0, 4.9, 6.0, 8.9):
        stated = 1 / (1 + np.exp(-slope * (tds - middle)))
        assert synthetic.probability_of_malignancy(tds) == pytest.approx(stated)


def test_the_same_on_every_machine():
    """Pinned: attributes exactly, pixels to a fraction of a grey level in the mean."""
    samples = [synthetic.make_image(seed, 64) for seed in range(4)]
    assert [s.attributes["tds"] for s in samples] == [3.6, 2.8, 5.0, 7.2]
    assert [s.attributes["label"] for s in samples] == [0, 0, 1, 1]
    assert [s.image.mean() for s in samples] == pytest.approx([124.04, 146.38, 130.54, 81.22], abs=0.3)
    assert [s.mask.mean() for s in samples] == pytest.approx([0.1504, 0.1248, 0.4351, 0.4875], abs=0.002)


def test_generation_in_threads_equals_one_by_one(painted):
    images, masks, _ = painted
    for i, (seed, view) in enumerate(synthetic.picture_list(240)[:20]):
        sample = synthetic.make_image(seed, 64, view)
        assert (sample.image == images[i]).all() and (sample.mask == masks[i]).all()


def test_mask_is_where_the_pigment_is():
    """On a plain skin without artefacts, a lesion of sharp border is found again from its pixels."""
    clean = {"hair": 0, "bubbles": 0, "ruler": False, "ink": False, "dark_corners": False}
    scores = []
    for seed in range(20):
        sample = synthetic.make_image(seed, 192, border=8, colours=["dark brown"], structures=["network"], **clean)
        blue = cv2.GaussianBlur(sample.image[..., 2], (0, 0), 1)
        threshold, _ = cv2.threshold(blue, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        scores.append(evaluation.dice(sample.mask, blue <= threshold))
    assert np.median(scores) > 0.95


def test_mask_at_two_sizes_is_the_same_lesion():
    small, large = synthetic.make_image(3, 64), synthetic.make_image(3, 256)
    shrunk = cv2.resize(large.mask.astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA) >= 0.5
    assert evaluation.dice(small.mask, shrunk) > 0.97


def test_labels_follow_the_stated_probability():
    rng = np.random.default_rng(0)
    lesions = [synthetic.draw_lesion_attributes(rng) for _ in range(4000)]
    scores = [
        synthetic.total_dermoscopy_score(x["asymmetry"], x["border"], len(x["colours"]), len(x["structures"]))
        for x in lesions
    ]
    stated = np.array([synthetic.probability_of_malignancy(score) for score in scores])
    assert 0.2 < stated.mean() < 0.45
    _, _, table = synthetic.generate(400, 32)
    share, probability = table["label"].mean(), table["true_probability"].mean()
    assert abs(share - probability) < 3 * np.sqrt(0.25 / 400)
    assert roc_auc_score(table["label"], table["true_probability"]) > 0.95


def test_total_dermoscopy_score_by_hand():
    assert synthetic.total_dermoscopy_score(0, 0, 1, 1) == pytest.approx(1.0)
    assert synthetic.total_dermoscopy_score(2, 8, 6, 5) == pytest.approx(8.9)


def test_views_show_one_lesion_in_other_photographs(painted):
    _, _, table = painted
    several = table.groupby("lesion_id").filter(lambda rows: len(rows) > 1)
    assert len(several) > 40
    for name in ("label", "tds", "colour_names", "structure_names"):
        assert (several.groupby("lesion_id")[name].nunique() == 1).all()
    first, second = synthetic.make_image(2, 96, 0), synthetic.make_image(2, 96, 1)
    assert (first.image != second.image).mean() > 0.5


def test_artefacts_do_not_depend_on_the_label():
    _, _, table = synthetic.generate(800, 32)
    for name in ("hair", "bubbles", "ruler", "ink", "dark_corners"):
        present = (table[name] > 0).groupby(table["label"]).agg(["mean", "count"])
        difference = present["mean"].diff().iloc[-1]
        spread = np.sqrt((present["mean"] * (1 - present["mean"]) / present["count"]).sum())
        assert abs(difference) < 3.5 * spread, name


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: synthetic.make_image(0, 16), "32 to 2048"),
        (lambda: synthetic.make_image(0, 4096), "32 to 2048"),
        (lambda: synthetic.make_image(0, 64, asymmetry=3), "asymmetry"),
        (lambda: synthetic.make_image(0, 64, colours=["green"]), "colours"),
        (lambda: synthetic.make_image(0, 64, colours=[]), "colours"),
        (lambda: synthetic.make_image(0, 64, simmetry=1), "no attribute"),
        (lambda: synthetic.generate(0), "at least one"),
    ],
)
def test_impossible_requests_are_refused_in_one_line(call, words):
    with pytest.raises(CourseError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def test_cache_is_read_back_unchanged(tmp_path):
    first = synthetic.load(tmp_path, 12, 32)
    (cache,) = (tmp_path / "cache").iterdir()
    stamp = cache.stat().st_mtime_ns
    second = synthetic.load(tmp_path, 12, 32)
    assert cache.stat().st_mtime_ns == stamp
    assert (first[0] == second[0]).all() and (first[1] == second[1]).all()
    assert first[2].astype(str).equals(second[2].astype(str))


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "flipped", "directory"])
def test_damaged_cache_is_painted_anew(tmp_path, damage):
    images, _, _ = synthetic.load(tmp_path, 12, 32)
    (cache,) = (tmp_path / "cache").iterdir()
    content = bytearray(cache.read_bytes())
    if damage == "flipped":
        content[len(content) // 3] ^= 0xFF  # inside the images
    if damage == "directory":
        content[content.rindex(b"PK\x01\x02") + 6] ^= 0xFF  # the zip's own table of contents: version needed
    cache.write_bytes({"truncated": content[:-200], "empty": b"", "garbage": b"no archive"}.get(damage, content))
    again, _, _ = synthetic.load(tmp_path, 12, 32)
    assert (images == again).all()
