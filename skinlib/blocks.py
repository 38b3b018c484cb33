"""What both networks are built of: a convolution with its normalisation, and the encoder that looks ever wider.

The U-Net of lesson 02 and the CNN of lesson 04 have the same encoder, layer by layer and name by name, so that the
second can start from what the first has learned.
"""

from skinlib.quiet import keras

layers = keras.layers


def encoder(
    pictures: keras.KerasTensor, filters: tuple[int, ...], stem_stride: int, normalise: bool
) -> list[keras.KerasTensor]:
    """RGB 0–255 (n, h, w, 3) to one tensor per level, the finest first: (n, h / step, w / step, filters of the level).

    The first convolution ("stem") moves in steps of `stem_stride`: most of the time goes where the picture is large,
    and what is saved there buys more epochs. Every further level sees half the width, and the last has one
    convolution more, the bottleneck, which sees the whole lesion at once.
    """
    x = layers.Rescaling(1 / 127.5, offset=-1, name="to_minus_one_to_one")(pictures)
    levels = []
    for level, width in enumerate(filters):
        strides, size = (stem_stride, stem_stride + 1) if level == 0 else (2, 3)
        x = convolution(x, width, f"encoder{level}_down", normalise, strides, size)
        x = convolution(x, width, f"encoder{level}", normalise)
        levels.append(x)
    levels[-1] = convolution(x, filters[-1], "bottleneck", normalise)
    return levels


def convolution(
    x: keras.KerasTensor, width: int, name: str, normalise: bool, strides: int = 1, size: int = 3
) -> keras.KerasTensor:
    """Convolution (3×3), batch normalisation, ReLU. The bias is left to the normalisation."""
    x = layers.Conv2D(width, size, strides=strides, padding="same", use_bias=not normalise, name=name)(x)
    if normalise:
        x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def take_encoder(model: keras.Model, source: keras.Model, learns: bool) -> None:
    """Put the encoder's weights of one network into another. Raises ValueError if they are not of one shape.

    learns    False: they stay as they are, and so do the means and variances of their normalisation
    """
    for layer in model.layers:
        if layer.name.startswith(("encoder", "bottleneck")):
            layer.set_weights(source.get_layer(layer.name).get_weights())
            layer.trainable = learns
