"""Paint the pictures in data/to_predict/: lesions of their own, in no part of the embedded data set."""

import sys
from pathlib import Path

from skinlib.files import write_image
from skinlib.synthetic import make_image

FOLDER = Path(__file__).resolve().parent.parent / "data" / "to_predict"
SEEDS = range(90_001, 90_009)  # the data set itself counts from 0


def main() -> int:
    for number, seed in enumerate(SEEDS, start=1):
        square = make_image(seed, 400).image
        # Half of them in the 4:3 format of photographs.
        write_image(FOLDER / f"lesion_{number}.jpg", square[50:350] if number % 2 else square)
    print(f"{len(SEEDS)} pictures in {FOLDER.name}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
