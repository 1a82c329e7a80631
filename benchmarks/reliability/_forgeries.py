"""Damaged and forged files of a saved model, each a function of a random generator."""

import hashlib
import json
import os

from skecg import persistence

FOREIGN = (
    "os.system", "subprocess.Popen", "builtins.eval", "builtins.exec", "pickle.loads", "skecg.persistence.os.system",
    "torch.load", "sklearn.utils.Bunch", "sklearn.base.clone", "sklearn.externals.joblib.load", "antigravity.Fly", "this.x",
    "sklearn.tests.test_base.MyEstimator", "sklearn.conftest.x", "importlib.import_module", "__main__.Evil", "",
    "..", "x" * 10_000,
    "skecg.recipes.from_heartbert", "skecg._huggingface.from_heartbert", "numpy.load", "sklearn.datasets.fetch_openml",
)


# --- damage: the sums stay as they are


def damage(files, rng):
    """Files of a model, {name: bytes}, with one fault; and the kind of the fault."""
    kind = rng.choice(["bits", "cut", "lost", "doubled", "zeros", "swapped", "inserted", "gone", "exchanged", "crlf"])
    name = str(rng.choice(sorted(files)))
    content = bytearray(files[name])
    place = int(rng.integers(len(content)))
    length = int(min(len(content) - place, rng.choice([1, 2, 8, 100, 4096])))
    if kind == "bits":
        for i in rng.integers(len(content), size=rng.choice([1, 1, 1, 10])):
            content[i] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del content[place:]
    elif kind == "lost":
        del content[place:place + length]
    elif kind == "doubled":
        content[place:place] = content[place:place + length]
    elif kind == "zeros":
        content[place:place + length] = bytes(length)
    elif kind == "swapped":
        other = int(rng.integers(len(content)))
        content[place], content[other] = content[other], content[place]
    elif kind == "inserted":
        content[place:place] = rng.bytes(length)
    elif kind == "crlf":
        content = content.replace(b"\n", b"\r\n") if b"\n" in content else content + b"\r\n"
    changed = {**files, name: bytes(content)}
    if kind == "gone":
        del changed[name]
    elif kind == "exchanged":
        names = sorted(files)
        changed = {names[0]: files[names[1]], names[1]: files[names[0]]}
    return changed, f"damage: {kind}"


# --- forgery: the sums are right


