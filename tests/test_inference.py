"""Asking a network in batches: the same answers as asking it directly, all eight views, and nothing kept too long."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

from skinlib import cnn, inference, inference_benchmark, network_report, unet
from skinlib.inference import answers
from skinlib.quiet import keras

MIRRORS = [
    lambda pictures: pictures,
    lambda pictures: pictures[:, :, ::-1],
    lambda pictures: pictures[:, ::-1],
    lambda pictures: pictures[:, ::-1, ::-1],
]
# Each view and the way back from it, in NumPy.
SYMMETRIES = [(mirror, mirror) for mirror in MIRRORS] + [
    (lambda p, mirror=mirror: mirror(p.swapaxes(1, 2)), lambda p, mirror=mirror: mirror(p).swapaxes(1, 2))
    for mirror in MIRRORS
]


def small_model(size=12, pictures_out=True):
    """An untrained network that answers otherwise for every view."""
    keras.utils.set_random_seed(1)
    picture = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 255)(picture)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, strides=2, padding="same")(x))
    if pictures_out:
        x = keras.layers.UpSampling2D()(keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x))
    else:
        x = keras.layers.Dense(2, activation="softmax", name="classes")(
            keras.layers.Flatten()(keras.layers.Dropout(0.5)(x))
        )
    return keras.Model(picture, x)


def some_pictures(count, size=12):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def directly(model, pictures):
    return np.asarray(model(np.ascontiguousarray(pictures, np.float32), training=False))


@pytest.mark.parametrize("pictures_out", [True, False])
@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_views_are_the_symmetries_of_the_square_turned_back(pictures_out, views):
    model, pictures = small_model(pictures_out=pictures_out), some_pictures(5)
    said = [
        back(directly(model, there(pictures))) if pictures_out else directly(model, there(pictures))
        for there, back in SYMMETRIES[:views]
    ]
    assert all(np.abs(one - said[0]).max() > 1e-3 for one in said[1:])
    found = answers(model, pictures, 3, views)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.mean(said, axis=0), atol=1e-5)


def test_eight_views_answer_alike_for_a_turned_picture():
    model, pictures = small_model(pictures_out=False), some_pictures(3)
    turned = np.rot90(pictures, axes=(1, 2))
    np.testing.assert_allclose(answers(model, turned, views=8), answers(model, pictures, views=8), atol=1e-5)
    assert np.abs(answers(model, turned, views=4) - answers(model, pictures, views=4)).max() > 1e-3


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 9])
@pytest.mark.parametrize("views", [1, 8])
def test_any_number_of_pictures_in_any_batches_has_the_same_answers(count, views):
    model, pictures = small_model(), some_pictures(9)
    expected = answers(model, pictures, views=views)[:count]
    found = answers(model, pictures[:count], 4, views)
    assert found.shape == (count, 12, 12, 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_function_is_traced_once_per_model_and_sees_the_weights_change():
    traced, model = [], small_model(pictures_out=False)

    class Counted(keras.layers.Layer):
        def call(self, x):
            traced.append(1)
            return x

    model = keras.Model(model.input, Counted()(model.output))
    traced.clear()
    for count in (1, 7, 32, 33):
        before = answers(model, some_pictures(count), 32)
    assert len(traced) == 1
    kernel, bias = model.get_layer("classes").get_weights()
    model.get_layer("classes").set_weights([kernel * 0, np.array([0, np.log(3)], bias.dtype)])
    after = answers(model, some_pictures(2))
    np.testing.assert_allclose(after, [[0.25, 0.75]] * 2, atol=1e-6)
    assert len(traced) == 1 and np.abs(before[:2] - after).max() > 1e-3


def test_models_of_other_sizes_are_asked_side_by_side():
    for size in (8, 20):
        model, pictures = small_model(size), some_pictures(3, size)
        np.testing.assert_allclose(answers(model, pictures), directly(model, pictures), atol=1e-5)
    found = unet.predict_masks(small_model(20), some_pictures(2, 50))
    assert found.shape == (2, 20, 20) and found.dtype == np.float32


def test_a_model_that_nobody_uses_any_more_is_not_kept():
    model = small_model()
    answers(model, some_pictures(1), views=2)
    gone, kept = weakref.ref(model), len(inference._compiled)
    del model
    gc.collect()
    assert gone() is None and len(inference._compiled) < kept


def test_what_does_not_fit_is_refused():
    model, pictures = small_model(), some_pictures(2)
    for views in (0, 3, 16):
        with pytest.raises(ValueError, match="views can be 1, 2, 4, 8"):
            answers(model, pictures, views=views)
    with pytest.raises(ValueError, match="uint8"):
        answers(model, pictures.astype(np.float32))
    with pytest.raises(ValueError, match=r"12, 12, 3.*\(2, 9, 12, 3\)"):
        answers(model, pictures[:, :9])
    wide = keras.Input((8, 12, 3))
    with pytest.raises(ValueError, match="not square"):
        answers(keras.Model(wide, keras.layers.Conv2D(1, 1)(wide)), np.zeros((1, 8, 12, 3), np.uint8), views=8)


def test_pictures_are_never_copied_as_floats_all_at_once():
    model, pictures = small_model(48, pictures_out=False), some_pictures(400, 48)
    answers(model, pictures[:1])
    tracemalloc.start()
    answers(model, pictures, 16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < pictures.nbytes / 2  # NumPy's share; as float32 it would be four times their bytes


def small_networks():
    return unet.build_unet(unet.RECIPE._replace(filters=(4, 8))), cnn.build_cnn()


def test_both_networks_answer_as_they_do_directly():
    segmenter, classifier = small_networks()
    images, crops = some_pictures(3, 128), some_pictures(3, cnn.CNN_SIZE)
    one = directly(segmenter, images)[..., 0]
    np.testing.assert_allclose(unet.predict_masks(segmenter, images, views=1), one, atol=1e-5)
    mean = np.mean([mirror(directly(segmenter, mirror(images))) for mirror in MIRRORS], axis=0)[..., 0]
    np.testing.assert_allclose(unet.predict_masks(segmenter, images), mean, atol=1e-5)
    mean = np.mean([directly(classifier, mirror(crops))[:, 1] for mirror in MIRRORS], axis=0)
    np.testing.assert_allclose(cnn.predict_labels(classifier, crops), mean, atol=1e-5)
    one = directly(classifier, crops)[:, 1]
    np.testing.assert_allclose(cnn.predict_labels(classifier, crops, views=1), one, atol=1e-5)


def test_benchmark_asks_both_ways_for_the_same_answers_and_prints_them(tmp_path):
    keras.utils.set_random_seed(0)
    networks = small_networks()
    files = inference_benchmark._write_pictures(tmp_path, 2, 2)
    result = inference_benchmark._side_by_side(files, 2, 2, *networks)
    assert (result["images"], result["sample"], result["least_dice"]) == (4, 2, 1.0)
    assert result["largest_difference"] < 1e-5
    for name in ("ours", "course"):
        assert 0 < result[name]["ratio_low"] <= result[name]["ratio"] <= result[name]["ratio_high"]
    result |= {
        "size": [600, 450], "stages": {"U-Net": 1.234}, "views": {"CNN": {"1": 500.0, "4": 120.4}},
        "process": {"first_seconds": 0.7, "second_seconds": 0.016, "peak_bytes_one": 7e8, "peak_bytes": None},
        "cold_seconds": 5.1, "cold_range": [5.0, 5.6], "cold_processor_seconds": 5.2,
    }  # fmt: skip
    result |= {"benchmark": "inference", "quick": False, "dataset": "synthetic", "cores": 2, "seeds": [0]}
    assert network_report.stem(result) == "inference" and network_report.picture(result) is None
    printed = "\n".join(network_report.as_text(result))
    rates = result["ours"]
    assert f"| {rates['ratio']:.1f} ({rates['ratio_low']:.1f}–{rates['ratio_high']:.1f}) |" in printed
    assert "U-Net 1.23" in printed and "CNN 500 with 1, 120 with 4" in printed and "| 4 and 4 " in printed
    assert "5.1 s (5.0–5.6; 5.2 s of processor time)" in printed
    assert "peak memory" not in printed  # which is measured on Linux only
