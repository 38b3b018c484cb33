"""The embedded data set: dermoscopic pictures painted by a program, so that every mask and attribute is known.

A picture is built as light meets it: skin, lesion, structures, artefacts, camera. Each step is a small function.
Colours are mixed as optical density (how much light a pigment swallows, per colour channel), because pigments add
in density, not in RGB. Explored in lesson 01.

Clinical criteria: the ABCD rule of dermoscopy (Stolz 1994), TDS = 1.3 A + 0.1 B + 0.5 C + 0.5 D.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from skinlib.colour import skin_tone_angle
from skinlib.files import CourseError, written_whole
from skinlib.progress import progress

VERSION = 1  # part of the cache's name: raise it with every change that alters a pixel or a label
DEFAULT_COUNT = 800
DEFAULT_SIZE = 192

# Optical density that one unit of pigment adds, in the order red, green, blue. Melanin swallows blue light most,
# haemoglobin swallows green and blue and lets red pass.
MELANIN = np.array([0.28, 0.45, 0.62], np.float32)
HAEMOGLOBIN = np.array([0.05, 0.42, 0.34], np.float32)

# The six colours of the ABCD rule, as density on top of the skin.
COLOURS = {
    "light brown": np.array([0.26, 0.50, 0.74], np.float32),
    "dark brown": np.array([0.75, 1.10, 1.30], np.float32),
    "black": np.array([1.60, 1.75, 1.75], np.float32),
    "red": np.array([0.12, 0.58, 0.50], np.float32),
    "blue-grey": np.array([0.92, 0.78, 0.58], np.float32),
    "white": np.array([-0.10, -0.12, -0.10], np.float32),
}
STRUCTURES = ("network", "structureless areas", "dots", "globules", "streaks")
ARTEFACTS = ("hair", "bubbles", "ruler", "ink", "dark corners")


class Sample(NamedTuple):
    """One picture: `image` uint8 RGB (size, size, 3), `mask` bool (size, size), `attributes` as in the table."""

    image: np.ndarray
    mask: np.ndarray
    attributes: dict


def total_dermoscopy_score(asymmetry: int, border: int, colours: int, structures: int) -> float:
    """TDS of the ABCD rule (Stolz 1994): asymmetry 0–2, border 0–8, colours 1–6, structures 1–5. Lesson 01."""
    return 1.3 * asymmetry + 0.1 * border + 0.5 * colours + 0.5 * structures


def probability_of_malignancy(tds: float) -> float:
    """The stated rule that draws this set's labels: a logistic curve in the TDS, 0.5 at a TDS of 4.9."""
    return float(1 / (1 + np.exp(-2.0 * (tds - 4.9))))


# -- one lesion's attributes -----------------------------------------------------------------------------------------


def draw_lesion_attributes(rng: np.random.Generator) -> dict:
    """Draw A, B, C, D from one hidden degree of atypia, so that they vary together, as they do in the clinic."""
    atypia = rng.beta(9.0, 1.8) if rng.random() < 0.32 else rng.beta(1.8, 9.0)
    more_colours = rng.permutation(["black", "red", "blue-grey", "white"])
    base = str(rng.choice(["light brown", "dark brown"]))
    count = int(rng.binomial(5, 0.03 + 0.72 * atypia))
    # What most moles have comes first; streaks and structureless areas join as a lesion grows more atypical.
    order = [*rng.permutation(["network", "dots", "globules"]), *rng.permutation(["structureless areas", "streaks"])]
    brown = "dark brown" if base == "light brown" else "light brown"
    return {
        "asymmetry": int(rng.binomial(2, atypia)),
        "border": int(rng.binomial(8, 0.08 + 0.84 * atypia)),
        "colours": [base, *[str(colour) for colour in [brown, *more_colours][:count]]],
        "structures": [str(name) for name in order[: 1 + rng.binomial(4, 0.10 + 0.75 * atypia)]],
        "radius": float(np.clip(rng.lognormal(np.log(0.23), 0.36), 0.09, 0.46)),
    }


