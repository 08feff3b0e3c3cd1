"""Editing with trained models: interpolation, variations, inpainting and attributes of photographs.

config          options of the commands
photographs     files of pictures and masks, as tensors of the models' size
masks           which pixels are repainted: from a file, a rectangle or a polygon, blurred on request
pairs           photographs and their masks: one of each, lists, folders
codec_space     photographs as what the models know: pixels, or the latents of a codec
inversion       z -> w by the sampler's reverse ODE, y -> x by the flow's, and the error of the way there and back
strength        how much noise is drawn anew: the photograph's own mixed with a fresh draw
interpolation   frames between two images or seeds, in w or in z, and how likely they are
variation       other images with the same z, or from the same x
inpainting      eq. 7: new pixels inside a mask, exact ones outside
seam            how visible the border of a mask is
picture_sets    two sets of pictures that differ in an attribute, each in two halves
directions      a direction that separates two sets, and its test on pictures that it was not fitted on
direction_files directions as files
attributes      a photograph moved along a direction, and what else changes
folder          the output folder, pictures with their provenance, edit.json
given           what a caller of the pipeline's methods gives: pictures, numbers, generators
pipeline        the same as methods with the names of diffusers

Source: arXiv:2505.20723, section 4.2 and eq. 7.
"""
