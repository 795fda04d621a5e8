"""Reads the Diff-AE authors' files and turns them into configs and states of our modules.

Four kinds of file exist, told apart by what they hold: the autoencoder's checkpoint, the latent
DPM's (which contains the autoencoder), the attribute classifier's, and ``latent.pkl``, the codes of
the training set with their mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rdm_cli.errors import CheckpointError
from rdm_cli.methods.attribute_names import CELEBA_ATTRIBUTES
from rdm_cli.methods.diffae.config import DiffAEConfig
from rdm_cli.methods.diffae.model import DiffAE
from rdm_cli.methods.diffae.official_config import autoencoder_config, image_size, latent_config
from rdm_cli.methods.official.names import latent_name, model_name, renamed
from rdm_cli.methods.official.pairs import naming
from rdm_cli.methods.official.reading import load_official
from rdm_cli.models.latent_mlp import LatentMLP, LatentMLPConfig

Kind = Literal["autoencoder", "latent DPM", "classifier", "codes"]
_LATENT = "latent_net."
_STATISTICS = ("conds_mean", "conds_std")
_CLASSIFIER = tuple(
    f"{net}.{kind}" for net in ("classifier", "ema_classifier") for kind in ("weight", "bias")
)


@dataclass(frozen=True, kw_only=True)
class OfficialDiffAE:
    """The authors' files, converted. d is the width of z.

    ``method_state``: EMA weights under the names of :class:`DiffAE`. ``prior_state``: EMA weights of
    the latent DPM, which denoises z standardised by ``z_mean`` and ``z_std``, both (d,), on the
    schedule ``LATENT_CONSTANT``. ``classifier``: weight (40, d) and bias (40,) on standardised z, the
    raw ones, as the reference uses; row i is ``attribute_names[i]``. What no file holds is None.
    """

    config: DiffAEConfig
    method_state: dict[str, Tensor]
    prior_config: LatentMLPConfig | None = None
    prior_state: dict[str, Tensor] | None = None
    z_mean: Tensor | None = None
    z_std: Tensor | None = None
    classifier: tuple[Tensor, Tensor] | None = None
    attribute_names: tuple[str, ...] = CELEBA_ATTRIBUTES


@dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    kind: Kind
    state: Mapping[str, Tensor]
    hyper: Mapping[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix``, without it."""
        return {n.removeprefix(prefix): t for n, t in self.state.items() if n.startswith(prefix)}


def read_diffae(files: Sequence[Path], *, size: int | None = None) -> OfficialDiffAE:
    """Convert the authors' ``files``, given in any order.

    ``size`` is the side of the images in pixels, needed only where no file says it. Raises
    CheckpointError, naming the file and what is wrong with it: a file of no known kind, two of one
    kind, no autoencoder, files of different models, a parameter missing, unknown or of another shape.
    """
    by_kind: dict[Kind, _File] = {}
    for path in files:
        file = _open(Path(path))
        if file.kind in by_kind:
            raise CheckpointError(f"{by_kind[file.kind].path} and {path} are both of kind {file.kind!r}")
        by_kind[file.kind] = file
    latent = by_kind.get("latent DPM")
    base = by_kind.get("autoencoder") or latent
    if base is None:
        names = ", ".join(str(file.path) for file in by_kind.values())
        raise CheckpointError(
            f"{names or 'no files'}: the autoencoder is missing",
            hint="add the last.ckpt of the autoencoder or of its latent DPM",
        )
    if latent is not None and latent is not base:
        _check_same_autoencoder(base, latent)
    config, method_state = _autoencoder(base, size)
    prior_config, prior_state = (None, None) if latent is None else _prior(latent, config)
    z_mean, z_std = _statistics(list(by_kind.values()), config)
    return OfficialDiffAE(
        config=config,
        method_state=method_state,
        prior_config=prior_config,
        prior_state=prior_state,
        z_mean=z_mean,
        z_std=z_std,
        classifier=_classifier(by_kind.get("classifier"), config),
    )


def _open(path: Path) -> _File:
    content = load_official(path)
    with naming(path):
        hyper = content.get("hyper_parameters")
        state = content.get("state_dict")
        if state is None and all(name in content for name in _STATISTICS):
            kind: Kind = "codes"
            state = {name: content[name] for name in _STATISTICS}
        elif not isinstance(state, Mapping):
            raise CheckpointError("holds neither a state_dict nor the statistics of codes")
        elif other := [name for name in state if not isinstance(name, str)]:
            raise CheckpointError(f"{other[0]!r} is no name of a parameter")
        elif any(name.startswith("classifier.") for name in state):
            kind = "classifier"
            _check_names(state, (*_STATISTICS, *_CLASSIFIER), ())
        elif any(name.startswith("ema_model.") for name in state):
            kind = "latent DPM" if any(n.startswith(f"ema_model.{_LATENT}") for n in state) else "autoencoder"
            _check_names(state, ("x_T", *_STATISTICS), ("model.", "ema_model."))
        else:
            raise CheckpointError(
                "its state_dict holds neither an averaged model (ema_model) nor a classifier"
            )
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise CheckpointError(f"{name} is a {type(value).__name__}, not a tensor")
    return _File(path=path, kind=kind, state=state, hyper=hyper if isinstance(hyper, Mapping) else {})


