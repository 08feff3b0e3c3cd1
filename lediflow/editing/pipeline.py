"""The editing commands as methods of a pipeline, with the names that diffusers uses.

    pipeline = EditingPipeline.from_pretrained("exported")
    images = pipeline.inpaint(image=photograph, mask_image=mask, num_inference_steps=8, generator=7)

Pictures are PIL images, turned as their EXIF orientation says. Masks: white is repainted, as in files. `generator` is a
seed, or a torch.Generator whose initial seed is taken: pictures are functions of (weights, seed, number). `output_type`
is "pil", or "pt" for a tensor in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lediflow.codecs import bytes_to_signal
from lediflow.data.photograph import PILLOW_MODES, Photograph, centre_square
from lediflow.data.pixels import UnusableImageError, opaque_srgb
from lediflow.editing.anonymisation.config import FRAMING
from lediflow.editing.anonymisation.faces import faces_of_mask
from lediflow.editing.anonymisation.keys import Key
from lediflow.editing.anonymisation.surrogates import replace_faces
from lediflow.editing.attributes import found_between, moved_along
from lediflow.editing.codec_space import codec_of, data_of, picture_shape
from lediflow.editing.config import (
    ESTIMATORS,
    FITS,
    KEPT,
    SOURCES_OF_X,
    SOURCES_OF_Z,
    SPACES,
    check_choice,
    returning_solver,
)
from lediflow.editing.directions import Direction
from lediflow.editing.folder import as_image
from lediflow.editing.given import (
    JPEGS,
    OUTPUTS,
    Amounts,
    Generator,
    OutputType,
    for_each,
    is_deep,
    seed_of,
    upright,
)
from lediflow.editing.inpainting import inpaint, prepared
from lediflow.editing.interpolation import Ends, frames_along, noise_of_seeds
from lediflow.editing.inversion import encoded, latents_to_noise, noise_to_latents
from lediflow.editing.masks import MaskProcessor, mask_from
from lediflow.editing.photographs import BYTE, MODES, as_pixels, exact_pixels
from lediflow.editing.picture_sets import set_of_pictures
from lediflow.editing.strength import own_of
from lediflow.editing.variation import parts_of, varied
from lediflow.errors import UserError
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.methods import is_flow_map
from lediflow.sampling.options import AUTO, SamplingConfig
from lediflow.sampling.pictures import picture_arrays

Pictures = list[Image.Image] | Tensor


class EditingPipeline(LeDiFlowPipeline):
    """A pipeline with a learned prior that edits pictures; UserError for pictures that do not fit.

    Models of latents need their codec: `from_pretrained(..., codec=...)`. `mask_processor.blur` softens masks.
    """

    mask_processor = MaskProcessor()

    def inpaint(
        self,
        *,
        image: Image.Image | Sequence[Image.Image],
        mask_image: Image.Image | Sequence[Image.Image],
        num_inference_steps: int = 2,
        solver: str = AUTO,
        generator: Generator | Sequence[Generator] = None,
        num_images_per_prompt: int = 1,
        z_from: str = "masked",
        strength: float = 1.0,
        blur: float = 0.0,
        paste: bool = True,
        fit: str = "exact",
        output_type: OutputType = "pil",
    ) -> Pictures:
        """New pixels where the mask is white, the image's own elsewhere (eq. 7).

        `z_from`, `strength`, `paste` and `fit` as in InpaintConfig: fit="centre" takes the central squares of image and
        mask, scaled; otherwise both have the models' size.
        Lists have a mask, and if wanted a generator, for each image; one alone serves all. The results of an image are
        those that it has alone, and all of them come before those of the next image.
        """
        self._check_models()
        check_choice("z_from", z_from, SOURCES_OF_Z)
        check_choice("fit", fit, FITS)
        check_choice("output_type", output_type, OUTPUTS)
        Amounts(num_images_per_prompt=num_images_per_prompt, blur=blur)
        images: list[Any] = list(image) if isinstance(image, list | tuple) else [image]
        if not images:
            raise UserError("image is an empty list; give one picture or more")
        masks = for_each("mask_image", mask_image, len(images))
        made = []
        for one, mask, seed in zip(images, masks, for_each("generator", generator, len(images)), strict=True):
            pixels, amount = self._repainted(one, mask, blur, fit)
            latent_solver = returning_solver(AUTO, strength) if z_from == "sampler" else AUTO
            config = self._config(seed, num_inference_steps, solver, latent_solver)
            task = prepared(self, pixels, amount, config, z_from, strength=strength, is_pasted=paste)
            made.append(inpaint(self, task, list(range(num_images_per_prompt)), config).pixels)
        return returned(bytes_to_signal(torch.cat(made)), output_type)

    def interpolate(
        self,
        *,
        image: tuple[Image.Image, Image.Image] | list[Image.Image] | None = None,
        seeds: tuple[int, int] | list[int] | None = None,
        num_frames: int = 9,
        space: str = "w",
        path: str = "linear",
        num_inference_steps: int = 2,
        solver: str = AUTO,
        generator: Generator = None,
        output_type: OutputType = "pil",
    ) -> Pictures:
        """Frames between two images or two seeds, by the latent sampler's dopri5 in both directions."""
        self._check_models()
        check_choice("output_type", output_type, OUTPUTS)
        Amounts(num_frames=num_frames)
        config = self._config(generator, num_inference_steps, solver, "dopri5")
        method = config.latent_method(is_flow_map=False)
        given = image if seeds is None else seeds
        if (image is None) == (seeds is None) or not isinstance(given, list | tuple) or len(given) != 2:
            raise UserError("interpolate: give two pictures as image=[first, last], or two seeds=[0, 1]")
        if image is not None:
            z = encoded(self, torch.cat([self._data(one) for one in image]))
            ends = Ends(latents_to_noise(self, z, method).noise, z)
        else:
            w = noise_of_seeds(self, list(seeds or ()))
            ends = Ends(w, noise_to_latents(self, w, method))
        made = frames_along(self, ends, f"{space}, {path}", num_frames, config, num_frames)
        return returned(made.images, output_type)

    def vary(
        self,
        *,
        image: Image.Image,
        keep: str = "z",
        strength: float = 1.0,
        num_images_per_prompt: int = 1,
        num_inference_steps: int = 2,
        solver: str = AUTO,
        generator: Generator = None,
        output_type: OutputType = "pil",
    ) -> Pictures:
        """Other versions of an image, with its z or from its x; `strength` as in VaryConfig."""
        self._check_models()
        check_choice("keep", keep, KEPT)
        check_choice("output_type", output_type, OUTPUTS)
        Amounts(num_images_per_prompt=num_images_per_prompt)
        latent_solver = returning_solver(AUTO, strength) if keep == "x" else AUTO
        config = self._config(generator, num_inference_steps, solver, latent_solver)
        own = own_of(self, self._data(image), config, parts_of(keep, strength))
        ids = torch.arange(num_images_per_prompt, device=self.device)
        made = varied(self, own, ids, config, keep=keep, strength=strength)
        return returned(made.images, output_type)

    def find_direction(
        self,
        *,
        with_images: Sequence[Image.Image],
        without_images: Sequence[Image.Image],
        space: str = "w",
        estimator: str = "means",
        batch_size: int = 64,
    ) -> Direction:
        """The direction from pictures without an attribute to pictures with it; its `test` is on held-out halves."""
        self._check_models()
        check_choice("space", space, SPACES)
        check_choice("estimator", estimator, ESTIMATORS)
        shape = picture_shape(self)
        having = set_of_pictures(with_images, "with_images", *shape)
        lacking = set_of_pictures(without_images, "without_images", *shape)
        config = self._config(None, 1, AUTO, "dopri5")
        return found_between(
            self, having, lacking, config, space=space, estimator=estimator, batch_size=batch_size
        ).direction

    def attribute(
        self,
        *,
        image: Image.Image,
        direction: Direction,
        strengths: Sequence[float] = (-2.0, -1.0, 0.0, 1.0, 2.0),
        x_from: str = "image",
        num_inference_steps: int = 2,
        solver: str = AUTO,
        generator: Generator = None,
        output_type: OutputType = "pil",
    ) -> Pictures:
        """An image at each strength along a direction of `find_direction`."""
        self._check_models()
        check_choice("x_from", x_from, SOURCES_OF_X)
        config = self._config(generator, num_inference_steps, solver, "dopri5")
        pixels = self._pixels(image)[None]
        size = len(strengths) + 1
        made = moved_along(self, pixels, direction, strengths, config, x_from=x_from, batch_size=size)
        return returned(made.images[0], output_type)

    def anonymise(
        self,
        *,
        image: Image.Image,
        mask_image: Image.Image,
        key: bytes,
        persons: list[str],
        strength: float = 1.0,
        framing: float = FRAMING,
        num_inference_steps: int = 2,
        solver: str = AUTO,
        generator: Generator = None,
        output_type: OutputType = "pil",
    ) -> Pictures:
        """Another face in each white region of the mask, both of any size: one name for each, from left to right.

        One key gives a name one face. `strength` and `framing` as in AnonymiseConfig.
        """
        self._check_models()
        if not codec_of(self).is_exact:
            raise UserError("anonymise needs models of pixels; these were trained on latents of a codec")
        image, mask_image = upright(image, "image"), upright(mask_image, "mask_image")
        if mask_image.size != image.size:
            raise UserError(
                f"mask_image has {mask_image.size} pixels, image {image.size}; give a mask of its size"
            )
        pixels = np.array(opaque_srgb(image).convert(PILLOW_MODES[self._mode]))
        pixels = pixels.reshape(image.height, image.width, -1)
        faces = faces_of_mask(mask_from(mask_image).levels, self.image_size, framing)
        if len(faces) != len(persons):
            raise UserError(
                f"the mask has {len(faces)} regions, persons {len(persons)} names; give one for each"
            )
        config = self._config(generator, num_inference_steps, solver, "dopri5")
        made, _ = replace_faces(self, pixels, faces, persons, Key(key), strength, config)
        return returned(bytes_to_signal(torch.from_numpy(made).permute(2, 0, 1))[None], output_type)

    @property
    def _mode(self) -> str:
        return MODES[picture_shape(self)[1]]

    def _pixels(self, image: Image.Image) -> Tensor:
        """The central square of a picture in the models' size, as bytes."""
        try:
            photograph = upright(image, "image")
            square = centre_square(
                Photograph(photograph, *photograph.size), size=picture_shape(self)[0], mode=self._mode
            )
        except UnusableImageError as error:
            raise UserError(f"image is {error}; give another picture") from error
        return as_pixels(square)

    def _data(self, image: Image.Image) -> Tensor:
        """The same as the models know it, as a batch of one."""
        return data_of(self, bytes_to_signal(self._pixels(image))[None])

    def _repainted(
        self, image: Image.Image, mask_image: Image.Image, blur: float, fit: str
    ) -> tuple[Tensor, Tensor]:
        """The bytes of a picture, and the amount of its mask, in the models' size; `fit` as in InpaintConfig."""
        side, channels = picture_shape(self)
        photograph, mask = upright(image, "image"), upright(mask_image, "mask_image")
        if fit == "centre":
            pixels = self._pixels(photograph)
        else:
            pixels = exact_pixels(photograph, "image", side, channels, 2 * BYTE if is_deep(image) else BYTE)
        if mask.size != photograph.size:
            raise UserError(
                f"mask_image has {mask.size} pixels, the image {photograph.size}; give a mask of its size"
            )
        return pixels, mask_from(mask, blur, side, is_jpeg=mask_image.format in JPEGS).amount

    def _check_models(self) -> None:
        if self.auxiliary is None:
            raise UserError(
                "the Gaussian baseline has no latent z to edit with; load a pipeline with a learned prior"
            )
        if is_flow_map(self.velocity) or is_flow_map(self.latent_sampler):
            raise UserError("a flow map has no velocity to follow backwards; load its teacher's models")

    def _config(
        self, generator: Generator, steps: int, solver: str, latent_solver: str = AUTO
    ) -> SamplingConfig:
        return self.resolved(
            SamplingConfig(seed=seed_of(generator), steps=steps, solver=solver, latent_solver=latent_solver)
        )


def returned(images: Tensor, output_type: OutputType) -> Pictures:
    """Images in [-1, 1] as asked for: PIL images or the tensor."""
    if output_type == "pt":
        return images
    return [as_image(array) for array in picture_arrays(images)]
