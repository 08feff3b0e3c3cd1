"""Campaigns as tables: what is best, what each start is called, and where a number is missing."""

import pytest

from pages.experiments import joint_decoder, memorising, quality, samplers, small_sets, widths


def rows(z, **by_setting):
    """`midpoint4=0.5` is a row of 4 evaluations."""
    found = []
    for setting, mmd in by_setting.items():
        solver, nfe = setting[:-1], int(setting[-1])
        row = {"z": z, "solver": solver, "nfe": nfe, "mmd": mmd, "low": mmd - 0.1, "high": mmd + 0.1}
        found.append(row)
    return found


def flow(width, *all_rows, verdict=None):
    facts = {"mmd_name": "MMD (x)", "images": 1024, "reference_images": 2624, "verdict": verdict}
    return facts | {"width": width, "rows": [row for some in all_rows for row in some]}


LOSS = {"training": 0.1, "held_out": 0.25, "images_seen": 12504}
PRIOR = {"images": 133, "sigma_geometric_mean": 0.0656, "kl_nats_per_image": 205.4}


def widths_document():
    sampled = rows("sampler", none0=6.0, midpoint2=1.056, midpoint4=0.84, euler4=0.7)
    flows = {
        "s0": flow(
            0.0,
            rows("training", midpoint4=0.9),
            rows("heldout", midpoint4=1.0),
            rows("sampler", midpoint2=1.477, midpoint4=1.5),
            rows("gaussian", midpoint2=3.4, midpoint4=0.6),
        ),
        "sauto": flow(
            0.18,
            rows("training", euler4=0.4, midpoint4=0.5),
            rows("heldout", euler4=0.45, midpoint4=0.55),
            sampled,
            verdict={"limits": "flow"},
        ),
    }
    losses = dict.fromkeys(("auxiliary", "sampler", "fm", "flow_s0", "flow_sauto"), LOSS)
    return {"results": {"flows": flows, "prior_held_out": PRIOR, "losses": losses}}


def test_evaluations_are_columns_and_the_best_of_each_is_bold():
    lines = widths.lines(widths_document())
    assert lines[0] == "| start | 2 (midpoint) | 4 (euler) | 4 (midpoint) |"
    assert lines[2:5] == [
        "| FM (Gaussian noise) | 3.40 |  | **0.600** |",
        "| s = 0 | 1.48 |  | 1.50 |",
        "| auto: s = 0.18 | **1.06** | **0.700** | 0.840 |",
    ]


def test_sources_of_z_are_compared_with_a_common_solver():
    lines = widths.lines(widths_document())
    assert "| auto: s = 0.18 | 0.500 / 0.550 / 0.840 | 0.100 | 0.250 |" in lines
    assert "| sampler | 12,504 | 0.100 | 0.250 |" in lines
    assert "The stage that limits the quality, by `mode=stages`: flow 1 times." in lines
    assert "Half of a 95 % interval is 0.10 (median)" in lines[6]


@pytest.mark.parametrize(
    ("name", "width", "words"),
    [
        ("s0.45", 0.45, "s = 0.45"),
        ("sauto", 0.32, "auto: s = 0.32"),
        ("scale3_s0", 0.0, "3 sigma, s = 0"),
        ("scale3_s0.1_p2_cap100", 0.1, "3 sigma, s = 0.1, weights 2 (cap 100)"),
        ("scale1_s0.18_p3_cap1000", 0.18, "s = 0.18, weights 3 (cap 1000)"),
        ("p0_cap10_s0.45", 0.45, "s = 0.45, weights 0 (cap 10)"),
        ("floor0.2_s0", 0.0, "floor 0.2, s = 0"),
    ],
)
def test_starts_are_named_in_words(name, width, words):
    assert widths.start(name, width) == words


def test_samplers_that_were_cut_off_or_not_evaluated_are_shown_as_such():
    command = (
        "python samplers.py --solves midpoint:4 --samplers base= wide=train.images=9,train.seed=1 --stages a"
    )
    losses = LOSS | {"held_out_lowest": 0.2, "held_out_lowest_at": 8000}
    measured = flow(
        0, rows("training", midpoint4=0.5), rows("heldout", midpoint4=0.6), rows("sampler", midpoint4=0.7)
    )
    commands = [
        {"command": "python -m lediflow.train run=runs/x/sampler_base", "seconds": 9.0},
        {"command": "python -m lediflow.train run=runs/x/sampler_wide", "seconds": None},
    ]
    results = {"samplers": {"base, midpoint:4": measured}, "losses": {"base": losses, "wide": losses}}
    document = {"certificate": {"command": command}, "results": results | {"commands": commands}}
    lines = samplers.lines(document)
    assert lines[2] == "| base | `none` | 12,504 | 0.100 | 0.250 | 0.200 at 8,000 | 0.500 / 0.600 / 0.700 |"
    assert lines[3] == (
        "| wide | `train.images=9 train.seed=1` | 12,504, cut off | 0.100 | 0.250 | 0.200 at 8,000 |  |"
    )


