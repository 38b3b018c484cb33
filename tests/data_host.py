"""A small internet on this machine: the data sets' hosts in miniature, in their official shapes, misbehaving on demand.

Everything that a host would serve lies in `files`, by HOST/PATH. `trouble` lists what goes wrong, by HOST/PATH: each
request takes the next entry, and when none is left the host behaves. Nothing here leaves the loopback interface.
"""

import hashlib
import io
import json
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np

from skinlib import sources, synthetic

API = "api.isic-archive.com/api/v2"
BUCKET, OLD_BUCKET = "isic-archive.s3.amazonaws.com/challenges", "isic-challenge-data.s3.amazonaws.com"
DATAVERSE = "dataverse.harvard.edu/api/access/datafile"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        host = self.server.host
        name, query = urlsplit(self.path).path[1:], parse_qs(urlsplit(self.path).query)
        host.requests.append((name, self.headers.get("Range")))
        trouble = host.next_trouble(name)
        if isinstance(trouble, int):
            headers = {"Retry-After": host.retry_after} if host.retry_after else {}
            return self._answer(trouble, b"in trouble", headers)
        from_api = name.startswith(API)
        content = host.api(name.removeprefix(API), query) if from_api else host.files.get(name)
        if content is None:
            return self._answer(404, b"no such file")
        if trouble == "login page":  # with status 200, and no thought of ranges
            return self._answer(200, b"<html>Log in to the wireless network</html>", {"Content-Type": "text/html"})
        if trouble == "another file":
            content = b"<html>Log in to the wireless network</html>"
        return self._serve(content, trouble)

    def _serve(self, content, trouble):
        total, status, headers = len(content), 200, {}
        wanted = self.headers.get("Range")
        if wanted and self.server.host.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, total - int(last))
            stop = min(int(last) + 1, total) if first and last else total
            if start >= total:
                return self._answer(416, b"", {"Content-Range": f"bytes */{total}"})
            content, status = content[start:stop], 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        if trouble in ("cut", "stall"):
            self.wfile.write(content[:half])
            self.wfile.flush()
            if trouble == "cut":
                self.close_connection = True
                self.connection.close()
                return None
            time.sleep(self.server.host.stall)
            content = content[half:]
        for start in range(0, len(content), 65536):
            time.sleep(self.server.host.slowly)
            self.wfile.write(content[start : start + 65536])
        return None

    def _answer(self, status, content, headers=None):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a client that hangs up is what these tests are about


class DataHost:
    """The server, what it holds, and what goes wrong. A context manager."""

    def __init__(self):
        self.files, self.trouble, self.requests = {}, {}, []
        self.images, self.collections = {}, {}  # the Archive's: by id, and ids by collection
        self.retry_after, self.stall, self.slowly, self.ranges = "", 10, 0, True
        self.page, self.paging = 4, ""  # images on a page; "repeats" or "drops" a cursor
        self.lock = threading.Lock()

    def __enter__(self):
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.host = self
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def next_trouble(self, name):
        with self.lock:
            waiting = self.trouble.get(name)
            return waiting.pop(0) if waiting else None

    def asked(self, part):
        """Requests whose path has `part` in it."""
        return [request for request in self.requests if part in request[0]]

    def api(self, path, query):
        if path == "/images/search/":
            ids = self.collections.get(query["collections"][0], [])
            start = int(query.get("cursor", ["0"])[0])
            stop = start + min(self.page, int(query["limit"][0]))
            following = None
            if stop < len(ids):
                following = {"repeats": 0, "drops": None}.get(self.paging, stop)
            address = None
            if following is not None:
                cursor = f"&cursor={following}" if following else ""
                address = f"https://{API}/images/search/?collections={query['collections'][0]}&limit=100{cursor}"
            results = [self.images[name] for name in ids[start:stop]]
            return json.dumps({"count": len(ids), "next": address, "previous": None, "results": results}).encode()
        image = self.images.get(path.removeprefix("/images/").strip("/"))
        return json.dumps(image).encode() if image else None


def zipped(files, folder="", extra=()):
    """A zip archive as bytes: `files` by name under `folder`, and further members as they are given."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(f"{folder}{name}", data)
        for name, data in extra:
            archive.writestr(name, data)
    return content.getvalue()


def jpeg(image):
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def png(mask):
    return cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()


def painted(count, first=0):
    """Image, mask and label of a few lesions, 160×120, by id."""
    made = {}
    for number in range(first, first + count):
        sample = synthetic.make_image(number, 160)
        made[f"ISIC_{number:07d}"] = sample.image[20:140], sample.mask[20:140], sample.attributes["label"]
    return made


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def lesions_in(content):
    """Names of the images or masks in an archive, without what does not belong there."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [name for name in archive.namelist() if name.rpartition("/")[2].startswith("ISIC_")]


