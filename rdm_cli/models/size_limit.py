"""Building a network no larger than the weights that it is to be filled with.

A configuration of a few bytes may describe a network of any size. Its parameters are counted as they are
made, before one is filled with anything, so that the first that is too large ends it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

SLACK = 2  # some layers make a parameter and put another in its place
SLACK_TENSORS = 100


@contextmanager
def no_larger_than(shapes: Collection[Sequence[int]]) -> Iterator[None]:
    """Within the block, raise ValueError where more is made than tensors of ``shapes``, twice."""
    num_tensors = SLACK * len(shapes) + SLACK_TENSORS
    num_values = SLACK * sum(map(math.prod, shapes)) + SLACK_TENSORS

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal num_tensors, num_values
        if parameter is None:
            return
        num_tensors -= 1
        num_values -= parameter.numel()
        if num_tensors < 0 or num_values < 0:
            raise ValueError("it would be larger than its weights")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
