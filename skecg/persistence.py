"""save and load: fitted estimators as JSON and arrays, without pickle."""

import hashlib
import json
import os
import secrets
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import safetensors
import sklearn
import torch
from safetensors.numpy import save_file
from sklearn.base import BaseEstimator

from . import __version__
from ._array_file import Allowance, ArrayFile, Refused, json_cost
from ._codec import AllocationLimit, Decoder, Encoder, check_trusted, type_name

FORMAT_VERSION = 1

_CONFIG = "config.json"
# Overwriting writes the arrays under the name that the present config does not point to; replacing the config
# is what switches from one model to the other.
_ARRAYS = ("arrays.safetensors", "arrays-1.safetensors")
_MAX_CONFIG_BYTES = 64 * 2**20
# What everything but the arrays may take in memory, beside as much as the arrays take themselves.
_ALLOWANCE = 14 * 2**20
# The last line of a config: the sum of all bytes before it, so that damage is found before anything is parsed.
_SEAL = ',\n "sha256": "%s"\n}'


def save(estimator, path, *, overwrite=False, trusted=()):
    """Save an estimator or Pipeline as JSON and arrays.

    Parameters
    ----------
    estimator : BaseEstimator
        Fitted or not; of skecg or scikit-learn, down to the last step, and of ``trusted`` classes.
    path : str or path-like
        Directory to create. Its parent must exist.
    overwrite : bool, default=False
        Replace a model that is there. Other files in the directory stay.
    trusted : sequence of classes, default=()
        Classes outside skecg and scikit-learn whose estimators may occur, such as an encoder or objective of
        your own. :func:`load` asks for them again.

    Raises
    ------
    TypeError
        Something in the estimator is neither array, plain value nor accepted estimator; the message says what
        and where.
    FileExistsError
        ``path`` exists and ``overwrite`` is off, or it is not a saved model.

    See Also
    --------
    load : Loads what was saved.

    Notes
    -----
    * The directory holds ``config.json`` (classes, parameters, plain values, versions, SHA-256 sums) and
      ``arrays.safetensors`` (or ``arrays-1.safetensors``, after overwriting). Equal estimators give equal
      files.
    * A crash leaves either the old model or the new one at ``path``, never a mixture.
    * ``cache``, ``checkpoint_dir`` and ``memory`` are saved as None: they are folders of this machine.
      ``callbacks`` are dropped with a warning.
    * Saved are None, numbers, strings, lists, tuples, dicts, sets, slices, dtypes, random states, metadata
      requests, and arrays of booleans, integers, float16 to float64, strings, and objects that are strings,
      numbers or None. Trees and kernels of scikit-learn, functions and classes are refused: use joblib or
      pickle for them, and load those files only if you trust who wrote them.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import skecg
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skecg.save(model, Path(folder) / "iris-model")
    ...     loaded = skecg.load(Path(folder) / "iris-model")
    >>> bool((loaded.predict_proba(X) == model.predict_proba(X)).all())
    True
    """
    if not isinstance(estimator, BaseEstimator):
        raise TypeError(f"save expects an estimator, got {type_name(type(estimator))}.")
    path = Path(path)
    replaced = _check_target(path, overwrite)
    encoder = Encoder(check_trusted(trusted))
    tree = encoder.encode(estimator, "")
    if replaced is not None:
        _write(path, tree, encoder.cost, encoder.arrays, _ARRAYS[replaced == _ARRAYS[0]])
        for name in _ARRAYS:
            if name == replaced:
                (path / name).unlink(missing_ok=True)
        return
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir()
    try:
        _write(partial, tree, encoder.cost, encoder.arrays, _ARRAYS[0])
        os.rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync(path.parent)


