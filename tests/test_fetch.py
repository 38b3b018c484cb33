"""Fetching from hosts that misbehave: nothing unverified under its final name, and the next call goes on."""

import contextlib
import hashlib
import re
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from data_host import DataHost, sha256, zipped

from skinlib import fetch
from skinlib.fetch import FetchError, HostFailed, Patience, RemoteArchive, Web
from skinlib.files import write_bytes

FILE = "one.example/set/pictures.zip"
URL = f"https://{FILE}"
SECOND = "two.example/set/pictures.zip"
CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
CHECKSUM = sha256(CONTENT)
IMPATIENT = Patience(connect=1, read=0.5, tries=3, pause=0.01, longest_pause=2)


@pytest.fixture
def host(monkeypatch):
    with DataHost() as host:
        monkeypatch.setenv(fetch.MIRROR, host.address)
        host.files[FILE] = CONTENT
        yield host


@pytest.fixture
def web(host):
    return Web(IMPATIENT)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "pictures.zip"


def nothing_else(target, *others):
    return {path.name for path in target.parent.iterdir()} <= {target.name, *others}


def starts_at(request):
    return int(request[1].removeprefix("bytes=").rstrip("-"))


def get(web, target, checksum=CHECKSUM, urls=(URL,)):
    return fetch.download(web, urls, target, checksum)


def test_a_file_is_fetched_once_and_verified(host, web, target):
    assert get(web, target) == URL
    assert target.read_bytes() == CONTENT and nothing_else(target)
    get(web, target)
    assert len(host.requests) == 1
    md5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    get(web, target, md5)
    assert len(host.requests) == 1 and fetch.has_checksum(target, md5)
    assert not fetch.has_checksum(target, "md5:00") and not fetch.has_checksum(target.with_name("none"), None)


@pytest.mark.parametrize("trouble", [["cut"], ["cut", "cut", "cut", "cut"], [503, 503], [429], ["cut", 503, "cut"]])
def test_passing_trouble_is_waited_out(host, web, target, trouble):
    host.trouble[FILE] = list(trouble)
    get(web, target)
    assert target.read_bytes() == CONTENT and nothing_else(target)
    assert not host.trouble[FILE]


def test_a_cut_transfer_goes_on_where_it_stopped(host, web, target):
    host.trouble[FILE] = ["cut"]
    get(web, target)
    assert host.requests[0] == (FILE, None) and len(host.requests) == 2
    assert len(CONTENT) // 2 - fetch.CHUNK < starts_at(host.requests[1]) <= len(CONTENT) // 2


def test_a_host_that_falls_silent_is_asked_again(host, web, target):
    host.trouble[FILE], host.stall = ["stall"], 10
    get(web, target)
    assert target.read_bytes() == CONTENT
    assert len(host.requests) == 2  # one, had it sat the ten seconds out


def test_the_next_call_goes_on_where_the_last_one_was_killed(host, web, target):
    part = fetch.part_of(target)
    part.write_bytes(CONTENT[:1000])
    get(web, target)
    assert host.requests == [(FILE, "bytes=1000-")] and target.read_bytes() == CONTENT and nothing_else(target)


def test_a_beginning_that_is_whole_already_needs_no_byte_more(host, web, target):
    fetch.part_of(target).write_bytes(CONTENT)
    get(web, target)
    assert target.read_bytes() == CONTENT and nothing_else(target)


def test_a_beginning_of_another_file_is_given_up(host, web, target):
    fetch.part_of(target).write_bytes(CONTENT + b"longer than it should be")
    get(web, target)
    assert target.read_bytes() == CONTENT and nothing_else(target)
    target.unlink()
    fetch.part_of(target).write_bytes(b"x" * 1000)
    with pytest.raises(HostFailed, match=r"one\.example .*sent another file as pictures\.zip"):
        get(web, target)
    assert nothing_else(target) and not target.exists()
    get(web, target)
    assert target.read_bytes() == CONTENT


def test_a_host_without_ranges_starts_anew(host, web, target):
    host.ranges, host.trouble[FILE] = False, ["cut"]
    get(web, target)
    assert target.read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing_behind(host, web, target):
    with pytest.raises(
        HostFailed, match=r"one\.example .*sent another file as pictures\.zip \(its checksum is wrong\)"
    ):
        get(web, target, sha256(b"another"))
    assert list(target.parent.iterdir()) == []


def test_the_second_address_helps_out(host, web, target):
    host.files[SECOND] = CONTENT
    urls = URL, f"https://{SECOND}"
    del host.files[FILE]
    assert get(web, target, urls=urls) == urls[1]
    target.unlink()
    host.files[FILE] = b"a page that says: log in"
    assert get(web, target, urls=urls) == urls[1] and target.read_bytes() == CONTENT
    target.unlink()
    host.files[FILE], host.trouble[FILE] = CONTENT, [500] * 3
    assert get(web, target, urls=urls) == urls[1]


