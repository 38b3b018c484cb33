"""Files from the net: whatever lies under its final name is whole and verified. Nothing in here knows about lesions.

Hosts are slow, cut transfers, ask to wait, move, or die. So every request has time-outs and is tried again with growing
pauses, a cut transfer goes on where it stopped, a second address is tried when the first one fails, and a file gets its
name only after its checksum was right. pooch places whole files, remotezip reads single members out of large archives.
"""

import contextlib
import json
import os
import shutil
import stat
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

from skinlib.files import CourseError, written_whole
from skinlib.progress import progress

MIRROR = "SKINLIB_MIRROR"  # an address under which https://HOST/PATH is found as ADDRESS/HOST/PATH: a copy in the room
TRY_LATER = (429, 500, 502, 503, 504)
AT_ONCE = 6  # transfers of small files side by side: quick, and polite
BOMB_RATIO = 200  # images and tables pack far less than this; a small archive that swells more is a trap
CHUNK = 1 << 14  # what a cut loses at most: the piece that was on its way


class FetchError(CourseError):
    """What could not be fetched, and why: one line."""


class HostFailed(FetchError):
    """A host does not answer, or not with what it should; another address may."""


class NotThere(HostFailed):
    """The host answers, and has no such file."""


class Patience(NamedTuple):
    """How long to wait, in seconds, and how often to try."""

    connect: float = 5
    read: float = 20
    tries: int = 5
    pause: float = 1  # after the first failure; it doubles with each further one
    longest_pause: float = 120  # a host that asks for more is told "later" to the person at the keyboard


class Web:
    """HTTP GET with patience. It has the `get` and `head` that remotezip expects of a session."""

    def __init__(self, patience: Patience | None = None) -> None:
        """Raises FetchError if SKINLIB_MIRROR is set to what is no address."""
        self.patience = patience or Patience()
        self.mirror = os.environ.get(MIRROR, "").rstrip("/")
        if self.mirror and not self.mirror.startswith(("http://", "https://")):
            raise FetchError(f"{MIRROR}={self.mirror} is no address: write it like http://teacher:8000")
        self._local = threading.local()

    def get(self, url: str, **options: object):
        """A `requests` response below 400, or 416. Raises HostFailed with host and reason."""
        return self._request("GET", url, options)

    def head(self, url: str, **options: object):
        """The same, without the body."""
        return self._request("HEAD", url, options)

    def content(self, url: str) -> bytes:
        """The whole body of a small file."""
        return self.get(url).content

    def json(self, url: str) -> dict:
        """A JSON object; an answer that is none is asked for again."""
        for _ in self.attempts():
            with contextlib.suppress(ValueError):
                answer = json.loads(self.content(url))
                if isinstance(answer, dict):
                    return answer
        raise HostFailed(f"{self.host(url)} sent no readable answer to {url}")

    def host(self, url: str) -> str:
        """Who is asked for an address, as a person would name it."""
        name = urlsplit(url).hostname or url
        return f"{name} (sought at {urlsplit(self.mirror).netloc}, {MIRROR})" if self.mirror else name

    def attempts(self) -> Iterator[int]:
        """0, 1, … as often as something is tried, with growing pauses between."""
        for attempt in range(self.patience.tries):
            if attempt:
                self.rest(attempt - 1)
            yield attempt

    def rest(self, attempt: int, asked: float = 0) -> None:
        """Pause after failure number `attempt` (0, 1, …), or for as long as the host asked, if that is longer."""
        time.sleep(min(self.patience.longest_pause, max(asked, self.patience.pause * 2**attempt)))

    def _request(self, method: str, url: str, options: dict):
        import requests
        from urllib3.exceptions import NewConnectionError

        if not hasattr(self._local, "session"):  # requests does not promise that threads may share one
            self._local.session = requests.Session()
            self._local.session.headers["User-Agent"] = "skinlib (a course on skin-lesion analysis)"
        options.setdefault("timeout", (self.patience.connect, self.patience.read))
        # A body that was packed for the way has another length than the file.
        options["headers"] = {"Accept-Encoding": "identity"} | (options.get("headers") or {})
        unreachable = 0
        for attempt in range(self.patience.tries):
            asked = 0.0
            try:
                response = self._local.session.request(method, self._address(url), **options)
            except (requests.ConnectionError, requests.Timeout) as error:
                cause = getattr(error.args[0] if error.args else None, "reason", None)
                # Nobody there: another try may help, four more would only keep the person waiting.
                nobody = requests.ConnectTimeout | requests.exceptions.ProxyError | requests.exceptions.SSLError
                unreachable += isinstance(error, nobody) or isinstance(cause, NewConnectionError)
                reason = "did not answer" if unreachable else "cut the connection or fell silent"
                if unreachable > 1:
                    break
            except requests.exceptions.ChunkedEncodingError:  # a body that was read at once, and cut
                reason = "cut the connection"
            except requests.RequestException as error:
                raise FetchError(f"{url} is no address to fetch from: {' '.join(str(error).split())}") from None
            else:
                if response.status_code < 400 or response.status_code == 416:
                    return response
                response.close()
                reason = f"answered {response.status_code} {response.reason}".rstrip()
                if response.status_code not in TRY_LATER:
                    kind = NotThere if response.status_code == 404 else HostFailed
                    raise kind(f"{self.host(url)} {reason} for {url}")
                asked = _retry_after(response.headers.get("Retry-After"))
                if asked > self.patience.longest_pause:
                    raise HostFailed(f"{self.host(url)} {reason} and asks to wait {asked:.0f} s: run this again then")
                if asked > 5:
                    print(f"{self.host(url)} asks to wait {asked:.0f} s", file=sys.stderr)
            if attempt < self.patience.tries - 1:
                self.rest(attempt, asked)
        raise HostFailed(f"{self.host(url)} {reason}")

    def _address(self, url: str) -> str:
        return f"{self.mirror}/{url.split('://', 1)[1]}" if self.mirror else url


