"""Lesson 02: a lightweight U-Net that finds the lesion. RGB 128×128 in, a lesion probability per pixel out."""

from pathlib import Path

import numpy as np

from skinlib.dataset import LesionDataset, resize_images, resize_masks
from skinlib.files import CourseError
from skinlib.quiet import keras
from skinlib.training import Batches, augment, train

layers, ops = keras.layers, keras.ops

UNET_SIZE = 128
UNET_FILE = "unet_model_lightweight.keras"


def default_epochs(dataset: str, quick: bool) -> int:
    """How long lesson 02 trains: the painted pictures are learned sooner than the many kinds of real photographs."""
    return 4 if quick else 14 if dataset == "synthetic" else 20


def build_unet(filters: tuple[int, ...] = (16, 32, 64, 96)) -> keras.Model:
    """The network: (n, 128, 128, 3) RGB 0–255 to (n, 128, 128, 1) probabilities 0–1. Lesson 02.

    A stride-2 stem halves the picture at once, since most of the time goes where the picture is large; the last
    step enlarges the answer again. Source of the shape: Ronneberger et al., U-Net, MICCAI 2015.
    """
    inputs = keras.Input((UNET_SIZE, UNET_SIZE, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="to_minus_one_to_one")(inputs)

    # Encoder: each level sees half the width and more filters; its result is kept for the way back.
    skips = []
    for level, width in enumerate(filters):
        x = _convolution(x, width, f"encoder{level}_down", strides=2)
        x = _convolution(x, width, f"encoder{level}")
        skips.append(x)

    # Bottleneck: the last level, which sees the whole lesion at once.
    x = _convolution(x, filters[-1], "bottleneck")

    # Decoder, with skip connections: enlarge, put the encoder's sharper view beside, and merge.
    for level, width in reversed(list(enumerate(filters[:-1]))):
        x = layers.UpSampling2D(interpolation="bilinear", name=f"decoder{level}_up")(x)
        x = layers.Concatenate(name=f"decoder{level}_skip")([x, skips[level]])
        x = _convolution(x, width, f"decoder{level}a")
        x = _convolution(x, width, f"decoder{level}b")

    x = layers.Conv2D(1, 1, name="lesion_score")(x)
    x = layers.UpSampling2D(interpolation="bilinear", name="full_size")(x)
    outputs = layers.Activation("sigmoid", name="lesion_probability")(x)
    return keras.Model(inputs, outputs, name="unet")


def _convolution(x: keras.KerasTensor, width: int, name: str, strides: int = 1) -> keras.KerasTensor:
    """3×3 convolution, batch normalisation, ReLU. The bias is left to the normalisation."""
    x = layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False, name=name)(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def soft_dice_loss(masks, probabilities):
    """1 − Dice per image, with probabilities in place of yes/no: 0 is perfect, 1 is worst; (n, h, w, 1) to (n,)."""
    overlap = ops.sum(masks * probabilities, axis=(1, 2, 3))
    total = ops.sum(masks, axis=(1, 2, 3)) + ops.sum(probabilities, axis=(1, 2, 3))
    return 1 - (2 * overlap + 1) / (total + 1)


def segmentation_loss(masks, probabilities):
    """Binary cross-entropy, which judges each pixel, plus soft Dice, which judges the lesion as a whole. Lesson 02."""
    per_pixel = ops.mean(keras.losses.binary_crossentropy(masks, probabilities), axis=(1, 2))
    return per_pixel + soft_dice_loss(masks, probabilities)


def dice_per_image(masks, probabilities):
    """Dice of the mask cut at 0.5, per image, for the training curves."""
    return 1 - soft_dice_loss(ops.cast(masks > 0.5, "float32"), ops.cast(probabilities > 0.5, "float32"))


def train_unet(
    data: LesionDataset, epochs: int, seed: int, batch_size: int = 16, checkpoint: str | Path | None = None
) -> tuple[keras.Model, dict]:
    """Train on the train part, choose the best epoch on the validation part; returns the model and its history.

    checkpoint    a file that lets a killed training go on, see `training.train`
    Raises CourseError where masks are missing.
    """
    if not data.has_mask.all():
        raise CourseError(
            f"{int((~data.has_mask).sum())} of {len(data)} images have no mask, and a U-Net learns from masks"
        )
    model = build_unet()
    batches = []
    for part, how in (("train", augment), ("validation", None)):
        chosen = data.part(part)
        images, masks = resize_images(chosen.images, UNET_SIZE), resize_masks(chosen.masks, UNET_SIZE)
        batches.append(Batches(images, masks, batch_size, seed, how))
    history = train(
        model, *batches, epochs, segmentation_loss, [dice_per_image], what="training the U-Net",
        checkpoint=checkpoint, made_from=data.identity | {"seed": seed},
    )  # fmt: skip
    return model, history


def predict_masks(model: keras.Model, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Lesion probability per pixel: uint8 RGB (n, h, w, 3) of any size to float32 (n, 128, 128) in 0–1."""
    found = []
    for i in range(0, len(images), batch_size):
        batch = resize_images(images[i : i + batch_size], UNET_SIZE).astype(np.float32)
        found.append(ops.convert_to_numpy(model(batch, training=False)))
    return np.concatenate(found)[..., 0] if found else np.empty((0, UNET_SIZE, UNET_SIZE), np.float32)
