"""From what the user asks for to a plan."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.config_json import to_json
from rdm_cli.data.images.pixels import MAX_PIXELS
from rdm_cli.errors import BundleError, CheckpointError, UsageError
from rdm_cli.methods.diffae.presets import PRESETS
from rdm_cli.methods.lrdm.presets import PRESETS as LRDM_PRESETS
from rdm_cli.methods.pdae.presets import PRESETS as PDAE_PRESETS
from rdm_cli.training.checkpoint import FILE_NAME, Progress, save_checkpoint
from rdm_cli.training.ema import WeightAverage
from rdm_cli.training.loop import Budget, Settings
from rdm_cli.training.run.plan import RunPlan, TrainOptions, make_accelerator, make_plan


def plan(
    tmp_path: Path,
    *,
    changes: dict[str, Any] | None = None,
    num_processes: int = 1,
    on_cpu: bool = True,
    command: str = "rdm train",
    **options: Any,
) -> RunPlan:
    """A plan for images in ``tmp_path/faces``."""
    usual: dict[str, Any] = {
        "method": "diffae", "folder": tmp_path / "faces", "bundle": tmp_path / "out",
        "run_folder": tmp_path / "run", "preset": "small32",
    }  # fmt: skip
    asked = TrainOptions(**usual | (changes or {}) | options)
    return make_plan(asked, num_processes=num_processes, on_cpu=on_cpu, command=command)


def record(planned: RunPlan, **settings: Any) -> None:
    """A checkpoint as a run of ``planned`` would leave; the networks are of no interest here."""
    module = nn.Linear(1, 1)
    values = {
        "method": "diffae", "config": to_json(planned.config), "settings": to_json(planned.settings),
        "budget": to_json(planned.budget), "num_items": 3,
    }  # fmt: skip
    save_checkpoint(
        planned.run_folder,
        model=module,
        average=WeightAverage(module, 0.9),
        optimizer=torch.optim.AdamW(module.parameters()),
        progress=Progress(step=2, num_images=64),
        settings={name: value for name, value in (values | settings).items() if value is not None},
    )


def test_a_preset_is_its_networks_and_its_recipe(tmp_path: Path) -> None:
    preset = PRESETS["small32"]
    planned = plan(tmp_path)
    assert planned.config == preset.config
    assert planned.budget == Budget(num_images=preset.recipe.num_images)
    recipe = dataclasses.asdict(preset.recipe)
    del recipe["num_images"]
    assert recipe.items() <= to_json(planned.settings).items()
    assert planned.settings.num_workers == 0
    assert plan(tmp_path, on_cpu=False).settings.num_workers == 4


def test_an_unknown_preset_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no preset 'smal64'") as caught:
        plan(tmp_path, preset="smal64")
    assert caught.value.hint is not None and "small64" in caught.value.hint


def test_changes_replace_single_settings(tmp_path: Path) -> None:
    usual = plan(tmp_path).settings
    changed = plan(tmp_path, changes={"lr": 0.5, "flip": False, "num_accumulations": 2}).settings
    assert changed == dataclasses.replace(usual, lr=0.5, flip=False, num_accumulations=2)


def test_budgets(tmp_path: Path) -> None:
    assert plan(tmp_path, num_steps=10).budget == Budget(num_images=320)
    assert plan(tmp_path, num_steps=10, changes={"batch_size": 4}).budget == Budget(num_images=40)
    assert plan(tmp_path, num_images=77).budget == Budget(num_images=77)
    minutes = plan(tmp_path, minutes=2.0).budget
    assert minutes.fraction(Progress(num_images=10**9, elapsed_seconds=60)) == 0.5
    assert minutes.fraction(Progress(elapsed_seconds=600)) == 1.0


@pytest.mark.parametrize(("batch", "processes", "passes"), [(9, 2, 1), (6, 1, 4), (12, 3, 8)])
def test_a_batch_that_cannot_be_shared_is_refused(
    tmp_path: Path, batch: int, processes: int, passes: int
) -> None:
    with pytest.raises(UsageError, match=f"batch of {batch} cannot be shared by {processes} processes"):
        plan(tmp_path, num_processes=processes, changes={"batch_size": batch, "num_accumulations": passes})


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(UsageError, match="fp16 needs a GPU; on a CPU, use bf16 or no"):
        make_accelerator(device="cpu", threads=None, mixed_precision="fp16", log=None)


def test_a_network_in_parts_is_refused_before_processes_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match="ACCELERATE_USE_FSDP: each process holds the whole network"):
        make_accelerator(device="cpu", threads=None, mixed_precision="no", log=None)


def test_starting_from_a_bundle_takes_its_networks_and_the_preset_s_recipe(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    planned = plan(tmp_path, init_from=str(tiny_bundle))
    assert planned.config == open_bundle(str(tiny_bundle)).model.config  # type: ignore[attr-defined]
    assert planned.settings == plan(tmp_path).settings
    with pytest.raises(BundleError, match="no such bundle"):
        plan(tmp_path, init_from="nowhere")


def test_a_resumed_run_keeps_what_it_recorded(tmp_path: Path) -> None:
    first = plan(tmp_path, preset="small32", num_steps=7, changes={"batch_size": 4, "lr": 0.1, "seed": 9})
    record(first)
    again = plan(tmp_path, preset="small64", resume=True)
    assert (again.config, again.settings, again.budget) == (first.config, first.settings, first.budget)


def test_on_resuming_images_change_the_budget_alone(tmp_path: Path) -> None:
    first = plan(tmp_path, changes={"batch_size": 4}, minutes=3.0)
    record(first)
    again = plan(tmp_path, resume=True, num_images=1234)
    assert again.budget == Budget(num_images=1234)
    assert (again.config, again.settings) == (first.config, first.settings)
    slower = plan(tmp_path, resume=True, changes={"lr": 1e-6})
    assert slower.settings == dataclasses.replace(first.settings, lr=1e-6)
    assert slower.budget == first.budget


def test_resuming_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint to resume from; start without --resume"):
        plan(tmp_path, resume=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "pdae"}, "a run of pdae, not of diffae"),
        ({"budget": None}, "does not say its budget"),
        ({"config": {"unet": 3}}, "cannot go on with"),
        ({"settings": {"lr": "fast"}}, "cannot go on with"),
    ],
)
def test_a_run_of_another_kind_is_one_line(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    record(plan(tmp_path), **settings)
    with pytest.raises(CheckpointError, match=said):
        plan(tmp_path, resume=True)


def test_fit_and_arithmetic_are_kept_unless_named_again(tmp_path: Path) -> None:
    usual = {
        "fit": "crop", "mixed_precision": "no", "max_pixels": MAX_PIXELS, "value_range": None,
        "weights": "fp32", "latents": None,
    }  # fmt: skip
    begun = {
        "fit": "pad", "mixed_precision": "bf16", "max_pixels": 1000, "value_range": "0,4095",
        "weights": "fp16", "latents": "l",
    }  # fmt: skip
    on_disk = begun | {"latents": Path("l")}

    def kept(**named: Any) -> dict[str, Any]:
        again = plan(tmp_path, method="lrdm", preset=None, resume=True, **named)
        return {name: getattr(again, name) for name in usual}

    first = plan(tmp_path)
    assert {name: getattr(first, name) for name in usual} == usual
    lrdm = {"method": "lrdm", "config": to_json(LRDM_PRESETS["small32"].config)}
    record(first, **lrdm, **begun)
    assert kept() == on_disk
    named = {"fit": "crop", "max_pixels": 7, "weights": "fp32", "latents": Path("other")}
    assert kept(**named) == on_disk | named
    (tmp_path / "run" / FILE_NAME).unlink()
    record(first, **lrdm)  # an early checkpoint says none of them
    assert kept() == usual


def test_options_are_one_record_that_nothing_changes(tmp_path: Path) -> None:
    options = TrainOptions(method="diffae", folder=tmp_path, bundle=tmp_path, run_folder=tmp_path, lr=0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.lr = 1.0  # type: ignore[misc]
    assert options.given(["lr", "flip", "clip_norm"]) == {"lr": 0.0}  # 0 is said, None is not
    recipe = {field.name for field in dataclasses.fields(Settings)}
    of_presets_alone = {"clip_norm", "optimizer", "timesteps"}
    assert recipe - {field.name for field in dataclasses.fields(TrainOptions)} == of_presets_alone


def test_another_model_to_train_around_is_refused_by_its_option(tmp_path: Path) -> None:
    first = plan(tmp_path)
    config = to_json(PDAE_PRESETS["small32"].config)
    record(first, method="pdae", config=config, pretrained="a-dpm")
    with pytest.raises(UsageError, match=r"--dpm another: the run in .* began with a-dpm, and keeps it"):
        plan(tmp_path, method="pdae", preset=None, resume=True, pretrained="another")


def test_a_resumed_run_keeps_what_it_began_with(tmp_path: Path) -> None:
    first = plan(tmp_path, preset="small32", command="rdm train a")
    record(first, preset="small32", init_from="a", commands=list(first.commands))
    again = plan(tmp_path, resume=True, preset=None, command="rdm train a --resume")
    assert again.preset == "small32" and again.command == "rdm train a --resume"
    assert again.commands == ("rdm train a", "rdm train a --resume")
    said_again = plan(tmp_path, resume=True, preset="small32", init_from="a", command="rdm train a")
    assert said_again.commands == first.commands
    began = r"--preset small64: the run in .*run began with small32, and keeps it"
    with pytest.raises(UsageError, match=began):
        plan(tmp_path, resume=True, preset="small64")
    with pytest.raises(UsageError, match=r"--init-from b: the run in .* began with a, and keeps it"):
        plan(tmp_path, resume=True, preset=None, init_from="b")


def test_what_would_be_destroyed_or_fail_in_the_end_is_refused_at_once(tmp_path: Path, faces: Path) -> None:
    with pytest.raises(UsageError, match="something lies here that is no bundle"):
        plan(tmp_path, bundle=faces)
    with pytest.raises(UsageError, match="sheets would lie among the images"):
        plan(tmp_path, run_folder=faces / "runs" / "x")
    (tmp_path / "file").write_text("")
    for place in ({"run_folder": tmp_path / "file" / "run"}, {"bundle": tmp_path / "file" / "a" / "b"}):
        with pytest.raises(UsageError, match="file: nothing can be written here"):
            plan(tmp_path, **place)
    (tmp_path / "out").mkdir()
    assert plan(tmp_path).bundle == tmp_path / "out"  # an empty folder is free to use


def test_a_bundle_that_is_there_is_the_resumed_run_s_alone(tmp_path: Path, tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="tiny: a bundle lies here already; name another --output"):
        plan(tmp_path, bundle=tiny_bundle)
    for source in (tiny_bundle, tiny_bundle / "unet"):
        with pytest.raises(UsageError, match="tiny: training starts from this bundle"):
            plan(tmp_path, bundle=tiny_bundle, init_from=str(source))
    record(plan(tmp_path))
    assert plan(tmp_path, bundle=tiny_bundle, resume=True).bundle == tiny_bundle
