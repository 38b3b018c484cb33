"""The embedded data set: lesions with known clinical attributes, a label drawn by a stated rule, and a known ceiling.

`painting`, `lesion` and `artefacts` say how a picture is painted and `annotators` who outlines it; this file says what
is in the set. It is made on first use, kept under `data/cache/`, and is the same on every machine up to single grey
levels. Explored in lesson 01; its data card is data/README.md.

Clinical criteria: the ABCD rule of dermoscopy (Stolz 1994), TDS = 1.3 A + 0.1 B + 0.5 C + 0.5 D, and the seven-point
checklist (Argenziano 1998).
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import joblib
import numpy as np
import pandas as pd

from skinlib import annotators, artefacts, painting
from skinlib import lesion as lesions
from skinlib.annotators import REFERENCE, STYLES, draw_outlines
from skinlib.colour import skin_tone_angle
from skinlib.files import CourseError, digest, folder_written_whole, write_image, write_json, written_whole
from skinlib.isic import ISIC2018_IMAGES, ISIC2018_MASKS
from skinlib.lesion import COLOURS
from skinlib.progress import progress

VERSION = 2  # part of the cache's name: raise it with every change that alters a pixel or a label
DEFAULT_COUNT = 800
DEFAULT_SIZE = 192
# A cache made by any other state of these files is not read, even if nobody remembered to raise VERSION.
_PAINTER = [Path(module.__file__) for module in (painting, lesions, artefacts, annotators)] + [Path(__file__)]
BATCH = 20  # pictures that a process paints before it hands them over

STRUCTURES = ("network", "structureless areas", "dots", "globules", "streaks")
# The seven-point checklist: points, and what must be there for the sign to be seen at all.
SEVEN_POINT = {
    "atypical network": (2, "structures", ("network",)),
    "blue-white veil": (2, "colours", ("blue-grey",)),
    "atypical vessels": (2, "colours", ("red",)),
    "irregular streaks": (1, "structures", ("streaks",)),
    "irregular dots or globules": (1, "structures", ("dots", "globules")),
    "irregular blotches": (1, "structures", ("structureless areas",)),
    "regression": (1, "colours", ("white",)),
}
ARTEFACTS = ("hair", "bubbles", "gel border", "ruler", "ink", "patches", "dark corners", "reflections")
# Typology angles (degrees) from which the skin of each group is drawn.
ITA_RANGES = {
    "very light": (56, 76), "light": (42, 55), "intermediate": (29, 41), "tan": (11, 28), "brown": (-28, 10),
    "dark": (-48, -32),
}  # fmt: skip


class Population(NamedTuple):
    """Whose skin, how large the lesions on it, and how visible.

    skin_tones    share of each group of `ITA_RANGES`
    radius        median, in picture widths, and spread (standard deviation of the logarithm)
    contrast      the same for the pigment's strength
    """

    skin_tones: dict[str, float]
    radius: tuple[float, float]
    contrast: tuple[float, float]

    def draw(self, rng: np.random.Generator, name: str, least: float, most: float) -> float:
        """One value of "radius" or "contrast"."""
        median, spread = getattr(self, name)
        return float(np.clip(rng.lognormal(np.log(median), spread), least, most))


# All groups alike, and mostly lesions that are large and clear enough to study: what the course learns from.
TEACHING = Population(dict.fromkeys(ITA_RANGES, 1.0), (0.27, 0.48), (0.80, 0.50))
# As in ISIC 2018: a median angle of 42 degrees, with 2 % below 28, and as many small and pale lesions.
ISIC2018 = Population(
    {"very light": 0.22, "light": 0.34, "intermediate": 0.40, "tan": 0.04}, (0.225, 0.57), (0.52, 0.68)
)


class Sample(NamedTuple):
    """One picture with all that is known about it.

    image        uint8 RGB (size, size, 3)
    mask         bool (size, size), the reference: what the annotator `REFERENCE` drew
    attributes   this picture's row of the table
    exact        bool (size, size), the lesion as it was painted, where the picture shows it
    outlines     bool (3, size, size), what each annotator of `STYLES` drew
    """

    image: np.ndarray
    mask: np.ndarray
    attributes: dict
    exact: np.ndarray
    outlines: np.ndarray


# -- the rule, and the best that can be known ------------------------------------------------------------------------


def total_dermoscopy_score(asymmetry: int, border: int, colours: int, structures: int) -> float:
    """TDS of the ABCD rule (Stolz 1994): asymmetry 0–2, border 0–8, colours 1–6, structures 1–5. Lesson 01."""
    return 1.3 * asymmetry + 0.1 * border + 0.5 * colours + 0.5 * structures


def seven_point_score(signs: list[str]) -> int:
    """Score of the seven-point checklist (Argenziano 1998), 0–10: major signs count 2, minor ones 1. Lesson 01."""
    return sum(SEVEN_POINT[sign][0] for sign in signs)


def probability_of_malignancy(tds: float) -> float:
    """The stated rule that draws this set's labels: a logistic curve in the TDS, 0.5 at a TDS of 4.9."""
    return float(1 / (1 + np.exp(-2.0 * (tds - 4.9))))


