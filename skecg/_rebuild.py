"""Networks with saved weights: names, shapes and types are compared before they take any memory."""

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from ._torch import build_seeded
from ._training import load_module_state

_FACTORIES = {"empty", "zeros", "ones", "full", "rand", "randn", "arange", "tensor"}
_FILLS = {"normal_", "uniform_", "zero_", "fill_"}
_ALIGNMENT = 64  # of torch's own memory: results may differ in the last bits where matrices lie otherwise


class _Skeleton(TorchFunctionMode):
    """Build networks without values; stop those that have far more tensors than were saved.

    Torch would import half of itself to draw random numbers for tensors without memory.
    """

    def __init__(self, n_tensors):
        super().__init__()
        self.left = n_tensors + 32

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in _FILLS and args and args[0].is_meta:
            return args[0]
        if name in _FACTORIES:
            self.left -= 1
            if self.left < 0:
                raise ValueError("the network has more tensors than were saved")
        return func(*args, **(kwargs or {}))


def rebuild(build, state, *parts):
    """The module of ``build()`` with saved weights, in eval mode.

    Parameters
    ----------
    build : callable
        Gives the freshly initialised module.
    state : dict of str to ndarray
        Its parameters and buffers. Arrays that are writeable and lie as torch's do become the weights themselves.
    parts : Encoder, Objective or Head
        What ``build`` consults. Modules of other packages than this one are built with memory and values, then
        overwritten: they may do anything in ``build``.

    Returns
    -------
    module : nn.Module

    Raises
    ------
    ValueError, RuntimeError
        Names, shapes or types are not those of the module.
    """
    if any(type(part).__module__.partition(".")[0] != "skecg" for part in parts):
        return load_module_state(build_seeded(build, 0), state)
    with torch.device("meta"), _Skeleton(len(state)):
        module = build_seeded(build, 0)
    expected = module.state_dict()
    for name, value in state.items():
        if name in expected and str(value.dtype) != str(expected[name].dtype).removeprefix("torch."):
            raise ValueError(f"the array {name} is {value.dtype}, not {expected[name].dtype}")
    module.load_state_dict({name: _as_tensor(value) for name, value in state.items()}, assign=True)
    return module.eval()


def _as_tensor(value):
    if (
        value.flags.writeable and value.flags.c_contiguous and not isinstance(value, np.memmap)
        and value.ctypes.data % _ALIGNMENT == 0
    ):
        return torch.from_numpy(value)
    copy = torch.empty(value.shape, dtype=getattr(torch, str(value.dtype)))
    copy.numpy()[...] = value
    return copy
