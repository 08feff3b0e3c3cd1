"""`python -m lediflow.checkpoint inspect|verify|export RUN`: list or verify a run's checkpoints, or export weights."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from lediflow.claims import claim_folder
from lediflow.config.composition.literal import check_utf8
from lediflow.engine.checkpoints import Checkpoint, CheckpointFolder, find_fault
from lediflow.engine.checkpoints.averages import Snapshots, averaged_afterwards, find_snapshot_fault, raw
from lediflow.errors import BAD_REQUEST, UserError, lasting_fault
from lediflow.models.export import CONFIG, save_tensors
from lediflow.records import object_if_any
from lediflow.run_folder import RunFolder
from lediflow.text import PLANNED, duration, gigabytes, megabytes, number_table
from lediflow.training.exporting import BEST, LAST, WEIGHTS, export_weights, facts_of_weights

WHICH = {None: None} | {words: which for which, words in WEIGHTS.items()}  # --weights -> train.export


def main() -> None:
    arguments = parse_arguments()
    try:
        for word in sys.argv[1:]:
            check_utf8(word)
        arguments.task(RunFolder(arguments.run), arguments)
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_REQUEST)
    except OSError as error:
        print(f"error: {lasting_fault(error) or error}", file=sys.stderr)
        sys.exit(BAD_REQUEST)


def inspect(folder: RunFolder, arguments: argparse.Namespace) -> None:
    """Print a table of all checkpoints, valid or damaged, and the stored averages."""
    rows = [["images", "steps", "ranks", "size", "age", "state"]]
    rows += [row_of(path) for path in paths_of(folder)]
    print(number_table(rows))
    if stored := Snapshots(folder.averages).paths():
        places = ", ".join(f"{int(path.stem):,}" for path in stored)
        print(f"\n  stored averages at {places} images ({size_text(sum(map(size_of, stored)))})")
        for path, fault in ((path, find_snapshot_fault(path)) for path in stored):
            if fault:
                print(f"  {path.name}: {fault}")


def row_of(path: Path) -> list[str]:
    """The row of a checkpoint in the table, also if it disappears meanwhile."""
    try:
        return described(path)
    except OSError as error:  # a running training may remove old checkpoints
        return [f"{int(path.name):,}", "?", "?", "?", "?", f"missing, or cannot be read ({error})"]


def described(path: Path) -> list[str]:
    """Images, steps, ranks, size, age and state of a checkpoint."""
    fault = find_fault(path)
    progress = Checkpoint(path).progress if fault is None else {}
    steps, ranks = (str(progress.get(key, "?")) for key in ("optimizer_steps", "ranks"))
    age = duration(time.time() - path.stat().st_mtime, PLANNED)
    return [f"{int(path.name):,}", steps, ranks, size_text(size_of(path)), age, fault or "whole"]


def verify(folder: RunFolder, arguments: argparse.Namespace) -> None:
    """Verify the hashes of all checkpoints and stored averages; UserError that names the damaged ones."""
    checked = {path: find_fault(path) for path in paths_of(folder)}
    # a running training may have removed some in the meantime
    faults = {path: fault for path, fault in checked.items() if path.exists()}
    stored = {path: find_snapshot_fault(path) for path in Snapshots(folder.averages).paths()}
    for path, fault in (faults | stored).items():
        print(f"{path}: {fault or 'whole'}")
    advice = []
    if broken := [path.name for path, fault in faults.items() if fault]:
        advice.append(
            f"{len(broken)} of {len(faults)} checkpoints of {folder.root} are broken ({', '.join(broken)}); a run "
            f"continues from the newest of the {len(faults) - len(broken)} whole ones. Remove the broken ones; they "
            "are useless"
        )
    if broken := [path.name for path, fault in stored.items() if fault]:
        advice.append(
            f"{len(broken)} of {len(stored)} stored averages of {folder.root} are broken ({', '.join(broken)}); "
            "export --ema leaves them out"
        )
    if advice:
        raise UserError(". ".join(advice))


def export(folder: RunFolder, arguments: argparse.Namespace) -> None:
    """Write weights of one checkpoint to an export folder."""
    checkpoint = chosen(folder, arguments.images)
    output = arguments.output or folder.export
    if arguments.output is not None:
        claim_folder(output, "--output", "lediflow.checkpoint export", is_export)
    seen, origin = checkpoint.images_seen, "averaged"
    if arguments.ema is not None:
        averaged = averaged_afterwards(checkpoint, Snapshots(folder.averages), arguments.ema)
        origin = f"averaged afterwards, sigma_rel {arguments.ema}, misfit {averaged.misfit:.2%}"
        save_tensors(averaged.weights, output, facts_of_others(checkpoint, origin))
    elif arguments.weights == "raw":
        origin = "raw"
        save_tensors(raw(checkpoint), output, facts_of_others(checkpoint, origin))
    else:
        facts = export_weights(checkpoint, output, WHICH[arguments.weights], weights=origin)
        seen = facts["images_seen"]
        if facts["export"] == BEST:
            origin = f"averaged, of the best validation until {checkpoint.images_seen:,} images"
    print(f"{output}: weights at {seen:,} images, {origin}")


def facts_of_others(checkpoint: Checkpoint, origin: str) -> dict[str, Any]:
    """Facts for the export of weights that were not validated."""
    return facts_of_weights(checkpoint, LAST) | {"held_out_loss": None, "weights": origin}


def is_export(folder: Path) -> bool:
    """Whether the folder has an export, also one of an earlier release."""
    return "weights_sha256" in object_if_any(folder / CONFIG)


def chosen(folder: RunFolder, images: int | None) -> Checkpoint:
    """The newest valid checkpoint, or the one at `images`; UserError if it does not exist or is damaged."""
    checkpoints = CheckpointFolder(folder.checkpoints)
    if images is None:
        paths_of(folder)
        if (newest := checkpoints.newest()) is None:
            raise UserError(f"{folder.root} has no valid checkpoint; `verify` prints the fault of each")
        return newest
    found = {int(path.name): path for path in paths_of(folder)}
    if images not in found:
        raise UserError(
            f"there is no checkpoint at {images} images; choose one of {', '.join(map(str, found))}"
        )
    if fault := find_fault(found[images]):
        raise UserError(f"{found[images]} is broken: {fault}; choose another --images")
    return Checkpoint(found[images])


def paths_of(folder: RunFolder) -> list[Path]:
    """All checkpoints of a run; UserError if there are none."""
    if paths := CheckpointFolder(folder.checkpoints).paths():
        return paths
    raise UserError(f"{folder.root} has no checkpoints; give the run folder of lediflow.train")


def size_text(size: int) -> str:
    """A number of bytes in MB or GB."""
    return megabytes(size) if size < 10**9 else gigabytes(size)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lediflow.checkpoint",
        description="List or verify the checkpoints of a run, or export weights from them.",
    )
    verbs = parser.add_subparsers(required=True, metavar="inspect|verify|export")
    for task, text in (
        (inspect, "print a table of the checkpoints and stored averages"),
        (verify, "verify the hash of every file; exit status 2 if one is damaged"),
        (export, "write weights to the export folder, which sampling loads"),
    ):
        verb = verbs.add_parser(task.__name__, help=text, description=text)
        verb.add_argument("run", type=Path, metavar="RUN", help="run folder of lediflow.train")
        verb.set_defaults(task=task)
    verb.add_argument(
        "--images", type=int, help="images seen at the checkpoint (default: the newest valid one)"
    )
    verb.add_argument("--output", type=Path, help="the export folder (default: RUN/export)")
    which = verb.add_mutually_exclusive_group()
    which.add_argument(
        "--weights",
        choices=["averaged", "best", "raw"],
        help="averaged weights at the end | averaged weights at the lowest held-out loss | weights of the last step "
        "(default: averaged or best, according to the run's train.export)",
    )
    which.add_argument(
        "--ema",
        type=float,
        metavar="SIGMA_REL",
        help="an average with this EDM2 width, computed from the stored averages",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
