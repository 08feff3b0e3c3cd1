"""Pictures that a run makes from its averaged weights while it trains.

schedule   options, the milestones at which pictures are made, and the limit on their time
chain      the models at hand, and what they generate from fixed noise and fixed images
drawings   the three pictures: samples, heldout, interpolation
monitor    the pictures of a run: weights, files, events, failures

A picture is a function of the averaged weights, the held-out images and the code: every draw is keyed by a seed of its
own and by the number of the image, so that the pictures of one milestone are equal after any restart, and those of
two differ by the weights alone. No state of the training is read besides the weights, and none is changed.
"""
