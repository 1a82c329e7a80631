"""What all PhysioNet databases share: where the files are, which belong to a record, what is there of them."""

import os
import re
import shutil
import sys
import warnings
from dataclasses import dataclass
from fnmatch import translate
from numbers import Integral

import numpy as np
from sklearn.utils import Bunch

from ._fetch import SUMS, database_url, download_files, file_sum, locked, read_sums
from ._records import RecordSequence, local_path
from ._wfdb import ECGFormatError

ODC_BY = "Open Data Commons Attribution License v1.0 (ODC-BY 1.0)"
CC_BY = "Creative Commons Attribution 4.0 International (CC BY 4.0)"
CC_BY_NC_SA = "Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International (CC BY-NC-SA 4.0)"

_PHYSIONET = (
    "Goldberger A, Amaral L, Glass L, Hausdorff J, Ivanov PC, Mark R, et al. PhysioBank, PhysioToolkit, and "
    "PhysioNet. Circulation 101(23):e215-e220, 2000."
)
_SIGNS = "*?["  # of a pattern
_LARGE = 10**11  # bytes; more than that is downloaded only where it was selected
_AGE = re.compile(r"^#.*?\bAge:?\s*(\d+(?:\.\d+)?)", re.MULTILINE | re.IGNORECASE)
_SEX = re.compile(r"^#.*?\bSex:?\s*(male|female|m|f)\b", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Database:
    """One version of a database on PhysioNet, and its copy on this machine.

    Attributes
    ----------
    name : str
        Name of the folder, and of the function that fetches it.
    title, license, citation, descr : str
    slug, version : str
        Its place on PhysioNet.
    headers : tuple of str
        Glob patterns of the header files, relative to the folder.
    extensions : tuple of str
        Of the files that a record consists of.
    n_records : int
        How many there are in all.
    record_bytes : float
        Of all files of a record, about.
    tables : tuple of str
        Files besides the records that are needed.
    """

    name: str
    title: str
    slug: str
    version: str
    headers: tuple
    extensions: tuple
    n_records: int
    record_bytes: float
    license: str
    citation: str
    descr: str
    tables: tuple = ()

    @property
    def url(self):
        return database_url(self.slug, self.version)

    def provide(self, data_home, records, download_if_missing, verify):
        """The folder, and the records in it as paths relative to it, without extension, in natural order."""
        folder = self._folder(data_home)
        patterns = None
        if records is not None:
            patterns = [str(records)] if isinstance(records, (str, Integral)) else [*map(str, records)]
            if not patterns:
                raise ValueError("records is empty: give names or patterns of records, or None for all of them.")
        if download_if_missing:
            self._download(folder, patterns, verify)
        elif verify:
            self._verify(folder, patterns)
        paths = [path.relative_to(folder).with_suffix("").as_posix() for path in self._headers(folder)]
        selection = _Selection(patterns)
        paths = [path for path in paths if path in selection]
        absent = list(selection.unused)
        if absent:
            self._check_names(folder, patterns, absent)
        self._check_there(folder, paths, absent)
        self._report(folder, paths, absent, selected=patterns is not None)
        return folder, sorted(paths, key=_natural)

    def bunch(self, folder, paths, options, **fields):
        """What a fetcher returns."""
        records = RecordSequence([folder / path for path in paths], options)
        common = {"record_names": np.array(records.names, dtype=str), "target": None, "folds": None}
        return Bunch(records=records, **(common | fields), DESCR=self.descr, license=self.license,
                     citation=f"{self.citation}\n{_PHYSIONET}")

    def _folder(self, data_home):
        home = local_path(os.path.expanduser(data_home or os.environ.get("SKECG_DATA") or "~/skecg_data"))
        folder = home / self.name
        own = not folder.is_dir() and (any(self._headers(home)) or any((home / t).is_file() for t in self.tables))
        return home if own else folder

    def _headers(self, folder):
        return (file for pattern in self.headers for file in folder.glob(pattern))

    def _sums(self, folder, patterns):
        """SHA-256 of the files that are needed, by path."""
        others = (*self.tables, "LICENSE.txt")
        wanted = [translate(header.removesuffix("hea") + extension)
                  for header in self.headers for extension in self.extensions]
        wanted += [re.escape(name) for name in others]
        selection, sums, some = _Selection(patterns), {}, []
        for path, sha256 in read_sums(folder / SUMS, re.compile("|".join(wanted))):
            record = path.rpartition(".")[0]
            if path in others or record in selection:
                sums[path] = sha256
            if path not in others and len(some) < 20:
                some.append(record)
        if not some:
            raise ECGFormatError(f"the list names no record of {self.title}.", file=folder / SUMS)
        if selection.unused:
            raise ValueError(f"{self.title} has no record {_listed(list(selection.unused))}; it has, among others, "
                             f"{_listed(sorted(set(some), key=_natural))}.")
        return sums

    def _download(self, folder, patterns, verify):
        size = self.record_bytes * self.n_records
        if patterns is None and size > _LARGE:
            raise ValueError(f"{self.title} takes about {_size(size)}: choose what to download with records=, or pass "
                             "download_if_missing=False to use what is there.")
        with locked(folder):
            fresh = not (folder / SUMS).is_file()
            if fresh:
                download_files(self.url, folder, {SUMS: None})
            try:
                sums = self._sums(folder, patterns)
            except ECGFormatError:
                if fresh:
                    (folder / SUMS).unlink()
                raise
            missing = {path: sha256 for path, sha256 in sums.items() if not (folder / path).is_file()
                       or (verify and file_sum(folder / path) != sha256)}
            if missing:
                size = self.record_bytes * len(missing) / len(self.extensions)
                free = shutil.disk_usage(folder).free
                if free < size:
                    raise OSError(f"The {len(missing):,} files that are missing take about {_size(size)}, but {folder} "
                                  f"has {_size(free)} left. Pass another data_home, or select with records=.")
                print(f"Downloading {len(missing):,} files of {self.title} (about {_size(size)}) from {self.url}/ to "
                      f"{folder}. Licence: {self.license}.", file=sys.stderr)
                download_files(self.url, folder, missing)

    def _verify(self, folder, patterns):
        if not (folder / SUMS).is_file():
            raise FileNotFoundError(f"There is no {SUMS} in {folder} to verify the files against; it is at "
                                    f"{self.url}/{SUMS}.")
        wrong = [path for path, sha256 in self._sums(folder, patterns).items()
                 if (folder / path).is_file() and file_sum(folder / path) != sha256]
        if wrong:
            raise OSError(f"{len(wrong):,} files in {folder} differ from {SUMS}: {_listed(wrong)}. Pass "
                          "download_if_missing=True to replace them.")

    def _check_names(self, folder, patterns, absent):
        """Tell names that the database does not have from those that this copy lacks."""
        if (folder / SUMS).is_file():
            self._sums(folder, patterns)
        known = [re.compile(translate(form)).fullmatch for header in self.headers
                 for form in (header.removesuffix(".hea"), header.rpartition("/")[2].removesuffix(".hea"))]
        for name in absent:
            if any(sign in name for sign in _SIGNS) or any(match(name) for match in known):
                continue
            forms = _listed([header.removesuffix(".hea") for header in self.headers])
            advice = f" For all records of this folder, give {name + '/*'!r}." if (folder / name).is_dir() else ""
            raise ValueError(f"{self.title} has no record {name}; its records are called {forms}.{advice}")

    def _check_there(self, folder, paths, absent):
        tables = [table for table in self.tables if not (folder / table).is_file()]
        if not folder.is_dir():
            state = f"There is no folder {folder}"
            if folder.parent.is_dir():
                state += (f", and {folder.parent} itself is no copy of {self.title}: it holds none "
                          f"of {_listed([*self.tables, *self.headers])}")
        elif tables:
            state = f"There is no {' and no '.join(tables)} in {folder}"
        elif not paths:
            state = f"{folder} holds no record {_listed(absent) if absent else f'of {self.title}'}"
        else:
            return
        raise FileNotFoundError(
            f"{state}. Pass download_if_missing=True to download what is missing from {self.url}/ (about "
            f"{_size(self.record_bytes * self.n_records)} in all; records= selects), or the folder of a copy as data_home."
        )

    def _report(self, folder, paths, absent, selected):
        text = f"{folder} holds no record {_listed(absent)}: {len(paths):,} record(s) are used. " if absent else ""
        if not selected and len(paths) < self.n_records:
            text = f"{folder} holds {len(paths):,} of {self.n_records:,} records of {self.title}. "
        lacking = [f"{path}.{extension}" for path in paths for extension in self.extensions
                   if not (folder / f"{path}.{extension}").is_file()]
        if lacking:
            n_records = len({name.rpartition(".")[0] for name in lacking})
            text += f"{n_records:,} of these {len(paths):,} lack a file, such as {lacking[0]}."
        if text:
            warnings.warn(text.strip(), UserWarning, stacklevel=4)


def patient(text):
    """Age in years (NaN: unknown) and sex (``"female"``, ``"male"`` or empty) from the comments of a header."""
    age, sex = _AGE.search(text), _SEX.search(text)
    sexes = {"f": "female", "m": "male"}
    return float(age[1]) if age else float("nan"), sexes[sex[1][0].lower()] if sex else ""


def read_text(path):
    """A header as text; some are in Latin-1."""
    return path.with_name(path.name + ".hea").read_text(encoding="latin-1")


class _Selection:
    """``path in selection``: whether a record was asked for, by its path or the last part of that, or by a pattern."""

    def __init__(self, patterns):
        self.everything = patterns is None
        self.unused = dict.fromkeys(patterns or ())  # those that nothing has matched so far, in order
        self.names = {pattern for pattern in self.unused if not any(sign in pattern for sign in _SIGNS)}
        self.patterns = {pattern: re.compile(translate(pattern)).fullmatch for pattern in self.unused
                         if pattern not in self.names}

    def __contains__(self, path):
        if self.everything:
            return True
        last = path.rpartition("/")[2]
        found = [name for name in (path, last) if name in self.names]
        found += [pattern for pattern, match in self.patterns.items() if match(path) or match(last)]
        for pattern in found:
            self.unused.pop(pattern, None)
        return bool(found)


def _natural(path):
    """So that rec_2 comes before rec_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)]


def _listed(names):
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _size(n_bytes):
    for unit in ("kB", "MB", "GB", "TB"):
        n_bytes /= 1000
        if n_bytes < 1000 or unit == "TB":
            return f"{n_bytes:.{n_bytes < 10:d}f} {unit}"
