"""The benchmarks of the networks: what they count, which images they test, what they keep, and what README shows."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from skinlib import (
    benchmark,
    cnn,
    network_benchmark,
    network_report,
    plain,
    plots,
    predict,
    processes,
    segmentation,
    synthetic,
    training,
    trial,
    unet,
)
from skinlib.__main__ import main
from skinlib.dataset import folds, from_synthetic, groups_on_both_sides
from skinlib.files import CourseError
from skinlib.quiet import keras
from tools import links

layers = keras.layers


# -- the plain recipe, and what a network costs ----------------------------------------------------------------------


def test_operations_by_hand():
    inputs = keras.Input((8, 6, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same")(inputs)  # 4×3 positions, 3·3·3·4 weights
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, padding="same")(x)  # 4×3 positions, 3·3·4 weights
    x = layers.Flatten()(x)  # 48
    x = layers.Dense(5)(x)
    model = keras.Model(inputs, x)
    assert trial.count_macs(model) == 12 * 108 + 12 * 36 + 48 * 5
    nested = keras.Sequential([keras.Input((8, 6, 3)), model, layers.Dense(2)])
    assert trial.count_macs(nested) == trial.count_macs(model) + 10
    twice = keras.Model(inputs, layers.Add()([model(inputs), model(layers.ReLU()(inputs))]))
    assert trial.count_macs(twice) == 2 * trial.count_macs(model)
    with pytest.raises(ValueError, match="cannot be counted"):
        trial.count_macs(keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2DTranspose(2, 2)]))


def test_the_plain_recipe_is_the_one_that_was_measured():
    segmenter, classifier = plain.build_unet(), plain.build_cnn()
    assert segmenter.count_params() == 118_273
    assert sum(isinstance(layer, layers.Conv2D) for layer in segmenter.layers) == 11  # two a level, and the last
    assert classifier.count_params() == 896 + 18_496 + 73_856 + (22 * 22 * 128 + 1) * 128 + 129 * 2
    pictures = np.random.default_rng(0).integers(0, 256, (3, 180, 180, 3)).astype(np.uint8)
    masks, answers = plain.predict(segmenter, pictures[:, :128, :128], 2), plain.predict(classifier, pictures)
    assert masks.shape == (3, 128, 128) and answers.shape == (3,)
    assert min(masks.min(), answers.min()) >= 0 and max(masks.max(), answers.max()) <= 1
    for model in (segmenter, classifier):
        assert not any(isinstance(layer, layers.BatchNormalization) for layer in model.layers)


# -- the data --------------------------------------------------------------------------------------------------------


def test_every_image_is_tested_in_one_fold_and_no_group_crosses(small_data):
    tested = np.zeros(len(small_data), int)
    for fold in range(5):
        split = folds(small_data, fold)
        assert groups_on_both_sides(split.groups, split.parts) == 0
        assert set(split.parts) == {"train", "validation", "test"}
        assert (split.parts == folds(small_data, fold).parts).all()
        tested += split.parts == "test"
        # A group's own name decides: fewer images move no other.
        some = np.arange(0, len(small_data), 2)
        assert (folds(small_data.select(some), fold).parts == split.parts[some]).all()
    assert (tested == 1).all()
    with pytest.raises(CourseError, match="numbered 0 to 4"):
        folds(small_data, 5)
    with pytest.raises(CourseError, match="too few"):
        folds(small_data.select(np.arange(2)), 0)


def test_the_embedded_sets_own_test_part_stays_closed(small_data, monkeypatch):
    monkeypatch.setattr(trial, "load_dataset", lambda *_, **__: small_data)
    monkeypatch.setattr(trial, "NEW_PICTURES", 160)
    data = trial.load("synthetic", "nowhere", 0, quick=True)
    known, new = data.parts != "test", data.parts == "test"
    assert new.sum() == 10 and known.sum() == (small_data.parts != "test").sum()
    assert not set(data.groups[new]) & set(small_data.groups)
    assert (data.images[known] == small_data.images[small_data.parts != "test"]).all()
    assert len(data.table) == len(data) and (data.table["image_id"] == data.image_ids).all()
    assert all(len(masks) == len(data) for masks in data.outlines.values())
    again = trial.load("synthetic", "nowhere", 0, quick=True)
    assert data.identity == again.identity


# -- end to end ------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Few images, trained in this process, with two arms; returns the jobs that were trained."""
    made = from_synthetic(synthetic.generate(60, 64))
    chosen = [
        np.flatnonzero((made.parts == part) & (made.labels == label)) for part in set(made.parts) for label in (0, 1)
    ]
    data = made.select(np.sort(np.concatenate([places[:4] for places in chosen])))
    trained = []

    def here(job, file):
        trained.append(job)
        trial.do(job, file)

    monkeypatch.setattr(trial, "load", lambda *given: data)
    monkeypatch.setattr(network_benchmark.evaluation, "BOOTSTRAPS", 50)
    monkeypatch.setattr(trial, "in_a_process", here)
    monkeypatch.setattr(segmentation, "CROP_VARIANTS", ("crop with margin", "whole image"))
    monkeypatch.setattr(unet, "RECIPE", unet.RECIPE._replace(filters=(4, 8)))  # small, for speed
    monkeypatch.setattr(cnn, "UNET_RECIPE", unet.RECIPE)
    views = {"one view": {"views": 1}}
    monkeypatch.setattr(unet, "KNOBS", {"half the filters": {"filters": (2, 4)}, **views})
    monkeypatch.setattr(cnn, "KNOBS", {"no class weights": {"class_weights": False}, **views})
    return SimpleNamespace(data=data, trained=trained)