def nodes(tree, path=()):
    """Paths of all values in a tree of JSON."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield from nodes(item, (*path, key))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def put(tree, path, value):
    at(tree, path[:-1])[path[-1]] = value


def places(tree, kind):
    """Paths of the contents of all nodes of a kind."""
    return [p for p in nodes(tree) if p and p[-1] == kind and isinstance(at(tree, p), dict)]


def header_of(content):
    n = int.from_bytes(content[:8], "little")
    return json.loads(content[8:8 + n]), content[8 + n:]


def with_header(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def forged_class(config, arrays, rng):
    put(config, (*pick(rng, places(config, "estimator")), "class"), pick(rng, FOREIGN))


def forged_size(config, arrays, rng):
    """Networks larger than what was saved."""
    sizes = {
        "embed_dim", "depth", "mlp_ratio", "width", "conv_dim", "position_kernel", "patch_size_", "n_leads_", "max_tokens",
        "vocab_size_", "decoder_dim", "decoder_depth", "codebook_size", "target_dim", "kernel_size", "depths",
        "conv_strides",
    }
    found = [p for p in nodes(config["estimator"]) if p and p[-1] in sizes and network_state(p, config["estimator"])]
    if not found:
        return forged_class(config, arrays, rng)
    path = pick(rng, found)
    value = pick(rng, [10**4 + 1, 10**6 + 1, 10**9 + 1, 2**63, -5, 0, 10**300, [10**4] * 9, {"tuple": [7] * 50_000}, "x"])
    put(config["estimator"], path, value)
    return None


def network_state(path, tree):
    """Whether the value at ``path`` belongs to an encoder or objective from which a network is built."""
    return any(key in ("encoder_", "objective_") for key in path) and isinstance(at(tree, path), (int, float, dict, list))


def forged_state(config, arrays, rng):
    """Weights that are missing, too many, of another type, or other values in their place."""
    found = [p for p in nodes(config["estimator"]) if p and p[-1] in ("network_", "pretrainer_", "head_network_")]
    if not found:
        return forged_class(config, arrays, rng)
    state = at(config["estimator"], (*pick(rng, found), "dict"))
    name = pick(rng, sorted(state))
    what = int(rng.integers(6))
    if what == 0:
        del state[name]
    elif what == 1:
        state[name + ".x"] = state[name]
    elif what == 2:
        for i in range(20_000):
            state[f"x{i}"] = state[name]
    elif what == 3:
        state[name] = pick(rng, [None, "x", 3, [], {"tuple": []}, {"estimator": {}}])
    elif what == 4:
        state[name]["array"]["name"] = "nothing"
    else:
        state.clear()
    return None


def forged_node(config, arrays, rng):
    """Nodes that no encoder writes."""
    bad = [
        {"exec": "print(1)"}, {"a": 1, "b": 2}, {}, {"same": 10**9}, {"same": [1]}, {"float": "1e999"}, {"dtype": "O,O"},
        {"type": "object_"}, {"type": "os"}, {"scalar": {"dtype": "|O", "bytes": "00"}}, {"set": [[1]]}, {"bunch": [1]},
        {"scalar": {"dtype": "<f8", "bytes": "00"}}, {"random_state": {"key": [0] * 624, "pos": 10**9, "has_gauss": 0,
                                                                         "gauss": 0.0}},
        {"random_state": {"key": [0] * 10, "pos": 0, "has_gauss": 0, "gauss": 0.0}}, {"metadata_request": {"__init__": {}}},
        {"metadata_request": {"dict": {}}}, {"array": {"name": "nothing", "dtype": "<f8", "order": "C"}},
        {"array": {"name": 3, "dtype": "<f8", "order": "C"}}, {"objects": {"values": [1], "shape": [10**12], "order": "C"}},
        {"strings": {"values": ["x"] * 99, "dtype": "<U99999999", "shape": [99], "order": "C"}}, {"estimator": {}},
        {"strings": {"values": [1], "dtype": "<U3", "shape": [1], "order": "C"}}, {"slice": [1, 2]}, {"estimator": None},
        {"strings": {"values": ["x"], "dtype": "O", "shape": [1], "order": "C"}}, {"dict": [[[], 1]]}, {"__class__": "x"},
        {"decode": {"tuple": []}}, {"estimator": {"class": "sklearn.svm._classes.SVC", "id": [], "state": {}}},
    ]
    path = pick(rng, [p for p in nodes(config["estimator"]) if p and p[-1] == "state"])
    at(config["estimator"], path)[pick(rng, ["fs", "zzz", "encoder", "verbose"])] = pick(rng, bad)


def forged_bomb(config, arrays, rng):
    """Small values that take much memory, and a wrong one after them."""
    n = int(pick(rng, [10_000, 100_000, 500_000]))
    small = [
        [], {"list": []}, {"dict": {}}, {"dict": {"a": 0}}, {"set": []}, {"bunch": {}}, {"str_": ""}, {"tuple": [0]},
        {"metadata_request": {"dict": {}}}, {"scalar": {"dtype": "<f8", "bytes": "00" * 8}}, {"dtype": "<U7"}, 0.5, "ab",
        {"strings": {"values": [], "dtype": "<U3", "shape": [0], "order": "C"}}, {"metadata_request": {}},
        {"slice": [1, 2, 3]},
        {"estimator": {
            "class": "sklearn.preprocessing._data.StandardScaler", "id": 9, "state": {"_sklearn_version": "0.1"}}},
        {"random_state": {"key": [0] * 624, "pos": 0, "has_gauss": 0, "gauss": 0.0}},
    ]
    value = pick(rng, small)
    if isinstance(value, dict) and "random_state" in value:
        n //= 500
    state = at(config["estimator"], ("estimator", "state"))
    kind = int(rng.integers(3))
    state["bomb"] = [value] * n if kind else {"objects": {"values": [0.5] * n, "shape": [n], "order": "F"}}
    if kind == 2:
        state["bomb"] = {"strings": {"values": ["x"] * n, "dtype": "<U300", "shape": [n], "order": "C"}}
    state["wrong"] = {"exec": ""}


def forged_nesting(config, arrays, rng):
    depth = int(pick(rng, [210, 900, 30_000]))
    open_, close = pick(rng, [("[", "]"), ('{"tuple": [', "]}"), ('{"dict": {"a": ', "}}"), ('{"a": ', "}")])
    return json.dumps(config)[:-1] + ', "more": ' + open_ * depth + "1" + close * depth + "}", "nested"


def forged_envelope(config, arrays, rng):
    """Keys of the config itself."""
    what = int(rng.integers(9))
    if what == 0:
        config["arrays"]["file"] = pick(rng, [
            "../arrays.safetensors", "/etc/passwd", "config.json", "", ".", "arrays.safetensors/../arrays.safetensors",
            "arrays.safetensors\0", "C:\\x", 3, None, ["arrays.safetensors"], "arrays.safetensors.partial"])
    elif what == 1:
        config["format_version"] = pick(rng, [0, -1, 2, 10**400, "1", None, 1.0, True, [1]])
    elif what == 2:
        config["format"] = pick(rng, ["skops", None, 1, ["skecg"]])
    elif what == 3:
        config["versions"] = pick(rng, [[], None, {"skecg": 1}, "x", {"a": [[]] * 100_000}])
    elif what == 4:
        config["arrays"] = pick(rng, [[], None, "arrays.safetensors", {}, {"file": "arrays.safetensors"}])
    elif what == 5:
        del config[pick(rng, ["format", "format_version", "versions", "arrays", "estimator"])]
    elif what == 6:
        config["estimator"] = pick(rng, [
            None, 3, "x", [], {}, {"tuple": []}, {"dict": {}}, {"estimator": []}, {"float": "nan"}])
    elif what == 7:
        return json.dumps(config).replace(": 1", ": NaN", 1), "text"
    else:
        texts = ["", "3", "[]", "{}", "null", '"x"', "\\", "[" * 10**5, "9" * 10**5, json.dumps(config)[:-9]]
        return pick(rng, texts), "text"
    return None


def forged_arrays(config, arrays, rng):
    """Headers that lie about the arrays."""
    header, data = header_of(arrays)
    if not header:
        return forged_class(config, arrays, rng)
    name = pick(rng, sorted(header))
    entry, what = header[name], int(rng.integers(14))
    if what == 0:
        entry["shape"] = pick(rng, [
            [10**12], [2**62, 4], [-1], [*entry["shape"], 2], [0.5], "x", None, [2**64, 2**64, 0, 1, 1]])
    elif what == 1:
        entry["dtype"] = pick(rng, ["F64", "BF16", "F8_E4M3", "O", "", None, "U8", "I16"])
        if entry["dtype"] == header_of(arrays)[0][name]["dtype"]:
            entry["dtype"] = "F16"
    elif what == 2:
        entry["data_offsets"] = pick(rng, [
            [0, 0], [0, 10**15], [10**15, 10**15], [-8, 0], [1], [], None, "ab", [0, len(data) + 1], [False, True]])
    elif what == 3:
        del entry[pick(rng, sorted(entry))]
    elif what == 4:
        entry["more"] = 1
    elif what == 5:  # one after the other over the same bytes
        for i in range(20_000):
            header[f"x{i}"] = dict(entry)
    elif what == 6:
        header = {f"x{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(30_000)} | header
        return with_header(header, data), "array bomb"
    elif what == 7:
        n_header = pick(rng, [2**60, 2**63, 2**64 - 1, 10**8, len(arrays) - 7])
        return n_header.to_bytes(8, "little") + arrays[8:], "header length"
    elif what == 8:
        texts = [b"[]", b"3", b"", b"null", b"{", b"[" * 10**5, b"\xff" * 99, b'{"a": 1}', b'{"a": NaN}']
        return with_header(pick(rng, texts), data), "header"
    elif what == 9:
        return with_header(header, data + bytes(8)), "header"
    elif what == 10:
        return with_header(header, data[:-1]), "header"
    elif what == 11:
        others = [b"PK\x03\x04" + arrays, b"\x80\x04cos\nsystem\n"]
        return pick(rng, [b"", arrays[:7], arrays[:8], arrays[:40], *others]), "file"
    elif what == 12:
        header[name + "x"] = header.pop(name)
    else:
        del header[name]
    return with_header(header, data), "arrays"


FORGERIES = (
    forged_class, forged_size, forged_state, forged_node, forged_bomb, forged_nesting, forged_envelope, forged_arrays,
)


def forge(files, rng):
    """Files of a model with one forgery and right sums; and its kind."""
    config = json.loads(files["config.json"])
    del config["sha256"]
    arrays = files["arrays.safetensors"]
    how = pick(rng, FORGERIES)
    result = how(config, arrays, rng)
    if how is forged_arrays and result is not None:
        arrays, text = result[0], None
    else:
        text = result and result[0]
    if isinstance(config.get("arrays"), dict):
        config["arrays"]["sha256"] = hashlib.sha256(arrays).hexdigest()
    sealed = persistence._sealed(config) if text is None else seal(text)
    return {"config.json": sealed, "arrays.safetensors": arrays}, how.__name__.replace("_", ": ", 1)


def seal(text):
    """Any text with the last line that a config has."""
    head = text.rstrip("}").encode("ascii")
    return head + (persistence._SEAL % hashlib.sha256(head).hexdigest()).encode("ascii")


def free(files, rng):
    """Files in which a few values of the config are others of its values, with right sums."""
    config = json.loads(files["config.json"])
    del config["sha256"]
    for _ in range(int(rng.integers(1, 4))):
        paths = [p for p in nodes(config["estimator"]) if p]
        put(config["estimator"], pick(rng, paths), json.loads(json.dumps(pick(rng, [
            at(config["estimator"], pick(rng, paths)), None, -1, 0, 10**9, 0.5, "x", [], {"tuple": []}, {"float": "nan"}]))))
    return {**files, "config.json": persistence._sealed(config)}, "free"


def links(folder, files, rng):
    """Directories that are not what they seem."""
    kind = pick(rng, ["no directory", "file", "config a directory", "arrays a directory", "dangling link", "link to itself",
                      "link to a device", "pipe", "link to another file", "empty"])
    if kind in ("no directory", "file"):
        if kind == "file":
            folder.write_bytes(files["config.json"])
        return f"path: {kind}"
    folder.mkdir()
    if kind == "empty":
        return f"path: {kind}"
    victim, other = ("config.json", "arrays.safetensors")[:: 1 if rng.random() < 0.5 else -1]
    if kind.endswith("a directory"):
        victim, other = ("config.json", "arrays.safetensors")[:: 1 if kind.startswith("config") else -1]
        (folder / victim).mkdir()
    elif kind == "pipe":
        os.mkfifo(folder / victim)
    else:
        target = {"dangling link": "nowhere", "link to itself": victim, "link to a device": "/dev/zero",
                  "link to another file": "/etc/hostname"}[kind]
        (folder / victim).symlink_to(target)
    (folder / other).write_bytes(files[other])
    return f"path: {kind}"
