import os
import warnings
from pathlib import Path

import pytest

# before scipy is imported: one of scikit-learn's checks is skipped without it
os.environ.setdefault("SCIPY_ARRAY_API", "1")
# Small networks: a second thread gains little, and stalls where another program has the core.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def real_data():
    """Folder of real recordings, named by the environment variable SKECG_TEST_DATA."""
    folder = os.environ.get("SKECG_TEST_DATA")
    if folder:
        return Path(folder)
    message = "set SKECG_TEST_DATA to a folder with mitdb/, ptbxl/, ecgid/, slpdb_rr/ and cinc2021/ in PhysioNet's layout"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def reference(real_data):
    """Folder of numbers that other implementations computed, beside the real recordings."""
    folder = real_data.parent / "reference"
    if folder.is_dir():
        return folder
    message = f"needs the reference numbers in {folder}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


class _Quiet:
    """wfdb, without the warnings about what it calls in pandas."""

    def __getattr__(self, name):
        def call(*args, **kwargs):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import wfdb

                return getattr(wfdb, name)(*args, **kwargs)

        return call


@pytest.fixture(scope="session")
def wfdb():
    """The reference implementation, to write records and to compare with."""
    return _Quiet()
