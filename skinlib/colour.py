"""The colour of skin in numbers: what a picture says about the person in it, before any lesion is looked at."""

import cv2
import numpy as np

# Chardon et al. 1991: name, and the least angle in degrees.
SKIN_TONES = (
    ("very light", 55), ("light", 41), ("intermediate", 28), ("tan", 10), ("brown", -30), ("dark", -181),
)  # fmt: skip


def skin_tone_angle(rgb: np.ndarray) -> float:
    """Individual typology angle (ITA) of a colour, in degrees: arctan((L* − 50) / b*). Light skin is high. Lesson 01.

    rgb    three values in 0–1 (sRGB)
    """
    lightness, _, yellowness = cv2.cvtColor(np.float32(rgb).reshape(1, 1, 3), cv2.COLOR_RGB2LAB).ravel()
    return float(np.degrees(np.arctan2(lightness - 50, yellowness)))


def skin_tone(angle: float) -> str:
    """Name of the skin-tone group that an ITA in degrees falls into."""
    return next(name for name, least in SKIN_TONES if angle > least)


def median_colours(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median RGB (0–1) of the lesion and of the skin around it. Lesson 01.

    image    uint8 RGB (h, w, 3); mask: bool (h, w)
    Skin is what lies outside the lesion and is brighter than a round field's black surround. Where a lesion leaves
    none, its own colour stands in.
    """
    lit = image.max(axis=2) > 40
    lesion = np.median(image[mask], axis=0) / 255 if mask.any() else np.zeros(3)
    skin = image[~mask & lit]
    return lesion, np.median(skin, axis=0) / 255 if len(skin) else lesion
