"""Files of a PhysioNet database: downloaded, continued where they broke off, checked against SHA256SUMS."""

import hashlib
import os
import re
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from urllib.parse import quote, urlsplit

from tqdm.auto import tqdm

from .. import __version__
from ._wfdb import ECGFormatError

SUMS = "SHA256SUMS.txt"

_SITE = "https://physionet.org/files"
_THREADS = 4
_TIMEOUT = 60.0  # seconds without an answer, or without a further byte
_DELAYS = (0.0, 1.0, 2.0, 4.0, 8.0)  # seconds before each try
_MAX_DELAY = 60.0  # of those that a server asks for
_BLOCK = 2**14  # bytes; what a reset connection loses of them is asked for again
_MAX_BYTES = 2**30  # per file; the largest one (the sums of Icentia11k) has a sixth of it
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}

_SUM = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(?:\./)?(\S.*?)\r?\n?$", re.DOTALL)
_INSIDE = re.compile(r"(?!(?:.*/)?\.{1,2}(?:/|$))[^/\\:\x00-\x1f][^\\:\x00-\x1f]*")


class _BrokenOff(Exception):
    """A transfer that another try may continue, after ``delay`` seconds if the server asked for that."""

    def __init__(self, reason, delay=0.0):
        super().__init__(reason)
        self.delay = delay


def database_url(slug, version):
    """Where the files of a database are: on PhysioNet, or on the mirror of ``SKECG_PHYSIONET_URL``."""
    site = os.environ.get("SKECG_PHYSIONET_URL") or _SITE
    if urlsplit(site).scheme not in ("http", "https"):
        raise ValueError(f"SKECG_PHYSIONET_URL must be the address of a mirror of {_SITE}, starting with https:// or "
                         f"http://; it is {site!r}.")
    return f"{site.rstrip('/')}/{slug}/{version}"


def read_sums(file, wanted):
    """Pairs of path and SHA-256 (hexadecimal) of the listed files that the regular expression ``wanted`` matches."""
    with open(file, encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            match = _SUM.match(line)
            if match is None:
                if line.strip():
                    raise ECGFormatError(f"{line[:80]!r} is not a SHA-256 and a file name. Delete the file, so that "
                                         "it is downloaded again.", file=file, line=number)
            elif wanted.fullmatch(match[2]):
                if not _INSIDE.fullmatch(match[2]):
                    raise ECGFormatError(f"{match[2]!r} leads out of the folder; nothing was downloaded.",
                                         file=file, line=number)
                yield match[2], match[1].lower()


def file_sum(file):
    """The SHA-256 of a file, hexadecimal."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def locked(folder):
    """Create ``folder`` and keep other processes from downloading into it at the same time.

    A download that fails before anything is there leaves no trace: no lock, and no folder that was not there before.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that downloads into {folder}.", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise OSError(f"Cannot write to {folder} ({error}). Pass a data_home in which you may write, or "
                      "download_if_missing=False to use what is there.") from error
    try:
        yield
    except BaseException:
        if not (folder / SUMS).exists():
            with suppress(OSError):  # Windows removes it on release
                (folder / ".lock").unlink()
            lock.release()
            with suppress(OSError):  # not empty: what has arrived is kept
                for path in made:
                    path.rmdir()
        raise
    finally:
        lock.release()


def download_files(url, folder, sums):
    """Download files below ``url`` into ``folder``: their paths, and the SHA-256 of each, or None if not known.

    The first file that fails for good ends it. Each thread keeps its connection: files are many and small.
    """
    import requests

    waiting, stop = deque(sums.items()), threading.Event()

    def work():
        with requests.Session() as session:
            while waiting and not stop.is_set():
                try:
                    path, sha256 = waiting.popleft()
                except IndexError:  # another thread was faster
                    break
                _download(session, f"{url}/{quote(path)}", folder / path, sha256, stop)
                bar.update()

    with (tqdm(total=len(sums), unit="file", disable=None) as bar,  # no bar where stderr is not a terminal
          ThreadPoolExecutor(_THREADS) as pool):
        try:
            for job in as_completed([pool.submit(work) for _ in range(min(_THREADS, len(sums)))]):
                job.result()
        finally:
            stop.set()


def _download(session, url, file, sha256, stop):
    """Download a file, which appears under its name only when it is complete and has this SHA-256.

    Until then it is ``<name>.part``. What is there of it is not asked for again, here or in a later call.
    """
    part = file.with_name(file.name + ".part")
    file.parent.mkdir(parents=True, exist_ok=True)
    if _is_right(part, sha256):
        os.replace(part, file)
        return
    asked_for, reason = 0.0, None
    for delay in _DELAYS:
        if reason is not None and not stop.is_set():
            tqdm.write(f"{url}: {reason}. Trying again.", file=sys.stderr)
        if stop.wait(max(delay, asked_for)):
            return
        try:
            _transfer(session, url, part, stop)
            reason, asked_for, complete = f"the file does not have the sum that {SUMS} gives", 0.0, True
        except _BrokenOff as error:
            reason, asked_for, complete = str(error), min(error.delay, _MAX_DELAY), False
        if _is_right(part, sha256) or (complete and sha256 is None):  # whatever length the server claimed
            os.replace(part, file)
            return
        if complete:
            part.unlink()
    raise OSError(f"{url} could not be downloaded in {len(_DELAYS)} tries; in the last one, {reason}. What is "
                  "complete is kept: call again to continue, or pass download_if_missing=False to use what is there.")


def _is_right(part, sha256):
    return sha256 is not None and part.is_file() and file_sum(part) == sha256


def _transfer(session, url, part, stop):
    """Append the rest of the file to ``part``, or all of it where the server knows no ranges."""
    start = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": f"skecg/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with _network():
        response = session.get(url, headers=headers, stream=True, timeout=_TIMEOUT)
    with response:
        _check_answer(response, start, part)
        position = start if response.status_code == 206 else 0
        length = response.headers.get("Content-Length", "")
        expected = position + int(length) if length.isdigit() else None
        response.raw.enforce_content_length = False  # it would throw away the last block of a file that is too short
        blocks = response.iter_content(_BLOCK)
        with open(part, "ab" if position else "wb") as stream:
            while position <= _MAX_BYTES:
                if stop.is_set():
                    raise _BrokenOff("it was stopped")
                with _network():
                    block = next(blocks, None)
                if block is None:
                    break
                stream.write(block)
                position += len(block)
    if position > _MAX_BYTES:
        part.unlink()
        raise OSError(f"{url} is larger than {_MAX_BYTES:,} bytes, which no file of these databases is. Nothing of it "
                      "was kept.")
    if expected is not None and position < expected:
        raise _BrokenOff(f"the connection closed after {position:,} of {expected:,} bytes")


def _check_answer(response, start, part):
    """The body is the file, or the part of it that was asked for; otherwise tell what is worth another try."""
    status = response.status_code
    answer = f"HTTP {status} {response.reason}"
    if status == 416 or (status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-")):
        part.unlink(missing_ok=True)  # there is no byte after these, so that they are not the file's
        raise _BrokenOff(answer)
    if status in _TRANSIENT:
        delay = response.headers.get("Retry-After", "")
        raise _BrokenOff(answer, float(delay) if delay.isdigit() else 0.0)
    if status not in (200, 206):
        raise OSError(f"{response.url}: {answer}. What is complete is kept.")


@contextmanager
def _network():
    """Errors of the network, as opposed to those of the disk, are worth another try."""
    from requests import RequestException

    try:
        yield
    except RequestException as error:
        raise _BrokenOff(f"{type(error).__name__}: {error}") from error
