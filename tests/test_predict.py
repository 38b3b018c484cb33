"""Both stages on files: masks, overlays, the CSV, and a broken picture among good ones."""

import csv

import numpy as np
import pytest

from skinlib import predict, training
from skinlib.cnn import CNN_FILE, build_cnn
from skinlib.files import CourseError, read_image, read_mask, write_image
from skinlib.predict import Prediction
from skinlib.quiet import keras
from skinlib.unet import UNET_FILE


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A 'U-Net' that calls dark pixels lesion and a 'CNN' that always answers 0.8: enough to check the plumbing."""
    folder = tmp_path_factory.mktemp("models")
    picture = keras.Input((128, 128, 3))
    brightness = keras.layers.Conv2D(1, 1, activation="sigmoid", name="dark")
    segmenter = keras.Model(picture, brightness(picture))
    brightness.set_weights([np.full((1, 1, 3, 1), -0.1, np.float32), np.array([36.0], np.float32)])
    training.save_model(segmenter, folder / UNET_FILE, {}, {})
    classifier = build_cnn()
    kernel, bias = classifier.layers[-1].get_weights()
    classifier.layers[-1].set_weights([kernel * 0, np.array([0, np.log(4)], bias.dtype)])
    training.save_model(classifier, folder / CNN_FILE, {}, {})
    return folder


def read_table(folder):
    with (folder / "to_predict_results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_prediction_says_label_tag_and_confidence():
    benign, malignant = (Prediction(np.zeros((4, 4), bool), p) for p in (0.2, 0.5))
    assert (benign.label, benign.tag, benign.confidence) == ("Benign", "No Cancer", 0.8)
    assert (malignant.label, malignant.tag, malignant.confidence) == ("Malignant", "Skin Cancer", 0.5)


def test_files_are_classified_and_written(tmp_path, models, disc):
    image, mask = disc
    write_image(tmp_path / "in" / "spot.png", image)
    table = predict.predict_files(predict.find_images([tmp_path / "in"]), models, tmp_path / "out")
    (row,) = read_table(tmp_path / "out")
    assert list(row) == [
        "image", "status", "label", "malignant_probability", "confidence", "tag", "lesion_area_fraction", "message",
    ]  # fmt: skip
    assert (row["image"], row["status"], row["label"], row["tag"]) == ("spot.png", "ok", "Malignant", "Skin Cancer")
    assert float(row["malignant_probability"]) == pytest.approx(0.8, abs=1e-4)
    assert float(row["lesion_area_fraction"]) == pytest.approx(mask.mean(), rel=0.1)
    found = read_mask(tmp_path / "out" / "masks" / "spot.png")
    assert found.shape == image.shape[:2]
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.93
    overlay = read_image(tmp_path / "out" / "classified_results" / "spot.jpg")
    assert overlay.shape[1] == 120 and overlay.shape[0] > 90
    assert len(table) == 1


def test_overlay_draws_outline_tint_and_a_bar(disc):
    image, mask = disc
    drawn = predict.draw_overlay(image, Prediction(mask, 0.9))
    height = image.shape[0]
    inside, outside = (45, 60), (5, 5)
    assert (drawn[outside] == image[outside]).all()
    assert drawn[inside][0] > image[inside][0] and abs(int(drawn[inside][2]) - 32) < 3
    assert (np.abs(drawn[:height].astype(int) - (255, 210, 0)).max(axis=2) < 60).sum() > 80
    assert drawn[height:].max() > 200 and (drawn[-1, -1] == 30).all()
    assert (image == disc[0]).all()


def test_a_broken_picture_is_a_row_with_its_reason(tmp_path, models, disc):
    write_image(tmp_path / "good.png", disc[0])
    (tmp_path / "bad.jpg").write_bytes(b"")
    predict.predict_files([tmp_path / "bad.jpg", tmp_path / "good.png"], models, tmp_path / "out")
    bad, good = read_table(tmp_path / "out")
    assert (bad["status"], good["status"]) == ("error", "ok")
    assert "0 bytes" in bad["message"] and bad["label"] == ""


def test_a_picture_without_lesion_says_so(tmp_path, models):
    write_image(tmp_path / "plain.png", np.full((50, 70, 3), 230, np.uint8))
    predict.predict_files([tmp_path / "plain.png"], models, tmp_path / "out")
    (row,) = read_table(tmp_path / "out")
    assert row["status"] == "ok" and float(row["lesion_area_fraction"]) == 0 and "no lesion" in row["message"]


def test_same_names_in_two_folders_do_not_overwrite_each_other(tmp_path, models, disc):
    for name in ("a/spot.png", "b/spot.png", "b/spot.jpg"):
        write_image(tmp_path / name, disc[0])
    images = predict.find_images([tmp_path / "a", tmp_path / "b"])
    predict.predict_files(images, models, tmp_path / "out")
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 3


def test_missing_pictures_and_models_are_named(tmp_path, models, disc):
    with pytest.raises(CourseError, match="no file or folder"):
        predict.find_images([tmp_path / "nothing.jpg"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CourseError, match=r"no \.jpg or \.png image"):
        predict.find_images([tmp_path / "empty"])
    with pytest.raises(CourseError, match="there is no folder"):
        predict.load_models(tmp_path / "models")
    with pytest.raises(CourseError, match="there is no model"):
        predict.load_models(tmp_path / "empty")
