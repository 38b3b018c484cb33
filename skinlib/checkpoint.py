"""What a training may lose and must not: its best weights, and, when it is killed, everything it has done so far.

`Checkpoint` is a Keras callback. After every epoch it notes the best weights by validation, or just the newest, and, if
it has a file, writes the whole state of the training there; the same training, started again, goes on from that and
ends in the same weights as if nothing had happened. It also ends a training whose loss is no number any more, or whose
time is up.
"""

import json
import random
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

from skinlib import devices
from skinlib.files import CourseError, written_whole
from skinlib.quiet import keras


class Checkpoint(keras.callbacks.Callback):
    """Give it to `model.fit` and call `restore` before, with the compiled model; it knows from which epoch to go on.

    path         where the state is kept while the training runs, or None: nothing outlives the process
    made_from    what the training depends on: a state of another data set, seed or length is not taken
    batches      the training batches, whose `epoch` counts the shuffles
    seconds      end after the epoch in which so much time is used up, or None
    last_epoch   keep the weights of the last epoch, not those of the best
    Afterwards `history` holds a list per quantity, and `diverged` tells whether the loss had become infinite or NaN.
    """

    def __init__(
        self,
        path: str | Path | None,
        made_from: dict,
        batches: keras.utils.PyDataset,
        seconds: float | None = None,
        last_epoch: bool = False,
    ) -> None:
        super().__init__()
        self.path, self.batches, self.seconds = Path(path) if path else None, batches, seconds
        self.last_epoch = last_epoch
        self.made_from = json.dumps(made_from, sort_keys=True)
        self.history: dict[str, list[float]] = {}
        self.best: list[np.ndarray] = []
        self.best_loss, self.spent, self.diverged = np.inf, 0.0, False
        self.random_state: tuple | None = None

    @property
    def epochs_done(self) -> int:
        """How many epochs were trained, in this process and before."""
        return len(self.history.get("val_loss", ()))

    def restore(self, model: keras.Model) -> None:
        """Put a compiled model, its optimiser and the batches where a killed training has left them, if one has."""
        if self.path is None or not self.path.is_file():
            return
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                record = json.loads(str(stored["record"]))
                arrays = [
                    [stored[f"{kind}{i}"] for i in range(record[kind])] for kind in ("state", "optimizer", "best")
                ]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return  # half a file, or none of ours: the training begins anew
        if record["made_from"] != self.made_from:
            return
        model.optimizer.build(model.trainable_variables)
        state, optimizer, self.best = arrays
        for variables, values in ((model.variables, state), (model.optimizer.variables, optimizer)):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self.history, self.best_loss, self.spent = record["history"], record["best_loss"], record["spent"]
        self.batches.epoch = record["batches_epoch"]
        version, numbers, rest = record["random"]
        self.random_state = version, tuple(numbers), rest

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.start = time.perf_counter() - self.spent

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        # The batches of an epoch come in an order that is drawn with Python's own generator, see `training`.
        if self.random_state:
            random.setstate(self.random_state)
            self.random_state = None

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if not np.isfinite(logs["loss"]):
            self.diverged = self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self.diverged or not np.isfinite(logs["val_loss"]):
            self.diverged = self.model.stop_training = True
            return
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))
        if self.last_epoch or logs["val_loss"] < self.best_loss:
            self.best_loss, self.best = float(logs["val_loss"]), self.model.get_weights()
        self.spent = time.perf_counter() - self.start
        if self.path and devices.is_chief():
            self._write_if_possible()
        # Several workers end together: with the first whose time is up.
        if self.seconds is not None and devices.from_all(self.spent >= self.seconds).any():
            self.model.stop_training = True

    def on_train_end(self, logs: dict | None = None) -> None:
        if not self.best:
            raise CourseError(
                "the loss became infinite or NaN before the first epoch was over: try a smaller learning rate, or look "
                "for pictures that are none"
            )
        self.model.set_weights(self.best)
        if self.path and devices.is_chief():
            self.path.unlink(missing_ok=True)

    def _write_if_possible(self) -> None:
        """A full disk costs the state, not the training."""
        try:
            self._write()
        except OSError as error:
            print(f"the training cannot be taken up again if it is killed ({error.strerror or error})", file=sys.stderr)
            self.path.unlink(missing_ok=True)
            self.path = None

    def _write(self) -> None:
        arrays = {
            "state": [keras.ops.convert_to_numpy(variable) for variable in self.model.variables],
            "optimizer": [keras.ops.convert_to_numpy(variable) for variable in self.model.optimizer.variables],
            "best": self.best,
        }
        record = {kind: len(values) for kind, values in arrays.items()} | {
            "made_from": self.made_from,
            "history": self.history,
            "best_loss": self.best_loss,
            "spent": self.spent,
            "batches_epoch": self.batches.epoch,
            "random": random.getstate(),
        }
        named = {f"{kind}{i}": value for kind, values in arrays.items() for i, value in enumerate(values)}
        with written_whole(self.path) as unfinished:
            np.savez(unfinished, record=json.dumps(record), **named)
