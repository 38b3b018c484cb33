"""The same photograph twice: finds copies among images, however they were saved, and audits a data set for them.

A picture is reduced to a signature, a small grey version of itself. Two signatures are compared in two steps: the
strengths of their spatial frequencies, which hardly change when a picture is shifted, choose the candidates; then one
is laid over the other at several places and scales, and the correlation of their fine detail decides. Fine detail,
because coarse shape does not tell: a dark spot in the middle of pale skin looks like any other. Grey, and made even in
strength, because the copies in public archives were often given other colours. Lesson 01.

Sources: perceptual hashing, Zauner 2010; normalised correlation, Lewis 1995; duplicates in the ISIC archive, Cassidy
et al., Medical Image Analysis 75, 2022.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import cv2
import numpy as np
from scipy import fft, sparse

from skinlib.files import digest

SIGNATURE_SIZE = 64
FINE_DETAIL = 1.25  # standard deviation, in signature pixels, of the blur that is taken away
FREQUENCIES = 12  # spectra are compared up to so many periods per picture
CANDIDATE = 0.55  # correlation of two spectra from which a pair is looked at closely
OTHER_CANDIDATE = 0.6  # the same where one of the two was zoomed or turned first
ZOOM = 6  # signature pixels by which a picture is enlarged to find those that were: towards the largest of `SCALES`
NEAR_DUPLICATE = 0.45  # chosen by looking at pairs: see `near_duplicates`
MARGIN = 8  # how far, in signature pixels, one picture may be shifted against the other
SCALES = (1.0, 0.9, 0.95, 1.05, 1.1)
LEAST_DETAIL = 0.05  # root mean square of the fine detail below which a picture is flat, and like nothing
CHUNK = 500
SHOWN = 5  # of each kind of finding, a report names so many
PART_ORDER = ("train", "validation", "test")


class Pairs(NamedTuple):
    """m pairs of images by position: int (m,) `first` < `second`, in ascending order; float (m,) similarity, to 1."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


