"""A prior and attributes from a folder of codes into a bundle."""

from __future__ import annotations

import csv
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from rdm_cli.bundles import places as bundle_folders
from rdm_cli.bundles.bundle import Bundle, open_bundle
from rdm_cli.bundles.writing import add_prior, save_bundle
from rdm_cli.codes.code import CodeInfo, Codes
from rdm_cli.codes.sets import read_code_set
from rdm_cli.data.io.tensor_files import read_with_metadata, write_tensors
from rdm_cli.errors import BundleError, CodeError, RdmError, UsageError
from rdm_cli.methods.diffae.presets import PRESETS
from rdm_cli.methods.lrdm.method import METHOD as LRDM_METHOD
from rdm_cli.methods.lrdm.model import LRDM
from rdm_cli.methods.lrdm.presets import PRESETS as LRDM_PRESETS
from rdm_cli.models.first_stage import FirstStageConfig
from rdm_cli.models.latent_mlp import LatentMLPConfig
from rdm_cli.models.residual_mlp import ResidualMLPConfig
from rdm_cli.priors.latent_ddim import LatentDDIM
from rdm_cli.training.prior import PriorRecord, PriorSettings
from rdm_cli.training.run.on_codes import (
    RUN_FOLDER,
    TrainedAttributes,
    prior_config,
    prior_network,
    prior_settings,
    train_bundle_attributes,
    train_bundle_prior,
)

NUM = 60
SHORT = PriorSettings(num_samples=64, batch_size=16, warmup_steps=0, report_every_steps=2)


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    """The tiny bundle without prior and attributes, to be written into."""
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    for part in ("prior", "attributes"):
        shutil.rmtree(folder / part)
    return open_bundle(str(folder))


