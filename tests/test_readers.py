"""The official folder layouts and their tables, as they are and as people really have them."""

import dataclasses
import io
import re
import shutil
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from skinlib import dataset, isic
from skinlib.dataset import find_records, groups_on_both_sides, load_dataset, resize_image
from skinlib.files import CourseError, write_image
from skinlib.isic import FACTS, HAM10000_MASKS, ISIC2018_IMAGES, ISIC2018_MASKS

SIZE = 16
DIAGNOSES = ("nv", "mel", "bcc", "akiec", "bkl", "df", "vasc")
MASK = np.add.outer(np.arange(24), np.arange(32)) < 20


def picture(name):
    """Noise, another for each name: equal pictures would be taken for one photograph."""
    return np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (24, 32, 3), np.uint8)


def write_pair(images, masks, name, ending="_segmentation"):
    write_image(images / f"{name}.png", picture(name))
    (images / f"{name}.png").rename(images / f"{name}.jpg")  # the content decides, not the name
    if masks:
        write_image(masks / f"{name}{ending}.png", MASK)


@pytest.fixture
def isic2016(tmp_path):
    """Thirty training and eight test images in the official folders, with the official names."""
    root = tmp_path / "isic2016"
    for word, numbers in (("Training", range(30)), ("Test", range(100, 108))):
        folder = root / f"ISBI2016_ISIC_Part1_{word}_Data"
        lines = []
        for number in numbers:
            name = f"ISIC_9{number:06}"
            write_pair(folder, root / f"ISBI2016_ISIC_Part1_{word}_GroundTruth", name, "_Segmentation")
            words = ("benign", "malignant") if word == "Training" else ("0.0", "1.0")
            lines.append(f"{name},{words[number % 2]}\n")
        (root / f"ISBI2016_ISIC_Part3_{word}_GroundTruth.csv").write_text("".join(lines))
    return root


@pytest.fixture
def ham10000(tmp_path):
    """Forty images of twenty lesions, two of each, in the official folders."""
    root = tmp_path / "ham10000"
    rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"]
    for number in range(40):
        name = f"ISIC_8{number:06}"
        write_pair(root / f"HAM10000_images_part_{1 + number % 2}", root / HAM10000_MASKS, name)
        rows.append(f"HAM_{number // 2:07},{name},{DIAGNOSES[number // 2 % 7]},histo,{number}.0,male,back,rosendahl")
    (root / "HAM10000_metadata.csv").write_text("\n".join(rows) + "\n")
    return root


def load(name, root, **options):
    return load_dataset(name, root, size=SIZE, **options)


def retold(root, change, name="HAM10000_metadata.csv"):
    text = change((root / name).read_text())
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())


# -- ISIC 2016 -------------------------------------------------------------------------------------------------------


def test_isic2016_is_read_with_its_own_test_part(isic2016):
    data = load("isic2016", isic2016)
    assert len(data) == 38 and not data.left_out and not data.remarks and data.has_mask.all()
    assert data.label_counts == {"benign": 19, "malignant": 19, "not known": 0}
    tests = [name >= "ISIC_9000100" for name in data.image_ids]
    assert ((data.parts == "test") == tests).all() and "validation" in data.parts
    assert (data.labels == [int(name[-1]) % 2 for name in data.image_ids]).all()
    assert data.about.startswith("real dermoscopic")


def test_isic2016_labels_are_read_in_any_form(isic2016):
    before = load("isic2016", isic2016)
    for word in ("Training", "Test"):
        name = f"ISBI2016_ISIC_Part3_{word}_GroundTruth.csv"
        lines = (isic2016 / name).read_text().upper().replace(",", ";").replace(".0", "")
        (isic2016 / name).write_bytes(("\ufeff" + lines.replace("\n", "\r\n")).encode())
        (isic2016 / name).rename(isic2016 / name.lower())
    after = load("isic2016", isic2016)
    assert after.identity == before.identity and not after.remarks


