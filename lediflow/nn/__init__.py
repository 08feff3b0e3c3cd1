"""Bricks of the networks: torch, einops and jaxtyping only (on GPUs, Triton too); nothing else of this package.

Convention, everywhere: tokens lie on their grid, channels last, "batch height width channels".
Source: HDiT, arXiv:2401.11605, as released in k-diffusion's `image_transformer_v2`.
"""
