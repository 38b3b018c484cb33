"""The optimiser: which weights step with Muon, and that such a step is what it is said to be."""

import numpy as np
import pytest

from skinlib import devices, unet
from skinlib.muon import Muon, of_hidden_convolution, orthogonal
from skinlib.quiet import keras


@pytest.mark.parametrize("shape", [(864, 96), (32, 96), (40, 40)])
def test_directions_stay_and_stretches_become_alike(shape):
    rng = np.random.default_rng(0)
    left, stretches, right = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
    stretches = 10.0 ** rng.uniform(-1.5, 2, len(stretches))
    found = np.asarray(orthogonal(((left * stretches) @ right).astype(np.float32)))
    seen = left.T @ found @ right.T  # in the directions of the matrix itself, where only stretches are left
    assert np.diag(seen).max() < 1.25 and np.median(np.diag(seen)) > 0.65
    assert np.diag(seen).min() > 10 * stretches.min() / stretches.max()
    assert np.abs(seen - np.diag(np.diag(seen))).max() < 0.01


def test_a_matrix_of_zeros_gives_no_step():
    assert not np.asarray(orthogonal(np.zeros((8, 4), np.float32))).any()


def test_convolutions_step_with_muon_and_the_rest_with_adamw():
    kernel, offset = np.full((3, 3, 8, 16), 0.5, np.float32), np.full(16, 0.5, np.float32)
    weights, compared = [[keras.Variable(value) for value in (kernel, offset)] for _ in range(2)]
    rng = np.random.default_rng(0)
    muon = Muon(0.01, weight_decay=0.1, further=5.0, momentum=0.9)
    adam = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    mean, expected = 0, kernel
    for _ in range(3):
        gradients = [rng.normal(size=value.shape).astype(np.float32) for value in (kernel, offset)]
        muon.apply(gradients, weights)
        adam.apply(gradients, compared)
        mean = 0.9 * mean + gradients[0]
        step = np.asarray(orthogonal((0.9 * mean + gradients[0]).reshape(72, 16)))
        expected = expected * (1 - 0.01 * 0.1) - 5 * 0.01 * step.reshape(kernel.shape)
    assert np.asarray(weights[0].value) == pytest.approx(expected, abs=1e-5)
    assert (np.asarray(weights[1].value) == np.asarray(compared[1].value)).all()
    assert np.abs(np.asarray(weights[0].value) - np.asarray(compared[0].value)).max() > 1e-3


def test_a_kernel_with_more_filters_than_inputs_steps_further():
    rng, moved = np.random.default_rng(0), []
    for filters in (9, 36):
        weight = keras.Variable(np.zeros((1, 1, 9, filters), np.float32))
        Muon(1.0, further=1.0).apply([rng.normal(size=weight.shape).astype(np.float32)], [weight])
        moved.append(np.linalg.svd(np.asarray(weight.value)[0, 0], compute_uv=False))
    assert moved[0].max() < 1.25 < moved[1].min() and moved[1].max() < 2.5


def test_of_the_unet_all_but_the_first_and_the_last_convolution_step_with_muon():
    found = devices.all_layers(unet.build_unet())
    kernels = [tuple(layer.kernel.shape) for layer in found if isinstance(layer, keras.layers.Conv2D)]
    others = [shape for shape in kernels if not of_hidden_convolution(shape)]
    assert len(kernels) > 10 and sorted(others) == [(1, 1, 32, 1), (5, 5, 3, 32)]
    assert not of_hidden_convolution((1440, 64)) and not of_hidden_convolution((64,))


def test_the_optimiser_tells_its_settings():
    made = Muon.from_config(Muon(0.5, further=3.0, momentum=0.8, weight_decay=0.2).get_config())
    assert (made.further, made.momentum, made.weight_decay) == (3.0, 0.8, 0.2)
