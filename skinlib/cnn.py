"""Lesson 04: a small CNN that tells benign from malignant. An RGB crop of 180×180 in, two class probabilities out."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from skinlib.dataset import MALIGNANT
from skinlib.files import CourseError, digest
from skinlib.inference import answers
from skinlib.quiet import keras
from skinlib.training import BATCH_SIZE, Batches, augmentation, train
from skinlib.unet import RECIPE as UNET_RECIPE
from skinlib.unet import UNET_SIZE, down_and_up

layers, ops = keras.layers, keras.ops

CNN_SIZE = 180
CNN_FILE = "melanoma_cnn_model.keras"


class Recipe(NamedTuple):
    """Every choice behind the CNN, with a name, so that each can be taken back alone: `KNOBS`. Lesson 04."""

    start: bool = True  # from the U-Net that has learned to outline, not from random weights
    frozen: bool = True  # what the U-Net has learned stays as it is, and only what comes after it learns
    lesion_and_skin: bool = True  # patterns are counted inside the lesion and outside, not over the whole crop
    every_level: bool = True  # the answer rests on all levels, on the way down and up, not on the bottleneck alone
    dropout: float = 0.3  # of what the small layer says; of the numbers that it weighs, a third as much
    class_weights: bool = True  # both classes count the same in sum
    turns: bool = True  # training crops are turned and mirrored
    changes: float = 0.4  # how far they are shifted, zoomed and recoloured: little, since colours are a sign here
    cosine_schedule: bool = True  # the step size climbs and falls, or stays
    views: int = 4  # mirror images and turns of a crop over which its answer is averaged


RECIPE = Recipe()
# What `skinlib benchmark ablation` takes back, one at a time.
KNOBS = {
    "random weights to start with": {"start": False, "frozen": False},
    "the U-Net learns on": {"frozen": False},
    "lesion and skin in one": {"lesion_and_skin": False},
    "the bottleneck alone": {"every_level": False},
    "no dropout": {"dropout": 0.0},
    "no class weights": {"class_weights": False},
    "no turned crops": {"turns": False},
    "no shift, zoom, recolouring": {"changes": 0.0},
    "bold shift, zoom, recolouring": {"changes": 1.0},
    "constant step size": {"cosine_schedule": False},
    "one view of each crop": {"views": 1},
}
# With so many crops to learn from, the U-Net's weights may follow the labels. Not measured yet: it stands between the
# embedded set and ISIC 2018, where they stay, and HAM10000.
MANY_LABELS = 4000


def recipe_for(crops: int, has_unet: bool) -> Recipe:
    """The recipe for so many crops to learn from, and with or without a U-Net to start from. Lesson 04."""
    return RECIPE._replace(start=has_unet, frozen=has_unet and bool(crops < MANY_LABELS))


def default_epochs(quick: bool, recipe: Recipe = RECIPE) -> int:
    """How long lesson 04 trains: an epoch in which the U-Net learns too takes about four times as long."""
    return 3 if quick else 24 if recipe.frozen else 16


def build_cnn(recipe: Recipe = RECIPE) -> keras.Model:
    """The network: (n, 180, 180, 3) RGB 0–255 to (n, 2) probabilities, benign and malignant. Lesson 04.

    It has the U-Net inside, which describes the crop by 1,440 numbers. Then a small layer that weighs them,
    between two rounds of dropout, and two classes.
    """
    inputs = keras.Input((CNN_SIZE, CNN_SIZE, 3), name="crop")
    x = layers.Resizing(UNET_SIZE, UNET_SIZE, name="as_the_unet_sees_it")(inputs)
    x = _description(recipe)(x)
    x = layers.BatchNormalization(momentum=0.9, center=False, scale=False, epsilon=1e-5, name="standardised")(x)
    x = layers.Dropout(recipe.dropout / 3, seed=0, name="dropout_numbers")(x)
    x = layers.Dense(64, activation="relu", name="weighed")(x)
    x = layers.Dropout(recipe.dropout, seed=1, name="dropout")(x)
    outputs = layers.Dense(2, activation="softmax", name="benign_or_malignant")(x)
    return keras.Model(inputs, outputs, name="cnn")


def _description(recipe: Recipe) -> keras.Model:
    """RGB 0–255 (n, 128, 128, 3) to (n, numbers): how much there is of every pattern, how unevenly, and where.

    Of every filter of every level of the U-Net, its mean, its standard deviation and its maximum inside the lesion, and
    mean and standard deviation outside; not Flatten, which would need millions of weights. What is inside, the U-Net
    says itself, pixel by pixel, as a probability.
    """
    pictures = keras.Input((UNET_SIZE, UNET_SIZE, 3), name="picture")
    levels, score = down_and_up(pictures, UNET_RECIPE)
    lesion = ops.cast(layers.Activation("sigmoid", name="lesion_probability")(score), "float32")
    bottleneck = len(UNET_RECIPE.filters) - 1
    numbers = []
    for level in levels if recipe.every_level else levels[bottleneck : bottleneck + 1]:
        level = ops.cast(level, "float32")  # half precision would round sums over a picture
        shrink = lesion.shape[1] // level.shape[1]
        inside = layers.AveragePooling2D(shrink)(lesion) if shrink > 1 else lesion
        if not recipe.lesion_and_skin:
            inside = ops.ones_like(inside)
        numbers += [*_mean_and_spread(level, inside), ops.max(level * inside, axis=(1, 2))]
        if recipe.lesion_and_skin:
            numbers += _mean_and_spread(level, 1 - inside)
    return keras.Model(pictures, layers.Concatenate(name="numbers")(numbers), name="description")


def _mean_and_spread(level: keras.KerasTensor, share: keras.KerasTensor) -> list[keras.KerasTensor]:
    """Mean and standard deviation of (n, h, w, filters) where a share (n, h, w, 1) of each pixel counts: (n, filters).

    Where nothing counts, both are next to 0.
    """
    places = level.shape[1] * level.shape[2]
    amount = ops.sum(share, axis=(1, 2), keepdims=True) + 0.01 * places
    mean = ops.sum(level * share, axis=(1, 2), keepdims=True) / amount
    variance = ops.sum(ops.square(level - mean) * share, axis=(1, 2), keepdims=True) / amount
    # Without the small number, the root would have no slope at 0.
    return [ops.squeeze(each, axis=(1, 2)) for each in (mean, ops.sqrt(variance + 1e-5))]


def take_unet(model: keras.Model, unet: keras.Model, crops: np.ndarray, frozen: bool) -> None:
    """Put what a U-Net has learned into the CNN. Raises CourseError if it is not of the course's shape.

    frozen    it stays as it is. What it says of a picture is then the same in every epoch, so the mean and spread of
              each of its numbers over the training crops, uint8 (n, 180, 180, 3), are measured once and kept
    """
    look = model.get_layer("description")
    try:
        for layer in look.layers:
            if layer.weights:
                layer.set_weights(unet.get_layer(layer.name).get_weights())
    except ValueError:
        raise CourseError(
            "this U-Net does not fit into the CNN: train both anew, into a run folder of their own"
        ) from None
    if frozen:
        look.trainable = False
        standardised = model.get_layer("standardised")
        found = answers(keras.Model(model.input, standardised.input), crops)
        standardised.set_weights([found.mean(axis=0), found.var(axis=0)])
        standardised.trainable = False


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
    unet          the network of lesson 02, which this one has inside; None: from random weights
    """
    model = build_cnn(recipe)
    if recipe.start and unet is not None:
        take_unet(model, unet, crops[(table["part"] == "train").to_numpy()], recipe.frozen)
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
