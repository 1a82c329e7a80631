"""What the benchmark scripts share: the machine's name, results as JSON."""

import json
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path


def machine():
    """Processor, cores and library versions, for the record."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = f"{len(names)} x {names[0]}" if names else processor
    packages = ("skecg", "torch", "scikit-learn", "numpy", "scipy", "skorch", "wfdb")
    return {
        "processor": processor, "python": platform.python_version(),
        **{name: version(name) for name in packages}, "date": date.today().isoformat(),
    }


def write_json(path, results):
    """Results in a stable, readable layout."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(results, indent=1) + "\n")
    print(f"Results: {path}")
