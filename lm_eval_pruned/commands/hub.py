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
# Names of files that an error shows.
_SHOWN = 3
# Characters of an error of the client that are told.
_LONGEST = 300
_MESSAGE = "Upload with lm-eval-pruned"


def check_upload(repo: str, *, private: bool) -> None:
    """Check that this user may make a repository of this name, or has an empty one.

    Raises:
        ArgumentError: the name is malformed, of somebody else, or that of a repository that holds files, or that
            everybody can see although `private` is asked for; nobody is logged in; or the token can only read.
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
        _check_may_write(repo, api.whoami())
        found = api.model_info(repo)
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
    files = sorted({one.rfilename for one in found.siblings or ()} - {_OWN})
    if files:
        raise ArgumentError(
            f"--push-to-hub {repo} already holds {len(files)} files ({', '.join(files[:_SHOWN])}), which a new "
            "checkpoint would be mixed with: give a new name"
        )
    if private and not found.private:
        raise ArgumentError(f"--private: {repo} exists, and everybody can see it: make it private, or give a new name")


def upload(folder: Path, repo: str, *, private: bool) -> str:
    """Upload a folder as one commit, and return the address of its repository, which is made if there is none.

    Raises:
        MissingDataError: it cannot be uploaded; the folder stays.
    """
    api = HfApi()
    try:
        # A token that may write to this repository alone may not even ask for it to be made.
        if not api.repo_exists(repo):
            # None leaves it to the default of the owner.
            api.create_repo(repo, private=private or None)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message=_MESSAGE)
    except _FAILURES as problem:
        raise MissingDataError(
            f"{folder} is complete, but was not uploaded to {repo} ({_line(problem)}): try again with "
            f"hf upload {repo} {folder}{' --private' if private else ''}"
        ) from None
    return f"{api.endpoint}/{repo}"


def _check_may_write(repo: str, user: Mapping[str, object]) -> None:
    """Check the owner of a repository and the role of the token, as far as the hub tells them."""
    organizations = user.get("orgs")
    listed = organizations if isinstance(organizations, list) else []
    names = [user.get("name"), *(one.get("name") for one in listed if one.get("roleInOrg") != "read")]
    owner = repo.partition("/")[0]
    if owner not in names:
        raise ArgumentError(
            f"--push-to-hub {repo} is not yours to write to: you are logged in as {names[0]}, so give "
            + " or ".join(f"{name}/{repo.partition('/')[2]}" for name in names)
        )
    auth = user.get("auth")
    token = auth.get("accessToken") if isinstance(auth, Mapping) else None
    if isinstance(token, Mapping) and token.get("role") == "read":
        raise ArgumentError(f"--push-to-hub {repo}: this token may only read: log in with one that may write")


def _line(problem: Exception) -> str:
    """Return the message of an error on one line, with that of its cause."""
    told = dict.fromkeys(str(one) for one in (problem, problem.__cause__) if one)
    return " ".join(": ".join(told).split())[:_LONGEST]
