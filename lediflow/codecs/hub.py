"""Weights by name: from a folder of this machine, else from the Hugging Face hub. The only home of huggingface_hub.

A folder that exists is never looked up. A name is `owner/name` or `owner/name/subfolder`; what was downloaded once
is kept in the hub's cache, and with HF_HUB_OFFLINE=1 only that cache is asked.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from lediflow.errors import UserError

HUB_NAME = re.compile(r"(?P<repository>[\w][\w.-]*/[\w][\w.-]*)(?P<subfolder>(/[\w][\w.-]*)*)")


def weights_folder(where: str, files: Sequence[str], codec: str) -> Path:
    """The folder that `where` names, with those of `files` that are there."""
    folder = Path(where).expanduser()
    if folder.exists():
        return folder
    name = HUB_NAME.fullmatch(where)
    if name is None:
        raise UserError(
            f"codec={codec}: codec.path={where} does not exist; "
            "give the folder of the weights, or a name on the hub such as owner/name or owner/name/subfolder"
        )
    prefix = name["subfolder"].removeprefix("/")
    wanted = [f"{prefix}/{file}" if prefix else file for file in files]
    return _downloaded(name["repository"], wanted, where, codec) / prefix


def _downloaded(repository: str, files: list[str], where: str, codec: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=files))
    except (OSError, ValueError) as error:  # the hub's own errors, and those of the network and the disk
        advice = _advice(error)
        raise UserError(
            f"codec={codec}: codec.path={where} is no folder here, and the hub's {repository} cannot be had: {advice}"
        ) from error


def _advice(error: Exception) -> str:
    """What happened and the next move."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    match error:
        case GatedRepoError():
            return "its owner asks for consent; accept the terms on its page, then `hf auth login` or set HF_TOKEN"
        case RepositoryNotFoundError():
            return "there is none of that name (or it is private: `hf auth login`); check the spelling"
        case LocalEntryNotFoundError() if isinstance(error.__cause__, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set and it is not in the cache; unset it once, or copy the folder here"
        case LocalEntryNotFoundError():
            return (
                "it is not in the cache and the hub does not answer; check the network (HF_ENDPOINT, proxies), "
                "or download it elsewhere and give its folder"
            )
    return f"{str(error).splitlines()[0]}; check the network and the disk, or give a folder"