def load(path, *, trusted=()):
    """Load an estimator that :func:`save` saved.

    Nothing in the files is executed, and no code outside skecg and scikit-learn is imported.

    Parameters
    ----------
    path : str or path-like
        The directory.
    trusted : sequence of classes, default=()
        The classes outside skecg and scikit-learn that the model consists of. They are found by module and
        name, or, where they moved to another module, by name.

    Returns
    -------
    estimator : BaseEstimator
        Its results are those of the saved one to the last bit, given the same versions and machine.

    Raises
    ------
    FileNotFoundError
        No such directory.
    ValueError
        Not a saved model, a damaged one, one in the format of a newer skecg, or one with classes that are not
        accepted.

    Warns
    -----
    InconsistentVersionWarning
        Estimators of scikit-learn were saved with another version of it.

    See Also
    --------
    save : Saves an estimator, with an example.

    Notes
    -----
    * A model that is refused has taken no more memory than twice its files and 16 MiB, apart from what modules of
      scikit-learn take that were not imported before, and from networks of ``trusted`` classes.
    * The SHA-256 sums find damage, not forgery: whoever can write the files can write the sums. A forged model
      predicts what its author wants, and scikit-learn's compiled code (``SVC``) does not expect arrays that
      contradict each other.
    """
    path = Path(path)
    trusted = check_trusted(trusted)
    if not path.is_dir():
        raise FileNotFoundError(f"There is no directory {path}. Pass the path that was given to skecg.save.")
    config, allowance = _read_config(path / _CONFIG)
    file = path / config["arrays"]["file"]
    if not file.is_file():
        raise ValueError(f"{file} is missing: the model is incomplete. Copy the whole directory again.")
    with open(file, "rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != config["arrays"]["sha256"]:
            raise ValueError(
                f"{file} is damaged or not the file that was saved: its SHA-256 is not the one in {_CONFIG}. "
                "Copy it again."
            )
        estimator = _rebuild(path, config, stream, trusted, allowance)
    if not isinstance(estimator, BaseEstimator):
        raise ValueError(f"{path / _CONFIG} holds no estimator.")
    return estimator


def _rebuild(path, config, stream, trusted, allowance):
    n_bytes = os.fstat(stream.fileno()).st_size
    allowance.left += n_bytes
    try:
        arrays = ArrayFile(stream, allowance)
        decoder = Decoder(arrays, trusted, config["versions"], allowance)
        with AllocationLimit(n_bytes, len(arrays)):
            return decoder.decode(config["estimator"])
    except Refused as error:
        raise ValueError(f"{path / _CONFIG}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path / _CONFIG} is nested too deeply for a saved model.") from error
    except Warning:  # such as InconsistentVersionWarning, where the user's filters make errors of warnings
        raise
    except Exception as error:
        versions = ", ".join(f"{name} {version}" for name, version in config["versions"].items())
        raise ValueError(
            f"The model in {path} cannot be rebuilt ({type(error).__name__}: {error}). It was saved with "
            f"{versions}; try these versions."
        ) from error


# --- files


def _check_target(path, overwrite):
    """Name of the arrays file of the model at ``path``; "" for an empty directory, None where nothing is."""
    if not path.exists():
        if not path.parent.is_dir():
            raise FileNotFoundError(f"There is no directory {path.parent} to save in. Create it first.")
        return None
    if not overwrite:
        raise FileExistsError(
            f"{path} exists. Choose another path, or pass overwrite=True to replace the model that is there."
        )
    if path.is_dir() and not any(path.iterdir()):
        return ""
    try:
        config = json.loads((path / _CONFIG).read_bytes())
        if config["format"] == "skecg":
            return config["arrays"]["file"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    raise FileExistsError(f"{path} is not a model saved by skecg, and is left alone. Choose another path.")


def _write(folder, tree, cost, arrays, arrays_name):
    """Arrays first, then the config that points to them; each file is replaced as a whole."""
    partial_config, partial_arrays = folder / f"{_CONFIG}.partial", folder / f"{arrays_name}.partial"
    try:
        save_file(arrays, partial_arrays)
        with open(partial_arrays, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        config = {
            "format": "skecg",
            "format_version": FORMAT_VERSION,
            "versions": {
                "skecg": __version__, "scikit-learn": sklearn.__version__, "numpy": np.__version__,
                "torch": torch.__version__.split("+")[0], "safetensors": safetensors.__version__,
                "python": ".".join(map(str, sys.version_info[:3])),
            },
            "arrays": {"file": arrays_name, "sha256": digest},
            "estimator": tree,
        }
        text = _sealed(config)
        with open(partial_arrays, "rb") as stream:
            header = stream.read(int.from_bytes(stream.read(8), "little"))
            n_bytes = os.fstat(stream.fileno()).st_size
        cost = cost + json_cost(text) + json_cost(header)
        if len(text) > _MAX_CONFIG_BYTES or cost > _ALLOWANCE + n_bytes:
            raise ValueError(
                f"Plain values and strings take {len(text) / 2**20:.1f} MiB of JSON and about {cost / 2**20:.0f} MiB "
                "of memory, which is too much. Keep large data in numeric arrays, or use joblib.dump."
            )
        with open(partial_config, "wb") as stream:
            stream.write(text)
        shutil.copymode(partial_config, partial_arrays)  # safetensors' files can be read by their owner only
        _sync(partial_arrays)
        _sync(partial_config)
        os.replace(partial_arrays, folder / arrays_name)
        os.replace(partial_config, folder / _CONFIG)
        _sync(folder)
    except BaseException:
        for file in (partial_config, partial_arrays):
            file.unlink(missing_ok=True)
        raise


def _sync(path):
    """Have a file or directory on disk before going on; systems that cannot open directories do without."""
    if path.is_dir():
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    else:
        with open(path, "rb+") as stream:
            os.fsync(stream.fileno())


def _sealed(config):
    """The config as it is written, (bytes): JSON that ends with its own SHA-256."""
    text = json.dumps(config, indent=1, allow_nan=False).removesuffix("\n}").encode("ascii")
    return text + (_SEAL % hashlib.sha256(text).hexdigest()).encode("ascii")


def _read_config(file):
    """The config, and what is left to allocate after it."""
    if not file.is_file():
        raise ValueError(
            f"{file} is missing: {file.parent} was not saved by skecg.save, or is an incomplete copy."
        )
    if file.stat().st_size > _MAX_CONFIG_BYTES:
        raise ValueError(f"{file} is larger than {_MAX_CONFIG_BYTES // 2**20} MiB: not by skecg.save.")
    content = file.read_bytes()
    n_text = len(content) - len(_SEAL % ("0" * 64))
    seal = _SEAL % hashlib.sha256(memoryview(content)[:max(0, n_text)]).hexdigest()
    if content[max(0, n_text):] != seal.encode("ascii"):
        raise ValueError(
            f"{file} was not written by skecg.save, is damaged, or was edited: its last line is not its SHA-256. "
            "Copy it again; to change a model, load, change and save it."
        )
    allowance = Allowance(_ALLOWANCE)
    try:
        allowance.take(json_cost(content))
        content = content.decode("ascii")
        config = json.loads(content, parse_constant=_refuse_constant)
        version, arrays, versions = config["format_version"], config["arrays"], config["versions"]
        well_formed = config["format"] == "skecg" and type(version) is int and version >= 1 and all(
            type(text) is str for text in (arrays["file"], arrays["sha256"], *versions.values())
        )
        if well_formed and version > FORMAT_VERSION:
            raise Refused(
                f"its format version is {version}, written by skecg {versions['skecg']}; skecg {__version__} reads up "
                f"to version {FORMAT_VERSION}. Upgrade skecg to load it."
            )
    except Refused as error:
        raise ValueError(f"{file} is refused: {error}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} was not written by skecg.save ({type(error).__name__}: {error}).") from error
    keys = {"format", "format_version", "versions", "arrays", "estimator", "sha256"}
    if not well_formed or config.keys() != keys or arrays["file"] not in _ARRAYS:
        raise ValueError(f"{file} was not written by skecg.save: it does not describe a model.")
    return config, allowance


def _refuse_constant(name):
    raise ValueError(f"{name} is not JSON")
