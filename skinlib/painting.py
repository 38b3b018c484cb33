"""How a dermoscopic picture is painted, from skin to camera: pigments, noise, brush, bare skin, photograph.

`lesion` paints what grows on the skin, `artefacts` what else lies on it. Colours are mixed as optical density (how much
light a pigment swallows, per colour channel), because pigments add in density, not in RGB. What is drawn is a layer:
float32 (size, size), 0 where it is absent and 1 where it is fully there; call one alone and look at it. Lengths are in
widths of the picture. Explored in lesson 01.
"""

import functools
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from skinlib.colour import skin_tone_angle

# Optical density that one unit of pigment adds, in the order red, green, blue. Melanin swallows blue light most,
# haemoglobin swallows green and blue and lets red pass.
MELANIN = np.array([0.28, 0.45, 0.62], np.float32)
HAEMOGLOBIN = np.array([0.05, 0.42, 0.34], np.float32)
PAPER_WHITE = 0.96  # the lamp's share that a surface without any pigment returns


# -- noise, coordinates, brush -----------------------------------------------------------------------------------------


def noise_field(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth random field (size, size), mean 0, standard deviation near 1: coarse random numbers, enlarged."""
    coarse = rng.standard_normal((cells + 3, cells + 3), dtype=np.float32)
    return 1.35 * cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


@functools.lru_cache(maxsize=8)
def pixel_grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel's centre, 0–1 across the picture, each (size, size)."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    x.flags.writeable = y.flags.writeable = False  # everybody gets the same arrays
    return x, y


def distance_from(size: int, x: float, y: float) -> np.ndarray:
    """Distance of every pixel from one point, (size, size)."""
    across, down = pixel_grid(size)
    return cv2.magnitude(across - np.float32(x), down - np.float32(y))


def rising(field: np.ndarray, steepness: float) -> np.ndarray:
    """A soft step: 0 where the field is far below 0, 0.5 at 0, 1 far above (the logistic curve)."""
    return 1 / (1 + np.exp(np.clip(-steepness * field, -30, 30)))


class Brush:
    """Draws lines and discs, in widths of the picture, into one layer."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.canvas = np.zeros((size, size), np.uint8)

    def line(self, points: np.ndarray, width: float) -> None:
        """A line through points (n, 2)."""
        fixed_point = np.rint(np.asarray(points) * self.size * 16 - 8).astype(np.int32)
        cv2.polylines(self.canvas, [fixed_point], False, 255, max(1, round(width * self.size)), cv2.LINE_AA, 4)

    def discs(self, points: np.ndarray, radii: np.ndarray) -> None:
        """Filled discs around points (n, 2) with radii (n,)."""
        centres = np.rint(np.asarray(points) * self.size * 16 - 8).astype(int).tolist()
        sizes = np.maximum(8, np.rint(np.asarray(radii) * self.size * 16)).astype(int).tolist()
        for centre, radius in zip(centres, sizes, strict=True):
            cv2.circle(self.canvas, centre, radius, 255, -1, cv2.LINE_AA, 4)

    def layer(self, blur: float = 0.0) -> np.ndarray:
        """What was drawn, as a layer; `blur` in widths of the picture."""
        canvas = cv2.GaussianBlur(self.canvas, (0, 0), blur * self.size) if blur * self.size > 0.3 else self.canvas
        return canvas * np.float32(1 / 255)


# -- skin --------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _melanin_table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    blood, melanin = np.linspace(0.1, 0.9, 17), np.linspace(0.0, 5.0, 126)
    angles = [[skin_tone_angle(np.exp(-skin_density(m, b)) * PAPER_WHITE) for m in melanin] for b in blood]
    return blood, melanin, np.array(angles)


def skin_density(melanin: float, blood: float) -> np.ndarray:
    """Optical density of even skin, (3,)."""
    return melanin * MELANIN + blood * HAEMOGLOBIN


def melanin_for(angle: float, blood: float) -> float:
    """How much melanin gives skin of this blood content the wanted typology angle (ITA, degrees)."""
    bloods, melanin, angles = _melanin_table()
    row = np.clip(np.searchsorted(bloods, blood) - 1, 0, len(bloods) - 2)
    share = (blood - bloods[row]) / (bloods[row + 1] - bloods[row])
    here = angles[row] * (1 - share) + angles[row + 1] * share
    return float(np.interp(-angle, -here, melanin))  # the angle falls as melanin rises


def paint_skin(rng: np.random.Generator, size: int, melanin: float, blood: float) -> np.ndarray:
    """Density (size, size, 3) of bare skin: pigment and blood, mottled, with pores, creases, vessels and freckles."""
    fine = noise_field(rng, size, 70)
    grain = noise_field(rng, size, 34)
    redness = blood * (1 + rng.uniform(0.03, 0.25) * noise_field(rng, size, 4) + 0.07 * noise_field(rng, size, 14))
    roughness = rng.uniform(0.1, 1.0) ** 2
    redness += roughness * (0.04 * grain + 0.03 * fine)
    uneven = (0.03 + 0.10 * rng.random() ** 2) * noise_field(rng, size, int(rng.integers(3, 7)))
    pigment = melanin * (1 + uneven + 0.06 * roughness * grain)
    pigment += roughness * (0.04 * fine + 0.02 * grain)
    if rng.random() < 0.35:
        pigment += rng.uniform(0.03, 0.12) * skin_creases(rng, size)
    if rng.random() < 0.25:
        pigment += rng.uniform(0.15, 0.5) * pores(rng, size)
    if rng.random() < 0.5:
        pigment += rng.uniform(0.15, 0.8) * freckles(rng, size)
    if rng.random() < 0.25:
        redness += rng.uniform(0.1, 0.35) * vessels(rng, size, branching=False)
    both = np.stack([np.maximum(pigment, 0), np.maximum(redness, 0)], -1)
    return both @ np.stack([MELANIN, HAEMOGLOBIN])


def skin_creases(rng: np.random.Generator, size: int) -> np.ndarray:
    """Layer: the fine furrows that cross skin in two directions."""
    x, y = pixel_grid(size)
    way, bend = rng.uniform(0, np.pi), 0.02 * noise_field(rng, size, 6)
    layer = 0
    for across in (way, way + rng.uniform(1.0, 2.0)):
        cosine, sine = direction(across).astype(np.float32)
        phase = (cosine * x + sine * y + bend) * np.float32(2 * np.pi * rng.uniform(18, 34))
        ridge = np.maximum(np.cos(phase), 0) ** 2
        layer = layer + ridge * ridge * ridge
    return np.clip(layer * (0.6 + 0.4 * noise_field(rng, size, 9)), 0, 1)


def pores(rng: np.random.Generator, size: int) -> np.ndarray:
    """Layer: the openings of follicles, as on a face."""
    brush = Brush(size)
    spacing = rng.uniform(0.07, 0.12)
    corners = np.stack(np.meshgrid(np.arange(0, 1, spacing), np.arange(0, 1, spacing)), -1).reshape(-1, 2)
    brush.discs(corners + rng.uniform(0, spacing, corners.shape), rng.uniform(0.005, 0.011, len(corners)))
    return brush.layer(blur=0.003)


def freckles(rng: np.random.Generator, size: int) -> np.ndarray:
    """Layer: small brown spots, each pale enough not to be a lesion of its own."""
    layer = np.zeros((size, size), np.float32)
    if rng.random() < 0.4:
        spread = noise_field(rng, size, int(rng.integers(7, 26)))
        layer += np.clip(rising(spread - rng.uniform(1.3, 2.0), 3.5), 0, 1)
    brush = Brush(size)
    count = int(rng.integers(2, 16))
    brush.discs(rng.random((count, 2)), rng.uniform(0.006, 0.028, count))
    return np.clip(layer + brush.layer(blur=rng.uniform(0.004, 0.009)), 0, 1)


def vessels(
    rng: np.random.Generator,
    size: int,
    branching: bool,
    place: Callable[[np.ndarray], np.ndarray] | None = None,
    reach: float = 0.6,
) -> np.ndarray:
    """Layer: short red commas, or trees of branching vessels (arborising).

    They are drawn in a disc of radius 1; `place` takes points (n, 2) of it to picture widths, and `reach` is the
    disc's radius there. Without `place`, the disc covers the picture.
    """
    brush = Brush(size)
    place = place or (lambda points: 0.5 + reach * points)
    if branching:
        for _ in range(int(rng.integers(2, 5))):
            way = rng.uniform(0, 2 * np.pi)
            for path, width in _branches(rng, direction(way), way + np.pi + rng.normal(0, 0.3), 1.0, 0.012, 3):
                brush.line(place(path), width)
    else:
        count, steps = int(rng.integers(8, 26)), np.linspace(0, 1, 5)
        starts = np.sqrt(rng.random((count, 1))) * direction(rng.uniform(0, 2 * np.pi, count))
        bends = rng.uniform(0, 2 * np.pi, (count, 1)) + rng.uniform(-1.5, 1.5, (count, 1)) * steps
        lengths = 0.04 / reach * rng.uniform(0.5, 1.2, (count, 1, 1))
        for path in starts[:, None] + lengths * steps[:, None] * direction(bends):
            brush.line(place(path), 0.006)
    return brush.layer(blur=0.003)


def direction(angle: float | np.ndarray) -> np.ndarray:
    """The unit vector (x, y) at an angle in radians: shape (2,), or (..., 2) for angles of shape (...)."""
    return np.stack([np.cos(angle), np.sin(angle)], -1) if np.ndim(angle) else np.array([np.cos(angle), np.sin(angle)])


def _branches(
    rng: np.random.Generator, start: np.ndarray, way: float, length: float, width: float, left: int
) -> Iterator[tuple[np.ndarray, float]]:
    """Paths and widths of a vessel and of what branches off it, `left` times over."""
    steps = 7
    ways = way + np.cumsum(rng.normal(0, 0.22, steps))
    path = np.vstack([start, start + length / steps * np.cumsum(direction(ways), axis=0)])
    yield path, width
    for fork in np.flatnonzero(rng.random(steps) < 0.3) if left else ():
        side = ways[fork] + rng.choice([-1, 1]) * rng.uniform(0.5, 1.1)
        yield from _branches(rng, path[fork + 1], side, length * 0.55, width * 0.6, left - 1)


# -- camera ------------------------------------------------------------------------------------------------------------


def light_from(density: np.ndarray) -> np.ndarray:
    """Optical density to the share of the lamp's light that comes back, float32 0–1 (Beer and Lambert's law)."""
    return np.exp(-np.clip(density, -0.4, 6)) * np.float32(PAPER_WHITE)


def photograph(rng: np.random.Generator, light: np.ndarray) -> np.ndarray:
    """Light (size, size, 3) to a uint8 RGB picture: exposure, uneven lamp, colour cast, focus, noise and JPEG."""
    size = len(light)
    x, y = pixel_grid(size)
    # Automatic exposure brightens dark pictures, though not fully.
    exposure = (0.62 / max(0.05, float(np.median(light[::4, ::4])))) ** rng.uniform(0.1, 0.6)
    cast = np.clip(rng.normal(1, 0.05, 3), 0.8, 1.2)
    if rng.random() < 0.06:  # a wrong white balance: all is blue, or all is orange
        cast *= np.array([0.75, 0.95, 1.35] if rng.random() < 0.5 else [1.2, 0.92, 0.7])
    gain = (exposure * rng.uniform(0.85, 1.25) * cast).astype(np.float32)
    way = rng.uniform(0, 2 * np.pi)
    lamp = 1 + np.float32(0.5 * rng.random()) * (
        np.float32(np.cos(way)) * (x - 0.5) + np.float32(np.sin(way)) * (y - 0.5)
    )
    lamp = lamp - np.float32(rng.choice([0, 0, rng.uniform(0, 0.9)])) * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    light = light * (gain * lamp[..., None])
    bright = light > 0.85
    light[bright] = 0.85 + 0.15 * np.tanh((light[bright] - 0.85) / 0.15)  # sensors saturate softly
    blur = size * rng.choice([rng.uniform(0.0012, 0.0035), rng.uniform(0.0035, 0.009)], p=[0.75, 0.25])
    if blur > 0.25:
        light = cv2.GaussianBlur(light, (0, 0), blur)
    grain = rng.standard_normal((size, size), dtype=np.float32) * np.float32(rng.uniform(0.002, 0.011))
    light += grain[..., None]
    picture = np.clip(np.rint(light * 255), 0, 255).astype(np.uint8)
    quality = int(rng.integers(70, 97))
    encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1])
