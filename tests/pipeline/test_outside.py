"""An image that is unlike those of a bundle's training is told, once, with what helps."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rdm_cli import Pipeline, open_pipeline
from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.writing import add_domain
from rdm_cli.errors import UsageError
from rdm_cli.methods.domain import Domain, fit_domain
from rdm_cli.pipeline.inspection import check


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bundle, tmp_path / "tiny")


def grey(num: int) -> torch.Tensor:
    """Images that differ little from each other."""
    gen = torch.Generator().manual_seed(0)
    return 0.1 * torch.rand(num, 3, 16, 16, generator=gen)


def opened(folder: Path, told: list[tuple[str, str]]) -> Pipeline:
    return open_pipeline(folder, on_remark=lambda name, text: told.append((name, text)), batch_size=64)


def test_said_once_of_the_first_image_outside(copy: Path) -> None:
    told: list[tuple[str, str]] = []
    pipeline = opened(copy, told)
    domain = fit_domain(pipeline.encode(grey(600), with_x_T=False).z)
    assert domain is not None and not told  # a bundle that does not say what it knows says nothing
    add_domain(pipeline.bundle, domain)
    pipeline = opened(copy, told)
    pipeline.encode(grey(8), with_x_T=False)
    assert not told
    black_and_white = torch.cat([grey(2), torch.ones(1, 3, 16, 16), -torch.ones(1, 3, 16, 16)])
    pipeline.encode(black_and_white, names=["a", "b", "c", "d"], with_x_T=False)
    ((name, text),) = told
    assert name == "c" and "this image and 1 more of 12 are unlike those that tiny was trained on" in text
    assert "rdm train all" in text
    replace(pipeline, batch_size=2).encode(black_and_white, with_x_T=False)
    assert len(told) == 1


def test_stored_and_opened_again_and_the_digest_stays(copy: Path) -> None:
    bundle = open_bundle(copy)
    before = bundle.digest
    gen = torch.Generator().manual_seed(1)
    domain = fit_domain(torch.randn(500, 8, generator=gen))
    assert domain is not None
    add_domain(bundle, domain)
    again = open_bundle(copy)
    assert again.digest == before and again.domain is not None
    z = torch.randn(20, 8, generator=gen)
    torch.testing.assert_close(again.domain.distances(z), domain.distances(z), rtol=2e-3, atol=2e-3)
    assert again.domain.limit == domain.limit
    assert dict(check(str(copy)))["domain"] is None


def test_a_damaged_domain_is_told_and_the_networks_work(copy: Path) -> None:
    wide = Domain(mean=torch.zeros(9), whitening=torch.eye(9), limit=1.0)
    add_domain(open_bundle(copy), wide)
    told: list[tuple[str, str]] = []
    opened(copy, told).encode(grey(2), with_x_T=False)
    ((_, text),) = told
    assert "made for codes of 9 values" in text
    (copy / "domain" / "domain.safetensors").write_bytes(b"no tensors")
    told.clear()
    opened(copy, told).encode(grey(2), with_x_T=False)
    assert len(told) == 1 and "domain.safetensors" in told[0][1]
    assert dict(check(str(copy)))["domain"] is not None


def test_nothing_is_put_into_a_shipped_bundle() -> None:
    with pytest.raises(UsageError, match="read-only"):
        add_domain(
            open_bundle("avatars64-diffae"), Domain(mean=torch.zeros(1), whitening=torch.eye(1), limit=1.0)
        )