def test_isic2016_groups_keep_training_images_out_of_the_test(isic2016):
    rows = [
        "isic_id,lesion_id,patient_id,duplicate_group",
        "ISIC_9000000,IL_1,,", "ISIC_9000100,IL_1,,",  # one lesion
        "ISIC_9000001,,IP_7,", "ISIC_9000101,IL_9,IP_7,",  # one patient
        "ISIC_9000002,,,ISIC_9000102",  # a near-duplicate, told by the other's name
        "ISIC_9000003,IL_5,,", "ISIC_9000004,IL_5,,",  # both in training: no harm
    ]  # fmt: skip
    (isic2016 / "metadata.csv").write_text("\n".join(rows))
    data = load("isic2016", isic2016)
    assert [name for name, _ in data.left_out] == ["ISIC_9000000.jpg", "ISIC_9000001.jpg", "ISIC_9000002.jpg"]
    assert all("the test part stays" in reason for _, reason in data.left_out)
    assert len(data) == 35 and (data.parts == "test").sum() == 8
    assert groups_on_both_sides(data.groups, data.parts) == 0
    assert data.groups[0] == data.groups[1] == "IL_5"


def test_many_images_set_aside_do_not_stop_the_run(isic2016):
    """They are not unusable: the tenth that may be missing is of those that were to be used."""
    rows = [f"ISIC_9{number:06},IL_{number % 15}" for number in (*range(10), 100, 101, 102, 103, 104, 105)]
    rows += [f"ISIC_9{number:06},IL_{lesion}" for number, lesion in ((106, 6), (107, 7), (100, 0), (101, 1))]
    (isic2016 / "metadata.csv").write_text("isic_id,lesion_id\n" + "\n".join(rows))
    data = load("isic2016", isic2016)
    assert len(data.left_out) > 3 and len(data) + len(data.left_out) == 38


@pytest.mark.parametrize(
    "missing", ["ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth",
                "ISBI2016_ISIC_Part3_Training_GroundTruth.csv"],
)  # fmt: skip
def test_what_isic2016_lacks_is_named(isic2016, missing):
    path = isic2016 / missing
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(CourseError, match=f"has no (file|folder) {re.escape(missing)}: unpack the ISIC 2016"):
        find_records("isic2016", isic2016)


# -- HAM10000 --------------------------------------------------------------------------------------------------------


def test_ham10000_is_read_and_split_by_lesion(ham10000):
    data = load("ham10000", ham10000)
    assert len(data) == 40 and len(set(data.groups)) == 20 and not data.left_out and not data.remarks
    assert groups_on_both_sides(data.groups, data.parts) == 0
    malignant = {"mel", "bcc", "akiec"}
    assert (data.labels == [int(diagnosis in malignant) for diagnosis in data.table["diagnosis"]]).all()
    assert set(data.table["diagnosis"]) == set(DIAGNOSES)


def test_what_a_table_tells_is_carried_along_under_one_set_of_names(ham10000, isic_folder):
    table = load("ham10000", ham10000).table
    assert list(table.columns) == ["image_id", "lesion_id", "label", *FACTS]
    assert list(table.iloc[5][["age", "sex", "site", "source", "licence"]]) == [5.0, "male", "back", "rosendahl", ""]
    lines = (isic_folder / "metadata.csv").read_text().splitlines()
    lines = [line + (",CC-0,A. Nobody,unknown,left leg" if i else ",copyright_license,attribution,age_approx,"
                     "anatom_site_general") for i, line in enumerate(lines)]  # fmt: skip
    (isic_folder / "metadata.csv").write_text("\n".join(lines))
    table = load("isic2018", isic_folder).table
    assert list(table.columns) == ["image_id", "lesion_id", "label", *FACTS]
    assert set(table["licence"]) == {"CC-0"} and set(table["site"]) == {"left leg"} and table["age"].isna().all()


