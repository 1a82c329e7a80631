"""What torch keeps for the whole process (generators, threads), and what it finds in the machine."""

import os
import threading
import warnings
from contextlib import contextmanager

import torch

_lock = threading.RLock()
_inside = []  # the threads that are in preserved_torch_state at present, once for each time
_loaded = False
_before = None  # states of the global generators when the first of them came


@contextmanager
def preserved_torch_state(single_thread=False):
    """Leave torch's global generators and thread count as they were, also when fits overlap in threads."""
    global _before
    process, n_threads = os.getpid(), torch.get_num_threads()  # torch counts for each thread of Python apart
    with _lock:
        if not _inside:
            _before = generator_states()
        _inside.append(threading.get_ident())
        if single_thread:
            torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _inside.remove(threading.get_ident())
            if torch.get_num_threads() != n_threads and os.getpid() == process:
                torch.set_num_threads(n_threads)
            if not _inside:
                set_generator_states(_before)


def generator_states():
    """States of torch's global generators, as tensors by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states |= {f"cuda:{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def set_generator_states(states):
    """Put back what :func:`generator_states` returned; devices that are not there are passed over."""
    with _lock:
        for device, state in states.items():
            if device == "cpu":
                torch.set_rng_state(state)
            elif torch.device(device).index < torch.cuda.device_count():
                torch.cuda.set_rng_state(state, device)


def seed_torch(seed):
    """Seed torch's global generators, not while a network is being initialised in another thread."""
    with _lock:
        torch.manual_seed(seed)


def load_optimizers():
    """Let torch load what it loads at an optimizer's first step, without the warning filters that this leaves behind."""
    global _loaded
    with _lock:
        if not _loaded:
            with warnings.catch_warnings():
                parameter = torch.nn.Parameter(torch.zeros(1))
                parameter.grad = torch.zeros(1)
                torch.optim.AdamW([parameter], fused=True).step()
            _loaded = True


def build_seeded(build, seed):
    """``build()`` with torch's global generator seeded, which is left as it was."""
    with _lock, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def _after_fork():
    """Make torch usable in a child of ``os.fork``.

    The threads of torch's pool are not copied, and what is computed with more than one of them would wait for the others
    forever. Neither are threads copied that may have held the lock.
    """
    global _lock
    torch.set_num_threads(1)
    _lock = threading.RLock()
    _inside[:] = [thread for thread in _inside if thread == threading.get_ident()]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def resolve_device(device):
    """``"auto"`` is the GPU where torch finds one, else the CPU.

    Raises
    ------
    ValueError
        A device that this machine or this build of torch does not have.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"device={device!r} cannot be used: {reason} Use device='auto' or 'cpu'.") from error
    return torch.device(device)


def resolve_precision(precision, device):
    """``"auto"`` is bfloat16 autocast where the processor computes in it, else float32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported()
    else:
        native = device.type == "cpu" and _cpu_has_bfloat16()
    return "bfloat16" if native else "float32"


def _cpu_has_bfloat16():
    # torch has no public question for this; a version without the private ones trains in float32
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)
