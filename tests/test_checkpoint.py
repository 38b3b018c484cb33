"""A killed training goes on as if nothing had happened; one that diverges says so and keeps its best weights."""

import subprocess
import sys

import numpy as np
import pytest

from skinlib import training, unet
from skinlib.checkpoint import Checkpoint
from skinlib.files import CourseError
from skinlib.quiet import keras
from skinlib.training import Batches, train

PROGRAM = """
import os, sys
import numpy as np, pandas as pd
from skinlib import checkpoint, cnn, dataset, training
from skinlib.files import digest
folder, state, die_after = sys.argv[1], sys.argv[2], int(sys.argv[3])
write = checkpoint.Checkpoint._write
def write_and_die(self):
    write(self)
    if self.epochs_done == die_after:
        os._exit(9)
checkpoint.Checkpoint._write = write_and_die
data = dataset.load_dataset("synthetic", folder, quick=True)
data = data.select(np.concatenate([np.flatnonzero(data.parts == p)[:20] for p in ("train", "validation")]))
training.seed_everything(3)
table = pd.DataFrame({"part": data.parts, "label": data.labels})
# The CNN: it has dropout, too.
model, history = cnn.train_cnn(dataset.resize_images(data.images, 180), table, 4, 3, checkpoint=state or None)
# The order in which Keras adds up the validation batches may change the last digit of their mean.
print(digest(*model.get_weights()), {name: [f"{value:.4f}" for value in values] for name, values in history.items()})
"""


def test_a_killed_training_ends_as_if_nothing_had_happened(tmp_path):
    def run(state, die_after):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(state), str(die_after)]
        return subprocess.run(command, capture_output=True, text=True)

    state = tmp_path / "models" / "state.npz"
    undisturbed = run("", 0)
    assert undisturbed.returncode == 0, undisturbed.stderr
    killed = run(state, 2)
    assert killed.returncode == 9 and state.is_file() and not killed.stdout
    resumed = run(state, 0)
    assert resumed.stdout == undisturbed.stdout and len(resumed.stdout) > 100
    assert not state.exists()  # nothing is left once it is over


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 16, 16, 3), np.uint8)
    return [Batches(images, images[..., 0] > 128, 4, seed) for seed in (0, 1)]


def tiny():
    training.seed_everything(0)
    inputs = keras.Input((16, 16, 3))
    return keras.Model(inputs, keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")(inputs))


def state_after_two_epochs(batches, path, monkeypatch, epochs=5):
    class Killed(Exception):
        pass

    write = Checkpoint._write

    def write_and_raise(self):
        write(self)
        if self.epochs_done == 2:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoint, "_write", write_and_raise)
        train(tiny(), *batches, epochs, unet.segmentation_loss, [], checkpoint=path, made_from={"seed": 0})
    assert path.is_file()


def epochs_trained(batches, path, made_from, epochs=5):
    started = []
    counting = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: started.append(epoch))
    model, fit = tiny(), keras.Model.fit
    model.fit = lambda *a, callbacks, **k: fit(model, *a, callbacks=[*callbacks, counting], **k)
    train(model, *batches, epochs, unet.segmentation_loss, [], checkpoint=path, made_from=made_from)
    return started


def test_only_the_same_training_takes_the_state(batches, tmp_path, monkeypatch):
    path = tmp_path / "state.npz"
    state_after_two_epochs(batches, path, monkeypatch)
    kept = path.read_bytes()
    assert epochs_trained(batches, path, {"seed": 0}) == [2, 3, 4] and not path.exists()
    for made_from, epochs in (({"seed": 1}, 5), ({"seed": 0}, 4)):
        path.write_bytes(kept)
        assert epochs_trained(batches, path, made_from, epochs) == list(range(epochs))
    for damaged in (kept[: len(kept) // 2], b"", b"no state"):
        path.write_bytes(damaged)
        assert epochs_trained(batches, path, {"seed": 0}) == [0, 1, 2, 3, 4]


def test_a_training_killed_when_all_was_done_needs_no_further_epoch(batches, tmp_path, monkeypatch):
    path = tmp_path / "state.npz"
    state_after_two_epochs(batches, path, monkeypatch, epochs=2)
    assert epochs_trained(batches, path, {"seed": 0}, epochs=2) == [] and not path.exists()


def test_a_full_disk_costs_the_state_and_not_the_training(batches, tmp_path, monkeypatch, capsys):
    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoint, "_write", full)
    history = train(tiny(), *batches, 3, unet.segmentation_loss, [], checkpoint=tmp_path / "state.npz")
    assert len(history["loss"]) == 3
    assert (
        capsys.readouterr().err == "the training cannot be taken up again if it is killed (No space left on device)\n"
    )


def nan_from(step):
    count = keras.Variable(0, dtype="int32", trainable=False)

    def loss(masks, found):
        count.assign_add(1)
        return unet.segmentation_loss(masks, found) + keras.ops.where(count > step, np.nan, 0.0)

    return loss


def test_a_loss_that_diverges_is_said_and_the_best_weights_are_kept(batches, capsys):
    model = tiny()
    history = train(model, *batches, 6, nan_from(13), [])  # three batches of training and three of validation an epoch
    assert len(history["loss"]) == 2 and np.isfinite(history["loss"]).all()
    assert "the loss became infinite or NaN after 2 epochs; the best weights are kept" in capsys.readouterr().err
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


@pytest.mark.parametrize("last_epoch, kept", [(False, 1), (True, 2)])
def test_the_best_epoch_is_kept_or_the_last(batches, last_epoch, kept):
    model = tiny()
    keep = Checkpoint(None, {}, batches[0], last_epoch=last_epoch)
    keep.set_model(model)
    keep.on_train_begin()
    for epoch, loss in enumerate((0.5, 0.3, 0.4)):
        model.set_weights([np.full_like(weights, epoch) for weights in model.get_weights()])
        keep.on_epoch_end(epoch, {"loss": loss, "val_loss": loss})
    model.set_weights([np.full_like(weights, 9) for weights in model.get_weights()])
    keep.on_train_end()
    assert all((weights == kept).all() for weights in model.get_weights())


def test_where_the_last_epoch_is_kept_a_divergence_leaves_the_one_before(batches, capsys):
    model = tiny()
    train(model, *batches, 6, nan_from(13), [], last_epoch=True)
    assert "after 2 epochs; the last weights before are kept" in capsys.readouterr().err
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


def test_a_loss_that_never_was_a_number_is_an_error(batches):
    with pytest.raises(CourseError, match="before the first epoch was over: try a smaller learning rate"):
        train(tiny(), *batches, 3, nan_from(0), [])


def test_time_ends_a_training_after_a_whole_epoch(batches):
    history = train(tiny(), *batches, 50, unet.segmentation_loss, [], seconds=0)
    assert len(history["loss"]) == 1


def test_what_cannot_be_learned_from_is_told(small_data):
    with pytest.raises(CourseError, match="this part of the data set is empty"):
        Batches(np.empty((0, 16, 16, 3), np.uint8), np.empty((0, 16, 16), bool), 4, 0)
    images = np.full((2, 16, 16, 3), np.nan, np.float32)
    with pytest.raises(CourseError, match="values that are no numbers"):
        Batches(images, np.zeros((2, 16, 16), bool), 4, 0)
    unmasked = small_data.select(np.arange(20))
    unmasked.has_mask[3:7] = False
    with pytest.raises(CourseError, match="4 of 20 images have no mask"):
        unet.train_unet(unmasked, 1, 0)
