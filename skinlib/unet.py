"""Lesson 02: a lightweight U-Net that finds the lesion. RGB 128×128 in, a lesion probability per pixel out."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skinlib.blocks import convolution, encoder
from skinlib.dataset import LesionDataset, resize_images, resize_masks
from skinlib.files import CourseError
from skinlib.inference import answers
from skinlib.quiet import keras
from skinlib.training import BATCH_SIZE, Batches, augmentation, train

layers, ops = keras.layers, keras.ops

UNET_SIZE = 128
UNET_FILE = "unet_model_lightweight.keras"


class Recipe(NamedTuple):
    """Every choice behind the U-Net, with a name, so that each can be taken back alone: `KNOBS`. Lesson 02."""

    filters: tuple[int, ...] = (32, 64, 96)  # of each level, the finest first
    stem_stride: int = 4  # the first convolution's step, which is also how far the answer is enlarged at the end
    skip_connections: bool = True
    batch_normalisation: bool = True
    dice_weight: float = 1.0  # of soft Dice, beside cross-entropy
    turns: bool = True  # training pictures are turned and mirrored
    changes: float = 1.0  # how far training pictures are shifted, zoomed and recoloured
    cosine_schedule: bool = True  # the step size climbs and falls, or stays
    views: int = 4  # turns and mirror images of a picture over which its answer is averaged


RECIPE = Recipe()
# What `skinlib benchmark ablation` takes back, one at a time.
KNOBS = {
    "no skip connections": {"skip_connections": False},
    "no batch normalisation": {"batch_normalisation": False},
    "cross-entropy alone": {"dice_weight": 0.0},
    "no turned pictures": {"turns": False},
    "no shift, zoom, recolouring": {"changes": 0.0},
    "constant step size": {"cosine_schedule": False},
    "half the filters": {"filters": (16, 32, 48)},
    "finer first step": {"stem_stride": 2, "filters": (16, 32, 64, 96)},
    "one view of each picture": {"views": 1},
}


def default_epochs(dataset: str, quick: bool) -> int:
    """How long lesson 02 trains: the painted pictures are learned sooner than the many kinds of real photographs."""
    return 4 if quick else 24 if dataset == "synthetic" else 64


def build_unet(recipe: Recipe = RECIPE) -> keras.Model:
    """The network: (n, 128, 128, 3) RGB 0–255 to (n, 128, 128, 1) probabilities 0–1. Lesson 02.

    It decides at a quarter of the size, where its first convolution has brought the picture at once, and enlarges the
    answer last. Source of the shape: Ronneberger et al., U-Net, MICCAI 2015; that the skips are added, not set beside,
    is LinkNet's (Chaurasia and Culurciello 2017).
    """
    filters, normalise = recipe.filters, recipe.batch_normalisation
    inputs = keras.Input((UNET_SIZE, UNET_SIZE, 3), name="image")

    # Encoder: what each level has seen is kept for the way back; the last is the bottleneck.
    *skips, x = encoder(inputs, filters, recipe.stem_stride, normalise)

    # Decoder, with skip connections: enlarge, add the encoder's sharper view, and merge.
    for level, width in reversed(list(enumerate(filters[:-1]))):
        x = layers.Conv2D(width, 1, use_bias=False, name=f"decoder{level}_narrow")(x)
        x = layers.UpSampling2D(interpolation="bilinear", name=f"decoder{level}_up")(x)
        if recipe.skip_connections:
            x = layers.Add(name=f"decoder{level}_skip")([x, skips[level]])
        x = convolution(x, width, f"decoder{level}a", normalise)
        x = convolution(x, width, f"decoder{level}b", normalise)

    x = layers.Conv2D(1, 1, name="lesion_score")(x)
    x = layers.UpSampling2D(recipe.stem_stride, interpolation="bilinear", name="full_size")(x)
    outputs = layers.Activation("sigmoid", name="lesion_probability")(x)
    return keras.Model(inputs, outputs, name="unet")


def soft_dice_loss(masks, probabilities):
    """1 − Dice per image, with probabilities in place of yes/no: 0 is perfect, 1 is worst; (n, h, w, 1) to (n,)."""
    overlap = ops.sum(masks * probabilities, axis=(1, 2, 3))
    total = ops.sum(masks, axis=(1, 2, 3)) + ops.sum(probabilities, axis=(1, 2, 3))
    return 1 - (2 * overlap + 1) / (total + 1)


def segmentation_loss(masks, probabilities, dice_weight: float = 1.0):
    """Binary cross-entropy, which judges each pixel, plus soft Dice, which judges the lesion as a whole. Lesson 02."""
    per_pixel = ops.mean(keras.losses.binary_crossentropy(masks, probabilities), axis=(1, 2))
    return per_pixel + dice_weight * soft_dice_loss(masks, probabilities)


def dice_per_image(masks, probabilities):
    """Dice of the mask cut at 0.5, per image, for the training curves."""
    return 1 - soft_dice_loss(ops.cast(masks > 0.5, "float32"), ops.cast(probabilities > 0.5, "float32"))


def train_unet(
    data: LesionDataset,
    epochs: int,
    seed: int,
    checkpoint: str | Path | None = None,
    recipe: Recipe = RECIPE,
    seconds: float | None = None,
) -> tuple[keras.Model, dict]:
    """Train on the train part, choose the best epoch on the validation part; returns the model and its history.

    checkpoint    a file that lets a killed training go on; seconds: a limit, see `training.train`
    Raises CourseError where masks are missing.
    """
    if not data.has_mask.all():
        raise CourseError(
            f"{int((~data.has_mask).sum())} of {len(data)} images have no mask, and a U-Net learns from masks"
        )
    model = build_unet(recipe)
    batches = []
    for part, how in (("train", augmentation(recipe.turns, recipe.changes)), ("validation", None)):
        chosen = data.part(part)
        images, masks = resize_images(chosen.images, UNET_SIZE), resize_masks(chosen.masks, UNET_SIZE)
        batches.append(Batches(images, masks, BATCH_SIZE, seed, how))
    history = train(
        model, *batches, epochs, partial(segmentation_loss, dice_weight=recipe.dice_weight), [dice_per_image],
        what="training the U-Net", checkpoint=checkpoint, made_from=data.identity | {"seed": seed} | recipe._asdict(),
        seconds=seconds, cosine=recipe.cosine_schedule,
    )  # fmt: skip
    return model, history


def predict_masks(model: keras.Model, images: np.ndarray, views: int = RECIPE.views) -> np.ndarray:
    """Lesion probability per pixel: uint8 RGB (n, h, w, 3) of any size to float32 (n, 128, 128) in 0–1.

    views    1, or the mean over 2, 4 or 8 mirror images and turns of each picture, see `inference.answers`
    """
    return answers(model, resize_images(images, model.input_shape[1]), views=views)[..., 0]
