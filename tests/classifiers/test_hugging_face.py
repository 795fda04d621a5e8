"""Classifiers in Hugging Face's layout: safetensors alone, and nothing fetched or run."""

from __future__ import annotations

import json

import pytest
import torch

from rdm_cli.classifiers.opening import open_classifier
from rdm_cli.errors import ClassifierError

transformers = pytest.importorskip("transformers")
PICTURES = torch.linspace(-1, 1, 3)[:, None, None, None].expand(3, 3, 64, 64)


@pytest.fixture
def folder(tmp_path):
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=2,
        id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1},
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "hf")
    processor = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(processor))
    return tmp_path / "hf"


def test_a_folder_says_what_it_takes_and_has_gradients(folder):
    model = open_classifier(folder)
    assert (model.classes, model.outputs, model.differentiable) == (("no", "yes"), "softmax", True)
    assert model.assumed["input"] == "32 x 32, RGB" and model.assumed["mean"] == [0.5] * 3
    network = transformers.ResNetForImageClassification.from_pretrained(folder)
    with torch.no_grad():
        small = torch.nn.functional.interpolate(PICTURES, 32, mode="bilinear", antialias=True)
        expected = network.eval()(small).logits.softmax(dim=1)
    torch.testing.assert_close(model.scores(PICTURES), expected, atol=1e-5, rtol=1e-4)
    x = PICTURES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.log_odds(x)[:, 1].sum(), x)
    assert bool(gradient.isfinite().all()) and gradient.abs().sum() > 0


def test_a_centre_crop_is_followed(folder):
    told = {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    model = open_classifier(folder)
    assert model.assumed["input"] == "32 x 32, RGB, the middle of 40 x 40"
    assert model.scores(PICTURES).shape == (3, 2)


def refused(folder, said):
    with pytest.raises(ClassifierError, match=said) as raised:
        open_classifier(folder)
    assert "\n" not in str(raised.value)


def test_pickles_are_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin is a pickle, which is not read; save it with save_pretrained")


def test_code_of_a_folder_is_not_run_and_no_other_model_is_fetched(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "code.Model"}}))
    refused(folder, "needs Python code of its own, which is not run")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, "an adapter, which names another model")


def test_what_is_no_trained_image_classifier_is_one_line(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no config.json")
    config = json.loads((folder / "config.json").read_text())
    for change, said in (
        ({"architectures": ["BertModel"]}, "BertModel: no image classifier"),
        ({"hidden_sizes": [512, 2048], "depths": [60, 60]}, "does not open it"),
        ({"model_type": "nosuch"}, "does not open it"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        refused(folder, said)
    (folder / "config.json").write_text("[")
    refused(folder, "config.json")
    (folder / "config.json").write_text(json.dumps(config))
    weights = folder / "model.safetensors"
    from safetensors.torch import load_file, save_file

    tensors = {name: value for name, value in load_file(weights).items() if "classifier" not in name}
    save_file(tensors, weights, metadata={"format": "pt"})
    refused(folder, "its weights have no classifier.1.bias: an untrained classifier")
    weights.write_bytes(b"\0" * 40)
    refused(folder, "does not open it")
    weights.unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../model.safetensors"}}')
    refused(folder, "is no safetensors file of this folder")