def called(arguments, out, capsys):
    assert main(["benchmark", *arguments, "--out", str(out), "--quick"]) == 0
    printed = capsys.readouterr().out
    assert "these figures mean nothing" in printed
    return printed, json.loads(next(out.glob(f"{arguments[0]}*.json")).read_text())


def test_segmentation_then_classification(quick, tmp_path, capsys):
    printed, result = called(["segmentation", "--seeds", "2", "--seconds", "2", "1"], tmp_path, capsys)
    assert [row["method"] for row in result["rows"]] == ["Otsu's threshold", "plain U-Net", "our U-Net"]
    assert result["images"]["test"] == (quick.data.parts == "test").sum()
    assert [(job.recipe is None, job.seed, job.seconds) for job in quick.trained] == [
        (True, 0, None), (True, 1, None), (False, 0, None), (False, 1, None),
        (False, 0, 1), (False, 1, 1), (False, 0, 2), (False, 1, 2),
    ]  # fmt: skip
    assert [row["method"] for row in result["curve"]] == ["our U-Net, 1 s", "our U-Net, 2 s"]
    for row in [*result["rows"], *result["curve"]]:
        assert row["method"] in printed
        for name in ("dice", "jaccard", "thresholded_jaccard"):
            assert 0 <= row[name]["low"] <= row[name]["value"] <= row[name]["high"] <= 1
            assert row[name]["value"] == pytest.approx(np.mean(row["by_seed"][name]), abs=1e-5)
    # The plain recipe of one seed, or none; what is there is not trained again.
    quick.trained.clear()
    arguments = ["segmentation", "--seeds", "2", "--plain"]
    _, fewer = called([*arguments, "first"], tmp_path / "again", capsys)
    assert [row["method"] for row in fewer["rows"]] == ["Otsu's threshold", "plain U-Net, seed 0", "our U-Net"]
    assert [(job.recipe is None, job.seed) for job in quick.trained] == [(True, 0), (False, 0), (False, 1)]
    assert len(fewer["rows"][1]["by_seed"]["dice"]) == 1 and len(fewer["rows"][2]["by_seed"]["dice"]) == 2
    _, none = called([*arguments, "none"], tmp_path / "again", capsys)
    assert [row["method"] for row in none["rows"]] == ["Otsu's threshold", "our U-Net"] and len(quick.trained) == 3
    plain_row, ours = result["rows"][1:]
    assert plain_row["parameters"] == 118_273 and ours["parameters"] == unet.build_unet(unet.RECIPE).count_params()
    assert plain_row["macs"] == 128**2 * 11_968 + 64**2 * 50_688 + 32**2 * 55_296 and plain_row["views"] == 1
    assert (tmp_path / "quality_against_cost_synthetic-quick.png").stat().st_size > 10_000
    # Otsu's row, by hand.
    test = quick.data.part("test")
    masks = network_benchmark.resize_masks(test.masks, 128)
    images = network_benchmark.resize_images(test.images, 128)
    by_hand = [
        network_benchmark.evaluation.dice(mask, segmentation.otsu_mask(image))
        for mask, image in zip(masks, images, strict=True)
    ]
    assert result["rows"][0]["dice"]["value"] == pytest.approx(np.mean(by_hand), abs=1e-5)

    # The classification cuts with our U-Net, as it was kept, and trains none again.
    quick.trained.clear()
    printed, result = called(["classification", "--variants"], tmp_path, capsys)
    assert {job.stage for job in quick.trained} == {"classification"}
    assert [job.variant for job in quick.trained] == ["crop with margin", *segmentation.CROP_VARIANTS]
    benign, plain_row, *ours = result["rows"]
    assert benign["auroc"]["value"] == benign["balanced_accuracy"]["value"] == 0.5
    assert benign["accuracy"]["value"] == pytest.approx((test.labels == 0).mean())
    assert "parameters" not in benign and plain_row["parameters"] > 5_000_000 and len(ours) == 2
    assert "our U-Net, trained with the same seed on the same train part" in printed
    assert "starts from the same U-Net" in printed
    assert {job.start is None for job in quick.trained if job.recipe} == {False}

    # The CNN was kept too, and another one may start from it.
    quick.trained.clear()
    assert predict.load_models(tmp_path / "models")[1].output_shape == (None, 2)
    arguments = ["classification", "--plain", "none", "--start"]
    assert main(["benchmark", *arguments, str(tmp_path / "models"), "--out", str(tmp_path), "--quick"]) == 1
    assert "would be written over" in capsys.readouterr().err and not quick.trained
    shutil.copytree(tmp_path / "models", tmp_path / "before")
    before = tmp_path / "before" / cnn.CNN_FILE
    printed, _ = called([*arguments, str(before.parent)], tmp_path, capsys)
    assert [job.start for job in quick.trained] == [str(before)]
    assert "the CNN of --start, trained on the embedded data, which may have met the test images" in printed

    # The kept U-Net cuts for others as well; where there are neither masks nor a U-Net, nobody cuts.
    quick.trained.clear()
    options = network_benchmark.Options("classification", out=tmp_path, models=tmp_path / "models")
    (cut,) = network_benchmark._cuts(network_benchmark.Bench(options, quick.data, False), 1)
    name, warning = "the U-Net of --models", ", which may have met the test images"
    assert network_benchmark._masks_of(cut).shape == quick.data.masks.shape
    assert cut.by == f"{name}, trained on the embedded data{warning}"
    kept = tmp_path / "models" / unet.UNET_FILE
    record = kept.with_suffix(".json")
    record.write_text(record.read_text().replace('"dataset": "synthetic"', '"dataset": "isic2018"'))
    assert network_benchmark._told(options, name, kept) == f"{name}, trained on ISIC 2018 Task 1"
    # ISIC 2016 and 2018 share pictures, and so may everybody's own.
    for dataset, told in (("isic2016", warning), ("isic2018", warning), ("folder", warning), ("ham10000", "")):
        others = options._replace(dataset=dataset)
        assert network_benchmark._told(others, name, kept) == f"{name}, trained on ISIC 2018 Task 1{told}"
    record.unlink()
    assert network_benchmark._told(options, name, kept) == name + warning
    unmasked = network_benchmark.Bench(options._replace(models=None), quick.data, False)
    assert network_benchmark._cuts(unmasked, 1) == [network_benchmark.NOT_CUT] and not quick.trained