def draw_view_attributes(rng: np.random.Generator) -> dict:
    """Draw what belongs to the photograph and not to the lesion: artefacts never depend on the label."""
    return {
        "hair": int(rng.choice([0, rng.integers(2, 10), rng.integers(15, 45)], p=[0.55, 0.30, 0.15])),
        "bubbles": int(rng.choice([0, rng.integers(1, 8)], p=[0.8, 0.2])),
        "ruler": bool(rng.random() < 0.2),
        "ink": bool(rng.random() < 0.08),
        "dark corners": bool(rng.random() < 0.25),
    }


# -- painting --------------------------------------------------------------------------------------------------------


def noise_field(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth random field (size, size), mean 0 and standard deviation about 1: coarse random numbers, enlarged."""
    coarse = rng.standard_normal((cells + 3, cells + 3), dtype=np.float32)
    return 1.35 * cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


@functools.lru_cache(maxsize=8)
def pixel_grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel's centre, 0–1 across the picture, each (size, size)."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    return tuple(np.meshgrid(axis, axis))


def paint_skin(rng: np.random.Generator, size: int, melanin: float) -> np.ndarray:
    """Density (size, size, 3) of the bare skin: melanin, blood, mottling, fine creases and some freckles."""
    blotches = noise_field(rng, size, 4)
    grain = noise_field(rng, size, max(8, size // 5))
    blood = 0.40 + 0.18 * rng.random() + 0.10 * blotches + 0.035 * grain
    pigment = melanin * (1 + 0.05 * noise_field(rng, size, 6) + 0.04 * grain)
    for _ in range(rng.poisson(3)):
        x, y = pixel_grid(size)
        distance = np.hypot(x - rng.random(dtype=np.float32), y - rng.random(dtype=np.float32))
        pigment = pigment + 0.35 * np.exp(-((distance / np.float32(rng.uniform(0.006, 0.016))) ** 2))
    return pigment[..., None] * MELANIN + blood[..., None] * HAEMOGLOBIN


def lesion_outline(rng: np.random.Generator, asymmetry: int, border: int) -> np.ndarray:
    """Radius of the outline at 360 angles, mean about 1.

    The harmonics say exactly what the A of ABCD means: even cosines keep both axes of symmetry, odd cosines break
    one, sines break the other. Sharp notches come with the abrupt segments of B.
    """
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    radius = 1 + rng.uniform(0.02, 0.14) * np.cos(2 * angle) + rng.uniform(-0.04, 0.04) * np.cos(4 * angle)
    if asymmetry >= 1:
        radius += rng.uniform(0.12, 0.20) * np.cos(3 * angle) + rng.uniform(-0.07, 0.07) * np.cos(5 * angle)
    if asymmetry >= 2:
        radius += rng.uniform(0.14, 0.22) * np.sin(2 * angle + 0.6) + rng.uniform(0.06, 0.12) * np.sin(3 * angle)
    for frequency in range(6, 22):
        radius += (0.004 + 0.0035 * border) * rng.normal() * np.cos(frequency * angle + rng.uniform(0, 2 * np.pi)) / 2.2
    return np.clip(radius, 0.35, None).astype(np.float32)


def paint_lesion(
    rng: np.random.Generator, size: int, lesion: dict, centre: tuple[float, float], turn: float
) -> tuple[np.ndarray, np.ndarray]:
    """Density that the lesion adds (size, size, 3), and its exact mask (size, size).

    The mask is where the outline's own formula says "inside". Eight sectors of the border are abrupt or fading; a
    fading border passes half its pigment exactly on the outline.
    """
    x, y = pixel_grid(size)
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    angle = np.arctan2(dy, dx) - np.float32(turn)
    distance = np.hypot(dx, dy)
    degrees = (np.degrees(angle) % 360).astype(np.float32)
    outline = lesion["outline"]
    limit = np.float32(lesion["radius"]) * np.interp(degrees, np.arange(361), np.append(outline, outline[0])).astype(
        np.float32
    )
    inside = limit - distance  # in picture widths; positive inside

    abrupt = np.zeros(8, np.float32)
    abrupt[lesion["abrupt sectors"]] = 1
    sharpness = np.interp(degrees, np.arange(0, 361, 45), np.append(abrupt, abrupt[0])).astype(np.float32)
    softness = np.float32(lesion["radius"]) * (0.10 - 0.085 * sharpness)
    presence = 1 / (1 + np.exp(-np.clip(inside / softness * 2.2, -20, 20)))

    colours = lesion["colours"]
    strength = np.float32(lesion["strength"])
    density = np.broadcast_to(COLOURS[colours[0]] * strength, (size, size, 3)).copy()
    across = (np.cos(angle) * distance / np.float32(lesion["radius"])).astype(np.float32)
    along = (np.sin(angle) * distance / np.float32(lesion["radius"])).astype(np.float32)
    tilt = (0.0, 0.40, 0.40)[lesion["asymmetry"]] * across + (0.0, 0.0, 0.35)[lesion["asymmetry"]] * along
    texture = noise_field(rng, size, 14)
    density *= (1 + 0.10 * texture + tilt)[..., None]
    for number, colour in enumerate(colours[1:]):
        # Each further colour fills a patch of its own, pushed to a side of its own.
        direction = lesion["patch directions"][number]
        patch = noise_field(rng, size, 5) + 1.6 * (across * np.cos(direction) + along * np.sin(direction)) - 0.55
        weight = 1 / (1 + np.exp(-3.5 * patch))
        density += weight[..., None] * (COLOURS[colour] * (0.6 + 0.4 * strength) - density)
    density += paint_structures(rng, size, lesion["structures"], lesion, centre, turn)
    return density * presence[..., None], inside > 0


def paint_structures(
    rng: np.random.Generator,
    size: int,
    structures: list[str],
    lesion: dict,
    centre: tuple[float, float],
    turn: float,
) -> np.ndarray:
    """Density (size, size, 3) of the dermoscopic structures (the D of ABCD), before the lesion's edge cuts them."""
    x, y = pixel_grid(size)
    radius = lesion["radius"]
    layer = np.zeros((size, size), np.float32)
    if "network" in structures:
        bend = 0.012 * noise_field(rng, size, 8)
        mesh = 2 * np.pi / 0.035
        layer += 0.30 * np.maximum(np.cos(mesh * (x + bend)), np.cos(mesh * (0.5 * x + 0.87 * y - bend))) ** 3
    for name, count, dot in (("dots", 45, 0.006), ("globules", 22, 0.014)):
        if name in structures:
            canvas = np.zeros((size, size), np.uint8)
            for _ in range(count):
                at = radius * np.sqrt(rng.random()) * 0.95
                way = rng.uniform(0, 2 * np.pi)
                point = (centre[0] + at * np.cos(way), centre[1] + at * np.sin(way))
                _disc(canvas, point, dot * rng.uniform(0.7, 1.3))
            layer += 0.85 * canvas / np.float32(255)
    if "streaks" in structures:
        canvas = np.zeros((size, size), np.uint8)
        start = rng.uniform(0, 2 * np.pi)
        for step in range(16):
            way = start + step * 0.20 + rng.normal(0, 0.03)
            limit = radius * lesion["outline"][int(np.degrees(way - turn)) % 360]
            ends = [(centre[0] + f * limit * np.cos(way), centre[1] + f * limit * np.sin(way)) for f in (0.72, 1.12)]
            _line(canvas, np.array(ends), 0.011)
        layer += 0.9 * canvas / np.float32(255)
    density = layer[..., None] * MELANIN * 1.5
    if "structureless areas" in structures:
        # A milky area without texture: it lightens, and hides whatever structure lies under it.
        patch = 1 / (1 + np.exp(-7 * (noise_field(rng, size, 4) - 0.7)))
        density = density * (1 - patch[..., None]) - 0.16 * patch[..., None]
    return density.astype(np.float32)


def paint_artefacts(rng: np.random.Generator, density: np.ndarray, view: dict) -> np.ndarray:
    """Lay hair, gel bubbles, a ruler, ink and dark corners over the picture (density in, density out)."""
    size = len(density)
    x, y = pixel_grid(size)
    if view["ink"]:
        canvas = np.zeros((size, size), np.uint8)
        side = rng.choice([0.08, 0.92])
        _line(canvas, np.array([(side, 0.1), (side + 0.06, 0.5), (side, 0.9)]) + rng.normal(0, 0.02, (3, 2)), 0.02)
        smear = cv2.GaussianBlur(canvas, (0, 0), size * 0.008) / np.float32(255)
        density = density + smear[..., None] * np.array([0.75, 1.0, 0.30], np.float32) * (
            0.6 + 0.4 * noise_field(rng, size, 40)[..., None]
        )
    if view["hair"]:
        canvas = np.zeros((size, size), np.uint8)
        comb = rng.uniform(0, np.pi)
        thickness = rng.uniform(0.003, 0.007)
        for _ in range(view["hair"]):
            start, way, length = rng.random(2), comb + rng.normal(0, 0.5), rng.uniform(0.3, 1.1)
            ahead = np.array([np.cos(way), np.sin(way)])
            aside = np.array([-ahead[1], ahead[0]]) * rng.normal(0, 0.12)
            steps = np.linspace(-0.5, 0.5, 12)[:, None]
            _line(canvas, start + steps * length * ahead + steps**2 * aside * 4 * length, thickness)
        shade = np.array([1.3, 1.5, 1.6], np.float32) if rng.random() < 0.85 else np.array([-0.1, -0.1, 0], np.float32)
        density = density + canvas[..., None] / np.float32(255) * shade
    for _ in range(view["bubbles"]):
        at, bubble = rng.random(2), rng.uniform(0.015, 0.05)
        distance = np.hypot(x - np.float32(at[0]), y - np.float32(at[1]))
        rim = np.exp(-(((distance - np.float32(bubble)) / np.float32(0.006)) ** 2))
        density = density + (0.30 * rim * np.sign(y - at[1]) - 0.05 * (distance < bubble))[..., None]
    if view["ruler"]:
        canvas = np.zeros((size, size), np.uint8)
        level, slope = rng.uniform(0.88, 0.95), rng.uniform(-0.04, 0.04)
        _line(canvas, np.array([(0.1, level - slope), (0.9, level + slope)]), 0.005)
        for tick in range(33):
            across = 0.1 + 0.025 * tick
            here = level + slope * (2 * across - 1)
            _line(canvas, np.array([(across, here), (across, here - (0.035 if tick % 4 == 0 else 0.02))]), 0.005)
        density = density + canvas[..., None] / np.float32(255) * np.float32(1.4)
    if view["dark corners"]:
        reach = rng.uniform(0.46, 0.64)
        density = density + (6 * np.clip(np.hypot(x - 0.5, y - 0.5) - reach, 0, None) / 0.08)[..., None]
    return density


def photograph(rng: np.random.Generator, density: np.ndarray) -> np.ndarray:
    """Density to a uint8 RGB picture: lamp, uneven light, colour cast, focus and sensor noise."""
    size = len(density)
    x, y = pixel_grid(size)
    # A camera's automatic exposure brightens dark pictures, though not fully.
    exposure = (0.55 / max(0.05, float(np.exp(-density).mean()))) ** 0.4
    gain = exposure * rng.uniform(0.88, 1.08) * np.clip(rng.normal(1, 0.035, 3), 0.9, 1.1)
    way = rng.uniform(0, 2 * np.pi)
    fall = 1 + 0.45 * rng.random() * (np.cos(way) * (x - 0.5) + np.sin(way) * (y - 0.5))
    light = np.exp(-np.clip(density, -0.5, 8)) * (0.96 * gain).astype(np.float32) * fall[..., None].astype(np.float32)
    light = cv2.GaussianBlur(light.astype(np.float32), (0, 0), size / 192 * rng.uniform(0.35, 1.0))
    light += rng.standard_normal(light.shape, dtype=np.float32) * np.float32(rng.uniform(0.006, 0.016))
    return np.clip(np.rint(light * 255), 0, 255).astype(np.uint8)


def _line(canvas: np.ndarray, points: np.ndarray, width: float) -> None:
    size = len(canvas)
    fixed_point = np.rint(points * size * 16).astype(np.int32)
    cv2.polylines(canvas, [fixed_point], False, 255, max(1, round(width * size)), cv2.LINE_AA, 4)


def _disc(canvas: np.ndarray, point: tuple[float, float], radius: float) -> None:
    size = len(canvas)
    centre = (int(point[0] * size * 16), int(point[1] * size * 16))
    cv2.circle(canvas, centre, max(8, int(radius * size * 16)), 255, -1, cv2.LINE_AA, 4)


# -- one picture, and the whole set ----------------------------------------------------------------------------------


def make_image(seed: int, size: int = DEFAULT_SIZE, view: int = 0, **attributes) -> Sample:
    """Paint one picture of lesion number `seed`; another `view` is another photograph of the same lesion.

    `attributes` override what would be drawn: `asymmetry` (0–2), `border` (0–8), `colours` and `structures` (lists of
    names), `radius` (0.05–0.7 of the picture's width), and the artefacts of `ARTEFACTS` (`dark_corners` for
    "dark corners"). Raises CourseError for a size outside 32–2048 or an attribute that cannot be. Lesson 01.
    """
    if not 32 <= size <= 2048:
        raise CourseError(f"a synthetic image can be 32 to 2048 pixels wide, not {size}")
    rng = np.random.default_rng([VERSION, seed])
    lesion = draw_lesion_attributes(rng)
    label_draw = rng.random()
    melanin = rng.uniform(0.05, 1.0) ** 1.5 * 2.6
    view_rng = np.random.default_rng([VERSION, seed, 1 + view])
    photo = draw_view_attributes(view_rng)
    for name, value in attributes.items():
        name = name.replace("_", " ")
        if name not in lesion and name not in photo:
            known = ", ".join(key.replace(" ", "_") for key in [*lesion, *photo])
            raise CourseError(f"a synthetic lesion has no attribute '{name}'; there are: {known}")
        (lesion if name in lesion else photo)[name] = value
    _check_attributes(lesion)

    # The lesion's own shape comes from the lesion's generator, so that every view shows the same lesion.
    lesion["outline"] = lesion_outline(rng, lesion["asymmetry"], lesion["border"])
    lesion["abrupt sectors"] = rng.permutation(8)[: lesion["border"]]
    lesion["patch directions"] = rng.uniform(0, 2 * np.pi, len(COLOURS))
    lesion["strength"] = rng.uniform(0.45, 1.2)
    texture_seed = int(rng.integers(2**31))

    lesion = lesion | {"radius": lesion["radius"] * (1 if view == 0 else view_rng.uniform(0.85, 1.15))}
    centre = tuple(0.5 + np.clip(view_rng.normal(0, 0.07, 2), -0.2, 0.2))
    turn = view_rng.uniform(0, 2 * np.pi)
    skin = paint_skin(view_rng, size, melanin)
    added, mask = paint_lesion(np.random.default_rng(texture_seed), size, lesion, centre, turn)
    density = paint_artefacts(view_rng, skin + added, photo)
    image = photograph(view_rng, density)

    counts = {name: lesion[name] for name in ("asymmetry", "border")}
    counts |= {name: len(lesion[name]) for name in ("colours", "structures")}
    tds = total_dermoscopy_score(**counts)
    probability = probability_of_malignancy(tds)
    record = {
        "lesion_id": f"SYN_{seed:05d}",
        "label": int(label_draw < probability),
        "true_probability": round(probability, 4),
        **counts,
        "tds": round(tds, 2),
        "colour_names": ", ".join(lesion["colours"]),
        "structure_names": ", ".join(lesion["structures"]),
        "ita": round(skin_tone_angle(np.exp(-skin.mean((0, 1))) * 0.96), 1),
        **{name.replace(" ", "_"): int(photo[name]) for name in ARTEFACTS},
    }
    return Sample(image, mask, record)


def _check_attributes(lesion: dict) -> None:
    for name, low, high in (("asymmetry", 0, 2), ("border", 0, 8), ("radius", 0.05, 0.7)):
        if not low <= lesion[name] <= high:
            raise CourseError(f"{name} must lie within {low}–{high}, not {lesion[name]}")
    for name, known in (("colours", tuple(COLOURS)), ("structures", STRUCTURES)):
        if not lesion[name] or not set(lesion[name]) <= set(known) or len(set(lesion[name])) < len(lesion[name]):
            raise CourseError(f"{name} must be a list of different names out of: {', '.join(known)}")


def picture_list(count: int) -> list[tuple[int, int]]:
    """(lesion seed, view) of each picture: of fifteen lesions, two are photographed twice and one three times."""
    pictures, seed = [], 0
    while len(pictures) < count:
        views = 3 if seed % 15 == 7 else 2 if seed % 5 == 2 else 1
        pictures += [(seed, view) for view in range(views)]
        seed += 1
    return pictures[:count]


def generate(count: int = DEFAULT_COUNT, size: int = DEFAULT_SIZE) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Paint the set: images uint8 (count, size, size, 3), masks bool (count, size, size), one table row per image."""
    if count < 1:
        raise CourseError(f"a synthetic data set needs at least one image, not {count}")
    pictures = picture_list(count)
    pixel_grid(size)  # fill its cache before the threads ask for it
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        painted = pool.map(lambda picture: make_image(picture[0], size, picture[1]), pictures)
        samples = list(progress(painted, "painting the embedded data set", count, "image"))
    table = pd.DataFrame([sample.attributes for sample in samples])
    table.insert(0, "image_id", [f"SYN_{seed:05d}_{view}" for seed, view in pictures])
    return np.stack([sample.image for sample in samples]), np.stack([sample.mask for sample in samples]), table


def load(
    data_dir: str | Path, count: int = DEFAULT_COUNT, size: int = DEFAULT_SIZE
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """`generate`, kept in a file under `data_dir`. A damaged file, or one of another version, is never believed."""
    cache = Path(data_dir) / "cache" / f"synthetic-v{VERSION}-{count}x{size}.npz"
    try:
        with np.load(cache, allow_pickle=False) as stored:
            images, masks = stored["images"], stored["masks"]
            table = pd.DataFrame({name[6:]: stored[name] for name in stored.files if name.startswith("table ")})
        if images.shape == (count, size, size, 3) and masks.shape == (count, size, size) and len(table) == count:
            return images, masks, table
    except Exception:  # not there, or not whole (a damaged zip raises almost anything): paint it again
        pass
    images, masks, table = generate(count, size)
    columns = {
        f"table {name}": table[name].to_numpy(dtype=str)
        if table[name].dtype.kind not in "biuf"
        else table[name].to_numpy()
        for name in table
    }
    with written_whole(cache) as unfinished:
        np.savez(unfinished, images=images, masks=masks, **columns)
    return images, masks, table
