"""The measures, on masks of 3×3 pixels known by hand, and against scikit-learn on random ones."""

import numpy as np
import pytest
from sklearn import metrics

from skinlib import evaluation

FULL = np.ones((3, 3), bool)
EMPTY = np.zeros((3, 3), bool)
CORNER = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
ROW = np.array([[1, 1, 1], [0, 1, 0], [0, 0, 0]], bool)


@pytest.mark.parametrize(
    ("drawn", "found", "dice", "jaccard"),
    [
        (CORNER, CORNER, 1, 1),
        (CORNER, EMPTY, 0, 0),
        (EMPTY, CORNER, 0, 0),
        (EMPTY, EMPTY, 1, 1),
        (CORNER, ~CORNER, 0, 0),
        (CORNER, ROW, 4 / 7, 2 / 5),
        (CORNER, FULL, 6 / 12, 3 / 9),
    ],
)
def test_overlap_known_by_hand(drawn, found, dice, jaccard):
    assert evaluation.dice(drawn, found) == pytest.approx(dice)
    assert evaluation.jaccard(drawn, found) == pytest.approx(jaccard)
    assert evaluation.dice(found, drawn) == pytest.approx(dice)


def test_overlap_of_many_masks_is_one_number_each():
    scores = evaluation.dice(np.stack([CORNER, EMPTY]), np.stack([ROW, EMPTY]))
    assert scores == pytest.approx([4 / 7, 1])


def test_overlap_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn, found = rng.random((2, 16, 16)) < rng.random((2, 1, 1))
        if not (drawn.any() and found.any()):
            continue
        assert evaluation.dice(drawn, found) == pytest.approx(metrics.f1_score(drawn.ravel(), found.ravel()))
        assert evaluation.jaccard(drawn, found) == pytest.approx(metrics.jaccard_score(drawn.ravel(), found.ravel()))


def test_masks_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="shape"):
        evaluation.dice(FULL, np.ones((4, 3), bool))


def test_thresholded_jaccard_cuts_at_the_official_threshold():
    assert evaluation.thresholded_jaccard([0.0, 0.649, 0.65, 1.0]) == pytest.approx([0, 0, 0.65, 1])


def test_classification_agrees_with_scikit_learn():
    rng = np.random.default_rng(1)
    labels, probabilities = rng.integers(0, 2, 200), rng.random(200)
    called = probabilities >= 0.5
    scores = evaluation.classification_scores(labels, probabilities)
    expected = {
        "auroc": metrics.roc_auc_score(labels, probabilities),
        "average_precision": metrics.average_precision_score(labels, probabilities),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, called),
        "accuracy": metrics.accuracy_score(labels, called),
        "precision": metrics.precision_score(labels, called),
        "sensitivity": metrics.recall_score(labels, called),
        "specificity": metrics.recall_score(labels, called, pos_label=0),
        "f1": metrics.f1_score(labels, called),
        "brier": metrics.brier_score_loss(labels, probabilities),
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected)


def test_always_benign_has_balanced_accuracy_one_half():
    scores = evaluation.classification_scores(np.array([0, 0, 0, 1]), np.zeros(4))
    assert scores["accuracy"] == 0.75
    assert scores["balanced_accuracy"] == 0.5
    assert scores["sensitivity"] == 0
    assert np.isnan(scores["precision"])


def test_one_class_only_gives_nan_and_null_and_no_error():
    measured = evaluation.measure_classification(np.zeros(6, int), np.linspace(0, 1, 6), np.arange(6).astype(str))
    assert np.isnan(measured["auroc"].value)
    assert evaluation.as_json(measured)["auroc"] == {"value": None, "low": None, "high": None}
    assert measured["specificity"].value == pytest.approx(0.5)


def test_expected_calibration_error_by_hand():
    # Bin 0.0–0.1: stated 0.05, observed 0; bin 0.9–1.0: stated 0.95 twice, observed one half.
    labels, stated = np.array([0, 0, 1, 0]), np.array([0.05, 0.05, 0.95, 0.95])
    assert evaluation.expected_calibration_error(labels, stated) == pytest.approx((0.10 + 0.90) / 4)
    assert evaluation.expected_calibration_error(np.array([0, 1]), np.array([0.0, 1.0])) == 0


def test_bootstrap_interval_matches_the_normal_formula():
    values = np.random.default_rng(2).normal(5, 2, 400)
    measured = evaluation.bootstrap(lambda v: {"mean": v.mean()}, np.arange(400), values)["mean"]
    half = 1.96 * values.std() / 20
    assert measured.value == values.mean()
    assert measured.high - measured.low == pytest.approx(2 * half, rel=0.15)
    assert measured.low < measured.value < measured.high


def test_bootstrap_draws_whole_lesions():
    # Ten lesions of forty equal pictures each: the evidence is ten values, not four hundred.
    per_lesion = np.random.default_rng(3).normal(0, 1, 10)
    values, groups = np.repeat(per_lesion, 40), np.repeat(np.arange(10), 40)
    by_lesion = evaluation.bootstrap(lambda v: {"mean": v.mean()}, groups, values)["mean"]
    by_picture = evaluation.bootstrap(lambda v: {"mean": v.mean()}, np.arange(400), values)["mean"]
    assert by_lesion.high - by_lesion.low > 4 * (by_picture.high - by_picture.low)


def test_bootstrap_is_the_same_under_the_same_seed():
    values, groups = np.arange(20.0), np.arange(20)
    first, second = (evaluation.bootstrap(lambda v: {"mean": v.mean()}, groups, values, seed=5) for _ in range(2))
    assert first == second
