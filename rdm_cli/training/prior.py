"""Training the latent DDIM on codes: a generator of records; the caller logs and stops.

As in :mod:`rdm_cli.training.loop`, step k is a function of (settings, seed, k) and of the weights
alone, so a run repeats bit for bit. The published recipe (AdamW at a constant 1e-4 with weight decay
0.01, 101 million samples or more) is :data:`PUBLISHED`; the defaults suit minutes on a CPU.

Where codes have labels, the network is told those of each code: all of them in three of ten cases, none in
one, and else each with a probability that is drawn anew for each code. So it can be asked with all labels,
with some, and with none.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rdm_cli.kernels.randomness import key_to_seed, keyed_generator
from rdm_cli.kernels.spacing import even_shares
from rdm_cli.kernels.standardise import mean_and_std
from rdm_cli.priors.latent_ddim import LatentDDIM, LatentDDIMConfig
from rdm_cli.training.batches import BatchOrder, stratified_timesteps
from rdm_cli.training.checkpoint import Progress, load_checkpoint, load_header, save_checkpoint
from rdm_cli.training.ema import WeightAverage
from rdm_cli.training.loop import Settings, make_optimizer

NUM_PROBES = 1024
TOLD_NONE, TOLD_ALL = 0.1, 0.3  # of the codes of a step


@dataclass(frozen=True, kw_only=True)
class PriorSettings:
    """What a run is made of besides codes and network.

    ``num_samples`` counts codes seen. ``held_out_fraction`` of the codes is never trained on; every
    ``report_every_steps`` their loss is measured beside that of as many codes that are.
    """

    num_samples: int = 2_000_000
    batch_size: int = 256
    lr: float = 5e-4
    weight_decay: float = 0.01
    warmup_steps: int = 200
    decay_fraction: float = 0.5
    ema_decay: float = 0.999
    clip_norm: float = 1.0
    held_out_fraction: float = 0.05
    report_every_steps: int = 250
    optimizer: Literal["adam", "muon"] = "adam"
    timesteps: Literal["uniform", "log-snr"] = "uniform"

    def __post_init__(self) -> None:
        if min(self.num_samples, self.batch_size, self.report_every_steps) < 1:
            raise ValueError("samples, batch size and report interval must be at least 1")
        if not 0 <= self.held_out_fraction < 1:
            raise ValueError(f"the held-out fraction must lie in [0, 1), not {self.held_out_fraction}")

    @property
    def num_steps(self) -> int:
        """Optimiser steps in the run."""
        return -(-self.num_samples // self.batch_size)

    def optimisation(self, seed: int) -> Settings:
        """The same figures, as the shared loop's optimiser and learning rate read them."""
        return Settings(
            batch_size=self.batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            warmup_steps=self.warmup_steps,
            decay_fraction=self.decay_fraction,
            ema_decay=self.ema_decay,
            flip=False,
            seed=seed,
            clip_norm=self.clip_norm,
            optimizer=self.optimizer,
            timesteps=self.timesteps,
        )


PUBLISHED = PriorSettings(
    num_samples=101_000_000, lr=1e-4, warmup_steps=0, decay_fraction=0.0, ema_decay=0.9999
)


@dataclass(frozen=True, kw_only=True)
class PriorRecord:
    """One optimiser step, as it is logged. ``loss`` is the mean over this step's codes.

    ``seen_loss`` and ``held_out_loss`` (None between reports, and None where nothing is held out) are
    those of the averaged weights, on the same timesteps and noise for both and in every report: where
    the second rises while the first falls, the prior learns the codes by heart.
    """

    step: int
    num_steps: int
    num_samples: int
    loss: float
    lr: float
    elapsed_seconds: float
    seen_loss: float | None = None
    held_out_loss: float | None = None