@pytest.fixture
def two_folds(quick, monkeypatch):
    """A set that stands for a real one, of whose five folds two are tested, for speed."""
    data = from_synthetic(synthetic.generate(120, 64))
    monkeypatch.setattr(trial, "load", lambda dataset, data_dir, fold, *more: folds(data, fold))
    monkeypatch.setattr(network_benchmark, "find_records", lambda *given, **more: [SimpleNamespace(mask=Path("m.png"))])
    monkeypatch.setattr(network_benchmark, "FOLDS", 2)
    return data


def answers_kept(out, stage):
    """What each network says of its fold's test pictures: by fold, whether it is the plain recipe, and seed."""
    said = {}
    for file in (out / "trials").glob(f"{stage}-*.npz"):
        with np.load(file) as stored:
            made_from = json.loads(str(stored["record"]))["made_from"]
            said[made_from["fold"], made_from["recipe"] is None, made_from["seed"]] = stored["found"]
    return said


def test_over_all_folds_every_mask_is_drawn_by_a_network_that_has_not_met_it(quick, two_folds, tmp_path, capsys):
    arguments = ["segmentation", "--dataset", "isic2018", "--data-dir", str(tmp_path), "--all-folds", "--plain"]
    printed, result = called([*arguments, "first", "--seeds", "2", "--seconds", "1"], tmp_path, capsys)
    shown = [(job.fold, job.recipe is None, job.seed) for job in quick.trained]
    ours = [(0, False, 0), (0, False, 1), (1, False, 0), (1, False, 1)]
    assert shown == [(0, True, 0), *ours, *ours]  # the last for the curve
    assert [row["method"] for row in result["rows"]] == ["Otsu's threshold", "plain U-Net, fold 0, seed 0", "our U-Net"]
    tests = [folds(two_folds, fold).part("test") for fold in (0, 1)]
    assert result["folds"] == [0, 1] and result["images"]["test"] == sum(len(test) for test in tests)
    assert result["test_lesions"] == len(set(np.concatenate([test.groups for test in tests])))
    assert (tmp_path / "quality_against_cost_isic2018_all_folds-quick.png").stat().st_size > 10_000
    assert "all 2 folds" in printed and "Mean Dice by fold, Otsu's threshold: " in printed
    assert "Scores are means over the seeds, costs over seeds and folds." in printed

    # Without the curve: the table of one fold and that of all have places of their own.
    quick.trained.clear()
    result = called([*arguments, "none", "--seeds", "2"], tmp_path / "again", capsys)[1]
    assert network_report.stem(result) == "segmentation_isic2018_all_folds-quick"
    assert [row["method"] for row in result["rows"]] == ["Otsu's threshold", "our U-Net"]
    assert not list((tmp_path / "again").glob("*.png"))  # two points are no figure
    said, row = answers_kept(tmp_path / "again", "segmentation"), result["rows"][1]
    dice = [
        [
            network_benchmark.evaluation.dice(network_benchmark.resize_masks(test.masks, 128), said[fold, False, seed])
            for seed in (0, 1)
        ]
        for fold, test in enumerate(tests)
    ]
    assert row["by_fold"] == pytest.approx([np.mean(of_fold) for of_fold in dice], abs=1e-5)
    assert row["dice"]["value"] == pytest.approx(np.concatenate(dice, axis=1).mean(), abs=1e-5)
    by_seed = np.concatenate(dice, axis=1).mean(axis=1)
    assert row["by_seed"]["dice"] == pytest.approx(by_seed, abs=1e-5)


