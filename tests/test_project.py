"""The repository itself: locks in step, addresses in one place, nothing that may not be in it."""

import json
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from skinlib import network_report, plots
from skinlib.colour import SKIN_TONES, median_colours, skin_tone, skin_tone_angle
from tools import environment, figures, links

PROJECT = links.PROJECT


def tracked_files():
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, cwd=PROJECT)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [PROJECT / name for name in listed.stdout.split("\0") if name and (PROJECT / name).is_file()]


def test_the_lock_has_hashes_and_names_no_address():
    lock = (PROJECT / "requirements.lock").read_text()
    assert "://" not in lock
    pins = environment.pins()
    assert len(pins) > 100
    assert all(re.match(r"[A-Za-z0-9._-]+==[^ ]+( ; .+)?$", pin) for pin in pins)
    assert lock.count("--hash=sha256:") > len(pins)


def test_the_lock_satisfies_the_lower_bounds():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    versions = [re.match(r"([A-Za-z0-9._-]+)==([\d.]+)", pin).groups() for pin in environment.pins()]
    for bound in wanted:
        name, least = re.match(r"([A-Za-z0-9._-]+)>=([\d.]+)$", bound).groups()
        locked = [version for pinned, version in versions if pinned == name]
        assert locked, name
        as_numbers = lambda text: [int(part) for part in text.split(".")]  # noqa: E731
        assert all(as_numbers(version) >= as_numbers(least) for version in locked), name


def test_the_conda_environment_is_in_step_with_the_lock():
    import yaml

    assert (PROJECT / "environment.yml").read_text() == environment.environment(), "run `make lock`"
    parts = yaml.safe_load((PROJECT / "environment.yml").read_text())["dependencies"]
    assert parts[:2] == ["python>=3.11,<3.14", "pip"]
    assert parts[2]["pip"][-1] == "--editable ."


def test_addresses_are_those_of_pyproject(monkeypatch, tmp_path, capsys):
    assert links.main(["--check"]) == 0
    stray = tmp_path / "CITATION.cff"
    stray.write_text('repository-code: "https://github.com/some/other"\n')
    monkeypatch.setattr(links, "pages", lambda: [stray])
    assert links.main(["--check"]) == 1
    assert "CITATION.cff: an address is not" in capsys.readouterr().out


def test_an_address_is_rewritten_everywhere_and_others_stay():
    text = (
        "git clone https://github.com/a/b.git\n[badge](https://colab.research.google.com/github/a/b/blob/main/"
        'notebooks/01.ipynb) "https://github.com/a/b" https://github.com/a/b/actions/x https://github.com/a/b\n'
        "https://github.com/a/b-tools https://github.com/ImageMarkup/isic-cli "
    )
    assert links.written_names(text) == {"a/b"}
    assert links.written_names('repository-code: "https://github.com/c/d"\n') == {"c/d"}
    assert links.written_names("!git clone --depth 1 https://github.com/e/f.g /content\n") == {"e/f.g"}
    mended = links.with_address(text, {"a/b"}, "new/name-2")
    assert mended.count("new/name-2") == 5 and mended.count("a/b") == 1 and "ImageMarkup/isic-cli" in mended
    assert links.with_address(text, {"a/b"}, "a/b") == text


def test_nothing_large_real_or_private_is_tracked():
    for path in tracked_files():
        assert path.stat().st_size < 2e6, path
        assert not re.match(r"ISIC_\d{7}.*\.(jpg|jpeg|png)$", path.name), path
    assert sum(path.stat().st_size for path in tracked_files()) < 25e6


def test_make_without_a_fitting_python_says_so_in_one_line(tmp_path):
    for name in ("python3", "python3.13", "python3.12", "python3.11", "python"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(PROJECT / name, tmp_path / name)
    done = subprocess.run(
        [shutil.which("make"), "course"], cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13" in done.stderr.splitlines()[0]
    assert not (tmp_path / ".venv").exists()


def test_an_older_python_is_told_so_by_the_package():
    program = "import sys; sys.version_info = (3, 10, 0); import skinlib"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 1
    assert done.stderr.startswith("skinlib needs Python 3.11 or newer") and "Traceback" not in done.stderr


def test_readme_shows_only_pictures_that_exist_and_are_made():
    shown = set(re.findall(r"figures/([\w.]+\.(?:png|jpg))", (PROJECT / "README.md").read_text()))
    measured = (json.loads(path.read_text()) for path in (PROJECT / network_report.STORE).glob("*.json"))
    assert shown and shown <= {*figures.SHOWN, *(network_report.picture(result) for result in measured)}
    assert all((PROJECT / "figures" / name).is_file() for name in figures.SHOWN)


def test_imports_run_one_way():
    order = [
        {"files", "progress", "colour", "quiet", "annotators"},
        {"painting", "isic", "pixels", "processes", "duplicates", "fetch", "inference", "devices", "muon"},
        {"lesion", "artefacts", "store", "sources", "distributed"}, {"synthetic"}, {"dataset", "checkpoint"},
        {"training", "plots"}, {"unet", "segmentation", "evaluation", "plain"}, {"cnn"},  # which has the U-Net inside
        {"stages", "predict", "leakage", "trial", "network_report"},
        {"data_benchmark", "inference_benchmark"}, {"network_benchmark"}, {"course", "benchmark"}, {"__main__"},
    ]  # fmt: skip
    floor = {name: level for level, names in enumerate(order) for name in names}
    modules = {path.stem: path for path in (PROJECT / "skinlib").glob("*.py") if path.stem != "__init__"}
    assert set(modules) == set(floor)
    for name, path in modules.items():
        text = path.read_text()
        used = re.findall(r"^\s*from skinlib\.(\w+) import", text, re.MULTILINE)
        for names in re.findall(r"^\s*from skinlib import ([\w, ]+)", text, re.MULTILINE):
            used += [part.split()[0] for part in names.split(",")]
        for other in set(used) & set(floor):
            assert floor[other] < floor[name], f"{name} imports {other}"


def test_a_scoreboard_promises_in_text_and_measures_on_the_page():
    board = plots.Scoreboard("U-Net", [("Dice", 0.952, (0.93, 0.98), (0.94, 0.96)), ("worse", 0.5, (0.9, 1.0))])
    assert repr(board).splitlines() == ["U-Net", "  Dice: within 0.930–0.980", "  worse: 0.500"]
    page = board._repr_html_()
    assert "0.952" in page and "0.940 to 0.960" in page
    assert plots.within(3, 0, 8) == "within 0–8" and plots.within(9, 0, 8) == "9"
    assert plots.about(0.36) == "about 35 %"


def test_skin_tone_groups(disc):
    assert [skin_tone(angle) for angle in (60, 50, 30, 20, 0, -40)] == [name for name, _ in SKIN_TONES]
    lesion, skin = median_colours(*disc)
    assert lesion * 255 == pytest.approx([90, 60, 40]) and skin * 255 == pytest.approx([220, 180, 160])
    assert all(skin_tone(angle) for angle in (-180, 180, skin_tone_angle([80 / 255, 80 / 255, 95 / 255])))
    light, dark = skin_tone_angle([0.9, 0.8, 0.72]), skin_tone_angle([0.35, 0.22, 0.15])
    assert light > 41 and dark < -10
