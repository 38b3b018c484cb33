"""How a lesion is painted: its outline, its edge, its colours, and the structures of dermoscopy by name.

Places inside a lesion are in radii of that lesion (then the name says `u, v`); the fineness of a structure is in widths
of the picture. Every structure is a small function that gives a layer; `pigment_network(np.random.default_rng(0),
lesion_frame())` is one to look at. Nothing in here knows of labels. Criteria: Stolz 1994 (ABCD rule), Argenziano 1998
(seven-point checklist). Explored in lesson 01.
"""

from typing import NamedTuple

import cv2
import numpy as np

from skinlib.painting import HAEMOGLOBIN, MELANIN, Brush, direction, noise_field, pixel_grid, rising, vessels

# The six colours of the ABCD rule, as density on top of the skin. Red is haemoglobin; blue-grey is melanin seen
# through the skin above it, which scatters the blue light back.
COLOURS = {
    "light brown": np.array([0.17, 0.50, 0.76], np.float32),
    "dark brown": np.array([0.62, 1.05, 1.32], np.float32),
    "black": np.array([1.60, 1.75, 1.75], np.float32),
    "red": np.array([0.06, 0.58, 0.50], np.float32),
    "blue-grey": np.array([0.92, 0.78, 0.58], np.float32),
    "white": np.array([-0.06, -0.08, -0.06], np.float32),
}


# -- where it is -------------------------------------------------------------------------------------------------------


_SHEET = 192  # pixels of the sheet of noise that a lesion's textures are cut from