def ceiling(probabilities: np.ndarray) -> dict[str, float]:
    """The best that any classifier can expect on lesions whose labels are drawn with these probabilities. Lesson 04.

    probabilities    (n,) in 0–1, one per lesion
    Returns the expected "accuracy" of saying malignant above 0.5, "balanced_accuracy" of saying malignant above the
    prevalence, and "auroc" of ranking by the probability itself. All three are the Bayes values: whatever a
    classifier sees, it knows at most the probability. One that needs both classes is NaN where one cannot occur.
    """
    p = np.sort(np.asarray(probabilities, float))
    called = p > p.mean()
    # AUROC: of a malignant i and a benign j, drawn as often as they occur, i must rank higher; ties count half.
    _, first, counts = np.unique(p, return_index=True, return_counts=True)
    benign = 1 - p
    below = np.repeat(np.concatenate([[0.0], np.cumsum(np.add.reduceat(benign, first))[:-1]]), counts)
    level = np.repeat(np.add.reduceat(benign, first), counts) - benign  # a lesion is not its own rival
    return {
        "accuracy": float(np.maximum(p, 1 - p).mean()),
        "balanced_accuracy": (_ratio(p[called].sum(), p.sum()) + _ratio(benign[~called].sum(), benign.sum())) / 2,
        "auroc": _ratio((p * (below + 0.5 * level)).sum(), p.sum() * benign.sum() - (p * benign).sum()),
    }


def ceiling_of(table: pd.DataFrame) -> dict[str, float]:
    """`ceiling` for a table with a row per photograph: those of one lesion share one draw of the label. Lesson 04.

    table    has "lesion_id" and "true_probability", as `describe` makes it
    """
    return ceiling(table.drop_duplicates("lesion_id")["true_probability"])


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 1e-12 else np.nan


def diagnosis(malignant: bool, lesion: dict) -> str:
    """Diagnosis group: of one label, told apart by what the lesion shows. It adds nothing to the label."""
    if malignant:
        vessels_alone = "atypical vessels" in lesion["seven_point"] and "atypical network" not in lesion["seven_point"]
        return "basal cell carcinoma" if vessels_alone else "melanoma"
    return "seborrhoeic keratosis" if lesion["cysts"] else "naevus"


# -- one lesion's attributes, one photograph's -----------------------------------------------------------------------


