"""What a split by image pretends: nothing where images are independent, much where they come in copies."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from skinlib import synthetic
from skinlib.leakage import SCORES, image_features, pretended


def noise(lesions: int, views: int, spread: float = 0.01) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features that say nothing about the label, but which lesion it is."""
    rng = np.random.default_rng(0)
    groups = np.repeat([f"lesion {i}" for i in range(lesions)], views)
    features = np.repeat(rng.normal(size=(lesions, 8)), views, axis=0)
    labels = np.repeat(rng.integers(0, 2, lesions), views)
    return features + rng.normal(scale=spread, size=features.shape), labels, groups


def test_copies_pretend_a_perfect_classifier_where_nothing_can_be_learned():
    found = pretended(*noise(200, 3))
    summary = found.summary
    assert summary["by_image_balanced_accuracy"].value > 0.95
    assert summary["by_lesion_balanced_accuracy"].value == pytest.approx(0.5, abs=0.08)
    assert summary["gap_balanced_accuracy"].low > 0.3 and summary["effect_auroc"].low > 0.3
    assert summary["kept_auroc"].value > 0.99 and summary["removed_auroc"].value == pytest.approx(0.5, abs=0.08)
    # Both of an image's siblings are in the test part too with a chance of about 0.2 * 0.2.
    assert summary["siblings"].value == pytest.approx(0.96, abs=0.02)
    assert len(found.runs) == 20 and set(summary) == set(found.runs)


def test_independent_images_pretend_nothing():
    found = pretended(*noise(400, 1))
    gap = found.summary["gap_balanced_accuracy"]
    assert gap.low < 0 < gap.high or abs(gap.value) < 0.02
    assert found.summary["siblings"].value == 0
    assert np.isnan(found.summary["effect_auroc"].value) and np.isnan(found.summary["seen_auroc"].value)
    assert found.summary["unseen_auroc"] == found.summary["by_image_auroc"]


def test_the_seed_decides_and_any_classifier_will_do():
    data = noise(60, 2)
    assert pretended(*data, repeats=3).runs.equals(pretended(*data, repeats=3).runs)
    assert not pretended(*data, repeats=3).runs.equals(pretended(*data, repeats=3, seed=1).runs)
    smooth = pretended(*data, repeats=5, model=LogisticRegression())
    assert smooth.summary["effect_auroc"].value < pretended(*data, repeats=5).summary["effect_auroc"].value


def test_differences_are_those_of_the_runs_and_unknown_labels_do_not_count():
    features, labels, groups = noise(60, 2)
    some = np.where(np.arange(len(labels)) < 20, -1, labels)
    runs = pretended(features, some, groups, repeats=4).runs
    assert runs.equals(pretended(features[20:], labels[20:], groups[20:], repeats=4).runs)
    for score in SCORES:
        assert np.allclose(runs[f"gap_{score}"], runs[f"by_image_{score}"] - runs[f"by_lesion_{score}"])
        assert np.allclose(runs[f"effect_{score}"], runs[f"kept_{score}"] - runs[f"removed_{score}"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f, y, g: (f[:-1], y, g), "do not match"),
        (lambda f, y, g: (f, np.zeros_like(y), g), "two lesions of either class"),
        (lambda f, y, g: (f[:9], y[:9], g[:9]), "ten labelled images"),
        (lambda f, y, g: (f, y, g, 1), "2 repeats"),
    ],
)
def test_what_cannot_be_measured_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        pretended(*change(*noise(20, 2)))


def test_features_know_a_lesion_under_other_light_and_turned_round():
    images = np.stack([synthetic.make_image(number).image for number in range(12)])
    warmer = np.clip((images + 1.0) * (0.9, 0.8, 0.7) - 1, 0, 255).astype(np.uint8)
    turned = np.rot90(images, 2, (1, 2))
    features = image_features(images)
    assert features.shape == (12, 329) and features.dtype == np.float32 and np.isfinite(features).all()
    for changed in (warmer, turned):
        distances = np.linalg.norm(features[:, None] - image_features(changed)[None], axis=-1)
        assert (distances.argmin(1) == np.arange(12)).all()


def test_features_of_odd_images_are_finite():
    flat = np.stack([np.full((40, 40, 3), value, np.uint8) for value in (0, 128, 255)])
    assert np.isfinite(image_features(flat)).all()
    assert image_features(flat[:0]).shape == (0, 329)
