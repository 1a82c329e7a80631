import os
import socket
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


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """No test reaches another machine; servers of this one are tests of downloads."""
    here = ("127.0.0.1", "::1", "localhost", "", None)

    def local_only(original, place):
        def call(*args, **kwargs):
            address = args[place]
            host = address[0] if isinstance(address, tuple) else address
            if host not in here and not (isinstance(address, (str, bytes)) and os.path.isabs(address)):
                raise OSError(f"no network in tests: {host}")
            return original(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_only(socket.socket.connect, 1))
        patch.setattr(socket, "getaddrinfo", local_only(socket.getaddrinfo, 0))
        yield