def _check_names(state: Mapping[str, Any], names: Sequence[str], prefixes: tuple[str, ...]) -> None:
    for name in state:
        if name not in names and not name.startswith(prefixes or ("\0",)):
            raise CheckpointError(f"{name} is nothing that the authors' files hold")


def method_state(file_state: Mapping[str, Tensor], config: DiffAEConfig) -> dict[str, Tensor]:
    """``file_state`` (official names, no prefix, no latent net) under our names, checked in full."""
    with torch.device("meta"):
        expected = DiffAE(config).state_dict()
    return renamed(file_state, {name: model_name(name) for name in file_state}, expected)


def _autoencoder(file: _File, size: int | None) -> tuple[DiffAEConfig, dict[str, Tensor]]:
    with naming(file.path):
        official = {n: t for n, t in file.part("ema_model.").items() if not n.startswith(_LATENT)}
        raw = {n for n in file.part("model.") if not n.startswith(_LATENT)}
        if raw and raw != set(official):
            name = min(raw ^ set(official))
            raise CheckpointError(f"{name} is in only one of its model and its average")
        side = image_size(file.state.get("x_T"), file.hyper, size)
        config = autoencoder_config(official, file.hyper, side)
        return config, _plain(method_state(official, config))


def _prior(file: _File, config: DiffAEConfig) -> tuple[LatentMLPConfig, dict[str, Tensor]]:
    with naming(file.path):
        official = file.part(f"ema_model.{_LATENT}")
        prior = latent_config(official, file.hyper)
        _check_width(prior.z_width, config)
        with torch.device("meta"):
            expected = LatentMLP(prior).state_dict()
        names = {name: latent_name(name, prior.num_layers) for name in official}
        return prior, _plain(renamed(official, names, expected))


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().float().contiguous() for name, tensor in state.items()}


def _check_width(width: int, config: DiffAEConfig) -> None:
    if width != config.encoder.z_width:
        raise CheckpointError(f"is for z of {width} values, the autoencoder's has {config.encoder.z_width}")


def _check_same_autoencoder(autoencoder: _File, latent: _File) -> None:
    """A latent DPM is of use only with the encoder whose codes it learned."""
    ours, its = autoencoder.part("ema_model."), latent.part("ema_model.")
    for name, tensor in ours.items():
        if name not in its or not tensor.equal(its[name]):
            raise CheckpointError(
                f"{latent.path} belongs to another autoencoder than {autoencoder.path} ({name} differs)"
            )


def _statistics(files: Sequence[_File], config: DiffAEConfig) -> tuple[Tensor | None, Tensor | None]:
    """Mean and std of z, (d,) each, of the first file that has them; all that have must agree."""
    found: tuple[Path, Tensor, Tensor] | None = None
    for file in files:
        present = [name for name in _STATISTICS if name in file.state]
        with naming(file.path):
            if not present:
                if file.kind == "autoencoder":
                    continue
                raise CheckpointError(f"{_STATISTICS[0]} is missing")
            if len(present) == 1:
                raise CheckpointError(f"it has {present[0]} and not the other of {_STATISTICS}")
            mean, std = (file.state[name].detach().float().flatten() for name in _STATISTICS)
            _check_width(len(mean), config)
            _check_width(len(std), config)
        if found is None:
            found = (file.path, mean, std)
        elif not (mean.allclose(found[1], rtol=1e-4, atol=1e-5) and std.allclose(found[2], rtol=1e-4)):
            raise CheckpointError(f"{found[0]} and {file.path} disagree about the mean and std of z")
    return (None, None) if found is None else (found[1], found[2])


def _classifier(file: _File | None, config: DiffAEConfig) -> tuple[Tensor, Tensor] | None:
    if file is None:
        return None
    with naming(file.path):
        for name in _CLASSIFIER[:2]:
            if name not in file.state:
                raise CheckpointError(f"{name} is missing")
        weight, bias = (file.state[name].detach().float().contiguous() for name in _CLASSIFIER[:2])
        num = len(CELEBA_ATTRIBUTES)
        if weight.ndim != 2 or len(weight) != num or bias.shape != (num,):
            shapes = f"{tuple(weight.shape)} and {tuple(bias.shape)}"
            raise CheckpointError(f"its classifier is of {shapes}, not one of CelebA's {num} attributes")
        _check_width(weight.shape[1], config)
        return weight, bias