def test_cures_have_a_line_each_and_the_losses_of_all_their_models():
    cure = flow(
        0, rows("training", midpoint4=0.5), rows("heldout", midpoint4=0.6), rows("sampler", midpoint4=0.7)
    )
    losses = dict.fromkeys(("fm", "base_aux", "base_flow", "base_sampler"), LOSS)
    lines = small_sets.lines({"results": {"cures": {"base": cure}, "losses": losses}})
    assert "| base | **0.700** |" in lines
    assert "| base | 0.500 / 0.600 / 0.700 | 0.100 | 0.250 |" in lines
    assert "| base_sampler | 12,504 | 0.100 | 0.250 |" in lines


def test_a_stopped_cure_has_the_losses_known_so_far():
    """Losses of a training that is under way, and no measurement on other pictures yet."""
    loss = LOSS | {"held_out_lowest": -1.216, "held_out_lowest_at": 21000}
    best = {"images": 1200, "nll_nats": -0.119, "sigma_geometric_mean": 0.179, "kl_nats_per_image": 60.84}
    cures = {"base": {"losses": loss, "best_on_others": best}, "decay": {"losses": LOSS}}
    lines = memorising.lines({"results": {"cures": cures}})
    assert lines[2] == "| base | -1.22 | 21,000 | 0.250 | 0.100 | -0.119 | 0.179 | 60.84 |"
    assert lines[3] == "| decay |  |  | 0.250 | 0.100 |  |  |  |"
    assert "measured on 1,200 pictures that no model was trained on" in lines[-1]


def test_decoders_are_compared_by_source_of_z_and_by_their_prior():
    prior = {"sigma": 0.0656, "residual": 0.0601, "vgl": -1.82, "mean_moved": 0.0}
    collapsed = prior | {"sigma": 0.0007, "mean_moved": 0.12}
    frozen = flow(
        0.18, rows("heldout", none0=6.0, midpoint2=1.0, midpoint4=0.9), rows("sampler", midpoint4=1.2)
    )
    joint = flow(0.18, rows("heldout", midpoint2=1.1, midpoint4=0.8), rows("sampler", midpoint4=1.3))
    setup = {
        "prior_widening": 0.18,
        "images": 12500,
        "batch": 8,
        "learning_rate": 1.5e-3,
        "decoder_rate": 0.1,
    }
    settings = {
        "frozen": frozen | {"losses": LOSS, "prior_held_out": prior},
        "joint:0": joint | {"losses": LOSS, "prior_held_out": collapsed},
    }
    results = {"settings": settings, "setup": setup, "held_out_images": 133, "prior_held_out": prior}
    lines = joint_decoder.lines({"results": results})
    assert lines[:2] == ["Z of held-out images:", ""]
    assert lines[2] == "| decoder | 2 | 4 |"
    assert "| frozen | **1.00** | 0.900 |" in lines
    assert "| trained on, not regularised | 1.10 | **0.800** |" in lines
    assert "| trained on, not regularised | 1.30 |" in lines
    assert "| before | 0.066 | 0.060 | -1.82 | 0.000 |  |  |" in lines
    assert "| trained on, not regularised | 0.001 | 0.060 | -1.82 | 0.120 | 0.100 | 0.250 |" in lines
    assert "133 held-out images" in lines[-1]


def test_without_a_sampler_decoders_are_compared_on_held_out_images_alone():
    prior = {"sigma": 0.1, "residual": 0.1, "vgl": -1.0, "mean_moved": 0.0}
    setup = {"prior_widening": 0.2, "images": 8, "batch": 8, "learning_rate": 1e-3, "decoder_rate": 0.1}
    frozen = flow(0.2, rows("heldout", midpoint2=1.0)) | {"losses": LOSS, "prior_held_out": prior}
    results = {"settings": {"frozen": frozen}, "setup": setup, "held_out_images": 9, "prior_held_out": prior}
    assert "Z from the latent sampler:" not in joint_decoder.lines({"results": results})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("frozen", "frozen"),
        ("joint:0", "trained on, not regularised"),
        ("joint:0.1", "trained on, 0.1 x log variance moved, squared"),
        ("joint_nll:1", "trained on, 1 x VGL"),
    ],
)
def test_decoder_trainings_are_named_in_words(name, words):
    assert joint_decoder.in_words(name) == words


def test_a_verdict_is_counted_with_its_cause():
    verdicts = [
        {"limits": "flow", "cause": "memorising"},
        {"limits": "flow", "cause": ""},
        {"limits": "flow"},
    ]
    lines = quality.verdicts({str(number): {"verdict": each} for number, each in enumerate(verdicts)})
    assert lines[-1].endswith("flow (memorising) 1 times, flow 2 times.")
