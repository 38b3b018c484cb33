"""Paint the committed pictures: data/samples/ (the set's first 24) and data/to_predict/ (in no part of the set)."""

import sys
from pathlib import Path

from skinlib import synthetic
from skinlib.files import write_image

DATA = Path(__file__).resolve().parent.parent / "data"
SAMPLES = 24
TO_PREDICT = range(90_001, 90_009)  # the data set itself counts from 0


def main() -> int:
    synthetic.export(DATA / "samples", SAMPLES)
    print(f"{SAMPLES} pictures in samples/")
    for number, seed in enumerate(TO_PREDICT, start=1):
        square = synthetic.make_image(seed, 400).image
        # Half of them in the 4:3 format of photographs.
        write_image(DATA / "to_predict" / f"lesion_{number}.jpg", square[50:350] if number % 2 else square)
    print(f"{len(TO_PREDICT)} pictures in to_predict/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