def draw_lesion_attributes(rng: np.random.Generator, population: Population = TEACHING) -> dict:
    """Draw A, B, C, D from one hidden degree of atypia, so that they vary together, as they do in the clinic."""
    atypia = rng.beta(9.0, 1.8) if rng.random() < 0.32 else rng.beta(1.8, 9.0)
    base = str(rng.choice(["light brown", "dark brown", "red"], p=[0.52, 0.38, 0.10]))
    more_colours = [str(name) for name in rng.permutation(["black", "red", "blue-grey", "white"]) if name != base]
    brown = "dark brown" if base == "light brown" else "light brown"
    # What most moles have comes first; streaks and structureless areas join as a lesion grows more atypical.
    order = [*rng.permutation(["network", "dots", "globules"]), *rng.permutation(["structureless areas", "streaks"])]
    lesion = {
        "asymmetry": int(rng.binomial(2, atypia)),
        "border": int(rng.binomial(8, 0.08 + 0.84 * atypia)),
        "colours": [base, *[brown, *more_colours][: int(rng.binomial(5, 0.03 + 0.72 * atypia))]],
        "structures": [str(name) for name in order[: 1 + rng.binomial(4, 0.10 + 0.75 * atypia)]],
    }
    shown = rng.random(len(SEVEN_POINT)) < 0.05 + 0.80 * atypia
    lesion["seven_point"] = [
        sign for sign, there in zip(SEVEN_POINT, shown, strict=True) if there and _can_show(lesion, sign)
    ]
    # What follows says nothing about the label. Small lesions are seen sharper, as they are in ISIC 2018.
    radius = population.draw(rng, "radius", 0.07, 0.80)
    softness = rng.choice([rng.uniform(0.03, 0.15), rng.uniform(0.15, 0.45)])
    lesion |= {
        "radius": radius,
        "softness": float(softness * np.clip(radius / 0.22, 0.35, 1.1)),
        "contrast": population.draw(rng, "contrast", 0.15, 1.8),
        "patchiness": float(rng.choice([rng.uniform(0.0, 0.25), rng.uniform(0.3, 0.7)], p=[0.8, 0.2])),
        "satellites": int(rng.choice([0, rng.integers(1, 5)], p=[0.88, 0.12])),
        "cysts": int(rng.choice([0, rng.integers(4, 16)], p=[0.85, 0.15])),
        "vessels": bool(rng.random() < 0.10),
    }
    return lesion


def _can_show(lesion: dict, sign: str) -> bool:
    _, where, names = SEVEN_POINT[sign]
    return any(name in lesion[where] for name in names)


def draw_view_attributes(rng: np.random.Generator) -> dict:
    """Draw what belongs to the photograph and not to the lesion: artefacts never depend on the label."""
    return {
        "hair": int(rng.choice([0, rng.integers(2, 12), rng.integers(12, 50)], p=[0.62, 0.24, 0.14])),
        "bubbles": int(rng.choice([0, rng.integers(1, 8)], p=[0.86, 0.14])),
        "gel border": bool(rng.random() < 0.10),
        "ruler": bool(rng.random() < 0.30),
        "ink": bool(rng.random() < 0.14),
        "patches": bool(rng.random() < 0.10),
        "dark corners": bool(rng.random() < 0.12),
        "reflections": bool(rng.random() < 0.12),
    }


_LIMITS = {
    "asymmetry": (0, 2), "border": (0, 8), "radius": (0.05, 0.9), "contrast": (0.05, 2.0), "softness": (0.0, 0.6),
    "patchiness": (0.0, 0.9), "satellites": (0, 8), "cysts": (0, 40), "hair": (0, 200), "bubbles": (0, 50),
    "ita": (-50, 80),
}  # fmt: skip
_COUNTS = ("asymmetry", "border", "satellites", "cysts", "hair", "bubbles")
_LISTS = {"colours": tuple(COLOURS), "structures": STRUCTURES, "seven_point": tuple(SEVEN_POINT)}


def _override(lesion: dict, photo: dict, wanted: dict) -> None:
    """Put the wanted attributes in place of the drawn ones; whatever cannot be is refused in one line."""
    known = {name.replace(" ", "_"): attributes for attributes in (lesion, photo) for name in attributes}
    for name, value in wanted.items():
        if name not in known:
            raise CourseError(f"a synthetic lesion has no attribute '{name}'; there are: {', '.join(known)}")
        key = name if name in known[name] else name.replace("_", " ")
        if name in _LISTS:
            right = isinstance(value, list | tuple) and all(item in _LISTS[name] for item in value)
            right = right and len(set(value)) == len(value)
            if not right or (not value and name != "seven_point"):
                raise CourseError(f"{name} must be a list of different names out of: {', '.join(_LISTS[name])}")
            value = list(value)
        elif key in _LIMITS:
            low, high = _LIMITS[key]
            kind = int if key in _COUNTS else float
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if not number or not low <= value <= high or kind(value) != value:
                whole = "a whole number " if kind is int else ""
                raise CourseError(f"{name} must be {whole}within {low}–{high}, not {value!r}")
            value = kind(value)
        elif value not in (True, False):
            raise CourseError(f"{name} is either True or False, not {value!r}")
        known[name][key] = value
    for sign in list(lesion["seven_point"]):
        if not _can_show(lesion, sign):
            if "seven_point" in wanted:
                _, where, names = SEVEN_POINT[sign]
                raise CourseError(f"'{sign}' needs {' or '.join(names)} among the {where}")
            lesion["seven_point"].remove(sign)


