"""Simulated annotators: the outlines that people would draw around a painted lesion. Explored in lessons 01 and 03.

The exact mask of a painted lesion is known, but a reference mask is somebody's drawing, and people differ in ways that
have names: how faint a pigment they still count, how wide a margin they leave, how smoothly they draw, and whether
scattered parts are one lesion. Each style below is one such person. All work on what can be seen: `visible`, float32
(size, size), the share of the lesion's pigment that is there in each pixel, 0–1: a pale lesion's edge is drawn like a
dark one's.
"""

import cv2
import numpy as np

STYLES = ("by hand", "semi-automatic", "hull")
REFERENCE = "by hand"  # whose masks the embedded data set is trained and scored with


def draw_outlines(rng: np.random.Generator, visible: np.ndarray) -> np.ndarray:
    """The outlines of all three annotators, in the order of STYLES: bool (3, size, size).

    Where nothing passes an annotator's threshold, the most visible pixels are outlined; nothing at all, where nothing
    is visible.
    """
    drawn = [draw_by_hand(rng, visible), trace_edge(rng, visible), draw_hull(rng, visible)]
    most = visible.max()
    return np.stack([mask if mask.any() or not most else visible >= most for mask in drawn])


def draw_by_hand(rng: np.random.Generator, visible: np.ndarray) -> np.ndarray:
    """A smooth curve through some twenty clicks, with a margin around the last visible pigment.

    A person clicks just outside what still looks like lesion, so that the margin grows with the lesion; ISIC's
    hand-drawn masks are of this kind.
    """
    # A lesion that the picture's edge cuts goes on behind it, and so does the person's line.
    beyond = len(visible) // 8
    seen = _largest_parts(np.pad(visible, beyond, mode="edge") > rng.uniform(0.23, 0.29))
    width = np.sqrt(seen[beyond:-beyond, beyond:-beyond].sum())
    generosity = rng.uniform(0.028, 0.042) * min(1.0, width / (0.4 * len(visible)))  # small lesions get less
    wide = _widened(seen, generosity * width)
    drawn = _smooth_polygons(rng, wide, clicks=int(rng.integers(18, 36)), wobble=0.007 * width)
    return drawn[beyond:-beyond, beyond:-beyond]


def trace_edge(rng: np.random.Generator, visible: np.ndarray) -> np.ndarray:
    """The tight, ragged edge of a flood fill that a person has accepted: a threshold at half the pigment or more."""
    size = len(visible)
    coarse = rng.standard_normal((size // 6 + 3, size // 6 + 3), dtype=np.float32)
    ragged = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC) * np.float32(rng.uniform(0.02, 0.07))
    return _largest_parts(visible + ragged > rng.uniform(0.35, 0.70))


def draw_hull(rng: np.random.Generator, visible: np.ndarray) -> np.ndarray:
    """The convex hull around everything that might belong to the lesion, islands included, with a margin."""
    seen = _largest_parts(visible > rng.uniform(0.10, 0.25), least=0.01)
    hull = np.zeros(visible.shape, np.uint8)
    outlines, _ = cv2.findContours(seen.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if outlines:
        cv2.fillConvexPoly(hull, cv2.convexHull(np.concatenate(outlines)), 1)
    return _widened(hull > 0, rng.uniform(0.02, 0.10) * np.sqrt(hull.sum()))


def _largest_parts(seen: np.ndarray, least: float = 0.05) -> np.ndarray:
    """Fill holes and drop parts below a share of the largest."""
    canvas = seen.astype(np.uint8)
    outlines, _ = cv2.findContours(canvas, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    areas = [cv2.contourArea(outline) for outline in outlines]
    if not areas:
        return seen
    kept = [outline for outline, area in zip(outlines, areas, strict=True) if area >= least * max(areas)]
    filled = np.zeros_like(canvas)
    cv2.drawContours(filled, kept, -1, 1, cv2.FILLED)
    return filled > 0


def _widened(mask: np.ndarray, margin: float) -> np.ndarray:
    """All pixels at most `margin` pixels away from the mask."""
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3) <= margin


def _smooth_polygons(rng: np.random.Generator, mask: np.ndarray, clicks: int, wobble: float) -> np.ndarray:
    """Each part's outline, redrawn as a closed smooth curve through evenly spaced, slightly misplaced clicks."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = np.zeros(mask.shape, np.uint8)
    for outline in outlines:
        points = outline[:, 0].astype(np.float64)
        number = min(clicks, len(points))
        if number < 6:
            cv2.drawContours(drawn, [outline], -1, 1, cv2.FILLED)
            continue
        clicked = points[np.linspace(0, len(points), number, endpoint=False).astype(int)]
        clicked += np.clip(rng.normal(0, wobble, clicked.shape), -2.5 * wobble, 2.5 * wobble)
        # A closed curve through the clicks without corners: the discrete Fourier series of its points, enlarged.
        terms = np.fft.fft(clicked[:, 0] + 1j * clicked[:, 1])
        half, fine = (number - 1) // 2, 6 * number
        padded = np.zeros(fine, complex)
        padded[: half + 1], padded[-half:] = terms[: half + 1], terms[-half:]
        curve = np.fft.ifft(padded) * 6
        fixed_point = np.rint(np.stack([curve.real, curve.imag], 1) * 16).astype(np.int32)
        cv2.fillPoly(drawn, [fixed_point], 1, cv2.LINE_8, 4)
    return drawn > 0
