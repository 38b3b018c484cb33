"""`skinlib data` against miniature hosts in the official shapes: whole, in part, small, interrupted, and by hand."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import cv2
import filelock
import numpy as np
import pandas as pd
import pytest
from data_host import BUCKET, DATAVERSE, OLD_BUCKET, DataHost, painted, serve_set, sha256, zipped

from skinlib import dataset, fetch, isic, sources, synthetic
from skinlib.__main__ import main
from skinlib.fetch import FetchError, Patience, Web
from skinlib.files import CourseError, read_image, read_mask

SETS = ("isic2016", "isic2018", "ham10000")
IMAGES_2018 = f"{BUCKET}/2018/ISIC2018_Task1-2_Training_Input.zip"
MASKS_2018 = f"{BUCKET}/2018/ISIC2018_Task1_Training_GroundTruth.zip"


@pytest.fixture(scope="module")
def lesions():
    return painted(12)


@pytest.fixture
def host(monkeypatch, lesions):
    with DataHost() as host:
        monkeypatch.setenv(fetch.MIRROR, host.address)
        for name in SETS:
            serve_set(host, monkeypatch, name, lesions)
        yield host


@pytest.fixture
def get(host, tmp_path):
    """Fetch with little patience; returns the folder and what would be printed."""

    def get(name, to=tmp_path / "set", **options):
        web = Web(Patience(connect=1, read=1, tries=6, pause=0.01, longest_pause=1))
        return to, sources.fetch_dataset(name, to, web=web, **options)

    return get


def plain(error):
    """A message without the mirror that only these tests have."""
    return re.sub(r" \(sought at [^)]*\)", "", str(error))


def manifest(root):
    return json.loads((root / "manifest.json").read_text())


def images_in(root):
    return {path.stem: path for path in root.rglob("*.jpg")}


def masks_in(root):
    return {path.name[:12]: path for path in root.rglob("*.png")}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("options", [{}, {"thumbnails": True}, {"limit": 6}])
def test_a_set_is_fetched_and_can_be_read(get, lesions, name, options):
    root, lines = get(name, **options)
    number = options.get("limit", 12)
    records = {record.image_id: record for record in dataset.find_records(name, root)}
    assert len(records) == len(images_in(root)) == number
    for image_id, record in records.items():
        image, mask, label = lesions[image_id]
        assert record.label == label
        found = read_image(record.image)
        assert found.shape == ((60, 80, 3) if "thumbnails" in options else image.shape)
        fitting = cv2.resize(np.float32(mask), found.shape[1::-1], interpolation=cv2.INTER_AREA) >= 0.5
        assert (read_mask(record.mask) == fitting).all()
    assert lines[0].startswith(f"{name}: {number} images ({'thumbnails' if 'thumbnails' in options else 'full size'})")
    written = manifest(root)
    assert written["complete"] and not (root / sources.DOWNLOADS).exists()
    for entry in [*written["files"].values(), *written["images"].values()]:
        assert entry["address"].startswith("https://") and re.match(r"(sha256|md5):\w+$", entry["checksum"])
        assert re.match(r"\d{4}-\d\d-\d\d$", entry["date"]) and entry["bytes"] > 0
    assert "To cite: " in (root / "attribution.txt").read_text()
    licence = "CC-BY-NC-4.0.txt" if name == "ham10000" and "thumbnails" not in options else "CC0-1.0.txt"
    assert (root / "licences" / licence).is_file()
    assert not [path for path in root.rglob("*") if "unfinished" in path.name or path.suffix == ".part"]


def test_what_is_complete_asks_nobody_again(get, host):
    get("isic2018")
    host.requests.clear()
    root, lines = get("isic2018")
    assert host.requests == [] and lines[0].startswith("isic2018: 12 images")
    next(iter(images_in(root).values())).unlink()  # somebody took one away
    get("isic2018")
    assert len(images_in(root)) == 12 and len(host.asked("Training_Input")) == 1


def test_labels_and_facts_come_from_the_archive(get):
    root, _ = get("isic2018")
    table = pd.read_csv(root / "metadata.csv", dtype=str)
    assert list(table.columns) == list(sources.COLUMNS) and len(table) == 12
    assert set(table["diagnosis_1"]) == {"Benign", "Malignant"} and set(table["age_approx"]) == {"45"}
    assert table["lesion_id"].str.startswith("IL_").all() and set(table["diagnosis"]) == {"Nevus"}
    assert "Hospital Clínic de Barcelona: 6 images" in (root / "attribution.txt").read_text(encoding="utf-8")


def test_the_challenges_own_label_stands_where_the_archives_differs(get, host, lesions):
    for image in host.images.values():
        image["metadata"]["clinical"]["diagnosis_1"] = "Indeterminate"
    root, _ = get("isic2016", thumbnails=True)
    table = pd.read_csv(root / "metadata.csv", dtype=str)
    labels = {image_id: ("Benign", "Malignant")[label] for image_id, (_, _, label) in lesions.items()}
    assert dict(zip(table["isic_id"], table["diagnosis_1"], strict=True)) == labels


@pytest.mark.parametrize("paging", ["", "repeats", "drops"])
def test_pages_that_repeat_or_end_early_lose_nothing(get, host, paging):
    host.paging = paging
    _, lines = get("isic2018")
    assert "0 without such a label" in lines[0] and len(host.asked("/images/search/")) <= 3
    singly = [path for path, _ in host.requests if re.search(r"/images/ISIC_\d+/$", path)]
    assert len(singly) == (8 if paging else 0)


def test_an_image_that_the_archive_does_not_know_has_no_label(get, host):
    del host.images["ISIC_0000003"]
    host.collections["63"].remove("ISIC_0000003")
    root, lines = get("isic2018")
    assert "1 without such a label" in lines[0]
    assert {r.image_id: r.label for r in dataset.find_records("isic2018", root)}["ISIC_0000003"] == isic.UNKNOWN


def test_a_limit_keeps_the_labels_shares_and_grows(get, host, lesions):
    root, _ = get("isic2018", limit=4)
    first = set(images_in(root))
    assert all(wanted for path, wanted in host.requests if path == IMAGES_2018)
    host.requests.clear()
    get("isic2018", limit=4)
    get("isic2018", limit=2)
    assert host.requests == []
    get("isic2018", limit=8)
    assert first < set(images_in(root)) and len(images_in(root)) == 8
    assert len([1 for path, _ in host.requests if path == IMAGES_2018]) < 12
    get("isic2018")
    assert len(images_in(root)) == 12 and manifest(root)["limit"] is None


def test_the_choice_is_stratified_and_nested():
    labels = {f"ISIC_{n:07d}": "Malignant" if n % 5 == 0 else "Benign" if n % 11 else "" for n in range(1000)}
    for number in (10, 50, 100, 333, 1000):
        chosen = sources.choose(labels, number)
        assert len(set(chosen)) == number
        for label in ("Malignant", "Benign", ""):
            share = sum(labels[name] == label for name in chosen) / number
            assert share == pytest.approx(sum(text == label for text in labels.values()) / 1000, abs=1.5 / number)
    assert set(sources.choose(labels, 50)) < set(sources.choose(labels, 60))
    assert sources.choose(labels, 5) != sorted(labels)[:5]


TROUBLE = ["cut", "stall", 503, "cut", 429]


@pytest.mark.parametrize("options", [{}, {"limit": 6}, {"thumbnails": True}])
def test_passing_trouble_on_every_host_changes_nothing(get, host, tmp_path, options):
    calm, _ = get("isic2018", **options)
    pictures = {name: path.read_bytes() for name, path in images_in(calm).items()}
    host.stall = 1.5
    names = [MASKS_2018, IMAGES_2018, "api.isic-archive.com/api/v2/images/search/"]
    host.trouble = {name: list(TROUBLE) for name in names}
    for name in pictures:
        host.trouble[f"content.isic-archive.com/{name}/thumbnail.jpg"] = ["cut", "another file"]
    rough, _ = get("isic2018", tmp_path / "rough", **options)
    assert {name: path.read_bytes() for name, path in images_in(rough).items()} == pictures
    assert pd.read_csv(calm / "metadata.csv").equals(pd.read_csv(rough / "metadata.csv"))


def test_a_dead_host_is_helped_out_by_its_mirror(get, host):
    for name in [name for name in host.files if name.startswith(BUCKET)]:
        del host.files[name]
    root, _ = get("isic2016")
    assert len(images_in(root)) == 12
    assert all(OLD_BUCKET in entry["address"] for entry in manifest(root)["files"].values())


def test_a_call_that_failed_is_taken_up_by_the_next(get, host, tmp_path):
    host.trouble = {name: [503] * 6 for name in (IMAGES_2018, IMAGES_2018.replace(BUCKET, OLD_BUCKET))}
    with pytest.raises(FetchError) as error:
        get("isic2018")
    assert plain(error.value) == (
        "isic-archive.s3.amazonaws.com answered 503 Service Unavailable; isic-challenge-data.s3.amazonaws.com answered "
        "503 Service Unavailable. What has come is kept, and the same command goes on from there. By hand: get "
        "ISIC2018_Task1-2_Training_Input.zip with a browser from https://challenge.isic-archive.com/data, put it into "
        f"{tmp_path / 'set'} and run this again"
    )
    root = tmp_path / "set"
    assert not manifest(root)["complete"] and len(masks_in(root)) == 12 and not images_in(root)
    host.requests.clear()
    get("isic2018")
    assert len(images_in(root)) == 12 and not host.asked("GroundTruth")


def test_archives_put_there_by_hand_are_used_and_kept(get, host, tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    for file in sources.SOURCES["ham10000"].files:
        if file.holds != "table":
            (root / file.name).write_bytes(host.files[file.urls[0].removeprefix("https://")])
    get("ham10000")
    assert len(images_in(root)) == 12 and len(list(root.glob("*.zip"))) == 3
    assert [path for path, _ in host.requests] == [f"{DATAVERSE}/4338392"]


def test_a_wrong_archive_put_there_by_hand_is_refused(get, tmp_path):
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "ISIC2018_Task1-2_Training_Input.zip"
    path.write_bytes(b"half of it")
    with pytest.raises(FetchError, match=r"Training_Input\.zip is not the official file \(its checksum is wrong\)"):
        get("isic2018")
    assert path.read_bytes() == b"half of it"


def test_folders_unpacked_by_hand_are_taken_as_they_are(get, host, tmp_path):
    root = tmp_path / "set"
    for file in sources.SOURCES["isic2018"].files:
        (tmp_path / file.name).write_bytes(host.files[file.urls[0].removeprefix("https://")])
        fetch.unpack(tmp_path / file.name, root / file.folder, lambda name: name.startswith("ISIC_"))
    get("isic2018")
    assert len(pd.read_csv(root / "metadata.csv")) == 12
    assert not host.asked("amazonaws")


def test_without_the_archive_a_table_put_there_by_hand_will_do(get, host, tmp_path):
    host.trouble["api.isic-archive.com/api/v2/images/search/"] = [503] * 6
    with pytest.raises(
        FetchError, match=r"^api\.isic-archive\.com .*answered 503 .*put a table metadata\.csv with the col"
    ):
        get("isic2018")
    root = tmp_path / "set"
    rows = "".join(f"ISIC_{n:07d};{'Benign' if n else 'Malignant'}\n" for n in range(12))
    (root / "metadata.csv").write_text(f"isic_id;diagnosis_1\n{rows}", encoding="utf-8-sig")
    _, lines = get("isic2018")
    assert "11 benign, 1 malignant" in lines[0]


def test_small_pictures_whose_masks_do_not_fit_are_left_out_and_named(get, host, lesions):
    image = lesions["ISIC_0000002"][0]
    host.files["content.isic-archive.com/ISIC_0000002/thumbnail.jpg"] = cv2.imencode(".jpg", image[:60, :60])[
        1
    ].tobytes()
    root, lines = get("isic2018", thumbnails=True)
    assert lines[0] == (
        "left out: ISIC_0000002: ISIC_0000002_segmentation.png is 160×120: not of the shape of its picture"
    )
    for name in ("ISIC_0000003", "ISIC_0000004"):
        del host.files[f"content.isic-archive.com/{name}/thumbnail.jpg"]
        (root / "ISIC2018_Task1-2_Training_Input" / f"{name}.jpg").unlink()
    with pytest.raises(FetchError, match="of 12 images could not be fetched"):
        get("isic2018", thumbnails=True)


def test_tables_are_tables_before_they_get_their_name(get, host, tmp_path):
    host.files[f"{DATAVERSE}/4338392"] = b"<html>Please log in</html>"
    with pytest.raises(FetchError, match=r"dataverse\.harvard\.edu .*sent something else as HAM10000_metadata\.csv"):
        get("ham10000")
    assert [path.name for path in (tmp_path / "set").iterdir() if path.suffix == ".csv"] == []


@pytest.mark.parametrize(
    ("member", "words"),
    [(("../../climbs.jpg", b"x"), "climbs out"), (("ISIC_9.jpg", b"0" * 5_000_000), "swells")],
)
def test_a_trap_in_an_archive_stops_the_set(get, host, monkeypatch, tmp_path, member, words):
    content = zipped({"ISIC_1.jpg": b"x"}, "", [member])
    files = tuple(
        file._replace(checksum=sha256(content)) if file.holds == "images" else file
        for file in sources.SOURCES["isic2018"].files
    )
    monkeypatch.setitem(sources.SOURCES, "isic2018", sources.SOURCES["isic2018"]._replace(files=files))
    host.files[IMAGES_2018] = content
    with pytest.raises(FetchError, match=words):
        get("isic2018")
    assert not [path for path in tmp_path.rglob("*") if "climbs" in path.name or path.suffix == ".jpg"]


def test_folders_that_hold_something_else_are_refused(get, tmp_path):
    root, _ = get("isic2018", limit=2)
    with pytest.raises(CourseError, match=r"holds isic2018 \(full size\) already: name another folder"):
        get("isic2016")
    with pytest.raises(CourseError, match=r"holds isic2018 \(full size\) already: name another folder"):
        get("isic2018", thumbnails=True)
    (root / "manifest.json").write_text("{")
    with pytest.raises(CourseError, match=r"manifest\.json is none that this command has written"):
        get("isic2018")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(CourseError, match="holds other things: name a new or empty folder"):
        get("isic2018", tmp_path / "other")
    with pytest.raises(CourseError, match="is a file"):
        get("isic2018", tmp_path / "other" / "thesis.txt")


def test_space_is_looked_at_before_anything_is_fetched(get, host, monkeypatch, tmp_path):
    source = sources.SOURCES["isic2018"]._replace(size=10**15)
    monkeypatch.setitem(sources.SOURCES, "isic2018", source)
    with pytest.raises(FetchError, match=r"isic2018 needs 2040000\.0 GB.*or fetch less, with --thumbnails or --limit"):
        get("isic2018")
    assert host.requests == [] and not (tmp_path / "set").exists()


# -- what is there already -------------------------------------------------------------------------------------------


def test_part_of_a_folder_is_not_taken_for_the_whole(get, tmp_path):
    root, _ = get("isic2018", limit=7)
    (root / "manifest.json").unlink()  # as after a kill -9 before it was written
    _, lines = get("isic2018")
    assert lines[0] == "unpacked by hand, and not verified: ISIC2018_Task1_Training_GroundTruth.zip"
    assert lines[1].startswith("isic2018: 12 images (full size), 12 masks") and len(images_in(root)) == 12


def test_a_broken_picture_that_lies_there_is_fetched_again(get, tmp_path):
    for options in ({"limit": 6}, {"thumbnails": True}):
        root, _ = get("isic2018", tmp_path / str(len(options)) / next(iter(options)), **options)
        name, path = next(iter(images_in(root).items()))
        whole = path.read_bytes()
        path.write_bytes(whole[:500])
        masks_in(root)[name].write_bytes(b"")
        (root / "metadata.csv").unlink()
        get("isic2018", root, **options)
        assert path.read_bytes() == whole and len(images_in(root)) == (6 if "limit" in options else 12)
        if "thumbnails" in options:
            assert read_mask(masks_in(root)[name]).shape == (60, 80)


def test_a_login_page_does_not_cost_what_has_come(get, host, tmp_path):
    part = tmp_path / "set" / sources.DOWNLOADS / ".ISIC2018_Task1-2_Training_Input.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(host.files[IMAGES_2018][:5000])
    for name in (IMAGES_2018, IMAGES_2018.replace(BUCKET, OLD_BUCKET)):
        host.trouble[name] = ["login page"]
    with pytest.raises(FetchError, match=r"sent something else than ISIC2018_Task1-2_Training_Input\.zip"):
        get("isic2018")
    assert len(part.read_bytes()) == 5000
    host.requests.clear()
    get("isic2018")
    assert (IMAGES_2018, "bytes=5000-") in host.requests


def test_two_at_once_are_refused(get, tmp_path):
    (tmp_path / "set").mkdir()
    with (
        filelock.FileLock(tmp_path / "set" / sources.LOCK),
        pytest.raises(CourseError, match="another `skinlib data` is at work in"),
    ):
        get("isic2018")
    get("isic2018")


def test_a_painted_set_is_not_mixed_with_photographs(get, tmp_path):
    synthetic.export(tmp_path / "set", 3, 64)
    before = {path: path.read_bytes() for path in (tmp_path / "set").rglob("*") if path.is_file()}
    with pytest.raises(CourseError, match="holds other things"):
        get("isic2018", thumbnails=True)
    assert {path: path.read_bytes() for path in (tmp_path / "set").rglob("*") if path.is_file()} == before


def test_a_table_that_a_person_put_there_is_kept(get, host, tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    rows = "".join(f"ISIC_{n:07d},{'Benign' if n else 'Malignant'},note {n}\n" for n in range(20))
    (root / "metadata.csv").write_text(f"isic_id,diagnosis_1,my_notes\n{rows}")
    get("isic2018", limit=3)
    table = pd.read_csv(root / "metadata.csv", dtype=str)
    assert len(table) == 20 and list(table["my_notes"]) == [f"note {n}" for n in range(20)]
    host.trouble["api.isic-archive.com/api/v2/images/search/"] = [503] * 6
    _, lines = get("isic2018", limit=6)
    assert "6 images" in lines[0]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metadata.csv").write_text("mine")
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(CourseError, match="holds other things"):
        get("isic2018", tmp_path / "other")


def test_lesions_of_isic2016_are_asked_for_but_not_waited_for(get, host, tmp_path):
    root, _ = get("isic2016")
    assert pd.read_csv(root / "metadata.csv", dtype=str)["lesion_id"].str.startswith("IL_").all()
    host.trouble["api.isic-archive.com/api/v2/images/search/"] = [503] * 6
    root, lines = get("isic2016", tmp_path / "again")
    assert "without the ISIC Archive's lesion and patient numbers" in lines[0] and len(images_in(root)) == 12


def test_what_was_refused_once_is_asked_for_again(get, host):
    name = "content.isic-archive.com/ISIC_0000005/thumbnail.jpg"
    kept = host.files.pop(name)
    root, lines = get("isic2018", thumbnails=True)
    assert lines[0].startswith("left out: ISIC_0000005: content.isic-archive.com") and len(images_in(root)) == 11
    host.files[name] = kept
    _, lines = get("isic2018", thumbnails=True)
    assert len(images_in(root)) == 12 and lines[0].startswith("isic2018: 12 images")
    host.trouble[name] = [403]
    next(path for path in images_in(root).values() if path.stem == "ISIC_0000005").unlink()
    with pytest.raises(FetchError, match=r"1 of 12 images could not be fetched .*403"):
        get("isic2018", thumbnails=True)
    get("isic2018", thumbnails=True)
    assert len(images_in(root)) == 12


def test_a_limit_does_not_cost_the_beginning_of_the_whole(get, host, tmp_path):
    part = tmp_path / "set" / sources.DOWNLOADS / ".ISIC2018_Task1-2_Training_Input.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(host.files[IMAGES_2018][:5000])
    get("isic2018", limit=2)
    assert part.is_file()
    get("isic2018")
    assert not part.parent.exists()


def test_no_image_at_all_is_no_success(get, host, monkeypatch, tmp_path):
    content = zipped({"readme.txt": b"nothing here"})
    for name in (IMAGES_2018, IMAGES_2018.replace(BUCKET, OLD_BUCKET)):
        host.files[name] = content
    with pytest.raises(FetchError, match="none of the images of isic2018"):
        get("isic2018", limit=3)


def test_the_second_address_is_asked_for_a_table_too(get, host):
    name = "2016/ISBI2016_ISIC_Part3_Training_GroundTruth.csv"
    host.files[f"{BUCKET}/{name}"] = b"<html>Log in</html>"
    root, _ = get("isic2016")
    assert OLD_BUCKET in manifest(root)["files"]["ISBI2016_ISIC_Part3_Training_GroundTruth.csv"]["address"]


@pytest.mark.parametrize(
    "answer",
    [
        {"results": 5}, {"results": ["x"]}, {"results": [{"isic_id": []}]}, {"results": [{}]},
        {"results": [{"isic_id": "ISIC_0000000", "metadata": "x"}]}, {"results": [], "next": 5},
        {"results": [{"isic_id": "ISIC_0000000", "metadata": {"clinical": ["x"]}}]},
    ],
)  # fmt: skip
def test_answers_in_another_form_are_one_line(get, host, monkeypatch, answer):
    monkeypatch.setattr(host, "api", lambda path, query: json.dumps(answer).encode())
    with pytest.raises(FetchError, match=r"^api\.isic-archive\.com .*sent an answer in an unknown form"):
        get("isic2018")


# -- as a new user would ---------------------------------------------------------------------------------------------


def test_the_command_says_what_there_is_and_what_is_next(host, tmp_path, capsys):
    assert main(["data", "isic2016", "--to", str(tmp_path / "a"), "--limit", "6"]) == 0
    printed = capsys.readouterr().out
    assert "6 images (full size)" in printed and "the course wants 100 images or more" in printed
    assert main(["data", "isic2017", "--to", str(tmp_path / "b")]) == 1
    assert main(["data", "isic2016", "--to", str(tmp_path / "c"), "--limit", "0"]) == 1
    assert main(["data", "isic2016", "--to", str(tmp_path / "d"), "--size", "64"]) == 1
    assert main(["data", "synthetic", "--to", str(tmp_path / "e"), "--thumbnails"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4 and all(line.startswith("skinlib: ") for line in errors)
    assert "isic2016, isic2018, ham10000" in errors[0]


def test_offline_it_fails_within_seconds_and_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv(fetch.MIRROR, raising=False)
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    pauses = []
    monkeypatch.setattr(fetch, "time", SimpleNamespace(sleep=pauses.append))
    assert main(["data", "isic2016", "--to", str(tmp_path / "set")]) == 1
    assert pauses == [1, 1]  # one more try for either address
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "isic-archive.s3.amazonaws.com did not answer" in error
    assert "isic-challenge-data.s3.amazonaws.com did not answer" in error
    for file in sources.SOURCES["isic2016"].files:
        assert file.name in error
    assert "By hand" in error and str(tmp_path / "set") in error


PROGRAM = """
import json, sys
from skinlib import sources
from skinlib.__main__ import main
known = json.loads(sys.argv[1])
source = sources.SOURCES["isic2018"]
files = tuple(file._replace(checksum=known[file.name], members=12) for file in source.files)
sources.SOURCES["isic2018"] = source._replace(files=files, size=1, images=12)
sys.exit(main(["data", "isic2018", "--to", sys.argv[2], *sys.argv[3:]]))
"""


@pytest.mark.parametrize("options", [[], ["--limit", "9"], ["--thumbnails"]])
def test_interrupted_by_ctrl_c_and_resumed(host, tmp_path, options):
    known = json.dumps({file.name: file.checksum for file in sources.SOURCES["isic2018"].files})
    command = [sys.executable, "-c", PROGRAM, known, str(tmp_path / "set"), *options]
    host.slowly = 0.5
    started = subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    awaited = {"": IMAGES_2018, "--limit": IMAGES_2018, "--thumbnails": "thumbnail.jpg"}[options[0] if options else ""]
    deadline = time.monotonic() + 60

    def under_way():
        if options:
            return len(host.asked(awaited)) >= 4
        return any(part.stat().st_size for part in (tmp_path / "set").rglob(".ISIC2018_Task1-2*.part"))

    while not under_way() and time.monotonic() < deadline:
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    _, error = started.communicate(timeout=60)
    assert started.returncode == 130 and error.strip().splitlines()[-1].startswith("skinlib: interrupted")
    assert "Traceback" not in error
    kept = {name: path.read_bytes() for name, path in images_in(tmp_path / "set").items()}
    for content in kept.values():
        assert sources.is_whole("a.jpg", content)
    assert len(kept) < 9 and not manifest(tmp_path / "set")["complete"]
    host.slowly = 0
    before = len(host.asked("thumbnail.jpg"))
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = images_in(tmp_path / "set")
    assert len(found) == (9 if "--limit" in options else 12)
    assert all(found[name].read_bytes() == content for name, content in kept.items())
    if not options:
        assert host.asked(awaited)[-1][1].startswith("bytes=")  # it went on in the middle of the archive
    if "--thumbnails" in options:
        assert len(host.asked("thumbnail.jpg")) - before == 12 - len(kept)


def test_ctrl_c_does_not_wait_for_silent_hosts(host, tmp_path):
    known = json.dumps({file.name: file.checksum for file in sources.SOURCES["isic2018"].files})
    host.stall = 600
    for number in range(12):
        host.trouble[f"content.isic-archive.com/ISIC_{number:07d}/thumbnail.jpg"] = ["stall"]
    command = [sys.executable, "-c", PROGRAM, known, str(tmp_path / "set"), "--thumbnails"]
    started = subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(host.asked("thumbnail.jpg")) < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    _, error = started.communicate(timeout=60)  # waiting for the hosts would take minutes
    assert started.returncode == 130 and "Traceback" not in error


def test_every_official_file_has_a_checksum_or_is_a_table_that_is_read():
    for name, source in sources.SOURCES.items():
        assert {file.holds for file in source.files} >= {"images", "masks"}, name
        for file in source.files:
            assert (file.checksum is None) == (file.holds == "table"), file.name
            assert all(url.startswith("https://") for url in file.urls)
        assert source.licence in sources.LICENCE_FILES
    for file in sources.LICENCE_FILES.values():
        assert "Creative Commons" in (sources.LICENCES / file).read_text(encoding="utf-8")