# -- one picture -----------------------------------------------------------------------------------------------------


def make_image(
    seed: int,
    size: int = DEFAULT_SIZE,
    view: int = 0,
    population: Population = TEACHING,
    shortcut: dict[str, float] | None = None,
    **attributes,
) -> Sample:
    """Paint one picture of lesion number `seed`; another `view` is another photograph of the same lesion.

    seed          the lesion's number, 0 or more; size: width in pixels, 32–2048
    population    whose skin and which lesions, such as TEACHING._replace(skin_tones={"dark": 1})
    shortcut      artefact and how often it agrees with the label, such as {"ruler": 0.9}, whatever else is drawn or
                  asked for; lesson 01
    attributes    put in place of what would be drawn: `asymmetry` (0–2), `border` (0–8), `colours`, `structures` and
                  `seven_point` (lists of names), `radius` (0.05–0.9 picture widths), `contrast` (0.05–2), `softness`
                  (0–0.6 radii), `patchiness` (0–0.9), `satellites`, `cysts`, `vessels`, `ita` (−50–80 degrees), and the
                  artefacts of `ARTEFACTS`, with `_` for the space
    Raises CourseError for what cannot be. Lesson 01.
    """
    if not isinstance(size, int | np.integer) or not 32 <= size <= 2048:
        raise CourseError(f"a synthetic image can be 32 to 2048 pixels wide, not {size}")
    lesion, photo, record = _plan(seed, view, population, shortcut, attributes)
    lesion |= _draw_shape(_generator(seed, 2), lesion)
    frame = lesions.lesion_frame(size, photo["centre"], photo["turn"], photo["radius"])
    skin = painting.paint_skin(_generator(seed, 3, view), size, lesion["melanin"], lesion["blood"])
    added, exact, visible = lesions.paint_lesion(_generator(seed, 4), frame, lesion)
    light, hidden = _add_artefacts(lambda part: _generator(seed, 5, view, part), skin + added, photo)
    image = painting.photograph(_generator(seed, 6, view), light)

    shown = hidden < 0.5  # nobody outlines what a sticker or the black outside a round field hides
    outlines = draw_outlines(_generator(seed, 7, view), visible * shown) & shown
    return Sample(image, outlines[STYLES.index(REFERENCE)], record, exact & shown, outlines)


def _generator(seed: int, *part: int) -> np.random.Generator:
    """A random generator for each part of a picture, so that a change in one moves nothing in the others."""
    return np.random.default_rng([VERSION, seed, *part])


