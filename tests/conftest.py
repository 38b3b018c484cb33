"""What several tests share: small data sets, in the official layouts and painted."""

import csv
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from skinlib import dataset, synthetic
from skinlib.files import write_image
from skinlib.isic import ISIC2018_IMAGES, ISIC2018_MASKS


@pytest.fixture(autouse=True, scope="session")
def cache_apart(tmp_path_factory):
    """No test, nor a process that one starts, reads or fills the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKINLIB_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def heeding_ctrl_c():
    """A shell tells what it starts in the background to ignore Ctrl-C, and every process passes that on to its own."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory) -> dataset.LesionDataset:
    """The embedded data set as a quick run sees it."""
    return dataset.load_dataset("synthetic", tmp_path_factory.mktemp("data"), quick=True)


@pytest.fixture
def isic_folder(tmp_path) -> Path:
    """Twenty painted lesions in ISIC 2018's official layout; number 19 is a near-duplicate of number 18."""
    root = tmp_path / "isic2018"
    rows = []
    for number in range(20):
        sample = synthetic.make_image(number, 64)
        name = f"ISIC_{9000000 + number}"
        write_image(root / ISIC2018_IMAGES / f"{name}.jpg", sample.image)
        write_image(root / ISIC2018_MASKS / f"{name}_segmentation.png", sample.mask)
        label = ("Benign", "Malignant")[sample.attributes["label"]] if number else "Indeterminate"
        rows.append([name, label, "ISIC_9000018" if number == 19 else ""])
    with (root / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["isic_id", "diagnosis_1", "duplicate_group"], *rows])
    return root


def real_folder(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} does not name a folder of real images")
    return Path(folder)


@pytest.fixture(scope="session")
def real_isic2018() -> Path:
    """The folder of real ISIC 2018 images, where there is one."""
    return real_folder("SKINLIB_ISIC2018_DIR")


@pytest.fixture(scope="session")
def real_ham10000() -> Path:
    """The folder of real HAM10000 images, where there is one."""
    return real_folder("SKINLIB_HAM10000_DIR")


@pytest.fixture
def disc() -> tuple[np.ndarray, np.ndarray]:
    """A plain picture (90, 120, 3) with one dark disc, and the disc's mask."""
    rows, columns = np.indices((90, 120))
    mask = (rows - 45) ** 2 + (columns - 60) ** 2 < 20**2
    image = np.full((90, 120, 3), (220, 180, 160), np.uint8)
    image[mask] = (90, 60, 40)
    return image, mask
