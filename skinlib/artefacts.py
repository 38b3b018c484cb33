"""What lies on a picture and not in the skin: hair, bubbles, gel, rulers, ink, stickers, dark corners, reflections.

All are drawn without regard to the lesion's label. Lengths are in widths of the picture. Explored in lesson 01.
"""

import numpy as np

from skinlib.painting import Brush, direction, distance_from, noise_field, pixel_grid

INK = {"violet": (0.75, 1.05, 0.40), "blue": (1.20, 0.75, 0.25), "black": (1.3, 1.3, 1.2)}
PATCH_COLOURS = (
    (60, 170, 165), (40, 140, 60), (245, 160, 40), (60, 130, 230), (200, 40, 50), (240, 215, 70), (190, 180, 220),
)  # fmt: skip


def hair(rng: np.random.Generator, size: int, count: int, thickness: float = 0.005) -> np.ndarray:
    """Layer: `count` hairs, combed roughly one way, each a little bent."""
    brush = Brush(size)
    comb, spread = rng.uniform(0, np.pi), rng.uniform(0.1, 0.9)
    longest = rng.choice([rng.uniform(0.1, 0.35), rng.uniform(0.5, 1.6)], p=[0.2, 0.8])
    steps = np.linspace(-0.5, 0.5, 12)[:, None]
    for _ in range(count):
        ahead = direction(comb + rng.normal(0, spread))
        aside = np.array([-ahead[1], ahead[0]]) * rng.normal(0, 0.13)
        length = longest * rng.uniform(0.5, 1.0)
        brush.line(
            rng.random(2) + steps * length * ahead + steps**2 * aside * 4 * length, thickness * rng.uniform(0.6, 1.2)
        )
    return brush.layer(blur=0.0012)


def gel_bubbles(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """Density (size, size): round bubbles in the gel; a dark rim, a lit side, a clear middle."""
    _, y = pixel_grid(size)
    density = np.zeros((size, size), np.float32)
    for _ in range(count):
        (cx, cy), bubble = rng.random(2), rng.uniform(0.01, 0.05)
        away = distance_from(size, cx, cy)
        rim = np.exp(-(((away - np.float32(bubble)) / np.float32(0.006)) ** 2))
        density += 0.35 * rim * np.clip((y - np.float32(cy)) / np.float32(bubble), -1, 1) - 0.04 * (away < bubble)
    return density


def gel_border(rng: np.random.Generator, size: int) -> np.ndarray:
    """Density (size, size): the rim of the drop of gel, a wide faint arc with a shine beside it."""
    way = rng.uniform(0, 2 * np.pi)
    reach = rng.uniform(0.25, 0.55)
    cx, cy = np.array([0.5, 0.5]) + rng.uniform(0.0, 0.3) * direction(way)
    away = distance_from(size, cx, cy) - np.float32(reach) + np.float32(0.01) * noise_field(rng, size, 5)
    rim = np.exp(-((away / np.float32(rng.uniform(0.006, 0.016))) ** 2))
    shine = np.exp(-(((away - np.float32(0.018)) / np.float32(0.01)) ** 2))
    return rng.uniform(0.15, 0.40) * rim - rng.uniform(0.05, 0.3) * shine * (noise_field(rng, size, 7) > 0)


def ruler(rng: np.random.Generator, size: int) -> np.ndarray:
    """Layer: a scale along one edge, thin with fine ticks, or bold as on a printed strip."""
    brush = Brush(size)
    bold = rng.random() < 0.25
    edge, slope = (rng.uniform(0.93, 0.99) if bold else rng.uniform(0.80, 0.95)), rng.uniform(-0.10, 0.10)
    first, last = (0.0, 1.0) if bold else np.sort(rng.uniform(0, 1, 2)) * [0.3, 0.4] + [0, 0.6]
    pitch = rng.uniform(0.03, 0.06) if bold else (last - first) / rng.integers(20, 45)
    turn = rng.choice([0, 0, 0, 1, 2, 3])

    def place(points: list[tuple[float, float]]) -> np.ndarray:
        points = np.array(points) - 0.5
        for _ in range(turn):
            points = np.stack([-points[:, 1], points[:, 0]], 1)
        return points + 0.5

    width = 0.012 if bold else 0.003
    if not bold:
        brush.line(place([(first, edge + slope * (first - 0.5)), (last, edge + slope * (last - 0.5))]), width)
    for tick in range(int((last - first) / pitch) + 1):
        x = first + tick * pitch
        y = edge + slope * (x - 0.5)
        tall = (0.07 if tick % 5 == 0 else 0.05) if bold else (0.028 if tick % 5 == 0 else 0.016)
        brush.line(place([(x, y), (x, y - tall)]), width)
    return brush.layer(blur=0.001)


def ink_marks(
    rng: np.random.Generator, size: int, lesion_centre: tuple[float, float], lesion_radius: float
) -> np.ndarray:
    """Layer: what a pen leaves on skin: stars of dashes, arcs around the lesion, rows, or a stroke at the edge."""
    brush = Brush(size)
    kind = rng.choice(["stars", "arc", "dashes", "stroke"])
    centre = np.array(lesion_centre)
    if kind == "stars":
        for _ in range(int(rng.integers(2, 7))):
            heart = rng.random(2)
            for _ in range(int(rng.integers(4, 10))):
                way = direction(rng.uniform(0, np.pi)) * rng.uniform(0.02, 0.07)
                middle = heart + rng.normal(0, 0.02, 2)
                brush.line(np.stack([middle - way, middle + way]), rng.uniform(0.006, 0.014))
    elif kind == "arc":
        reach = min(0.46, max(0.18, lesion_radius * rng.uniform(1.5, 2.4)))
        for _ in range(int(rng.integers(1, 3))):
            start, span = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 4.5)
            ways = start + np.linspace(0, span, 24)
            brush.line(centre + reach * np.stack([np.cos(ways), np.sin(ways)], 1), rng.uniform(0.012, 0.04))
    elif kind == "dashes":
        way = rng.uniform(0, np.pi)
        for _ in range(int(rng.integers(3, 10))):
            point, half = rng.random(2), rng.uniform(0.03, 0.10) * direction(way + rng.normal(0, 0.15))
            brush.line(np.stack([point - half, point + half]), rng.uniform(0.008, 0.02))
    else:
        side = rng.uniform(0, 2 * np.pi)
        middle = 0.5 + 0.46 * direction(side)
        along = np.array([-np.sin(side), np.cos(side)])
        steps = np.linspace(-0.5, 0.5, 8)[:, None]
        brush.line(middle + steps * along + rng.normal(0, 0.02, (8, 2)), rng.uniform(0.02, 0.07))
    frayed = np.clip(0.75 + 0.45 * noise_field(rng, size, 70), 0, 1)
    return brush.layer(blur=0.005) * frayed


