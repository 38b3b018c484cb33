"""The transfer benchmark and `skinlib data`, as a user calls them."""

import json

import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsClassifier

from skinlib import benchmark, data_benchmark, evaluation, synthetic
from skinlib.__main__ import main
from skinlib.dataset import load_dataset
from skinlib.segmentation import otsu_mask


def test_transfer_benchmark_from_end_to_end(isic_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "QUICK", benchmark.Setting(60, 40, 1, 120, 1, 60, 1, 1))
    out = tmp_path / "bench"
    arguments = ["benchmark", "transfer", "--data-dir", str(isic_folder), "--out", str(out), "--quick"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    result = json.loads((out / "transfer-quick.json").read_text())
    assert result["quick"] and "these figures mean nothing" in printed
    rows = result["segmentation"]
    assert [(row["method"].split(",")[0], row["part"]) for row in rows] == [
        ("Otsu's threshold", "all"), ("Otsu's threshold", "test part"), ("U-Net", "all"), ("U-Net", "test part"),
        ("U-Net", "all"), ("U-Net", "test part"), ("U-Net", "test part"),
    ]  # fmt: skip
    assert [row["images"] for row in rows[:6:2]] == [20] * 3
    assert rows[1]["images"] == rows[3]["images"] == rows[5]["images"] == rows[6]["images"] < 20
    assert result["unet_weights"] <= 500_000
    assert result["classification"]["images"] == 19  # one of the twenty is neither benign nor malignant
    for row in rows:
        assert row["method"] in printed
        for name in ("dice", "jaccard", "thresholded_jaccard"):
            assert 0 <= row[name]["low"] <= row[name]["value"] <= row[name]["high"] <= 1
    assert (out / "models" / "unet_model_lightweight.keras").is_file()

    # Otsu's row against the same thing by hand, at 128 pixels and at the stored size.
    data = load_dataset("isic2018", isic_folder)
    by_hand = [evaluation.dice(mask, otsu_mask(image)) for image, mask in zip(data.images, data.masks, strict=True)]
    assert rows[0]["dice"]["value"] == pytest.approx(sum(by_hand) / 20, abs=0.03)


def test_transfer_without_labels_is_told_before_anything_is_trained(isic_folder, tmp_path, capsys):
    (isic_folder / "metadata.csv").write_text("isic_id,diagnosis_1\nISIC_9000000,\n")
    assert main(["benchmark", "transfer", "--data-dir", str(isic_folder), "--out", str(tmp_path / "x"), "--quick"]) == 1
    assert "labels of both classes" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_generator_benchmark_prints_what_it_keeps(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "QUICK", benchmark.Setting(600, 60, 1, 1, 1, 1, 1, 1))
    assert main(["benchmark", "generator", "--out", str(tmp_path), "--quick"]) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "generator-quick.json").read_text())
    assert result["generator"] == synthetic.VERSION and result["images_per_second"] > 0
    for name, quantity in {**result["auroc"], **result["agreement"]}.items():
        assert name in printed and f"{quantity['value']:.3f}" in printed
    made = synthetic.generate(60)
    pair = evaluation.dice(made.outlines["by hand"], made.outlines["hull"]).mean()
    assert result["agreement"]["by hand, hull"]["value"] == pytest.approx(pair)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["benchmark", "transfr", "--data-dir", "x"],
            "there is no benchmark 'transfr'; there are: generator, transfer, reading, leak, segmentation, ",
        ),
        (["benchmark", "transfer", "--data-dir", "nowhere"], "nowhere"),
        (["benchmark", "transfer"], "--data-dir"),
        (
            ["data", "isic2061", "--to", "x"],
            "no data set 'isic2061'; there are: isic2016, isic2018, ham10000, synthetic",
        ),
        (["data", "synthetic", "--to", "x", "--limit", "0"], "at least one image"),
        (["data", "synthetic", "--to", "x", "--size", "5000"], "32 to 2048"),
    ],
)
def test_wrong_requests_cost_no_time_and_leave_nothing(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("skinlib: ") and words in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_data_synthetic_writes_a_set_that_the_course_can_read(tmp_path, capsys):
    assert main(["data", "synthetic", "--to", str(tmp_path / "set"), "--limit", "30", "--size", "48"]) == 0
    printed = capsys.readouterr().out
    best = json.loads((tmp_path / "set" / "synthetic.json").read_text())["ceiling"]
    assert f"auroc {best['auroc']:.3f}" in printed
    table = pd.read_csv(tmp_path / "set" / "metadata.csv")
    assert len(table) == 30 and {"tds", "seven_point_score", "ita", "hair"} <= set(table.columns)
    assert len(load_dataset("isic2018", tmp_path / "set")) == 30
    assert main(["data", "synthetic", "--to", str(tmp_path)]) == 1
    assert "holds other things" in capsys.readouterr().err


def test_reading_benchmark_compares_both_ways_and_starts_cold(tmp_path, isic_folder, monkeypatch, capsys):
    monkeypatch.setattr(data_benchmark, "WIDTH", 1600)
    monkeypatch.setattr(data_benchmark, "HEIGHT", 1200)
    arguments = ["benchmark", "reading", "--data-dir", str(isic_folder), "--out", str(tmp_path), "--quick"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "reading-quick.json").read_text())
    large = result["large"]
    assert large["ratio"] > 1 and large["difference"] < 2 and f"{large['ratio']:.1f} times as many" in printed
    assert [row["images"] for row in result["many"] + result["set"]] == [60, 60, 20, 20]
    assert [row["size"] for row in result["many"] + result["set"]] == [128, 128, 192, 192]
    assert all(20e6 < row["peak_bytes"] < 1e9 and row["seconds"] > 0 for row in result["many"])
    assert "cold cache" in printed and "warm cache" in printed


@pytest.mark.parametrize("name", ["reading", "leak"])
def test_data_benchmarks_say_a_wrong_folder_first(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(synthetic, "make_image", None)  # nothing is painted
    monkeypatch.setattr(synthetic, "generate", None)
    assert main(["benchmark", name, "--data-dir", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_leak_benchmark_tells_what_was_pretended(tmp_path, capsys):
    assert main(["benchmark", "leak", "--out", str(tmp_path), "--quick"]) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "leak-quick.json").read_text())["embedded set"]
    assert result["images"] == 200 and result["lesions"] < 200
    assert set(result["models"]) == set(data_benchmark.MODELS)
    for name, row in result["models"].items():
        assert name in printed and f"{row['by_image_balanced_accuracy']['value']:.3f}" in printed
        assert 0 < row["siblings"]["value"] < 1


def test_leak_benchmark_audits_three_splits_of_ham10000(real_ham10000, monkeypatch):
    monkeypatch.setattr(data_benchmark, "MODELS", {"extra trees": (KNeighborsClassifier(1), 3)})
    result = data_benchmark.leak(real_ham10000, quick=True)
    assert result["HAM10000"]["images"] == 160
    assert result["audit"]["as the course splits"][-1] == "clean"
    assert "groups in more than one part: 0" in result["audit"]["by lesion_id"]
    assert sum(size for size, _ in result["about"]["confirmed"].values()) == 160
    assert result["about"]["found_as_copies"] <= result["about"]["pairs_of_one_lesion"]
    assert any("audit of HAM10000, by image" in line for line in data_benchmark.leak_text(result))
