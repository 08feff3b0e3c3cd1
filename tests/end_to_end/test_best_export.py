"""A run that memorises says so, and exports the weights of its best validation; what depends on them pins them."""

import json
import re
import shutil

import pytest
from harness.commands import invoke, succeed
from harness.memorising import BEST, OPTIONS, PATIENCE, noise_shards

from lediflow.evaluation.modes.watch import is_finished
from lediflow.run_folder import RunFolder
from lediflow.status import overview_of
from lediflow.tracking.event_log import TURNED, read_events

REFUSED = 2


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("memorising")
    noise_shards(root)
    return root


def options(root, run, *more):
    return (*OPTIONS, f"data.path={root}/noise", f"run={root}/runs/{run}", *more)


@pytest.fixture(scope="module")
def best(root):
    """(run folder, what its training said)."""
    return root / "runs" / "best", succeed("train", *options(root, "best", *BEST)).err


@pytest.fixture(scope="module")
def last(root, best):
    """As long as the other, without patience."""
    end = facts(best[0] / "export")["trained_images"]
    return root / "runs" / "last", succeed("train", *options(root, "last", f"train.images={end}")).err


def facts(folder):
    return json.loads((folder / "config.json").read_text())


def test_the_export_says_which_weights_it_holds(best, last):
    validations = [e for e in read_events(best[0] / "events.jsonl") if e["event"] == "validation"]
    lowest = min(validations, key=lambda event: event["averaged_loss"])
    found = facts(best[0] / "export")
    assert (found["export"], found["ended"]) == ("best", "patience")
    assert (found["images_seen"], found["held_out_loss"]) == (lowest["images_seen"], lowest["averaged_loss"])
    assert found["trained_images"] == found["images_seen"] + PATIENCE == validations[-1]["images_seen"]
    found = facts(last[0] / "export")
    assert (found["export"], found["ended"]) == ("last", "images")
    assert found["images_seen"] == found["trained_images"]
    assert found["held_out_loss"] == validations[-1]["averaged_loss"]


def test_a_turned_loss_is_reported_once_during_the_run_and_in_the_last_line(best, last):
    seen, end = (facts(best[0] / "export")[key] for key in ("images_seen", "trained_images"))
    for folder, said in (best, last):
        (event,) = [event for event in read_events(folder / "events.jsonl") if event["event"] == TURNED]
        assert seen < event["images_seen"] < end
        lowest = f"held-out loss was lowest, {event['best_loss']:.3g}, at {seen:,} images and is +"
        assert event["message"].startswith(lowest)
        assert said.count(event["message"]) == 1
    final = best[1].splitlines()[-1]
    assert f"stopped at {end:,} images by train.patience_images={PATIENCE}: " in final
    assert final.endswith(f"exported are the averaged weights of {seen:,} images")
    assert f"weights of {end:,} images, which memorise: use train.export=best" in last[1].splitlines()[-1]


def test_the_overview_says_done_and_what_happened(best, last, root):
    words = {row.name: row.state.words for row in overview_of(root / "runs").rows}
    turned = f"; held-out loss has turned: lowest -0.0\\d+ at {facts(best[0] / 'export')['images_seen']:,} images, "
    assert re.match(re.escape("done (patience)") + turned, words["best"])
    assert re.match("done" + turned, words["last"])


def test_the_same_command_finds_it_finished_and_another_export_is_refused(best, root):
    end = facts(best[0] / "export")["trained_images"]
    assert f"finished ({end} images): nothing to do" in succeed("train", *options(root, "best", *BEST)).err
    said = invoke("train", *options(root, "best", *BEST, "train.export=last"))
    assert (said.status, "train.export: best, now last" in said.err) == (REFUSED, True)
    assert said.err.endswith(f"python -m lediflow.checkpoint export {best[0]} --weights averaged\n")


def test_the_best_weights_of_a_run_that_did_not_keep_them_need_another_run(last, root):
    end = facts(last[0] / "export")["trained_images"]
    said = invoke("train", *options(root, "last"), f"train.images={end}", "train.export=best")
    assert (said.status, "train.export: last, now best" in said.err) == (REFUSED, True)
    assert said.err.endswith(f"train again with another run=, such as run={last[0]}-best\n")


def test_watch_ends_when_patience_ended_the_run(best, tmp_path):
    folder = RunFolder(shutil.copytree(best[0], tmp_path / "run"))
    assert is_finished(folder)
    shutil.rmtree(folder.export)  # as before the end
    assert not is_finished(folder)


def test_shortening_patience_below_the_images_seen_finishes_the_run(last, root, tmp_path):
    run, end = shutil.copytree(last[0], tmp_path / "run"), facts(last[0] / "export")["trained_images"]
    longer = (
        *options(root, "last", f"run={run}"),
        f"train.images={2 * end}",
        f"train.patience_images={PATIENCE}",
    )
    said = succeed("train", *longer).err
    assert f"stopped at {end:,} images by train.patience_images={PATIENCE}: " in said
    assert facts(run / "export")["ended"] == "patience"
    assert f"finished ({end} images): nothing to do" in succeed("train", *longer).err


def test_the_best_is_exported_again_to_the_same_file_and_others_on_request(best, last, tmp_path):
    run, found = best[0], facts(best[0] / "export")
    said = succeed("checkpoint", "export", run, "--output", tmp_path / "again").out
    until = f"averaged, of the best validation until {found['trained_images']:,} images"
    assert said == f"{tmp_path}/again: weights at {found['images_seen']:,} images, {until}\n"
    assert facts(tmp_path / "again")["weights_sha256"] == found["weights_sha256"]
    succeed("checkpoint", "export", run, "--weights", "averaged", "--output", tmp_path / "averaged")
    assert facts(tmp_path / "averaged")["weights_sha256"] == facts(last[0] / "export")["weights_sha256"]
    succeed("checkpoint", "export", run, "--ema", "0.075", "--output", tmp_path / "longer")
    longer = facts(tmp_path / "longer")
    assert (longer["export"], longer["images_seen"], longer["held_out_loss"]) == (
        "last", found["trained_images"], None,
    )  # fmt: skip
    said = invoke("checkpoint", "export", last[0], "--weights", "best", "--output", tmp_path / "none")
    assert (said.status, "was not trained with train.export=best" in said.err) == (REFUSED, True)
    assert said.err.endswith(f"python -m lediflow.checkpoint export {last[0]} --weights averaged\n")


def test_a_dependent_run_records_the_hash_of_the_exported_weights(best, root, tmp_path):
    parent = shutil.copytree(best[0], tmp_path / "auxiliary")
    child = (*OPTIONS[:1], "stage=flow", *OPTIONS[2:6], "data.held_out_fraction=0.9", "train.images=32",
             f"data.path={root}/noise", f"run={tmp_path}/flow", f"parent={parent}")  # fmt: skip
    succeed("train", *child)
    pinned = facts(tmp_path / "flow" / "export")["parent"]["sha256"]
    assert pinned == facts(parent / "export")["weights_sha256"]
    succeed("checkpoint", "export", parent, "--weights", "averaged")
    said = invoke("train", *child, "train.images=64")
    assert (said.status, f"parent: {pinned}" in said.err) == (REFUSED, True)
    succeed("checkpoint", "export", parent)  # the best again
    succeed("train", *child, "train.images=64")
