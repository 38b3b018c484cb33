"""The cache of decoded images: the same arrays as without it, whatever happens to it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skinlib import files, store
from skinlib.files import CourseError, write_image
from skinlib.store import load_pixels

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SKINLIB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pairs(tmp_path) -> list[tuple[Path, Path | None]]:
    """Twelve images of one colour each; number 3 is damaged, number 5 has a full mask and number 7 none."""
    found = []
    for number in range(12):
        image, mask = tmp_path / "data" / f"{number:02}.png", tmp_path / "data" / f"{number:02}_mask.png"
        write_image(image, np.full((20, 30, 3), 10 * number, np.uint8))
        write_image(mask, np.arange(30) < np.full((20, 1), 30 if number == 5 else 10 + number))
        found.append((image, None if number == 7 else mask))
    found[3][0].write_bytes(b"no image")
    return found


def load(pairs, size=16, **options):
    return load_pixels("test", pairs[0][0].parent, pairs, size, **options)


def assert_right(stored, size=16):
    assert stored.kept.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert stored.images.shape == (11, size, size, 3) and stored.images.dtype == np.uint8
    assert stored.masks.shape == (11, size, size) and stored.masks.dtype == bool
    assert (stored.images == 10 * stored.kept[:, None, None, None]).all()
    assert stored.masks[4].all() and not stored.masks[6].any() and 0.3 < stored.masks[0].mean() < 0.4
    assert stored.left_out == ((3, "03.png is not a readable JPEG or PNG image"),)
    assert stored.remarks == ((5, "its mask covers the whole image"),)


def refuse_to_decode(*_):
    raise AssertionError("decoded again")


def entries(cache):
    return sorted(path.name for path in cache.iterdir())


def test_the_second_time_nothing_is_decoded(cache, pairs, monkeypatch, capsys):
    assert_right(load(pairs))
    (name,) = entries(cache)
    assert name.startswith("test-whole-16-")
    assert sorted(path.name for path in (cache / name).iterdir()) == ["images.npy", "masks.npy", "record.json"]
    monkeypatch.setattr(store, "read_pairs", refuse_to_decode)
    assert_right(load(pairs))
    assert capsys.readouterr().err == ""


def test_nothing_is_written_into_the_data_folder(cache, pairs):
    folder = pairs[0][0].parent
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}
    load(pairs)
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]} == before


def test_what_is_written_into_an_array_stays_out_of_the_cache(cache, pairs, monkeypatch):
    stored = load(pairs)
    stored.images[:] = 99
    stored.masks[:] = True
    monkeypatch.setattr(store, "read_pairs", refuse_to_decode)
    assert_right(load(pairs))


def test_the_header_keeps_its_length(tmp_path):
    for count in (0, 1, 123):
        rows = store._Rows(tmp_path / "rows.npy", (2, 3), np.uint8)
        for number in range(count):
            rows.append(np.full((2, 3), number))
        rows.close()
        assert (np.load(tmp_path / "rows.npy") == np.arange(count)[:, None, None]).all()
        assert np.load(tmp_path / "rows.npy").shape == (count, 2, 3)


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def blank(path):
    content = path.read_bytes()
    path.write_bytes(content[:200] + bytes(len(content) - 200))


def reshape(path):
    array = np.load(path)
    np.save(path, array.reshape(array.shape[0], -1))


def forge(entry):
    """A record that was edited: another reason, or an image said to be at another position."""
    checksum, text = (entry / "record.json").read_text().split("\n")
    content = json.loads(text)
    content["kept"][0] = 3
    (entry / "record.json").write_text(f"{checksum}\n{json.dumps(content)}")


def replace_by_file(entry):
    shutil.rmtree(entry)
    entry.write_text("a file")


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: flip(entry / "images.npy", 5000),
        lambda entry: flip(entry / "masks.npy", -1),
        lambda entry: cut(entry / "images.npy"),
        lambda entry: blank(entry / "images.npy"),
        lambda entry: reshape(entry / "masks.npy"),
        lambda entry: (entry / "masks.npy").unlink(),
        lambda entry: (entry / "images.npy").write_bytes(b""),
        lambda entry: (entry / "record.json").unlink(),
        lambda entry: (entry / "record.json").write_text("{}"),
        lambda entry: (entry / "record.json").write_bytes(b"\xff\xfe\0"),
        lambda entry: cut(entry / "record.json"),
        forge,
        replace_by_file,
        lambda entry: [path.unlink() for path in entry.iterdir()],
    ],
)
def test_a_damaged_entry_is_made_again(cache, pairs, damage, capsys):
    load(pairs)
    (name,) = entries(cache)
    damage(cache / name)
    assert_right(load(pairs))
    assert entries(cache) == [name] and capsys.readouterr().err == ""
    assert (cache / name / "images.npy").is_file()


def test_an_entry_of_something_else_is_not_taken(cache, pairs):
    load(pairs)
    (right,) = entries(cache)
    load(pairs[:6])
    (other,) = entries(cache)
    (cache / other).rename(cache / right)
    assert_right(load(pairs))


def test_a_changed_file_makes_a_new_entry_that_replaces_the_old(cache, pairs):
    load(pairs)
    (old,) = entries(cache)
    write_image(pairs[3][0], np.full((20, 30, 3), 30, np.uint8))
    stored = load(pairs)
    assert len(stored.kept) == 12 and (stored.images[3] == 30).all()
    (new,) = entries(cache)
    assert new != old
    state = pairs[3][0].stat()
    os.utime(pairs[3][0], ns=(state.st_atime_ns, state.st_mtime_ns + 1))  # only the time differs
    load(pairs)
    assert entries(cache) != [new]


def test_masks_count_as_well(cache, pairs):
    load(pairs)
    write_image(pairs[0][1], np.ones((20, 30), bool))
    assert load(pairs).masks[0].all()
    assert not load([(image, None) for image, _ in pairs]).masks.any()


@pytest.mark.parametrize("setting", [("DECODER_VERSION", 99), ("FORMAT", 99)])
def test_another_decoder_makes_another_entry(cache, pairs, monkeypatch, setting):
    load(pairs)
    before = entries(cache)
    monkeypatch.setattr(store, *setting)
    load(pairs)
    assert entries(cache) != before and len(entries(cache)) == 1
    monkeypatch.setattr(store.cv2, "__version__", "0.0")
    after = entries(cache)
    load(pairs)
    assert entries(cache) != after


def test_other_sizes_choices_and_folders_stand_side_by_side(cache, pairs, tmp_path):
    load(pairs)
    load(pairs, choice="quick")
    load(pairs, size=8)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    load([(tmp_path / "copy" / image.name, None) for image, _ in pairs])
    assert len(entries(cache)) == 4
    assert_right(load(pairs))


def test_extra_arrays_are_made_once_and_kept(cache, pairs, monkeypatch):
    calls = []

    def brightness(images):
        calls.append(len(images))
        return images.mean((1, 2, 3))

    for _ in range(2):
        stored = load(pairs, extra={"brightness": brightness})
        assert stored.extra["brightness"].tolist() == (10.0 * stored.kept).tolist()
    assert calls == [11]
    assert load(pairs).extra == {}
    monkeypatch.setenv("SKINLIB_CACHE_DIR", "/dev/null/nowhere")
    assert (load(pairs, extra={"brightness": brightness}).extra["brightness"] == 10.0 * stored.kept).all()


def test_a_file_that_the_system_refused_is_tried_again(cache, pairs, monkeypatch):
    read = files.Path.read_bytes

    def refuse_one(path):
        if path.name == "01.png":
            raise PermissionError(13, "Permission denied")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "read_bytes", refuse_one)
        for _ in range(2):
            assert load(pairs).left_out[0] == (1, "01.png cannot be read: Permission denied")
    assert_right(load(pairs))
    assert len(entries(cache)) == 1


def test_images_that_are_all_unusable_are_no_error_here(cache, pairs):
    stored = load(pairs[3:4])
    assert len(stored.images) == len(stored.masks) == 0 and len(stored.left_out) == 1
    assert entries(cache) == []
    assert load_pixels("test", cache, [], 16).kept.tolist() == []


def one_warning(captured, words):
    lines = captured.err.splitlines()
    assert len(lines) == 1 and words in lines[0] and lines[0].startswith("skinlib: decoded images are not kept")


def test_a_folder_that_cannot_be_made_costs_a_warning(pairs, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SKINLIB_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert_right(load(pairs))
    one_warning(capsys.readouterr(), "Not a directory")


def test_a_read_only_cache_is_read_and_not_written(cache, pairs, monkeypatch, capsys):
    load(pairs)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store.tempfile, "mkdtemp", refuse)
    assert_right(load(pairs))
    assert capsys.readouterr().err == ""
    assert_right(load(pairs, size=8), 8)
    one_warning(capsys.readouterr(), "Permission denied")


def test_a_disk_without_room_costs_a_warning(cache, pairs, monkeypatch, capsys):
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 2**20))
    assert_right(load(pairs))
    one_warning(capsys.readouterr(), "MB wanted, 1 MB free")
    assert entries(cache) == []


def in_a_process(program, cache):
    environment = os.environ | {"SKINLIB_CACHE_DIR": str(cache), "PYTHONPATH": str(PROJECT), "SKINLIB_HEADLESS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


LOAD = """
import sys
from pathlib import Path
from skinlib.store import load_pixels
folder = Path({folder!r})
pairs = [(path, None) for path in sorted(folder.glob("??.png")) for _ in range({times})]
stored = load_pixels("test", folder, pairs, {size})
assert len(stored.kept) == 11 * {times}
assert (stored.images == 10 * (stored.kept // {times})[:, None, None, None]).all()
"""


def test_a_disk_that_fills_up_while_writing_costs_a_warning(cache, pairs):
    pytest.importorskip("resource")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    program = limit + LOAD.format(folder=str(pairs[0][0].parent), times=1, size=96)
    process = in_a_process(program, cache)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert len(errors.splitlines()) == 1 and "File too large" in errors
    assert entries(cache) == []


def test_two_processes_at_once_both_succeed(cache, pairs):
    program = LOAD.format(folder=str(pairs[0][0].parent), times=40, size=96)
    processes = [in_a_process(program, cache) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0 and errors == "", errors
    assert len(entries(cache)) == 1


def test_who_comes_second_takes_the_entry_of_who_was_quicker(cache, pairs, monkeypatch):
    publish = store._publish

    def be_late(unfinished, entry, key):
        shutil.copytree(unfinished, entry)
        (entry / "by another").touch()
        publish(unfinished, entry, key)

    monkeypatch.setattr(store, "_publish", be_late)
    assert_right(load(pairs))
    (name,) = entries(cache)
    assert (cache / name / "by another").exists()


def test_an_entry_that_vanishes_at_once_costs_a_warning(cache, pairs, monkeypatch, capsys):
    publish = store._publish

    def publish_in_vain(unfinished, entry, key):
        publish(unfinished, entry, key)
        shutil.rmtree(entry)

    monkeypatch.setattr(store, "_publish", publish_in_vain)
    assert_right(load(pairs))
    one_warning(capsys.readouterr(), "another process took")


@pytest.mark.parametrize("error", [KeyboardInterrupt, CourseError, OSError])
def test_an_interruption_leaves_nothing_behind(cache, pairs, monkeypatch, error):
    decode = store.read_pairs

    def stop(*args):
        yield next(decode(*args))
        raise error("stop")

    monkeypatch.setattr(store, "read_pairs", stop)
    with pytest.raises(error):
        load(pairs)
    assert entries(cache) == []


def test_what_a_killed_process_left_is_swept_after_a_day(cache, pairs):
    for name, age in (("old", 2 * store.A_DAY), ("new", 60)):
        (cache / f".unfinished-{name}").mkdir(parents=True)
        (cache / f".unfinished-{name}" / "images.npy").write_bytes(b"half")
        then = (cache / f".unfinished-{name}").stat().st_mtime - age
        os.utime(cache / f".unfinished-{name}", (then, then))
    load(pairs)
    assert [name for name in entries(cache) if name.startswith(".")] == [".unfinished-new"]


def test_reading_holds_no_more_than_a_few_images_in_memory(cache, pairs):
    """330 images at 512 pixels are 346 MB; neither cold nor warm may the process hold them all."""
    pytest.importorskip("resource")
    told = "\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    program = LOAD.rpartition("assert (stored")[0].format(folder=str(pairs[0][0].parent), times=30, size=512) + told
    before = in_a_process("import skinlib.store" + told, cache).communicate()[0]
    for _ in range(2):
        output, errors = in_a_process(program, cache).communicate()
        unit = 2**20 if sys.platform == "darwin" else 2**10
        assert (int(output) - int(before)) / unit < 150, errors


def test_the_users_own_cache_folder_is_taken_where_none_is_named(monkeypatch):
    monkeypatch.delenv("SKINLIB_CACHE_DIR")
    assert store.cache_folder().is_absolute() and "skinlib" in store.cache_folder().parts

    def lost(*_, **__):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(store.platformdirs, "user_cache_path", lost)
    with pytest.raises(OSError, match="home directory"):
        store.cache_folder()
