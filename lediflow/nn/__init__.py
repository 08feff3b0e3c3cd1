"""Building blocks of the networks. They need torch, einops and jaxtyping (and Triton on GPUs), no other package here.

Convention, everywhere: tokens are on a grid with channels last, "batch height width channels".
Source: HDiT, arXiv:2401.11605, as released in k-diffusion's `image_transformer_v2`.
"""
