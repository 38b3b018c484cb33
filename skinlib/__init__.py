"""skinlib: what the notebooks of this course share.

One file per lesson (`unet`, `segmentation`, `cnn`, `evaluation`), the rooms below them (`painting`, `lesion`,
`artefacts`, `annotators` and `synthetic` paint the embedded data set; `isic`, `dataset`, `training`, `plots`, `files`),
and those above (`stages`, `predict`, `course`, `benchmark`, `__main__`).
For education; not a medical device.
"""

import sys

__version__ = "0.1.0"

# One line instead of a traceback: a Python without pip's check can still reach this.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        f"skinlib needs Python 3.11 or newer, and this is {sys.version.split()[0]}: "
        "install a newer Python and make the environment anew (see README.md)."
    )
