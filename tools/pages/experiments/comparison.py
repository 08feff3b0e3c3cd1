"""Tables of results/campaign/comparison_*.json: losses of the models, and which stage limits the quality."""

from __future__ import annotations

from pages.experiments.losses import losses_table
from pages.markdown import number, table
from pages.stored import Results, by_key

SOURCES = {
    "training": "training images",
    "heldout": "held-out images",
    "sampler": "the latent sampler",
    "gaussian": "no z: FM",
}


def lines(document: Results) -> list[str]:
    """Images seen and losses of the models of a comparison, by seed, and which stage limits the quality."""
    found: list[str] = []
    for seed, one in document["results"]["seeds"].items():
        found += [f"Models of seed {seed}:", "", *losses_table(one["losses"]), ""]
    return [*found[:-1], *stage_lines(document["results"].get("stages"))]


def stage_lines(stages: Results | None) -> list[str]:
    """The quality with latents from each source, and the verdict of `evaluate mode=stages`."""
    if stages is None:
        return []
    sources = dict.fromkeys(row["z"] for row in stages["rows"])
    values = by_key(stages["rows"], lambda row: (row["z"], row["nfe"]), "mmd")
    counts = sorted({nfe for _, nfe in values})
    heads = ["z of", *(f"{nfe}" if nfe else "prior alone" for nfe in counts)]
    body = [[SOURCES[z], *(number(values.get((z, nfe))) for nfe in counts)] for z in sources]
    head = (
        f"Which stage limits the quality (`evaluate mode=stages` of `wide`, {stages['images']:,} images of each "
        "source), by evaluations of the flow model:"
    )
    return ["", head, "", *table(heads, body), "", f"> {stages['verdict']['text']}"]
