"""Lesson 05: how good is it, and how sure can we be? The measures of both stages, and their confidence intervals.

Dice and Jaccard are derived in lesson 02, the rest in lesson 05.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn import metrics

BOOTSTRAPS = 1000
THRESHOLDED_JACCARD_CUT = 0.65  # ISIC 2018 Task 1's official rule


class Measured(NamedTuple):
    """A measured quantity with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def dice(masks: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Dice per image: 2·|A∩B| / (|A| + |B|), 0 (apart) to 1 (equal). Lesson 02.

    masks, found    bool (n, h, w) or (h, w); the result is float (n,) or a scalar
    Two empty masks agree: 1. Source: Dice 1945. Raises ValueError if the shapes differ.
    """
    overlap, total = _overlap_and_total(masks, found)
    return np.where(total == 0, 1.0, 2 * overlap / np.maximum(total, 1))[()]


def jaccard(masks: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Jaccard (IoU) per image: |A∩B| / |A∪B|, 0 to 1; equals Dice / (2 − Dice). Shapes as in `dice`. Lesson 02."""
    overlap, total = _overlap_and_total(masks, found)
    return np.where(total == 0, 1.0, overlap / np.maximum(total - overlap, 1))[()]


def thresholded_jaccard(jaccards: np.ndarray) -> np.ndarray:
    """Jaccard, but 0 where it is below 0.65: a mask that bad would have to be drawn again. (n,) to (n,). Lesson 02.

    Source: the official metric of ISIC 2018 Task 1.
    """
    jaccards = np.asarray(jaccards)
    return np.where(jaccards < THRESHOLDED_JACCARD_CUT, 0.0, jaccards)


def _overlap_and_total(masks: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    masks, found = np.asarray(masks, bool), np.asarray(found, bool)
    if masks.shape != found.shape:
        raise ValueError(f"masks have the shape {masks.shape}, but what was found has {found.shape}")
    return (masks & found).sum((-2, -1)), masks.sum((-2, -1)) + found.sum((-2, -1))


def segmentation_scores(masks: np.ndarray, found: np.ndarray) -> dict[str, np.ndarray]:
    """Dice, Jaccard and thresholded Jaccard per image, each (n,); masks and found are bool (n, h, w)."""
    jaccards = jaccard(masks, found)
    return {"dice": dice(masks, found), "jaccard": jaccards, "thresholded_jaccard": thresholded_jaccard(jaccards)}


def classification_scores(labels: np.ndarray, probabilities: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """Every classification measure of the course; malignant is the positive class. Lesson 05.

    labels           int (n,), 0 benign or 1 malignant
    probabilities    float (n,), of "malignant"
    A measure that needs both classes is NaN where one is missing.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    called = probabilities >= threshold
    hits, misses = np.sum(called & (labels == 1)), np.sum(~called & (labels == 1))
    false_alarms, passed = np.sum(called & (labels == 0)), np.sum(~called & (labels == 0))
    both = hits + misses > 0 and false_alarms + passed > 0
    sensitivity, specificity = _ratio(hits, hits + misses), _ratio(passed, passed + false_alarms)
    return {
        "auroc": float(metrics.roc_auc_score(labels, probabilities)) if both else np.nan,
        "average_precision": float(metrics.average_precision_score(labels, probabilities)) if both else np.nan,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "accuracy": _ratio(hits + passed, len(labels)),
        "precision": _ratio(hits, hits + false_alarms),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "f1": _ratio(2 * hits, 2 * hits + false_alarms + misses),
        "brier": float(np.mean((probabilities - labels) ** 2)) if len(labels) else np.nan,
        "ece": expected_calibration_error(labels, probabilities),
    }


def _ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else np.nan


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> float:
    """ECE: mean gap between the stated probability and the observed share, over `bins` equal bins. Lesson 05.

    Each bin counts by its number of images; 0 is perfectly calibrated. Source: Naeini et al., AAAI 2015.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if len(labels) == 0:
        return np.nan
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=labels - probabilities, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def bootstrap(
    statistic: Callable[..., dict[str, float]], groups: np.ndarray, *columns: np.ndarray, seed: int = 0
) -> dict[str, Measured]:
    """`statistic(*columns)` with 95 % intervals, by drawing whole lesions with replacement. Lesson 05.

    groups     (n,), the lesion of each image: pictures of one lesion are no independent evidence
    columns    arrays (n, …) that `statistic` takes; it returns a dict of numbers
    Draws on which a measure is not defined (one class only) are left out of its interval.
    Source: Efron 1979, percentile interval; cluster bootstrap by lesion.
    """
    names, membership = np.unique(np.asarray(groups), return_inverse=True)
    members = np.split(np.argsort(membership, kind="stable"), np.cumsum(np.bincount(membership))[:-1])
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(BOOTSTRAPS):
        chosen = np.concatenate([members[i] for i in rng.integers(0, len(names), len(names))])
        draws.append(statistic(*(np.asarray(column)[chosen] for column in columns)))
    measured = {}
    for name, value in statistic(*columns).items():
        drawn = np.array([draw[name] for draw in draws])
        drawn = drawn[~np.isnan(drawn)]
        low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
        measured[name] = Measured(float(value), float(low), float(high))
    return measured


def measure_segmentation(masks: np.ndarray, found: np.ndarray, groups: np.ndarray) -> dict[str, Measured]:
    """Mean Dice, Jaccard and thresholded Jaccard over images, with 95 % intervals; masks bool (n, h, w). Lesson 05."""
    scores = segmentation_scores(masks, found)

    def means(*columns: np.ndarray) -> dict[str, float]:
        return {name: float(np.mean(column)) for name, column in zip(scores, columns, strict=True)}

    return bootstrap(means, groups, *scores.values())


def measure_classification(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> dict[str, Measured]:
    """`classification_scores` with 95 % intervals. Lesson 05."""
    return bootstrap(classification_scores, groups, labels, probabilities)


def with_interval(quantity: dict[str, float | None]) -> str:
    """One entry of `as_json` for a table: "0.869 (0.862–0.876)"."""
    if quantity["value"] is None:
        return "not defined"
    return f"{quantity['value']:.3f} ({quantity['low']:.3f}–{quantity['high']:.3f})"


def as_json(measured: dict[str, Measured]) -> dict[str, dict[str, float | None]]:
    """Measured quantities as metrics.json holds them: value, low, high; null where a measure is not defined."""
    return {
        name: {key: None if np.isnan(number) else round(number, 6) for key, number in quantity._asdict().items()}
        for name, quantity in measured.items()
    }
