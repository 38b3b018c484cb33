"""The command line and the headless runs: strict parameters, clear failures, the run's folder."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from skinlib import course
from skinlib.__main__ import main
from skinlib.files import CourseError

LESSONS = ["01_data_exploration", "02_unet", "03_segmentation", "04_cnn", "05_evaluation"]
PARAMETERS = 'dataset = "synthetic"\ndata_dir = "../data"\nrun_dir = "../runs/x"\nseed = 0\nquick = False\nepochs = 0'


@pytest.fixture
def lesson_folder(tmp_path, monkeypatch):
    """A folder of small lessons in place of the real ones; returns a function that writes one."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setattr(course, "NOTEBOOKS", folder)

    def write(name, *sources, parameters=PARAMETERS):
        cells = [nbformat.v4.new_code_cell(source) for source in (parameters, *sources)]
        cells[0].metadata["tags"] = ["parameters"]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / f"{name}.ipynb")

    return write


def test_lessons_are_found_in_order_and_chosen_by_number_or_name():
    assert [path.stem for path in course.lessons()] == LESSONS
    assert [path.stem for path in course.lessons(["5", "02", "02_unet"])] == ["02_unet", "05_evaluation"]
    with pytest.raises(CourseError, match="no lesson 7; there are: 01_data_exploration"):
        course.lessons(["7"])


def test_every_lesson_has_the_common_parameters():
    for lesson in course.lessons():
        assert set(course.COMMON_PARAMETERS) <= course.lesson_parameters(lesson)


def test_values_are_read_as_python_would():
    pairs = ["epochs=3", "rate=1e-3", "to_predict=../my pictures", "quick=True", "name=02"]
    assert course.parse_parameters(pairs) == {
        "epochs": 3, "rate": 1e-3, "to_predict": "../my pictures", "quick": True, "name": "02",
    }  # fmt: skip
    with pytest.raises(CourseError, match="NAME=VALUE"):
        course.parse_parameters(["epochs"])


def test_a_misspelt_parameter_is_refused_before_anything_runs(tmp_path, capsys):
    assert main(["run", "--out", str(tmp_path / "run"), "-p", "epocs=3"]) == 1
    error = capsys.readouterr().err
    assert "no lesson has a parameter 'epocs'" in error and "epochs" in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_parameter_goes_only_to_the_lessons_that_have_it(lesson_folder):
    lesson_folder("01_a", parameters=PARAMETERS.removesuffix("\nepochs = 0"))
    lesson_folder("02_b")
    shared = dict.fromkeys(course.COMMON_PARAMETERS, 1)
    given = course.check_parameters(course.lessons(), shared | {"epochs": 3})
    assert [("epochs" in names) for names in given.values()] == [False, True]


def test_a_lesson_that_lacks_a_common_parameter_is_refused(lesson_folder):
    lesson_folder("01_a", parameters="dataset = 1")
    with pytest.raises(CourseError, match=r"01_a\.ipynb lacks the parameter data_dir"):
        course.check_parameters(course.lessons(), {"dataset": 1})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--dataset", "isic2081"], "no data set 'isic2081'"),
        (["run", "--dataset", "isic2018", "--data-dir", "nowhere"], "data folder nowhere does not exist"),
        (["run", "--dataset", "isic2018"], "--data-dir"),
        (["run", "--only", "09"], "no lesson 09"),
        (["run", "-p", "seed=3"], "--seed"),
        (["predict", "nothing.jpg", "--models", "m", "--out", "o"], "no file or folder nothing.jpg"),
    ],
)
def test_wrong_usage_is_one_clear_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err.strip()
    assert words in error and error.startswith("skinlib: ") and "\n" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["run", "--datset", "synthetic"], ["run", "--data", "x"], ["rum"], []])
