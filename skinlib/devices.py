"""Where a training computes: one CPU or GPU, several GPUs, or several machines; how precisely; how much fits.

Nothing in here knows what is trained. On one CPU, where the course is at home, none of it changes what is learned.
"""

import functools
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from skinlib.files import CourseError, digest
from skinlib.quiet import keras, tf

SHARE = 0.8  # of the memory that is free, a training takes no more

TF_CONFIG_FORM = '{"cluster": {"worker": ["host:port", "host:port"]}, "task": {"type": "worker", "index": 0}}'


def workers() -> tuple[int, int]:
    """How many processes train together, and which of them this one is: 0 is the chief. (1, 0) without TF_CONFIG.

    Raises CourseError if the environment variable TF_CONFIG is not what TensorFlow asks for.
    """
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        cluster = config.get("cluster") or {}
        if not cluster:
            return 1, 0
        if any(":" not in address for addresses in cluster.values() for address in list(addresses)):
            raise ValueError
        tasks = [(kind, index) for kind in ("chief", "worker") for index in range(len(cluster.get(kind, ())))]
        return len(tasks), tasks.index((config["task"]["type"], int(config["task"]["index"])))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CourseError(f"the environment variable TF_CONFIG must look like this: {TF_CONFIG_FORM}") from None


def is_chief() -> bool:
    """Whether this process writes files and shows progress: of several workers only the first does."""
    return workers()[1] == 0


@functools.cache
def strategy() -> tf.distribute.Strategy:
    """One CPU or GPU: TensorFlow's default; several GPUs: MirroredStrategy; several workers by TF_CONFIG:
    MultiWorkerMirroredStrategy, which waits until all of them are there.

    Raises CourseError if there are several workers and TensorFlow has computed something before.
    """
    if workers()[0] > 1:
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except RuntimeError:
            raise CourseError(
                "TensorFlow had computed something before the workers of TF_CONFIG met: call seed_everything first"
            ) from None
    return tf.distribute.MirroredStrategy() if len(_gpus()) > 1 else tf.distribute.get_strategy()


def precision() -> str:
    """The Keras dtype policy: "mixed_float16" where every GPU has units for it (7.0 and newer), "float32" elsewhere."""
    details = [tf.config.experimental.get_device_details(gpu) for gpu in _gpus()]
    able = [detail.get("compute_capability", (0, 0)) >= (7, 0) for detail in details]
    return "mixed_float16" if able and all(able) else "float32"


def _gpus() -> list:
    return tf.config.list_physical_devices("GPU")


class WholeBatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation of pictures, trained by one operation of TensorFlow, where Keras needs a dozen.

    It computes the same and has the same weights, but each of the dozen fetches and stores all numbers of a level anew.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        if not (training and self.trainable and _normalises_pictures(self)) or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        gamma, beta = (keras.ops.cast(weights, "float32") for weights in (self.gamma, self.beta))
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=keras.ops.cast(inputs, "float32"), scale=gamma, offset=beta, mean=[], variance=[], epsilon=self.epsilon,
            is_training=True,
        )  # fmt: skip
        # TensorFlow gives the variance of all pictures from which these may come, Keras keeps that of these.
        count = keras.ops.cast(tf.size(inputs) // inputs.shape[-1], "float32")
        for kept, new in ((self.moving_mean, mean), (self.moving_variance, variance * (count - 1) / count)):
            kept.assign(kept * self.momentum + new * (1 - self.momentum))
        return keras.ops.cast(outputs, self.compute_dtype)


def _normalises_pictures(layer: keras.layers.BatchNormalization) -> bool:
    """Whether the layer normalises filters of pictures, (n, h, w, filters), and scales and moves them afterwards."""
    plain = layer.scale and layer.center and not layer.renorm
    return plain and layer.input_spec.ndim == 4 and layer.axis in (-1, 3)


def fitted(model: keras.Model) -> keras.Model:
    """The model as these devices train it best: a copy with the same weights, or the model itself.

    The weights stand on every device. Layers compute in `precision()`, except for the last, whose probabilities need
    all digits. Batch normalisation is `WholeBatchNormalization`; on several devices it is Keras' own, which takes its
    mean over all of them, as if the batch had not been split.
    """
    dtype, several = precision(), strategy().num_replicas_in_sync > 1
    normalised = [layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    if dtype == "float32" and not several and not any(_normalises_pictures(layer) for layer in normalised):
        return model

    def layer_copy(layer: keras.Layer | keras.Operation) -> keras.Layer | keras.Operation:
        if not isinstance(layer, keras.Layer):  # a sum, say, which takes numbers as they come
            return type(layer).from_config(layer.get_config())
        config = layer.get_config() | {"dtype": "float32" if layer is model.layers[-1] else dtype}
        if layer not in normalised:
            return type(layer).from_config(config)
        if several:
            return keras.layers.BatchNormalization.from_config(config | {"synchronized": True})
        return WholeBatchNormalization.from_config(config)

    # The copy's first weights, which nobody uses, may not move the random numbers that order the batches.
    state = random.getstate()
    with strategy().scope():
        copy = keras.models.clone_model(model, clone_function=layer_copy, recursive=True)
        copy.set_weights(model.get_weights())
    random.setstate(state)
    return copy


def all_layers(model: keras.Model) -> list[keras.Layer]:
    """The layers of a model, and of the models inside it."""
    nested = [all_layers(layer) if isinstance(layer, keras.Model) else [layer] for layer in model.layers]
    return [layer for layers in nested for layer in layers]


def from_all(number: float) -> np.ndarray:
    """The numbers that all workers bring to this call, float64 (workers,): each gets the same."""
    count, own = workers()
    places = np.zeros(count)
    places[own] = number
    return _sum_over_workers()(places).numpy() if count > 1 else places


@functools.cache
def _sum_over_workers() -> Callable:
    several = strategy()
    devices_each = several.num_replicas_in_sync // workers()[0]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float64)])
    def total(values):
        return several.reduce("SUM", several.run(tf.identity, args=(values,)), axis=None) / devices_each

    return total


def check_alike(*arrays: np.ndarray) -> None:
    """Raises CourseError, on all workers, if they do not bring the same arrays: their weights would drift apart."""
    if len(set(from_all(int(digest(*arrays)[:12], 16)))) > 1:
        raise CourseError(
            "the workers do not start alike: give all of them the same data and seed, and a run folder that all can see"
        )


def batch_size_for(model: keras.Model, batch_size: int, free: float | None = None) -> int:
    """The batch size, halved until a training step fits into `SHARE` of the free memory of each device.

    free    bytes, or None: as many as this machine tells; where it does not tell, everything fits
    Says so on stderr if it halves. Raises CourseError if not even one picture per device fits.
    """
    free = min(from_all(free_memory() if free is None else free))
    devices, size = strategy().num_replicas_in_sync, batch_size
    while step_memory(model, -(-size // devices)) > SHARE * free:
        if size <= devices:
            raise CourseError(
                f"a training step needs {step_memory(model, 1) / 2**20:.0f} MiB for one picture, and "
                f"{free / 2**20:.0f} MiB are free: close other programs, or take a machine with more memory"
            )
        size //= 2
    if size < batch_size and is_chief():
        print(f"batches of {size} instead of {batch_size} pictures: {free / 2**20:.0f} MiB are free", file=sys.stderr)
    return size


def step_memory(model: keras.Model, pictures: int) -> int:
    """Bytes that one training step needs, roughly: what every operation says of each picture and the gradient of that,
    and each weight with its gradient and the optimiser's two averages, all in float32 (4 bytes).
    """
    tensors = [tensor for operation in operations(model, None) for tensor in operation.outputs]
    # Only what belongs to a picture has an open number of them; weights have none.
    outputs = sum(np.prod(tensor.shape[1:]) for tensor in tensors if tensor.shape.rank and tensor.shape[0] is None)
    return int(4 * (2 * outputs * pictures + 4 * model.count_params()))


def operations(model: keras.Model, pictures: int | None) -> list[tf.Operation]:
    """What TensorFlow computes to answer for so many pictures (None: any number): a layer that is used twice is there
    twice, and networks inside the network are there with all their layers.
    """
    given = tf.TensorSpec((pictures, *model.input_shape[1:]), tf.float32)
    return tf.function(lambda x: model(x, training=False)).get_concrete_function(given).graph.get_operations()


def free_memory() -> float:
    """Bytes that are free on the GPU with the least, or in main memory; infinite where the system does not tell."""
    if _gpus():
        from tensorflow.python.client import device_lib  # the only place that tells a GPU's share of memory

        limits = {device.name.split(":", 1)[1]: device.memory_limit for device in device_lib.list_local_devices()}
        used = {name: tf.config.experimental.get_memory_info(name)["current"] for name in limits if "GPU" in name}
        return float(min(limits[name] - used[name] for name in used))
    found = [_meminfo(Path("/proc/meminfo")), _cgroup(Path("/sys/fs/cgroup"))]
    return min((bytes_ for bytes_ in found if bytes_ is not None), default=float("inf"))


def _meminfo(file: Path) -> float | None:
    """What Linux would still give to programs: the line "MemAvailable: 123 kB"."""
    try:
        lines = dict(line.split(":", 1) for line in file.read_text().splitlines())
        return 1024.0 * int(lines["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):
        return None


def _cgroup(folder: Path) -> float | None:
    """What a container may still take: its limit less its use, in version 2 or 1 of control groups.

    Files that were read count as used, and would be given up for a program: whoever has just read a data set has as
    much memory as before.
    """
    for limit, used, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            free = int((folder / limit).read_text()) - int((folder / used).read_text())
        except (OSError, ValueError):  # there is none, or it is "max"
            continue
        return float(free + _files_in_memory(folder / stat))
    return None


def _files_in_memory(stat: Path) -> int:
    """Bytes: lines like "inactive_file 123", in version 1 beside "total_inactive_file", which counts children too."""
    try:
        lines = dict(line.split() for line in stat.read_text().splitlines())
        names = ("active_file", "inactive_file")
        return sum(int(lines.get(f"total_{name}", lines.get(name, "0"))) for name in names)
    except (OSError, ValueError):
        return 0