def _plan(
    seed: int, view: int, population: Population, shortcut: dict[str, float] | None, wanted: dict
) -> tuple[dict, dict, dict]:
    """Draw everything about a picture that needs no pixel: the lesion, the photograph, and the table's row."""
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise CourseError(f"a lesion's number is a whole number from 0 on, not {seed!r}")
    if not isinstance(view, int | np.integer) or view < 0:
        raise CourseError(f"a view's number is a whole number from 0 on, not {view!r}")
    if not isinstance(population, Population):
        raise CourseError(f"a population is TEACHING, ISIC2018 or a Population of your own, not {population!r}")
    shortcut = _checked_shortcut(shortcut)
    rng = _generator(seed, 0)
    lesion = draw_lesion_attributes(rng, population)
    label_draw, lesion["blood"] = rng.random(), rng.uniform(0.10, 0.45)
    lesion["ita"] = _draw_skin_tone(rng, population.skin_tones)
    view_rng = _generator(seed, 1, view)
    photo = draw_view_attributes(view_rng)
    agrees = view_rng.random(len(ARTEFACTS))
    _override(lesion, photo, wanted)

    score = total_dermoscopy_score(
        lesion["asymmetry"], lesion["border"], len(lesion["colours"]), len(lesion["structures"])
    )
    probability = probability_of_malignancy(score)
    malignant = bool(label_draw < probability)
    for name, agreement in shortcut.items():
        there = malignant if agrees[ARTEFACTS.index(name)] < agreement else not malignant
        photo[name] = (photo[name] or {"hair": 12, "bubbles": 4}.get(name, True)) if there else type(photo[name])(0)

    lesion["melanin"] = painting.melanin_for(lesion["ita"], lesion["blood"])
    # Where skin makes more melanin, so does a lesion in it: on dark skin, lesions are nearly black.
    lesion["strength"] = lesion["contrast"] * (1 + 0.3 * max(0.0, lesion["melanin"] - 1))
    # The lesion mostly lies near the middle, where a dermoscope is aimed.
    away = min(0.40, 0.5 * view_rng.beta(1.2, 5) * (1.0 if view_rng.random() < 0.8 else 1.6))
    way = view_rng.uniform(0, 2 * np.pi)
    photo["centre"] = (0.5 + away * np.cos(way), 0.5 + away * np.sin(way))
    photo["turn"] = view_rng.uniform(0, 2 * np.pi)
    photo["radius"] = lesion["radius"] * (1 if view == 0 else view_rng.uniform(0.85, 1.15))
    even_skin = painting.light_from(painting.skin_density(lesion["melanin"], lesion["blood"]))
    record = {
        "lesion_id": f"SYN_{seed:05d}",
        "label": int(malignant),
        "diagnosis": diagnosis(malignant, lesion),
        "true_probability": round(probability, 4),
        "asymmetry": lesion["asymmetry"],
        "border": lesion["border"],
        "colours": len(lesion["colours"]),
        "structures": len(lesion["structures"]),
        "tds": round(score, 2),
        "colour_names": ", ".join(lesion["colours"]),
        "structure_names": ", ".join(lesion["structures"]),
        "seven_point_score": seven_point_score(lesion["seven_point"]),
        "seven_point_signs": ", ".join(lesion["seven_point"]),
        "ita": round(skin_tone_angle(even_skin), 1),
        "radius": round(photo["radius"], 3),
        "contrast": round(lesion["contrast"], 3),
        "softness": round(lesion["softness"], 3),
        "patchiness": round(lesion["patchiness"], 3),
        "satellites": lesion["satellites"],
        "cysts": lesion["cysts"],
        "vessels": int(lesion["vessels"]),
        **{name.replace(" ", "_"): int(photo[name]) for name in ARTEFACTS},
    }
    return lesion, photo, record


def _checked_shortcut(shortcut: dict[str, float] | None) -> dict[str, float]:
    if shortcut is None:
        return {}
    known = {name.replace(" ", "_"): name for name in ARTEFACTS}
    asked = (
        {str(name).replace(" ", "_"): value for name, value in shortcut.items()} if hasattr(shortcut, "items") else None
    )
    numbers = asked is not None and all(isinstance(value, int | float) and 0 <= value <= 1 for value in asked.values())
    if not numbers or not set(asked) <= set(known):
        raise CourseError(f"a shortcut is an artefact ({', '.join(known)}) and a probability, not {shortcut!r}")
    return {known[name]: value for name, value in asked.items()}


def _draw_skin_tone(rng: np.random.Generator, shares: dict[str, float]) -> float:
    """A typology angle in degrees, its group drawn by `shares`."""
    weights = np.array([shares.get(name, 0) for name in ITA_RANGES], float)
    if set(shares) - set(ITA_RANGES) or (weights < 0).any() or not weights.sum() > 0:
        raise CourseError(f"skin_tones needs shares from 0 on, for some of: {', '.join(ITA_RANGES)}")
    edges = np.cumsum(weights) / weights.sum()
    low, high = list(ITA_RANGES.values())[int(np.searchsorted(edges, rng.random(), side="right"))]
    return float(rng.uniform(low, high))