def test_every_seed_of_a_diagnosis_has_a_unet_of_its_own(quick, two_folds, tmp_path, capsys):
    arguments = ["classification", "--dataset", "isic2018", "--data-dir", str(tmp_path), "--all-folds", "--plain"]
    result = called([*arguments, "none", "--seeds", "2"], tmp_path, capsys)[1]
    cutting = [job for job in quick.trained if job.stage == "segmentation"]
    diagnosing = [job for job in quick.trained if job.stage == "classification"]
    wanted = [(fold, seed) for fold in (0, 1) for seed in (0, 1)]
    assert [(job.fold, job.seed) for job in cutting] == [(job.fold, job.seed) for job in diagnosing] == wanted
    assert len({job.start for job in diagnosing}) == 4
    for job in diagnosing:
        record = json.loads(Path(job.start).with_suffix(".json").read_text(encoding="utf-8"))["made_from"]
        assert (record["stage"], record["fold"], record["seed"]) == ("segmentation", job.fold, job.seed)
        with np.load(job.masks) as stored:
            images = folds(two_folds, job.fold).images
            found = unet.predict_masks(training.open_model(job.start), images)
            assert (stored["masks"] == segmentation.masks_from_probabilities(found, images.shape[1])).all()
    assert result["cut_by"] == "our U-Net, trained with the same seed on the same train part"


def test_over_all_folds_every_image_is_tested_by_a_network_that_has_not_met_it(quick, two_folds, tmp_path, capsys):
    arguments = ["classification", "--dataset", "isic2018", "--data-dir", str(tmp_path), "--all-folds", "--plain"]
    printed, result = called([*arguments, "first"], tmp_path, capsys)
    assert [(job.stage, job.fold, job.recipe is None) for job in quick.trained] == [
        ("segmentation", 0, False), ("segmentation", 1, False), ("classification", 0, True),
        ("classification", 0, False), ("classification", 1, False),
    ]  # fmt: skip
    tested = [folds(two_folds, fold).part("test") for fold in (0, 1)]
    benign, plain_row, ours = result["rows"]
    assert result["folds"] == [0, 1] and result["images"]["test"] == len(tested[0]) + len(tested[1])
    assert benign["accuracy"]["value"] == pytest.approx(np.mean(np.concatenate([part.labels == 0 for part in tested])))
    assert plain_row["method"] == "plain CNN, fold 0, seed 0" and "all 2 folds" in printed
    said = answers_kept(tmp_path, "classification")
    by_fold = [roc_auc_score(part.labels, said[fold, False, 0]) for fold, part in enumerate(tested)]
    assert ours["by_fold"] == pytest.approx(by_fold, abs=1e-5)
    truth = np.concatenate([part.labels for part in tested])
    found = np.concatenate([said[0, False, 0], said[1, False, 0]])
    assert ours["auroc"]["value"] == pytest.approx(roc_auc_score(truth, found), abs=1e-5)
    assert plain_row["auroc"]["value"] == pytest.approx(roc_auc_score(tested[0].labels, said[0, True, 0]), abs=1e-5)

    quick.trained.clear()
    printed, result = called([*arguments, "none"], tmp_path, capsys)
    assert [row["method"] for row in result["rows"]] == ['always "benign"', "our CNN"] and not quick.trained
    assert result["variants"] == ["crop with margin"] and "on the same train part in" in printed
    assert "(crop with margin); our CNN starts" in printed