def test_ham10000_takes_more_facts_from_the_archives_table(ham10000):
    before = load("ham10000", ham10000)
    rows = [f"{name},CC-BY-NC,ViDIR,,IP_{number // 4}" for number, name in enumerate(before.image_ids)]
    (ham10000 / "metadata.csv").write_text("isic_id,copyright_license,attribution,dx,patient_id\n" + "\n".join(rows))
    data = load("ham10000", ham10000)
    assert (data.labels == before.labels).all() and set(data.table["licence"]) == {"CC-BY-NC"}
    assert (data.table["diagnosis"] == before.table["diagnosis"]).all() and len(set(data.groups)) == 10


def lower_all(root):
    for path in root.iterdir():
        path.rename(path.with_name(path.name.lower()))


def join_parts(root):
    for number in (1, 2):
        shutil.copytree(root / f"HAM10000_images_part_{number}", root / "HAM10000_images", dirs_exist_ok=True)
        shutil.rmtree(root / f"HAM10000_images_part_{number}")


def copy_parts(root):
    for number in (1, 2):
        shutil.copytree(root / f"HAM10000_images_part_{number}", root / "HAM10000_images", dirs_exist_ok=True)


def add_mac_files(root):
    (root / HAM10000_MASKS).rename(root / "inner")
    (root / HAM10000_MASKS).mkdir()
    (root / "inner").rename(root / HAM10000_MASKS / "masks")
    for path in (root / HAM10000_MASKS / "masks").iterdir():
        write_image(root / HAM10000_MASKS / "__MACOSX" / f"._{path.name}", ~MASK)
        write_image(root / HAM10000_MASKS / "__MACOSX" / path.name, ~MASK)


def nest_masks(root):
    (root / HAM10000_MASKS).rename(root / "inner")
    (root / HAM10000_MASKS).mkdir()
    (root / "inner").rename(root / HAM10000_MASKS / HAM10000_MASKS)


def tab_file(root):
    retold(root, lambda text: text.replace(",", "\t").replace("\thisto\t", '\t"histo"\t'))
    (root / "HAM10000_metadata.csv").rename(root / "HAM10000_metadata.tab")


def upper_suffixes(root):
    for folder in root.glob("HAM10000_*/"):
        for path in folder.iterdir():
            path.rename(path.with_suffix(path.suffix.upper().replace("JPG", "JPEG")))


