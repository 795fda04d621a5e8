"""Classifiers in ONNX files: what pictures they take, and files that are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rdm_cli.classifiers.opening import open_classifier
from rdm_cli.classifiers.picture_format import IMAGENET_MEAN, IMAGENET_STD
from rdm_cli.errors import ClassifierError, RdmError, UsageError

pytest.importorskip("onnxruntime")
RED = torch.stack(
    [torch.full((3, 64, 64), -1.0), torch.tensor([1.0, -1, -1])[:, None, None].expand(3, 64, 64)]
)
PLAIN = {"mean": [0.0], "std": [1.0]}


def test_a_picture_is_given_in_the_size_and_scale_that_the_model_takes(write_onnx):
    model = open_classifier(write_onnx(), **PLAIN)
    assert model.outputs == "softmax" and model.classes == ("0", "1") and not model.differentiable
    torch.testing.assert_close(model.raw(RED), torch.tensor([[0.0, 0.0], [4.0, -4.0]]))
    assert model.assumed["input"] == "32 x 32, RGB" and model.assumed["layout"] == "NCHW"


def test_mean_and_std_are_imagenet_s_where_nothing_says_otherwise(write_onnx):
    model = open_classifier(write_onnx())
    assert model.assumed["mean and std, a guess"] == "taken for ImageNet's: the file does not say"
    expected = 4 * (1 - IMAGENET_MEAN[0]) / IMAGENET_STD[0]
    torch.testing.assert_close(model.raw(RED)[1, 0], torch.tensor(expected))


def test_the_file_s_metadata_say_what_it_takes(write_onnx):
    told = {"mean": "[0.5]", "std": "0.5,0.5,0.5", "names": "{0: 'red', 1: 'other'}"}
    model = open_classifier(write_onnx(metadata=told))
    assert model.classes == ("red", "other") and not any("guess" in key for key in model.assumed)
    torch.testing.assert_close(model.raw(RED)[:, 0], torch.tensor([-4.0, 4.0]))
    named = open_classifier(write_onnx(metadata=told), labels=["a", "b"], **PLAIN)
    assert named.classes == ("a", "b")
    torch.testing.assert_close(named.raw(RED)[:, 0], torch.tensor([0.0, 4.0]))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 3, 32, 32), "NCHW"),
        (("n", 32, 32, 3), "NHWC"),
        ((4, 3, "h", "w"), "NCHW"),
        ((2, 32, 32, 3), "NHWC"),
    ],
)
def test_layouts_and_fixed_batches(write_onnx, shape, layout):
    model = open_classifier(write_onnx(shape=shape), size=32, **PLAIN)
    assert model.assumed["layout"] == layout
    torch.testing.assert_close(model.raw(RED[[0, 1, 1]])[:, 0], torch.tensor([0.0, 4.0, 4.0]))


def test_a_softmax_in_the_file_gives_probabilities(write_onnx):
    model = open_classifier(write_onnx(softmax=True), **PLAIN)
    assert (model.outputs, model.exclusive) == ("probabilities", True)
    assert model.assumed["outputs"] == "probabilities: its last step is Softmax"
    torch.testing.assert_close(model.log_odds(RED)[:, 0], torch.tensor([0.0, 8.0]), atol=1e-2, rtol=1e-3)


def test_pixels_of_8_bits_and_grey_pictures(write_onnx):
    onnx = pytest.importorskip("onnx")
    eight = open_classifier(write_onnx(dtype=onnx.TensorProto.UINT8), **PLAIN)
    torch.testing.assert_close(eight.raw(RED)[:, 0], torch.tensor([0.0, 4.0 * 255]))
    grey = open_classifier(write_onnx(shape=(1, 1, 32, 32), weight=((1.0,),)))
    assert grey.assumed["input"] == "32 x 32, grey"
    torch.testing.assert_close(grey.raw(RED)[:, 0], torch.tensor([0.0, 0.299]))


@pytest.mark.parametrize("place", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "", "link"])
def test_weights_outside_the_file_s_folder_are_not_read(write_onnx, tmp_path, place, monkeypatch):
    (tmp_path / "secret").write_bytes(np.zeros(6, dtype=np.float32).tobytes())
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "secret")
    import onnxruntime

    def never(*words, **options):
        raise AssertionError("the runtime saw it")

    monkeypatch.setattr(onnxruntime, "InferenceSession", never)
    with pytest.raises(ClassifierError, match="outside its folder; it is not opened"):
        open_classifier(write_onnx("inside/model.onnx", location=place))


def test_weights_are_looked_for_in_every_corner_of_the_network(write_onnx, tmp_path):
    """In the branch of a condition, as the value of a node: the runtime would read that, too."""
    import onnx

    model = onnx.load(write_onnx())
    hidden = onnx.numpy_helper.from_array(np.zeros(6, dtype=np.float32), "hidden")
    hidden.ClearField("raw_data")
    hidden.data_location = onnx.TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="../secret")
    constant = onnx.helper.make_node("Constant", [], ["hidden"], value=hidden)
    branch = onnx.helper.make_graph([constant], "branch", [], [onnx.ValueInfoProto(name="hidden")])
    condition = onnx.helper.make_node("If", ["pictures"], ["out"], then_branch=branch, else_branch=branch)
    model.graph.node.append(condition)
    (tmp_path / "branch.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ClassifierError, match="'../secret', outside its folder; it is not opened"):
        open_classifier(tmp_path / "branch.onnx")


def test_weights_within_the_file_s_folder_are_read(write_onnx, tmp_path):
    (tmp_path / "weights.bin").write_bytes(np.array([[4, -4], [0, 0], [0, 0]], dtype=np.float32).tobytes())
    model = open_classifier(write_onnx(location="weights.bin"), **PLAIN)
    torch.testing.assert_close(model.raw(RED)[:, 0], torch.tensor([0.0, 4.0]))
    with pytest.raises(ClassifierError, match=r"its weights are in gone.bin, which is not there"):
        open_classifier(write_onnx(location="gone.bin"))


def test_what_cannot_be_used_is_one_line(write_onnx, tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "cut.onnx").write_bytes(write_onnx().read_bytes()[:-60])
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04.")
    nan = ((float("nan"), 0.0), (0.0, 0.0), (0.0, 0.0))
    for path, said in (
        (tmp_path / "text.onnx", "not an ONNX file"),
        (tmp_path / "empty.onnx", "not an ONNX file"),
        (tmp_path / "cut.onnx", "not an ONNX file|does not open it"),
        (tmp_path / "model.pkl", "not a model that rdm reads"),
        (tmp_path / "gone.onnx", "no such model"),
        (
            write_onnx("two.onnx", more_inputs=("sizes",)),
            "takes one input, pictures, and this takes pictures, s",
        ),
        (write_onnx("rank.onnx", shape=("n", 3, 32)), r"has the shape \['n', 3, 32\]"),
        (write_onnx("deep.onnx", shape=(1, 5, 32, 32), weight=((1.0,),) * 5), "has 5 channels"),
        (write_onnx("large.onnx", shape=(1, 3, 32, 10**6)), "which no picture has"),
        (write_onnx("nan.onnx", weight=nan), "NaN or infinite scores"),
        (write_onnx("odd.onnx", metadata={"mean": "1,2"}), "its metadata: mean: one number or three"),
    ):
        with pytest.raises(RdmError, match=said) as raised:
            open_classifier(path)
        assert "\n" not in str(raised.value) and str(path) in str(raised.value) or "nan" in path.name
    with pytest.raises(UsageError, match="takes pictures of 32 x 32, not of"):
        open_classifier(write_onnx(), size=64)
    with pytest.raises(UsageError, match="it has 2 outputs, and 3 names"):
        open_classifier(write_onnx(), labels=["a", "b", "c"])