def _draw_shape(rng: np.random.Generator, lesion: dict) -> dict:
    """What makes this lesion look like itself in every photograph."""
    ways = rng.uniform(0, 2 * np.pi, lesion["satellites"])
    away = rng.uniform(1.15, 1.6, lesion["satellites"])
    return {
        "outline": lesions.outline(rng, lesion["asymmetry"], lesion["border"]),
        "abrupt sectors": rng.permutation(8)[: lesion["border"]],
        # Each colour has a side of its own, so that none hides another.
        "patch directions": rng.uniform(0, 2 * np.pi)
        + 2.4 * np.arange(len(COLOURS))
        + rng.normal(0, 0.3, len(COLOURS)),
        "ragged": rng.uniform(0.005, 0.03) + 0.003 * lesion["border"],
        "core": rng.uniform(-0.3, 1.1),
        "mottling": rng.uniform(0.2, 1.5),
        "satellites": np.stack([away * np.cos(ways), away * np.sin(ways), rng.uniform(0.08, 0.25, len(ways))], 1),
    }


def _add_artefacts(
    generator: Callable[[int], np.random.Generator],
    density: np.ndarray,
    photo: dict,
) -> tuple[np.ndarray, np.ndarray]:
    """Lay the artefacts over the skin: density in, light and the layer of what is hidden out."""
    size, centre, radius = len(density), photo["centre"], photo["radius"]
    light = painting.light_from(density)
    hidden = np.zeros((size, size), np.float32)
    if photo["ink"]:
        rng = generator(0)
        colour = np.array(artefacts.INK[str(rng.choice(list(artefacts.INK), p=[0.75, 0.15, 0.10]))], np.float32)
        light = light * np.exp(
            -rng.uniform(0.3, 1.0) * artefacts.ink_marks(rng, size, centre, radius)[..., None] * colour
        )
    if photo["patches"]:
        patch, colour = artefacts.coloured_patch(generator(1), size, centre, radius)
        light, hidden = light + patch[..., None] * (colour - light), np.maximum(hidden, patch)
    if photo["ruler"]:
        light = light * (1 - generator(2).uniform(0.25, 0.8) * artefacts.ruler(generator(2), size)[..., None])
    if photo["hair"]:
        rng = generator(3)
        kind = rng.choice(["brown", "black", "pale"], p=[0.55, 0.35, 0.10])
        shade = np.array({"brown": (0.30, 0.20, 0.14), "black": (0.07, 0.06, 0.06), "pale": (0.85, 0.80, 0.70)}[kind])
        layer = artefacts.hair(rng, size, photo["hair"], rng.uniform(0.002, 0.0045 if kind != "black" else 0.009))
        light = light + (rng.uniform(0.3, 0.9) * layer)[..., None] * (shade.astype(np.float32) - light)
    if photo["gel border"]:
        light = light * np.exp(-artefacts.gel_border(generator(4), size))[..., None]
    if photo["bubbles"]:
        light = light * np.exp(-artefacts.gel_bubbles(generator(5), size, photo["bubbles"]))[..., None]
    if photo["reflections"]:
        light = light + artefacts.reflections(generator(6), size)[..., None] * (1 - light)
    if photo["dark corners"]:
        surround = artefacts.dark_surround(generator(7), size)
        light, hidden = light * (1 - 0.98 * surround[..., None]), np.maximum(hidden, surround)
    return light.astype(np.float32), hidden


# -- the whole set ---------------------------------------------------------------------------------------------------


class SyntheticSet(NamedTuple):
    """n pictures with all that is known about them; see `Sample` for one.

    images      uint8 RGB (n, size, size, 3)
    outlines    name of the annotator, or "exact", to bool masks (n, size, size); `masks` is the reference
    table       one row per picture, its `image_id` first
    """

    images: np.ndarray
    outlines: dict[str, np.ndarray]
    table: pd.DataFrame

    @property
    def masks(self) -> np.ndarray:
        """The reference masks, bool (n, size, size)."""
        return self.outlines[REFERENCE]

    @property
    def ceiling(self) -> dict[str, float]:
        """The best possible scores on this set; see the function of that name."""
        return ceiling_of(self.table)


