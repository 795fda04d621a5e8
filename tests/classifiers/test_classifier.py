"""Any classifier: what functions and networks are asked, and how their answers become scores."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rdm_cli.classifiers.classifier import Classifier
from rdm_cli.classifiers.opening import open_classifier
from rdm_cli.errors import ClassifierError, UsageError

PICTURES = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 3, 16, 16)


def brightness(x):
    return x.mean(dim=(1, 2, 3)) * 4


def two_classes(x):
    return torch.stack([brightness(x), -brightness(x)], dim=1)


def test_one_logit_is_a_question_of_its_own():
    model = open_classifier(brightness)
    assert (model.classes, model.outputs, model.exclusive) == (("positive",), "sigmoid", False)
    torch.testing.assert_close(model.log_odds(PICTURES), brightness(PICTURES)[:, None])
    assert model.verdicts(model.log_odds(PICTURES))[:, 0].tolist() == [False, False, False, True, True]


def test_log_odds_of_a_softmax_are_those_of_its_probabilities():
    model = open_classifier(two_classes, labels=["light", "dark"])
    assert (model.outputs, model.exclusive) == ("softmax", True)
    by_logits = model.scores(PICTURES)
    torch.testing.assert_close(by_logits, two_classes(PICTURES).softmax(dim=1))
    stated = open_classifier(lambda x: two_classes(x).softmax(dim=1))
    assert (stated.outputs, stated.exclusive) == ("probabilities", True)
    torch.testing.assert_close(stated.log_odds(PICTURES), model.log_odds(PICTURES), rtol=1e-4, atol=1e-4)


def test_probabilities_that_do_not_sum_to_one_are_questions_of_their_own():
    model = open_classifier(lambda x: two_classes(x).sigmoid() / 2)
    assert (model.outputs, model.exclusive) == ("probabilities", False)


def test_log_odds_of_a_thousand_classes_are_the_definition_s():
    """v_k less the log of the others' sum, which a sure model leaves far below; gradients are finite."""
    logits = torch.randn(3, 1000) * 3
    logits[1, 7], logits[2, 9] = 60.0, -60.0
    x = torch.zeros(3, 3, 2, 2, requires_grad=True)

    def raw(x):
        return logits[torch.arange(len(x)) % 3] + x.mean(dim=(1, 2, 3))[:, None] * torch.arange(1000)

    found = open_classifier(raw, outputs="softmax").log_odds(x)
    every = logits.double()
    for k in (0, 7, 9):
        others = torch.cat([every[:, :k], every[:, k + 1 :]], dim=1)
        expected = every[:, k] - others.logsumexp(dim=1)
        torch.testing.assert_close(found[:, k].double(), expected, rtol=1e-5, atol=1e-4)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("outputs", ["softmax", "sigmoid", "probabilities"])
def test_what_outputs_are_can_be_said(outputs):
    model = open_classifier(lambda x: two_classes(x).softmax(dim=1), outputs=outputs)
    assert model.outputs == outputs


def test_gradients_flow_through_a_network():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = open_classifier(network)
    assert model.differentiable
    x = PICTURES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.log_odds(x)[:, 0].sum(), x)
    assert gradient.abs().sum() > 0


def test_grey_pictures_are_shown_in_three_channels():
    seen = []
    model = open_classifier(lambda x: seen.append(tuple(x.shape)) or brightness(x))
    model.log_odds(PICTURES[:, :1])
    assert seen[-1] == (5, 3, 16, 16)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: torch.full((len(x), 2), torch.nan), "NaN or infinite scores, for 8 of 8 pictures"),
        (lambda x: "yes", "gives a str"),
        (lambda x: x, r"gives \(8, 3, 64, 64\)"),
        (lambda x: torch.zeros(len(x) + 1, 2), r"gives \(9, 2\) scores for 8 pictures"),
        (lambda x: torch.zeros(len(x), 0), "scores are"),
    ],
)
def test_what_is_no_score_is_one_line(function, said):
    with pytest.raises(ClassifierError, match=said) as raised:
        open_classifier(function)
    assert "\n" not in str(raised.value)


def test_outputs_taken_for_probabilities_are_held_to_it():
    model = open_classifier(lambda x: (x.mean(dim=(1, 2, 3)) + 1) / 2 if x.shape[-1] == 64 else brightness(x))
    with pytest.raises(ClassifierError, match="taken for probabilities, and one is -4; say what they are"):
        model.log_odds(PICTURES)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": ["a"]}, "it has 2 outputs, and 1 names"),
        ({"labels": ["a", "a"]}, "one name"),
        ({"outputs": "logits"}, "there is no such kind"),
        ({"mean": [0.5]}, "for files and folders"),
        ({"command": "cat"}, "name one of them"),
        ({"size": 0}, "1 to 4096"),
        ({"mean": [1, 2]}, "one number or three"),
        ({"std": [0.0]}, "above 0"),
        ({"layout": "chwn"}, "nchw or nhwc"),
    ],
)
def test_options_that_do_not_go_together(options, said):
    with pytest.raises(UsageError, match=said):
        open_classifier(two_classes, **options)


def test_an_unknown_class_is_told_with_the_known_ones():
    with pytest.raises(UsageError, match="no class 'lights'; its classes: light, dark"):
        open_classifier(two_classes, labels=["light", "dark"]).index("lights")


def test_an_open_classifier_is_taken_as_it_is():
    model = open_classifier(two_classes)
    assert open_classifier(model) is model
    renamed = open_classifier(model, labels=["a", "b"])
    assert isinstance(renamed, Classifier) and renamed.classes == ("a", "b")
