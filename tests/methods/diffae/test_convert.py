"""The authors' files become our modules: names, shapes, configs, and files that do not fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rdm_cli.errors import CheckpointError
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.attribute_names import CELEBA_ATTRIBUTES
from rdm_cli.methods.diffae.convert import method_state, read_diffae
from rdm_cli.methods.diffae.model import DiffAE
from rdm_cli.methods.diffae.official_config import autoencoder_config, latent_config
from rdm_cli.methods.diffae.presets import PRESETS
from rdm_cli.methods.official.names import latent_name, renamed
from rdm_cli.models.latent_mlp import LatentMLP

PUBLISHED = ("celeba64", "ffhq128", "ffhq256", "horse128", "bedroom128")


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_networks_convert_and_their_configs_are_the_presets(preset: str, authors: Any) -> None:
    """Without hyper-parameters: shapes alone give the preset back, and every parameter finds its place."""
    config, prior = PRESETS[preset].config, PRESETS[preset].prior
    ours = authors.meta_state(DiffAE, config)
    official = authors.autoencoder(config, ours)
    assert len(official) == len(ours)
    derived = autoencoder_config(official, {}, config.unet.image_size)
    assert derived == config
    back = method_state(official, derived)
    assert {n: t.data_ptr() for n, t in back.items()} == {n: t.data_ptr() for n, t in ours.items()}
    assert all(back[name] is ours[name] for name in ours)

    ours_prior = authors.meta_state(LatentMLP, prior)
    official_latent = authors.prior(prior, ours_prior)
    assert latent_config(official_latent, {}) == prior
    names = {name: latent_name(name, prior.num_layers) for name in official_latent}
    assert set(names.values()) == set(ours_prior)


@pytest.mark.parametrize(
    ("preset", "parameters", "in_encoder"),
    [
        ("celeba64", 90_839_235, 19_320_512),
        ("ffhq128", 128_545_155, 24_673_536),
        ("ffhq256", 168_492_291, 30_150_400),
    ],
)
def test_published_networks_have_the_published_sizes(
    preset: str, parameters: int, in_encoder: int, authors: Any
) -> None:
    state = authors.meta_state(DiffAE, PRESETS[preset].config)
    assert sum(t.numel() for t in state.values()) == parameters
    assert sum(t.numel() for n, t in state.items() if n.startswith("encoder.")) == in_encoder


def assert_same(state: Any, expected: dict[str, Tensor]) -> None:
    assert set(state) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)


def test_files_are_told_apart_by_content_in_any_order(files: Any) -> None:
    paths = files.write("auto", "latent", "cls", "codes")
    for order in (paths, paths[::-1], paths[2:] + paths[:2]):
        official = read_diffae(order)
        assert official.config == files.config and official.prior_config == files.prior_config
        assert official.config.sampling == SamplingSpec(spacing="stride", clip_x_0=True)
        assert official.config.prediction == "eps"
        assert official.prior_state is not None and official.classifier is not None
        assert_same(official.method_state, files.ours)
        assert_same(official.prior_state, files.prior)
        weight, bias = official.classifier
        torch.testing.assert_close(weight, files.classifier[0], rtol=0, atol=0)  # raw, not averaged
        torch.testing.assert_close(bias, files.classifier[1], rtol=0, atol=0)
        assert official.z_mean is not None and official.z_std is not None
        torch.testing.assert_close(official.z_mean, files.state("codes")["conds_mean"], rtol=0, atol=0)
        torch.testing.assert_close(official.z_std, files.state("codes")["conds_std"], rtol=0, atol=0)


def test_an_autoencoder_alone_has_no_prior_and_no_statistics(files: Any) -> None:
    official = read_diffae(files.write("auto"))
    assert_same(official.method_state, files.ours)
    rest = (official.prior_config, official.prior_state, official.z_mean, official.z_std, official.classifier)
    assert rest == (None,) * 5


def test_the_latent_checkpoint_contains_the_autoencoder(files: Any) -> None:
    official = read_diffae(files.write("latent"))
    assert_same(official.method_state, files.ours)
    assert official.prior_config == files.prior_config and official.z_mean is not None


def test_the_classifiers_rows_are_celebas_attributes(files: Any) -> None:
    names = read_diffae(files.write("auto")).attribute_names
    assert names == CELEBA_ATTRIBUTES and len(set(names)) == 40
    rows = {0: "5_o_clock_shadow", 1: "arched_eyebrows", 15: "eyeglasses", 20: "male", 24: "no_beard"}
    rows |= {31: "smiling", 35: "wearing_hat", 39: "young"}
    assert {row: names[row] for row in rows} == rows


def refused(paths: list[Path], *words: str, **options: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_diffae(paths, **options)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_an_autoencoder_the_message_says_what_is_missing(files: Any) -> None:
    refused(files.write("cls", "codes"), "cls.bin", "codes.bin", "the autoencoder is missing", "last.ckpt")
    refused([], "no files", "the autoencoder is missing")


def test_two_files_of_one_kind_are_refused(files: Any) -> None:
    (path,) = files.write("codes")
    other = path.with_name("other.bin")
    other.write_bytes(path.read_bytes())
    refused([*files.write("auto"), path, other], str(path), str(other), "'codes'")


@pytest.mark.parametrize("name", ["auto", "latent"])
def test_a_missing_parameter_is_named(files: Any, name: str) -> None:
    for prefix in ("model", "ema_model"):
        del files.state(name)[f"{prefix}.middle_block.2.out_layers.3.weight"]
    refused(files.write(name), f"{name}.bin", "unet.middle_2.conv_2.weight")


def test_an_unexpected_parameter_is_named(files: Any) -> None:
    for prefix in ("model", "ema_model"):
        files.state("auto")[f"{prefix}.noise_net.0.weight"] = torch.ones(1)
    refused(files.write("auto"), "auto.bin", "noise_net.0.weight")


def test_an_unexpected_top_level_tensor_is_named(files: Any) -> None:
    files.state("auto")["znormalizer.mean"] = torch.ones(1)
    files.state("cls")["head.weight"] = torch.ones(1)
    refused(files.write("auto"), "auto.bin", "znormalizer.mean")
    refused(files.write("latent", "cls"), "cls.bin", "head.weight")


def test_a_parameter_of_another_shape_is_named(files: Any) -> None:
    files.state("auto")["ema_model.middle_block.0.in_layers.2.weight"] = torch.ones(8, 8, 1, 1)
    refused(files.write("auto"), "middle_block.0.in_layers.2.weight has shape (8, 8, 1, 1)")


def test_a_model_without_its_average_is_refused(files: Any) -> None:
    del files.state("auto")["ema_model.out.2.bias"]
    refused(files.write("auto"), "out.2.bias is in only one of its model and its average")
    state = files.state("latent")
    files.content["latent"]["state_dict"] = {n: t for n, t in state.items() if not n.startswith("ema_")}
    refused(files.write("latent"), "latent.bin", "ema_model")


def test_a_layer_saved_twice_must_hold_one_value(files: Any) -> None:
    name = "ema_model.latent_net.layers.1.cond_layers.1.weight"
    files.state("latent")[name] = files.state("latent")[name] + 1
    refused(files.write("latent"), "latent.bin", "differs from its other name's values")


def test_files_of_different_models_are_refused(files: Any) -> None:
    name = "ema_model.out.2.bias"
    files.state("auto")[name] = files.state("auto")[name] + 1
    refused(files.write("auto", "latent"), "auto.bin", "latent.bin", "another autoencoder")


def test_files_of_other_widths_are_refused(files: Any) -> None:
    for name, content in {
        "codes": {"conds_mean": torch.ones(5), "conds_std": torch.ones(5)},
        "cls": {"conds_mean": torch.ones(1, 5), "conds_std": torch.ones(1, 5)},
    }.items():
        files.state(name).update(content)
        refused(files.write("auto", name), f"{name}.bin", "is for z of 5 values, the autoencoder's has 6")


def test_statistics_that_disagree_are_refused(files: Any) -> None:
    files.state("codes")["conds_mean"] = files.state("codes")["conds_mean"] + 0.1
    refused(files.write("latent", "codes"), "latent.bin", "codes.bin", "disagree about the mean and std")


def test_a_classifier_of_other_attributes_is_refused(files: Any) -> None:
    files.state("cls").update({"classifier.weight": torch.ones(18, 6), "classifier.bias": torch.ones(18)})
    refused(files.write("auto", "cls"), "cls.bin", "(18, 6)", "40")


@pytest.mark.parametrize(
    ("name", "value", "file"),
    [
        ("beta_scheduler", "cosine", "auto"),
        ("T", 4000, "auto"),
        ("net_enc_pool", "depthconv", "auto"),
        ("img_size", 32, "auto"),
        ("net_enc_num_res_blocks", 3, "auto"),
        ("latent_beta_scheduler", "linear", "latent"),
        ("net_latent_condition_bias", 0, "latent"),
    ],
)
def test_settings_that_mean_another_network_are_refused(files: Any, name: str, value: Any, file: str) -> None:
    files.content[file]["hyper_parameters"][name] = value
    refused(files.write(file), f"{file}.bin", "encoder" if name.startswith("net_enc_num") else name)


def test_heads_and_dropout_come_from_hyper_parameters(files: Any) -> None:
    files.content["auto"]["hyper_parameters"].update({"net_beatgans_attn_head": 2, "dropout": 0.3})
    config = read_diffae(files.write("auto")).config
    assert (config.unet.num_heads, config.encoder.num_heads, config.unet.dropout) == (2, 2, 0.3)


def test_the_image_size_is_asked_for_where_nothing_says_it(files: Any) -> None:
    del files.state("auto")["x_T"]
    del files.content["auto"]["hyper_parameters"]
    paths = files.write("auto")
    refused(paths, "auto.bin", "nothing in it says the size of its images")
    assert read_diffae(paths, size=16).config == files.config
    refused(files.write("latent"), "x_T says 16 and", "the caller says 32", size=32)


def test_files_of_no_known_kind_are_refused(files: Any) -> None:
    for content, words in (
        ({"weights": torch.ones(2)}, "neither a state_dict nor the statistics"),
        ({"state_dict": {"encoder.weight": torch.ones(2)}}, "neither an averaged model"),
        (
            {"state_dict": {**files.state("cls"), "classifier.bias": 3}},
            "classifier.bias is a int, not a tensor",
        ),
        ({"state_dict": {1: torch.ones(2)}}, "1 is no name"),
    ):
        files.content["odd"] = content
        refused(files.write("auto", "odd"), "odd.bin", words)


def test_renaming_needs_every_expected_parameter() -> None:
    with pytest.raises(CheckpointError, match=re.escape("nothing for b and 1 more")):
        renamed({"x": torch.ones(1)}, {"x": "a"}, {n: torch.ones(1) for n in "abc"})
