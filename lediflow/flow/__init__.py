"""The mathematics of LeDiFlow: paths, Gaussians, losses, solvers and noise.

Needs torch, no other package here. Everywhere, t = 0 is the prior (x_0), t = 1 is data (x_1), and images are float in
[-1, 1]. Source: arXiv:2505.20723. Symbols follow the paper.
"""