def _retry_after(text: str | None) -> float:
    """Seconds that a Retry-After header asks for, in either of its two forms; 0 where there is none."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    with contextlib.suppress(InvalidHeader):
        return Retry().parse_retry_after(text) if text else 0.0
    return 0.0


# -- whole files -----------------------------------------------------------------------------------------------------


def download(web: Web, urls: Iterable[str], target: Path, checksum: str | None) -> str:
    """Fetch one file from the first of its addresses that has it; returns that address.

    checksum    "sha256:…" or "md5:…"; None where nobody states one. A file of that name and checksum is left alone.
    A transfer that was cut, even by Ctrl-C or a power failure, lies beside `target` as `.NAME.part` and is continued by
    the next call. Raises FetchError naming each host and its reason.
    """
    import pooch

    pooch.get_logger().setLevel("ERROR")
    reasons = []
    for url in urls:
        try:
            pooch.retrieve(url, checksum, target.name, target.parent, downloader=_Continued(web, target))
            return url
        except ValueError:  # pooch's word for a wrong checksum; it has deleted the file
            reasons.append(f"{web.host(url)} sent another file as {target.name} (its checksum is wrong)")
        except HostFailed as error:
            reasons.append(str(error))
    raise HostFailed("; ".join(dict.fromkeys(reasons)))


def part_of(target: Path) -> Path:
    """Where the beginning of a file waits for its rest."""
    return target.with_name(f".{target.name}.part")


class _Continued:
    """A downloader for pooch that goes on where an earlier one stopped."""

    def __init__(self, web: Web, target: Path) -> None:
        self.web, self.part = web, part_of(target)

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        part = self.part
        failures = 0
        while True:
            before = part.stat().st_size if part.exists() else 0
            complete = self._go_on(url, part, before)
            if complete:
                break
            now = part.stat().st_size if part.exists() else 0
            failures = 0 if now > before else failures + 1
            if failures >= self.web.patience.tries:
                raise HostFailed(f"{self.web.host(url)} keeps cutting the transfer of {url}")
            self.web.rest(failures)
        part.replace(output_file)

    def _go_on(self, url: str, part: Path, before: int) -> bool:
        """One request for what is missing; True when the file is complete."""
        import requests

        headers = {"Range": f"bytes={before}-"} if before else {}
        with self.web.get(url, stream=True, headers=headers) as response:
            if response.status_code == 416:  # nothing lies behind what we have: it is all, or not of this file
                complete = response.headers.get("Content-Range", "") == f"bytes */{before}"
                if not complete:
                    part.unlink()
                return complete
            length = response.headers.get("Content-Length")
            if before and response.status_code != 206:
                # The file from its beginning, or a page that says "log in"? What has come is not given up for that.
                if "html" in response.headers.get("Content-Type", "") or (length and int(length) < before):
                    raise HostFailed(f"{self.web.host(url)} sent something else than {part.name[1:-5]}")
                before = 0
            total = before + int(length) if length else None
            bar = progress(None, f"fetching {part.name[1:-5]}", total, "B", scale=True)
            bar.update(before)
            try:
                with part.open("ab" if before else "wb") as file, bar:
                    for chunk in response.iter_content(CHUNK):
                        file.write(chunk)
                        bar.update(len(chunk))
            except requests.RequestException:  # cut, or silent for too long
                return False
        return total is None or part.stat().st_size >= total


def checksum_of(path: Path) -> str:
    """ "sha256:…" of a file."""
    import pooch

    return f"sha256:{pooch.file_hash(path, 'sha256')}"


def has_checksum(path: Path, checksum: str | None) -> bool:
    """Whether a file is there and is the one meant (where nobody states a checksum: whether it is there)."""
    import pooch

    if not path.is_file() or checksum is None:
        return path.is_file()
    kind, _, value = checksum.partition(":")
    return pooch.file_hash(path, kind) == value


# -- archives --------------------------------------------------------------------------------------------------------


def members(archive: zipfile.ZipFile, name: str, belongs: Callable[[str], bool]) -> dict[str, zipfile.ZipInfo]:
    """The members that belong, by bare file name. Raises FetchError for an archive that no honest host would serve.

    Folders inside the archive are not kept, so that nothing can land outside the folder that it is unpacked to.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in info.filename.partition("/")[0]:
            raise FetchError(f"{name} is a trap: its member {info.filename!r} climbs out of the folder; not unpacked")
        if info.is_dir() or "__MACOSX" in path.parts or path.name.startswith(".") or not belongs(path.name):
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            raise FetchError(f"{name} is a trap: its member {info.filename!r} is a link; not unpacked")
        if info.file_size > max(1 << 20, BOMB_RATIO * info.compress_size):
            raise FetchError(
                f"{name} is a trap: its member {info.filename!r} swells from {info.compress_size} to "
                f"{info.file_size} bytes; not unpacked"
            )
        if path.name in found:
            raise FetchError(f"{name} holds {path.name} twice; not unpacked")
        found[path.name] = info
    return found


