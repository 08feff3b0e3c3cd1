"""A page in the browser, for this machine only: try a run's models on sliders, photographs and masks.

command    `python -m lediflow.studio`: options, models, start and end
folder     the private folder of uploads and pictures, removed at the end
models     what these models can do, reasons why not, and where they are from
tasks      the functions behind the page: settings in, pictures with their provenance out
strokes    masks from what was painted in the browser
server     Gradio, set to serve 127.0.0.1 only and to load nothing from elsewhere
page       the page: its tabs, and messages for a user's mistakes
controls   sliders, uploads and results that several tabs have
tabs       one function for each tab

gradio is imported by the last three only, after `server` has set its environment.
"""

from lediflow.studio.command import main

__all__ = ["main"]