def test_ways_of_cutting_are_compared_over_all_folds_too(quick, two_folds, tmp_path, capsys, monkeypatch):
    ways = ("crop with margin", "crop and whole image")
    monkeypatch.setattr(segmentation, "CROP_VARIANTS", (*ways, "whole image"))
    arguments = ["classification", "--dataset", "isic2018", "--data-dir", str(tmp_path), "--all-folds", "--plain"]
    printed, result = called([*arguments, "none", "--variants", *ways[::-1]], tmp_path, capsys)
    assert result["variants"] == [*ways[::-1]] and "(crop" not in printed.split("our CNN starts")[0]
    _, two, one = result["rows"]
    assert (two["method"], one["method"]) == ("our CNN, crop and whole image", "our CNN, crop with margin")
    assert 1.9 * one["macs"] < two["macs"] and len(two["by_fold"]) == len(one["by_fold"]) == 2
    # `skinlib predict` needs the network that looks at the crop alone, whatever stood first.
    assert predict.load_models(tmp_path / "models")[1].input_shape == (None, 180, 180, 3)


def test_one_stage_of_an_ablation_leaves_the_other_in_readme(tmp_path, monkeypatch):
    kept = json.loads((links.PROJECT / network_report.STORE / "ablation_synthetic.json").read_text(encoding="utf-8"))
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "README.md").write_text(network_report.NEW_BLOCKS, encoding="utf-8")
    rows = kept["stages"]["classification"]["rows"][:2]
    one = kept | {"stages": {"classification": kept["stages"]["classification"] | {"rows": rows}}}
    both, alone = ["segmentation", "classification"], ["classification"]
    others = {"seeds": [7]}, {"folds": [1]}, {"cores": 99}
    for change, stages in (({}, both), *((other, alone) for other in others)):
        network_report.write(kept, tmp_path)
        network_report.write(one | change, tmp_path)
        written = json.loads((tmp_path / network_report.STORE / "ablation_synthetic.json").read_text(encoding="utf-8"))
        assert list(written["stages"]) == stages and written["stages"]["classification"]["rows"] == rows


def test_a_figure_that_a_new_result_has_not_goes(tmp_path):
    file = links.PROJECT / network_report.STORE / "segmentation_isic2018.json"
    kept = json.loads(file.read_text(encoding="utf-8"))
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "README.md").write_text(network_report.NEW_BLOCKS, encoding="utf-8")
    figure = tmp_path / "figures" / network_report.picture(kept)
    network_report.write(kept, tmp_path)
    assert figure.is_file() and figure.name in (tmp_path / "README.md").read_text(encoding="utf-8")
    network_report.write(kept | {"rows": kept["rows"][:2], "curve": []}, tmp_path)
    assert not figure.exists() and figure.name not in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_another_networks_record_does_not_stay_beside_a_model(tmp_path):
    target = tmp_path / "out" / "models" / unet.UNET_FILE
    for name, record in (("a", True), ("b", False)):
        model = tmp_path / name / unet.UNET_FILE
        model.parent.mkdir()
        model.write_text(name)
        if record:
            model.with_suffix(".json").write_text(name)
        network_benchmark._keep_models(tmp_path / "out", model)
        assert target.read_text() == name and target.with_suffix(".json").exists() == record
    network_benchmark._keep_models(tmp_path / "out", target)  # in its place already
    assert target.read_text() == "b"


def test_an_interrupted_ablation_goes_on(quick, tmp_path, monkeypatch, capsys):
    train = trial.in_a_process

    def interrupted(job, file):
        if job.stage == "classification":
            raise KeyboardInterrupt
        train(job, file)

    monkeypatch.setattr(trial, "in_a_process", interrupted)
    assert main(["benchmark", "ablation", "--out", str(tmp_path), "--quick"]) == 130
    assert "goes on" in capsys.readouterr().err
    arms = [(job.stage, job.model is None) for job in quick.trained]
    assert arms == [("segmentation", True), ("segmentation", True), ("segmentation", False)]

    quick.trained.clear()
    monkeypatch.setattr(trial, "in_a_process", train)
    printed, result = called(["ablation"], tmp_path, capsys)
    assert [(job.stage, job.model is None) for job in quick.trained] == [
        ("classification", True), ("classification", True), ("classification", False),
    ]  # fmt: skip
    assert "Kept from before, not trained anew in this call: full recipe; half the filters; one view." in printed
    for about in result["stages"].values():
        full, _, views = about["rows"]
        score = "dice_difference" if "dice" in full else "auroc_difference"
        assert set(full[score].values()) == {0.0}
        assert full["epochs"] == 1 and views["epochs"] == 0
    assert (tmp_path / "ablation_synthetic-quick.png").stat().st_size > 10_000

    quick.trained.clear()
    again = called(["ablation"], tmp_path, capsys)[1]
    assert quick.trained == []
    assert all(row["kept"] for about in again["stages"].values() for row in about["rows"])

    # More seeds: only what is new is trained, and the table says that not all of it is.
    printed = called(["ablation", "--stage", "segmentation", "--seeds", "2"], tmp_path, capsys)[0]
    assert {job.seed for job in quick.trained} == {1}
    assert "not trained anew in this call, in one training at least: every network." in printed

    # Every seed's own U-Net cuts.
    quick.trained.clear()
    called(["ablation", "--stage", "classification", "--seeds", "2"], tmp_path, capsys)
    starts = {job.seed: json.loads(Path(job.start).with_suffix(".json").read_text()) for job in quick.trained}
    assert {seed: record["made_from"]["seed"] for seed, record in starts.items()} == {1: 1}
    assert not (tmp_path / "models").exists()  # half trained, for a comparison: nobody should predict with them