@contextlib.contextmanager
def opened_archive(path: Path):
    """A zip archive, open; what is wrong with it becomes one line."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise FetchError(f"{path.name} is no whole zip archive ({error}): delete it and run this again") from None


def unpack(path: Path, folder: Path, belongs: Callable[[str], bool]) -> int:
    """Unpack the members that belong into a folder; returns how many there are.

    Each file appears only when it is whole; one that is there already and right is left alone, and so is whatever else
    lies in the folder.
    """
    with opened_archive(path) as archive:
        chosen = members(archive, path.name, belongs)
        if not chosen:
            raise FetchError(f"{path.name} holds none of the files that it should: it is another archive")
        missing = {name: info for name, info in chosen.items() if not is_member(folder / name, info)}
        need_space(folder.parent, sum(info.file_size for info in missing.values()), f"unpacking {path.name}")
        for name, info in progress(missing.items(), f"unpacking {path.name}", len(missing), "file"):
            # On Windows a file has to be closed before it gets its name.
            with written_whole(folder / name) as unfinished:
                _copy_member(archive, info, unfinished)
    return len(chosen)


def _copy_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    with archive.open(info) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, CHUNK << 4)


def is_member(path: Path, info: zipfile.ZipInfo) -> bool:
    """Whether a file is the member of an archive: size and CRC-32 agree."""
    return path.is_file() and path.stat().st_size == info.file_size and zlib.crc32(path.read_bytes()) == info.CRC


class RemoteArchive:
    """An archive that stays where it is: single members are read out of it, and checked against its CRC-32."""

    def __init__(self, web: Web, name: str, urls: Iterable[str], belongs: Callable[[str], bool]) -> None:
        """Reads the list of members from the first address that answers. Raises FetchError."""
        self.web, self.name, self._local = web, name, threading.local()
        reasons = []
        for self.url in urls:
            try:
                self.members = self._patiently(lambda: members(self._opened(), self.name, belongs))
                return
            except HostFailed as error:
                reasons.append(str(error))
        raise HostFailed("; ".join(dict.fromkeys(reasons)))

    def read(self, name: str) -> bytes:
        """The content of one member."""
        return self._patiently(lambda: self._opened().read(self.members[name]))

    def _opened(self):
        try:
            import remotezip
        except ImportError:
            raise FetchError("single images need the package remotezip: pip install remotezip") from None
        if not hasattr(self._local, "archive"):  # one position in the file each: threads can't share it
            self._local.archive = remotezip.RemoteZip(self.url, CHUNK << 5, session=self.web)
        return self._local.archive

    def _patiently(self, work: Callable):
        from remotezip import RangeNotSupported, RemoteZipError
        from urllib3.exceptions import HTTPError

        for _ in self.web.attempts():
            try:
                return work()
            except RangeNotSupported:
                raise HostFailed(
                    f"{self.web.host(self.url)} sends no parts of files (or a page in their place): without --limit, "
                    "the whole is fetched"
                ) from None
            except (RemoteZipError, HTTPError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
                # A cut shows in many ways. The archive's position may be anywhere now: open it anew.
                vars(self._local).pop("archive", None)
        raise HostFailed(f"{self.web.host(self.url)} keeps cutting the transfer of {self.name}")


# -- many small files ------------------------------------------------------------------------------------------------


def fetch_each(names: list[str], work: Callable[[str], None], what: str) -> dict[str, FetchError]:
    """Do `work` for each name, some side by side; returns the error of each name that failed.

    A single failure does not stop the others, many do. On Ctrl-C what is finished is kept.
    """
    failed: dict[str, FetchError] = {}

    def attempt(name: str) -> None:
        if len(failed) <= max(10, len(names) // 10):
            try:
                work(name)
            except FetchError as error:
                failed[name] = error

    # Its threads die with the program: Ctrl-C need not wait for hosts that are silent.
    with ThreadPool(AT_ONCE) as pool:
        for _ in progress(pool.imap_unordered(attempt, names), what, len(names), "file"):
            pass
    return failed


def need_space(folder: Path, size: int, what: str, advice: str = "") -> None:
    """Raise FetchError unless the disk of `folder` (it need not exist yet) has `size` bytes free, and a little more."""
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    wanted = round(size * 1.02) + (1 << 20)
    if free < wanted:
        raise FetchError(
            f"{what} needs {readable(wanted)}, but {folder} has {readable(free)} free: free some space, "
            f"or name a folder on another disk{advice}"
        )


def readable(size: int) -> str:
    """A number of bytes for people: 840 MB, 11.2 GB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.{1 if unit == 'GB' else 0}f} {unit}"
    return f"{size} bytes"
