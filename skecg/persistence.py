"""save and load: fitted estimators as JSON and arrays, without pickle."""

import hashlib
import json
import math
import os
import re
import secrets
import shutil
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import safetensors
import sklearn
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch
from sklearn.utils.metadata_routing import MetadataRequest
from torch.overrides import TorchFunctionMode

from . import __version__

FORMAT_VERSION = 1

_CONFIG = "config.json"
# Overwriting writes the arrays under the name that the present config does not point to; replacing the config
# is what switches from one model to the other.
_ARRAYS = ("arrays.safetensors", "arrays-1.safetensors")
_MAX_CONFIG_BYTES = 64 * 2**20
_MAX_TEXT_BYTES = 256 * 2**20  # arrays of fixed-width strings take more memory than their JSON
_MAX_DEPTH = 100
_MAX_INT_BITS = 4096  # Python refuses to print much longer ones
# What networks may allocate while they are rebuilt, on top of four times their weights: positions and masks.
_MAX_EXTRA_BYTES = 2**30
_MAX_EXTRA_TENSORS = 10_000  # on top of twenty for each saved array

_PACKAGES = ("skecg", "sklearn")
_NUMERIC = {
    np.dtype(code).newbyteorder(order).str
    for code in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8") for order in "<>"
}
_SCALAR_TYPES = {np.dtype(text).name for text in _NUMERIC} | {"bool_"}  # numpy 1 has np.bool_
_PLAIN_TYPES = {"bool": bool, "int": int, "float": float, "str": str, "object": object}
# Parameters that name folders of this machine. load drops them as well: joblib unpickles what it finds there.
_PATH_PARAMETERS = ("cache", "checkpoint_dir", "memory")
_CALLBACK_ATTRIBUTES = ("callbacks", "_skl_callbacks")


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
        raise TypeError(f"save expects an estimator, got {_type_name(type(estimator))}.")
    path = Path(path)
    replaced = _check_target(path, overwrite)
    encoder = _Encoder(_check_trusted(trusted))
    tree = encoder.encode(estimator, "")
    if replaced is not None:
        _write(path, tree, encoder.arrays, _ARRAYS[replaced == _ARRAYS[0]])
        for name in _ARRAYS:
            if name == replaced:
                (path / name).unlink(missing_ok=True)
        return
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir()
    try:
        _write(partial, tree, encoder.arrays, _ARRAYS[0])
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
    The SHA-256 sums find damage, not forgery: whoever can write the files can write the sums. A forged model
    predicts what its author wants, and scikit-learn's compiled code (``SVC``) does not expect arrays that
    contradict each other.
    """
    path = Path(path)
    trusted = _check_trusted(trusted)
    if not path.is_dir():
        raise FileNotFoundError(f"There is no directory {path}. Pass the path that was given to skecg.save.")
    config = _read_config(path / _CONFIG)
    file = path / config["arrays"]["file"]
    if not file.is_file():
        raise ValueError(f"{file} is missing: the model is incomplete. Copy the whole directory again.")
    with open(file, "rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != config["arrays"]["sha256"]:
            raise ValueError(
                f"{file} is damaged or not the file that was saved: its SHA-256 is not the one in {_CONFIG}. "
                "Copy it again."
            )
    try:
        with safe_open(file, framework="np") as tensors:
            decoder = _Decoder(tensors, trusted, config["versions"])
            with _AllocationLimit(file.stat().st_size, len(tensors.keys())):
                estimator = decoder.decode(config["estimator"])
    except _Refused as error:
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
    if not isinstance(estimator, BaseEstimator):
        raise ValueError(f"{path / _CONFIG} holds no estimator.")
    return estimator


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


def _write(folder, tree, arrays, arrays_name):
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
        config["sha256"] = _config_digest(config)
        text = json.dumps(config, indent=1, allow_nan=False).encode("ascii")
        if len(text) > _MAX_CONFIG_BYTES:
            raise ValueError(
                f"Plain values and strings take {len(text) / 2**20:.0f} MiB of JSON, more than "
                f"{_MAX_CONFIG_BYTES // 2**20} MiB. Keep large data in numeric arrays, or use joblib.dump."
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


def _config_digest(config):
    """SHA-256 of everything but the digest itself."""
    content = {key: value for key, value in config.items() if key != "sha256"}
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _read_config(file):
    if not file.is_file():
        raise ValueError(
            f"{file} is missing: {file.parent} was not saved by skecg.save, or is an incomplete copy."
        )
    if file.stat().st_size > _MAX_CONFIG_BYTES:
        raise ValueError(f"{file} is larger than {_MAX_CONFIG_BYTES // 2**20} MiB: not by skecg.save.")
    try:
        config = json.loads(file.read_bytes().decode("ascii"), parse_constant=_refuse_constant)
        if config["format"] != "skecg":
            raise ValueError("another format")
        version = config["format_version"]
        if type(version) is int and version > FORMAT_VERSION:
            raise _Refused(
                f"{file} has format version {version}, written by skecg {config['versions']['skecg']}; skecg "
                f"{__version__} reads up to version {FORMAT_VERSION}. Upgrade skecg to load it."
            )
        digest = _config_digest(config)
        well_formed = (
            config.keys() == {"format", "format_version", "versions", "arrays", "estimator", "sha256"}
            and type(version) is int and version >= 1 and config["arrays"]["file"] in _ARRAYS
            and isinstance(config["arrays"]["sha256"], str) and isinstance(config["versions"], dict)
        )
    except _Refused as error:
        raise ValueError(str(error)) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{file} was not written by skecg.save, or is damaged ({type(error).__name__}: {error}). Copy it "
            "again."
        ) from error
    if not well_formed or digest != config["sha256"]:
        raise ValueError(
            f"{file} is damaged or was edited: its SHA-256 differs. Copy it again; to change a model, load, "
            "change and save it."
        )
    return config


def _refuse_constant(name):
    raise ValueError(f"{name} is not JSON")


# --- what is accepted


class _Refused(Exception):
    """Content that load does not accept; becomes a ValueError that names the file."""


def _type_name(cls):
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _check_trusted(trusted):
    trusted = (trusted,) if isinstance(trusted, type) else tuple(trusted)
    for cls in trusted:
        if not isinstance(cls, type) or not issubclass(cls, BaseEstimator):
            raise TypeError(f"trusted takes subclasses of sklearn.base.BaseEstimator; got {cls!r}.")
    return trusted


def _find_class(name):
    """The estimator class of skecg or scikit-learn with this full name; None where there is none."""
    module, _, attribute = name.rpartition(".")
    parts = module.split(".")
    if parts[0] not in _PACKAGES or not all(_is_name(part) for part in (*parts, attribute)):
        return None
    try:
        cls = getattr(import_module(module), attribute, None)
    except ImportError:
        return None
    if isinstance(cls, type) and issubclass(cls, BaseEstimator) and _type_name(cls) == name:
        return cls
    return None


def _is_name(part):
    """Whether this is the name of a class or module of the library proper."""
    return (
        re.fullmatch(r"[A-Za-z_]\w*", part, re.ASCII) and not part.startswith("__")
        and part not in ("tests", "conftest", "externals")
    )


def _portable(state):
    """``state`` without folders of this machine and without callbacks."""
    state = dict(state)
    for name in _PATH_PARAMETERS:
        if type(state.get(name)) not in (type(None), bool, int, float):
            state[name] = None
    if state.get("callbacks") is not None:
        state["callbacks"] = None
    state.pop("_skl_callbacks", None)
    return state


def _order(array):
    """"F" where only Fortran order keeps the layout; views with gaps become C-ordered, as in pickle."""
    return "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"


# --- to JSON

# None, booleans, integers, finite floats and strings stand for themselves, lists are lists. Everything else
# is an object of one item whose key is the kind: {"tuple": [...]}, {"array": {...}}, {"estimator": {...}}.


class _Encoder:
    """Values to what JSON can hold; numeric arrays are collected in ``arrays``."""

    def __init__(self, trusted=()):
        self.trusted = trusted
        self.arrays = {}
        self.known = {}  # id: (object, node); keeping the object keeps its id from being used again
        self.open = []  # ids of the containers around the present value
        self.n_estimators = self.text_bytes = 0

    def encode(self, value, where):
        """The node of ``value``, which lies at ``where`` in the estimator that is saved."""
        node = self._atom(value, where)
        if node is not _NOT_AN_ATOM:
            return node
        if id(value) in self.known:
            return self.known[id(value)][1]
        if id(value) in self.open:
            raise ValueError(f"{where} contains itself, which skecg.save cannot store. {_ADVICE}")
        if len(self.open) >= _MAX_DEPTH:
            raise ValueError(f"{where} lies more than {_MAX_DEPTH} levels deep. {_ADVICE}")
        self.open.append(id(value))
        try:
            return self._compound(value, where)
        finally:
            self.open.pop()

    def _atom(self, value, where):
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            if value.bit_length() > _MAX_INT_BITS:
                raise ValueError(f"{where} is an integer of {value.bit_length()} bits. {_ADVICE}")
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if isinstance(value, np.generic):
            if kind is np.str_:
                return {"str_": str(value)}
            if value.dtype.str in _NUMERIC:
                return {"scalar": {"dtype": value.dtype.str, "bytes": value.tobytes().hex()}}
        return _NOT_AN_ATOM

    def _compound(self, value, where):
        kind = type(value)
        if kind is list:
            return self._items(value, where)
        if kind is tuple:
            return {"tuple": self._items(value, where)}
        if kind is dict:
            return {"dict": self._mapping(value, where)}
        if kind is Bunch:
            return {"bunch": self._mapping(dict(value), where)}
        if kind in (set, frozenset):
            # sorted: the order of strings in a set differs from process to process
            return {kind.__name__: sorted((self._key(item, where) for item in value), key=json.dumps)}
        if kind is slice:
            return {"slice": self._items((value.start, value.stop, value.step), where)}
        if kind in (np.ndarray, np.memmap):
            return self._array(np.asarray(value), where, value)
        if isinstance(value, np.dtype) and (value.str in _NUMERIC or value.kind in "OU"):
            return {"dtype": value.str}
        if isinstance(value, type):
            if value in _PLAIN_TYPES.values():
                return {"type": value.__name__}
            if issubclass(value, np.generic) and value.__name__ in _SCALAR_TYPES:
                return {"type": np.dtype(value).str}
        if kind is np.random.RandomState:
            state = value.get_state(legacy=False)
            if state["bit_generator"] == "MT19937":
                return {"random_state": {
                    "key": state["state"]["key"].tolist(), "pos": int(state["state"]["pos"]),
                    "has_gauss": int(state["has_gauss"]), "gauss": float(state["gauss"]),
                }}
        if kind is MetadataRequest:
            requests = {name: vars(value)[name].requests for name in _request_methods(value)}
            return {"metadata_request": self._mapping({k: v for k, v in requests.items() if v}, where)}
        if isinstance(value, BaseEstimator):
            return self._estimator(value, where)
        raise TypeError(_refusal(value, where))

    def _items(self, values, where):
        return [self.encode(item, f"{where}[{i}]") for i, item in enumerate(values)]

    def _mapping(self, mapping, where):
        """An object, or a list of pairs where keys are no strings."""
        if all(type(key) is str for key in mapping):
            return {key: self.encode(item, f"{where}[{key!r}]") for key, item in mapping.items()}
        return [
            [self._key(key, where), self.encode(item, f"{where}[{key!r}]")] for key, item in mapping.items()
        ]

    def _key(self, key, where):
        """Members of sets and keys of dicts: plain values, and tuples of them."""
        if type(key) is tuple:
            return {"tuple": [self._key(item, where) for item in key]}
        node = self._atom(key, where)
        if node is _NOT_AN_ATOM:
            raise TypeError(_refusal(key, f"A key or member of {where}"))
        return node

    def _array(self, array, where, original):
        if array.dtype.str in _NUMERIC:
            name, n = where, 1
            while name in self.arrays:  # strange names of attributes can make two places look alike
                name, n = f"{where}#{n}", n + 1
            order = _order(array)
            stored = np.asarray(array.T if order == "F" else array, order="C")
            self.arrays[name] = np.asarray(stored, dtype=stored.dtype.newbyteorder("<"))
            node = {"array": {"name": name, "dtype": array.dtype.str, "order": order}}
        elif array.dtype.kind == "U":
            self.text_bytes += array.nbytes
            if self.text_bytes > _MAX_TEXT_BYTES:
                raise ValueError(
                    f"{where}: arrays of strings take more than {_MAX_TEXT_BYTES // 2**20} MiB. {_ADVICE}"
                )
            node = {"strings": {
                "values": array.ravel().tolist(), "shape": list(array.shape), "dtype": array.dtype.str,
                "order": _order(array),
            }}
        elif array.dtype.kind == "O":
            values = []
            for i, item in enumerate(array.ravel()):
                values.append(self._atom(item, where))
                if values[-1] is _NOT_AN_ATOM:
                    raise TypeError(_refusal(item, f"{where} (an array of objects) at position {i}"))
            node = {"objects": {"values": values, "shape": list(array.shape), "order": _order(array)}}
        else:
            raise TypeError(
                f"{where} is an array of {array.dtype}, which skecg.save does not store: it takes booleans, "
                f"integers, float16 to float64, and strings. {_ADVICE}"
            )
        self.known[id(original)] = original, node
        return node

    def _estimator(self, estimator, where):
        cls = type(estimator)
        where = f"{where}.{cls.__name__}" if where else cls.__name__
        name = _type_name(cls)
        if cls not in self.trusted and _find_class(name) is not cls:
            raise TypeError(
                f"{where} is of the class {name}, outside skecg and scikit-learn. Pass "
                f"trusted=[{cls.__name__}] to skecg.save and skecg.load. {_ADVICE.replace('instead', 'otherwise')}"
            )
        state = estimator.__getstate__()
        if type(state) is not dict or not all(type(key) is str for key in state):
            raise TypeError(f"{where}.__getstate__() returns no dict with names as keys. {_ADVICE}")
        dropped = [attribute for attribute in _CALLBACK_ATTRIBUTES if state.get(attribute)]
        if dropped:
            warnings.warn(
                f"{where}.{dropped[0]} is not saved; predictions do not need it.", UserWarning, stacklevel=2
            )
        number, self.n_estimators = self.n_estimators, self.n_estimators + 1
        node = {"estimator": {
            "class": name, "id": number,
            "state": {key: self.encode(item, f"{where}.{key}") for key, item in _portable(state).items()},
        }}
        self.known[id(estimator)] = estimator, {"same": number}
        return node


_NOT_AN_ATOM = object()
_ADVICE = "Use joblib.dump or pickle instead, and load such files only if you trust who wrote them."


def _refusal(value, where):
    text = (
        f"{where} is of the type {_type_name(type(value))}, which skecg.save does not store: it takes "
        "arrays, plain values and estimators."
    )
    if isinstance(value, (torch.Tensor, torch.nn.Module)):
        return f"{text} Make it arrays in the __getstate__, and rebuild it in __setstate__. {_ADVICE}"
    if "SearchCV." in where:
        return f"{text} Save best_estimator_, which holds the fitted model. {_ADVICE}"
    return f"{text} {_ADVICE}"


def _request_methods(request):
    return [name for name, value in vars(request).items() if name != "owner" and hasattr(value, "requests")]


# --- from JSON


class _Decoder:
    """Nodes back to values. Whatever does not look like a node of :class:`_Encoder` raises."""

    def __init__(self, tensors, trusted=(), versions=None):
        self.tensors = tensors
        self.trusted = trusted
        self.versions = versions or {}
        self.arrays, self.estimators = {}, {}
        self.depth = self.text_bytes = 0

    def decode(self, node):
        """The value of a node."""
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        self.depth += 1
        if self.depth > 2 * _MAX_DEPTH:
            raise _Refused("the content is nested too deeply.")
        try:
            if isinstance(node, list):
                return [self.decode(item) for item in node]
            (kind, content), = node.items()
            read = getattr(self, f"_read_{kind}", None)
            if read is None:
                raise _Refused(f"{kind!r} is not a kind of value that skecg {__version__} knows.")
            return read(content)
        finally:
            self.depth -= 1

    def _read_float(self, content):
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[content]

    def _read_str_(self, content):
        return np.str_(content)

    def _read_scalar(self, content):
        dtype = _numeric_dtype(content["dtype"])
        return np.frombuffer(bytes.fromhex(content["bytes"]), dtype).reshape(())[()]

    def _read_tuple(self, content):
        return tuple(map(self.decode, content))

    def _read_set(self, content):
        return set(map(self.decode, content))

    def _read_frozenset(self, content):
        return frozenset(map(self.decode, content))

    def _read_slice(self, content):
        start, stop, step = map(self.decode, content)
        return slice(start, stop, step)

    def _read_dict(self, content):
        if isinstance(content, dict):
            return {key: self.decode(item) for key, item in content.items()}
        return {self.decode(key): self.decode(item) for key, item in content}

    def _read_bunch(self, content):
        return Bunch(**self._read_dict(content))

    def _read_dtype(self, content):
        if re.fullmatch(r"\|O|[<>]U[0-9]{1,9}", content, re.ASCII):
            return np.dtype(content)
        return _numeric_dtype(content)

    def _read_type(self, content):
        return _PLAIN_TYPES[content] if content in _PLAIN_TYPES else _numeric_dtype(content).type

    def _read_array(self, content):
        name = content["name"]
        if name not in self.arrays:
            dtype = _numeric_dtype(content["dtype"])
            array = self.tensors.get_tensor(name)
            if array.dtype != dtype.newbyteorder("="):
                raise _Refused(f"the array {name} is {array.dtype}, not {dtype}.")
            array = array.astype(dtype, copy=False)
            self.arrays[name] = array.T if content["order"] == "F" else array
        return self.arrays[name]

    def _read_strings(self, content):
        dtype = self._read_dtype(content["dtype"])
        self.text_bytes += dtype.itemsize * len(content["values"])
        if dtype.kind != "U" or self.text_bytes > _MAX_TEXT_BYTES:
            raise _Refused(f"string arrays take more than {_MAX_TEXT_BYTES // 2**20} MiB.")
        if not all(isinstance(item, str) for item in content["values"]):
            raise _Refused("an array of strings holds something else.")
        return _filled(content, content["values"], dtype)

    def _read_objects(self, content):
        return _filled(content, [self.decode(item) for item in content["values"]], np.dtype(object))

    def _read_random_state(self, content):
        key, pos = np.array(content["key"], dtype=np.uint32), content["pos"]
        if key.shape != (624,) or not 0 <= pos <= 624:
            raise _Refused("a random state is malformed.")
        state = np.random.RandomState()
        state.set_state(("MT19937", key, int(pos), int(content["has_gauss"]), float(content["gauss"])))
        return state

    def _read_metadata_request(self, content):
        request = MetadataRequest(owner="estimator")
        for method, parameters in self._read_dict(content).items():
            if method not in _request_methods(request):
                raise _Refused(f"there is no method {method!r} that takes metadata.")
            for parameter, alias in parameters.items():
                getattr(request, method).add_request(param=parameter, alias=alias)
        return request

    def _read_same(self, content):
        return self.estimators[content]

    def _read_estimator(self, content):
        cls = self._class(content["class"])
        state = {key: self.decode(item) for key, item in content["state"].items()}
        estimator = cls.__new__(cls)
        estimator.__setstate__(_portable(state))
        self.estimators[content["id"]] = estimator
        return estimator

    def _class(self, name):
        for cls in self.trusted:
            if _type_name(cls) == name:
                return cls
        package, _, _ = name.partition(".")
        short = name.rpartition(".")[2]
        if package not in _PACKAGES:
            candidates = [cls for cls in self.trusted if cls.__name__ == short]
            if len(candidates) == 1:
                return candidates[0]
            raise _Refused(
                f"the model contains {name!r}, a class outside skecg and scikit-learn, which is not imported. "
                f"If you have that class and trust it, pass trusted=[{short}] to skecg.load."
            )
        cls = _find_class(name)
        if cls is None:
            key = "scikit-learn" if package == "sklearn" else package
            raise _Refused(
                f"there is no estimator class {name!r} in this {key}. The model was saved with {key} "
                f"{self.versions.get(key)}."
            )
        return cls


def _numeric_dtype(text):
    if text not in _NUMERIC:
        raise _Refused(f"{text!r} is not a dtype that is saved.")
    return np.dtype(text)


def _filled(content, values, dtype):
    """An array of strings or objects with these values, given in C order."""
    shape = tuple(content["shape"])
    if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != len(values):
        raise _Refused(f"{len(values)} values do not fill an array of shape {shape}.")
    flat = np.empty(len(values), dtype)
    for i, item in enumerate(values):
        flat[i] = item
    return flat.reshape(shape).copy(order="F" if content["order"] == "F" else "C")


class _AllocationLimit(TorchFunctionMode):
    """Stop networks that are rebuilt from a forged config before they take the memory of the machine."""

    def __init__(self, n_bytes, n_arrays):
        super().__init__()
        self.left = _MAX_EXTRA_BYTES + 4 * n_bytes
        self.n_left = _MAX_EXTRA_TENSORS + 20 * n_arrays

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("empty", "zeros", "ones", "rand", "randn", "full", "arange"):
            sizes = kwargs.get("size", args[:1] if name == "full" else args)
            while len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
                sizes = sizes[0]
            if name == "arange":
                sizes = [max((abs(n) for n in args if isinstance(n, (int, float))), default=0)]
            self.left -= 4 * math.prod(n for n in sizes if isinstance(n, (int, float)))
            self.n_left -= 1
            if self.left < 0 or self.n_left < 0:
                raise _Refused("its networks would take far more memory than the saved weights.")
        return func(*args, **kwargs)
