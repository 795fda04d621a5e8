"""A picture says how rdm made it, and one that rdm did not make says nothing."""

from __future__ import annotations

import pytest
from PIL import Image

from rdm_cli.data.picture_record import read_record, saving_options
from rdm_cli.data.places import Blob


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_record_comes_back_from_a_picture(tmp_path, kind):
    record = {"what": "edit", "edits": ["smiling+0.3"], "source": "ü.png", "seed": 1}
    path = tmp_path / f"a.{kind.lower()}"
    Image.new("RGB", (8, 8)).save(path, format=kind, **saving_options(record, kind))
    assert read_record(path) == record
    assert read_record(Blob("a", path.read_bytes())) == record


def test_what_rdm_did_not_make_has_no_record(tmp_path):
    plain, other, nothing = tmp_path / "a.png", tmp_path / "b.jpg", tmp_path / "c.png"
    Image.new("RGB", (8, 8)).save(plain)
    Image.new("RGB", (8, 8)).save(other)
    nothing.write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    for path in (plain, other, nothing, tmp_path / "absent.png"):
        assert read_record(path) is None
