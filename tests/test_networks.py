"""Both networks: shapes, losses, training that repeats itself, and models that load without this course's code."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from skinlib import cnn, devices, inference, segmentation, stages, training, unet
from skinlib.dataset import PARTS
from skinlib.files import CourseError
from skinlib.quiet import keras


def some_of_each(data, count, parts):
    return data.select(np.concatenate([np.flatnonzero(data.parts == part)[:count] for part in parts]))


def test_shapes_ranges_and_size():
    segmenter, classifier = unet.build_unet(), cnn.build_cnn()
    pictures = np.random.default_rng(0).integers(0, 256, (2, 180, 180, 3)).astype(np.float32)
    masks = np.asarray(segmenter(pictures[:, :128, :128]))
    answers = np.asarray(classifier(pictures))
    assert masks.shape == (2, 128, 128, 1) and 0 <= masks.min() <= masks.max() <= 1
    assert answers.shape == (2, 2) and answers.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert segmenter.count_params() <= 500_000 and classifier.count_params() <= 500_000
    assert sum(isinstance(layer, keras.layers.Add) for layer in segmenter.layers) == len(unet.RECIPE.filters) - 1
    assert any(isinstance(layer, keras.layers.Dropout) for layer in classifier.layers)


def test_soft_dice_loss_by_hand():
    masks = np.zeros((3, 2, 2, 1), np.float32)
    masks[:, 0, :, 0] = 1  # two of four pixels
    answers = np.stack([masks[0], 1 - masks[0], np.full((2, 2, 1), 0.5, np.float32)])
    losses = np.asarray(unet.soft_dice_loss(masks, answers))
    assert losses == pytest.approx([0, 1 - 1 / 5, 1 - 3 / 5])


def test_augmentation_moves_mask_and_picture_together():
    rows, columns = np.indices((128, 128))
    mask = (rows - 50) ** 2 + (columns - 70) ** 2 < 22**2
    image = np.where(mask[..., None], (90, 60, 40), (220, 180, 160)).astype(np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(20):
        changed, moved = training.augment(image, mask, rng)
        assert changed.shape == (128, 128, 3) and changed.min() >= 0 and changed.max() <= 255
        inside, outside = changed[moved > 0.9], changed[moved < 0.1]
        assert inside.mean() < outside.mean() - 60
        assert 0.4 < moved.mean() / mask.mean() < 2
    assert training.augment(image, None, rng)[1] is None


def test_augmentation_turns_all_ways_and_mirrors():
    picture = np.zeros((64, 64, 3), np.uint8)
    for channel, (row, column) in enumerate([(20, 20), (20, 44), (44, 20)]):
        picture[row - 3 : row + 4, column - 3 : column + 4, channel] = 255
    rng, turns, hands = np.random.default_rng(0), [], []
    for _ in range(60):
        changed, _ = training.augment(picture, None, rng, strength=0)
        red, green, blue = (np.argwhere(changed[..., channel] > 128).mean(axis=0) for channel in range(3))
        turns.append(np.degrees(np.arctan2(*(green - red))))
        hands.append(np.sign(np.linalg.det([green - red, blue - red])))
        assert np.linalg.norm(green - red) == pytest.approx(24, abs=1)
    assert set(hands) == {-1, 1} and 15 < sum(hand > 0 for hand in hands) < 45
    assert np.histogram(turns, 4, (-180, 180))[0].min() > 5


def test_batches_repeat_under_a_seed_and_differ_between_epochs():
    images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3)).astype(np.uint8)
    masks = images[..., 0] > 128
    first, second = (training.Batches(images, masks, 4, 7, training.augment) for _ in range(2))
    assert len(first) == 3 and first[2][0].shape == (2, 32, 32, 3)
    assert all((a == b).all() for a, b in zip(first[1], second[1], strict=True))
    before = first[0][0]
    first.on_epoch_begin()
    assert (before != first[0][0]).any()
    assert sorted(first.order) == list(range(10))
    other = training.Batches(images, masks, 4, 8, training.augment)
    assert (other[0][0] != second[0][0]).any()


def test_a_stream_is_one_epoch_of_batches_and_iterated_again_the_next():
    images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3)).astype(np.uint8)
    given = images, images[..., 0] > 128, 4, 7, training.augment
    streamed, by_hand = (training.Batches(*given) for _ in range(2))
    stream = training._stream(streamed)
    assert len(stream) == 3 and not stream.options().autotune.enabled
    for epoch in (1, 2):
        found = [[part.numpy() for part in batch] for batch in stream]
        by_hand.on_epoch_begin()
        assert streamed.epoch == by_hand.epoch == epoch
        for one, other in zip(found, (by_hand[number] for number in range(3)), strict=True):
            assert all((a == b).all() for a, b in zip(one, other, strict=True))
    keras.utils.set_random_seed(0)
    shuffled = [batch[0].numpy() for batch in training._stream(streamed, in_turn=False)]
    by_hand.on_epoch_begin()
    in_turn = [by_hand[number][0] for number in range(3)]
    places = [next(i for i, a in enumerate(in_turn) if a.shape == b.shape and (a == b).all()) for b in shuffled]
    assert sorted(places) == [0, 1, 2] and places != [0, 1, 2]


def test_diagnoses_are_told_apart_where_they_are_named_and_have_enough_crops():
    learning = cnn.recipe_for(cnn.MANY_LABELS, has_start=True)
    named = [(0, "nv", 30), (0, "bkl", 25), (0, "df", 3), (1, "mel", 8), (1, "bcc", 5), (1, None, 2)]
    rows = [{"part": "train", "label": label, "diagnosis": name} for label, name, count in named for _ in range(count)]
    rows += [{"part": "validation", "label": label, "diagnosis": name} for label, name in ((0, "vasc"), (1, "bcc"))]
    table = pd.DataFrame(rows + [{"part": "validation", "label": 0, "diagnosis": "bkl"}] * 40)
    told_apart, answers = cnn.to_tell_apart(table, learning)
    assert told_apart == (0, 0, 1)  # naevi, keratoses, and one for the malignant, each too rare
    by_name = table.assign(answer=answers, diagnosis=table["diagnosis"].fillna("?")).groupby("diagnosis")["answer"]
    assert by_name.unique().map(list).to_dict() == {
        "nv": [0], "bkl": [1], "df": [0], "vasc": [0], "mel": [2], "bcc": [2], "?": [2],
    }  # fmt: skip
    for plain in (table.drop(columns="diagnosis"), table.assign(diagnosis=""), table.assign(diagnosis="one")):
        told_apart, answers = cnn.to_tell_apart(plain, learning)
        assert told_apart == (0, 1) and (answers == table["label"]).all()
    assert cnn.to_tell_apart(table, cnn.RECIPE)[0] == (0, 1)
    alone = cnn.to_tell_apart(table[table["label"] == 0], learning)
    assert alone[0] == (0, 0, 1) and set(alone[1]) == {0, 1}


def test_what_is_learned_of_diagnoses_is_of_labels_by_hand():
    loss, accuracy = cnn.diagnosis_loss((0, 0, 1))
    answers = np.array([0, 1, 2])
    probabilities = np.array([[0.5, 0.3, 0.2], [0.6, 0.1, 0.3], [0.2, 0.5, 0.3]], np.float32)
    by_hand = [-np.log(0.8 * 0.5), -np.log(0.7 * 0.1), -np.log(0.3 * 0.3)]
    assert np.asarray(loss(answers, probabilities)) == pytest.approx(by_hand, rel=1e-4)
    assert np.asarray(loss(answers[:, None], probabilities)) == pytest.approx(by_hand, rel=1e-4)
    assert np.asarray(accuracy(answers, probabilities)).tolist() == [1, 1, 0]


def test_a_network_of_diagnoses_answers_with_labels(small_data, monkeypatch, tmp_path):
    data = some_of_each(small_data, 40, ("train", "validation"))
    crops = segmentation.crop_lesions(data.images, data.masks)
    table = data.table[["diagnosis"]].assign(part=data.parts, label=data.labels)
    monkeypatch.setattr(cnn, "LEAST_OF_A_DIAGNOSIS", 1)
    training.seed_everything(0)
    segmenter = unet.build_unet()
    for recipe in (cnn.RECIPE._replace(diagnoses=True), cnn.recipe_for(cnn.MANY_LABELS, has_start=True)):
        told_apart, _ = cnn.to_tell_apart(table, recipe)
        assert len(told_apart) > 2
        model, history = cnn.train_cnn(crops, table, 2, 0, recipe=recipe, start=segmenter)
        assert {"accuracy", "val_accuracy"} <= history.keys()  # which lesson 04 draws
        fine = inference.answers(keras.Model(model.input, model.get_layer("diagnosis").output), crops[:6])
        assert fine.shape == (6, len(told_apart)) and fine.sum(axis=1) == pytest.approx(np.ones(6), abs=1e-5)
        malignant = fine[:, np.array(told_apart) == 1].sum(axis=1)
        assert cnn.predict_labels(model, crops[:6], views=1) == pytest.approx(malignant, abs=1e-6)
        training.save_model(model, tmp_path / "cnn.keras", {}, history)
        stored = keras.models.load_model(tmp_path / "cnn.keras")
        assert cnn.predict_labels(stored, crops[:6], views=1) == pytest.approx(malignant, abs=1e-6)
        # Another CNN, of other diagnoses or none, can start from what it has learned to see.
        other = cnn.build_cnn()
        cnn.take(other, model)
        looks = (network.get_layer(cnn.DESCRIPTION).get_weights() for network in (other, model))
        assert all((ours == theirs).all() for ours, theirs in zip(*looks, strict=True))


def test_class_weights_make_classes_count_the_same():
    labels = np.array([0] * 8 + [1] * 2)
    weights = cnn.class_weights(labels)
    assert weights[labels == 0].sum() == pytest.approx(weights[labels == 1].sum())
    assert weights.sum() == pytest.approx(10)
    assert (cnn.class_weights(np.zeros(5, int)) == 1).all()


@pytest.mark.parametrize("network, build", [(unet, unet.build_unet), (cnn, cnn.build_cnn)])
def test_every_knob_takes_back_one_choice(network, build):
    for name, change in network.KNOBS.items():
        # Of the CNN, one choice stands only where it has many crops to learn from.
        full = network.RECIPE._replace(diagnoses=True) if "diagnoses" in change else network.RECIPE
        recipe = full._replace(**change)
        assert all(getattr(full, field) != value for field, value in change.items()), name
        size = build(recipe).input_shape[1]
        assert build(recipe).output_shape in ((None, size, size, 1), (None, 2)), name


def test_a_network_without_normalisation_has_biases_instead():
    bare = unet.build_unet(unet.RECIPE._replace(batch_normalisation=False))
    found = devices.all_layers(bare)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in found)
    kernels = [layer for layer in found if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size != (1, 1)]
    assert len(kernels) == 11 and all(layer.use_bias for layer in kernels)


def test_the_cnn_starts_from_the_unet(small_data):
    data = some_of_each(small_data, 12, ("train", "validation"))
    crops = segmentation.crop_lesions(data.images, data.masks)
    table = pd.DataFrame({"part": data.parts, "label": data.labels})
    training.seed_everything(0)
    segmenter = unet.build_unet()
    names = [layer.name for layer in segmenter.layers if layer.weights]

    def trained(**change):
        model, _ = cnn.train_cnn(crops, table, 1, 0, recipe=cnn.RECIPE._replace(**change), start=segmenter)
        look = model.get_layer("description")
        pairs = [
            pair
            for name in names
            for pair in zip(look.get_layer(name).get_weights(), segmenter.get_layer(name).get_weights(), strict=True)
        ]
        assert len(pairs) == 11 * 5 + 2 + 2  # convolutions with their normalisation, two narrow ones, and the score
        return model, [(a == b).all() for a, b in pairs]

    model, alike = trained()
    assert all(alike)
    # What the small layer gets to weigh of the training crops has mean 0 and spread 1.
    model, alike = trained(turns=False, changes=0.0)
    standardised = model.get_layer("standardised")
    numbers = inference.answers(keras.Model(model.input, standardised.input), crops[data.parts == "train"])
    assert all(alike) and not standardised.trainable and len(model.trainable_weights) == 4
    for kept, measured in zip(standardised.get_weights(), (numbers.mean(axis=0), numbers.var(axis=0)), strict=True):
        np.testing.assert_allclose(kept, measured, rtol=0.02, atol=1e-3)  # shrunk crops are rounded to whole values
    assert not any(trained(frozen=False)[1])
    assert not any(trained(start=False, frozen=False)[1])
    segmenter = unet.build_unet(unet.RECIPE._replace(filters=(16, 32, 48)))
    with pytest.raises(CourseError, match="does not fit into the CNN: train it anew"):
        cnn.train_cnn(crops, table, 1, 0, start=segmenter)


def test_a_frozen_unet_is_asked_once_of_changed_crops(small_data, monkeypatch):
    data = some_of_each(small_data, 12, ("train", "validation"))
    crops = segmentation.crop_lesions(data.images, data.masks)
    table = pd.DataFrame({"part": data.parts, "label": data.labels})
    training.seed_everything(0)
    seen = []

    def fake(model, batches, validation, *more, **options):
        seen.append((model, batches, validation))
        return {"loss": [1.0]}

    monkeypatch.setattr(cnn, "train", fake)
    model, _ = cnn.train_cnn(crops, table, 1, 0, start=unet.build_unet())
    head, batches, validation = seen.pop()
    count = (data.parts == "train").sum()
    assert head.count_params() < model.count_params() and batches.images.shape == (count, cnn.RECIPE.versions, 1440)
    assert len({versions.tobytes() for versions in batches.images[0]}) == cnn.RECIPE.versions
    assert batches[0][0].shape == (min(count, batches.batch_size), 1440)
    # The small layer alone says of the numbers what the whole network says of the crops.
    of_numbers = np.asarray(head(validation.images))[:, 1]
    of_crops = cnn.predict_labels(model, crops[data.parts == "validation"], views=1)
    np.testing.assert_allclose(of_numbers, of_crops, atol=5e-3)  # shrunk crops are rounded to whole values


def test_what_the_small_layer_learns_is_in_the_network(small_data):
    data = some_of_each(small_data, 24, ("train", "validation"))
    crops = segmentation.crop_lesions(data.images, data.masks)
    table = pd.DataFrame({"part": data.parts, "label": data.labels})
    training.seed_everything(0)
    recipe = cnn.RECIPE._replace(intercept=False)
    model, history = cnn.train_cnn(crops, table, 6, 0, recipe=recipe, start=unet.build_unet())
    assert history["loss"][-1] < history["loss"][0]
    chosen = data.parts == "validation"
    probabilities = cnn.predict_labels(model, crops[chosen], views=1)
    right = np.where(data.labels[chosen] == 1, probabilities, 1 - probabilities)
    weights = cnn.class_weights(data.labels[chosen])
    assert np.mean(-np.log(right) * weights) == pytest.approx(history["val_loss"][-1], rel=0.02)  # the last is kept


def test_the_validation_part_sets_the_intercept(small_data):
    """Both classes are believed alike there, and nothing else changes: the ranking stays."""
    data = some_of_each(small_data, 24, ("train", "validation"))
    crops = segmentation.crop_lesions(data.images, data.masks)
    table = pd.DataFrame({"part": data.parts, "label": data.labels})
    chosen = data.parts == "validation"
    labels, said = data.labels[chosen], {}
    for intercept in (False, True):
        training.seed_everything(0)
        recipe = cnn.RECIPE._replace(intercept=intercept)
        model, _ = cnn.train_cnn(crops, table, 3, 0, recipe=recipe, start=unet.build_unet())
        said[intercept] = cnn.predict_labels(model, crops[chosen], views=1)
    believed = {key: (each[labels == 1].mean(), 1 - each[labels == 0].mean()) for key, each in said.items()}
    assert believed[True][0] == pytest.approx(believed[True][1], abs=5e-3)  # shrunk crops are rounded to whole values
    assert abs(believed[False][0] - believed[False][1]) > 0.02
    odds = {key: np.log(each / (1 - each)) for key, each in said.items()}
    np.testing.assert_allclose(odds[True] - odds[False], (odds[True] - odds[False]).mean(), atol=1e-4)


def test_the_intercept_of_diagnoses_and_of_classes_that_are_missing():
    training.seed_everything(0)
    told_apart = (0, 0, 1, 1, 0)
    learner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, activation="softmax")])
    inputs = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    targets = np.arange(100) % 5
    before = np.asarray(learner(inputs))
    shift = cnn.set_intercept(learner, inputs, targets, told_apart)
    after, malignant = np.asarray(learner(inputs)), np.array(told_apart, bool)
    p, label = after[:, malignant].sum(axis=1), malignant[targets]
    assert p[label].mean() == pytest.approx(1 - p[~label].mean(), abs=1e-5) and abs(shift) > 0.05
    # Within a label, the shares of the diagnoses stay.
    for one in (malignant, ~malignant):
        shares = [each[:, one] / each[:, one].sum(axis=1, keepdims=True) for each in (before, after)]
        np.testing.assert_allclose(*shares, rtol=1e-4)
    weights = learner.get_weights()
    assert cnn.set_intercept(learner, inputs, np.zeros(100, int), told_apart) == 0
    # Sure of everything, it is still finite.
    learner.layers[-1].set_weights([weights[0] * 1e4, weights[1]])
    assert np.isfinite(cnn.set_intercept(learner, inputs, targets, told_apart))


def test_the_whole_image_may_lie_behind_the_crop(small_data, tmp_path, monkeypatch):
    """Frozen or not, each of the two is described by itself, and changed by itself."""
    data = some_of_each(small_data, 12, ("train", "validation"))
    both = segmentation.crop_lesions(data.images, data.masks, "crop and whole image")
    table = pd.DataFrame({"part": data.parts, "label": data.labels})
    training.seed_everything(0)
    segmenter, seen, really = unet.build_unet(), [], cnn.train
    monkeypatch.setattr(cnn, "train", lambda *given, **options: seen.append(given) or really(*given, **options))
    for change in ({}, cnn.LEARNS_ON):
        model, _ = cnn.train_cnn(both, table, 1, 0, recipe=cnn.RECIPE._replace(**change), start=segmenter)
        assert model.input_shape == (None, 180, 180, 6) and model.count_params() < 500_000
        said = cnn.predict_labels(model, both)
        model.save(tmp_path / "two.keras")
        stored = keras.models.load_model(tmp_path / "two.keras", compile=False)
        np.testing.assert_allclose(cnn.predict_labels(stored, both), said, atol=1e-6)
        for other in (both[..., [*range(3), *range(3)]], both[..., [*range(3, 6), *range(3, 6)]]):
            assert np.abs(cnn.predict_labels(model, other) - said).max() > 1e-4  # it looks at either
    numbers, pictures = (given[1].images for given in seen)
    assert numbers.shape[1:] == (cnn.RECIPE.versions, 2880) and pictures.shape[1:] == (128, 128, 6)
    # What is said of one look does not depend on the other.
    look = model.get_layer("description")
    of_crops, of_wholes = (
        cnn._described(look, part, None, 1, 0)[:, 0] for part in (pictures[..., :3], pictures[..., 3:])
    )
    np.testing.assert_array_equal(cnn._described(look, pictures, None, 1, 0)[:, 0], np.hstack([of_crops, of_wholes]))
    alike = np.concatenate([pictures[0, ..., :3]] * 2, axis=-1)
    changed, _ = cnn._of_every_look(training.augment)(alike, None, np.random.default_rng(0))
    assert changed.shape == alike.shape and (changed[..., :3] != changed[..., 3:]).any()


def test_a_part_without_crops_is_told_at_once(monkeypatch):
    monkeypatch.setattr(cnn, "build_cnn", lambda recipe: pytest.fail("nothing should be built"))
    table = pd.DataFrame({"part": ["train"] * 4, "label": [0, 1, 0, 1]})
    with pytest.raises(CourseError, match="this part of the data set is empty"):
        cnn.train_cnn(np.zeros((4, 180, 180, 3), np.uint8), table, 1, 0)


def test_the_cnn_starts_from_another_cnn(small_data, monkeypatch):
    data = some_of_each(small_data, 12, ("train", "validation"))
    crops = segmentation.crop_lesions(data.images, data.masks)
    table = pd.DataFrame({"part": data.parts, "label": data.labels})
    monkeypatch.setattr(cnn, "train", lambda *_, **__: {"loss": [1.0]})
    training.seed_everything(0)
    learned = cnn.build_cnn()
    model, _ = cnn.train_cnn(crops, table, 1, 0, start=learned)
    look = cnn.DESCRIPTION
    for ours, theirs in zip(model.get_layer(look).get_weights(), learned.get_layer(look).get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # What it made of its own pictures stays behind.
    assert (model.get_layer("weighed").get_weights()[0] != learned.get_layer("weighed").get_weights()[0]).any()


def test_only_knobs_that_change_something_are_taken_back():
    left_out = cnn.KNOBS.keys() - cnn.knobs_for(cnn.RECIPE).keys()
    assert left_out == {"benign and malignant alone", "AdamW alone"}  # no convolution learns
    left_out = cnn.KNOBS.keys() - cnn.knobs_for(cnn.recipe_for(cnn.MANY_LABELS, has_start=True)).keys()
    best_epoch = {"the best epoch by validation", "the intercept as trained"}
    assert left_out == {"the U-Net learns on", "one version of each crop"} | best_epoch
    left_out = cnn.KNOBS.keys() - cnn.knobs_for(cnn.recipe_for(10, has_start=False)).keys()
    assert left_out == {"random weights to start with", "the U-Net learns on", "one version of each crop"} | best_epoch


def test_the_recipe_follows_the_number_of_labels():
    few, many = cnn.recipe_for(cnn.MANY_LABELS - 1, has_start=True), cnn.recipe_for(cnn.MANY_LABELS, has_start=True)
    assert json.dumps(cnn.recipe_for(np.int64(5), has_start=True)._asdict())  # as a checkpoint keeps it
    assert few == cnn.RECIPE and many == cnn.RECIPE._replace(**cnn.LEARNING) and not many.frozen
    # Random weights that stay as they are would describe nothing.
    assert cnn.recipe_for(10, has_start=False) == many._replace(start=False)
    assert cnn.default_epochs(False, few) > cnn.default_epochs(False, many) > cnn.default_epochs(True)


def test_patterns_are_counted_inside_the_lesion_and_outside():
    rng = np.random.default_rng(0)
    level = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
    share = np.zeros((2, 8, 8, 1), np.float32)
    share[0, 2:6, 3:7] = 1  # of the second picture, nothing counts
    mean, spread = (np.asarray(found) for found in cnn._mean_and_spread(level, share))
    inside = level[0, 2:6, 3:7].reshape(16, 3)
    by_hand = inside.sum(axis=0) / (16 + 0.64)
    np.testing.assert_allclose(mean[0], by_hand, rtol=1e-5)
    deviation = np.sqrt(np.square(inside - by_hand).sum(axis=0) / (16 + 0.64) + 1e-5)
    np.testing.assert_allclose(spread[0], deviation, rtol=1e-5)
    assert np.abs(mean[1]).max() == 0 and spread[1].max() < 0.004


def test_the_numbers_tell_lesion_from_skin():
    """A pattern outside the lesion changes what is said of the skin alone, once the U-Net says where the lesion is."""
    whole, parted = cnn._description(cnn.RECIPE._replace(lesion_and_skin=False)), cnn._description(cnn.RECIPE)
    filters = sum(unet.RECIPE.filters) + sum(unet.RECIPE.filters[:-1])
    assert whole.output_shape == (None, 3 * filters) and parted.output_shape == (None, 5 * filters)
    alone = cnn._description(cnn.RECIPE._replace(every_level=False))
    assert alone.output_shape == (None, 5 * unet.RECIPE.filters[-1])
    weights = parted.get_layer("lesion_score").get_weights()
    parted.get_layer("lesion_score").set_weights([np.zeros_like(weights[0]), np.full_like(weights[1], -30)])
    numbers = np.asarray(parted(np.random.default_rng(0).uniform(0, 255, (2, 128, 128, 3))))
    width, step = unet.RECIPE.filters[0], 5 * unet.RECIPE.filters[0]
    first_level = numbers[:, :step].reshape(2, 5, width)  # no lesion anywhere: inside, nothing is counted
    assert np.abs(first_level[:, [0, 2]]).max() < 1e-5 < np.abs(first_level[:, 3]).max()


@pytest.mark.parametrize("build", [unet.build_unet, cnn.build_cnn])
def test_a_summary_fits_on_one_screen(build):
    lines = []
    build().summary(print_fn=lambda line, **_: lines.append(line), line_length=100)
    assert 15 < len("".join(lines).splitlines()) < 50


def test_a_recipe_reaches_the_training(small_data, monkeypatch):
    seen = []

    def fake(model, batches, validation, epochs, loss, metrics, *more, **options):
        seen.append((batches, loss, options))
        return {"loss": [1.0]}

    monkeypatch.setattr(unet, "train", fake)
    monkeypatch.setattr(cnn, "train", fake)
    recipe = unet.RECIPE._replace(turns=False, changes=0, dice_weight=0, cosine_schedule=False, muon=False)
    unet.train_unet(small_data, 1, 0, recipe=recipe, seconds=7)
    batches, loss, options = seen.pop()
    assert batches.augment is None and not options["cosine"] and not options["muon"] and options["seconds"] == 7
    assert not options.get("last_epoch")
    masks, unsure = np.ones((1, 4, 4, 1), np.float32), np.full((1, 4, 4, 1), 0.5, np.float32)
    assert float(loss(masks, unsure)[0]) == pytest.approx(np.log(2))
    assert float(unet.segmentation_loss(masks, unsure)[0]) == pytest.approx(np.log(2) + 1 - 17 / 25)
    table = pd.DataFrame({"part": small_data.parts, "label": small_data.labels})
    crops = segmentation.crop_lesions(small_data.images, small_data.masks)
    cnn.train_cnn(crops, table, 1, 0, recipe=cnn.RECIPE._replace(class_weights=False, cosine_schedule=False))
    batches, _, options = seen.pop()
    assert batches.weights is None and batches.augment is not None and not options["cosine"] and options["muon"]
    assert options["last_epoch"]
    cnn.train_cnn(crops, table, 1, 0, recipe=cnn.RECIPE._replace(last_epoch=False))
    assert not seen.pop()[2]["last_epoch"]


def test_augmentation_without_turns_only_shifts_zooms_and_recolours():
    assert training.augmentation(turns=False, changes=0) is None
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[10:20, 10:20] = 255
    rng = np.random.default_rng(0)
    for _ in range(20):
        changed, _ = training.augmentation(turns=False, changes=1)(picture, None, rng)
        assert (np.argwhere(changed[..., 0] > 128).mean(axis=0) < 32).all()


TRAIN_TWICE = """
import numpy as np
from skinlib import cnn, dataset, training, unet
from skinlib.files import digest
import pandas as pd
data = dataset.load_dataset("synthetic", {folder!r}, quick=True)
data = data.select(np.concatenate([np.flatnonzero(data.parts == p)[:24] for p in ("train", "validation")]))
training.seed_everything(3)
model, history = unet.train_unet(data, 2, 3)
table = pd.DataFrame({{"part": data.parts, "label": data.labels}})
crops = dataset.resize_images(data.images, 180)
training.seed_everything(3)
network, _ = cnn.train_cnn(crops, table, 2, 3, start=model)
print(digest(*model.get_weights()), digest(*network.get_weights()), history["loss"])
"""


def test_training_gives_the_same_weights_in_two_processes(tmp_path):
    program = TRAIN_TWICE.format(folder=str(tmp_path))
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout) > 60


def test_training_never_reads_the_test_part(small_data, monkeypatch):
    asked = []
    part = type(small_data).part
    monkeypatch.setattr(type(small_data), "part", lambda self, name: asked.append(name) or part(self, name))
    monkeypatch.setattr(unet, "train", lambda *a, **k: {})
    unet.train_unet(small_data, 1, 0)
    assert set(asked) == {"train", "validation"}


def test_training_keeps_the_best_epoch_and_lowers_the_loss(small_data):
    data = some_of_each(small_data, 32, ("train", "validation"))
    training.seed_everything(0)
    model, history = unet.train_unet(data, 3, 0)
    assert history["loss"][-1] < history["loss"][0]
    validation = data.part("validation")
    images = unet.resize_images(validation.images, 128)
    masks = unet.resize_masks(validation.masks, 128)[..., None].astype(np.float32)
    loss = np.mean(unet.segmentation_loss(masks, unet.predict_masks(model, images)[..., None]))
    assert loss == pytest.approx(min(history["val_loss"]), rel=0.02)


def test_stored_models_load_without_the_course(tmp_path, small_data):
    """In a process that cannot import skinlib, and with Keras's plain load_model."""
    segmenter = unet.build_unet()
    segmenter.compile("adam", loss=unet.segmentation_loss)
    training.save_model(segmenter, tmp_path / unet.UNET_FILE, {"seed": 0}, {"loss": [1.0]})
    training.save_model(cnn.build_cnn(), tmp_path / cnn.CNN_FILE, {"seed": 0}, {"loss": [1.0]})
    files = [str(path) for path in sorted(tmp_path.glob("*.keras"))]
    program = (
        "import sys; sys.modules['skinlib'] = None; import keras; "
        f"print(*[keras.models.load_model(file).count_params() for file in {files!r}])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == [str(cnn.build_cnn().count_params()), str(segmenter.count_params())]


def test_a_model_of_other_data_or_half_written_is_not_taken(tmp_path):
    path = tmp_path / "model.keras"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert training.load_model(path, {"seed": 0}) is None
    training.save_model(model, path, {"seed": 0}, {"loss": [1.0]})
    stored, history = training.load_model(path, {"seed": 0})
    assert history == {"loss": [1.0]}
    assert all((a == b).all() for a, b in zip(stored.get_weights(), model.get_weights(), strict=True))
    assert training.load_model(path, {"seed": 1}) is None
    record = path.with_suffix(".json").read_text()
    path.with_suffix(".json").unlink()
    assert training.load_model(path, {"seed": 0}) is None
    path.with_suffix(".json").write_text(record)
    assert training.load_model(path, {"seed": 0})
    path.with_suffix(".json").write_text(record.replace('"weights": "', '"weights": "0'))  # another model's record
    assert training.load_model(path, {"seed": 0}) is None
    path.with_suffix(".json").write_text(record)
    path.write_bytes(path.read_bytes()[:-100])
    assert training.load_model(path, {"seed": 0}) is None


def test_damaged_and_missing_models_are_named_in_one_line(tmp_path):
    with pytest.raises(CourseError, match="there is no model"):
        training.open_model(tmp_path / "nothing.keras")
    (tmp_path / "bad.keras").write_bytes(b"not a model")
    with pytest.raises(CourseError, match=r"bad\.keras is not a readable Keras model") as error:
        training.open_model(tmp_path / "bad.keras")
    assert "\n" not in str(error.value)


def test_a_failing_save_leaves_nothing_to_trust(tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    training.save_model(model, path, {"seed": 0}, {})

    def full(self, target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(OSError, match="No space"):
        training.save_model(model, path, {"seed": 1}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["model.keras"]
    assert training.load_model(path, {"seed": 1}) is None


def test_stages_load_what_is_there_and_make_what_is_not(small_data, tmp_path, monkeypatch, capsys):
    data = some_of_each(small_data, 12, PARTS)
    trained, ready = [], ["The U-Net is ready.", "The crops are ready.", "The CNN is ready."]

    def instead(name, build):
        return lambda *_, **__: trained.append(name) or (build(), {"loss": [1.0]})

    monkeypatch.setattr(unet, "train_unet", instead("unet", unet.build_unet))
    monkeypatch.setattr(cnn, "train_cnn", instead("cnn", cnn.build_cnn))
    for _ in range(2):
        segmenter = stages.ready_unet(data, tmp_path, 0, True)
        crops, table = stages.ready_crops(data, segmenter, tmp_path)
        stages.ready_cnn(crops, table, segmenter, tmp_path, 0, True)
    assert trained == ["unet", "cnn"]
    assert capsys.readouterr().out.split("\n") == [*ready * 2, ""]
    record = json.loads((tmp_path / "models" / "unet_model_lightweight.json").read_text())
    assert record["made_from"]["dataset"] == "synthetic" and record["made_from"]["seed"] == 0
    # Another seed, other pictures, and a run that was not quick, are other models.
    stages.ready_unet(data, tmp_path, 1, True)
    stages.ready_unet(data.select(np.arange(20)), tmp_path, 1, True)
    stages.ready_unet(data.select(np.arange(20)), tmp_path, 1, False)
    assert trained == ["unet", "cnn", "unet", "unet", "unet"]
    stages.ready_cnn(crops, table.assign(diagnosis="another"), segmenter, tmp_path, 0, True)
    assert trained[5:] == ["cnn"]


def test_predictions_do_not_depend_on_the_batch(small_data):
    model, network = unet.build_unet(), cnn.build_cnn()
    pictures = small_data.images[:5]
    one_by_one = np.concatenate([unet.predict_masks(model, pictures[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(unet.predict_masks(model, pictures), one_by_one, atol=1e-5)
    crops = unet.resize_images(pictures, 180)
    one_by_one = np.concatenate([cnn.predict_labels(network, crops[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(cnn.predict_labels(network, crops), one_by_one, atol=1e-5)
    # With four views, the mirror image of a crop is the same question.
    np.testing.assert_allclose(cnn.predict_labels(network, crops[:, ::-1]), one_by_one, atol=1e-5)
    assert unet.predict_masks(model, pictures[:0]).shape == (0, 128, 128)
    assert len(cnn.predict_labels(network, crops[:0])) == 0


def test_cnn_learns_from_train_and_validation_rows_only(monkeypatch):
    seen = []
    monkeypatch.setattr(cnn, "train", lambda model, *batches, **k: seen.extend(batches[:2]) or {})
    parts = ["train"] * 4 + ["validation"] * 2 + ["test"] * 3
    table = pd.DataFrame({"part": parts, "label": [0, 1, 0, 0, 1, 0, 1, 1, 0]})
    crops = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((1, 180, 180, 3), np.uint8)
    cnn.train_cnn(crops, table, 1, 0)
    assert sorted(seen[0].images[:, 0, 0, 0]) == [0, 1, 2, 3] and sorted(seen[1].images[:, 0, 0, 0]) == [4, 5]
