"""What one lesson hands to the next: loaded from the run's folder if it is there, and made if not.

So every lesson runs alone. A model of other data, of another seed, or one that was half-written is not taken.
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import display

from skinlib import cnn, segmentation, unet
from skinlib.dataset import LesionDataset
from skinlib.files import digest
from skinlib.plots import Note
from skinlib.quiet import keras
from skinlib.training import load_model, save_model, seed_everything


def model_path(run_dir: str | Path, file: str) -> Path:
    """Where a run keeps a model."""
    return Path(run_dir) / "models" / file


def checkpoint_path(run_dir: str | Path, file: str) -> Path:
    """Where the training of that model keeps its state until it is over."""
    return model_path(run_dir, file).with_suffix(".training.npz")


def _unet_identity(data: LesionDataset, seed: int, quick: bool) -> dict[str, object]:
    return data.identity | {"seed": seed, "quick": quick}


def keep_unet(
    model: keras.Model, history: dict, data: LesionDataset, run_dir: str | Path, seed: int, quick: bool
) -> None:
    """Store lesson 02's result for the later lessons."""
    save_model(model, model_path(run_dir, unet.UNET_FILE), _unet_identity(data, seed, quick), history)


def ready_unet(data: LesionDataset, run_dir: str | Path, seed: int, quick: bool) -> keras.Model:
    """Lesson 02's U-Net for this data: loaded, or trained now (one to three minutes on the embedded data)."""
    stored = load_model(model_path(run_dir, unet.UNET_FILE), _unet_identity(data, seed, quick))
    start = time.perf_counter()
    if stored is None:
        seed_everything(seed)
        checkpoint = checkpoint_path(run_dir, unet.UNET_FILE)
        stored = unet.train_unet(data, unet.default_epochs(data.name, quick), seed, checkpoint=checkpoint)
        keep_unet(*stored, data, run_dir, seed, quick)
        detail = (
            f"Lesson 02 had left none for this data, so it was trained now, in {time.perf_counter() - start:.0f} s."
        )
    else:
        detail = f"Loaded from this run's folder: {len(stored[1]['loss'])} epochs, trained before."
    display(Note("The U-Net is ready.", detail))
    return stored[0]


def _crops_identity(data: LesionDataset, model: keras.Model) -> dict[str, object]:
    return data.identity | {
        "unet": digest(*model.get_weights()),
        "threshold": segmentation.MASK_THRESHOLD,
        "margin": segmentation.CROP_MARGIN,
    }


def make_crops(data: LesionDataset, model: keras.Model, masks: np.ndarray, run_dir: str | Path) -> pd.DataFrame:
    """Store lesson 03's result: the crops under segmented/; `masks` bool (n, s, s) at the size of `data.images`."""
    return segmentation.write_segmented(data, masks, Path(run_dir) / "segmented", _crops_identity(data, model))


def ready_crops(data: LesionDataset, model: keras.Model, run_dir: str | Path) -> tuple[np.ndarray, pd.DataFrame]:
    """Lesson 03's crops uint8 (n, 180, 180, 3) of all labelled images, and their table: read, or cut now.

    model    the U-Net that cuts them
    """
    folder, identity = Path(run_dir) / "segmented", _crops_identity(data, model)
    stored = segmentation.read_segmented(folder, identity)
    detail = "Read from this run's folder, where they were cut with this U-Net."
    if stored is None:
        masks = segmentation.masks_from_probabilities(unet.predict_masks(model, data.images), data.images.shape[1])
        make_crops(data, model, masks, run_dir)
        stored = segmentation.read_segmented(folder, identity)
        detail = "Lesson 03 had left none of this U-Net, so they were cut now."
    display(Note("The crops are ready.", detail))
    return stored


def _cnn_identity(crops: np.ndarray, table: pd.DataFrame, seed: int, quick: bool) -> dict[str, object]:
    parts, diagnoses = (table[column].to_numpy(dtype=str) for column in ("part", "diagnosis"))
    return {"crops": digest(crops, parts, table["label"].to_numpy(), diagnoses), "seed": seed, "quick": quick}


def keep_cnn(
    model: keras.Model,
    history: dict,
    crops: np.ndarray,
    table: pd.DataFrame,
    run_dir: str | Path,
    seed: int,
    quick: bool,
) -> None:
    """Store lesson 04's result for lesson 05."""
    save_model(model, model_path(run_dir, cnn.CNN_FILE), _cnn_identity(crops, table, seed, quick), history)


def ready_cnn(
    crops: np.ndarray,
    table: pd.DataFrame,
    segmenter: keras.Model,
    run_dir: str | Path,
    seed: int,
    quick: bool,
) -> keras.Model:
    """Lesson 04's CNN for these crops: loaded, or trained now, starting from the U-Net that has cut them."""
    stored = load_model(model_path(run_dir, cnn.CNN_FILE), _cnn_identity(crops, table, seed, quick))
    start = time.perf_counter()
    if stored is None:
        seed_everything(seed)
        checkpoint = checkpoint_path(run_dir, cnn.CNN_FILE)
        recipe = cnn.recipe_for(int((table["part"] == "train").sum()), has_start=True)
        epochs = cnn.default_epochs(quick, recipe)
        stored = cnn.train_cnn(crops, table, epochs, seed, checkpoint=checkpoint, recipe=recipe, start=segmenter)
        keep_cnn(*stored, crops, table, run_dir, seed, quick)
        detail = (
            f"Lesson 04 had left none for these crops, so it was trained now, in {time.perf_counter() - start:.0f} s."
        )
    else:
        detail = f"Loaded from this run's folder: {len(stored[1]['loss'])} epochs, trained before."
    display(Note("The CNN is ready.", detail))
    return stored[0]
