"""The page: a tab for each task, the models and where they are from, fonts of the user's system."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lediflow.studio.models import INPAINT, INTERPOLATE, SAMPLE, VARY
from lediflow.studio.tabs import inpaint_tab, interpolate_tab, sample_tab, vary_tab
from lediflow.studio.tasks import Studio

TITLE = "LeDiFlow studio"
CSS = """
.pixels img { image-rendering: pixelated; }
#strip img, #animation img { height: auto; object-fit: contain !important; }
#strip img { width: 100%; }
#animation img { width: 256px; }
.results { position: sticky; top: 8px; align-self: flex-start; }
.results pre code { white-space: pre-wrap; }
.gradio-container { max-width: 1200px !important; }
"""
# names of fonts that systems have: Gradio's default theme would load others from the web
THEME = gr.themes.Soft(
    primary_hue="orange",
    neutral_hue="stone",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)
# how often, and from which age on, Gradio's copies of pictures are removed, in seconds
HOUR, DAY = 3600, 86_400
LOOKS: dict[str, Any] = {"theme": THEME, "css": CSS}  # arguments of Blocks.launch


def build(studio: Studio) -> gr.Blocks:
    """The page of a studio."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(HOUR, DAY)) as page:
        gr.Markdown(f"# {TITLE}\nTry a model: everything is computed on this machine, and nothing leaves it.")
        with gr.Tabs():
            with gr.Tab(SAMPLE):
                sample_tab(page, studio)
            for name, tab in ((INTERPOLATE, interpolate_tab), (INPAINT, inpaint_tab), (VARY, vary_tab)):
                with gr.Tab(name):
                    if reason := studio.models.reason_against(name):
                        gr.Markdown(reason)
                    else:
                        tab(studio)
        with gr.Accordion("Models and provenance", open=False):
            gr.Markdown(provenance(studio))
    return page


def provenance(studio: Studio) -> str:
    """The models as a table, and what the files of pictures say about their origin."""
    rows = [
        f"| {model} | `{run}` | {count} | `{digest}` |" for model, run, count, digest in studio.models.table()
    ]
    said = "holds" if studio.models.command.metadata else "would hold, without `--no-metadata`,"
    return "\n".join(
        [
            "| model | run | parameters | SHA-256 of the weights |",
            "|---|---|---:|---|",
            *rows,
            "",
            f"Pictures of {studio.models.size} x {studio.models.size} pixels, computed on "
            f"`{studio.models.pipeline.device}`. A downloaded file {said} these hashes, the seed, all settings and the "
            "hashes of its photograph and mask, as JSON in a text chunk `lediflow` (GIF: comment).",
        ]
    )