@pytest.mark.parametrize(
    "change",
    [
        lower_all,
        join_parts,
        copy_parts,
        add_mac_files,
        nest_masks,
        tab_file,
        upper_suffixes,
        lambda root: (root / "HAM10000_metadata.csv").rename(root / "HAM10000_metadata"),
        lambda root: retold(root, lambda text: "\ufeff" + text),
        lambda root: retold(root, lambda text: text.replace("\n", "\r\n")),
        lambda root: retold(root, lambda text: text.replace(",", ";")),
        lambda root: retold(root, lambda text: "\ufeff" + text.replace(",", ";").replace("\n", "\r\n")),
        lambda root: retold(root, lambda text: text.replace("back", "Rücken").encode("latin-1")),
        lambda root: retold(root, lambda text: text.encode("utf-16")),
        lambda root: retold(root, lambda text: "sep=;\n" + text.replace(",", ";")),
        lambda root: retold(root, lambda text: text.replace("back", "Rücken")),
        lambda root: retold(root, lambda text: text + text.splitlines()[7] + "\n"),  # the same row twice
        lambda root: retold(root, lambda text: text.replace(",rosendahl", ",rosendahl,")),
        lambda root: retold(root, lambda text: text.replace("image_id", "Image_ID").replace("dx,", "DX ,")),
    ],
)
def test_the_same_set_in_another_form_is_read_the_same(ham10000, change):
    before = load("ham10000", ham10000)
    change(ham10000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = load("ham10000", ham10000)
    assert after.identity == before.identity and not after.left_out and not after.remarks
    assert (after.groups == before.groups).all() and (after.table["age"] == before.table["age"]).all()
    assert set(after.table["site"]) in ({"back"}, {"Rücken"})


def test_masks_with_an_inverted_palette_are_not_read_inverted(ham10000):
    before = load("ham10000", ham10000)
    for path in (ham10000 / HAM10000_MASKS).iterdir():
        picture = Image.fromarray(np.uint8(~MASK), "P")
        picture.putpalette([255, 255, 255, 0, 0, 0])
        picture.save(path)
        assert np.array(Image.open(io.BytesIO(path.read_bytes())))[0, 0] == 0  # 0 is white, and lesion
    assert (load("ham10000", ham10000).masks == before.masks).all()


@pytest.mark.parametrize("name", ["ham10000", "isic2016", "isic2018"])
def test_without_any_masks_one_can_still_classify(request, name):
    root = request.getfixturevalue({"isic2018": "isic_folder"}.get(name, name))
    with_masks = load(name, root)
    for folder in root.iterdir():
        if folder.is_dir() and not any(word in folder.name for word in ("images", "Data", "Input")):
            shutil.rmtree(folder)
    for read in (find_records, load):
        with pytest.raises(CourseError, match=r"has no folder .*: unpack the") as error:
            read(name, root)
        assert "\n" not in str(error.value)
    data = load(name, root, masks_needed=False)
    assert len(data) == len(with_masks) and not data.has_mask.any() and not data.masks.any()
    assert (data.images == with_masks.images).all() and (data.parts == with_masks.parts).all()
    assert len(find_records(name, root, masks_needed=False)) == len(data)


def test_some_missing_masks_are_kept_or_left_out_as_asked(ham10000):
    for name in ("ISIC_8000003", "ISIC_8000017"):
        (ham10000 / HAM10000_MASKS / f"{name}_segmentation.png").unlink()
    needed = load("ham10000", ham10000)
    assert needed.left_out == (
        ("ISIC_8000003.jpg", "its mask ISIC_8000003_segmentation.png is missing"),
        ("ISIC_8000017.jpg", "its mask ISIC_8000017_segmentation.png is missing"),
    )
    assert len(needed) == 38 and needed.has_mask.all()
    data = load("ham10000", ham10000, masks_needed=False)
    assert len(data) == 40 and list(data.image_ids[~data.has_mask]) == ["ISIC_8000003", "ISIC_8000017"]
    assert not data.masks[~data.has_mask].any() and data.masks[data.has_mask].any((1, 2)).all()
    assert data.select([17, 0]).has_mask.tolist() == [False, True]


def test_a_folder_of_ones_own_needs_no_masks_to_classify(tmp_path):
    for part in ("train", "test"):
        for name in ("benign", "malignant"):
            for number in range(9):
                write_image(tmp_path / part / name / f"{number}.png", picture(f"{part} {name} {number}"))
    with pytest.raises(CourseError, match="holds no masks"):
        load("folder", tmp_path)
    data = load("folder", tmp_path, masks_needed=False)
    assert len(data) == 36 and not data.has_mask.any() and (data.parts == "test").sum() == 18


def test_the_painted_set_has_all_masks(small_data):
    assert small_data.has_mask.all() and small_data.remarks == ()
    assert small_data.label_counts["not known"] == 0


# -- tables that are wrong -------------------------------------------------------------------------------------------


def test_rows_that_contradict_each_other_make_the_label_unknown_and_are_named(ham10000):
    retold(ham10000, lambda text: text + 'HAM_0000000,ISIC_8000000,"odd\nword",histo,1,male,back,x\n')
    data = load("ham10000", ham10000)
    assert data.label_counts["not known"] == 1 and data.labels[0] == -1
    assert data.remarks == (
        (
            "ISIC_8000000.jpg",
            "HAM10000_metadata.csv contradicts itself (nv, odd word): its label is taken as not known",
        ),
    )
    retold(ham10000, lambda text: text.replace('ISIC_8000000,"odd\nword"', "ISIC_8000000,bkl"))
    assert load("ham10000", ham10000).labels[0] == 0  # two diagnoses, both benign


def test_rows_of_one_image_that_name_two_lesions_join_them(ham10000):
    retold(ham10000, lambda text: text + "HAM_0000004,ISIC_8000000,nv,histo,1,male,back,x\n")
    data = load("ham10000", ham10000)
    assert len(set(data.groups[[0, 1, 8, 9]])) == 1 and len(set(data.groups)) == 19


def test_images_without_a_label_are_kept_counted_and_named(isic_folder):
    lines = (isic_folder / "metadata.csv").read_text().splitlines()
    del lines[4]
    lines[7] = "ISIC_9000007,,"
    (isic_folder / "metadata.csv").write_text("\n".join(lines))
    data = load("isic2018", isic_folder)
    assert len(data) == 20 and data.labels[[0, 3, 7]].tolist() == [-1, -1, -1]
    assert data.label_counts["not known"] == 3 and sum(data.label_counts.values()) == 20
    assert data.remarks == (
        ("ISIC_9000003.jpg", "metadata.csv gives no label for it"),
        ("ISIC_9000007.jpg", "metadata.csv gives no label for it"),
    )


def test_lesion_duplicates_and_patients_all_join_images(isic_folder):
    rows = [["isic_id", "diagnosis_1", "lesion_id", "duplicate_group", "patient_id"]]
    rows += [[f"ISIC_{9000000 + number}", "Benign", "", "", ""] for number in range(20)]
    rows[1][2] = rows[2][2] = "IL_1"
    rows[2][3], rows[4][3] = "D1", "D1"
    rows[4][4] = rows[6][4] = "IP_1"
    rows[8][3] = "ISIC_9000009"  # named after the other image, which has a lesion of its own
    rows[10][2] = "IL_2"
    rows[12][2], rows[13][4] = "7", "7"  # a lesion's number and a patient's are not the same thing
    (isic_folder / "metadata.csv").write_text("\n".join(",".join(row) for row in rows))
    groups = load("isic2018", isic_folder).groups
    assert set(groups[[0, 1, 3, 5]]) == {"D1"} and len(set(groups)) == 20 - 4
    assert groups[7] == groups[9] and groups[11] != groups[12]


def test_two_files_of_one_image_count_once(isic_folder):
    write_image(isic_folder / ISIC2018_IMAGES / "ISIC_9000004.png", picture("another"))
    data = load("isic2018", isic_folder)
    assert len(data) == 20
    assert data.left_out == (("ISIC_9000004.png", "ISIC_9000004.jpg has the same image id, and is used"),)


def test_two_different_files_of_one_name_in_two_folders_are_named(ham10000):
    copy_parts(ham10000)
    write_image(ham10000 / "HAM10000_images_part_1" / "ISIC_8000000.png", np.zeros((24, 32, 3), np.uint8))
    (ham10000 / "HAM10000_images_part_1" / "ISIC_8000000.png").rename(
        ham10000 / "HAM10000_images_part_1" / "ISIC_8000000.jpg"
    )
    data = load("ham10000", ham10000)
    assert data.left_out == (
        ("ISIC_8000000.jpg", "ISIC_8000000.jpg in HAM10000_images has the same image id, and is used"),
    )
    assert (data.images[0] == resize_image(picture("ISIC_8000000"), SIZE)).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a readable CSV table"),
        (b"image_id,dx\nISIC_8000000,nv\n", "has no column lesion_id"),
        (b"name\nx\n", "has no column image_id or lesion_id or dx; it has: name"),
        (b'lesion_id,image_id,dx\n"a,b\n', "is not a readable CSV table"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\0", "HAM10000_metadata.csv"),
        (b"lesion_id,image_id,dx\nL1,ISIC_1,nv\n", "has no row for any image"),
    ],
)
def test_what_is_no_such_table_is_said_in_one_line(ham10000, content, words):
    (ham10000 / "HAM10000_metadata.csv").write_bytes(content)
    with pytest.raises(CourseError, match=re.escape(words)) as error:
        find_records("ham10000", ham10000)
    assert "\n" not in str(error.value)