def serve_set(host, monkeypatch, name, lesions):
    """Put one data set's archives on the hosts, in the official shape, and its checksums into `sources`."""
    ids = list(lesions)
    pictures = {f"{i}.jpg": jpeg(image) for i, (image, _, _) in lesions.items()}
    word = {i: ("Benign", "Malignant")[label] for i, (_, _, label) in lesions.items()}
    contents = {}
    if name == "isic2018":
        masks = {f"{i}_segmentation.png": png(mask) for i, (_, mask, _) in lesions.items()}
        folder = "ISIC2018_Task1_Training_GroundTruth"
        contents[f"{folder}.zip"] = zipped(masks, f"{folder}/", [(f"{folder}/ATTRIBUTION.txt", "by hand")])
        folder = "ISIC2018_Task1-2_Training_Input"
        contents[f"{folder}.zip"] = zipped(pictures, f"{folder}/", [(f"{folder}/LICENSE.txt", "CC-0")])
    if name == "isic2016":
        cut = len(ids) * 2 // 3
        for part, chosen in (("Training", ids[:cut]), ("Test", ids[cut:])):
            folder = f"ISBI2016_ISIC_Part1_{part}_GroundTruth"
            masks = {f"{i}_Segmentation.png": png(lesions[i][1]) for i in chosen}
            contents[f"{folder}.zip"] = zipped(masks, f"{folder}/")
            folder = f"ISBI2016_ISIC_Part1_{part}_Data"
            contents[f"{folder}.zip"] = zipped({f"{i}.jpg": pictures[f"{i}.jpg"] for i in chosen}, f"{folder}/")
            says = (lambda i: word[i].lower()) if part == "Training" else (lambda i: f"{lesions[i][2]:.1f}")
            rows = "".join(f"{i},{says(i)}\n" for i in chosen)
            contents[f"ISBI2016_ISIC_Part3_{part}_GroundTruth.csv"] = rows.encode()
    if name == "ham10000":
        masks = {f"{i}_segmentation.png": png(mask) for i, (_, mask, _) in lesions.items()}
        folder = "HAM10000_segmentations_lesion_tschandl/"
        extra = [(f"__MACOSX/{folder}._{name}", b"fork") for name in masks]
        contents["HAM10000_segmentations_lesion_tschandl.zip"] = zipped(masks, folder, extra)
        half = len(ids) // 2
        for part, chosen in ((1, ids[:half]), (2, ids[half:])):
            contents[f"HAM10000_images_part_{part}.zip"] = zipped({f"{i}.jpg": pictures[f"{i}.jpg"] for i in chosen})
        rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
        rows += [f"HAM_{i[-4:]},{i},{('nv', 'mel')[lesions[i][2]]},histo,50.0,male,back" for i in ids]
        contents["HAM10000_metadata.csv"] = "\n".join(rows).encode()
    files = []
    for file in sources.SOURCES[name].files:
        content = contents[file.name]
        for url in file.urls:
            host.files[urlsplit(url).netloc + urlsplit(url).path] = content
        checksum = sha256(content) if file.checksum else None
        number = len(lesions_in(content)) if file.folder else 0
        files.append(file._replace(checksum=checksum, members=number))
    source = sources.SOURCES[name]
    size = sum(len(content) for content in contents.values())
    monkeypatch.setitem(sources.SOURCES, name, source._replace(files=tuple(files), size=size, images=len(ids)))
    serve_archive(host, lesions, source.collections[0])


def serve_archive(host, lesions, collection):
    """The ISIC Archive's answers and thumbnails for the same images."""
    for image_id, (image, _, label) in lesions.items():
        thumbnail = cv2.resize(image, (80, 60), interpolation=cv2.INTER_AREA)
        host.files[f"content.isic-archive.com/{image_id}/thumbnail.jpg"] = jpeg(thumbnail)
        host.images[image_id] = {
            "isic_id": image_id,
            "copyright_license": "CC-0",
            "attribution": "Anonymous" if int(image_id[-1]) % 2 else "Hospital Clínic de Barcelona",
            "files": {
                "full": {"url": f"https://content.isic-archive.com/{image_id}/full.jpg", "size": 1},
                "thumbnail_256": {
                    "url": f"https://content.isic-archive.com/{image_id}/thumbnail.jpg?Signature=abc", "size": 1
                },
            },
            "metadata": {
                "acquisition": {"pixels_x": 160, "pixels_y": 120},
                "clinical": {
                    "diagnosis_1": ("Benign", "Malignant")[label], "diagnosis_2": "Benign melanocytic proliferations",
                    "diagnosis_3": "Nevus", "age_approx": 45, "sex": "female", "lesion_id": f"IL_{image_id[-7:]}",
                },
            },
        }  # fmt: skip
    host.collections[str(collection)] = list(lesions)
