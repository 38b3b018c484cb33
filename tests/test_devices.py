"""Several devices and several workers train the same model as one; half precision and small memories are coped with."""

import json
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from skinlib import cnn, devices, training, unet
from skinlib.files import CourseError, digest
from skinlib.quiet import keras, tf
from skinlib.training import Batches

PROGRAM = """
import json, os, sys
from skinlib import checkpoint, devices
from skinlib.quiet import tf
sys.path.insert(0, {tests!r})
from test_devices import classify, learn
end = checkpoint.Checkpoint.on_epoch_end
def end_and_die(self, epoch, logs=None):
    end(self, epoch, logs)
    if epoch == 1 and "DIE" in os.environ:
        os._exit(9)
checkpoint.Checkpoint.on_epoch_end = end_and_die
if sys.argv[2] == "mirrored":
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    several = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    devices.strategy = lambda: several
found = learn(sys.argv[1])
if sys.argv[2]:
    # The chief's time is up at once, the other worker's never: both must end after the same epoch.
    found["classes"] = classify(0 if devices.workers() == (2, 0) else 1e6)
print(json.dumps(found | {{"replicas": devices.strategy().num_replicas_in_sync}}))
"""


def tiny(outputs):
    layers = keras.layers
    inputs = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    # As in the course's networks, the normalisation stands in a network inside.
    stack = [
        layers.Conv2D(4, 3, padding="same", use_bias=False),
        layers.BatchNormalization(momentum=0.5),
        layers.ReLU(),
    ]
    x = keras.Sequential(stack)(x)
    if outputs == 1:
        return keras.Model(inputs, layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def learn(folder):
    """Segment 7 pictures in batches of 4, of which the second cannot be shared evenly. Returns all that must not depend
    on how many devices learn.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 16, 16, 3), np.uint8)
    masks = images.mean(axis=3) > 128
    training.seed_everything(0)
    model = tiny(1)
    batches = [Batches(images, masks, 4, 0, training.augment), Batches(images, masks, 4, 0)]
    history = training.train(
        model, *batches, 3, unet.segmentation_loss, [unet.dice_per_image], checkpoint=f"{folder}/state.npz", seconds=1e6
    )
    training.save_model(model, f"{folder}/model.keras", {}, history)
    weights = model.get_weights()
    return {"history": history, "weights": [values.tolist() for values in weights], "digest": digest(*weights)}


def classify(seconds=None):
    """Weighted classes of 9 pictures in batches of 4: the last has one picture, which two devices cannot share."""
    images = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), np.uint8)
    weights = np.linspace(0.5, 1.5, 9, dtype=np.float32)
    training.seed_everything(0)
    batches = [Batches(images, np.arange(9) % 2, 4, 0, weights=weights) for _ in range(2)]
    return training.train(tiny(2), *batches, 2, "sparse_categorical_crossentropy", ["accuracy"], seconds=seconds)


def start(folder, kind="", **environment):
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder), kind], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"} | environment,
    )  # fmt: skip


def start_workers(folder, kind="", **chief_environment):
    with socket.socket() as first, socket.socket() as second:
        addresses = []
        for free in (first, second):
            free.bind(("127.0.0.1", 0))
            addresses.append(f"127.0.0.1:{free.getsockname()[1]}")
    config = [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}) for index in (0, 1)
    ]
    return [start(folder, kind, TF_CONFIG=config[0], **chief_environment), start(folder, kind, TF_CONFIG=config[1])]


def ended(processes):
    """(exit status, output, errors) of each; none is waited for longer than two minutes."""
    try:
        return [(*process.communicate(timeout=120)[::-1], process.returncode)[::-1] for process in processes]
    finally:
        for process in processes:
            process.kill()


def result(process):
    status, output, errors = process
    assert status == 0, errors
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    return folder, [result(worker) for worker in ended(start_workers(folder, "workers"))]


def assert_same_training(found, alone):
    assert found["replicas"] == 2
    # In the first epoch only rounding differs, later what training makes of it.
    for name, values in alone["history"].items():
        assert found["history"][name][0] == pytest.approx(values[0], abs=0.002), name
        assert found["history"][name] == pytest.approx(values, abs=0.02), name
    for mine, other in zip(found["weights"], alone["weights"], strict=True):
        assert np.array(mine) == pytest.approx(np.array(other), abs=0.01)


def test_two_devices_train_as_one(alone, tmp_path):
    found = result(*ended([start(tmp_path, "mirrored")]))
    assert_same_training(found, alone)
    stored = training.open_model(tmp_path / "model.keras")
    assert not any(layer.get_config().get("synchronized") for layer in devices.all_layers(stored))
    classes = classify()
    assert set(found["classes"]) == set(classes)
    assert found["classes"]["loss"] == pytest.approx(classes["loss"], abs=0.1)  # a step less: two batches are joined


def test_two_workers_train_as_one_and_end_with_the_same_weights(alone, together):
    folder, (chief, other) = together
    assert_same_training(chief, alone)
    assert chief["digest"] == other["digest"] and chief["history"] == other["history"]
    assert len(chief["classes"]["loss"]) == len(other["classes"]["loss"]) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.keras"]


def test_without_its_chief_a_worker_ends_and_both_go_on_from_the_checkpoint(together, tmp_path):
    (chief, _, _), (status, _, errors) = ended(start_workers(tmp_path, DIE="1"))
    assert chief == 9 and status not in (0, 9) and "Timeout" not in errors
    assert (tmp_path / "state.npz").is_file()
    assert [result(worker)["digest"] for worker in ended(start_workers(tmp_path))] == [together[1][0]["digest"]] * 2


@pytest.mark.parametrize(
    "config",
    [
        "worker",
        "[1]",
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_a_malformed_cluster_is_told_in_one_line(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(CourseError, match=r"TF_CONFIG must look like this: \{.*\}$"):
        devices.workers()


def test_the_chief_comes_first(monkeypatch):
    assert devices.workers() == (1, 0) and devices.is_chief()
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert devices.workers() == (1, 0)
    for task, number in (({"type": "chief", "index": 0}, 0), ({"type": "worker", "index": "1"}, 2)):
        cluster = {"worker": ["b:1", "c:1"], "chief": ["a:1"]}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
        assert devices.workers() == (3, number) and devices.is_chief() == (number == 0)


def test_workers_that_meet_too_late_are_told(monkeypatch):
    keras.ops.zeros(1)
    cluster = {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    devices.strategy.cache_clear()
    try:
        with pytest.raises(CourseError, match="call seed_everything first"):
            training.seed_everything(0)
    finally:
        devices.strategy.cache_clear()


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_trains_and_leaves_a_plain_model(monkeypatch, tmp_path, precision):
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    batches = [Batches(images, np.arange(4) % 2, 2, seed) for seed in (0, 1)]
    monkeypatch.setattr(devices, "precision", lambda: precision)
    model = tiny(2)
    copy = devices.fitted(model)
    assert {layer.compute_dtype for layer in devices.all_layers(copy)[2:-1]} == {precision.removeprefix("mixed_")}
    assert copy.layers[-1].compute_dtype == "float32" and copy(images[:1].astype(np.float32)).dtype == "float32"
    before = digest(*model.get_weights())
    history = training.train(model, *batches, 2, "sparse_categorical_crossentropy", ["accuracy"])
    assert np.isfinite(history["val_loss"]).all() and digest(*model.get_weights()) != before
    training.save_model(model, tmp_path / "model.keras", {}, history)
    stored = training.open_model(tmp_path / "model.keras")
    assert {layer.dtype_policy.name for layer in stored.layers} == {"float32"}
    assert {weights.dtype for weights in stored.get_weights()} == {np.dtype("float32")}


@pytest.mark.parametrize("build", [unet.build_unet, cnn.build_cnn])
def test_the_networks_inside_a_network_are_fitted_too(monkeypatch, build):
    monkeypatch.setattr(devices, "precision", lambda: "mixed_bfloat16")
    training.seed_everything(0)  # with some weights, a few digits make a difference
    model = build()
    copy = devices.fitted(model)
    assert len(devices.all_layers(copy)) == len(devices.all_layers(model)) > 30
    kernels = [layer for layer in devices.all_layers(copy) if isinstance(layer, keras.layers.Conv2D)]
    assert len(kernels) == 14 and {layer.compute_dtype for layer in kernels} == {"bfloat16"}
    pictures = np.random.default_rng(0).integers(0, 256, (2, *model.input_shape[1:])).astype(np.float32)
    assert np.asarray(copy(pictures)) == pytest.approx(np.asarray(model(pictures)), abs=0.05)


def test_without_pictures_to_normalise_one_device_trains_the_model_itself():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.BatchNormalization()(inputs))
    assert devices.precision() != "float32" or devices.fitted(model) is model


def test_normalisation_in_one_operation_computes_what_keras_does():
    """Three steps of both: the same answers, gradients and kept averages; a frozen layer keeps what it has."""
    rng = np.random.default_rng(0)
    theirs = keras.layers.BatchNormalization(momentum=0.7)
    ours = devices.WholeBatchNormalization.from_config(theirs.get_config())
    for layer in (theirs, ours):
        layer.build((None, 2, 3, 4))
        layer.set_weights([np.float32([1, 2, 3, 4]), np.float32([4, 3, 2, 1]), np.zeros(4), np.ones(4)])
    for _ in range(3):
        pictures = tf.constant(rng.normal(5, 3, (2, 2, 3, 4)), tf.float32)
        weight, found = rng.normal(size=pictures.shape).astype(np.float32), []
        for layer in (theirs, ours):
            with tf.GradientTape() as tape:
                tape.watch(pictures)
                answer = layer(pictures, training=True)
                total = tf.reduce_sum(answer * weight)
            found.append([answer, *tape.gradient(total, [pictures, *layer.trainable_variables]), *layer.get_weights()])
        for expected, got in zip(*found, strict=True):
            assert np.asarray(got) == pytest.approx(np.asarray(expected), abs=1e-4)
    assert np.asarray(ours(pictures)) == pytest.approx(np.asarray(theirs(pictures)), abs=1e-4)
    before = digest(*ours.get_weights())
    ours.trainable = False
    ours(pictures, training=True)
    assert digest(*ours.get_weights()) == before


@pytest.mark.parametrize("build", [unet.build_unet, cnn.build_cnn])
def test_training_normalises_in_one_operation_and_what_is_stored_needs_no_code_of_the_course(build, tmp_path):
    model = build()
    copy = devices.fitted(model)
    given = tf.TensorSpec((2, *model.input_shape[1:]))
    graph = tf.function(lambda pictures: copy(pictures, training=True)).get_concrete_function(given).graph
    convolutions = sum(layer.name.startswith("conv2d") for layer in devices.all_layers(model))
    assert [step.type for step in graph.get_operations()].count("FusedBatchNormV3") == convolutions
    training.save_model(model, tmp_path / "model.keras", {}, {})
    assert b"WholeBatch" not in zipfile.ZipFile(tmp_path / "model.keras").read("config.json")


def test_batches_are_halved_until_they_fit(capsys):
    model = tiny(1)
    enough = devices.step_memory(model, 16) / devices.SHARE
    assert devices.batch_size_for(model, 16, enough) == 16 and not capsys.readouterr().err
    assert devices.batch_size_for(model, 16, enough - 1) == 8
    assert capsys.readouterr().err == "batches of 8 instead of 16 pictures: 1 MiB are free\n"
    assert devices.batch_size_for(model, 5, devices.step_memory(model, 1) / devices.SHARE) == 1
    with pytest.raises(CourseError, match="for one picture, and 0 MiB are free: close other programs"):
        devices.batch_size_for(model, 16, devices.step_memory(model, 0))


def test_training_takes_the_batches_that_fit(monkeypatch, capsys):
    images = np.zeros((9, 16, 16, 3), np.uint8)
    batches = [Batches(images, images[..., 0] > 0, 8, 0) for _ in range(2)]
    model = tiny(1)
    monkeypatch.setattr(devices, "free_memory", lambda: devices.step_memory(model, 3) / devices.SHARE)
    training.train(model, *batches, 1, unet.segmentation_loss, [])
    assert [part.batch_size for part in batches] == [2, 2] and "batches of 2 instead of 8" in capsys.readouterr().err


def test_the_memory_of_one_step_by_hand():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3, padding="same")(inputs))
    outputs, weights = 8 * 8 * 3 + 3 * 8 * 8 * 2, 3 * 3 * 3 * 2 + 2  # the convolution, its bias, and the answer
    assert devices.step_memory(model, 5) == 4 * (2 * 5 * outputs + 4 * weights)


def test_what_the_system_tells_of_its_memory(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 2000 kB\nMemAvailable:    1000 kB\nHugePages_Total:  0\n")
    assert devices._meminfo(tmp_path / "meminfo") == 1024_000
    assert devices._meminfo(tmp_path / "none") is None
    assert devices._cgroup(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100\n")
    assert devices._cgroup(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert devices._cgroup(tmp_path) == 900
    (tmp_path / "memory.stat").write_text("anon 40\nfile 60\nactive_file 20\ninactive_file 30\n")
    assert devices._cgroup(tmp_path) == 950  # what was read from files may go
    (tmp_path / "memory.stat").write_text("what is this\n")
    assert devices._cgroup(tmp_path) == 900
    first = tmp_path / "first" / "memory"
    first.mkdir(parents=True)
    for name, words in (
        ("limit_in_bytes", "2000\n"), ("usage_in_bytes", "500\n"),
        ("stat", "active_file 1\ninactive_file 2\ntotal_active_file 10\ntotal_inactive_file 20\n"),
    ):  # fmt: skip
        (first / f"memory.{name}").write_text(words)
    assert devices._cgroup(tmp_path / "first") == 1530
    assert devices.free_memory() > 0