def test_what_a_result_is_of(quick, tmp_path):
    job = trial.Job("segmentation", unet.RECIPE._asdict(), 0, 1, "synthetic", str(tmp_path), 0, True)
    first = trial.identity(job, quick.data, None)
    assert first == json.loads(json.dumps(first))
    assert trial.identity(job._replace(data_dir="elsewhere"), quick.data, None) == first
    others = [
        trial.identity(job._replace(seed=1), quick.data, None),
        trial.identity(job._replace(epochs=2), quick.data, None),
        trial.identity(job._replace(recipe=unet.RECIPE._replace(views=1)._asdict()), quick.data, None),
        trial.identity(job, quick.data.select(np.arange(3)), None),
        trial.identity(job, quick.data, quick.data.masks),
    ]
    assert all(other != first for other in others)
    # The CNN may learn diagnoses; the U-Net knows of none.
    renamed = dataclasses.replace(quick.data, table=quick.data.table.assign(diagnosis="another"))
    assert trial.identity(job, renamed, None) == first
    classify = job._replace(stage="classification")
    assert trial.identity(classify, renamed, None) != trial.identity(classify, quick.data, None)


def test_a_training_that_fails_in_its_own_process(tmp_path):
    job = trial.Job("segmentation", None, 0, 1, "isic2018", str(tmp_path / "nowhere"), 0, True)
    with pytest.raises(CourseError, match=r"training for the segmentation failed: .*nowhere does not exist"):
        trial.in_a_process(job, tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()


def test_differences_are_paired_and_by_lesion(monkeypatch):
    monkeypatch.setattr(network_benchmark.evaluation, "BOOTSTRAPS", 200)
    groups = np.array(["a", "a", "b", "c"])
    truth = np.zeros((4, 4, 4), bool)
    truth[:, :2] = True
    half = truth.copy()
    half[:, 1] = False  # Dice 2·4 / (8 + 4) = 2/3, for every image
    found = network_benchmark.paired("segmentation", truth, [truth], [half], groups)
    assert found["dice"] == pytest.approx((2 / 3,) * 3)
    assert found["dice_difference"] == pytest.approx((-1 / 3,) * 3)  # the same everywhere: no width
    # One seed of two is right: half of the difference. One lesion differs: from no to all of the draw.
    found = network_benchmark.paired("segmentation", truth, [truth, truth], [truth, half], groups)
    assert found["dice_difference"].value == pytest.approx(-1 / 6)
    one = truth.copy()
    one[3] = half[3]
    value, low, high = network_benchmark.paired("segmentation", truth, [truth], [one], groups)["dice_difference"]
    assert value == pytest.approx(-1 / 12) and low < value and high == 0

    labels = np.array([0, 0, 1, 1])
    right, wrong = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.9, 0.8, 0.2, 0.1])
    found = network_benchmark.paired("classification", labels, [right], [wrong], np.arange(4).astype(str))
    assert found["auroc"].value == 0 and found["auroc_difference"] == (-1, -1, -1)
    found = network_benchmark.paired("classification", labels, [right, right], [right, wrong], np.arange(4).astype(str))
    assert found["auroc_difference"].value == found["balanced_accuracy_difference"].value == -0.5


