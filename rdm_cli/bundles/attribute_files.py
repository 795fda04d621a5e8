"""Attributes as one small file, which users of the same bundle can pass on.

A safetensors file: the tensors of the directions by their names, those of the transports as
``transport.0.1.gains``, and in its metadata, under ``rdm``, JSON with the bundle's digest, names, scores, and
what excludes or hides what.
"""

from __future__ import annotations

import json
from pathlib import Path

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.bundles.reading import are_names, are_scores, refuse_not_finite, transports_from
from rdm_cli.bundles.writing import direction_tensors, transport_parts
from rdm_cli.data.io.json_text import parse_object
from rdm_cli.data.io.tensor_files import read_with_metadata, write_tensors
from rdm_cli.errors import BundleError, UsageError
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.transport import Transports

SUFFIX = ".safetensors"
KIND = "attributes"
_TRANSPORT = "transport."


def write_attribute_file(path: Path, bundle: Bundle, directions: Directions, transports: Transports) -> None:
    """Write attributes of ``bundle`` to ``path``; raises UsageError where something stands there."""
    if path.exists():
        raise UsageError(f"{path} exists", hint="name another file")
    tensors, told = transport_parts(
        directions.names, transports.select({name: name for name in directions.names})
    )
    header = {
        "kind": KIND,
        "bundle": bundle.name,
        "bundle_digest": bundle.digest,
        "names": list(directions.names),
        "scores": directions.scores,
        "transports": told,
    }
    written = direction_tensors(directions) | {_TRANSPORT + name: value for name, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, written, {"rdm": json.dumps(header, sort_keys=True)})


def read_attribute_file(path: Path, bundle: Bundle) -> tuple[Directions, Transports]:
    """The attributes in ``path``; raises BundleError where they are none, damaged, or of another bundle."""
    try:
        metadata, tensors = read_with_metadata(path)
        header = parse_object(metadata.get("rdm", "{}"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", hint="rdm attributes export writes one") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: damaged, or no attributes ({error})") from error
    names, scores = header.get("names"), header.get("scores")
    if header.get("kind") != KIND or not are_names(names) or not are_scores(scores):
        raise BundleError(f"{path}: these are no attributes", hint="rdm attributes export writes some")
    if header.get("bundle_digest") != bundle.digest:
        raise BundleError(
            f"{path}: these attributes are of bundle {header.get('bundle')} "
            f"({str(header.get('bundle_digest'))[:12]}), and {bundle.name} is another ({bundle.digest[:12]})",
            hint=f"name the bundle that they were made for, or a copy of it: --bundle {header.get('bundle')}",
        )
    refuse_not_finite(tensors.items(), path)
    own = {name: value for name, value in tensors.items() if not name.startswith(_TRANSPORT)}
    others = {name.removeprefix(_TRANSPORT): value for name, value in tensors.items() if name not in own}
    try:
        directions = Directions(names=tuple(names), scores=scores, **own)
        transports = transports_from(header["transports"], others)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: not the attributes of a bundle ({error})") from error
    if directions.width != bundle.z_width:
        raise BundleError(f"{path}: made for codes of {directions.width} values, not {bundle.model.z_shape}")
    return directions, transports
