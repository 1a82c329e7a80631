"""Writing files so that nobody ever finds half of one."""

import os
from pathlib import Path
from uuid import uuid4


def write_atomically(path, write):
    """A file that is either complete or not there: ``write(file)`` goes to a temporary one first.

    Once this returns, the file outlasts a power failure too.

    Raises
    ------
    OSError
        Something could not be written. What was at ``path`` before is still there, or the new file is, complete.
    """
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
    _sync_folder(path.parent)


def _sync_folder(folder):
    """Write a folder's list of names to disk, where the system lets one open folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
