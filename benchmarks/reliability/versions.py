"""The tests with the oldest or the newest versions of every dependency, in an environment of its own.

    python benchmarks/reliability/versions.py oldest|newest [--python python3.12] [--torch VERSION|installed] [options]

"oldest" pins each dependency of the package and of the extras `plot`, `pandas` and `heartbert` to the lower bound in
pyproject.toml; "newest" upgrades all to what pip finds. Tools of testing are taken as they come, further options go to
pytest. `--torch installed` uses the torch that runs this script, where that of the bound cannot be had; `--torch 2.13.0`
pins another one. Writes
`benchmarks/results/versions_WHICH_pyX.Y.json` with the versions and the outcome of the tests.
"""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

ROOT = Path(__file__).parents[2]
EXTRAS = ("plot", "pandas", "heartbert")


def lower_bounds():
    """{package: oldest supported version} from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(item for extra in EXTRAS for item in project["optional-dependencies"][extra])]
    return dict(re.match(r"([A-Za-z0-9_.-]+)>=([0-9.]+)", item).groups() for item in wanted)


def call(*command, **options):
    print("+", *command, flush=True)
    return subprocess.run([str(part) for part in command], check=False, **options)


def make_environment(folder, which, python, torch):
    """An environment with the package and its dependencies; its python."""
    call(python, "-m", "venv", folder)
    inside = folder / "bin" / "python"
    pins = lower_bounds() if which == "oldest" else {}
    if torch == "installed":
        place = Path(importlib.util.find_spec("torch").origin).parents[1]
        site = next(folder.glob("lib/*/site-packages"))
        (site / "_installed_torch.pth").write_text(f"{place}\n")  # after what is installed in the environment itself
        pins.pop("torch", None)
    elif torch:
        pins["torch"] = torch
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()))
    upgrade = ["--upgrade", "--upgrade-strategy", "eager"] if which == "newest" else []
    options = ["-m", "pip", "install", "--quiet", "--constraint", constraints]
    if torch == "installed":  # its own numpy and others must not stand in for those wanted
        names = [
            f"{name}=={version}" if which == "oldest" else name
            for name, version in lower_bounds().items() if name != "torch"
        ]
        if call(inside, *options, "--ignore-installed", *names).returncode:
            sys.exit("These versions cannot be installed together.")
    if call(inside, *options, *upgrade, "--editable", f"{ROOT}[test]").returncode:
        sys.exit("These versions cannot be installed together.")
    return inside


def installed(python):
    code = (
        "import json, platform\nfrom importlib.metadata import version\n"
        f"print(json.dumps({{'python': platform.python_version(), **{{n: version(n) for n in {list(lower_bounds())}}}}}))"
    )
    return json.loads(call(python, "-c", code, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("which", choices=["oldest", "newest"])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--torch")
    parser.add_argument("--venv", type=Path, help="where to make it, or one made before; default: .venv-WHICH")
    args, options = parser.parse_known_args()
    folder = (args.venv or ROOT / f".venv-{args.which}").absolute()
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        python = make_environment(folder, args.which, args.python, args.torch)
        (folder / "ready").touch()
    versions = installed(python)
    print(versions, flush=True)
    result = call(
        python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(result.stdout)
    last = result.stdout.strip().splitlines()[-1:]
    major, minor = versions["python"].split(".")[:2]
    output = ROOT / "benchmarks" / "results" / f"versions_{args.which}_py{major}.{minor}.json"
    output.write_text(json.dumps({
        "versions": versions, "pytest": options, "outcome": last[0] if last else "",
        "failed": re.findall(r"^(?:FAILED|ERROR) (\S+)", result.stdout, re.M),
    }, indent=1) + "\n")
    print(f"Results: {output}")
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
