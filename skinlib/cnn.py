"""Lesson 04: a small CNN that tells benign from malignant. An RGB crop of 180×180 in, two class probabilities out."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from skinlib.blocks import encoder, take_encoder
from skinlib.dataset import MALIGNANT
from skinlib.files import digest
from skinlib.inference import answers
from skinlib.quiet import keras
from skinlib.training import BATCH_SIZE, Batches, augmentation, train

layers, ops = keras.layers, keras.ops

CNN_SIZE = 180
CNN_FILE = "melanoma_cnn_model.keras"


class Recipe(NamedTuple):
    """Every choice behind the CNN, with a name, so that each can be taken back alone: `KNOBS`. Lesson 04."""

    filters: tuple[int, ...] = (32, 64, 96)  # of each level, the finest first
    stem_stride: int = 4  # the first convolution's step
    start: bool = True  # from the encoder that has learned to outline, not from random weights
    frozen: bool = True  # the encoder stays as it is, and only what comes after it learns
    every_level: bool = True  # the answer rests on all levels, not on the coarsest alone
    dropout: float = 0.5
    class_weights: bool = True  # both classes count the same in sum
    turns: bool = True  # training crops are turned and mirrored
    changes: float = 0.4  # how far they are shifted, zoomed and recoloured: little, since colours are a sign here
    cosine_schedule: bool = True  # the step size climbs and falls, or stays
    views: int = 4  # mirror images and turns of a crop over which its answer is averaged


RECIPE = Recipe()
# What `skinlib benchmark ablation` takes back, one at a time.
KNOBS = {
    "random weights to start with": {"start": False, "frozen": False},
    "the encoder learns on": {"frozen": False},
    "the coarsest level alone": {"every_level": False},
    "no dropout": {"dropout": 0.0},
    "no class weights": {"class_weights": False},
    "no turned crops": {"turns": False},
    "no shift, zoom, recolouring": {"changes": 0.0},
    "bold shift, zoom, recolouring": {"changes": 1.0},
    "constant step size": {"cosine_schedule": False},
    "one view of each crop": {"views": 1},
}


def default_epochs(quick: bool) -> int:
    """How long lesson 04 trains."""
    return 3 if quick else 24


def build_cnn(recipe: Recipe = RECIPE) -> keras.Model:
    """The network: (n, 180, 180, 3) RGB 0–255 to (n, 2) probabilities, benign and malignant. Lesson 04.

    The U-Net's encoder. Of each level, three numbers per filter are kept: its mean over the picture (how much of it is
    there?), its standard deviation (how unevenly?) and its maximum (is it there at all?); not Flatten, which would
    need millions of weights. Then a small layer that weighs them, between two rounds of dropout, and two classes.
    """
    inputs = keras.Input((CNN_SIZE, CNN_SIZE, 3), name="crop")
    levels = encoder(inputs, recipe.filters, recipe.stem_stride, normalise=True)
    summaries = []
    for number, level in enumerate(levels if recipe.every_level else levels[-1:]):
        summaries.append(layers.GlobalAveragePooling2D(name=f"mean{number}")(level))
        summaries.append(ops.sqrt(ops.var(level, axis=(1, 2)) + 1e-5))  # the root has no slope at 0
        summaries.append(layers.GlobalMaxPooling2D(name=f"maximum{number}")(level))
    x = layers.Concatenate(name="summary")(summaries)
    x = layers.BatchNormalization(momentum=0.9, name="summary_norm")(x)
    x = layers.Dropout(0.6 * recipe.dropout, seed=0, name="dropout_summary")(x)
    x = layers.Dense(128, activation="relu", name="weighed")(x)
    x = layers.Dropout(recipe.dropout, seed=1, name="dropout")(x)
    outputs = layers.Dense(2, activation="softmax", name="benign_or_malignant")(x)
    return keras.Model(inputs, outputs, name="cnn")


def class_weights(labels: np.ndarray) -> np.ndarray:
    """Weight of each image, so that both classes count the same in sum: n / (2 · images of its class). Lesson 04.

    labels    int (n,), 0 or 1. With one class only, every weight is 1.
    """
    counts = np.bincount(labels, minlength=2)
    if not counts.all():
        return np.ones(len(labels), np.float32)
    return (len(labels) / (2 * counts))[labels].astype(np.float32)


def train_cnn(
    crops: np.ndarray,
    table: pd.DataFrame,
    epochs: int,
    seed: int,
    checkpoint: str | Path | None = None,
    recipe: Recipe = RECIPE,
    seconds: float | None = None,
    unet: keras.Model | None = None,
) -> tuple[keras.Model, dict]:
    """Train on the train part, choose the best epoch on the validation part; returns the model and its history.

    crops         uint8 RGB (n, 180, 180, 3); table: one row per crop with the columns part and label
    checkpoint    a file that lets a killed training go on; seconds: a limit, see `training.train`
    unet          the network of lesson 02, whose encoder this one starts from; None: from random weights
    """
    model = build_cnn(recipe)
    if recipe.start and unet is not None:
        take_encoder(model, unet, learns=not recipe.frozen)
    batches = []
    for part, how in (("train", augmentation(recipe.turns, recipe.changes)), ("validation", None)):
        chosen = (table["part"] == part).to_numpy()
        labels = table.loc[chosen, "label"].to_numpy()
        weights = class_weights(labels) if recipe.class_weights else None
        batches.append(Batches(crops[chosen], labels, BATCH_SIZE, seed, how, weights))
    # A gentler step than the U-Net's: with few crops, a large one makes the validation loss jump.
    history = train(
        model, *batches, epochs, "sparse_categorical_crossentropy", ["accuracy"], 1e-3, what="training the CNN",
        checkpoint=checkpoint, seconds=seconds, cosine=recipe.cosine_schedule,
        made_from={"crops": digest(crops, *(batch.targets for batch in batches)), "seed": seed} | recipe._asdict()
        | {"weights": digest(*model.get_weights())},
    )  # fmt: skip
    return model, history


def predict_labels(model: keras.Model, crops: np.ndarray, views: int = RECIPE.views) -> np.ndarray:
    """Probability of "malignant" per crop: uint8 RGB (n, 180, 180, 3) to float64 (n,) in 0–1.

    views    how many mirror images and turns the mean is taken over, 1, 2, 4 or 8, since a lesion has no "up"
             (test-time augmentation, see `inference.answers`)
    """
    return answers(model, crops, views=views)[:, MALIGNANT].astype(np.float64)
