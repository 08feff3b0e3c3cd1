"""Editing with trained models: interpolation, variations and inpainting of photographs.

config          options of the three commands
photographs     files of pictures and masks, as tensors of the models' size
masks           which pixels are repainted: from a file, a rectangle or a polygon, blurred on request
inversion       z -> w by the sampler's reverse ODE, y -> x by the flow's, and the error of the way there and back
strength        how much noise is drawn anew: the photograph's own mixed with a fresh draw
interpolation   frames between two images or seeds, in w or in z, and how likely they are
variation       other images with the same z, or from the same x
inpainting      eq. 7: new pixels inside a mask, exact ones outside
folder          the output folder, pictures with their provenance, edit.json
pipeline        the same as methods with the names of diffusers

Source: arXiv:2505.20723, section 4.2 and eq. 7.
"""
