"""Keras and TensorFlow, started fast and without start-up messages: `from skinlib.quiet import keras, tf`."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def _without_start_up_messages() -> Iterator[None]:
    """TensorFlow's C++ half writes notes about its build to the terminal on import, past any Python setting."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# By itself TensorFlow calls oneDNN's convolutions on some newer processors only; on older ones they are faster too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# By itself TensorFlow takes a whole GPU at once, and a process that only asks a network leaves none to one that trains.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
with _without_start_up_messages():
    import keras
    import tensorflow as tf

__all__ = ["keras", "tf"]
