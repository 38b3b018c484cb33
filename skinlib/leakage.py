"""What a split by image pretends: the same classifier scored twice, once on lesions that it has met before. Lesson 01.

The classifier is simple on purpose: it takes seconds, and the question is not how good it is but how much better the
same one looks when a test image has a sibling, another photograph of its lesion, among the training images.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from skinlib.evaluation import Measured

FEATURE_SIZE = 96
TEST_SHARE = 0.2
SCORES = ("balanced_accuracy", "auroc")


class Pretended(NamedTuple):
    """What was measured. `summary` holds a mean over repeats for each column of `runs`, which has a row per repeat.

    test_images                       in either split
    siblings, malignant_siblings      share of test images, and of malignant ones, with a sibling in training
    by_image_*, by_lesion_*, gap_*    score of either split, and what the first pretends: their difference
    seen_*, unseen_*                  split by image: score on test images with a sibling in training, and on the rest
    kept_*, removed_*, effect_*       score on one and the same test images, those with siblings: with these
                                      kept in training, with other images kept in their place, and the difference
    where * is each of `SCORES`. Lesions that are photographed again are not like the rest, so that `seen` against
    `unseen` also compares two kinds of lesion; `effect` compares nothing but siblings with none.
    """

    summary: dict[str, Measured]
    runs: pd.DataFrame


def image_features(images: np.ndarray) -> np.ndarray:
    """Colour, texture and size of whatever is darker than the skin around it: float32 (n, 329).

    images    uint8 RGB (n, h, w, 3), 0–255; one at a time is touched, so it may be a memory map
    Everything is measured as optical density, -ln(pixel / skin), with the skin's colour from the picture's edge. That
    takes the light out, which differs between two photographs of one lesion, and no feature depends on which way up
    the picture is. The parts share one scale, so that distances between images mean something.
    """
    return np.stack([_features(image) for image in images]) if len(images) else np.empty((0, 329), np.float32)


def _features(image: np.ndarray) -> np.ndarray:
    way = cv2.INTER_AREA if min(image.shape[:2]) >= FEATURE_SIZE else cv2.INTER_LINEAR
    small = cv2.resize(np.ascontiguousarray(image), (FEATURE_SIZE, FEATURE_SIZE), interpolation=way)
    light = small.astype(np.float32) + 1
    middle = (FEATURE_SIZE - 1) / 2
    edge = np.hypot(*(np.indices((FEATURE_SIZE, FEATURE_SIZE)) - middle)) > 0.92 * middle
    density = -np.log(light / np.quantile(light[edge], 0.6, axis=0))
    darkness = density.mean(-1)
    cut, _ = cv2.threshold(_bytes(darkness), 0, 255, cv2.THRESH_OTSU)
    lesion = cv2.medianBlur((_bytes(darkness) > cut).astype(np.uint8), 5) > 0
    lesion = lesion if lesion.sum() > 50 else np.ones_like(lesion)

    pixels, dark = density[lesion], darkness[lesion]
    tints = np.stack([pixels[:, 0] - pixels[:, 1], pixels[:, 2] - pixels[:, 1]], 1)
    ends = ((-0.2, 1.8), (-1, 0.3), (-0.5, 0.6))
    histogram, _ = np.histogramdd(np.column_stack([dark, tints]), bins=(8, 6, 6), range=ends)
    blurred = [cv2.GaussianBlur(darkness, (0, 0), scale) for scale in (1, 2, 4, 8)]
    bands = [(fine - coarse)[lesion] for fine, coarse in pairwise(blurred)]
    return np.concatenate(
        [
            np.quantile(pixels, (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98), axis=0).ravel(),
            np.quantile(tints, (0.05, 0.25, 0.5, 0.75, 0.95), axis=0).ravel(),
            np.ravel([[band.std(), *np.quantile(band, (0.05, 0.95))] for band in bands]),
            [np.sqrt(lesion.mean())],
            np.sqrt(histogram.ravel() / max(histogram.sum(), 1)),  # so that distances are Hellinger's
        ]
    ).astype(np.float32)


def _bytes(darkness: np.ndarray) -> np.ndarray:
    return np.clip(darkness * 128 + 64, 0, 255).astype(np.uint8)


def pretended(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    repeats: int = 20,
    seed: int = 0,
    model: BaseEstimator | None = None,
) -> Pretended:
    """Score one classifier on splits by image and by lesion, drawn `repeats` times, with a fifth for testing.

    features    (n, d), as from `image_features`; groups: (n,), the lesion of each image
    labels      int (n,), 0 benign, 1 malignant; images with any other label are left out
    model       a scikit-learn classifier with `predict_proba`; the nearest neighbour if none is given, because it is
                the one that remembers most
    An image is called malignant from a probability of the share that was malignant in training. Intervals are 95 %
    t-intervals of the mean over repeats: how well these splits of this data are measured, not what other data would
    show. Raises ValueError for arrays of different lengths, fewer than ten labelled images or 2 repeats, and for fewer
    than two lesions of either class. Source of the classifier: Cover and Hart 1967.
    """
    features, labels, groups = np.asarray(features), np.asarray(labels), np.asarray(groups)
    if not len(features) == len(labels) == len(groups):
        raise ValueError(f"{len(features)} features, {len(labels)} labels and {len(groups)} groups do not match")
    if repeats < 2:
        raise ValueError(f"an interval needs at least 2 repeats, not {repeats}")
    known = np.isin(labels, (0, 1))
    features, labels = features[known], labels[known]
    lesions, group_of = np.unique(groups[known], return_inverse=True)
    if len(labels) < 10 or min(len(set(group_of[labels == label])) for label in (0, 1)) < 2:
        raise ValueError("at least ten labelled images, and two lesions of either class, are needed to compare splits")
    model = KNeighborsClassifier(1) if model is None else model
    rng = np.random.default_rng(seed)

    def scores(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        if len(set(labels[train])) < 2:
            return np.full(len(labels[test]), np.nan)
        fitted = clone(model).fit(features[train], labels[train])
        return fitted.predict_proba(features[test])[:, 1] - labels[train].mean()

    rows = []
    while len(rows) < repeats:
        by_lesion = _test_lesions(rng, group_of, len(lesions))
        by_image = np.zeros(len(labels), bool)
        by_image[rng.permutation(len(labels))[: by_lesion.sum()]] = True
        if any(len(set(labels[side])) < 2 for test in (by_lesion, by_image) for side in (test, ~test)):
            continue  # nothing can be learned or scored on one class; rare, and only in tiny sets
        rows.append(_one_repeat(rng, labels, group_of, by_image, by_lesion, scores))
    runs = pd.DataFrame(rows)
    for score in SCORES:
        runs[f"gap_{score}"] = runs[f"by_image_{score}"] - runs[f"by_lesion_{score}"]
        runs[f"effect_{score}"] = runs[f"kept_{score}"] - runs[f"removed_{score}"]
    return Pretended({name: _mean(column.to_numpy(float)) for name, column in runs.items()}, runs)


def _test_lesions(rng: np.random.Generator, group_of: np.ndarray, lesions: int) -> np.ndarray:
    """Where the images of lesions stand that were drawn until they made up a fifth of all: bool (n,)."""
    order = rng.permutation(lesions)
    sizes = np.bincount(group_of)[order]
    chosen = order[: np.searchsorted(np.cumsum(sizes), TEST_SHARE * len(group_of)) + 1]
    return np.isin(group_of, chosen)


def _one_repeat(
    rng: np.random.Generator,
    labels: np.ndarray,
    group_of: np.ndarray,
    by_image: np.ndarray,
    by_lesion: np.ndarray,
    scores: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> dict[str, float]:
    """A row of `Pretended.runs` for two test sets, bool (n,). `scores(train, test)` is above 0 for "malignant"."""
    train = ~by_image
    is_sibling = train & np.isin(group_of, group_of[by_image])
    has_sibling = by_image & np.isin(group_of, group_of[train])
    # Fewer training images alone cost something, so that where the siblings are kept, as many others are taken out.
    siblings, others = np.flatnonzero(is_sibling), rng.permutation(np.flatnonzero(train & ~is_sibling))
    kept = np.concatenate([siblings, others[len(siblings) :]])
    seen = has_sibling[by_image]
    called = scores(train, by_image)
    no_sibling = by_image & ~has_sibling
    compared = {
        "by_image": (by_image, called),
        "by_lesion": (by_lesion, scores(~by_lesion, by_lesion)),
        "seen": (has_sibling, called[seen]),
        "unseen": (no_sibling, called[~seen]),
    }
    if has_sibling.any():
        compared |= {
            "kept": (has_sibling, scores(kept, has_sibling)),
            "removed": (has_sibling, scores(others, has_sibling)),
        }
    else:
        compared |= dict.fromkeys(("kept", "removed"), (has_sibling, np.empty(0)))
    row = {
        "test_images": int(by_image.sum()),
        "siblings": float(seen.mean()),
        "malignant_siblings": float(seen[labels[by_image] == 1].mean()),
    }
    for name, (chosen, score) in compared.items():
        values = _scores(labels[chosen], score)
        row |= {f"{name}_{key}": value for key, value in zip(SCORES, values, strict=True)}
    return row


def _scores(truth: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Balanced accuracy of calling "malignant" what scores 0 or more, and AUROC; NaN if a class is missing."""
    if len(set(truth)) < 2 or np.isnan(score).any():
        return np.nan, np.nan
    sensitivity, specificity = np.mean(score[truth == 1] >= 0), np.mean(score[truth == 0] < 0)
    return float(sensitivity + specificity) / 2, float(roc_auc_score(truth, score))


def _mean(values: np.ndarray) -> Measured:
    """Mean over repeats with its t-interval; repeats in which the quantity is not defined are left out."""
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return Measured(float(values[0]) if len(values) else np.nan, np.nan, np.nan)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Measured(float(values.mean()), float(values.mean() - half), float(values.mean() + half))