class PriorTraining:
    """A run over codes ``z`` (N, d): iterate :meth:`steps`, then take :meth:`result`.

    ``labels`` (N, K) are 1, 0, and NaN where unknown, in the order of the configuration's K attributes.
    Raises ValueError where there are too few codes, codes of another width than the network's, or labels of
    another shape.
    """

    def __init__(
        self,
        z: Tensor,
        config: LatentDDIMConfig,
        *,
        settings: PriorSettings,
        seed: int,
        device: torch.device | str = "cpu",
        labels: Tensor | None = None,
    ) -> None:
        if z.ndim != 2 or z.shape[1] != config.network.z_width:
            raise ValueError(f"codes must be (N, {config.network.z_width}), not {tuple(z.shape)}")
        if labels is None:
            labels = torch.full((len(z), len(config.attributes)), float("nan"))
        if labels.shape != (len(z), len(config.attributes)):
            raise ValueError(
                f"labels must be ({len(z)}, {len(config.attributes)}), not {tuple(labels.shape)}"
            )
        num_held_out = round(settings.held_out_fraction * len(z))
        order = torch.randperm(len(z), generator=keyed_generator(seed, "prior-held-out"))
        held_out, seen = order[:num_held_out], order[num_held_out:]
        self.settings, self.seed = settings, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key_to_seed(seed, "prior-init"))
            self.prior = LatentDDIM(config)
        z_mean, z_std = mean_and_std(z[seen].float().cpu())
        self.prior.z_mean.copy_(z_mean)
        self.prior.z_std.copy_(z_std)
        self.prior.to(device)
        normalised = self.prior.normalise(z.to(device, torch.float32))
        self._seen, self._held_out = normalised[seen.to(device)], normalised[held_out.to(device)]
        answers = (2 * labels.float().cpu() - 1).nan_to_num(0.0)
        self._said_of_seen, self._said_of_held_out = answers[seen], answers[held_out]
        self._average = WeightAverage(self.prior, settings.ema_decay)
        self._optimizer = make_optimizer(self.prior, settings.optimisation(seed))
        self._progress = Progress()
        self._run: dict[str, Any] = {
            "settings": asdict(settings),
            "config": asdict(config),
            "seed": seed,
            "codes": _digest(z, labels),
        }

    def save(self, folder: Path) -> None:
        """Write a checkpoint into ``folder``: all that the rest depends on, except codes and labels."""
        save_checkpoint(
            folder,
            model=self.prior,
            average=self._average,
            optimizer=self._optimizer,
            progress=self._progress,
            settings=json.loads(json.dumps(self._run)),
        )

    def resume(self, folder: Path) -> bool:
        """Go on from the checkpoint in ``folder``; False, and nothing changed, where it is of another run.

        Another run has other codes, labels, settings or another seed. Raises CheckpointError where there is
        no checkpoint or it is damaged.
        """
        if load_header(folder).settings != json.loads(json.dumps(self._run)):
            return False
        found = load_checkpoint(folder)
        found.restore(model=self.prior, average=self._average, optimizer=self._optimizer)
        self._progress = found.progress
        return True

    @property
    def num_steps_done(self) -> int:
        """Optimiser steps so far, those before a checkpoint included."""
        return self._progress.step

    def steps(self) -> Iterator[PriorRecord]:
        """Train, yielding after each step; after :meth:`resume`, from where that left off."""
        settings, optimizer = self.settings, self._optimizer
        optimisation = settings.optimisation(self.seed)
        order = BatchOrder(num_items=len(self._seen), batch_size=settings.batch_size, seed=self.seed)
        schedule = self.prior.config.schedule
        even = None if settings.timesteps == "uniform" else even_shares(schedule.alpha_bar(), "log-snr")
        begun = time.monotonic() - self._progress.elapsed_seconds
        self.prior.train()
        for step in range(self._progress.step, settings.num_steps):
            lr = optimisation.lr_at(step, step / settings.num_steps)
            for group in optimizer.param_groups:
                group["lr"] = lr
            generator = keyed_generator(self.seed, "prior-batch", step)
            rows = order.indices(step)
            z_0 = self._seen[rows]
            t = stratified_timesteps(len(z_0), schedule.num_train_steps, generator, even)
            eps = torch.randn(z_0.shape, generator=generator)
            given = [t, eps]
            if self.prior.attributes:
                given.append(what_is_told(self._said_of_seen[rows], generator))
            loss = self.prior(z_0, *(value.to(z_0.device) for value in given)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.prior.parameters(), settings.clip_norm)
            optimizer.step()
            self._average.update(self.prior)
            self._progress = Progress(
                step=step + 1,
                num_images=(step + 1) * settings.batch_size,
                elapsed_seconds=time.monotonic() - begun,
            )
            due = (step + 1) % settings.report_every_steps == 0 or step + 1 == settings.num_steps
            seen_loss, held_out_loss = self._probe() if due else (None, None)
            yield PriorRecord(
                step=step + 1,
                num_steps=settings.num_steps,
                num_samples=self._progress.num_images,
                loss=float(loss.detach()),
                lr=lr,
                elapsed_seconds=self._progress.elapsed_seconds,
                seen_loss=seen_loss,
                held_out_loss=held_out_loss,
            )

    @torch.no_grad()
    def _probe(self) -> tuple[float | None, float | None]:
        """(seen, held-out) loss of the averaged weights."""
        if len(self._held_out) == 0:
            return None, None
        prior = self.result()
        rows = torch.arange(max(NUM_PROBES, len(self._held_out))) % len(self._held_out)
        generator = keyed_generator(self.seed, "prior-probe")
        t = stratified_timesteps(len(rows), prior.config.schedule.num_train_steps, generator)
        t = t[torch.randperm(len(t), generator=generator)]
        eps = torch.randn(len(rows), prior.z_width, generator=generator)
        noise = (t.to(prior.z_mean.device), eps.to(prior.z_mean.device))
        rows_seen = rows % min(len(self._held_out), len(self._seen))
        losses = []
        for z_0, answers in (
            (self._seen[rows_seen], self._said_of_seen[rows_seen]),
            (self._held_out[rows], self._said_of_held_out[rows]),
        ):
            said = [answers.to(z_0.device)] if prior.attributes else []
            losses.append(float(prior(z_0, *noise, *said).mean()))
        return losses[0], losses[1]

    def result(self) -> LatentDDIM:
        """The prior as it stands, with averaged weights, in eval mode; the run itself stays as it is."""
        device = self.prior.z_mean.device
        with torch.random.fork_rng(devices=[]):
            prior = LatentDDIM(self.prior.config).to(device)
        prior.load_state_dict({**self.prior.state_dict(), **self._average.averages})
        return prior.eval()


def _digest(*tensors: Tensor) -> str:
    """SHA-256 of their values, in fp32."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def what_is_told(said: Tensor, generator: torch.Generator) -> Tensor:
    """What a step tells the network of all that can be ``said`` (B, K) of its codes: the same, or 0."""
    num, width = said.shape
    case, chance = torch.rand(2, num, 1, generator=generator)
    chance = torch.where(case < TOLD_NONE, 0.0, torch.where(case < TOLD_NONE + TOLD_ALL, 1.0, chance))
    return said * (torch.rand(num, width, generator=generator) < chance)


def train_prior(
    z: Tensor,
    config: LatentDDIMConfig,
    *,
    settings: PriorSettings,
    seed: int,
    device: torch.device | str = "cpu",
    labels: Tensor | None = None,
) -> LatentDDIM:
    """Train on codes ``z`` (N, d) without looking on; see :class:`PriorTraining` for the records."""
    training = PriorTraining(z, config, settings=settings, seed=seed, device=device, labels=labels)
    for _ in training.steps():
        pass
    return training.result()