class Frame(NamedTuple):
    """A lesion's own coordinates: what is in it moves and turns with it, whichever way it is photographed.

    u, v        every pixel in radii of the lesion, along its own two axes, (size, size); (0, 0) is its centre
    distance    from the centre in radii; degrees: direction from the centre, 0–360, in the lesion's own axes
    on_sheet    u and v as places on the sheet of noise that covers four radii
    """

    size: int
    centre: tuple[float, float]
    turn: float
    radius: float
    u: np.ndarray
    v: np.ndarray
    distance: np.ndarray
    degrees: np.ndarray
    on_sheet: tuple[np.ndarray, np.ndarray]

    def noise(self, rng: np.random.Generator, cells: int) -> np.ndarray:
        """Like `noise_field`, fixed to the lesion; `cells` across four radii."""
        return cv2.remap(noise_field(rng, _SHEET, cells), *self.on_sheet, cv2.INTER_LINEAR)

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) from radii of the lesion to widths of the picture."""
        cosine, sine = np.cos(self.turn), np.sin(self.turn)
        return np.asarray(points) @ np.array([[cosine, sine], [-sine, cosine]]) * self.radius + self.centre


def lesion_frame(
    size: int = 192, centre: tuple[float, float] = (0.5, 0.5), turn: float = 0.0, radius: float = 0.4
) -> Frame:
    """The coordinates of a lesion at `centre` (x, y), turned by `turn` radians, with `radius` in picture widths."""
    x, y = pixel_grid(size)
    dx, dy = (x - np.float32(centre[0])) / np.float32(radius), (y - np.float32(centre[1])) / np.float32(radius)
    cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u, v = dx * cosine + dy * sine, dy * cosine - dx * sine
    distance, degrees = cv2.cartToPolar(u, v, angleInDegrees=True)
    on_sheet = tuple(np.clip(axis * (_SHEET / 4) + (_SHEET / 2 - 0.5), 0, _SHEET - 1) for axis in (u, v))
    return Frame(size, centre, turn, radius, u, v, distance, degrees, on_sheet)


def outline(rng: np.random.Generator, asymmetry: int, border: int) -> np.ndarray:
    """Radius of the outline at 360 angles, mean about 1.

    The harmonics say exactly what the A of ABCD means: even cosines keep both axes of symmetry, odd cosines break
    one, sines break the other. The fine ones make the notches that come with the abrupt segments of B.
    """
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    radius = 1 + rng.uniform(0.02, 0.24) * np.cos(2 * angle) + rng.uniform(-0.05, 0.05) * np.cos(4 * angle)
    if asymmetry >= 1:
        radius += rng.uniform(0.15, 0.24) * np.cos(3 * angle) + rng.uniform(-0.07, 0.07) * np.cos(5 * angle)
    if asymmetry >= 2:
        radius += rng.uniform(0.16, 0.26) * np.sin(2 * angle + 0.6) + rng.uniform(0.08, 0.15) * np.sin(3 * angle)
    for frequency in range(6, 22):
        radius += (0.004 + 0.0035 * border) * rng.normal() * np.cos(frequency * angle + rng.uniform(0, 2 * np.pi)) / 2.2
    return np.clip(radius, 0.35, None).astype(np.float32)


def around(frame: Frame, values: np.ndarray) -> np.ndarray:
    """Spread values given at equal steps around the circle over the picture, by direction from the centre."""
    ring = np.append(values, values[0]).astype(np.float32)
    fine = np.interp(np.arange(721) / 2, np.linspace(0, 360, len(ring)), ring).astype(np.float32)
    return fine[np.minimum(frame.degrees * 2, 720).astype(np.int16)]


def depth_inside(frame: Frame, lesion: dict, roughness: np.ndarray) -> np.ndarray:
    """How deep every pixel lies inside the lesion, in radii: above 0 inside, 0 on the outline, below 0 outside.

    `lesion` needs "outline" (360 radii), "ragged" (how far `roughness`, a field of noise, moves the edge) and
    "satellites", rows of u, v, radius: small islands beside the main part.
    """
    depth = around(frame, lesion["outline"]) - frame.distance
    depth += np.float32(lesion["ragged"]) * roughness
    for u, v, radius in lesion["satellites"]:
        island = cv2.magnitude(frame.u - np.float32(u), frame.v - np.float32(v))
        depth = np.maximum(depth, np.float32(radius) * (1 + np.float32(0.2) * roughness) - island)
    return depth


def presence(frame: Frame, depth: np.ndarray, softness: float, abrupt_sectors: np.ndarray) -> np.ndarray:
    """Layer: which share of the lesion's pigment is there. Exactly half on the outline (depth 0).

    Of eight sectors, the abrupt ones (the B of ABCD) end at once; the others fade over `softness` radii.
    """
    abrupt = np.zeros(8)
    abrupt[abrupt_sectors] = 1
    degrees = np.repeat(abrupt, 45)
    blended = np.convolve(np.r_[degrees[-6:], degrees, degrees[:6]], np.full(13, 1 / 13), mode="valid")
    return rising(depth / around(frame, np.maximum(softness * (1 - blended), 0.012)), 2.2)


# -- the structures of dermoscopy --------------------------------------------------------------------------------------


def pigment_network(rng: np.random.Generator, frame: Frame, atypical: bool = False) -> np.ndarray:
    """Layer: a brown mesh around pale holes. Typical: even, thin lines; atypical: uneven holes, thick grey lines."""
    pitch = 0.030 if not atypical else 0.042
    bend = (0.05 if not atypical else 0.30) * pitch
    scale = 2 * np.pi * frame.radius / pitch
    shift = bend / frame.radius
    bent = shift * frame.noise(rng, 30)
    u, v = frame.u + bent, frame.v - bent
    waves = sum(
        np.cos(np.float32(scale * np.cos(way)) * u + np.float32(scale * np.sin(way)) * v)
        for way in (0, np.pi / 3, 2 * np.pi / 3)
    )
    thickness = 0.1 + (0.6 * frame.noise(rng, 12) if atypical else 0)
    return rising(thickness - waves, 3.0) * rising(frame.noise(rng, 5) + 0.9, 3.0)


def dots(rng: np.random.Generator, frame: Frame, irregular: bool = False) -> np.ndarray:
    """Layer: tiny dark points. Regular: alike and evenly spread; irregular: uneven, in a cluster and at the edge."""
    return _spots(rng, frame, 45, 0.0055, irregular)


def globules(rng: np.random.Generator, frame: Frame, irregular: bool = False) -> np.ndarray:
    """Layer: round brown clods, several times as large as dots."""
    return _spots(rng, frame, 24, 0.013, irregular)


def _spots(rng: np.random.Generator, frame: Frame, count: int, radius: float, irregular: bool) -> np.ndarray:
    brush = Brush(frame.size)
    ways = direction(rng.uniform(0, 2 * np.pi, count))
    away = np.sqrt(rng.random(count))[:, None]
    if irregular:
        cluster = rng.uniform(-0.5, 0.5, 2) + 0.45 * away * ways
        points = np.where(rng.random((count, 1)) < 0.5, cluster, rng.uniform(0.6, 1.0, (count, 1)) * ways)
    else:
        points = 0.85 * away * ways
    grown = rng.uniform(0.5, 2.0, count) if irregular else rng.uniform(0.85, 1.15, count)
    brush.discs(frame.to_picture(points), radius * grown)
    return brush.layer(blur=0.002)


def streaks(rng: np.random.Generator, frame: Frame, edge: np.ndarray, irregular: bool = False) -> np.ndarray:
    """Layer: radial lines at the edge (`edge`: the outline, 360 radii). Regular: all around; irregular: on one side."""
    brush = Brush(frame.size)
    start, ways = rng.uniform(0, 2 * np.pi), np.arange(16) * 0.20
    if not irregular:
        ways = np.linspace(0, 2 * np.pi, 26, endpoint=False)
    for way in start + ways + rng.normal(0, 0.12 if irregular else 0.02, len(ways)):
        limit = edge[int(np.degrees(way)) % 360]
        outer = rng.uniform(1.0, 1.25) if irregular else 1.12
        brush.line(frame.to_picture(np.stack([f * limit * direction(way) for f in (0.74, outer)])), 0.011)
    return brush.layer(blur=0.002)


def blotch(rng: np.random.Generator, frame: Frame, irregular: bool = False) -> np.ndarray:
    """Layer: a dark area without structure, in the middle (regular) or off to one side (irregular)."""
    u, v = (0.55 * direction(rng.uniform(0, 2 * np.pi))) if irregular else (0.0, 0.0)
    away = cv2.magnitude(frame.u - np.float32(u), frame.v - np.float32(v))
    return rising(0.38 - away + (0.16 if irregular else 0.05) * frame.noise(rng, 8), 14)


def structureless(rng: np.random.Generator, frame: Frame) -> np.ndarray:
    """Layer: a milky area that hides whatever structure lies under it."""
    return rising(frame.noise(rng, 6) - 0.6, 6)


def regression(rng: np.random.Generator, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Two layers: a white, scar-like area, and the blue-grey grains ("peppering") in it."""
    u, v = 0.4 * direction(rng.uniform(0, 2 * np.pi))
    away = cv2.magnitude(frame.u - np.float32(u), frame.v - np.float32(v))
    scar = rising(0.42 - away + 0.15 * frame.noise(rng, 9), 10)
    return scar, scar * rising(frame.noise(rng, 60) - 1.0, 6)


