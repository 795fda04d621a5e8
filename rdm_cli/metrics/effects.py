r"""Mean effects of several changes, and which of them chance does not explain.

The sign-flip test (Fisher 1935, Pitman 1937): where a change does nothing, a difference d_i is as likely as
-d_i. So each thing's differences get a random sign, many times, and a mean that such draws hardly reach is no
chance. Several changes are tested together by their largest statistic (Westfall & Young 1993):

    T_k = |sum_i s_i d_ik| / sqrt(sum_i d_ik^2),        p_k = P(max_j T_j >= the T_k that was seen)

A thing has one sign s_i for all changes that were made to it, so what its differences have in common stays; p
is the probability that any of the changes is taken for an effect where none has one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rdm_cli.kernels.randomness import keyed_generator

NUM_FLIPS = 10_000


def sign_flip_p_values(differences: Tensor, *, seed: int, num_flips: int = NUM_FLIPS) -> Tensor:
    """p of each of K changes, float64 (K,), corrected for their number.

    ``differences`` is (N, K): what change k made of thing i, NaN where it was not made. The smallest p is
    1 / (num_flips + 1); a change without differences, or with none but 0, has 1.
    """
    d = differences.double().nan_to_num(0.0)
    if not d.numel():
        return torch.ones(d.shape[1], dtype=torch.float64)
    length = d.square().sum(dim=0).sqrt()
    share = d / torch.where(length > 0, length, 1.0)
    seen = share.sum(dim=0).abs()
    generator = keyed_generator(seed, "sign flips")
    num_as_large = torch.zeros(d.shape[1], dtype=torch.float64)
    for part in torch.arange(num_flips).split(1000):
        signs = torch.randint(2, (len(part), len(d)), generator=generator).double() * 2 - 1
        largest = (signs @ share).abs().amax(dim=1)
        num_as_large += (largest[:, None] >= seen * (1 - 1e-12)).sum(dim=0)
    return (1 + num_as_large) / (num_flips + 1)
