"""The training loop where several devices share each batch, as TensorFlow's guide to custom training loops has it.

`model.fit` of Keras 3 fails with several workers and reports, from several devices, means of means; so the loop is
written out. It knows nothing of what it trains, and a training on one device does not come here.
"""

import contextlib
import random
from collections.abc import Callable, Iterator

import numpy as np

from skinlib import devices
from skinlib.files import CourseError
from skinlib.quiet import keras, tf

WORKER_GONE = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError)


def fit(
    model: keras.Model,
    batches: keras.utils.PyDataset,
    validation: keras.utils.PyDataset,
    epochs: int,
    initial_epoch: int,
    metrics: dict[str, Callable],
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """Train a compiled model of `devices.fitted` in place, as `model.fit` does on one device.

    batches       have `pictures(number)`, the pictures of a batch, and `share(pictures, replica, replicas)`: images,
                  targets, weights and the size of the whole batch
    metrics       functions (targets, answers) to one value per picture; "loss", the first, is what is lowered
    callbacks     are called as by `model.fit`
    Each device gets every n-th picture of a batch and adds up its gradients with the others', divided by the size of
    the whole batch: the step is that of one device, but for rounding and for dropout, which each draws for itself.
    Raises CourseError if there are more devices than pictures in a batch, or if another worker has gone.
    """
    train_step, test_step = _steps(model, metrics, _shares(batches, []).element_spec)
    calls = keras.callbacks.CallbackList(callbacks, model=model)
    model.stop_training = False
    try:
        calls.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            calls.on_epoch_begin(epoch)
            batches.on_epoch_begin()
            parts = _parts(batches)
            random.shuffle(parts)  # as Keras does
            for number, logs in enumerate(_means(train_step, batches, parts, metrics)):
                calls.on_train_batch_end(number, logs)
                if model.stop_training:
                    break
            for found in _means(test_step, validation, _parts(validation), metrics):
                logs |= {f"val_{name}": value for name, value in found.items()}
            calls.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        calls.on_train_end()
        # Who comes here has all that it needs, so the first to go may break the others' wait, but not their training.
        with contextlib.suppress(*WORKER_GONE):
            devices.from_all(0)
    except WORKER_GONE as error:
        if devices.workers()[0] == 1:
            raise
        raise CourseError(
            f"another worker has gone, or cannot be reached ({type(error).__name__}): start all of them again, and "
            "they go on from the checkpoint"
        ) from error


def _steps(model: keras.Model, metrics: dict[str, Callable], share_spec: tuple) -> tuple[Callable, Callable]:
    """Functions of all devices' shares of one batch to the sums of all metrics over its pictures."""
    strategy = devices.strategy()

    def sums(images, targets, weights, training):
        found = model(images, training=training)
        values = [function(targets, found) for function in metrics.values()]
        values[0] *= weights  # the loss
        return [tf.reduce_sum(tf.cast(value, tf.float32)) for value in values]

    def train_on_share(images, targets, weights, size):
        with tf.GradientTape() as tape:
            found = sums(images, targets, weights, training=True)
            loss = model.optimizer.scale_loss(found[0] / size)
        variables = model.trainable_variables
        model.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return found

    def test_on_share(images, targets, weights, size):
        return sums(images, targets, weights, training=False)

    def on_all(function):
        # One graph for every size of a share: workers that traced different ones would wait for each other's sums.
        @tf.function(input_signature=[share_spec])
        def step(share):
            return strategy.reduce("SUM", strategy.run(function, args=share), axis=None)

        return step

    with strategy.scope():
        model.optimizer.build(model.trainable_variables)  # variables cannot be made within a step
    return on_all(train_on_share), on_all(test_on_share)


def _parts(batches: keras.utils.PyDataset) -> list[np.ndarray]:
    """The pictures of each batch. A last one that is too small for all devices joins the one before."""
    parts = [batches.pictures(number) for number in range(len(batches))]
    replicas = devices.strategy().num_replicas_in_sync
    if len(parts) > 1 and len(parts[-1]) < replicas:
        parts[-2:] = [np.concatenate(parts[-2:])]
    if len(parts[-1]) < replicas:
        raise CourseError(f"{len(parts[-1])} pictures in a batch cannot be shared by {replicas} devices")
    return parts


def _shares(batches: keras.utils.PyDataset, parts: list[np.ndarray]) -> tf.distribute.DistributedDataset:
    """Of each batch in that order, what every device gets; a worker makes only what its own devices need."""
    example = batches.share(batches.pictures(0), 0, 1)
    signature = tuple(tf.TensorSpec((None, *array.shape[1:])[: array.ndim], array.dtype) for array in example)

    def own(context: tf.distribute.InputContext) -> tf.data.Dataset:
        replicas = context.num_replicas_in_sync
        here = replicas // context.num_input_pipelines
        first = here * context.input_pipeline_id

        def shares():
            for pictures in parts:
                for replica in range(first, first + here):
                    yield batches.share(pictures, replica, replicas)

        return tf.data.Dataset.from_generator(shares, output_signature=signature).prefetch(2 * here)

    return devices.strategy().distribute_datasets_from_function(own)


def _means(
    step: Callable, batches: keras.utils.PyDataset, parts: list[np.ndarray], metrics: dict[str, Callable]
) -> Iterator[dict[str, float]]:
    """After each batch, the mean of each metric over all pictures so far."""
    total, seen = np.zeros(len(metrics)), 0
    for pictures, share in zip(parts, _shares(batches, parts), strict=True):
        total, seen = total + np.array(step(share)), seen + len(pictures)
        yield dict(zip(metrics, (total / seen).tolist(), strict=True))
