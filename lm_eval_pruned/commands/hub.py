"""Upload a folder to the Hugging Face hub, and find out beforehand whether that will be possible."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from lm_eval_pruned.errors import ArgumentError, MissingDataError

# What the client raises for an answer of the hub, or for none (which library it makes requests with differs), and for
# a large file that cannot be sent.
_FAILURES = cast("tuple[type[Exception], ...]", (OSError, ValueError, RuntimeError, *HfHubHTTPError.__bases__))
# The hub itself puts this file into a new repository.
_OWN = ".gitattributes"
# Characters of an error of the client that are told.
_LONGEST = 300
_MESSAGE = "Upload with lm-eval-pruned"


def check_upload(repo: str) -> None:
    """Check that this user may make a repository of this name, or has an empty one.

    Raises:
        ArgumentError: the name is malformed, of somebody else, or that of a repository that holds files; nobody is
            logged in; or the token can only read.
        MissingDataError: the hub cannot be reached, or does not know the token.
    """
    if repo.count("/") != 1:
        raise ArgumentError(f"--push-to-hub {repo} is not the name of a repository: give OWNER/NAME")
    if get_token() is None:
        raise ArgumentError(
            f"--push-to-hub {repo} needs a login: run hf auth login, or set HF_TOKEN to a token that may write"
        )
    api = HfApi()
    try:
        user = api.whoami()
        _check_may_write(repo, user)
        files = sorted({*api.list_repo_files(repo)} - {_OWN})
    except RepositoryNotFoundError:
        return
    except HFValidationError as problem:
        raise ArgumentError(f"--push-to-hub {repo} is not the name of a repository: {_line(problem)}") from None
    except ArgumentError:
        raise
    except _FAILURES as problem:
        raise MissingDataError(
            f"--push-to-hub {repo}: the hub does not let this user in, or cannot be reached ({_line(problem)}): check "
            "the token and the network, or leave it out and upload the folder later with hf upload"
        ) from None
    if files:
        raise ArgumentError(
            f"--push-to-hub {repo} already holds {len(files)} files ({', '.join(files[:3])}), which a new checkpoint "
            "would be mixed with: give a new name"
        )


def upload(folder: Path, repo: str, *, private: bool) -> str:
    """Upload a folder as one commit, and return the address of its repository, which is made if there is none.

    Raises:
        MissingDataError: it cannot be uploaded; the folder stays.
    """
    api = HfApi()
    try:
        # None leaves it to the default of the owner.
        address = api.create_repo(repo, private=private or None, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message=_MESSAGE)
    except _FAILURES as problem:
        raise MissingDataError(
            f"{folder} is complete, but was not uploaded to {repo} ({_line(problem)}): try again with "
            f"hf upload {repo} {folder}"
        ) from None
    return str(address)


def _check_may_write(repo: str, user: Mapping[str, object]) -> None:
    """Check the owner of a repository and the role of the token, as far as the hub tells them."""
    organizations = user.get("orgs")
    names = [user.get("name"), *(one.get("name") for one in (organizations if isinstance(organizations, list) else []))]
    owner = repo.partition("/")[0]
    if owner not in names:
        raise ArgumentError(
            f"--push-to-hub {repo} belongs to {owner}, and you are logged in as {names[0]}: give one of "
            + ", ".join(f"{name}/{repo.partition('/')[2]}" for name in names)
        )
    auth = user.get("auth")
    token = auth.get("accessToken") if isinstance(auth, Mapping) else None
    if isinstance(token, Mapping) and token.get("role") == "read":
        raise ArgumentError(f"--push-to-hub {repo}: this token may only read: log in with one that may write")


def _line(problem: Exception) -> str:
    """Return the message of an error on one line, with that of its cause."""
    told = [str(problem), *([str(problem.__cause__)] if problem.__cause__ else [])]
    return " ".join(": ".join(told).split())[:_LONGEST]