def blue_white_veil(rng: np.random.Generator, frame: Frame) -> np.ndarray:
    """Layer: a hazy blue area under a whitish film, over part of the lesion."""
    u, v = 0.35 * direction(rng.uniform(0, 2 * np.pi))
    away = cv2.magnitude(frame.u - np.float32(u), frame.v - np.float32(v))
    return rising(0.45 - away + 0.12 * frame.noise(rng, 6), 7)


def milia_like_cysts(rng: np.random.Generator, frame: Frame, count: int) -> np.ndarray:
    """Layer: small bright balls of keratin, the mark of a seborrhoeic keratosis."""
    brush = Brush(frame.size)
    points = 0.8 * np.sqrt(rng.random((count, 1))) * direction(rng.uniform(0, 2 * np.pi, count))
    brush.discs(frame.to_picture(points), rng.uniform(0.006, 0.013, count))
    return brush.layer(blur=0.004)


# -- everything together -----------------------------------------------------------------------------------------------


def paint_lesion(rng: np.random.Generator, frame: Frame, lesion: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Density that the lesion adds (size, size, 3); its exact mask, bool; and the share of its pigment there, 0–1.

    The exact mask is where the outline's own formula says "inside": where at least half of the pigment is there.
    """
    coarse, fine = frame.noise(rng, 14), frame.noise(rng, 36)
    depth = depth_inside(frame, lesion, 0.7 * coarse + 0.5 * fine)
    there = presence(frame, depth, lesion["softness"], lesion["abrupt sectors"])
    gaps = 1 - np.float32(lesion["patchiness"]) * rising(frame.noise(rng, 7) + 0.2, 4)

    # Colours: the first fills the lesion; each further one fills a patch of its own, pushed to a side of its own.
    left, shares = np.ones_like(depth), []
    for towards in direction(lesion["patch directions"][1 : len(lesion["colours"])]).astype(np.float32):
        patch = left * rising(0.7 * frame.noise(rng, 9) + 1.7 * (towards[0] * frame.u + towards[1] * frame.v) - 0.7, 5)
        left = left - patch
        shares.append(patch)
    shares = [left, *shares]
    strength = lesion["strength"]
    pigments = [
        COLOURS[name] * (strength if i == 0 else 0.75 + 0.25 * strength) for i, name in enumerate(lesion["colours"])
    ]
    tilt = (0.0, 0.50, 0.50)[lesion["asymmetry"]] * frame.u + (0.0, 0.0, 0.45)[lesion["asymmetry"]] * frame.v
    core = np.float32(lesion["core"]) * (np.clip(depth, 0, 0.8) - 0.3)  # darker, or paler, in the middle
    mottling = 0.16 * coarse + 0.13 * fine + 0.06 * frame.noise(rng, 80)
    amount = np.clip(1 + core + np.float32(lesion["mottling"]) * mottling + np.clip(tilt, -0.7, 0.7), 0.15, 2.2) * gaps

    structures, signs = lesion["structures"], lesion["seven_point"]
    brown, white, blood, blue = (np.zeros_like(depth) for _ in range(4))
    irregular_spots = "irregular dots or globules" in signs
    if "network" in structures:
        brown += 0.42 * pigment_network(rng, frame, "atypical network" in signs)
    if "dots" in structures:
        brown += 0.95 * dots(rng, frame, irregular_spots)
    if "globules" in structures:
        brown += 0.85 * globules(rng, frame, irregular_spots)
    if "structureless areas" in structures:
        milk = structureless(rng, frame)
        brown *= 1 - milk
        white += 0.28 * milk
        brown += 0.8 * blotch(rng, frame, "irregular blotches" in signs)
    if "streaks" in structures:
        brown += 0.95 * streaks(rng, frame, lesion["outline"], "irregular streaks" in signs)
    if "regression" in signs:
        scar, pepper = regression(rng, frame)
        amount, brown = amount * (1 - 0.75 * scar), brown * (1 - scar)
        white, blue = white + 0.10 * scar, blue + 0.7 * pepper
    if "blue-white veil" in signs:
        veil = blue_white_veil(rng, frame)
        brown, blue, white = brown * (1 - 0.8 * veil), blue + 0.75 * veil, white + 0.18 * veil
    if "atypical vessels" in signs or lesion["vessels"]:
        trees = "atypical vessels" in signs
        reach = 0.85 * frame.radius
        blood += (0.75 if trees else 0.6) * vessels(
            rng, frame.size, trees, lambda points: frame.to_picture(0.85 * points), reach
        )
    if lesion["cysts"]:
        white += 0.40 * milia_like_cysts(rng, frame, lesion["cysts"])

    faint = min(1.0, 0.35 + 0.65 * strength)  # a pale lesion's structures are pale
    layers = [share * amount for share in shares] + [brown, -white, blood, blue]
    palette = [
        *pigments,
        MELANIN * 1.5 * faint,
        np.full(3, 0.9, np.float32),
        HAEMOGLOBIN * 1.3,
        COLOURS["blue-grey"],
    ]
    density = np.stack(layers, -1).astype(np.float32) @ np.stack(palette).astype(np.float32)
    return density * there[..., None], depth > 0, there * np.clip(amount, 0, 1)