def test_course_reads_the_seconds_of_a_run(tmp_path, monkeypatch, capsys):
    def ran(command, **more):
        out = network_benchmark.Path(command[command.index("--out") + 1])
        (out / "notebooks").mkdir(parents=True)
        (out / "metrics.json").write_text(json.dumps({"seconds": {"01_data": 9, "02_unet": 80.2, "04_cnn": 75}}))
        for name, call, spent in (("02_unet", "train_unet(data)", 70.4), ("04_cnn", "cnn.train_cnn(crops)", 60)):
            cells = [nbformat.v4.new_code_cell("import train_unet"), nbformat.v4.new_code_cell(call)]
            for cell in cells:
                cell.metadata["papermill"] = {"duration": spent}
            nbformat.write(nbformat.v4.new_notebook(cells=cells), out / "notebooks" / f"{name}.ipynb")
        assert "--quick" in command
        return SimpleNamespace(returncode=0, stdout="")

    monkeypatch.setattr(processes.subprocess, "run", ran)
    printed, result = called(["course"], tmp_path, capsys)
    assert result["training_cells"] == {"02_unet": 70.4, "04_cnn": 60}
    assert "| 02_unet             | 80 s" in printed and "| 70 s " in printed
    fails = lambda *given, **more: SimpleNamespace(returncode=1, stderr="x\nskinlib: lesson 02 failed\n")  # noqa: E731
    monkeypatch.setattr(processes.subprocess, "run", fails)
    assert main(["benchmark", "course", "--out", str(tmp_path / "x")]) == 1
    assert capsys.readouterr().err == "skinlib: the course did not run: lesson 02 failed\n"


# -- README ----------------------------------------------------------------------------------------------------------


def test_readme_shows_what_was_measured_and_nothing_else():
    blocks = network_report.readme_blocks((links.PROJECT / "README.md").read_text(encoding="utf-8"))
    results = [
        json.loads(path.read_text(encoding="utf-8")) for path in (links.PROJECT / network_report.STORE).glob("*")
    ]
    assert blocks == {network_report.stem(result): network_report.readme_block(result) for result in results}
    for result in results:
        name = network_report.picture(result)
        assert not result["quick"] and (name is None or (links.PROJECT / "figures" / name).is_file())
    network_report.check_clone(links.PROJECT)  # the place for new ones is there


def test_lesson_4_tells_of_two_looks_what_was_measured():
    kept = links.PROJECT / network_report.STORE / "classification_isic2018_all_folds.json"
    rows = {row["method"]: row for row in json.loads(kept.read_text(encoding="utf-8"))["rows"]}
    cells = nbformat.read(links.PROJECT / "notebooks" / "04_cnn.ipynb", 4).cells
    (told,) = (cell.source for cell in cells if cell.source.startswith("## What the crop leaves out"))
    both, alone = (rows[f"our CNN, {variant}"] for variant in ("crop and whole image", "crop with margin"))
    for rank in (both["auroc"], alone["auroc"]):
        assert f"{rank['value']:.3f} ({rank['low']:.3f}–{rank['high']:.3f})" in told
    decisions = " and ".join(f"{row['balanced_accuracy']['value']:.3f}" for row in (both, alone))
    assert f"balanced accuracy {decisions}" in told
    gains = [two - one for two, one in zip(both["by_seed"]["auroc"], alone["by_seed"]["auroc"], strict=True)]
    assert f"gain is {', '.join(f'{gain:.3f}' for gain in gains[:-1])} and {gains[-1]:.3f}" in told


def course_result(seconds):
    about = {"benchmark": "course", "quick": False, "dataset": "synthetic", "cores": 2, "seeds": [0]}
    return about | {"seconds": seconds, "lessons": {"02_unet": seconds}, "training_cells": {"02_unet": seconds / 2}}


def test_write_puts_a_table_in_its_place_and_replaces_it(tmp_path):
    with pytest.raises(CourseError, match="is none: leave it out"):
        network_report.write(course_result(100), tmp_path)
    (tmp_path / "notebooks").mkdir()
    readme = tmp_path / "README.md"
    readme.write_text("before\n")
    with pytest.raises(CourseError, match="has lost the line"):
        network_report.write(course_result(100), tmp_path)
    readme.write_text(f"before\n\n{network_report.NEW_BLOCKS}\n\nafter\n")
    for seconds in (100, 200):
        network_report.write(course_result(seconds), tmp_path)
        text = readme.read_text()
        assert f"{seconds} s" in text and text.count("benchmark:course") == 1
        assert text.startswith("before\n\n<!-- benchmark:course -->\n\n**The course itself**")
        assert text.endswith(f"<!-- /benchmark -->\n\n{network_report.NEW_BLOCKS}\n\nafter\n")
    kept = json.loads((tmp_path / network_report.STORE / "course.json").read_text())
    assert network_report.readme_blocks(text) == {"course": network_report.readme_block(kept)}


