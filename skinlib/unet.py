"""Lesson 02: a lightweight U-Net that finds the lesion. RGB 128×128 in, a lesion probability per pixel out."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

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
    muon: bool = True  # convolutions step with Muon, or with AdamW, as everything else does
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
    "AdamW alone": {"muon": False},
    "half the filters": {"filters": (16, 32, 48)},
    "finer first step": {"stem_stride": 2, "filters": (16, 32, 64, 96)},
    "one view of each picture": {"views": 1},
}


def default_epochs(dataset: str, quick: bool) -> int:
    """How long lesson 02 trains: the painted pictures are learned sooner than the many kinds of real photographs."""
    return 4 if quick else 20 if dataset == "synthetic" else 40


def build_unet(recipe: Recipe = RECIPE) -> keras.Model:
    """The network: (n, 128, 128, 3) RGB 0–255 to (n, 128, 128, 1) probabilities 0–1. Lesson 02.

    It decides at a quarter of the size, where its first convolution has brought the picture at once, and enlarges the
    answer last.
    """
    inputs = keras.Input((UNET_SIZE, UNET_SIZE, 3), name="image")
    _, x = down_and_up(inputs, recipe)
    x = layers.UpSampling2D(recipe.stem_stride, interpolation="bilinear", name="full_size")(x)
    outputs = layers.Activation("sigmoid", name="lesion_probability")(x)
    return keras.Model(inputs, outputs, name="unet")


def down_and_up(pictures: keras.KerasTensor, recipe: Recipe) -> tuple[list[keras.KerasTensor], keras.KerasTensor]:
    """The U itself: RGB 0–255 (n, h, w, 3) to what every level says, on the way down and up, and the lesion's score.

    Level i is (n, h / step, w / step, filters[i]), where the step is `stem_stride` · 2^i; the score, above 0 inside the
    lesion, is (n, h / stem_stride, w / stem_stride, 1). Source of the shape: Ronneberger et al., U-Net, MICCAI 2015;
    that the skips are added, not set beside, is LinkNet's (Chaurasia and Culurciello 2017).
    """
    filters, normalise, last = recipe.filters, recipe.batch_normalisation, len(recipe.filters) - 1
    x = layers.Rescaling(1 / 127.5, offset=-1, name="to_minus_one_to_one")(pictures)

    # Encoder: the first convolution ("stem") moves in steps of `stem_stride`, since most of the time goes where the
    # picture is large, and what is saved there can be spent on more epochs. Every further level sees half the width.
    down = []
    for level, width in enumerate(filters[:-1]):
        strides, size = (recipe.stem_stride, recipe.stem_stride + 1) if level == 0 else (2, 3)
        x = convolutions(2, width, f"encoder{level}", normalise, strides, size)(x)
        down.append(x)

    # Bottleneck: the last has one convolution more, and sees the whole lesion at once.
    x = convolutions(3, filters[last], "bottleneck", normalise, 2)(x)

    # Decoder, with skip connections: enlarge, add the encoder's sharper view, and merge.
    levels = [*down, x]
    for level in reversed(range(last)):
        x = layers.Conv2D(filters[level], 1, use_bias=False, name=f"narrow{level}")(x)
        x = layers.UpSampling2D(interpolation="bilinear", name=f"up{level}")(x)
        if recipe.skip_connections:
            x = layers.Add(name=f"skip{level}")([x, down[level]])
        x = convolutions(2, filters[level], f"decoder{level}", normalise)(x)
        levels.append(x)
    return levels, layers.Conv2D(1, 1, name="lesion_score")(x)


def convolutions(
    count: int, width: int, name: str, normalise: bool, strides: int = 1, size: int = 3
) -> keras.Sequential:
    """`count` times: convolution to `width` filters, batch normalisation if asked for, ReLU.

    strides, size    of the first one; the others look at 3×3 places and move in steps of 1
    """
    stack = []
    for number in range(count):
        form = (size, strides) if number == 0 else (3, 1)
        # With normalisation, whose own offset does the same, a bias is needless.
        stack.append(layers.Conv2D(width, *form, padding="same", use_bias=not normalise))
        if normalise:
            stack.append(layers.BatchNormalization(momentum=0.9))
        stack.append(layers.ReLU())
    return keras.Sequential(stack, name=name)


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
        seconds=seconds, cosine=recipe.cosine_schedule, muon=recipe.muon,
    )  # fmt: skip
    return model, history


def predict_masks(model: keras.Model, images: np.ndarray, views: int = RECIPE.views) -> np.ndarray:
    """Lesion probability per pixel: uint8 RGB (n, h, w, 3) of any size to float32 (n, 128, 128) in 0–1.

    views    1, or the mean over 2, 4 or 8 mirror images and turns of each picture, see `inference.answers`
    """
    return answers(model, resize_images(images, model.input_shape[1]), views=views)[..., 0]
