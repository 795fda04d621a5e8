"""What a linear classifier can read off a code, attribute by attribute, on images it was not fitted on.

The same probes on the principal components of the pixels (:func:`pixel_components`) and on a network that
never learned (:func:`rdm_cli.metrics.features.open_random_network`) say how much of it is the code's merit:
give them one ``held_out``, one seed and as many features.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rdm_cli.kernels.randomness import key_to_seed, keyed_generator
from rdm_cli.kernels.standardise import mean_and_std
from rdm_cli.metrics.extras import optional_module
from rdm_cli.metrics.intervals import LEVEL, NUM_RESAMPLES, resampled_counts
from rdm_cli.metrics.linear_fit import fit_linear
from rdm_cli.metrics.ranking import (
    Separation,
    separation_estimate,
    separation_replicates,
    smaller_class,
)

HELD_OUT = 0.25
MIN_EXAMPLES = 2  # of each class, in each part


@dataclass(frozen=True, kw_only=True)
class LinearProbes:
    """Held-out scores ``by_name``, their ``mean`` over attributes, and why others were ``skipped``.

    The mean's intervals are those over other images; which attributes there are is taken as given. Its
    counts are sums over attributes.
    """

    by_name: Mapping[str, Separation]
    mean: Separation
    skipped: Mapping[str, str]


def hold_out(num_rows: int, *, seed: int, share: float = HELD_OUT) -> Tensor:
    """Which rows score and which train: bool (num_rows,), True for the ``share`` held out, one at least.

    Depends on the seed and the number of rows alone. Raises ValueError where nothing is left to train on.
    """
    num_held_out = max(1, round(share * num_rows))
    if not 0 < share < 1 or num_held_out >= num_rows:
        raise ValueError(f"a share of {share} of {num_rows} rows cannot be held out")
    order = torch.randperm(num_rows, generator=keyed_generator(seed, "held-out"))
    held_out = torch.zeros(num_rows, dtype=torch.bool)
    held_out[order[:num_held_out]] = True
    return held_out


def linear_probes(
    features: Tensor,
    labels: Tensor,
    names: Sequence[str],
    *,
    held_out: Tensor,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> LinearProbes:
    """Fit a classifier for each attribute on the rows not ``held_out``, and score it on those that are.

    ``features`` (N, ...), flattened; ``labels`` float (N, K): positive where > 0, NaN where unknown;
    ``held_out`` bool (N,). Features are standardised with the training rows' moments; the penalty is chosen
    among them too. Raises ValueError for shapes that disagree and where no attribute has two examples of each
    class in both parts, UsageError where scikit-learn is absent.
    """
    x = standardised(features, held_out)
    labels, held_out = checked_labels(labels, names, len(x)), held_out.cpu()
    counts = resampled_counts(int(held_out.sum()), seed=seed, num_resamples=num_resamples)
    values, replicates, by_name, skipped = [], [], {}, {}
    num_pairs: list[int] = []
    for k, name in enumerate(names):
        reason = too_few(labels[:, k], held_out)
        if reason:
            skipped[name] = reason
            continue
        known, target = ~labels[:, k].isnan(), labels[:, k] > 0
        train, test = known & ~held_out, known & held_out
        fit = fit_linear(x[train].numpy(), target[train].numpy(), penalty="square", seed=seed)
        logits = torch.from_numpy(fit.logits(x[test].numpy()))
        value, spread = separation_replicates(logits, target[test], counts[:, known[held_out]])
        num_pairs.append(smaller_class(target[test]))
        by_name[name] = separation_estimate(
            value,
            spread,
            num_positive=int(target[test].sum()),
            num_scored=int(test.sum()),
            num_pairs=num_pairs[-1],
            level=level,
        )
        values.append(value)
        replicates.append(spread)
    if not by_name:
        raise ValueError(
            "no attribute can be probed: " + "; ".join(f"{n}: {why}" for n, why in skipped.items())
        )
    mean = separation_estimate(
        torch.stack(values).mean(dim=0),
        torch.stack(replicates).mean(dim=0),
        num_positive=sum(s.num_positive for s in by_name.values()),
        num_scored=sum(s.num_scored for s in by_name.values()),
        # the same images show all attributes, so their pairs do not add up: those of a typical one
        num_pairs=int(statistics.median(num_pairs)),
        level=level,
    )
    return LinearProbes(by_name=by_name, mean=mean, skipped=skipped)


def pixel_components(images: Tensor, *, held_out: Tensor, num_components: int, seed: int) -> Tensor:
    """Principal components of the pixels of ``images`` (N, ...), found on the rows not ``held_out``.

    float32 (N, num_components), or as many as the training rows or the pixels allow. Raises UsageError where
    scikit-learn is absent.
    """
    decomposition = optional_module("sklearn.decomposition", package="scikit-learn")
    pixels = images.detach().cpu().float().flatten(1).numpy()
    train = pixels[~held_out.cpu().numpy()]
    pca = decomposition.PCA(
        n_components=min(num_components, *train.shape),
        svd_solver="randomized",
        random_state=key_to_seed(seed, "pixel-components") % 2**32,
    )
    pca.fit(train)
    return torch.from_numpy(np.asarray(pca.transform(pixels), dtype=np.float32))


def standardised(features: Tensor, held_out: Tensor) -> Tensor:
    """``features`` (N, ...) as float64 (N, d), with the mean and deviation of the rows not ``held_out``."""
    x = features.detach().cpu().double().flatten(1)
    if held_out.shape != (len(x),):
        raise ValueError(f"held_out must be ({len(x)},), not {tuple(held_out.shape)}")
    mean, std = mean_and_std(x[~held_out.cpu()])
    return (x - mean) / std


def checked_labels(labels: Tensor, names: Sequence[str], num_rows: int) -> Tensor:
    """``labels`` (num_rows, K) as float64 on the CPU; ValueError where shapes disagree or names repeat."""
    if labels.shape != (num_rows, len(names)):
        raise ValueError(f"labels must be ({num_rows}, {len(names)}), not {tuple(labels.shape)}")
    if len(set(names)) != len(names):
        raise ValueError("attribute names must differ")
    return labels.detach().cpu().double()


def too_few(label: Tensor, held_out: Tensor) -> str:
    """Why the attribute ``label`` (N,), NaN where unknown, cannot be fitted or scored; "" where it can."""
    for part_name, part in (("training", ~held_out), ("held-out", held_out)):
        for kind, examples in (("positive", label > 0), ("negative", label <= 0)):
            count = int((examples & part).sum())
            if count < MIN_EXAMPLES:
                return f"{count} {kind} in the {part_name} part, at least {MIN_EXAMPLES} needed"
    return ""
