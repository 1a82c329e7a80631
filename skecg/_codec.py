"""Estimators as JSON-able trees and arrays, and back: what skecg.persistence writes and reads."""

import json
import math
import re
import warnings
from importlib import import_module

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch
from sklearn.utils.metadata_routing import MetadataRequest
from torch.overrides import TorchFunctionMode

from . import __version__
from ._array_file import Allowance, Refused

_MAX_DEPTH = 100
_MAX_INT_BITS = 4096  # Python refuses to print much longer ones
# Bytes that values of some kinds take beyond what their JSON does; of arrays, the modules around them.
_COSTS = {
    "array": 1536, "estimator": 1024, "metadata_request": 10_240, "random_state": 4096, "bunch": 256, "set": 256,
    "frozenset": 256, "str_": 128, "dtype": 128,
}
# What networks of trusted classes may allocate while they are rebuilt, on top of four times their weights.
_MAX_EXTRA_BYTES = 2**30
_MAX_EXTRA_TENSORS = 10_000  # on top of twenty for each saved array

_PACKAGES = ("skecg", "sklearn")
NUMERIC = {
    np.dtype(code).newbyteorder(order).str
    for code in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8") for order in "<>"
}
_SCALAR_TYPES = {np.dtype(text).name for text in NUMERIC} | {"bool_"}  # numpy 1 has np.bool_
_PLAIN_TYPES = {"bool": bool, "int": int, "float": float, "str": str, "object": object}
# Parameters that name folders of this machine. load drops them as well: joblib unpickles what it finds there.
_PATH_PARAMETERS = ("cache", "checkpoint_dir", "memory")
_CALLBACK_ATTRIBUTES = ("callbacks", "_skl_callbacks")


# --- what is accepted


def type_name(cls):
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def check_trusted(trusted):
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
    if isinstance(cls, type) and issubclass(cls, BaseEstimator) and type_name(cls) == name:
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


class Encoder:
    """Values to what JSON can hold; numeric arrays are collected in ``arrays``."""

    def __init__(self, trusted=()):
        self.trusted = trusted
        self.arrays = {}
        self.known = {}  # id: (object, node); keeping the object keeps its id from being used again
        self.open = []  # ids of the containers around the present value
        self.n_estimators = self.cost = 0  # cost: what Decoder will take from its allowance

    def encode(self, value, where):
        """The node of ``value``, which lies at ``where`` in the estimator that is saved."""
        node = self._atom(value, where)
        if node is not _NOT_AN_ATOM:
            return node
        if id(value) in self.known:
            node = self.known[id(value)][1]
            self.cost += _cost(node)
            return node
        if id(value) in self.open:
            raise ValueError(f"{where} contains itself, which skecg.save cannot store. {_ADVICE}")
        if len(self.open) >= _MAX_DEPTH:
            raise ValueError(f"{where} lies more than {_MAX_DEPTH} levels deep. {_ADVICE}")
        self.open.append(id(value))
        try:
            node = self._compound(value, where)
        finally:
            self.open.pop()
        self.cost += _cost(node)
        return node

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
            if value.dtype.str in NUMERIC:
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
        if isinstance(value, np.dtype) and (value.str in NUMERIC or value.kind in "OU"):
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
        if array.dtype.str in NUMERIC:
            name, n = where, 1
            while name in self.arrays:  # strange names of attributes can make two places look alike
                name, n = f"{where}#{n}", n + 1
            order = _order(array)
            stored = np.asarray(array.T if order == "F" else array, order="C")
            self.arrays[name] = np.asarray(stored, dtype=stored.dtype.newbyteorder("<"))
            node = {"array": {"name": name, "dtype": array.dtype.str, "order": order}}
        elif array.dtype.kind == "U":
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
        name = type_name(cls)
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


def _cost(node):
    """Bytes that a well-formed node takes beyond its JSON, without what lies in it."""
    if isinstance(node, list):
        return 0
    (kind, content), = node.items()
    if kind in ("strings", "objects"):  # made flat, then in their shape
        return 2 * len(content["values"]) * (np.dtype(content["dtype"]).itemsize if kind == "strings" else 8)
    return _COSTS.get(kind, 0)


_NOT_AN_ATOM = object()
_ADVICE = "Use joblib.dump or pickle instead, and load such files only if you trust who wrote them."


