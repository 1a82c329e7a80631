import ast
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import skecg

ROOT = Path(skecg.__file__).parent

# A module imports only from rooms of a lower rank (or from its own room).
RANK = {
    "_files": 0, "_validation": 0, "_torch": 0, "metrics": 1, "model_selection": 2, "datasets": 3, "preprocessing": 3,
    "encoders": 4, "objectives": 5, "heads": 5, "_checkpoints": 5, "_training": 6, "_rebuild": 6.5, "_embedder": 7,
    "_predictor": 8, "_on_signals": 9, "_on_embeddings": 9, "_classifier": 9, "_regressor": 9, "_array_file": 9,
    "_supervised": 10, "_record_classifier": 10, "_codec": 10, "recipes": 11, "_thresholds": 11,
    "persistence": 11, "evaluation": 12, "_fairseq": 6, "_huggingface": 6, "_lead_agnostic": 10, "_heartbert": 10,
}
WITHOUT_TORCH = {"_files", "_validation", "metrics", "model_selection", "datasets", "preprocessing"}
MODULES = {path.relative_to(ROOT).with_suffix("").parts: path for path in ROOT.rglob("*.py")}


def room(parts):
    return parts[0]


def imports(parts):
    """(parts of a skecg module, or name of a foreign package; whether at module level) of each import in a file."""
    tree = ast.parse(MODULES[parts].read_text(encoding="utf-8"))
    top_level = set()
    for node in tree.body:
        top_level.update(ast.walk(node) if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) else [])
    package = parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names = alias.name.split(".")
                yield (tuple(names[1:]) if names[0] == "skecg" else names[0]), node in top_level
        elif isinstance(node, ast.ImportFrom):
            names = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                base = package[: len(package) - (node.level - 1)] + names
            elif names[0] == "skecg":
                base = names[1:]
            else:
                yield names[0], node in top_level
                continue
            for alias in node.names:
                target = (*base, alias.name)
                if target not in MODULES and (*target, "__init__") not in MODULES:
                    target = base  # a name inside that module
                yield target, node in top_level


def resolve(target):
    return target if target in MODULES else (*target, "__init__")


@pytest.mark.parametrize("parts", [p for p in MODULES if p != ("__init__",)], ids=".".join)
def test_imports_only_from_lower_rank(parts):
    assert room(parts) in RANK, f"{room(parts)} has no rank; enter it above"
    for target, _ in imports(parts):
        if isinstance(target, str) or not target:  # foreign, or the version
            continue
        if room(target) != room(parts):
            assert RANK[room(target)] < RANK[room(parts)], f"{'.'.join(parts)} imports {'.'.join(target)}"


def test_no_cycles():
    graph = {
        parts: {resolve(target) for target, _ in imports(parts) if not isinstance(target, str)} - {parts}
        for parts in MODULES
    }
    assert any(graph.values())
    for parts in graph:  # importing the version is importing the root, which imports nothing itself
        graph[parts].discard(("__init__",))
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_foreign_packages_are_imported_where_they_belong():
    for parts in MODULES:
        for target, top_level in imports(parts):
            if target == "skorch":
                assert parts == ("_training",)
            if target == "torch":
                assert room(parts) not in WITHOUT_TORCH and parts != ("__init__",)
            if target in ("wfdb", "pandas", "matplotlib"):
                assert not top_level, f"{'.'.join(parts)} imports {target} where it is not used"


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def test_data_modules_load_without_torch():
    names = sorted(name for name in WITHOUT_TORCH if name in {room(parts) for parts in MODULES})
    assert {"datasets", "preprocessing"} <= set(names)
    result = run(
        f"import importlib, sys\nimport skecg\nfor name in {names}: importlib.import_module('skecg.' + name)\n"
        "from skecg.datasets import make_ecg; from skecg.preprocessing import LeadScaler\n"
        "LeadScaler().fit_transform(make_ecg(3, duration=1.0, random_state=0)[0])\n"
        "print([name for name in ('torch', 'skorch', 'wfdb', 'matplotlib', 'safetensors') if name in sys.modules])"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_no_network_at_import():
    result = run(
        "import socket\n"
        "def refuse(*args, **kwargs): raise OSError('network at import')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "import skecg\nfor name in skecg.__all__: getattr(skecg, name)\nprint('loaded')"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "loaded"


def test_public_names():
    assert set(dir(skecg)) == set(skecg.__all__)
    for name in skecg.__all__:
        value = getattr(skecg, name)
        if name in skecg._PUBLIC:
            assert value is getattr(importlib.import_module(skecg._PUBLIC[name]), name)
        elif name in skecg._ROOMS:
            assert value.__name__ == f"skecg.{name}"
            assert value.__doc__
    with pytest.raises(AttributeError, match=r"has no attribute 'Embedder'; it offers .*ECGSelfSupervisedEmbedder"):
        skecg.Embedder  # noqa: B018


@pytest.mark.parametrize("name", [n for n in skecg._ROOMS if hasattr(getattr(skecg, n), "__all__")])
def test_rooms_offer_what_they_list(name):
    module = getattr(skecg, name)
    assert sorted(module.__all__) == list(module.__all__)
    for public in module.__all__:
        assert getattr(module, public).__doc__, f"{name}.{public} has no docstring"
