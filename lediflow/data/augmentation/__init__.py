"""Images flipped, scaled, rotated, stretched and shifted at random, with nine numbers that describe the transformation.

A model that is given the numbers learns the transformed images as a condition; given zeros, it generates images without
transformation. So the transformations do not leak into what is generated.

config      which transformations, and how often
draws       what is done to the k-th image of a run, and its nine numbers
geometry    from the draws to where each output point lies in the image
resampling  images along such a map: reflected borders, no aliasing
applying    all of it, for a batch

Source: Karras et al., arXiv:2206.00364, appendix F.2; numbers, their order and scale, and the order of the
transformations as in k-diffusion's `KarrasAugmentationPipeline`.
"""
