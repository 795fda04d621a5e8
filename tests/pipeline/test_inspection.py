"""Looking into bundles: facts, and what is out of order."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.listing import summary
from rdm_cli.bundles.reading import WEIGHTS
from rdm_cli.errors import BundleError
from rdm_cli.pipeline.inspection import check, details, read_card


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def test_facts(copy: Path) -> None:
    (copy / ".prior-left-by-a-kill").mkdir()
    facts = details(str(copy))
    bundle = open_bundle(str(copy))
    assert facts["digest"] == bundle.digest
    assert (facts["image_size"], facts["z_shape"], facts["sampling_steps"]) == (16, [8], 5)
    assert facts["timesteps"] == bundle.model.sampling.spacing == "stride"
    assert facts["unet_parameters"] == sum(p.numel() for p in bundle.model.unet.parameters())
    assert facts["prior_parameters"] == sum(p.numel() for p in bundle.prior.parameters())
    assert facts["attributes"] == ["smiling", "glasses", "hat"]
    short = summary(copy)
    assert short["parts"] == facts["parts"] == ["attributes", "encoder", "prior", "scheduler", "unet"]
    assert (short["method"], short["image_size"]) == ("diffae", 16)
    num_bytes = sum(p.stat().st_size for p in copy.rglob("*") if p.is_file())
    assert short["megabytes"] == pytest.approx(num_bytes / 1e6, abs=0.05)


def test_a_good_bundle_checks_out(tiny_bundle: Path) -> None:
    assert list(check(str(tiny_bundle))) == [
        (part, None) for part in ("networks", "round trip", "prior", "attributes", "model card")
    ]


def test_what_is_out_of_order_is_named(copy: Path) -> None:
    (copy / "README.md").unlink()
    (copy / "prior" / WEIGHTS).write_bytes(b"")
    tensors = load_file(copy / "unet" / WEIGHTS)
    tensors["conv_out.bias"][0] = torch.nan
    save_file(tensors, copy / "unet" / WEIGHTS)
    found = dict(check(str(copy)))
    assert found["networks"] == "unet.conv_out.bias holds values that are not finite"
    assert found["round trip"] is not None and "finite" in found["round trip"]
    assert found["prior"] is not None and "damaged weights" in found["prior"]
    assert found["attributes"] is None
    assert found["model card"] == "README.md is missing"
    with pytest.raises(BundleError, match="no model card"):
        read_card(str(copy))
    (copy / "unet" / WEIGHTS).unlink()
    ((part, problem),) = check(str(copy))
    assert part == "networks" and problem is not None and "missing" in problem


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        list(check(str(tmp_path / "nosuch")))
