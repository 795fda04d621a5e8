"""Programs that score PNG files: paths on stdin or as arguments, JSON on stdout."""

from __future__ import annotations

import shlex
import sys
import time

import pytest
import torch

from rdm_cli.classifiers.opening import open_classifier
from rdm_cli.errors import ClassifierError, UsageError

PICTURES = torch.linspace(-1, 1, 3)[:, None, None, None].expand(3, 3, 8, 8)
READ = (
    "import json, sys\nfrom PIL import Image\n"
    "m = lambda p: Image.open(p).convert('L').resize((1, 1)).getpixel((0, 0)) / 255\n"
)


def command(code, *words):
    return shlex.join([sys.executable, "-c", code, *words])


def test_paths_come_on_stdin_and_scores_go_back_as_lines():
    code = (
        READ
        + "for line in sys.stdin: print(json.dumps({'dark': 1-m(line.strip()), 'light': m(line.strip())}))"
    )
    model = open_classifier(command=command(code), image_size=8)
    assert (model.classes, model.outputs, model.exclusive) == (("dark", "light"), "probabilities", True)
    torch.testing.assert_close(model.scores(PICTURES)[:, 1], torch.tensor([0, 0.5, 1]), atol=0.01, rtol=0)


def test_paths_come_as_arguments_in_the_place_of_braces_and_no_shell_reads_them(tmp_path):
    code = READ + "assert sys.argv[1] == '$(touch x); *'; print(json.dumps([m(p)*4-2 for p in sys.argv[2:]]))"
    model = open_classifier(command=command(code, "$(touch x); *", "{}"), image_size=8)
    assert (model.classes, model.outputs) == (("positive",), "sigmoid")
    torch.testing.assert_close(model.log_odds(PICTURES)[:, 0], torch.tensor([-2.0, 0, 2]), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.exit('no such weights')", "exit code 1: no such weights"),
        ("print('hello')", "wrote no JSON"),
        ("print('[1, 2]')", "wrote 2 values for 1 pictures|wrote 2 values for 8 pictures"),
        ("import sys; [print('\"a\"') for _ in sys.stdin]", "a number, an array of numbers or an object"),
        ("import sys; [print('NaN') for _ in sys.stdin]", "wrote no JSON: NaN"),
    ],
)
def test_what_a_program_does_wrong_is_one_line(code, said):
    with pytest.raises(ClassifierError, match=said) as raised:
        open_classifier(command=command(code), image_size=8)
    assert "\n" not in str(raised.value)


def test_a_program_that_takes_too_long_is_ended_with_what_it_started():
    code = "import subprocess,time; subprocess.Popen(['sleep','60']); time.sleep(60)"
    begun = time.monotonic()
    with pytest.raises(ClassifierError, match="took longer than 0.5 seconds, and was ended; allow it more"):
        open_classifier(command=command(code), image_size=8, time_limit=0.5)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("words", "said"), [("nosuchprogram x", "no program 'nosuchprogram'"), ("'", "quot")]
)
def test_what_is_no_program(words, said):
    with pytest.raises(UsageError, match=said):
        open_classifier(command=words)
