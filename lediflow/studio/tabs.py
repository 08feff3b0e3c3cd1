"""The four tabs of the page, one function each: explanation and controls on the left, pictures on the right."""

from __future__ import annotations

import random
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from lediflow.editing.config import KEPT, SOURCES_OF_Z
from lediflow.editing.interpolation import WAYS
from lediflow.studio.controls import QUEUE, connect, count_slider, explained, results, sliders, upload
from lediflow.studio.strokes import enlargement
from lediflow.studio.tasks import CROP, PHOTOGRAPH, Made, Sliders, Studio

SEEDS, PHOTOGRAPHS = "two seeds", "two photographs"
LARGEST_SEED, MOST_FRAMES = 9999, 15
BRUSH = ("rgb(255, 40, 120)", 0.5)
MEANING_OF_WAYS = "in the sampler's noise w, in the latents z, or on an arc in w, which keeps its length"


def pictures(made: Made) -> tuple[list[tuple[str, str | None]], str]:
    """Entries of a gallery, in which a photograph has a caption, and the text."""
    captions = ("photograph" if file.name.endswith(PHOTOGRAPH) else None for file in made.files)
    return list(zip(map(str, made.files), captions, strict=True)), made.text


def sample_tab(page: gr.Blocks, studio: Studio) -> None:
    """New pictures; the first are made when the page is opened."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            gr.Markdown("New pictures from noise. Picture *i* depends on the seed and these settings alone.")
            with gr.Row():
                button = gr.Button("Draw", variant="primary", elem_id="sample-draw", min_width=120)
                another = gr.Button("New seed", min_width=120)
            given = sliders(studio.models, "sample", fewest_steps=0)
            count = count_slider(8)
        with gr.Column(scale=2, elem_classes="results"):
            gallery, text = results("Pictures", "sample-pictures"), gr.Markdown(elem_id="sample-text")

    def task(number: float, *values: Any) -> Made:
        return studio.sample(Sliders(*values), number)

    inputs, outputs = [count, *given], [gallery, text]
    draw = connect(task, inputs, outputs, button=button, live=inputs, shown=pictures)
    page.load(draw, inputs, outputs, **QUEUE)
    chosen = another.click(lambda: random.randrange(LARGEST_SEED), None, given.seed, api_visibility="private")
    chosen.then(draw, inputs, outputs, **QUEUE)


def interpolate_tab(studio: Studio) -> None:
    """Frames between two seeds or two photographs, as a strip and an animation."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            gr.Markdown("Frames between two seeds, or two photographs, of which the central square is used.")
            source = gr.Radio([SEEDS, PHOTOGRAPHS], value=SEEDS, label="Between")
            with gr.Column() as of_seeds:
                first = gr.Slider(0, LARGEST_SEED, 0, step=1, label="Seed A")
                second = gr.Slider(0, LARGEST_SEED, 1, step=1, label="Seed B")
            with gr.Row(visible=False) as of_photographs:
                files = [upload("Photograph A", "photograph-a"), upload("Photograph B", "photograph-b")]
            button = gr.Button("Interpolate", variant="primary", elem_id="interpolate-draw")
            way = gr.Radio([*WAYS], value=WAYS[0], label="Way", info=MEANING_OF_WAYS)
            frames = gr.Slider(3, MOST_FRAMES, 9, step=1, label="Frames")
            given = sliders(
                studio.models,
                "interpolate",
                seed_meaning="of the noise that all frames start with",
                class_meaning="all frames have the first one",
            )
        with gr.Column(scale=2, elem_classes="results"):
            strip, moving = picture("Strip", "strip"), picture("Animation", "animation")
            with gr.Row():
                downloads = [
                    gr.DownloadButton(f"Download the {name}", size="sm") for name in ("strip", "animation")
                ]
            text = gr.Markdown(elem_id="interpolate-text")
    source.change(
        lambda chosen: (gr.update(visible=chosen == SEEDS), gr.update(visible=chosen == PHOTOGRAPHS)),
        source, [of_seeds, of_photographs], api_visibility="private", show_progress="hidden",
    )  # fmt: skip

    def task(between: str, a: float, b: float, file_a: Any, file_b: Any, *values: Any) -> Made:
        photographs = [file_a, file_b] if between == PHOTOGRAPHS else []
        chosen_way, number, *more = values
        return studio.interpolate(Sliders(*more), [a, b], photographs, chosen_way, number)

    inputs = [source, first, second, *files, way, frames, *given]
    live = [first, second, way, frames, *given]
    connect(
        task, inputs, [strip, moving, *downloads, text], button=button, live=live,
        shown=lambda made: (*map(str, made.files), *map(str, made.files), made.text),
    )  # fmt: skip