def test_a_missing_table_or_folder_is_said(ham10000):
    (ham10000 / "HAM10000_metadata.csv").unlink()
    with pytest.raises(CourseError, match=r"HAM10000_metadata.csv is missing"):
        find_records("ham10000", ham10000)
    for number in (1, 2):
        shutil.rmtree(ham10000 / f"HAM10000_images_part_{number}")
    with pytest.raises(CourseError, match="has no folder HAM10000_images"):
        find_records("ham10000", ham10000)


# -- odd files among good ones ---------------------------------------------------------------------------------------


def test_each_odd_file_is_left_out_or_remarked_on_and_the_run_goes_on(isic_folder):
    images, masks = isic_folder / ISIC2018_IMAGES, isic_folder / ISIC2018_MASKS
    (images / "ISIC_9000001.jpg").unlink()
    (images / "ISIC_9000001.jpg").mkdir()
    (masks / "ISIC_9000002_segmentation.png").write_bytes(b"")
    picture = Image.open(images / "ISIC_9000003.jpg")
    picture.convert("CMYK").save(images / "ISIC_9000003.jpg")
    write_image(masks / "ISIC_9000004_segmentation.png", np.ones((64, 64), bool))
    (images / "Thumbs.db").write_bytes(b"")
    (images / "._ISIC_9000005.jpg").write_bytes(b"")
    data = load("isic2018", isic_folder)
    assert len(data) == 18
    assert [name for name, _ in data.left_out] == ["ISIC_9000001.jpg", "ISIC_9000002.jpg"]
    assert "cannot be read: " in data.left_out[0][1] and "0 bytes" in data.left_out[1][1]
    assert [name for name, _ in data.remarks] == ["ISIC_9000003.jpg", "ISIC_9000004.jpg"]
    for _, words in data.left_out + data.remarks:
        assert "\n" not in words and str(isic_folder) not in words
    again = load("isic2018", isic_folder)  # out of the cache
    assert (again.left_out, again.remarks, again.identity) == (data.left_out, data.remarks, data.identity)


