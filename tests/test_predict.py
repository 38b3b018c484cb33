"""Both stages on files: masks, overlays, the CSV, and a broken picture among good ones."""

import csv

import numpy as np
import pytest

from skinlib import pixels, predict, synthetic, training
from skinlib.cnn import CNN_FILE, build_cnn
from skinlib.files import CourseError, read_image, read_mask, write_image
from skinlib.predict import Prediction
from skinlib.quiet import keras
from skinlib.unet import UNET_FILE, build_unet


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


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve painted lesions of several sizes and formats; the third and the last cannot be read."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for number in range(12):
        image = synthetic.make_image(number, 160 + 20 * number).image[: 150 + 10 * number]
        paths.append(folder / f"{number:02}{('.jpg', '.png')[number % 2]}")
        write_image(paths[-1], image)
    paths[2].write_bytes(b"")
    paths[11].write_bytes(paths[1].read_bytes()[:100])
    return paths


@pytest.fixture(scope="module")
def untrained():
    """Networks whose answers differ from picture to picture, to the last bit."""
    keras.utils.set_random_seed(0)
    unet, cnn = build_unet(), build_cnn()
    unet.get_layer("lesion_score").set_weights([w * 20 for w in unet.get_layer("lesion_score").get_weights()])
    return unet, cnn


@pytest.mark.parametrize("batch", [3, 32])
def test_a_pipeline_answers_as_one_picture_at_a_time_does(pictures, untrained, monkeypatch, batch):
    monkeypatch.setattr(predict, "BATCH", batch)
    found = list(predict.predict_pictures(pictures, *untrained))
    assert [isinstance(one, CourseError) for one in found] == [number in (2, 11) for number in range(12)]
    assert "02.jpg is empty" in str(found[2]) and "11.png" in str(found[11])
    answers = set()
    for path, one in zip(pictures, found, strict=True):
        if isinstance(one, Prediction):
            alone = predict.predict_image(read_image(path), *untrained)
            assert one.mask.shape == read_image(path).shape[:2] and (one.mask == alone.mask).all()
            assert one.malignant_probability == pytest.approx(alone.malignant_probability, abs=1e-6)
            answers.add(one.malignant_probability)
    assert len(answers) == 10


def test_only_unreadable_files_and_none_at_all(pictures, untrained):
    assert all(isinstance(one, CourseError) for one in predict.predict_pictures([pictures[2]] * 5, *untrained))
    assert list(predict.predict_pictures([], *untrained)) == []


def test_rows_masks_and_overlays_are_those_of_each_picture(pictures, models, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "BATCH", 3)
    monkeypatch.setattr(predict, "LARGE", 200 * 200 * 3)  # some are kept for the overlay and some read again
    predict.predict_files(pictures[::-1], models, tmp_path / "out")
    rows = read_table(tmp_path / "out")
    assert [row["image"] for row in rows] == [path.name for path in pictures[::-1]]
    networks = predict.load_models(models)
    for path, row in zip(pictures[::-1], rows, strict=True):
        written = [tmp_path / "out" / "masks" / f"{path.stem}.png"]
        written.append(tmp_path / "out" / "classified_results" / f"{path.stem}.jpg")
        assert [file.is_file() for file in written] == [row["status"] == "ok"] * 2
        if row["status"] == "ok":
            image = read_image(path)
            alone = predict.predict_image(image, *networks)
            assert (read_mask(written[0]) == alone.mask).all()
            write_image(tmp_path / "expected.jpg", predict.draw_overlay(image, alone))
            assert written[1].read_bytes() == (tmp_path / "expected.jpg").read_bytes()
            assert float(row["lesion_area_fraction"]) == round(float(alone.mask.mean()), 4)


def test_only_so_many_pictures_are_in_memory(tmp_path, untrained, monkeypatch, disc):
    monkeypatch.setattr(predict, "BATCH", 4)
    write_image(tmp_path / "spot.png", disc[0])
    begun = []
    monkeypatch.setattr(predict, "read_image", lambda path: begun.append(path) or disc[0])
    found = predict.predict_pictures([tmp_path / "spot.png"] * 100, *untrained)
    for taken in range(1, 30):
        next(found)
        assert len(begun) <= taken + 3 * 4 + 1
    found.close()
    assert len(begun) < 50


def test_a_full_disk_or_ctrl_c_ends_it_with_nothing_half_written(pictures, models, tmp_path, monkeypatch):
    for error in (OSError("no space left"), KeyboardInterrupt()):

        def fails(*_, error=error, **__):
            raise error

        out = tmp_path / type(error).__name__
        with monkeypatch.context() as patch:
            patch.setattr(predict, "draw_overlay" if isinstance(error, OSError) else "predict_labels", fails)
            with pytest.raises(type(error)):
                predict.predict_files(pictures, models, out)
        assert not (out / predict.RESULTS_FILE).exists()
        assert not [file for file in out.rglob("*") if file.is_file() and file.name.startswith(".")]
        assert all(read_mask(file).any() for file in out.glob("masks/*.png"))


def test_work_in_parallel_keeps_its_order_and_stays_a_little_ahead():
    pulled = []

    def items():
        for number in range(50):
            pulled.append(number)
            yield number

    done = pixels.in_parallel(lambda number: number * 2, items(), ahead=5)
    assert next(done) == 0 and len(pulled) == 6
    assert list(done) == list(range(2, 100, 2))