def signatures(images: np.ndarray) -> np.ndarray:
    """What is kept of each picture to compare it: uint8 RGB (n, h, w, 3), 0–255, to uint8 (n, 4096).

    One picture at a time is touched, so `images` may be a memory map. Raises ValueError for anything but uint8 RGB.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be uint8 (n, h, w, 3), not {images.dtype} {images.shape}")
    found = np.empty((len(images), SIGNATURE_SIZE, SIGNATURE_SIZE), np.uint8)
    way = cv2.INTER_AREA if min(images.shape[1:3]) >= SIGNATURE_SIZE else cv2.INTER_LINEAR
    for image, small in zip(images, found, strict=True):
        resized = cv2.resize(np.ascontiguousarray(image), (SIGNATURE_SIZE, SIGNATURE_SIZE), interpolation=way)
        small[:] = cv2.cvtColor(resized, cv2.COLOR_RGB2GRAY)
    return found.reshape(len(images), SIGNATURE_SIZE**2)


def exact_duplicates(images: np.ndarray, made: np.ndarray | None = None) -> Pairs:
    """All pairs with identical pixels; images as in `signatures`, `made` what that returned for them.

    Only pictures with equal signatures are read in full, so that this takes no time where there are none.
    """
    made = signatures(images) if made is None else made
    alike: dict[bytes, list[int]] = {}
    for position, signature in enumerate(made):
        alike.setdefault(signature.tobytes(), []).append(position)
    equal: dict[str, list[int]] = {}
    for position in (position for members in alike.values() if len(members) > 1 for position in members):
        equal.setdefault(digest(images[position]), []).append(position)
    pairs = sorted(pair for members in equal.values() for pair in combinations(members, 2))
    return _pairs([(*pair, 1.0) for pair in pairs])


def near_duplicates(made: np.ndarray, turned: bool = False) -> Pairs:
    """Pairs that are one photograph, or two of one lesion that differ by hardly more than a nudge.

    made      uint8 (n, 4096), from `signatures`
    turned    look for mirrored copies, and for those turned by right angles, as well: several times as long

    Withstands other colours, brightness and contrast, JPEG, other sizes, shifts up to an eighth of the picture and
    enlargements up to 1.1; a copy cut or zoomed more than that is missed. Flat pictures are like nothing, not even each
    other. All pairs are compared, so that twice the images take up to four times as long.

    Measured at 192 × 192 pixels, every pair across groups judged by eye. 1,973 images of ISIC 2018, with `turned`: all
    10 pairs of its metadata's duplicate groups, and 19 that the metadata do not name, all of them truly one lesion; at
    least three such pairs stay below the threshold. HAM10000: 328 pairs within a lesion (9 more if `turned`) of 3,207,
    most of which are other photographs; 8 across lesions, all of them truly one lesion, and at least four stay below.
    The likest two different lesions, among 50 million pairs, reached 0.42. The threshold was chosen on these images.
    """
    spectra, zoomed = _spectra(made), _spectra(_zoomed(made))
    candidates = _candidates(spectra, spectra, CANDIDATE)
    candidates |= _candidates(spectra, zoomed, OTHER_CANDIDATE) | _candidates(zoomed, spectra, OTHER_CANDIDATE)
    best = _confirmed(made, made, candidates)
    if turned:
        pictures = made.reshape(-1, SIGNATURE_SIZE, SIGNATURE_SIZE)
        for mirror, quarters in [(False, 1), (False, 2), (False, 3), (True, 0), (True, 1), (True, 2), (True, 3)]:
            others = np.rot90(pictures[:, :, ::-1] if mirror else pictures, quarters, (1, 2)).reshape(made.shape)
            found = _confirmed(made, others, _candidates(spectra, _spectra(others), OTHER_CANDIDATE))
            best |= {pair: max(similarity, best.get(pair, similarity)) for pair, similarity in found.items()}
    return _pairs([(*pair, similarity) for pair, similarity in sorted(best.items())])


def _pairs(rows: list[tuple[int, int, float]]) -> Pairs:
    table = np.array(rows, float).reshape(-1, 3)
    return Pairs(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2])


def _detail(grey: np.ndarray) -> np.ndarray:
    """Fine detail of a small picture (h, w), as strong in pale places as in dark ones: float32 (h, w)."""
    grey = grey.astype(np.float32)
    detail = grey - cv2.GaussianBlur(grey, (0, 0), FINE_DETAIL)
    strength = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 2 * FINE_DETAIL))
    return detail / (strength + 1)  # one grey level: what is weaker than that is noise, and stays weak


def _spectra(made: np.ndarray) -> np.ndarray:
    """Strength of each low spatial frequency: float32 (n, k), of mean 0 and length 1, or 0 for a flat picture.

    Where a picture lies in its frame changes the phase of a frequency, not its strength.
    """
    low = FREQUENCIES + 1
    rows = np.r_[0:low, -FREQUENCIES:0]
    window = np.outer(*2 * [np.hanning(SIGNATURE_SIZE + 2)[1:-1]]).astype(np.float32)
    spectra = np.zeros((len(made), len(rows) * low), np.float32)
    for start in range(0, len(made), CHUNK):
        chunk = made[start : start + CHUNK].reshape(-1, SIGNATURE_SIZE, SIGNATURE_SIZE)
        details = np.stack([_detail(picture) for picture in chunk])
        strengths = np.sqrt(np.abs(fft.rfft2(details * window)[:, rows, :low])).reshape(len(chunk), -1)
        strengths -= strengths.mean(1, keepdims=True)
        strengths /= np.maximum(np.linalg.norm(strengths, axis=1, keepdims=True), 1e-6)
        flat = np.sqrt(np.mean(details**2, axis=(1, 2))) < LEAST_DETAIL
        spectra[start : start + CHUNK] = np.where(flat[:, None], 0, strengths)
    return spectra


def _zoomed(made: np.ndarray) -> np.ndarray:
    """Signatures of the enlarged pictures' middle: a picture's scale does change the strengths of its frequencies."""
    size, start = 2 * [SIGNATURE_SIZE + ZOOM], ZOOM // 2
    middle = slice(start, start + SIGNATURE_SIZE)
    zoomed = np.empty_like(made)
    for signature, other in zip(made, zoomed, strict=True):
        picture = signature.reshape(SIGNATURE_SIZE, SIGNATURE_SIZE)
        other[:] = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)[middle, middle].ravel()
    return zoomed


def _candidates(spectra: np.ndarray, others: np.ndarray, least: float) -> set[tuple[int, int]]:
    """Positions i < j where the spectra of i and of the other j correlate by `least` or more."""
    found = set()
    for start in range(0, len(spectra), CHUNK):
        correlation = spectra[start : start + CHUNK] @ others[start:].T
        first, second = np.nonzero(np.triu(correlation >= least, 1))
        found.update(zip((first + start).tolist(), (second + start).tolist(), strict=True))
    return found


def _confirmed(made: np.ndarray, others: np.ndarray, candidates: set[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """Those candidates whose fine detail agrees, with the correlation at the best place and scale."""

    @lru_cache(1000)
    def at_all_scales(of_others: bool, position: int) -> list[np.ndarray]:
        picture = (others if of_others else made)[position].reshape(SIGNATURE_SIZE, SIGNATURE_SIZE)
        sizes = [2 * [round(SIGNATURE_SIZE * scale)] for scale in SCALES]
        return [_detail(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)) for size in sizes]

    def best_match(whole: list[np.ndarray], part: list[np.ndarray]) -> float:
        middle = part[0][MARGIN:-MARGIN, MARGIN:-MARGIN]
        return max(float(cv2.matchTemplate(scene, middle, cv2.TM_CCOEFF_NORMED).max()) for scene in whole)

    confirmed = {}
    for first, second in sorted(candidates):
        one, other = at_all_scales(False, first), at_all_scales(others is not made, second)
        # Both ways round, so that the order of the images does not matter.
        similarity = min(1.0, max(best_match(one, other), best_match(other, one)))
        if similarity >= NEAR_DUPLICATE:
            confirmed[first, second] = similarity
    return confirmed


# -- audit -----------------------------------------------------------------------------------------------------------


class Duplicate(NamedTuple):
    """Two images that show one photograph; `exact` if pixel for pixel. `similarity` is at most 1."""

    image_ids: tuple[str, str]
    parts: tuple[str, str]
    groups: tuple[str, str]
    similarity: float
    exact: bool


class Conflict(NamedTuple):
    """Images that show one lesion, by their groups or as duplicates, and carry both labels."""

    groups: tuple[str, ...]
    benign: tuple[str, ...]
    malignant: tuple[str, ...]


class PartSummary(NamedTuple):
    """What a part holds; `malignant` is the share among images with a known label, None where no label is known."""

    images: int
    groups: int
    malignant: float | None
    near_duplicates: int
    exact_duplicates: int


class Audit(NamedTuple):
    """What `audit` found, in plain values; `str` of it is a report.

    parts             by name: what stands in each part; its duplicates are pairs that lie within it
    split_groups      by name: the parts of each group that stands in more than one
    across_parts      duplicates with one image in one part and one in another
    across_groups     duplicates that the grouping does not know of, in whichever part
    conflicts         one lesion, two labels; an unknown label contradicts nothing
    """

    parts: dict[str, PartSummary]
    split_groups: dict[str, tuple[str, ...]]
    across_parts: tuple[Duplicate, ...]
    across_groups: tuple[Duplicate, ...]
    conflicts: tuple[Conflict, ...]

    @property
    def clean(self) -> bool:
        """Nothing stands in two parts, and no lesion has two labels."""
        return not (self.split_groups or self.across_parts or self.conflicts)

    def lines(self) -> list[str]:
        """The report, line by line: the same for the same data, with neither paths nor measured similarities."""
        lines = []
        for name, part in self.parts.items():
            share = "no label known" if part.malignant is None else f"{100 * part.malignant:.0f} % malignant"
            lines.append(f"{name}: {_count(part.images, 'image')} of {_count(part.groups, 'group')}, {share}")
        lines.append(f"groups in more than one part: {len(self.split_groups)}")
        lines += _first(f"{group}: {', '.join(parts)}" for group, parts in self.split_groups.items())
        for title, duplicates in (("across parts", self.across_parts), ("across groups", self.across_groups)):
            lines.append(f"duplicates {title}: {len(duplicates)}")
            lines += _first(
                f"{' and '.join(f'{i} ({p})' for i, p in zip(pair.image_ids, pair.parts, strict=True))}: "
                + ("identical" if pair.exact else "nearly the same")
                for pair in duplicates
            )
        within = sum(part.near_duplicates + part.exact_duplicates for part in self.parts.values())
        lines.append(f"duplicates within a part: {within}")
        lines.append(f"lesions with two labels: {len(self.conflicts)}")
        lines += _first(
            f"benign {_names(conflict.benign)}; malignant {_names(conflict.malignant)}" for conflict in self.conflicts
        )
        lines.append("clean" if self.clean else "NOT CLEAN: results on these parts would flatter")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())


def audit(data: "LesionDataset", made: np.ndarray | None = None) -> Audit:  # noqa: F821
    """Does anything of one part stand in another, and do the labels agree with each other? Lesson 01.

    data    a LesionDataset, or anything with its `images`, `labels`, `image_ids`, `groups` and `parts`
    made    `signatures(data.images)`, if they are at hand
    Copies are sought as `near_duplicates` does, mirrored and turned ones included: a second for 800 images.
    """
    made = signatures(data.images) if made is None else made
    # Identical flat pictures are exact duplicates, though nothing in them tells that they are near ones.
    exact = {(i, j) for i, j, _ in zip(*exact_duplicates(data.images, made), strict=True)}
    similarity = {(i, j): value for i, j, value in zip(*near_duplicates(made, turned=True), strict=True)}
    similarity |= dict.fromkeys(exact, 1.0)
    pairs = sorted(similarity)

    ids, groups, parts = (np.asarray(column).astype(str) for column in (data.image_ids, data.groups, data.parts))
    labels = np.asarray(data.labels)
    duplicates = [
        Duplicate(
            *((str(column[i]), str(column[j])) for column in (ids, parts, groups)),
            round(float(similarity[i, j]), 2),
            (i, j) in exact,
        )
        for i, j in pairs
    ]

    def summary(name: str) -> PartSummary:
        here = parts == name
        known = labels[here & (labels >= 0)]
        within = [pair.exact for pair in duplicates if pair.parts == (name, name)]
        share = float(np.mean(known == 1)) if len(known) else None
        return PartSummary(int(here.sum()), len(set(groups[here])), share, within.count(False), within.count(True))

    names = [name for name in PART_ORDER if name in parts]
    names += sorted(set(parts.tolist()) - set(names))
    parts_of = {group: set(parts[groups == group].tolist()) for group in sorted(set(groups.tolist()))}
    return Audit(
        parts={name: summary(name) for name in names},
        split_groups={
            group: tuple(name for name in names if name in found) for group, found in parts_of.items() if len(found) > 1
        },
        across_parts=tuple(pair for pair in duplicates if pair.parts[0] != pair.parts[1]),
        across_groups=tuple(pair for pair in duplicates if pair.groups[0] != pair.groups[1]),
        conflicts=_conflicts(ids, groups, labels, pairs),
    )


def _conflicts(
    ids: np.ndarray, groups: np.ndarray, labels: np.ndarray, pairs: list[tuple[int, int]]
) -> tuple[Conflict, ...]:
    """Lesions with both labels. Images are of one lesion if a chain of groups and duplicates joins them."""
    names, group_of = np.unique(groups, return_inverse=True)
    first, second = np.array(pairs, int).reshape(-1, 2).T
    edges = sparse.coo_array((np.ones(len(pairs)), (group_of[first], group_of[second])), (len(names), len(names)))
    lesion = sparse.csgraph.connected_components(edges, directed=False)[1][group_of]
    both = np.intersect1d(lesion[labels == 0], lesion[labels == 1])
    found = []
    for members in (lesion == number for number in both):
        benign, malignant = (tuple(sorted(ids[members & (labels == label)].tolist())) for label in (0, 1))
        found.append(Conflict(tuple(sorted(set(groups[members].tolist()))), benign, malignant))
    return tuple(sorted(found))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _first(findings: Iterable[str]) -> list[str]:
    """The first few findings, set in, and how many more there are."""
    findings = list(findings)
    more = [f"  and {len(findings) - SHOWN} more"] if len(findings) > SHOWN else []
    return [f"  {finding}" for finding in findings[:SHOWN]] + more


def _names(ids: tuple[str, ...]) -> str:
    return ", ".join(ids[:SHOWN]) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
