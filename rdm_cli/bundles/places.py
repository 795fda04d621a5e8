"""Where bundles are found, and folders that appear whole."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rdm_cli.data.io.atomic import atomic_folder
from rdm_cli.errors import BundleError, UnknownBundleError, UsageError
from rdm_cli.registry import nearest

INDEX = "model_index.json"
FETCHED = ("*.json", "*.safetensors", "README.md")
"""Patterns of the files that a bundle is made of."""


def assets_folder() -> Path:
    """The shipped files: inside the package when installed from a wheel, else the checkout's."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "assets"
    return inside if inside.is_dir() else package.parent / "assets"


def shipped_bundles() -> dict[str, Path]:
    """Names and folders of the bundles that come with rdm."""
    folder = assets_folder() / "bundles"
    return {p.parent.name: p.parent for p in sorted(folder.glob(f"*/{INDEX}"))}


def find_bundle(spec: str, *, fetches: bool = True) -> Path:
    """The folder that ``spec`` means: a folder, a shipped name, or ``hf:owner/name[@revision]``.

    Without ``fetches``, the last is found where it was fetched before, and nowhere else. Raises
    UnknownBundleError where there is none, BundleError where it cannot be had.
    """
    if spec.startswith("hf:"):
        return fetch(spec.removeprefix("hf:"), local_only=not fetches)
    folder = Path(spec)
    if (folder / INDEX).is_file():
        return folder.resolve()
    shipped = shipped_bundles()
    if spec in shipped:
        return shipped[spec]
    if folder.is_dir():
        from rdm_cli.methods.dpm.pipelines import find_pipeline

        if find_pipeline(folder) is not None:
            return folder.resolve()
        raise UnknownBundleError(
            f"{spec}: {INDEX} is missing, so this is no bundle",
            hint="rdm bundles convert turns official checkpoints into one",
        )
    known = nearest(spec, shipped) if shipped else "no bundle is shipped with this copy"
    raise UnknownBundleError(f"{spec}: no such bundle", hint=known)


def names_bundle(spec: str) -> bool:
    """Whether ``spec`` means a bundle, as far as that is known without opening or fetching it."""
    folder = Path(spec)
    return (
        (folder / INDEX).is_file()
        or spec.startswith("hf:")
        or (spec in shipped_bundles() and not folder.is_dir())
    )


def fetch(name: str, *, local_only: bool = False, only: Sequence[str] = ()) -> Path:
    """The local copy of a repository ``owner/name[@revision]``; raises BundleError where it cannot be had.

    ``local_only``: that of an earlier time, without asking the network. ``only`` are patterns of the files
    that are wanted; none: all that a bundle may be made of.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    repository, _, revision = name.partition("@")
    safe = list(only) or list(FETCHED)
    try:
        found = snapshot_download(
            repository, revision=revision or None, allow_patterns=safe, local_files_only=local_only
        )
        if not only and not any(Path(found).rglob("*.safetensors")):
            # only 'bundles convert' reads these, and the error that names them says so
            more = [*safe, "*.bin"]
            found = snapshot_download(
                repository, revision=revision or None, allow_patterns=more, local_files_only=local_only
            )
    except RepositoryNotFoundError as error:
        raise BundleError(
            f"hf:{name}: there is no such repository, or you may not see it",
            hint="for a private one log in with 'hf auth login', or set HF_TOKEN",
        ) from error
    except RevisionNotFoundError as error:
        raise BundleError(f"hf:{name}: this repository has no revision {revision!r}") from error
    except Exception as error:  # the hub's client raises many kinds: network, name, revision, access
        if local_only:
            raise BundleError(f"hf:{name}: not fetched before, and only --bundle fetches it") from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BundleError(f"hf:{name}: cannot be fetched ({reason})") from error
    return Path(found)


def sub_folders(folder: Path) -> tuple[str, ...]:
    """The parts of a bundle; hidden folders, which a killed process may leave, are none."""
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))


def refuse_shipped(folder: Path) -> None:
    """Raise UsageError where ``folder`` is a bundle that comes with rdm, or lies in one: read-only."""
    place = folder.resolve()
    for name, shipped in shipped_bundles().items():
        if place.is_relative_to(shipped.resolve()):
            raise UsageError(
                f"{name}: this bundle comes with rdm and is read-only",
                hint=f"copy it, and name the copy: rdm bundles copy {name} DIR",
            )


def copy_bundle(spec: str, folder: Path, change: Callable[[Path], None] = lambda copy: None) -> Path:
    """Copy the bundle that ``spec`` means to ``folder``, which is new or empty; returns its source.

    ``change`` is done to the copy before it is seen: ``folder`` appears whole or not at all. Raises
    UsageError where it is taken, and for a bundle within itself.
    """
    source = find_bundle(spec)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} exists", hint="name another folder")
    if folder.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{folder}: a copy cannot lie within {source}", hint="name another folder")
    refuse_shipped(folder)
    with replace_folder(folder) as new:
        # links are followed: what the hub's client keeps are links into its own folders
        hidden = shutil.ignore_patterns(".*")
        shutil.copytree(source, new, ignore=hidden, copy_function=shutil.copyfile, dirs_exist_ok=True)
        for part in (path for path in new.rglob("*") if path.is_dir()):
            part.chmod(part.stat().st_mode | stat.S_IRWXU)  # an installation's folders may be read-only
        change(new)
    return source


def refuse_other_than_bundle(folder: Path) -> None:
    """Raise UsageError where a bundle at ``folder`` would replace a shipped one, or something else."""
    refuse_shipped(folder)
    if folder.is_dir():
        if (folder / INDEX).is_file() or not any(folder.iterdir()):
            return
        raise UsageError(
            f"{folder}: this folder holds something else than a bundle, and stays as it is",
            hint="name another folder",
        )
    if folder.exists():
        raise UsageError(f"{folder}: a file stands where the bundle should go")


@contextmanager
def replace_bundle(folder: Path) -> Iterator[Path]:
    """Like :func:`replace_folder`, for a whole bundle: only a bundle or an empty folder is replaced."""
    refuse_other_than_bundle(folder)
    with replace_folder(folder) as new:
        yield new


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """A new, empty folder that takes ``folder``'s place when the block succeeds.

    Where the block fails, or the process is killed at any moment, ``folder`` is the old one or the new one.
    """
    with atomic_folder(folder.resolve()) as new:  # a link stays, and its target is replaced
        yield new
