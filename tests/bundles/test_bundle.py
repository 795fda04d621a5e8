"""Bundles: what is saved is opened, damage is named in one line, and folders appear whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rdm_cli.bundles import places as bundle_folders
from rdm_cli.bundles import writing as bundle_saving
from rdm_cli.bundles.bundle import Bundle, open_bundle
from rdm_cli.bundles.reading import WEIGHTS
from rdm_cli.bundles.writing import add_directions, add_prior, save_bundle
from rdm_cli.data.io import atomic
from rdm_cli.errors import BundleError, RdmError, UsageError
from rdm_cli.methods.directions import Directions
from rdm_cli.models.latent_mlp import LatentMLPConfig
from rdm_cli.priors.latent_ddim import LatentDDIM, LatentDDIMConfig


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def resave(bundle: Bundle, folder: Path, dtype: torch.dtype = torch.float32) -> Bundle:
    save_bundle(
        folder, bundle.method, bundle.model, card="# other\n", prior=bundle.prior,
        directions=bundle.directions, dtype=dtype,
    )  # fmt: skip
    return open_bundle(str(folder))


def test_saved_and_opened_again(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(str(tiny_bundle))
    again = resave(bundle, tmp_path / "again")
    assert (again.name, again.method.name) == ("again", "diffae")
    assert again.digest == bundle.digest
    assert again.model.config == bundle.model.config
    for ours, theirs in (
        (again.model.state_dict(), bundle.model.state_dict()),
        (again.prior.state_dict(), bundle.prior.state_dict()),
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert again.directions.names == ("smiling", "glasses", "hat")
    assert again.directions.scores == bundle.directions.scores
    torch.testing.assert_close(again.directions.weight, bundle.directions.weight, rtol=0, atol=0)
    assert not any(p.requires_grad for p in again.model.parameters()) and not again.model.training


def test_half_precision_halves_the_files(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(str(tiny_bundle))
    half = resave(bundle, tmp_path / "half", torch.float16)
    stored = load_file(half.folder / "unet" / WEIGHTS)
    assert {t.dtype for t in stored.values()} == {torch.float16}
    assert half.digest != bundle.digest
    for name, value in half.model.state_dict().items():
        assert value.dtype == torch.float32
        # a half keeps 11 bits, and below 6e-5 it has a fixed step of 6e-8
        torch.testing.assert_close(value, bundle.model.state_dict()[name], rtol=2**-11, atol=6e-8)


def test_digest_is_of_what_a_code_depends_on(copy: Path) -> None:
    bundle = open_bundle(str(copy))
    before = bundle.digest
    (copy / "README.md").write_text("another card")
    add_directions(bundle, bundle.directions)
    add_prior(bundle, LatentDDIM(LatentDDIMConfig(network=LatentMLPConfig(z_width=8, hidden_width=4))))
    assert open_bundle(str(copy)).digest == before
    path = copy / "scheduler" / "scheduler_config.json"
    stored = json.loads(path.read_text())
    stored["_rdm"]["sampler"] = {"solver": "unipc", "spacing": None, "steps": 7}
    path.write_text(json.dumps(stored, indent=2) + "\n")
    assert open_bundle(str(copy)).model.sampling.sampler.solver == "unipc"
    assert open_bundle(str(copy)).digest == before
    tensors = load_file(copy / "encoder" / WEIGHTS)
    tensors["conv_in.bias"][0] += 1
    save_file(tensors, copy / "encoder" / WEIGHTS)
    with_weights = open_bundle(str(copy)).digest
    path.write_text(path.read_text().replace('"steps": 5', '"steps": 6'))
    assert len({before, with_weights, open_bundle(str(copy)).digest}) == 3


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_value(name: str, value: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        values = json.loads(path.read_text())
        values[name] = value
        path.write_text(json.dumps(values))

    return edit


UNET, ENCODER = f"unet/{WEIGHTS}", "encoder/config.json"
SCHEDULER = "scheduler/scheduler_config.json"
ATTRIBUTES = "attributes/attributes.json"


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        *((part, Path.unlink) for part in ("model_index.json", UNET, ENCODER, SCHEDULER)),
        *((part, cut_in_half) for part in ("model_index.json", UNET, ENCODER, SCHEDULER)),
        *((part, lambda path: path.write_bytes(b"")) for part in (UNET, ENCODER)),
        ("model_index.json", with_value("method", "nosuch")),
        ("model_index.json", with_value("method", 3)),
        ("model_index.json", lambda path: path.write_text("[]")),
        (ENCODER, with_value("invented", 1)),
        (ENCODER, with_value("z_width", 9)),
        (ENCODER, with_value("channel_mult", [])),
        (ENCODER, with_value("patch_size", 0)),
        (ENCODER, with_value("model_channels", 33)),
        ("unet/config.json", with_value("model_channels", 64)),
        (SCHEDULER, with_value("beta_schedule", "laplace")),
        (SCHEDULER, with_value("prediction_type", "nosuch")),
        (SCHEDULER, with_value("_rdm", {})),
        (SCHEDULER, with_value("_rdm", 3)),
        (UNET, lambda path: save_file({"x": torch.zeros(1)}, path)),
    ],
)  # fmt: skip
def test_damage_is_told_in_one_line(copy: Path, part: str, damage: Callable[[Path], None]) -> None:
    damage(copy / part)
    with pytest.raises(BundleError) as caught:
        open_bundle(str(copy))
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600
    assert str(copy) in line


@pytest.mark.parametrize(
    ("part", "damage", "attribute"),
    [
        (f"prior/{WEIGHTS}", cut_in_half, "prior"),
        ("prior/config.json", Path.unlink, "prior"),
        ("prior/config.json", with_value("network", {"z_width": 8, "num_layers": 0}), "prior"),
        ("attributes/attributes.safetensors", cut_in_half, "directions"),
        ("attributes/attributes.safetensors", Path.unlink, "directions"),
        (ATTRIBUTES, with_value("names", ["one"]), "directions"),
        (ATTRIBUTES, with_value("names", 3), "directions"),
        (ATTRIBUTES, with_value("scores", [1]), "directions"),
        (ATTRIBUTES, lambda path: path.write_text("{}"), "directions"),
    ],
)
def test_damaged_extras_leave_the_networks_usable(
    copy: Path, part: str, damage: Callable[[Path], None], attribute: str
) -> None:
    damage(copy / part)
    bundle = open_bundle(str(copy))
    with pytest.raises(BundleError) as caught:
        getattr(bundle, attribute)
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value)


def test_extras_for_codes_of_another_width(copy: Path) -> None:
    bundle = open_bundle(str(copy))
    network = LatentMLPConfig(z_width=6, hidden_width=4, num_layers=2)
    add_prior(bundle, LatentDDIM(LatentDDIMConfig(network=network)))
    zeros = torch.zeros(1, 6)
    add_directions(
        bundle,
        Directions(
            names=("a",), weight=zeros, bias=torch.zeros(1), z_mean=torch.zeros(6), z_std=torch.ones(6)
        ),
        replace_all=True,
    )
    bundle = open_bundle(str(copy))
    for attribute in ("prior", "directions"):
        with pytest.raises(BundleError, match="6 values"):
            getattr(bundle, attribute)


def test_missing_extras_name_the_command(copy: Path) -> None:
    shutil.rmtree(copy / "prior")
    shutil.rmtree(copy / "attributes")
    bundle = open_bundle(str(copy))
    with pytest.raises(BundleError, match="rdm train prior"):
        _ = bundle.prior
    with pytest.raises(BundleError, match="rdm train attributes"):
        _ = bundle.directions


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_interrupted_save_changes_nothing(
    copy: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, existing: bool
) -> None:
    bundle = open_bundle(str(copy))
    before = files_in(copy)
    target = copy if existing else copy.parent / "new"

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(bundle_saving, "save_directions", fail)
    with pytest.raises(type(error)):
        save_bundle(
            target, bundle.method, bundle.model, card="", prior=bundle.prior, directions=bundle.directions
        )
    assert files_in(copy) == before
    assert os.listdir(copy.parent) == ["copy"]


def test_a_failing_rename_brings_the_old_folder_back(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_in(copy)
    rename = Path.replace

    def fail_into_place(self: Path, target: Path) -> Path:
        if target == copy and ".old-" not in self.name:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail_into_place)
    monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)  # a system that cannot
    with pytest.raises(KeyboardInterrupt), bundle_folders.replace_folder(copy) as new:
        (new / "file").write_text("new")
    assert files_in(copy) == before and os.listdir(tmp_path) == ["copy"]


def test_only_a_bundle_is_replaced(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(str(tiny_bundle))
    photos = tmp_path / "photos"
    photos.mkdir()
    resave(bundle, photos)  # an empty folder holds nothing to lose
    shutil.rmtree(photos)
    photos.mkdir()
    (photos / "a.png").write_bytes(b"precious")
    file = tmp_path / "file"
    file.write_bytes(b"precious")
    for place in (photos, file):
        with pytest.raises(UsageError, match=str(place)):
            resave(bundle, place)
    assert sorted(os.listdir(tmp_path)) == ["file", "photos"]
    assert (photos / "a.png").read_bytes() == file.read_bytes() == b"precious"


def test_a_linked_bundle_stays_a_link(copy: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(copy)
    resave(open_bundle(str(copy)), link)
    assert link.is_symlink() and (copy / "README.md").read_text() == "# other\n"
    assert sorted(os.listdir(tmp_path)) == ["copy", "link"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_follow_the_umask(tiny_bundle: Path, tmp_path: Path, mask: int) -> None:
    bundle = open_bundle(str(tiny_bundle))
    old = os.umask(mask)
    try:
        resave(bundle, tmp_path / "new")
    finally:
        os.umask(old)
    for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")]:
        expected = (0o777 if path.is_dir() else 0o666) & ~mask
        assert path.stat().st_mode & 0o777 == expected, path


def test_names_of_bundles(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "assets" / "bundles"
    shutil.copytree(tiny_bundle, shipped / "tiny-diffae")
    monkeypatch.setattr(bundle_folders, "assets_folder", lambda: tmp_path / "assets")
    monkeypatch.chdir(tmp_path)
    assert open_bundle("tiny-diffae").name == "tiny-diffae"
    with pytest.raises(BundleError, match="did you mean 'tiny-diffae'"):
        open_bundle("tiny-difae")
    with pytest.raises(BundleError, match="model_index.json is missing"):
        open_bundle("assets")
    with pytest.raises(BundleError, match="no such bundle"):
        open_bundle("nosuch/deep")


def test_hub_names(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def download(repository: str, *, revision: str | None, **_: object) -> str:
        asked.append((repository, revision))
        if repository == "no/where":
            raise OSError("first line\nsecond line")
        return str(tiny_bundle)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    # the folder's name is a commit's there; a code must record what decode can open again
    assert open_bundle("hf:some/one@v2").name == "hf:some/one@v2"
    with pytest.raises(RdmError) as caught:
        open_bundle("hf:no/where")
    assert str(caught.value) == "hf:no/where: cannot be fetched (first line)"
    assert asked == [("some/one", "v2"), ("no/where", None)]


def test_a_pipeline_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old repositories hold pickled weights alone: those are fetched too, and the error says what to do."""
    import huggingface_hub
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    network = UNet2DModel(
        sample_size=16, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    pipeline = DDPMPipeline(network, DDPMScheduler())
    pipeline.save_pretrained(tmp_path / "new")
    pipeline.save_pretrained(tmp_path / "old", safe_serialization=False)
    asked: list[list[str]] = []

    def download(repository: str, *, revision: str | None, allow_patterns: list[str], **_: object) -> str:
        asked.append(allow_patterns)
        return str(tmp_path / repository.partition("/")[2])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    opened = open_bundle("hf:google/new")
    assert opened.name == "hf:google/new" and opened.method.name == "dpm"
    assert len(asked) == 1 and "*.bin" not in asked[0]
    with pytest.raises(BundleError, match="these weights are pickled") as caught:
        open_bundle("hf:google/old")
    assert "*.bin" in asked[-1]
    assert f"rdm bundles convert dpm {tmp_path / 'old'}" in str(caught.value)
