"""The plain recipe: a U-Net and a CNN as a first try has them. `skinlib benchmark` sets them beside the course's own.

Nothing here is wrong, and nothing is done about what goes wrong: pictures are not changed, activations not normalised,
classes not weighted, the step size stays, and the last epoch is taken, whatever the validation part would say.
"""

import numpy as np
import pandas as pd

from skinlib.dataset import LesionDataset, resize_images, resize_masks
from skinlib.quiet import keras
from skinlib.training import Batches

layers = keras.layers

UNET_SIZE, UNET_EPOCHS = 128, 10
CNN_SIZE, CNN_EPOCHS = 180, 25


def build_unet() -> keras.Model:
    """Three levels, 16-32-64 filters, two convolutions each: (n, 128, 128, 3) RGB 0–255 to (n, 128, 128, 1) in 0–1."""
    inputs = keras.Input((UNET_SIZE, UNET_SIZE, 3), name="image")
    x = layers.Rescaling(1 / 255)(inputs)
    skips = []
    for width in (16, 32):
        x = _two_convolutions(x, width)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = _two_convolutions(x, 64)
    for width, skip in zip((32, 16), reversed(skips), strict=True):
        x = layers.Concatenate()([layers.UpSampling2D()(x), skip])
        x = _two_convolutions(x, width)
    outputs = layers.Conv2D(1, 1, activation="sigmoid", name="lesion_probability")(x)
    return keras.Model(inputs, outputs, name="plain_unet")


def _two_convolutions(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
    for _ in range(2):
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    return x


def build_cnn() -> keras.Model:
    """Three convolution blocks, Flatten, Dense 128, dropout: (n, 180, 180, 3) RGB 0–255 to (n, 2) probabilities."""
    inputs = keras.Input((CNN_SIZE, CNN_SIZE, 3), name="crop")
    x = layers.Rescaling(1 / 255)(inputs)
    for width in (32, 64, 128):
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(128, activation="relu")(x)
    x = layers.Dropout(0.5, seed=0)(x)
    outputs = layers.Dense(2, activation="softmax", name="benign_or_malignant")(x)
    return keras.Model(inputs, outputs, name="plain_cnn")


def train_unet(data: LesionDataset, epochs: int, seed: int) -> tuple[keras.Model, dict[str, list[float]]]:
    """Cross-entropy, Adam 1e-3, batches of 8, on the train part; returns the model and its history."""
    train, model = data.part("train"), build_unet()
    batches = Batches(resize_images(train.images, UNET_SIZE), resize_masks(train.masks, UNET_SIZE), 8, seed)
    return model, _fit(model, batches, 1e-3, "binary_crossentropy", epochs)


def train_cnn(
    crops: np.ndarray, table: pd.DataFrame, epochs: int, seed: int
) -> tuple[keras.Model, dict[str, list[float]]]:
    """Cross-entropy, Adam 1e-4, batches of 32, on the train part; crops and table as in `cnn.train_cnn`."""
    chosen, model = (table["part"] == "train").to_numpy(), build_cnn()
    batches = Batches(crops[chosen], table.loc[chosen, "label"].to_numpy(), 32, seed)
    return model, _fit(model, batches, 1e-4, "sparse_categorical_crossentropy", epochs)


def _fit(model: keras.Model, batches: Batches, rate: float, loss: str, epochs: int) -> dict[str, list[float]]:
    # Like ours without XLA, so that training seconds compare the recipes and not the compilers.
    model.compile(keras.optimizers.Adam(rate), loss=loss, jit_compile=False)
    return model.fit(batches, epochs=epochs, verbose=0).history


def predict(model: keras.Model, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """The last channel of the answer, one view of each picture: RGB 0–255 (n, s, s, 3) to float32 (n, …) in 0–1."""
    found = []
    for i in range(0, len(images), batch_size):
        answer = model(images[i : i + batch_size].astype(np.float32), training=False)
        found.append(keras.ops.convert_to_numpy(answer)[..., -1])
    return np.concatenate(found)