def _refusal(value, where):
    text = (
        f"{where} is of the type {type_name(type(value))}, which skecg.save does not store: it takes "
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


class Decoder:
    """Nodes back to values. Whatever does not look like a node of :class:`Encoder` raises.

    Lists and dicts become those of the values: copies would take their memory again.
    """

    def __init__(self, tensors, trusted=(), versions=None, allowance=None):
        self.tensors = tensors
        self.trusted = trusted
        self.versions = versions or {}
        self.allowance = Allowance(math.inf) if allowance is None else allowance
        self.arrays, self.estimators = {}, {}
        self.depth = 0

    def decode(self, node):
        """The value of a node."""
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        self.depth += 1
        if self.depth > 2 * _MAX_DEPTH:
            raise Refused("the content is nested too deeply.")
        try:
            if isinstance(node, list):
                for i, item in enumerate(node):
                    node[i] = self.decode(item)
                return node
            (kind, content), = node.items()
            self.allowance.take(_COSTS.get(kind, 0))
            read = getattr(self, f"_read_{kind}", None)
            if read is None:
                raise Refused(f"{kind!r} is not a kind of value that skecg {__version__} knows.")
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
            for key, item in content.items():
                content[key] = self.decode(item)
            return content
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
                raise Refused(f"the array {name} is {array.dtype}, not {dtype}.")
            if dtype.byteorder == ">":
                array = array.byteswap(inplace=True).view(dtype)
            self.arrays[name] = array.T if content["order"] == "F" else array
        return self.arrays[name]

    def _read_strings(self, content):
        dtype = self._read_dtype(content["dtype"])
        if dtype.kind != "U":
            raise Refused(f"an array of strings cannot be {dtype}.")
        self.allowance.take(2 * dtype.itemsize * len(content["values"]))
        if not all(isinstance(item, str) for item in content["values"]):
            raise Refused("an array of strings holds something else.")
        return _filled(content, content["values"], dtype)

    def _read_objects(self, content):
        self.allowance.take(16 * len(content["values"]))
        return _filled(content, self.decode(content["values"]), np.dtype(object))

    def _read_random_state(self, content):
        key, pos = np.array(content["key"], dtype=np.uint32), content["pos"]
        if key.shape != (624,) or not 0 <= pos <= 624:
            raise Refused("a random state is malformed.")
        state = np.random.RandomState()
        state.set_state(("MT19937", key, int(pos), int(content["has_gauss"]), float(content["gauss"])))
        return state

    def _read_metadata_request(self, content):
        request = MetadataRequest(owner="estimator")
        for method, parameters in self._read_dict(content).items():
            if method not in _request_methods(request):
                raise Refused(f"there is no method {method!r} that takes metadata.")
            for parameter, alias in parameters.items():
                getattr(request, method).add_request(param=parameter, alias=alias)
        return request

    def _read_same(self, content):
        return self.estimators[content]

    def _read_estimator(self, content):
        cls = self._class(content["class"])
        estimator = cls.__new__(cls)
        estimator.__setstate__(_portable(self._read_dict(content["state"])))
        self.estimators[content["id"]] = estimator
        return estimator

    def _class(self, name):
        for cls in self.trusted:
            if type_name(cls) == name:
                return cls
        package, _, _ = name.partition(".")
        short = name.rpartition(".")[2]
        if package not in _PACKAGES:
            candidates = [cls for cls in self.trusted if cls.__name__ == short]
            if len(candidates) == 1:
                return candidates[0]
            raise Refused(
                f"the model contains {name!r}, a class outside skecg and scikit-learn, which is not imported. "
                f"If you have that class and trust it, pass trusted=[{short}] to skecg.load."
            )
        cls = _find_class(name)
        if cls is None:
            key = "scikit-learn" if package == "sklearn" else package
            raise Refused(
                f"there is no estimator class {name!r} in this {key}. The model was saved with {key} "
                f"{self.versions.get(key)}."
            )
        return cls


def _numeric_dtype(text):
    if text not in NUMERIC:
        raise Refused(f"{text!r} is not a dtype that is saved.")
    return np.dtype(text)


def _filled(content, values, dtype):
    """An array of strings or objects with these values, given in C order."""
    shape = tuple(content["shape"])
    if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != len(values):
        raise Refused(f"{len(values)} values do not fill an array of shape {shape}.")
    flat = np.empty(len(values), dtype)
    for i, item in enumerate(values):
        flat[i] = item
    return flat.reshape(shape).copy(order="F" if content["order"] == "F" else "C")


class AllocationLimit(TorchFunctionMode):
    """Stop networks that are rebuilt from a forged config before they take the memory of the machine.

    Those of skecg are built without memory in the first place; this concerns classes that are trusted.
    """

    def __init__(self, n_bytes, n_arrays):
        super().__init__()
        self.left = _MAX_EXTRA_BYTES + 4 * n_bytes
        self.n_left = _MAX_EXTRA_TENSORS + 20 * n_arrays

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("empty", "zeros", "ones", "rand", "randn", "full", "arange") and not _is_meta(kwargs.get("device")):
            sizes = kwargs.get("size", args[:1] if name == "full" else args)
            while len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
                sizes = sizes[0]
            if name == "arange":
                sizes = [max((abs(n) for n in args if isinstance(n, (int, float))), default=0)]
            self.left -= 4 * math.prod(n for n in sizes if isinstance(n, (int, float)))
            self.n_left -= 1
            if self.left < 0 or self.n_left < 0:
                raise Refused("its networks would take far more memory than the saved weights.")
        return func(*args, **kwargs)


def _is_meta(device):
    return device is not None and torch.device(device).type == "meta"
