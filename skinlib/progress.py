"""The course's one kind of progress bar: it shows after two seconds and leaves nothing behind."""

import os
from collections.abc import Iterable

from tqdm.auto import tqdm

HEADLESS = "SKINLIB_HEADLESS"  # set it in the environment where outputs are kept or compared: no bars, no sliders


def progress(items: Iterable | None, what: str, total: int | None, unit: str, scale: bool = False) -> tqdm:
    """`items`, with a bar as they are used up; without items, a bar to `update` by hand.

    The bar tells the rate and the time that remains; with `scale`, large numbers are shown as k, M, G.
    """
    return tqdm(
        items, desc=what, total=total, unit=unit, unit_scale=scale, leave=False, delay=2, disable=HEADLESS in os.environ
    )