def test_the_second_address_goes_on_with_what_the_first_one_sent(host, web, target):
    host.files[SECOND] = CONTENT
    host.trouble[FILE] = ["cut", 503, 503, 503]
    get(web, target, urls=(URL, f"https://{SECOND}"))
    assert host.requests[-1][0] == SECOND and starts_at(host.requests[-1]) > 100_000
    assert target.read_bytes() == CONTENT


def test_every_host_and_its_reason_is_named(host, web, target):
    host.trouble[FILE] = [503] * 3
    with pytest.raises(HostFailed) as error:
        get(web, target, urls=(URL, f"https://{SECOND}"))
    assert re.sub(r" \(sought at [^)]*\)", "", str(error.value)) == (
        "one.example answered 503 Service Unavailable; "
        "two.example answered 404 Not Found for https://two.example/set/pictures.zip"
    )
    assert list(target.parent.iterdir()) == []


def test_a_host_that_keeps_cutting_before_the_first_byte_is_given_up(host, web, target):
    host.files[FILE] = b"x"  # half of one byte is none
    host.trouble[FILE] = ["cut"] * 20
    with pytest.raises(HostFailed, match=r"one\.example .*keeps cutting the transfer"):
        get(web, target, sha256(b"x"))
    assert not target.exists()


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that would be waited; nothing is."""
    waited = []
    monkeypatch.setattr(fetch, "time", SimpleNamespace(sleep=waited.append))
    return waited


def test_retry_after_is_obeyed(host, web, target, pauses):
    host.trouble[FILE], host.retry_after = [429], "1"
    get(web, target)
    assert pauses == [1]
    target.unlink()
    host.trouble[FILE], host.retry_after = [429], "3600"
    with pytest.raises(HostFailed, match="429 Too Many Requests and asks to wait 3600 s: run this again then"):
        get(web, target)
    host.trouble[FILE], host.retry_after = [429], "Wed, 21 Oct 2015 07:28:00 GMT"  # gone by: try at once
    get(web, target)
    target.unlink()
    host.trouble[FILE], host.retry_after = [429], "soon"
    get(web, target)


def test_nobody_there_is_said_without_a_long_wait(tmp_path, monkeypatch, pauses):
    monkeypatch.delenv(fetch.MIRROR, raising=False)
    with pytest.raises(HostFailed, match=r"^127\.0\.0\.1 did not answer; host\.invalid did not answer$"):
        fetch.download(Web(), ["http://127.0.0.1:9/a.zip", "https://host.invalid/a.zip"], tmp_path / "a.zip", None)
    assert pauses == [1, 1]  # one more try for each of them
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_none_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv(fetch.MIRROR, "teacher:8000")
    with pytest.raises(FetchError, match="SKINLIB_MIRROR=teacher:8000 is no address"):
        get(Web(IMPATIENT), tmp_path / "a.zip")


def test_small_answers_are_whole_or_asked_for_again(host, web):
    name = "one.example/answer.json"
    host.files[name] = b'{"results": [1, 2, 3], "next": null}'
    host.trouble[name] = ["cut", 503, "another file"]
    assert web.json(f"https://{name}")["results"] == [1, 2, 3]
    host.files[name] = b"[1, 2]"
    with pytest.raises(HostFailed, match="no readable answer"):
        web.json(f"https://{name}")


# -- archives --------------------------------------------------------------------------------------------------------


def is_text(name):
    return name.endswith(".txt")


def test_unpacking_takes_what_belongs_and_drops_folders(tmp_path):
    path = tmp_path / "a.zip"
    extra = [
        ("__MACOSX/in/._a.txt", b"fork"),
        ("__MACOSX/a.txt", b"fork"),
        ("in/.DS_Store", b""),
        ("in/b.png", b"picture"),
        ("in/", b""),
    ]
    path.write_bytes(zipped({"a.txt": b"one", "c.txt": b"two"}, "in/", extra))
    assert fetch.unpack(path, tmp_path / "out", is_text) == 2
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == {"a.txt": b"one", "c.txt": b"two"}


def linked():
    info = zipfile.ZipInfo("in/link.txt")
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("../climbs.txt", b"x"), "climbs out"),
        (("in/../../climbs.txt", b"x"), "climbs out"),
        (("/etc/absolute.txt", b"x"), "climbs out"),
        (("..\\windows.txt", b"x"), "climbs out"),
        (("C:\\windows.txt", b"x"), "climbs out"),
        (("in/bomb.txt", b"0" * 5_000_000), "swells"),
        ((linked(), b"/etc/passwd"), "is a link"),
        (("twice/a.txt", b"x"), "holds a.txt twice"),
    ],
)
def test_a_trap_is_not_unpacked(tmp_path, extra, words):
    path = tmp_path / "deep" / "a.zip"
    path.parent.mkdir()
    path.write_bytes(zipped({"a.txt": b"one"}, "in/", [extra]))
    with pytest.raises(FetchError, match=words):
        fetch.unpack(path, tmp_path / "deep" / "out", is_text)
    assert {file.name for file in tmp_path.rglob("*")} == {"deep", "a.zip"}


def test_a_truncated_archive_is_one_line_and_nothing_half_written(tmp_path):
    path = tmp_path / "a.zip"
    whole = zipped({f"{n}.txt": CONTENT[n * 1000 : n * 1000 + 1000] for n in range(20)})
    damaged = bytearray(whole)
    damaged[5000] ^= 255
    for content in (whole[:9000], bytes(damaged), b"", b"no zip at all"):
        path.write_bytes(content)
        with pytest.raises(FetchError, match=r"a\.zip is no whole zip archive"):
            fetch.unpack(path, tmp_path / "out", is_text)
        assert not [file for file in tmp_path.rglob("*") if ".unfinished" in file.name]
    path.write_bytes(zipped({"b.png": b"x"}))
    with pytest.raises(FetchError, match="another archive"):
        fetch.unpack(path, tmp_path / "out", is_text)


def test_an_interrupted_unpacking_goes_on_and_leaves_other_files_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.md").write_text("my notes")
    (tmp_path / "out" / "1.txt").write_text("new!"[:3])
    (tmp_path / "out" / "2.txt").write_text("cut")
    path.write_bytes(zipped({f"{n}.txt": b"new" if n < 2 else b"longer" for n in range(5)}))
    copy, copied = fetch._copy_member, []

    def stopped(archive, info, target):
        copied.append(info.filename)
        if len(copied) == 2:
            raise KeyboardInterrupt
        copy(archive, info, target)

    monkeypatch.setattr(fetch, "_copy_member", stopped)
    with contextlib.suppress(KeyboardInterrupt):
        fetch.unpack(path, tmp_path / "out", is_text)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["0.txt", "1.txt", "2.txt", "mine.md"]
    assert fetch.unpack(path, tmp_path / "out", is_text) == 5
    assert copied == ["0.txt", "2.txt", "2.txt", "3.txt", "4.txt"]  # what was right was left alone
    assert (tmp_path / "out" / "2.txt").read_text() == "longer" and (tmp_path / "out" / "mine.md").is_file()


def test_single_members_are_read_out_of_a_remote_archive(host, web):
    noise = np.random.default_rng(1)
    texts = {f"{n}.txt": noise.bytes(50_000) for n in range(40)}
    host.files[FILE] = zipped(texts, "in/", [("__MACOSX/._0.txt", b"fork")])
    archive = RemoteArchive(web, "pictures.zip", [f"https://{SECOND}", URL], is_text)
    assert set(archive.members) == set(texts) and archive.url == URL
    host.requests.clear()
    assert archive.read("7.txt") == texts["7.txt"] and archive.read("3.txt") == texts["3.txt"]
    assert len(host.requests) == 2  # one request a member, and never the whole
    host.trouble[FILE] = ["cut", 503, "cut"]
    assert archive.read("30.txt") == texts["30.txt"]


def test_a_remote_archive_that_cannot_be_read_says_why(host, web):
    host.files[FILE] = zipped({"a.txt": b"one"})[:-30]
    with pytest.raises(HostFailed, match=r"one\.example"):
        RemoteArchive(web, "pictures.zip", [URL], is_text)
    host.files[FILE], host.ranges = zipped({"a.txt": b"one"}), False
    with pytest.raises(HostFailed, match="sends no parts of files"):
        RemoteArchive(web, "pictures.zip", [URL], is_text)
    with pytest.raises(HostFailed, match="404"):
        RemoteArchive(web, "pictures.zip", [f"https://{SECOND}"], is_text)


def test_many_files_go_on_past_single_failures(tmp_path):
    def work(name):
        if name in ("3", "4"):
            raise FetchError(f"{name} is not there")
        write_bytes(tmp_path / name, b"x")

    failed = fetch.fetch_each([str(n) for n in range(100)], work, "fetching")
    assert sorted(failed) == ["3", "4"] and len(list(tmp_path.iterdir())) == 98


def test_many_failures_stop_the_rest():
    asked = []

    def work(name):
        asked.append(name)
        raise FetchError("gone")

    assert len(fetch.fetch_each([str(n) for n in range(1000)], work, "fetching")) > 100
    assert len(asked) < 300


def test_space_is_looked_at_before(tmp_path):
    fetch.need_space(tmp_path / "not" / "yet", 1000, "a set")
    with pytest.raises(FetchError, match=r"a set needs 1020000\.0 GB, but .* free: free some space") as error:
        fetch.need_space(tmp_path / "not" / "yet", 10**15, "a set", ", or fetch less")
    assert str(error.value).endswith("on another disk, or fetch less")
    assert [fetch.readable(n) for n in (5, 20_000, 840_000_000, 11_192_761_461)] == [
        "5 bytes", "20 kB", "840 MB", "11.2 GB"
    ]  # fmt: skip
