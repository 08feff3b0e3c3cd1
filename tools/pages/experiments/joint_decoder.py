"""Tables of results/campaign/joint_*.json: decoders of the prior that are trained together with the flow."""

from __future__ import annotations

from pages.experiments.losses import loss_cells
from pages.experiments.quality import by_flow, taken_on
from pages.markdown import number, table
from pages.stored import Results

SOURCES = {"heldout": "Z of held-out images", "sampler": "Z from the latent sampler"}
HEADS = ["decoder", "sigma", "residual", "VGL", "mean moved by", "flow's loss, training", "held-out"]


def lines(document: Results) -> list[str]:
    """Quality by source of z, and measures of the prior on held-out images."""
    results, measured = document["results"], document["results"]["settings"]
    names = {name: in_words(name) for name in measured}
    found: list[str] = []
    for z, words in SOURCES.items():
        if any(row["z"] == z for one in measured.values() for row in one["rows"]):
            found += [f"{words}:", "", *by_flow(measured, names, z, "decoder"), ""]
            found += [f"{taken_on(measured, z)} The best of a column is bold.", ""]
    body = [prior_row("before", results["prior_held_out"], {})]
    body += [prior_row(names[name], one["prior_held_out"], one["losses"]) for name, one in measured.items()]
    return [*found, *table(HEADS, body), "", about_priors(results)]


def prior_row(name: str, prior: Results, losses: Results) -> list[str]:
    measures = (number(prior[key]) for key in ("sigma", "residual", "vgl", "mean_moved"))
    return [name, *measures, *loss_cells(losses)]


def about_priors(results: Results) -> str:
    setup = results["setup"]
    return (
        f"Typical sigma and residual (geometric means), VGL and root mean square by which mu moved, on "
        f"{results['held_out_images']:,} held-out images; sigma is not widened, the start is (s = "
        f"{setup['prior_widening']:g}). The flow's losses are without the regulariser; each weighs errors by its own "
        f"sigma. {setup['images']:,} images seen, batch {setup['batch']}, learning rate {setup['learning_rate']:g}, "
        f"of the decoder {setup['decoder_rate']:g} times that."
    )


def in_words(name: str) -> str:
    """A setting's name in words: `joint:0.1` is "trained on, 0.1 x log variance moved, squared"."""
    kind, _, weight = name.partition(":")
    if kind == "frozen":
        return kind
    if float(weight) == 0:
        return "trained on, not regularised"
    return f"trained on, {weight} x {'VGL' if kind == 'joint_nll' else 'log variance moved, squared'}"
