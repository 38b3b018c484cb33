"""Copy the figures that README shows from a run's folder into figures/.

python tools/figures.py RUN
"""

import shutil
import sys
from pathlib import Path

from skinlib.files import CourseError, written_whole

FIGURES = Path(__file__).resolve().parent.parent / "figures"
SHOWN = (
    "contact_sheet.jpg",
    "data_samples.png",
    "dice_unet_otsu.png",
    "unet_typical.png",
    "training_performance.png",
    "confusion_matrix.png",
    "classification_report.png",
    "roc.png",
    "classified.png",
)


def main(run: str) -> int:
    for name in SHOWN:
        source = Path(run) / "figures" / name
        if not source.is_file():
            raise CourseError(f"{source} is missing: run all lessons first, with `make course`")
        with written_whole(FIGURES / name) as unfinished:
            shutil.copyfile(source, unfinished)
        print(f"figures/{name}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except CourseError as error:
        sys.exit(f"figures: {error}")