def picture_list(count: int, first: int = 0) -> list[tuple[int, int]]:
    """(lesion seed, view) of each picture: of fifteen lesions, two are photographed twice and one three times."""
    pictures, seed = [], first
    while len(pictures) < count:
        views = 3 if seed % 15 == 7 else 2 if seed % 5 == 2 else 1
        pictures += [(seed, view) for view in range(views)]
        seed += 1
    return pictures[:count]


def describe(
    count: int = DEFAULT_COUNT,
    first: int = 0,
    population: Population = TEACHING,
    shortcut: dict[str, float] | None = None,
) -> pd.DataFrame:
    """The table of `generate` without its pictures: thousands of rows in a second. Lesson 01."""
    if not isinstance(count, int | np.integer) or count < 1:
        raise CourseError(f"a synthetic data set needs at least one image, not {count}")
    pictures = picture_list(count, first)
    table = pd.DataFrame([_plan(seed, view, population, shortcut, {})[2] for seed, view in pictures])
    table.insert(0, "image_id", [image_name(*picture) for picture in pictures])
    return table


def image_name(seed: int, view: int) -> str:
    """The `image_id` of a picture."""
    return f"SYN_{seed:05d}_{view}"


def generate(
    count: int = DEFAULT_COUNT,
    size: int = DEFAULT_SIZE,
    first: int = 0,
    population: Population = TEACHING,
    shortcut: dict[str, float] | None = None,
) -> SyntheticSet:
    """Paint `count` pictures, beginning with lesion number `first`; the rest as for `make_image`."""
    table = describe(count, first, population, shortcut)
    pictures = picture_list(count, first)
    make_image(first, size, 0, population, shortcut)  # refuse what cannot be, before any process starts
    images = np.empty((count, size, size, 3), np.uint8)
    outlines = np.empty((1 + len(STYLES), count, size, size), bool)
    settings = (size, population, shortcut)
    done = 0
    for samples in _in_parallel(_paint, pictures, settings, "painting the embedded data set"):
        for image, masks in samples:
            images[done], outlines[:, done] = image, np.unpackbits(masks, axis=-1, count=size)
            done += 1
    return SyntheticSet(images, dict(zip(("exact", *STYLES), outlines, strict=True)), table)


def _paint(pictures: list[tuple[int, int]], *settings) -> list[tuple[np.ndarray, np.ndarray]]:
    samples = [_sample(picture, *settings) for picture in pictures]
    return [(sample.image, np.packbits(_all_outlines(sample), axis=-1)) for sample in samples]


def _sample(picture: tuple[int, int], size: int, population: Population, shortcut: dict[str, float] | None) -> Sample:
    return make_image(picture[0], size, picture[1], population, shortcut)


def _all_outlines(sample: Sample) -> np.ndarray:
    return np.stack([sample.exact, *sample.outlines])


def _in_parallel(work: Callable, pictures: list[tuple[int, int]], settings: tuple, what: str) -> Iterator:
    """`work(some pictures, *settings)` on all cores, in order, with a progress bar.

    Processes, not threads: a picture is some thousand small steps, and Python's threads would wait for each other.
    They take a second to start, so a few pictures are painted right here.
    """
    batches = [pictures[i : i + BATCH] for i in range(0, len(pictures), BATCH)]
    workers = 1 if len(batches) < 4 else -1
    with progress(None, what, len(pictures), "image") as bar:
        calls = (joblib.delayed(_with_one_thread)(work, batch, *settings) for batch in batches)
        for number, result in enumerate(joblib.Parallel(workers, return_as="generator")(calls)):
            bar.update(len(batches[number]))
            yield result


