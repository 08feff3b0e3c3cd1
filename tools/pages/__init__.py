"""Renders the blocks of README.md and docs/ that come from results/*.json and from the code.

blocks.py       every block by its name, and the module that renders it
markers.py      the marks around blocks in the documents
stored.py       reading of results files
keeping.py      what tools/render_results.py stores: numbers and pictures of finished runs
markdown.py     tables, numbers, the best of a column
origins.py      where numbers come from: command, commit, hardware, date
demo.py         the demo's tables
evaluations.py  grids and anonymity, whose tables `lediflow` itself writes
layers.py       the diagram of the package's layers
speed/          benchmarks of tools/bench
experiments/    experiments of tools/campaign, a module for each kind
comparison/     the comparison of all methods, over several files: tables, goals, figures
"""
