"""How a trained network is asked: uint8 pictures in, in batches, through one compiled function; float32 answers out.

`model.predict` of one picture at a time spends most of its time on the way to the network and back. Nothing in here
knows what the network looks for.
"""

import weakref

import numpy as np

from skinlib.quiet import keras, tf

BATCH_SIZE = 32
VIEWS = (1, 2, 4, 8)

# One compiled function per model and number of views. The models are held weakly: an entry goes with its model.
_compiled: weakref.WeakKeyDictionary[keras.Model, dict[int, tf.types.experimental.PolymorphicFunction]]
_compiled = weakref.WeakKeyDictionary()


def answers(model: keras.Model, pictures: np.ndarray, batch_size: int = BATCH_SIZE, views: int = 1) -> np.ndarray:
    """What a model says of each picture, without its training behaviour: the mean over `views` of the same picture.

    pictures    uint8 (n, h, w, channels), of the size that the model reads
    views       1 the picture as it is; 2 and its left-right mirror image; 4 and both upside down; 8 and all four with
                rows and columns exchanged, which makes the eight symmetries of a square
    Returns float32, one answer per picture; where the answers are pictures themselves, (n, h, w, channels), each is
    turned back before the mean is taken. Raises ValueError for another number of views or pictures that do not fit.
    """
    shape = model.input_shape[1:]
    if views not in VIEWS:
        raise ValueError(f"views can be {', '.join(map(str, VIEWS))}, not {views}")
    if pictures.dtype != np.uint8 or pictures.shape[1:] != shape:
        raise ValueError(f"the model reads uint8 (n, *{shape}), not {pictures.dtype} {pictures.shape}")
    if views == 8 and shape[0] != shape[1]:
        raise ValueError(f"pictures of {shape[0]}×{shape[1]} are not square and have four views at most")
    ask = _compiled_for(model, views)
    found = np.empty((len(pictures), *model.output_shape[1:]), np.float32)
    step = max(1, batch_size // views)  # the network sees `batch_size` views at a time
    for start in range(0, len(pictures), step):
        found[start : start + step] = ask(pictures[start : start + step])
    return found


def _compiled_for(model: keras.Model, views: int):
    """The compiled function of a model, made when it is first needed."""
    made = _compiled.setdefault(model, {})
    if views not in made:
        # A function that held its model would keep it alive for ever, since the function is what the model leads to.
        # What TensorFlow compiles needs the weights only, and sees them change.
        weakly = weakref.ref(model)

        # The number of pictures is left open: a fixed one would compute a whole batch for one picture. TensorFlow
        # traces the function once and gives the same bits whatever the number is (measured).
        @tf.function(input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)], autograph=False)
        def ask(pictures):
            seen = tf.concat([_view(pictures, number) for number in range(views)], axis=0) if views > 1 else pictures
            said = weakly()(tf.cast(seen, tf.float32), training=False)
            if views == 1:
                return said
            each = tf.split(said, views)
            if said.shape.rank == 4:
                each = [_view_back(answer, number) for number, answer in enumerate(each)]
            return tf.add_n(each) / views

        made[views] = ask
    return made[views]


def _view(pictures: tf.Tensor, number: int) -> tf.Tensor:
    """Symmetry `number` of the eight: its bits say mirror left and right, mirror up and down, rows for columns."""
    return _mirrored(tf.transpose(pictures, (0, 2, 1, 3)) if number & 4 else pictures, number)


def _view_back(pictures: tf.Tensor, number: int) -> tf.Tensor:
    """The same undone: the steps in the opposite order, each of which undoes itself."""
    pictures = _mirrored(pictures, number)
    return tf.transpose(pictures, (0, 2, 1, 3)) if number & 4 else pictures


def _mirrored(pictures: tf.Tensor, number: int) -> tf.Tensor:
    # As a slice, [:, ::-1], it would take five times as long.
    axes = [axis for axis, bit in ((2, 1), (1, 2)) if number & bit]
    return tf.reverse(pictures, axes) if axes else pictures