def test_misspelt_options_and_commands_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_help_needs_neither_tensorflow_nor_jupyter():
    program = (
        "import sys; from skinlib.__main__ import build_parser; build_parser().format_help(); "
        "print([m for m in ('tensorflow', 'keras', 'papermill', 'matplotlib', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_failing_lesson_is_named_with_its_cell_and_kept_apart(lesson_folder, tmp_path, capsys):
    lesson_folder("01_good", "print('fine')")
    lesson_folder("02_bad", "x = 1", "raise ValueError('the lamp is broken')", "print('never')")
    lesson_folder("03_never", "print('never')")
    (tmp_path / "run" / "notebooks").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "notebooks" / "02_bad.ipynb").write_text("of an earlier run")
    (tmp_path / "run" / "metrics.json").write_text("of an earlier run")
    assert main(["run", "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "lesson 02_bad failed in cell [4]" in error or "lesson 02_bad failed in cell [3]" in error
    assert "ValueError: the lamp is broken" in error and "02_bad.unfinished.ipynb" in error
    left = sorted(path.name for path in (tmp_path / "run" / "notebooks").iterdir())
    assert left == ["01_good.html", "01_good.ipynb", "02_bad.unfinished.ipynb"]
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_folder_with_other_things_is_not_taken_for_a_run(lesson_folder, tmp_path, capsys):
    lesson_folder("01_a", "x = 1")
    (tmp_path / "mine" / "masks").mkdir(parents=True)
    assert main(["run", "--out", str(tmp_path / "mine")]) == 1
    assert "holds something else than a run" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["masks"]


def test_a_path_parameter_is_meant_from_where_the_command_was_given(lesson_folder, tmp_path, monkeypatch):
    lesson_folder("05_a", "print(to_predict)", parameters=PARAMETERS + '\nto_predict = ""')
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--out", "run", "-p", "to_predict=2024"]) == 0
    assert str(tmp_path / "2024") in (tmp_path / "run" / "notebooks" / "05_a.ipynb").read_text()


def test_a_dead_kernel_is_said_and_not_waited_for(lesson_folder, tmp_path, capsys):
    lesson_folder("01_dies", "import os\nos._exit(1)")
    assert main(["run", "--out", str(tmp_path / "run")]) == 1
    assert "lesson 01_dies stopped" in capsys.readouterr().err


def test_a_full_disk_is_one_clear_line(lesson_folder, tmp_path, capsys, monkeypatch):
    lesson_folder("01_a", "x = 1")

    def full(*_):
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(course, "write_text", full)
    assert main(["run", "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in error and "free some space" in error
    assert not (tmp_path / "run" / "notebooks" / "01_a.ipynb").exists()


def test_a_disk_that_fills_up_inside_a_lesson_is_said(lesson_folder, tmp_path, capsys):
    lesson_folder("01_a", "raise OSError(28, 'No space left on device')")
    assert main(["run", "--out", str(tmp_path / "run")]) == 1
    assert "the disk is full: free some space" in capsys.readouterr().err


def test_an_interrupted_run_stops_with_status_130_and_leaves_no_finished_looking_lesson(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "skinlib", "run", "--only", "01", "--quick", "--out", str(out)]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path
    )
    for _ in range(600):
        if list(out.glob("notebooks/*.unfinished.ipynb")):
            break
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGINT)
    _, error = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "skinlib: interrupted" in error and "Traceback" not in error
    assert not list(out.glob("notebooks/01_data_exploration.*html"))
    assert not (out / "notebooks" / "01_data_exploration.ipynb").exists()


def run_quick(tmp_path, *arguments):
    command = [sys.executable, "-m", "skinlib", "run", "--quick", "--out", str(tmp_path / "run"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return tmp_path / "run", done.stdout


def check_run_folder(run, dataset):
    expected = [
        "models/unet_model_lightweight.keras", "models/melanoma_cnn_model.keras", "segmented/crops.csv",
        "figures/confusion_matrix.png", "figures/classification_report.png", "metrics_summary.txt",
        "to_predict_results.csv", "index.html", "notebooks/05_evaluation.ipynb", "notebooks/05_evaluation.html",
    ]  # fmt: skip
    assert [name for name in expected if not (run / name).is_file()] == []
    assert len(list((run / "classified_results").glob("*.jpg"))) == 8
    for side in ("train", "test"):
        for name in ("benign", "malignant"):
            assert (run / "segmented" / side / name).is_dir()
    assert not [path for path in run.rglob("*") if "unfinished" in path.name]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["dataset"] == dataset
    for stage in ("segmentation", "classification"):
        assert metrics[stage]["n"] > 10
        for quantity in (value for name, value in metrics[stage].items() if name != "n"):
            assert list(quantity) == ["value", "low", "high"]
            assert quantity["value"] is None or quantity["low"] <= quantity["value"] <= quantity["high"]
    return metrics


def test_lesson_5_runs_alone_and_twice_the_same(tmp_path):
    """It finds no models, makes them all, and a second run in another folder measures exactly the same."""
    results = []
    for name in ("first", "second"):
        run, printed = run_quick(tmp_path / name, "--only", "05", "--seed", "3")
        assert "05_evaluation" in printed and "test Dice" in printed
        results.append(check_run_folder(run, "synthetic"))
        assert list(results[-1].pop("seconds")) == ["05_evaluation"]
    assert results[0] == results[1]


def test_the_whole_course_runs_on_real_images(tmp_path, real_isic2018):
    run, printed = run_quick(tmp_path, "--dataset", "isic2018", "--data-dir", str(real_isic2018))
    metrics = check_run_folder(run, "isic2018")
    assert list(metrics["seconds"]) == LESSONS
    assert all(lesson in printed for lesson in LESSONS)
    assert all(f'href="notebooks/{lesson}.html"' in (run / "index.html").read_text() for lesson in LESSONS)
    # What the lessons write is about the data they ran on.
    pictures = [line.split(",")[0] for line in (run / "to_predict_results.csv").read_text().splitlines()[1:]]
    assert all(name.startswith("ISIC_") for name in pictures)
