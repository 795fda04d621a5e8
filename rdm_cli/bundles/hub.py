"""Bundles go to the Hugging Face hub: all files in one commit, the card with a head that it reads.

They come from there by :func:`rdm_cli.bundles.places.fetch`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdm_cli.bundles.places import FETCHED, INDEX
from rdm_cli.data.io.json_text import read_object
from rdm_cli.errors import BundleError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, HfApi

LIBRARY = "rdm"
TAGS = ("rdm", "representation-learning", "diffusion", "image-editing", "safetensors")
OUTSIDE = frozenset((".gitattributes",))  # what the hub puts into a new repository itself
_PROBES = "attributes, by linear probes on z"


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """Where a bundle is now: its ``address``, the ``commit``, and how many files stayed behind."""

    address: str
    commit: str
    num_left: int


def push(
    folder: Path,
    repository: str,
    *,
    name: str,
    private: bool = False,
    branch: str | None = None,
    licence: str | None = None,
    force: bool = False,
) -> Pushed:
    """Make ``repository``, ``owner/name``, hold the bundle in ``folder``, and of other bundles nothing.

    A repository that is not there is made, and so is a ``branch``; None: the main one. All files come with
    one commit: they are there together, or none is. Raises UsageError for one that holds something else than
    a bundle of rdm's, unless ``force`` is given, and where a private one is asked for and it is public;
    BundleError where the hub refuses or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    every = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_hidden(path, folder)]
    files = {path.relative_to(folder).as_posix(): path for path in every if _is_fetched(path.name)}
    card = published_card(folder, name=name, licence=licence)
    api = HfApi(library_name=LIBRARY)
    with _told(repository):
        try:
            is_private = api.repo_info(repository).private
        except RepositoryNotFoundError:
            # without the flag, what the owner has chosen for new repositories
            _ = api.create_repo(repository, private=True) if private else api.create_repo(repository)
            is_private = private
        if private and not is_private:
            raise UsageError(
                f"hf:{repository}: this repository is public, and a push does not change that",
                hint="make it private on its page, or name another",
            )
        if branch is not None:
            api.create_branch(repository, branch=branch, exist_ok=True)
        there = set(api.list_repo_files(repository, revision=branch)) - OUTSIDE
        if there and not force and not _is_bundle(api, repository, branch, there):
            raise UsageError(
                f"hf:{repository}: holds something else than a bundle, and stays as it is",
                hint="name another repository, or replace what is there with --force",
            )
        gone = [path for path in sorted(there - files.keys()) if _is_fetched(path.rpartition("/")[2])]
        commit = api.create_commit(
            repository,
            operations=[
                *(CommitOperationDelete(path) for path in gone),
                *(
                    CommitOperationAdd(path, card.encode() if path == "README.md" else str(files[path]))
                    for path in files
                ),
            ],
            commit_message=f"rdm bundles push {name}",
            revision=branch,
        )
    address = f"{api.endpoint}/{repository}" + (f"/tree/{branch}" if branch else "")
    return Pushed(address=address, commit=str(commit.oid), num_left=len(every) - len(files))


def published_card(folder: Path, *, name: str, licence: str | None = None) -> str:
    """The bundle's model card with the head that the hub reads: what it is, its licence, and what it scored.

    What a head that is there already says besides, stays. ``licence`` is an identifier of the hub's, such as
    ``mit``; None: that of the head. Raises BundleError where the head cannot be read.
    """
    import yaml
    from huggingface_hub import ModelCardData

    content = (folder / "README.md").read_text(encoding="utf-8")
    head, text = _apart(content)
    try:
        data = ModelCardData(**(yaml.safe_load(head) or {}))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BundleError(f"{folder / 'README.md'}: its head cannot be read ({reason})") from error
    index = read_object(folder / INDEX)
    data.library_name = data.library_name or LIBRARY
    data.license = licence or data.license
    data.tags = list(dict.fromkeys([*(data.tags or []), *TAGS, str(index["method"])]))
    data.model_name = data.model_name or name
    others = [result for result in data.eval_results or [] if result.task_name != _PROBES]
    data.eval_results = [*others, *_scores(folder)] or None
    return f"---\n{data.to_yaml()}\n---\n\n{text}"


def _apart(content: str) -> tuple[str, str]:
    """A card's head and what follows it."""
    if not content.startswith("---\n"):
        return "", content
    head, _, text = content.removeprefix("---\n").partition("\n---\n")
    return head, text.lstrip("\n")


def _scores(folder: Path) -> Iterator[EvalResult]:
    """The held-out scores of the attributes, which the bundle stores."""
    from huggingface_hub import EvalResult

    path = folder / "attributes" / "attributes.json"
    scores: dict[str, dict[str, Any]] = read_object(path).get("scores", {}) if path.is_file() else {}
    for attribute, score in scores.items():
        for key, kind, called in (
            ("auroc", "roc_auc", "AUROC"),
            ("average_precision", "average_precision", "average precision"),
        ):
            if key in score:
                yield EvalResult(
                    task_type="image-feature-extraction",
                    task_name=_PROBES,
                    dataset_type="held-out-codes",
                    dataset_name="codes held out when the attributes were trained",
                    metric_type=kind,
                    metric_name=f"{called}, {attribute}",
                    metric_value=round(float(score[key]), 4),
                )


def _is_fetched(name: str) -> bool:
    return any(Path(name).match(pattern) for pattern in FETCHED)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _is_bundle(api: HfApi, repository: str, branch: str | None, there: set[str]) -> bool:
    """Whether a repository holds a bundle of rdm's; a diffusers pipeline has such an index, too."""
    if INDEX not in there:
        return False
    try:
        return "method" in read_object(Path(api.hf_hub_download(repository, INDEX, revision=branch)))
    except ValueError:
        return False


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """Whatever the hub's client raises, as a BundleError of one line that says what helps."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # many kinds: network, name, access, and those of the HTTP library
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 401:
            raise BundleError(
                f"hf:{repository}: the hub does not know who you are",
                hint="log in with 'hf auth login', or set HF_TOKEN",
            ) from error
        if status == 403:
            raise BundleError(
                f"hf:{repository}: you may not write there",
                hint="name a repository of your own, or use a token that may write",
            ) from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BundleError(f"hf:{repository}: cannot be pushed ({reason})") from error
