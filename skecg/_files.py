"""Writing files so that nobody ever finds half of one."""

import os
from pathlib import Path
from uuid import uuid4


def write_atomically(path, write):
    """A file that is either complete or not there: ``write(file)`` goes to a temporary one first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.part")
    try:
        with open(part, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