def coloured_patch(rng: np.random.Generator, size: int, centre: tuple[float, float], radius: float) -> tuple:
    """A sticker beside the lesion: layer, and its RGB 0–1 per pixel. It keeps clear of the lesion as far as it can."""
    # It comes in over the picture's edge, on the side away from the lesion, as deep as there is room.
    out = np.array([0.5, 0.5]) - centre + rng.normal(0, 0.25, 2)
    way = out / max(1e-6, np.hypot(*out))
    disc = rng.uniform(0.14, 0.45)
    edge = 0.5 / np.abs(way).max()  # from the middle of the picture to its edge
    room = edge - (np.dot(np.array(centre) - 0.5, way) + radius * 1.1)
    cx, cy = 0.5 + way * (edge + disc - np.clip(rng.uniform(0.08, 0.40), 0.05, max(0.05, room)))
    away = distance_from(size, cx, cy)
    layer = np.clip((np.float32(disc) - away) * np.float32(size / 1.5), 0, 1)
    colour = np.array(PATCH_COLOURS[rng.integers(len(PATCH_COLOURS))], np.float32) / 255 * rng.uniform(0.75, 1.05)
    ring = rng.random() < 0.4
    inner = np.clip((np.float32(disc * 0.72) - away) * np.float32(size / 1.5), 0, 1) * ring
    other = np.clip(colour * rng.uniform(0.75, 1.2), 0, 1)
    return layer, colour + inner[..., None] * (other - colour)


def dark_surround(rng: np.random.Generator, size: int) -> np.ndarray:
    """Layer: the black outside a round field of view, or (one time in five) the frame of a scanned slide."""
    if rng.random() < 0.2:
        x, y = pixel_grid(size)
        way = rng.choice([0, 0.5, 1, 1.5]) * np.pi + rng.normal(0, 0.03)
        out = (x - 0.5) * np.float32(np.cos(way)) + (y - 0.5) * np.float32(np.sin(way)) - rng.uniform(0.40, 0.48)
        return np.clip(out * np.float32(size / 2), 0, 1).astype(np.float32)
    cx, cy = rng.normal(0.5, 0.03, 2)
    edge = rng.uniform(0.004, 0.05)
    return np.clip((distance_from(size, cx, cy) - np.float32(rng.uniform(0.46, 0.66))) / np.float32(edge), 0, 1)


def reflections(rng: np.random.Generator, size: int) -> np.ndarray:
    """Layer: the flash, mirrored by wet skin or gel as small white specks."""
    brush = Brush(size)
    at = rng.uniform(0.2, 0.8, 2)
    for _ in range(int(rng.integers(3, 22))):
        point, half = at + rng.normal(0, 0.12, 2), rng.uniform(0.001, 0.012) * direction(rng.uniform(0, np.pi))
        brush.line(np.stack([point - half, point + half]), rng.uniform(0.003, 0.012))
    return brush.layer(blur=0.0015)