@pytest.fixture
def z() -> Tensor:
    return torch.randn(NUM, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1


def write_codes(folder: Path, z: Tensor, bundle: Bundle, *, digest: str | None = None) -> list[str]:
    """Codes ``s0/00`` to ``s1/59``, alternating between two folders; returns their names."""
    names = [f"s{i % 2}/{i:02d}" for i in range(len(z))]
    info = CodeInfo(method="diffae", bundle=bundle.name, bundle_digest=digest or bundle.digest, image_size=16)
    Codes(z=z, x_T=None, infos=(info,) * len(z)).save([folder / f"{n}.safetensors" for n in names])
    return names


def write_labels(path: Path, rows: dict[str, list[int | str]], columns: list[str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", *columns])
        writer.writerows([name, *values] for name, values in rows.items())
    return path


def test_codes_of_a_folder_are_read_in_order_with_their_names(
    bundle: Bundle, z: Tensor, tmp_path: Path
) -> None:
    names = write_codes(tmp_path / "codes", z, bundle)
    found = read_code_set(tmp_path / "codes", bundle_name=bundle.name, bundle_digest=bundle.digest)
    assert list(found.names) == sorted(names)
    torch.testing.assert_close(found.z, z[[names.index(name) for name in found.names]], rtol=0, atol=0)


def test_a_prior_end_to_end(bundle: Bundle, z: Tensor, tmp_path: Path) -> None:
    write_codes(tmp_path / "codes", z, bundle)
    records: list[PriorRecord] = []
    num = train_bundle_prior(
        bundle,
        tmp_path / "codes",
        settings=SHORT,
        network=prior_network(bundle, 3, 24),
        seed=0,
        weights_dtype=torch.float32,
        on_record=records.append,
    )
    assert num == NUM
    assert [r.step for r in records] == [1, 2, 3, 4]
    again = open_bundle(str(bundle.folder))
    assert again.digest == bundle.digest  # every code stays valid
    assert (again.prior.config.network.num_layers, again.prior.config.network.hidden_width) == (3, 24)
    # 95 % of the codes give mean and deviation, so those of all are near
    torch.testing.assert_close(again.prior.z_mean, z.mean(0), rtol=0, atol=0.3)
    torch.testing.assert_close(again.prior.z_std, z.std(0), rtol=0.1, atol=0)
    assert torch.isfinite(again.prior.sample(torch.randn(4, 8), num_steps=4)).all()


def test_a_prior_that_was_stopped_goes_on(bundle: Bundle, z: Tensor, tmp_path: Path) -> None:
    """Ctrl-C after two steps; the same call then ends as an undisturbed one, and leaves no checkpoint."""
    write_codes(tmp_path / "codes", z, bundle)
    weights: list[bytes] = []
    for stopped in (True, False):
        steps: list[int] = []
        notes: list[str] = []

        def on_record(record: PriorRecord, stopped: bool = stopped, steps: list[int] = steps) -> None:
            steps.append(record.step)
            if stopped and record.step == 2 and len(steps) == 2:
                signal.raise_signal(signal.SIGINT)

        def train(on_record: Callable[[PriorRecord], None] = on_record, notes: list[str] = notes) -> None:
            train_bundle_prior(
                bundle,
                tmp_path / "codes",
                settings=SHORT,
                network=prior_network(bundle, 3, 24),
                seed=0,
                weights_dtype=torch.float32,
                on_record=on_record,
                note=notes.append,
            )

        if stopped:
            with pytest.raises(KeyboardInterrupt):
                train()
            assert steps == [1, 2] and (bundle.folder / RUN_FOLDER).is_dir()
            train()
            assert "goes on after step 2" in notes
        else:
            train()
        assert steps == [1, 2, 3, 4] and not (bundle.folder / RUN_FOLDER).exists()
        weights.append((bundle.folder / "prior" / "diffusion_pytorch_model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_a_prior_that_diverges_leaves_the_bundle_alone(bundle: Bundle, z: Tensor, tmp_path: Path) -> None:
    write_codes(tmp_path / "codes", z, bundle)
    settings = PriorSettings(num_samples=640, batch_size=16, lr=1e38, warmup_steps=0)
    with pytest.raises(RdmError, match="training stops at step [0-9]+: the loss is .*; lower --lr"):
        train_bundle_prior(
            bundle,
            tmp_path / "codes",
            settings=settings,
            network=prior_network(bundle, 2, 16),
            seed=0,
            weights_dtype=torch.float32,
            on_record=lambda record: None,
        )
    assert not (bundle.folder / "prior").exists()


def test_one_code_is_too_few_for_a_prior(bundle: Bundle, z: Tensor, tmp_path: Path) -> None:
    write_codes(tmp_path / "codes", z[:1], bundle)
    with pytest.raises(RdmError, match="at least two codes.*encode more images"):
        train_bundle_prior(
            bundle,
            tmp_path / "codes",
            settings=SHORT,
            network=prior_network(bundle, 2, 16),
            seed=0,
            weights_dtype=torch.float32,
            on_record=lambda record: None,
        )


def test_the_prior_s_network_is_small_for_networks_of_one_s_own(bundle: Bundle) -> None:
    assert isinstance(prior_network(bundle, None, None), ResidualMLPConfig)
    assert prior_network(bundle, None, None).hidden_width == 384
    assert prior_network(bundle, None, 32).hidden_width == 32
    assert prior_network(bundle, 4, None).num_layers == 4
    assert prior_network(bundle, None, None).z_width == 8 != PRESETS["small64"].prior.z_width


def test_published_networks_are_trained_as_published(bundle: Bundle) -> None:
    published = LatentMLPConfig(z_width=8, hidden_width=16, num_layers=4)
    config = prior_config(published)
    assert (config.prediction, config.schedule.beta_kind, config.steps) == ("eps", "constant", 100)
    assert prior_settings(published, samples=None, batch_size=None, lr=None) == PriorSettings()
    ours = prior_config(prior_network(bundle, None, None), ("hat",))
    assert (ours.prediction, ours.attributes) == ("v", ("hat",))
    chosen = prior_settings(ours.network, samples=10, batch_size=5, lr=0.1)
    assert (chosen.num_samples, chosen.batch_size, chosen.lr) == (10, 5, 0.1)


def test_a_prior_learns_the_attributes_that_have_both_answers(
    bundle: Bundle, z: Tensor, tmp_path: Path
) -> None:
    names = write_codes(tmp_path / "codes", z, bundle)
    rows: dict[str, list[int | str]] = {name: [i % 2, 1, ""] for i, name in enumerate(names[:-2])}
    for i, name in enumerate(names[:4]):
        rows[name][2] = i % 2
    labels = write_labels(tmp_path / "labels.csv", rows, ["hat", "beard", "smiling"])
    notes: list[str] = []

    def train(table: Path) -> None:
        train_bundle_prior(
            bundle,
            tmp_path / "codes",
            labels=table,
            settings=SHORT,
            network=prior_network(bundle, 2, 16, with_labels=True),
            seed=0,
            weights_dtype=torch.float32,
            on_record=lambda record: None,
            note=notes.append,
        )

    train(labels)
    assert open_bundle(str(bundle.folder)).prior.attributes == ("hat", "smiling")
    assert any("beard left out: all codes have one answer" in note for note in notes)
    assert any("2 of 60 codes have no row" in note for note in notes)
    before = (bundle.folder / "prior" / "config.json").read_bytes()
    for others, told in (
        ({"elsewhere": [1, 0, 1], "there": [0, 1, 1]}, "none of the 60 codes has a row here"),
        ({name: [1, 0, 1] for name in names}, "no attribute has codes with it and codes without it"),
    ):
        with pytest.raises(RdmError, match=told):
            train(write_labels(tmp_path / "others.csv", others, ["hat", "beard", "smiling"]))
    assert (bundle.folder / "prior" / "config.json").read_bytes() == before


def test_the_prior_of_an_lrdm_is_its_preset_s_whatever_its_first_stage(tmp_path: Path) -> None:
    """diffusers writes every setting that its network has, a preset those that differ."""
    preset = LRDM_PRESETS["small32"]
    model = LRDM(preset.config)
    whole = {**dict(model.first_stage.config), **preset.config.first_stage.values}
    stage = FirstStageConfig(class_name="AutoencoderKL", values=whole)
    assert stage != preset.config.first_stage
    model.config = replace(preset.config, first_stage=stage)
    save_bundle(tmp_path / "b", LRDM_METHOD, model, card="#\n")
    assert prior_network(open_bundle(str(tmp_path / "b")), None, None) == preset.prior


def test_attributes_end_to_end_with_labels_matched_by_name(bundle: Bundle, z: Tensor, tmp_path: Path) -> None:
    """The labels come in another order than the codes; only matched by name do they fit."""
    tall, wide = ([int(i % k == 0) for i in range(NUM)] for k in (3, 5))
    z[:, 2] += 12 * torch.tensor(tall)  # four standard deviations
    z[:, 5] += 12 * torch.tensor(wide)
    names = write_codes(tmp_path / "codes", z, bundle)
    rows: dict[str, list[int | str]] = {
        f"{name}.png": [t, w] for name, t, w in zip(names, tall, wide, strict=True)
    }
    shuffled = {key: rows[key] for key in reversed(rows)}
    shuffled.pop("s1/01.png")
    shuffled["s0/00.png"] = ["", ""]
    labels = write_labels(tmp_path / "metadata.csv", shuffled, ["Tall", "wide"])
    trained = train_bundle_attributes(bundle, tmp_path / "codes", labels, held_out=0.4, seed=0)
    fit = trained.fit
    assert (trained.num_labelled, trained.kept, trained.dropped) == (NUM - 1, (), ())
    assert trained.remarks == ("1 of 60 codes have no row in the label table, s1/01 among them",)
    assert fit.directions.names == ("tall", "wide")
    assert all(
        score["auroc"] > 0.9 for score in fit.directions.scores.values()
    )  # mismatched labels: about 0.5
    assert fit.directions.scores["tall"]["num_labelled"] == NUM - 2
    stored = open_bundle(str(bundle.folder))
    assert stored.digest == bundle.digest
    assert stored.directions.names == ("tall", "wide")
    assert stored.directions.scores == fit.directions.scores
    assert stored.directions.weight.abs().argmax(dim=1).tolist() == [2, 5]


@pytest.fixture
def labelled(bundle: Bundle, z: Tensor, tmp_path: Path) -> Callable[[str], Path]:
    """Codes in ``codes``, and ``labelled("hat")``: a table with one column of that name."""
    names = write_codes(tmp_path / "codes", z, bundle)

    def table(column: str) -> Path:
        rows: dict[str, list[int | str]] = {f"{n}.png": [i // 2 % 2] for i, n in enumerate(names)}
        return write_labels(tmp_path / f"{column}.csv", rows, [column])

    return table


def test_another_attribute_leaves_those_that_are_stored(
    bundle: Bundle, tmp_path: Path, labelled: Callable[[str], Path]
) -> None:
    def train(column: str, **options: bool) -> TrainedAttributes:
        opened = open_bundle(str(bundle.folder))
        where = tmp_path / "codes"
        return train_bundle_attributes(opened, where, labelled(column), held_out=0.4, seed=0, **options)

    train("hat")
    before = open_bundle(str(bundle.folder)).directions
    beside = train("beard")
    assert (beside.kept, beside.dropped) == (("hat",), ())
    stored = open_bundle(str(bundle.folder)).directions
    assert stored.names == ("hat", "beard") and set(stored.scores) == {"hat", "beard"}
    assert torch.equal(stored.weight[0], before.weight[0]) and stored.scores["hat"] == before.scores["hat"]
    assert train("hat").kept == ("beard",)  # in place of its own, again
    assert open_bundle(str(bundle.folder)).directions.names == ("hat", "beard")
    alone = train("hat", replace_all=True)
    assert (alone.kept, alone.dropped) == ((), ("beard",))
    assert open_bundle(str(bundle.folder)).directions.names == ("hat",)


def test_attributes_that_cannot_be_read_are_not_written_over(
    bundle: Bundle, tmp_path: Path, labelled: Callable[[str], Path]
) -> None:
    folder = bundle.folder / "attributes"
    folder.mkdir()
    (folder / "attributes.json").write_text("{")
    with pytest.raises(BundleError, match="attributes.json: not readable.*--replace drops what is stored"):
        train_bundle_attributes(bundle, tmp_path / "codes", labelled("hat"), held_out=0.4, seed=0)
    assert (folder / "attributes.json").read_text() == "{"
    train_bundle_attributes(
        bundle, tmp_path / "codes", labelled("hat"), held_out=0.4, seed=0, replace_all=True
    )
    assert open_bundle(str(bundle.folder)).directions.names == ("hat",)


@pytest.mark.parametrize("kind", ["shipped", "fetched"])
def test_a_bundle_that_is_not_ones_own_is_not_written_to(
    bundle: Bundle,
    tmp_path: Path,
    labelled: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    if kind == "shipped":
        monkeypatch.setattr(bundle_folders, "shipped_bundles", lambda: {"ours": bundle.folder})
        told = "ours: this bundle comes with rdm and is read-only; copy it.*rdm bundles copy ours DIR"
    else:
        bundle = replace(bundle, name="hf:some/one")
        told = "hf:some/one: what was fetched is kept.*rdm bundles copy hf:some/one DIR"
    before = sorted(bundle.folder.rglob("*"))
    with pytest.raises(UsageError, match=told):
        train_bundle_attributes(bundle, tmp_path / "codes", labelled("hat"), held_out=0.4, seed=0)
    with pytest.raises(UsageError, match=told):
        train_bundle_prior(
            bundle,
            tmp_path / "codes",
            settings=SHORT,
            network=prior_network(bundle, 2, 16),
            seed=0,
            weights_dtype=torch.float32,
            on_record=lambda record: pytest.fail("it was trained first"),
        )
    with pytest.raises(UsageError, match=told):
        add_prior(bundle, LatentDDIM(prior_config(prior_network(bundle, 2, 16))))
    if kind == "shipped":
        for place in (bundle.folder, bundle.folder / "unet"):
            with pytest.raises(UsageError, match=told):
                save_bundle(place, bundle.method, cast(nn.Module, bundle.model), card="#\n")
    assert sorted(bundle.folder.rglob("*")) == before


def test_labels_of_other_images_are_refused_with_an_example_of_both(
    bundle: Bundle, z: Tensor, tmp_path: Path
) -> None:
    write_codes(tmp_path / "codes", z, bundle)
    labels = write_labels(tmp_path / "metadata.csv", {"x.png": [1], "y.png": [0]}, ["tall"])
    with pytest.raises(RdmError, match="none of the 60 codes has a row here") as caught:
        train_bundle_attributes(bundle, tmp_path / "codes", labels, held_out=0.4, seed=0)
    assert caught.value.hint == "the first code is called s0/00, the first row x.png"


def test_an_attribute_without_examples_is_refused_by_name(bundle: Bundle, z: Tensor, tmp_path: Path) -> None:
    names = write_codes(tmp_path / "codes", z, bundle)
    rows: dict[str, list[int | str]] = {f"{n}.png": [0, i % 2 or "?!"] for i, n in enumerate(names)}
    labels = write_labels(tmp_path / "metadata.csv", rows, ["never", "odd"])
    told = "no attribute has enough examples: never: 0 positive.*no labels: odd .line 2 says neither"
    with pytest.raises(RdmError, match=told):
        train_bundle_attributes(bundle, tmp_path / "codes", labels, held_out=0.4, seed=0)
    assert not (bundle.folder / "attributes").exists()


def test_another_bundle_s_codes_are_refused(bundle: Bundle, z: Tensor, tmp_path: Path) -> None:
    write_codes(tmp_path / "codes", z, bundle, digest="f" * 64)
    with pytest.raises(CodeError, match="made with bundle bundle .ffffffffffff., not with"):
        read_code_set(tmp_path / "codes", bundle_name=bundle.name, bundle_digest=bundle.digest)


def test_a_code_that_holds_no_number_is_refused_by_name(bundle: Bundle, z: Tensor, tmp_path: Path) -> None:
    write_codes(tmp_path / "codes", z, bundle)
    path = tmp_path / "codes" / "s1" / "07.safetensors"
    metadata, tensors = read_with_metadata(path)
    tensors["z"][3] = torch.nan  # which rdm itself does not write
    write_tensors(path, tensors, metadata)
    with pytest.raises(CodeError, match=r"s1/07\.safetensors: z holds values that are not finite"):
        read_code_set(tmp_path / "codes", bundle_name=bundle.name, bundle_digest=bundle.digest)


def test_a_folder_without_codes(bundle: Bundle, faces: Path) -> None:
    with pytest.raises(UsageError, match="no codes found"):
        read_code_set(faces, bundle_name=bundle.name, bundle_digest=bundle.digest)