def _with_one_thread(work: Callable, *arguments) -> object:
    """In a worker, OpenCV's own threads would only get in the other workers' way."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return work(*arguments)
    finally:
        cv2.setNumThreads(before)


def load(data_dir: str | Path, count: int = DEFAULT_COUNT, size: int = DEFAULT_SIZE) -> SyntheticSet:
    """`generate`, kept in a file under `data_dir`. A damaged file, or one of another version, is never believed."""
    cache = Path(data_dir) / "cache" / f"synthetic-v{VERSION}-{count}x{size}.npz"
    try:
        with np.load(cache, allow_pickle=False) as stored:
            images, packed = stored["images"], stored["outlines"]
            table = pd.read_csv(io.StringIO(str(stored["table"])), keep_default_na=False)
            recorded, painter = str(stored["digest"]), str(stored["painter"])
        names = ("exact", *STYLES)
        whole = recorded == digest(images, packed) and images.shape == (count, size, size, 3) and len(table) == count
        if whole and painter == _painter_digest() and packed.shape[:3] == (len(names), count, size):
            unpacked = np.unpackbits(packed, axis=-1, count=size).astype(bool)
            return SyntheticSet(images, dict(zip(names, unpacked, strict=True)), table)
    except Exception:  # not there, or not whole (a damaged zip raises almost anything): paint it again
        pass
    made = generate(count, size)
    packed = np.packbits(np.stack(list(made.outlines.values())), axis=-1)
    with written_whole(cache) as unfinished:
        np.savez(
            unfinished,
            images=made.images,
            outlines=packed,
            table=made.table.to_csv(index=False),
            digest=digest(made.images, packed),
            painter=_painter_digest(),
        )
    return made


def _painter_digest() -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in _PAINTER)).hexdigest()


# -- as files --------------------------------------------------------------------------------------------------------

STAMP = "synthetic.json"  # says that a folder was written by `export`, and holds the set's ceiling


def export(
    folder: str | Path,
    count: int = DEFAULT_COUNT,
    size: int = DEFAULT_SIZE,
    population: Population = TEACHING,
    shortcut: dict[str, float] | None = None,
) -> dict[str, float]:
    """Write the set in the official folder layout of ISIC 2018 Task 1, so that other programs can read it.

    FOLDER/ISIC2018_Task1-2_Training_Input/SYN_00000_0.jpg and …_Training_GroundTruth/SYN_00000_0_segmentation.png are
    pictures and reference masks, FOLDER/outlines/NAME/ the exact masks and the other annotators', FOLDER/metadata.csv
    the table (with `diagnosis_1`, Benign or Malignant), FOLDER/synthetic.json the ceiling, which is returned. The
    whole folder appears at once, in place of an older export. Raises CourseError if FOLDER holds anything else.
    """
    folder = Path(folder).resolve()
    own = {ISIC2018_IMAGES, ISIC2018_MASKS, "outlines", "metadata.csv", STAMP}
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_file() or folder == Path.cwd() or (found and not (STAMP in found and found <= own)):
        raise CourseError(f"{folder} exists and holds other things: name a new or an empty folder")
    table = describe(count, 0, population, shortcut)  # refuses what cannot be before anything is written
    make_image(0, size)
    with folder_written_whole(folder) as unfinished:
        settings = (unfinished, size, population, shortcut)
        for _ in _in_parallel(_write, picture_list(count), settings, "painting and writing"):
            pass
        table.insert(1, "diagnosis_1", table["label"].map({0: "Benign", 1: "Malignant"}))
        table.rename(columns={"image_id": "isic_id"}).to_csv(unfinished / "metadata.csv", index=False)
        best = ceiling_of(table)
        stored = {name: None if np.isnan(value) else value for name, value in best.items()}
        write_json(unfinished / STAMP, {"version": VERSION, "images": count, "size": size, "ceiling": stored})
    return best


def _write(pictures: list[tuple[int, int]], folder: Path, *settings) -> None:
    for picture in pictures:
        sample, name = _sample(picture, *settings), image_name(*picture)
        write_image(folder / ISIC2018_IMAGES / f"{name}.jpg", sample.image)
        write_image(folder / ISIC2018_MASKS / f"{name}_segmentation.png", sample.mask)
        for style, mask in zip(("exact", *STYLES), _all_outlines(sample), strict=True):
            if style != REFERENCE:
                write_image(folder / "outlines" / style / f"{name}_segmentation.png", mask)
