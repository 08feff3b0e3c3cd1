"""Quality of generated images and what they cost, with a record of how each number was measured.

    images -> features -> distances -> metrics -> rows of results -> tables, plots, verdicts

modes/                    a module for each mode of the command: metrics, grid, prior, stages, compare, and --watch
config, session           options; the ranks, device, extractor and model loader that all modes share
images, references        numbered images from any source; real images, and which of them training held out
features/, embedding      feature extractors; features of a set, computed by all ranks and kept on disk
tiles, mmd, cmmd,         distances between sets that are spread over ranks; nearest neighbours: precision and recall,
frechet, neighbors        copies of training images
metrics                   the table of metrics, METRICS, and the row of results that they make
prior, cost               calibration of the learned prior; milliseconds of an image and the shape of its path
results, views, pictures  results.json with provenance; tables and lines of text; grids of images
plots/                    figures as PNG and SVG, and the style of all plots
"""