# -- what does not go together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("generator --seeds 3", "--seeds goes with the benchmarks segmentation, classification, ablation"),
        ("leak --dataset isic2018", "--dataset goes with"),
        ("segmentation --variants", "--variants goes with the benchmarks classification, not with segmentation"),
        ("classification --seconds 30", "--seconds goes with"),
        ("classification --stage segmentation", "--stage goes with"),
        ("segmentation --models x", "--models goes with"),
        ("segmentation --start x", "--start goes with the benchmarks classification, ablation"),
        ("ablation --stage segmentation --start x", "--start names the CNN that ours starts from"),
        ("classification --start nowhere", "there is no melanoma_cnn_model.keras in nowhere"),
        ("segmentation --unet-epochs 3", "--unet-epochs goes with the benchmarks classification"),
        ("classification --unet-epochs 0", "counted from 1"),
        ("ablation --stage features", "there is no stage 'features'"),
        ("ablation --stage segmentation --models x", "--stage classification"),
        ("segmentation --seeds 0", "counted from 1"),
        ("segmentation --epochs 0", "counted from 1"),
        ("segmentation --seconds 30 0", "counted from 1"),
        ("segmentation --fold 1", "--fold is for real data"),
        ("classification --all-folds", "--all-folds is for real data"),
        ("segmentation --all-folds", "--all-folds is for real data"),
        (
            "ablation --all-folds",
            "--all-folds goes with the benchmarks segmentation, classification, not with ablation",
        ),
        ("classification --dataset isic2018 --all-folds --fold 1 --data-dir x", "nothing to choose"),
        ("classification --variants crop", "there is no variant 'crop'; there are: 'crop with margin', 'tight crop'"),
        ("classification --plain some", "--plain can be all, first, none, not 'some'"),
        ("ablation --plain none", "--plain goes with the benchmarks segmentation, classification"),
        ("segmentation --dataset isic2018 --fold 5 --data-dir x", "numbered 0 to 4"),
        ("classification --models x", "there is no unet_model_lightweight.keras in x"),
        ("segmentation --dataset isic2018", "--data-dir"),
        ("segmentation --dataset isic2018 --data-dir nowhere", "nowhere does not exist"),
        ("segmentation --dataset isic2081 --data-dir nowhere", "there is no data set 'isic2081'"),
        ("segmentation --quick --write", "mean nothing"),
        ("course --data-dir x", "painted pictures"),
        ("inference --data-dir x", "painted pictures"),
        ("course --epochs 3", "--epochs goes with"),
        ("transfer --write", "--write goes with"),
    ],
)
def test_what_does_not_go_together_costs_no_time(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "in_a_process", None)
    monkeypatch.setattr(benchmark, "generator", None)
    assert main(["benchmark", *arguments.split()]) == 1
    error = capsys.readouterr().err
    assert error.startswith("skinlib: ") and words in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_write_outside_a_clone_is_refused_first(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(network_benchmark, "PROJECT", tmp_path)
    monkeypatch.setattr(trial, "load", None)
    assert main(["benchmark", "segmentation", "--write", "--out", str(tmp_path / "out")]) == 1
    assert "is none: leave it out" in capsys.readouterr().err


def test_real_ham10000_without_masks(real_ham10000, tmp_path, capsys):
    arguments = ["--dataset", "ham10000", "--data-dir", str(real_ham10000), "--out", str(tmp_path)]
    assert main(["benchmark", "segmentation", *arguments]) == 1
    assert "HAM10000_segmentations_lesion_tschandl" in capsys.readouterr().err
    assert main(["benchmark", "classification", "--variants", "--quick", *arguments]) == 1
    assert "name one with --models" in capsys.readouterr().err


def test_a_lesson_shows_one_stage_of_a_kept_ablation(tmp_path, monkeypatch):
    images = {"train": 90, "validation": 10, "test": 25}
    score = {"value": 0.9, "low": 0.8, "high": 0.95}
    rows = [
        {"arm": arm, "dice": score, "dice_difference": score, "epochs": 3, "training_s": 7.0}
        for arm in ("full recipe", "no skip connections")
    ]
    stage = {"images": images, "test_lesions": 22, "epochs": 3, "rows": rows}
    about = {"benchmark": "ablation", "quick": False, "dataset": "synthetic", "cores": 2, "seeds": [0], "folds": [0]}
    (tmp_path / "kept.json").write_text(json.dumps(about | {"stages": {"segmentation": stage, "other": {}}}))
    shown, drawn = [], []
    monkeypatch.setattr(network_report, "display", lambda what: shown.append(what.data))
    monkeypatch.setattr(plots, "display", drawn.append)
    network_report.show_ablation(tmp_path / "kept.json", "segmentation")
    assert "no skip connections | 0.900 (0.800–0.950) | +0.900" in shown[0] and "other" not in shown[0]
    assert len(drawn) == 1
    with pytest.raises(CourseError, match=r"no ablation in .*gone\.json: `skinlib benchmark ablation"):
        network_report.show_ablation(tmp_path / "gone.json", "segmentation")
