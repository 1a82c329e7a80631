"""Downloads through a local server that breaks off, lies about lengths and serves wrong bytes."""

import hashlib
import ntpath
import posixpath
import re
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from skecg import datasets
from skecg.datasets import ECGFormatError, _fetch, fetch_icentia11k, fetch_mitdb, fetch_ptbxl
from skecg.preprocessing import make_beats, make_windows

BODY = np.random.default_rng(0).bytes(150_000)
HALVED = ("breaks off", "resets", "stalls", "says nothing and breaks off")
STANDARD = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")


class Site(ThreadingHTTPServer):
    """``files`` by path; ``faults`` by path, one per request; ``log`` of (path, first byte asked for, bytes sent)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.faults, self.log, self.n_connections = {}, {}, [], 0
        self.released = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client may hang up
            super().handle_error(request, client_address)

    def asked(self):
        return [path for path, _, _ in self.log]


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # which keeps connections

    def setup(self):
        super().setup()
        self.server.n_connections += 1

    def log_message(self, *args):
        pass

    def do_GET(self):
        path = unquote(self.path).lstrip("/")
        queue = self.server.faults.get(path, [])
        fault = queue.pop(0) if queue else None
        body = self.server.files.get(path)
        asked = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        start = 0 if fault == "no ranges" else asked
        if body is None or fault in ("403", "500", "503"):
            code = 404 if body is None else int(fault)
        elif start and start >= len(body):
            code = 416
        else:
            body = body[start:]
            n_bytes = len(body) // 2 if fault in HALVED else len(body)
            self.server.log.append((path, asked, n_bytes))  # before the client knows
            return self.send_body(body, n_bytes, start, fault)
        self.server.log.append((path, asked, 0))
        self.send_response(code)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_body(self, body, n_bytes, start, fault):
        if fault == "wrong bytes":
            body = bytes(255 - value for value in body)
        claimed = {"claims more": len(body) + 100, "claims less": len(body) // 2}.get(fault, len(body))
        body = body[:n_bytes]
        self.send_response(206 if start else 200)
        if start:
            first = start - 1 if fault == "another range" else start
            self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{start + len(body)}")
        if fault not in ("says nothing", "says nothing and breaks off"):
            self.send_header("Content-Length", str(claimed))
        if fault not in (None, "wrong bytes", "slow"):
            self.send_header("Connection", "close")
        self.end_headers()
        step = len(body) // 4 + 1 if fault == "slow" else len(body) + 1
        for first in range(0, len(body), step):
            self.wfile.write(body[first:first + step])
            self.wfile.flush()
            time.sleep(0.01 if fault == "slow" else 0.0)
        if fault == "stalls":
            self.server.released.wait(30)
        if fault == "resets":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


@pytest.fixture(autouse=True)
def nowhere_else(monkeypatch):
    """No connection to another machine, no waiting between tries."""
    connect = socket.socket.connect

    def local_only(self, address):
        assert address[0] == "127.0.0.1", f"a connection to {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
    monkeypatch.setattr(_fetch, "_DELAYS", (0.0,) * 4)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def site(monkeypatch):
    site = Site()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("SKECG_PHYSIONET_URL", site.url)
    yield site
    site.released.set()
    site.shutdown()
    site.server_close()
    thread.join()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# -------------------------------------------------------------------------------------------- one file


@pytest.fixture
def get(site, tmp_path):
    """Download BODY as tmp_path/"file" under these faults."""

    def get(*faults, part=None):
        site.files["file"] = BODY
        site.faults["file"] = list(faults)
        if part is not None:
            (tmp_path / "file.part").write_bytes(part)
        _fetch.download_files(site.url, tmp_path, {"file": sha256(BODY)})
        return site.log

    return get


@pytest.mark.parametrize(("fault", "n_requests"), [
    (None, 1), ("slow", 1), ("says nothing", 1), ("claims more", 1), ("503", 2), ("500", 2), ("wrong bytes", 2),
    ("claims less", 2), ("breaks off", 2), ("resets", 2), ("stalls", 2), ("says nothing and breaks off", 2),
])
def test_one_fault_is_mended(get, tmp_path, monkeypatch, fault, n_requests):
    monkeypatch.setattr(_fetch, "_TIMEOUT", 0.2 if fault == "stalls" else 60.0)
    log = get(fault)
    assert len(log) == n_requests
    assert (tmp_path / "file").read_bytes() == BODY
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("fault", "message"), [
    ("wrong bytes", "in 4 tries; in the last one, the file does not have the sum that SHA256SUMS.txt gives"),
    ("claims less", "does not have the sum"),
    ("503", "HTTP 503"),
])
def test_a_fault_that_stays_leaves_no_file(get, site, tmp_path, fault, message):
    with pytest.raises(OSError, match=message):
        get(*[fault] * 9)
    assert len(site.log) == 4 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", ["403", "404"])
def test_what_is_not_there_is_asked_for_once(get, site, tmp_path, code):
    with pytest.raises(OSError, match=f"HTTP {code}"):
        if code == "404":
            _fetch.download_files(site.url, tmp_path, {"other": sha256(b"")})
        get("403")
    assert len(site.log) == 1 and list(tmp_path.iterdir()) == []


def test_no_server(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(OSError, match=r"could not be downloaded in 4 tries.*refused.*download_if_missing=False"):
        _fetch.download_files(url, tmp_path, {"file": sha256(BODY)})
    assert list(tmp_path.iterdir()) == []


def test_what_arrived_is_not_asked_for_again(get, site, tmp_path):
    get("breaks off", "breaks off", "breaks off")
    starts = [start for _, start, _ in site.log]
    assert starts[0] == 0 and starts == sorted(set(starts))  # each try starts where the one before ended
    assert sum(sent for _, _, sent in site.log) == len(BODY)
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_later_call_continues(get, site, tmp_path, monkeypatch):
    monkeypatch.setattr(_fetch, "_DELAYS", (0.0,))
    with pytest.raises(OSError, match=r"the connection closed after 75,000 of 150,000 bytes"):
        get("breaks off")
    assert not (tmp_path / "file").exists() and (tmp_path / "file.part").stat().st_size == 75_000
    get()
    assert site.log[1:] == [("file", 75_000, 75_000)]
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize(("part", "faults", "expected"), [
    (BODY, [], []),  # nothing is asked for
    (BODY[:1000], ["no ranges"], [("file", 1000, 150_000)]),
    (BODY[:1000], ["another range"], [("file", 1000, 149_000), ("file", 0, 150_000)]),
    (bytes(1000), [], [("file", 1000, 149_000), ("file", 0, 150_000)]),  # the start was wrong
    (BODY + b"more", [], [("file", 150_004, 0), ("file", 0, 150_000)]),
    (b"", [], [("file", 0, 150_000)]),
])
def test_whatever_part_is_there(get, tmp_path, part, faults, expected):
    assert get(*faults, part=part) == expected
    assert (tmp_path / "file").read_bytes() == BODY
    assert not (tmp_path / "file.part").exists()


@pytest.mark.parametrize("fault", [None, "says nothing"])
def test_a_file_without_end_is_stopped(get, site, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(_fetch, "_MAX_BYTES", 100_000)
    with pytest.raises(OSError, match="larger than 100,000 bytes"):
        get(fault)
    assert len(site.log) == 1 and list(tmp_path.iterdir()) == []


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=st.lists(st.sampled_from([
    "claims more", "claims less", "503", "500", "403", "wrong bytes", "breaks off", "resets", "no ranges", "another range",
    "says nothing", "says nothing and breaks off", None,
]), max_size=6), part=st.sampled_from([None, BODY[:5000], BODY + b"more", b"other"]))
def test_whatever_happens_the_file_is_right_or_not_there(get, site, tmp_path, faults, part):
    file = tmp_path / "file"
    file.unlink(missing_ok=True)
    try:
        get(*faults, part=part)
    except OSError:
        assert not file.exists()
        get()
    assert file.read_bytes() == BODY and list(tmp_path.iterdir()) == [file]


def test_errors_of_the_disk_are_not_tried_again(get, site, tmp_path):
    (tmp_path / "file.part").mkdir()
    with pytest.raises(IsADirectoryError):
        get()
    assert len(site.log) == 1


# ------------------------------------------------------------------------------------------- the sums


def test_read_sums(tmp_path):
    sums, digest = tmp_path / "SHA256SUMS.txt", sha256(b"")
    sums.write_text(f"{digest} 100.hea\n{digest.upper()}  ./100.dat\r\n{digest} *a b/c.dat\n\n{digest} other.txt")
    read = dict(_fetch.read_sums(sums, re.compile(r".*\.(hea|dat)")))
    assert read == dict.fromkeys(["100.hea", "100.dat", "a b/c.dat"], digest)
    for line in ("<html>", f"{digest[1:]} 100.hea", digest):
        sums.write_text(f"{digest} 100.hea\n{line}\n")
        with pytest.raises(ECGFormatError, match=r"SHA256SUMS\.txt, line 2: .* is not a SHA-256 and a file name"):
            list(_fetch.read_sums(sums, re.compile(".*")))


@pytest.mark.parametrize("path", [
    "../100.hea", "/etc/100.hea", "a/../../100.hea", "a/..", "..", "a\\100.hea", "C:100.hea", "a/./b.hea", "a\x00.hea",
])
def test_paths_that_lead_out(tmp_path, path):
    sums = tmp_path / "SHA256SUMS.txt"
    sums.write_text(f"{sha256(b'')} {path}\n")
    with pytest.raises(ECGFormatError, match="leads out of the folder"):
        list(_fetch.read_sums(sums, re.compile(".*", re.DOTALL)))
    assert list(_fetch.read_sums(sums, re.compile("100.hea"))) == []  # not ours to judge


@settings(deadline=None)
@given(st.text(alphabet="a~./\\: \x00", min_size=1, max_size=12))
def test_paths_that_are_let_through_stay_inside(path):
    if _fetch._INSIDE.fullmatch(path):
        for system, folder in ((posixpath, "/home/data"), (ntpath, "C:\\home\\data")):
            assert system.normpath(system.join(folder, path)).startswith(folder + system.sep)


# ---------------------------------------------------------------------------------------- a database


def put_record(files, path, lead_names, *, fs=360, n_times=1000, extension="dat", comments=(), extra=None):
    """A WFDB record of noise into a dict of files; gives its signal in millivolt."""
    name = path.rpartition("/")[2]
    digital = np.random.default_rng(sum(path.encode())).integers(-999, 999, (n_times, len(lead_names))).astype("<i2")
    offset = 24 if extension == "mat" else 0
    storage = f"{name}.{extension} 16{f'x1+{offset}' if offset else ''} 1000/mV 16 0"
    sums = digital.sum(axis=0, dtype=np.int64).astype(np.int16)
    lines = [f"{name} {len(lead_names)} {fs} {n_times}"]
    lines += [f"{storage} {first} {total} 0 {lead}"
              for lead, first, total in zip(lead_names, digital[0], sums, strict=True)]
    files[f"{path}.hea"] = "\n".join([*lines, *(f"# {comment}" for comment in comments)]).encode()
    files[f"{path}.{extension}"] = bytes(offset) + digital.tobytes()
    for ending, content in (extra or {}).items():
        files[f"{path}.{ending}"] = content
    return digital.T.astype(np.float32) / 1000


def beats(*samples):
    """An annotation file of normal beats."""
    return b"".join(struct.pack("<H", 1 << 10 | step) for step in np.diff([0, *samples])) + bytes(2)


def notes(*texts, step=7500):
    """An annotation file of notes, one every ``step`` samples from sample 1 on."""
    content = b""
    for number, text in enumerate(texts):
        text = text.encode() + b"\x00"
        skip = step - 1 if number == 1 else step if number else 1
        content += struct.pack("<HHH", 59 << 10, skip >> 16, skip & 0xFFFF)
        content += struct.pack("<HH", 22 << 10, 63 << 10 | len(text)) + text + bytes(len(text) % 2)
    return content + bytes(2)


def publish(site, place, files):
    """The files and their sums, as PhysioNet has them."""
    files = files | {"LICENSE.txt": b"licence", "ANNOTATORS": b"atr"}
    sums = "".join(f"{sha256(content)} {path}\n" for path, content in files.items())
    site.files |= {f"{place}/{path}": content for path, content in files.items()}
    site.files[f"{place}/SHA256SUMS.txt"] = sums.encode()


@pytest.fixture
def mitdb(site):
    """Four records of MIT-BIH; gives their signals."""
    files, signals = {"x_mitdb/x_100.hea": b"not one of the records"}, {}
    for name, leads in {"100": ["MLII", "V5"], "102": ["V5", "V2"], "201": ["MLII", "V1"], "202": ["MLII", "V1"]}.items():
        signals[name] = put_record(files, name, leads, extra={"atr": beats(300, 600)})
    publish(site, "mitdb/1.0.0", files)
    return signals


pytestmark = pytest.mark.filterwarnings("ignore:.* holds . of 48 records of the MIT-BIH Arrhythmia Database")


def test_fetch_and_fetch_again(site, mitdb, tmp_path, capsys):
    data = fetch_mitdb(tmp_path)
    assert data.record_names.tolist() == ["100", "201", "202"]
    assert data.patient_id.tolist() == ["100", "201", "201"] and data.folds.tolist() == ["DS2", "DS1", "DS2"]
    for record in data.records:
        assert_array_equal(record.signal, mitdb[record.name])
    X, y, groups = make_beats(data)
    assert X.shape == (6, 1, 252) and set(y) == {"N"} and groups.tolist() == ["100"] * 2 + ["201"] * 4

    assert sorted(site.asked()) == sorted(
        ["mitdb/1.0.0/SHA256SUMS.txt", "mitdb/1.0.0/LICENSE.txt"]
        + [f"mitdb/1.0.0/{name}.{ending}" for name in mitdb for ending in ("hea", "dat", "atr")]
    )
    said = capsys.readouterr().err
    assert (f"Downloading 13 files of the MIT-BIH Arrhythmia Database (about 8.7 MB) from {site.url}/mitdb/1.0.0/ to "
            f"{tmp_path / 'mitdb'}. Licence: Open Data Commons Attribution License v1.0 (ODC-BY 1.0).") in said
    assert not list(tmp_path.rglob("*.part"))
    assert site.n_connections <= 1 + 4  # for the sums, and one per thread

    site.log.clear()
    assert len(fetch_mitdb(tmp_path).records) == 3
    assert len(fetch_mitdb(tmp_path / "mitdb").records) == 3  # the folder itself
    assert site.log == [] and capsys.readouterr().err == ""


def test_default_folder(site, mitdb, tmp_path, monkeypatch):
    monkeypatch.setenv("SKECG_DATA", str(tmp_path / "here"))
    fetch_mitdb(records="100")
    assert (tmp_path / "here/mitdb/100.dat").is_file()
    monkeypatch.delenv("SKECG_DATA")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    fetch_mitdb(records="100")
    assert (tmp_path / "home/skecg_data/mitdb/100.dat").is_file()


def test_selected_records(site, mitdb, tmp_path):
    data = fetch_mitdb(tmp_path, records=["20?", "100"])
    assert data.record_names.tolist() == ["100", "201", "202"]
    assert not any("102" in path for path in site.asked())
    site.log.clear()
    assert fetch_mitdb(tmp_path, records="201").record_names.tolist() == ["201"]
    assert site.log == []
    with pytest.raises(ValueError, match=r"Arrhythmia Database has no record 999, x\*; it has, among others, 100, 102"):
        fetch_mitdb(tmp_path, records=["999", "1*", "x*"])
    with pytest.warns(UserWarning, match=r"holds no record 102: 1 record\(s\) are used"):  # what is there is used
        data = fetch_mitdb(tmp_path, records=["102", "201"], download_if_missing=False)
    assert data.record_names.tolist() == ["201"]
    with pytest.raises(FileNotFoundError, match=rf"holds no record 102\. Pass download_if_missing=True.*{site.url}/mitdb"):
        fetch_mitdb(tmp_path, records=["102"], download_if_missing=False)
    with pytest.raises(ValueError, match=r"has no record 999; it has, among others, 100, 102"):
        fetch_mitdb(tmp_path, records="999", download_if_missing=False)
    assert site.log == []


def test_a_first_download_that_fails_leaves_nothing(site, tmp_path, capsys):
    home = tmp_path / "new" / "home"
    site.faults["mitdb/1.0.0/SHA256SUMS.txt"] = ["503"] * 4
    site.files["mitdb/1.0.0/SHA256SUMS.txt"] = b""
    with pytest.raises(OSError, match="could not be downloaded in 4 tries"):
        fetch_mitdb(home)
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr().err
    assert said.count("SHA256SUMS.txt: HTTP 503 Service Unavailable. Trying again.") == 3
    copy = tmp_path / "copy"  # of the user
    copy.mkdir()
    (copy / "100.hea").write_text("100 1 360 10")
    with pytest.raises(ECGFormatError, match="names no record"):
        fetch_mitdb(copy)
    assert [file.name for file in copy.iterdir()] == ["100.hea"]
    site.files["mitdb/1.0.0/SHA256SUMS.txt"] = BODY
    site.faults["mitdb/1.0.0/SHA256SUMS.txt"] = ["breaks off", "503", "503", "503"]
    with pytest.raises(OSError, match="could not be downloaded"):
        fetch_mitdb(home)
    assert (home / "mitdb/SHA256SUMS.txt.part").stat().st_size == len(BODY) // 2  # what has arrived is kept


def test_nothing_is_downloaded_unless_it_may(site, mitdb, tmp_path):
    with pytest.raises(FileNotFoundError, match=(
        rf"no folder {re.escape(str(tmp_path))}.mitdb, and .* holds none of .*\. Pass download_if_missing=True to download "
        rf"what is missing from {site.url}/mitdb/1\.0\.0/ \(about 96 MB in all"
    )):
        fetch_mitdb(tmp_path, download_if_missing=False)
    fetch_mitdb(tmp_path, records=["100", "102"])
    (tmp_path / "mitdb/102.dat").unlink()
    site.log.clear()
    with pytest.warns(UserWarning, match=r"mitdb holds 2 of 48 records of the MIT-BIH Arrhythmia Database\. 1 of these 2 "
                                         r"lack a file, such as 102\.dat\.") as caught:
        data = fetch_mitdb(tmp_path, download_if_missing=False, include_paced=True)
    assert caught[0].filename == __file__
    assert data.record_names.tolist() == ["100", "102"] and data.records[0].n_leads == 2
    assert site.log == []


def test_a_database_that_breaks_off_is_continued(site, mitdb, tmp_path):
    place = "mitdb/1.0.0"
    site.faults[f"{place}/201.dat"] = ["wrong bytes"] * 4
    with pytest.raises(OSError, match=r"201\.dat could not be downloaded.*call again to continue"):
        fetch_mitdb(tmp_path)
    there = {file.name for file in (tmp_path / "mitdb").iterdir()}
    assert "201.dat" not in there and {"100.hea", "100.dat", "100.atr"} <= there
    for file in (tmp_path / "mitdb").glob("[12]*"):
        if file.suffix != ".part":
            assert file.read_bytes() == site.files[f"{place}/{file.name}"]
    site.log.clear()
    assert len(fetch_mitdb(tmp_path).records) == 3
    assert {path.removeprefix(f"{place}/") for path in site.asked()}.isdisjoint(there)


def test_interrupted_by_the_user(site, mitdb, tmp_path, monkeypatch):
    def interrupted(jobs):
        yield from ()
        raise KeyboardInterrupt

    for path in list(site.files):
        site.faults[path] = ["slow"]
    with monkeypatch.context() as patch:
        patch.setattr(_fetch, "as_completed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch_mitdb(tmp_path)
    assert len(site.log) < len(site.files)
    assert not any(thread.name.startswith("ThreadPoolExecutor") for thread in threading.enumerate())
    for record in fetch_mitdb(tmp_path).records:
        assert_array_equal(record.signal, mitdb[record.name])


def test_sums_that_cannot_be_used(site, mitdb, tmp_path):
    sums = "mitdb/1.0.0/SHA256SUMS.txt"
    good = site.files[sums]
    for content, message in [
        (b"<html>Please log in</html>", r"line 1: .*Please log in.* is not a SHA-256"),
        (good + f"{sha256(b'')} ANNOTATORS/../../100.hea\n".encode(), None),  # none of ours
        (f"{sha256(b'')} other\n".encode(), "names no record of the MIT-BIH"),
    ]:
        site.files[sums] = content
        if message is None:
            fetch_mitdb(tmp_path / "good", records="100")
            assert not list(tmp_path.glob("*.hea"))
        else:
            with pytest.raises(ECGFormatError, match=message):
                fetch_mitdb(tmp_path)
            assert not (tmp_path / "mitdb").exists()
    publish(site, "challenge-2020/1.0.2", {"training/georgia/../../../../out/E1.hea": b"", "training/ptb/g1/S1.hea": b""})
    with pytest.raises(ECGFormatError, match="leads out of the folder; nothing was downloaded"):
        datasets.fetch_cinc2020(tmp_path / "a/b/c")
    assert not list(tmp_path.rglob("E1.hea"))


def test_broken_sums_are_continued(site, mitdb, tmp_path):
    site.faults["mitdb/1.0.0/SHA256SUMS.txt"] = ["breaks off", "claims more"]
    assert len(fetch_mitdb(tmp_path, records="100").records) == 1


def test_verify(site, mitdb, tmp_path):
    fetch_mitdb(tmp_path)
    file = tmp_path / "mitdb/100.dat"
    good = file.read_bytes()
    file.write_bytes(bytes(len(good)))
    site.log.clear()
    fetch_mitdb(tmp_path)  # what is there is not looked at, but the header's checksum finds it
    with pytest.raises(ECGFormatError):
        fetch_mitdb(tmp_path).records[0]
    with pytest.raises(OSError, match=r"1 files in .* differ from SHA256SUMS\.txt: 100\.dat\. Pass download_if_missing"):
        fetch_mitdb(tmp_path, download_if_missing=False, verify=True)
    assert site.log == [] and file.read_bytes() != good
    fetch_mitdb(tmp_path, verify=True)
    assert site.asked() == ["mitdb/1.0.0/100.dat"] and file.read_bytes() == good
    fetch_mitdb(tmp_path, download_if_missing=False, verify=True)
    (tmp_path / "mitdb/SHA256SUMS.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no SHA256SUMS\.txt in"):
        fetch_mitdb(tmp_path, download_if_missing=False, verify=True)


def test_folder_that_cannot_be_written_to(site, mitdb, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"Cannot write to .*file.mitdb .*Pass a data_home in which you may write"):
        fetch_mitdb(tmp_path / "file")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError, match=r"Cannot write to .*Permission denied"):
        fetch_mitdb(tmp_path)
    assert site.log == []


def test_full_disk(site, mitdb, tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 5_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"The 13 files that are missing take about 8\.7 MB, but .* has 5\.0 MB left"):
        fetch_mitdb(tmp_path)
    assert site.asked() == ["mitdb/1.0.0/SHA256SUMS.txt"]
    assert len(fetch_mitdb(tmp_path, records="100").records) == 1


def test_two_at_a_time(site, mitdb, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(_fetch, "print", lambda *args, **kwargs: said.append(args[0]), raising=False)
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch_mitdb(tmp_path))) for _ in range(2)]
    (tmp_path / "mitdb").mkdir()
    with FileLock(tmp_path / "mitdb/.lock"):
        for thread in threads:
            thread.start()
        wait_until(lambda: len(said) == 2)
        assert site.log == [] and "Waiting for another process" in said[0]
    for thread in threads:
        thread.join()
    assert len(found) == 2 and len(site.log) == len(set(site.asked())) == 14


def test_address_of_the_mirror(tmp_path, monkeypatch):
    for url in ("file:///etc", "ftp://127.0.0.1", "127.0.0.1"):
        monkeypatch.setenv("SKECG_PHYSIONET_URL", url)
        with pytest.raises(ValueError, match="SKECG_PHYSIONET_URL must be the address"):
            fetch_mitdb(tmp_path)
    with pytest.raises(ValueError, match="an address on a network"):
        fetch_mitdb("https://physionet.org/files/mitdb/1.0.0")
    monkeypatch.delenv("SKECG_PHYSIONET_URL")
    assert _fetch.database_url("mitdb", "1.0.0") == "https://physionet.org/files/mitdb/1.0.0"


# ------------------------------------------------------------------------------------- each database


def publish_ptbxl(site):
    files = {"scp_statements.csv": b",diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass\nNORM,1.0,,,NORM,NORM\n"
                                   b"IMI,1.0,,,MI,IMI\nASMI,1.0,,,MI,AMI\nSR,,,1.0,,\nLOWT,,1.0,,,\n"}
    rows = ["ecg_id,patient_id,scp_codes,strat_fold,filename_lr,filename_hr"]
    for i, codes in enumerate(["{'NORM': 100.0, 'SR': 0.0}", "{'IMI': 35.0, 'ASMI': 50.0, 'LOWT': 0.0}"], start=1):
        low, high = (f"records{fs}/00000/0000{i}_{tag}" for fs, tag in ((100, "lr"), (500, "hr")))
        rows.append(f'{i},{i}7.0,"{codes}",{i},{low},{high}')
        put_record(files, low, STANDARD, fs=100)
        put_record(files, high, STANDARD, fs=500)
    files["ptbxl_database.csv"] = "\n".join(rows).encode()
    publish(site, "ptb-xl/1.0.3", files)


@pytest.mark.filterwarnings("ignore:.* holds . of 21,799 records of PTB-XL")
def test_fetch_ptbxl(site, tmp_path):
    publish_ptbxl(site)
    data = fetch_ptbxl(tmp_path)
    assert not any("records500" in path for path in site.asked())
    assert_array_equal(data.target, [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]])
    assert data.patient_id.tolist() == [17, 27] and data.folds.tolist() == [1, 2] and data.fs == 100
    site.log.clear()
    data = fetch_ptbxl(tmp_path, fs=500, records="00002_hr", task="subclass")
    assert sorted(site.asked()) == [f"ptb-xl/1.0.3/records500/00000/00002_hr.{ending}" for ending in ("dat", "hea")]
    assert data.target_names == ("NORM", "IMI", "AMI") and data.target.tolist() == [[0, 1, 1]]
    for task, names in [("diagnostic", ("NORM", "IMI", "ASMI")), ("rhythm", ("SR",)), ("form", ("LOWT",)),
                        ("all", ("NORM", "IMI", "ASMI", "SR", "LOWT"))]:
        data = fetch_ptbxl(tmp_path, task=task, min_likelihood=40 if task == "diagnostic" else 0)
        assert data.target_names == names
        codes = [{"NORM", "SR"}, {"ASMI", "LOWT"} | ({"IMI"} if task != "diagnostic" else set())]
        assert data.target.tolist() == [[int(name in there) for name in names] for there in codes]


@pytest.mark.filterwarnings("ignore:.* holds . of 310 records of the ECG-ID Database")
def test_fetch_ecgid(site, tmp_path):
    files, signals = {}, {}
    for number, name in enumerate(["Person_01/rec_1", "Person_01/rec_2", "Person_01/rec_10", "Person_02/rec_1"]):
        comments = ["Age: 25", "Sex: male", f"ECG date: 0{number + 1}.12.2004"] if number < 3 else ["Age: -", "Sex: female"]
        signals[name] = put_record(files, name, ["ECG I", "ECG I filtered"], fs=500, comments=comments,
                                   extra={"atr": beats(300)})
    publish(site, "ecgiddb/1.0.0", files)
    data = datasets.fetch_ecgid(tmp_path)
    assert data.record_names.tolist() == list(signals)
    assert data.target.tolist() == data.patient_id.tolist() == ["Person_01"] * 3 + ["Person_02"]
    assert data.target_names == ("Person_01", "Person_02") and data.folds is None and data.fs == 500
    assert data.date.astype(str).tolist() == ["2004-12-01", "2004-12-02", "2004-12-03", "NaT"]
    assert_array_equal(data.age, [25, 25, 25, np.nan])
    assert data.sex.tolist() == ["male"] * 3 + ["female"]
    X, y, groups = make_windows(data, length=2.0)
    assert_array_equal(X[:, 0], [signal[0] for signal in signals.values()])  # the raw one
    assert y.tolist() == groups.tolist() == data.target.tolist()
    data = datasets.fetch_ecgid(tmp_path, records="Person_02/*", lead_names=["ECG I filtered"])
    assert_array_equal(make_windows(data, length=2.0)[0][0], signals["Person_02/rec_1"][1:])


@pytest.mark.filterwarnings("ignore:.* holds . of 18 records of the MIT-BIH Polysomnographic Database")
def test_fetch_slpdb(site, tmp_path):
    files, leads = {}, ["ECG", "BP", "EEG (O2-A1)"]
    signal = put_record(files, "slp02a", leads, fs=250, n_times=30_000,
                        extra={"ecg": beats(300), "st": notes("2", "2 L  LA", "M", "R")})
    put_record(files, "slp02b", leads, fs=250, n_times=30_000, extra={"ecg": beats(300), "st": notes("W")})
    put_record(files, "slp67x", leads, fs=250, extra={"ecg": beats(300), "st": notes()})
    publish(site, "slpdb/1.0.0", files)
    data = datasets.fetch_slpdb(tmp_path)
    assert data.patient_id.tolist() == ["slp02", "slp02", "slp67"] and data.target is None
    assert [stages.tolist() for stages in data.stages] == [["2", "2", "MT", "R"], ["W"], []]
    assert [events.tolist() for events in data.events] == [["", "L LA", "", ""], [""], []]
    record = data.records[0]
    assert record.lead_names == data.lead_names == ("ECG",) and record.annotations.sample.tolist() == [300]
    assert_array_equal(record.signal, signal[:1])
    assert datasets.fetch_slpdb(tmp_path, records="slp02a", lead_names=None).records[0].n_leads == 3
    (tmp_path / "slpdb/slp02b.st").write_bytes(notes("W", "1", "2", step=7000))
    with pytest.raises(ECGFormatError, match=r"slp02b\.st: the sleep stages are not given once every 30 s"):
        datasets.fetch_slpdb(tmp_path)


@pytest.mark.filterwarnings("ignore:.* holds . of 90 records of the European ST-T Database")
def test_fetch_edb(site, tmp_path):
    files = {}
    for name, leads in {"e0103": ["V4", "MLIII"], "e0104": ["MLIII", "V5"]}.items():
        put_record(files, name, leads, fs=250, comments=["Age: 62  Sex: M", "Mixed angina"], extra={"atr": beats(300, 600)})
    publish(site, "edb/1.0.0", files)
    data = datasets.fetch_edb(tmp_path)
    assert data.lead_names == ("III", "V4", "V5") and data.fs == 250 and data.target is None
    assert data.patient_id.tolist() == ["e0103", "e0104"]
    assert data.age.tolist() == [62, 62] and data.sex.tolist() == ["male"] * 2
    X = make_beats(data)[0]
    assert np.isnan(X[:, :, 0]).tolist() == [[False, False, True]] * 2 + [[False, True, False]] * 2
    data = datasets.fetch_edb(tmp_path, lead_names=["V5", "III"])
    assert np.isnan(data.records[0].signal[:, 0]).tolist() == [True, False]


@pytest.mark.filterwarnings("ignore:.* holds . of 541,794 records of Icentia11k")
def test_fetch_icentia11k(site, tmp_path):
    files = {}
    for path in ("p00/p00000/p00000_s00", "p00/p00000/p00000_s01", "p01/p01007/p01007_s00"):
        put_record(files, path, ["ECG"], fs=250, extra={"atr": beats(300, 600)})
    publish(site, "icentia11k-continuous-ecg/1.0", files)
    with pytest.raises(ValueError, match=r"Icentia11k takes about 1\.1 TB: choose what to download with records="):
        fetch_icentia11k(tmp_path)
    assert site.log == [] and list(tmp_path.iterdir()) == []
    data = fetch_icentia11k(tmp_path, records="p?????_s00")
    assert data.record_names.tolist() == ["p00000_s00", "p01007_s00"] and data.patient_id.tolist() == ["p00000", "p01007"]
    assert data.lead_names == ("ECG",) and data.records[1].annotations.symbol.tolist() == ["N", "N"]
    assert len(fetch_icentia11k(tmp_path, download_if_missing=False).records) == 2
    assert len(site.log) == 2 + 2 * 3


@pytest.mark.parametrize(("year", "place", "more"), [("2020", "1.0.2", []), ("2021", "1.0.3", ["ningbo"])])
@pytest.mark.filterwarnings("ignore:.* holds . of .* records of the PhysioNet/CinC Challenge")
def test_fetch_challenge(site, tmp_path, year, place, more):
    files, signals = {}, {}
    for source, name, fs, comments in [
        ("georgia", "E00001", 500, ["Age: 78", "Sex: Male", "Dx: 426783006,59931005"]),
        ("ptb", "S0001", 1000, ["Age: NaN", "Sex: Unknown", "Dx: 164865005"]),
        ("ningbo", "JS1", 500, ["Age: 7", "Sex: F", "Dx: "]),
    ]:
        signals[name] = put_record(files, f"training/{source}/g1/{name}", STANDARD, fs=fs, extension="mat",
                                   comments=comments)
    publish(site, f"challenge-{year}/{place}", files)
    fetch = getattr(datasets, f"fetch_cinc{year}")
    data = fetch(tmp_path)
    assert data.source.tolist() == ["georgia", *more, "ptb"]
    assert data.record_names.tolist() == data.patient_id.tolist() == ["E00001", *["JS1"][:len(more)], "S0001"]
    assert data.target_names == ("59931005", "164865005", "426783006") and data.folds is None
    assert data.target.tolist() == [[1, 0, 1], *[[0, 0, 0]][:len(more)], [0, 1, 0]]
    assert_array_equal(data.fs, [500, *[500][:len(more)], 1000])
    assert_array_equal(data.age, [78, *[7][:len(more)], np.nan])
    assert data.sex.tolist() == ["male", *["female"][:len(more)], ""]
    assert_array_equal(data.records[0].signal, signals["E00001"])
    georgia = fetch(tmp_path / "georgia only", records="training/georgia/*")
    assert georgia.target_names == ("59931005", "426783006") and len(georgia.records) == 1
    header = tmp_path / f"cinc{year}/training/georgia/g1/E00001.hea"
    header.write_text(header.read_text().replace("Dx", "Rx"))
    with pytest.raises(ECGFormatError, match=r"E00001\.hea: the header gives no diagnoses"):
        fetch(tmp_path)


def test_every_database_says_whose_it_is():
    names = [name for name in datasets.__all__ if name.startswith("fetch_")]
    assert len(names) == 8
    for name in names:
        module = sys.modules[getattr(datasets, name).__module__]
        database = getattr(module, name.removeprefix("fetch_").upper())
        assert database.name == name.removeprefix("fetch_")
        assert database.license and database.citation and database.descr.count("\n") > 2
        short = re.search(r"\((CC BY.*|ODC-BY.*)\)", database.license)[1]
        assert short in getattr(datasets, name).__doc__ or name == "fetch_cinc2021"  # which refers to fetch_cinc2020
