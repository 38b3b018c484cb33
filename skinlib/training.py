"""What both networks share: seeds, batches with augmentation, the training loop, and models on disk.

Nothing in here knows which of the two it trains.
"""

import json
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from skinlib import devices, distributed
from skinlib.checkpoint import Checkpoint
from skinlib.files import CourseError, digest, write_json, written_whole
from skinlib.muon import Muon
from skinlib.progress import progress
from skinlib.quiet import keras, tf

BATCH_SIZE = 16  # pictures in a training step, if memory allows

# Augment(image, mask or None, random generator) -> image, mask or None; all of one picture.
Augment = Callable[[np.ndarray, np.ndarray | None, np.random.Generator], tuple[np.ndarray, np.ndarray | None]]


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and Keras, so that the same run gives the same weights on the same machine.

    Where several workers train together, they meet here: it must be done before TensorFlow computes anything.
    """
    devices.strategy()
    keras.utils.set_random_seed(seed)


def augment(
    image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator, strength: float = 1.0, turns: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """Turn, mirror, shift, zoom and recolour one picture; the mask follows the geometry. Lesson 02.

    image       uint8 or float RGB (s, s, 3), values 0–255; comes back as it came
    mask        (s, s) or None; comes back as float32 in 0–1
    strength    how far shift, zoom and colour go; 1 is right where only the outline counts
    turns       whether pictures are turned and mirrored
    A lesion has no "up": any turn of it is as likely. Colours change with camera and lamp, so they may not matter.
    """
    size = len(image)
    turn, zoom = rng.uniform(0, 360) * turns, 1 + strength * rng.uniform(-0.2, 0.25)
    warp = cv2.getRotationMatrix2D((size / 2 - 0.5, size / 2 - 0.5), turn, zoom)
    warp[:, 2] += strength * rng.uniform(-0.08, 0.08, 2) * size
    if turns and rng.random() < 0.5:
        warp = warp @ np.array([[-1, 0, size - 1], [0, 1, 0], [0, 0, 1]])
    image = cv2.warpAffine(image, warp, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    if mask is not None:
        mask = cv2.warpAffine(
            mask.astype(np.float32), warp, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
    gain = (1 + strength * rng.uniform(-0.15, 0.15)) * (1 + strength * rng.uniform(-0.06, 0.06, 3))
    offset = strength * rng.uniform(-12, 12)
    # One matrix, since the network waits for its pictures: in NumPy this took longer than the warping.
    image = cv2.transform(image, np.column_stack([np.diag(gain), np.full(3, offset)]))
    return (image if image.dtype == np.uint8 else np.clip(image, 0, 255)), mask


def augmentation(turns: bool, changes: float) -> Augment | None:
    """`augment` with its strength chosen, or None where nothing is to be changed."""
    return partial(augment, strength=changes, turns=turns) if turns or changes else None


def check_pictures(pictures: np.ndarray) -> None:
    """Raises CourseError if there is nothing to learn from, or a value that is no number."""
    if not len(pictures):
        raise CourseError("there are no pictures to learn from: this part of the data set is empty")
    if pictures.dtype.kind == "f" and not np.isfinite(pictures).all():
        raise CourseError("the pictures hold values that are no numbers (NaN or infinite)")


class Batches(keras.utils.PyDataset):
    """Feeds a network: a new order every epoch, each picture augmented anew, the same again under the same seed.

    images    uint8 RGB (n, s, s, 3), or the numbers that describe each, float32 (n, numbers), or, with an `augment`
              that chooses among them, (n, versions, numbers)
    targets   masks bool (n, s, s), or labels int (n,)
    weights   float (n,) or None: how much each picture counts in the loss
    Raises CourseError if there is no picture at all, or a value that is no number.
    """

    def __init__(
        self,
        images: np.ndarray,
        targets: np.ndarray,
        batch_size: int,
        seed: int,
        augment: Augment | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        check_pictures(images)
        self.images, self.targets, self.weights = images, targets, weights
        self.batch_size, self.seed, self.augment = batch_size, seed, augment
        self.epoch = -1
        self.on_epoch_begin()

    def on_epoch_begin(self) -> None:
        """Whoever iterates calls this before each epoch: shuffle."""
        self.epoch += 1
        self.order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.images))

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def pictures(self, number: int) -> np.ndarray:
        """Which pictures one batch holds."""
        return self.order[number * self.batch_size : (number + 1) * self.batch_size]

    def share(self, pictures: np.ndarray, replica: int, replicas: int) -> tuple[np.ndarray, ...]:
        """What one of several devices gets of a batch: images, targets, weights, and the size of the whole batch."""
        images, targets, *weights = self._batch(pictures[replica::replicas])
        weights = weights[0].astype(np.float32) if weights else np.ones(len(images), np.float32)
        return images, targets, weights, np.float32(len(pictures))

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        return self._batch(self.pictures(number))

    def _batch(self, chosen: np.ndarray) -> tuple[np.ndarray, ...]:
        images, targets = self.images[chosen], self.targets[chosen]
        if self.augment:
            with_masks = targets.ndim == 3
            pairs = [
                # The epoch and the picture's own number seed its changes, so the order of work does not matter.
                self.augment(
                    images[i], targets[i] if with_masks else None, np.random.default_rng([self.seed, self.epoch, index])
                )
                for i, index in enumerate(chosen)
            ]
            images = np.stack([image for image, _ in pairs])
            targets = np.stack([mask for _, mask in pairs]) if with_masks else targets
        targets = targets[..., None].astype(np.float32) if targets.ndim == 3 else targets
        batch = (images.astype(np.float32), targets)
        return batch if self.weights is None else (*batch, self.weights[chosen])


class _Progress(keras.callbacks.Callback):
    """One bar over all batches of all epochs, from the one at which a killed training goes on."""

    def __init__(self, what: str, steps: int, done: int) -> None:
        super().__init__()
        self.what, self.steps, self.done = what, steps, done

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.bar = progress(None, self.what, self.steps, "batch")
        self.bar.update(self.done)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", validation=f"{logs['val_loss']:.3f}", refresh=False)

    def on_train_end(self, logs: dict | None = None) -> None:
        self.bar.close()


def train(
    model: keras.Model,
    batches: Batches,
    validation: Batches,
    epochs: int,
    loss: Callable | str,
    metrics: list,
    peak_learning_rate: float = 2e-3,
    what: str = "training",
    checkpoint: str | Path | None = None,
    made_from: dict | None = None,
    seconds: float | None = None,
    cosine: bool = True,
    muon: bool = True,
    last_epoch: bool = False,
) -> dict[str, list[float]]:
    """Train in place and return the history: one list per quantity, one value per epoch. Lesson 02.

    Convolutions step with Muon and all other weights with AdamW, see `muon`. The learning rate climbs over the first
    tenth of the steps and then falls along a cosine to nearly 0. The weights of the epoch with the lowest validation
    loss are kept; the test part is never seen.

    checkpoint    a file in which the state is kept until the training is over: killed, it goes on from there
    made_from     what the training depends on beside its length, so that no other one's state is taken
    seconds       end after the epoch in which so much time is used up
    cosine        False: the learning rate stays at its peak
    muon          False: all weights step with AdamW, the convolutions too
    last_epoch    True: the weights of the last epoch are kept instead, where few pictures to validate choose by luck
    Raises CourseError if the loss is no number before the first epoch is over; if that happens later, it is said, and
    the best weights so far are kept, or the last that were numbers.

    It runs on what `devices` finds: one CPU, GPUs, or several machines, which share each batch and end with the same
    weights. There the loss and metrics must be functions with one value per picture. Batches that do not fit into
    memory are halved.
    """
    fitting = devices.batch_size_for(model, batches.batch_size)
    batches.batch_size, validation.batch_size = fitting, min(fitting, validation.batch_size)
    steps = epochs * len(batches)
    warmup = max(1, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak_learning_rate / 10,
        warmup_target=peak_learning_rate,
        warmup_steps=warmup,
        decay_steps=max(1, steps - warmup),
        alpha=0.01,
    )
    trained = devices.fitted(model)
    with devices.strategy().scope():
        kind = Muon if muon else keras.optimizers.AdamW
        optimizer = kind(schedule if cosine else peak_learning_rate, weight_decay=1e-3)
        if devices.precision() == "mixed_float16":  # whose small gradients would be rounded to zero
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        # XLA compilation costs more than it saves on a CPU.
        trained.compile(optimizer, loss=loss, metrics=metrics, jit_compile=False)
    setting = {
        "epochs": epochs,
        "steps": steps,
        "rate": peak_learning_rate,
        "muon": muon,
        "last_epoch": last_epoch,
        "precision": devices.precision(),
        "shapes": [list(variable.shape) for variable in model.variables],
    }
    keep = Checkpoint(checkpoint, (made_from or {}) | setting, batches, seconds, last_epoch)
    with devices.strategy().scope():
        keep.restore(trained)
    callbacks = [_Progress(what, steps, keep.epochs_done * len(batches)), keep]
    if devices.strategy().num_replicas_in_sync > 1:
        random_numbers = np.array(random.getstate()[1])
        devices.check_alike(
            *trained.get_weights(), random_numbers, np.array([len(batches.images), batches.seed, keep.epochs_done])
        )
        distributed.fit(
            trained, batches, validation, epochs, keep.epochs_done, _per_picture(loss, metrics),
            callbacks if devices.is_chief() else [keep],
        )  # fmt: skip
    else:
        trained.fit(
            _stream(batches, in_turn=False), validation_data=_stream(validation), epochs=epochs,
            initial_epoch=keep.epochs_done, shuffle=False, verbose=0, callbacks=callbacks,
        )  # fmt: skip
    if trained is not model:
        model.set_weights(trained.get_weights())
    if keep.diverged and devices.is_chief():
        kept = "last weights before" if last_epoch else "best weights"
        print(
            f"{what}: the loss became infinite or NaN after {keep.epochs_done} epochs; the {kept} are kept",
            file=sys.stderr,
        )
    return keep.history


def _stream(batches: Batches, in_turn: bool = True) -> tf.data.Dataset:
    """The batches of one epoch, made while the network is busy with the one before; iterated again, the next epoch's.

    in_turn    False: in an order drawn with Python's own generator, as `distributed.fit` does, so that one device and
               several take the same steps
    `Batches` could be given to Keras as they are; but then tf.data's autotuner would run, which at times kept the
    network waiting for seconds at the end of an epoch.
    """

    def one_epoch():
        batches.on_epoch_begin()
        numbers = list(range(len(batches)))
        if not in_turn:
            random.shuffle(numbers)
        yield from (batches[number] for number in numbers)

    signature = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in batches[0])
    options = tf.data.Options()
    options.autotune.enabled = False
    stream = tf.data.Dataset.from_generator(one_epoch, output_signature=signature).prefetch(4)
    return stream.apply(tf.data.experimental.assert_cardinality(len(batches))).with_options(options)


def _per_picture(loss: Callable | str, metrics: list) -> dict[str, Callable]:
    """Loss and metrics by the names that Keras gives them in a history, as functions (targets, answers) to (n,)."""
    named = {"accuracy": keras.metrics.sparse_categorical_accuracy}
    found = {getattr(metric, "__name__", metric): named.get(metric, metric) for metric in metrics}
    return {"loss": keras.losses.get(loss)} | found


def save_model(model: keras.Model, path: str | Path, made_from: dict, history: dict[str, list[float]]) -> None:
    """Write a model and, beside it, a .json that says what it was made from and how training went.

    The model is stored without its optimiser and loss, so that `keras.models.load_model(path)` needs no code of
    this course. The .json is written last: without it `load_model` below does not believe the model. Of several
    workers, the chief writes.
    """
    if not devices.is_chief():
        return
    path = Path(path)
    record = path.with_suffix(".json")
    record.unlink(missing_ok=True)
    bare = type(model).from_config(model.get_config())
    bare.set_weights(model.get_weights())
    with written_whole(path) as unfinished:
        bare.save(unfinished)
    write_json(record, {"made_from": made_from, "weights": digest(*model.get_weights()), "history": history})


def load_model(path: str | Path, made_from: dict) -> tuple[keras.Model, dict[str, list[float]]] | None:
    """The stored model and its training history, or None if there is none, or one of another data set or setting."""
    try:
        record = json.loads(Path(path).with_suffix(".json").read_text(encoding="utf-8"))
        if record["made_from"] != made_from:
            return None
        model = open_model(path)
        # The record may be another process's, written just now beside a model of its own.
        return (model, record["history"]) if record["weights"] == digest(*model.get_weights()) else None
    except (CourseError, OSError, ValueError, KeyError):
        return None


def open_model(path: str | Path) -> keras.Model:
    """Open any stored Keras model, or say in one line what is wrong with the file."""
    if not Path(path).is_file():
        raise CourseError(f"there is no model {path}: train one with `skinlib run`, or name its folder with --models")
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever zipfile, h5py or json raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CourseError(f"{path} is not a readable Keras model ({reason}): train it anew") from None
