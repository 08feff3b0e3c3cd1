"""Plots as PNG and SVG files for papers and talks, on white and in the colours of the report.

points    what the figures of quality against cost show
quality   quality against cost: Pareto panels, and the figure of `mode=stages`
prior     calibration of a learned prior
style     colours and matplotlib settings, also of the report's plots; how files are written

Import a name from its module: the package imports nothing, because matplotlib takes a third of a second and only rank 0
of some modes draws.
"""
