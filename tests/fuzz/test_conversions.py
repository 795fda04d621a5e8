"""Checkpoints of the right outline that hold anything at all: refused in one line, whatever is looked up."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdm_cli.bundles.conversion import convert_files
from rdm_cli.errors import RdmError

NAMES = (
    "state_dict", "hyper_parameters", "ema_model.time_embed.0.weight", "ema_model.input_blocks.0.0.weight",
    "input_blocks.0.0.weight", "time_embed.0.weight", "conds_mean", "conds_std", "conds", "config", "epoch",
    "ema_latent_net.layers.0.linear.weight", "ema_denoise_fn", "ema_encoder", "ema_decoder",
    "model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.weight",
    "classifier.weight", "global_step", "out.2.weight", "middle_block.1.qkv.weight",
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
TENSORS = st.builds(
    torch.zeros, st.lists(st.integers(0, 5), max_size=4), dtype=st.sampled_from([torch.float32, torch.int64])
)
VALUES = st.recursive(
    SCALARS | TENSORS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6), method=st.integers(0, 3))
def test_a_checkpoint_of_anything(tmp_path: Path, value: dict[str, Any], method: int) -> None:
    path = tmp_path / "evil.ckpt"
    torch.save(OrderedDict(value), path)
    name = ("diffae", "pdae", "lrdm", "dpm")[method]
    with pytest.raises(RdmError) as caught:
        convert_files(name, [path], tmp_path / "out", dtype=torch.float32)
    assert "evil.ckpt" in str(caught.value) and "\n" not in caught.value.message
    assert not (tmp_path / "out").exists()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="ab:-[]{}&*!? \n\t'\"#|>%@0129.", max_size=60), method=st.integers(0, 3))
def test_settings_of_anything(tmp_path: Path, text: str, method: int) -> None:
    path = tmp_path / "evil.yml"
    path.write_text(text)
    name = ("diffae", "pdae", "lrdm", "dpm")[method]
    with pytest.raises(RdmError) as caught:
        convert_files(name, [path], tmp_path / "out", dtype=torch.float32)
    assert "evil.yml" in str(caught.value) and "\n" not in caught.value.message
