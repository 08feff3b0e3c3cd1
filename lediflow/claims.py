"""Output folders: a command writes only into a folder that is empty or its own.

A folder is a command's own if it holds a record that the command wrote: samples.json, index.json, lease.json, ... If
the record is written last, `claim_folder` first writes a hidden file CLAIM, so that a command that was killed
recognises its folder when it runs again.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lediflow.disk import write_json
from lediflow.errors import UserError, disk_errors_explained
from lediflow.records import object_if_any

CLAIM = ".lediflow.json"
NAMED = 3  # most files that a message names


def visible_names(folder: Path) -> list[str]:
    """Sorted names in a folder, without hidden ones; an empty list if there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def named(names: Sequence[str]) -> str:
    """The first NAMED names as text, and the number of the others."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def refuse_foreign(folder: Path, option: str, names: Sequence[str]) -> None:
    """UserError if there are `names` in the folder that `option` gives, which does not belong to this command."""
    if names:
        raise UserError(
            f"{option}={folder} is not empty (found {named(names)}), and nothing there says that this command wrote "
            "it; choose another folder, or empty this one"
        )


def claim_folder(folder: Path, option: str, command: str, is_ours: Callable[[Path], bool]) -> None:
    """Make the folder and write the mark of `command`, before anything else is written there.

    `is_ours` recognises folders without a mark. Raises UserError if the folder cannot be written, or if it holds
    visible files and neither the mark nor `is_ours` says that they are the command's.
    """
    mark: dict[str, Any] = {"command": command}
    with disk_errors_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if object_if_any(folder / CLAIM).get("command") == command:
            return
        if not is_ours(folder):
            refuse_foreign(folder, option, visible_names(folder))
        write_json(folder / CLAIM, mark)