def inpaint_tab(studio: Studio) -> None:
    """New pixels where a mask is painted or uploaded."""
    side = studio.models.size * enlargement(studio.models.size)
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            gr.Markdown(
                f"Paint over what is to be repainted; all other pixels keep the bytes of the uploaded file, which must "
                f"have {studio.models.size} x {studio.models.size} pixels unless it is cropped and scaled. "
                "A mask as a file is white where to repaint."
            )
            photograph = upload("Photograph", "inpaint-photograph")
            crop = gr.Checkbox(label=CROP, value=False)
            mask = upload("Mask, instead of painting", "inpaint-mask")
            button = gr.Button("Inpaint", variant="primary", elem_id="inpaint-draw")
            z_from = gr.Radio(
                [*SOURCES_OF_Z], value="masked", label="z from",
                info="the visible part; the sampler; or the whole image, which has seen what is hidden",
            )  # fmt: skip
            blur = gr.Slider(0, 8, 0, step=0.5, label="Blur of the mask", info="in pixels of the models")
            count, given = count_slider(4), sliders(studio.models, "inpaint")
        with gr.Column(scale=2, elem_classes="results"):
            editor = gr.ImageEditor(
                label="Photograph, enlarged: paint here", type="numpy", image_mode="RGBA", format="png",
                sources=[], transforms=[], layers=False, canvas_size=(side, side), buttons=[],
                brush=gr.Brush(default_size=side // 16, colors=[BRUSH], default_color=BRUSH, color_mode="fixed"),
                eraser=gr.Eraser(default_size=side // 16), elem_id="editor", height=side + 90,
            )  # fmt: skip
            gallery, text = results("Results", "inpaint-pictures"), gr.Markdown(elem_id="inpaint-text")

    def on_canvas(file: str | None, is_cropped: bool) -> Any:
        """The enlarged photograph, on which nothing is painted yet."""
        if file is None:
            return None
        array = explained(studio.shown, file, is_cropped)
        picture = Image.fromarray(np.broadcast_to(array, (*array.shape[:2], 3)).copy())
        enlarged = picture.resize((side, side), Image.Resampling.NEAREST)
        return {"background": enlarged, "layers": [], "composite": None}

    gr.on(
        [photograph.upload, photograph.clear, crop.input], on_canvas, [photograph, crop], editor,
        api_visibility="private",
    )  # fmt: skip

    def task(file: Any, is_cropped: bool, strokes: Any, mask_file: Any, *values: Any) -> Made:
        soft, source, number, *more = values
        return studio.inpaint(Sliders(*more), file, is_cropped, strokes, mask_file, soft, source, number)

    inputs = [photograph, crop, editor, mask, blur, z_from, count, *given]
    live = [blur, z_from, count, *given]
    connect(task, inputs, [gallery, text], button=button, live=live, shown=pictures)


def vary_tab(studio: Studio) -> None:
    """Other versions of a photograph."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            gr.Markdown("Other versions of a photograph, of which the central square is used.")
            photograph = upload("Photograph", "vary-photograph")
            button = gr.Button("Vary", variant="primary", elem_id="vary-draw")
            keep = gr.Radio(
                [*KEPT], value="z", label="Keep",
                info="z: what the encoder sees stays, details change | x: the start of the flow stays",
            )  # fmt: skip
            count, given = count_slider(8), sliders(studio.models, "vary")
        with gr.Column(scale=2, elem_classes="results"):
            gallery, text = results("Versions", "vary-pictures"), gr.Markdown(elem_id="vary-text")

    def task(file: Any, kept: str, number: float, *values: Any) -> Made:
        return studio.vary(Sliders(*values), file, kept, number)

    inputs, live = [photograph, keep, count, *given], [keep, count, *given]
    connect(task, inputs, [gallery, text], button=button, live=live, shown=pictures)


def picture(label: str, elem_id: str) -> gr.Image:
    """One picture file as it was written."""
    return gr.Image(
        label=label, show_label=False, type="filepath", format="png", interactive=False, buttons=[],
        elem_id=elem_id, elem_classes="pixels",
    )  # fmt: skip
