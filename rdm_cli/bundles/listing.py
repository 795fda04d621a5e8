"""Which bundles there are to name, and what their JSON files say of them; torch is not loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdm_cli.bundles import places
from rdm_cli.bundles.places import INDEX, sub_folders
from rdm_cli.data.io.json_text import read_object
from rdm_cli.errors import BundleError


@dataclass(frozen=True, kw_only=True)
class ListedBundle:
    """A bundle's ``name``, as commands take it, its ``folder``, and where it comes from: ``place``."""

    name: str
    folder: Path
    place: str


def listed_bundles() -> Iterator[ListedBundle]:
    """The shipped bundles, those in the working folder, RDM_BUNDLE's, and those that were fetched before."""
    for name, folder in places.shipped_bundles().items():
        yield ListedBundle(name=name, folder=folder, place="shipped")
    yield from own_bundles()
    yield from fetched_bundles()


def own_bundles() -> Iterator[ListedBundle]:
    """The bundles right below the working folder, and the one that RDM_BUNDLE names by its folder."""
    found = [path.parent for path in sorted(Path().glob(f"*/{INDEX}"))]
    yield from (ListedBundle(name=folder.name, folder=folder, place="this folder") for folder in found)
    named = os.environ.get("RDM_BUNDLE", "")
    is_listed = Path(named).resolve() in {folder.resolve() for folder in found}
    if named and (Path(named) / INDEX).is_file() and not is_listed:
        yield ListedBundle(name=named, folder=Path(named), place="RDM_BUNDLE")


def fetched_bundles() -> Iterator[ListedBundle]:
    """The bundles in the hub's cache, and the diffusers pipelines there that are opened as they are."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return
    found = {}
    for repository in repositories:
        for revision in repository.revisions:
            if repository.repo_type == "model" and _is_openable(revision.snapshot_path):
                for ref in revision.refs or [revision.commit_hash]:
                    name = f"hf:{repository.repo_id}" + ("" if ref == "main" else f"@{ref}")
                    found[name] = revision.snapshot_path
    yield from (ListedBundle(name=name, folder=found[name], place="hub cache") for name in sorted(found))


def _is_openable(folder: Path) -> bool:
    try:
        return "method" in read_object(folder / INDEX) or (
            read_object(folder / "unet" / "config.json").get("_class_name") == "UNet2DModel"
        )
    except (OSError, ValueError):
        return False


def summary(folder: Path) -> dict[str, Any]:
    """A bundle's facts that need no weights; raises BundleError."""
    try:
        index = read_object(folder / INDEX)
        sizes = [read_object(path).get("image_size") for path in sorted(folder.glob("*/config.json"))]
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder}: not readable ({error})") from error
    return {
        "method": index.get("method") or index.get("_class_name", "?"),
        "image_size": index.get("image_size") or next((size for size in sizes if size), None),
        "parts": list(sub_folders(folder)),
        "megabytes": megabytes(folder),
        "folder": str(folder),
    }


def megabytes(folder: Path) -> float:
    """The size of all files below ``folder``."""
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)


def attribute_names(folder: Path) -> list[str]:
    """The names of a bundle's attributes; [] where it has none that can be read."""
    try:
        names = read_object(folder / "attributes" / "attributes.json").get("names")
    except (OSError, ValueError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
