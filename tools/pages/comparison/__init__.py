"""The comparison of all methods (tools/campaign/comparison.py) over sets, trainings and earlier campaigns.

sets.py         names of sets and methods; a set with its numbers
reading.py      sets from the stored results
tables.py       quality by set, method and evaluations
unseen.py       the same against held-out photographs, and copies
goals.py        the rule for "as good as", and the goals
decoded.py      sets of latents against a codec's reconstructions
times.py        milliseconds an image
factors.py      milliseconds at equal quality
maps.py         flow maps against their teachers
starts.py       the wide start against the default one
repeats.py      methods that were trained more than once
photographs.py  quality by the number of photographs
figures.py      quality against evaluations and milliseconds
samples.py      grids of generated images
"""