def test_nine_of_ten_are_enough_and_eight_are_not(isic_folder):
    for number in range(2):
        (isic_folder / ISIC2018_MASKS / f"ISIC_900000{number}_segmentation.png").unlink()
    assert len(load("isic2018", isic_folder)) == 18
    (isic_folder / ISIC2018_MASKS / "ISIC_9000002_segmentation.png").unlink()
    with pytest.raises(CourseError, match="3 of 20 images cannot be used, more than one in ten: ") as error:
        load("isic2018", isic_folder)
    assert "ISIC_9000000.jpg" in str(error.value) and "\n" not in str(error.value)


# -- sizes, quick runs ---------------------------------------------------------------------------------------


def test_any_size_can_be_asked_for(isic_folder, tmp_path):
    data = load_dataset("isic2018", isic_folder, size=40)
    assert data.images.shape == (20, 40, 40, 3) and data.masks.shape == (20, 40, 40)
    for size in (0, 5000):
        with pytest.raises(CourseError, match="16 to 2048 pixels wide"):
            load_dataset("isic2018", isic_folder, size=size)


def test_a_quick_run_leaves_the_whole_set_in_the_cache(isic_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(dataset, "QUICK_COUNT", 10)
    monkeypatch.setenv("SKINLIB_CACHE_DIR", str(tmp_path / "cache"))
    load("isic2018", isic_folder)
    load("isic2018", isic_folder, quick=True)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_whoever_builds_a_data_set_need_not_say_that_it_has_masks(small_data):
    fields = {field.name: getattr(small_data, field.name) for field in dataclasses.fields(small_data)}
    del fields["has_mask"]
    assert dataset.LesionDataset(**fields).has_mask.tolist() == [True] * len(small_data)


def test_every_reader_has_its_clause():
    assert set(dataset.ABOUT) == {"synthetic", *dataset.READERS}
    assert set(isic.HAM10000_LABELS) == set(DIAGNOSES)
