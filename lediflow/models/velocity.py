"""The two velocity models: the flow, from a draw of the prior to an image, and the latent sampler, from noise to z.

The flow model gives the velocity v_t(x, z) that carries a draw from the prior to an image. The latent z is an input in
one of three ways:

    vector   flattened into the hourglass's conditioning vector, which all layers use
    concat   resized to the image and appended to its channels
    tokens   resized to the coarsest token grid, projected, and added to the tokens there

Without a latent the same network is the flow-matching baseline.

Both can be conditioned on classes: labels run from 0 to num_classes - 1, and num_classes means "no class", which
classifier-free guidance uses.

Both can be flow maps: with a second time s they give the mean velocity u(x, t, s) between t and s, and
x + (s - t) u(x, t, s) is the state at s. Without s, or with s = t, a flow map gives the velocity.

The latent sampler is a flow from w ~ N(0, I) to the latents that the encoder produces, trained with plain flow matching
(eq. 2). Integrated backwards, it maps a latent to its w, which editing uses.

Inputs are checked first, so that errors name the input and the option instead of matrix sizes. No check waits for a
GPU.
Source: arXiv:2505.20723, eqs. 1, 2 and 6; guidance: Ho & Salimans, arXiv:2207.12598.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lediflow.models.auxiliary import Latent
from lediflow.models.specs import LatentSamplerSpec, VelocitySpec, sampler_hourglass, velocity_hourglass
from lediflow.nn.hourglass import Hourglass
from lediflow.nn.shapes import Condition, Image, SampleKeys, Tokens, check_labels, tokens_of
from lediflow.nn.specs import check_channels, check_grid
from lediflow.text import shape_text

# keys of the models and their options in the configuration
FLOW_KEY, SAMPLER_KEY = "model.velocity", "model.latent_sampler"
LATENT_KEY = f"{FLOW_KEY}.latent_shape"


class VelocityModel(nn.Module):
    """The flow model; forward gives the velocity at (x, t), with the shape of x."""

    def __init__(self, spec: VelocitySpec, attention_route: str = "auto") -> None:
        super().__init__()
        self.spec = spec
        self.hourglass = Hourglass(velocity_hourglass(spec), attention_route)
        channels = spec.latent_channels_by("tokens")
        self.latent_in = nn.Linear(channels, spec.levels[-1].width, bias=False) if channels else None
        if self.latent_in is not None:
            nn.init.zeros_(self.latent_in.weight)  # initially no effect, like all maps that add to the tokens

    def forward(
        self,
        x: Image,
        t: Float[Tensor, ""] | Float[Tensor, " batch"] | float,
        z: Float[Tensor, "batch latent_channels latent_height latent_width"] | None = None,
        labels: Int[Tensor, " batch"] | None = None,
        dropout: SampleKeys | None = None,
        augmentation: Float[Tensor, "batch 9"] | None = None,
        s: Float[Tensor, ""] | Float[Tensor, " batch"] | float | None = None,
    ) -> Image:
        """The velocity at x and t, given the latent z; with `s`, of a flow map only, the mean velocity from t to s.

        `labels` None means "no class" for a class-conditional model; `augmentation` None means not augmented;
        `dropout` is one key per sample, needed for training with dropout.
        """
        self.check_inputs(x, z, labels)
        check_second_time(s, self.spec.is_flow_map)
        return self.hourglass(
            self.with_latent_channels(x, z),
            t,
            labels=with_no_class(labels, self.spec.num_classes, x),
            conditioning=z.flatten(1) if z is not None and self.spec.conditioning == "vector" else None,
            augmentation=augmentation,
            middle=self.latent_tokens(x, z),
            dropout=dropout,
            s=s,
        )

    @property
    def condition_depends_on_z(self) -> bool:
        """Whether z is part of the condition; if not, the condition is one for all samples."""
        return self.spec.latent_channels_by("vector") > 0

    def condition(self, t: Float[Tensor, " batch"], z: Latent | None = None) -> Condition:
        """The condition of all layers at times t, without class and augmentation; one row for each time."""
        return self.hourglass.condition(t, None, z.flatten(1) if z is not None else None)

    def conditioned(
        self, x: Image, condition: Condition, later: Condition | None = None, z: Latent | None = None
    ) -> Image:
        """As `forward`, for conditions that were made of t, and of s, before; of one row if it is for all samples."""
        self.check_inputs(x, z, None)
        middle = self.latent_tokens(x, z)
        return self.hourglass.conditioned(self.with_latent_channels(x, z), condition, later, middle)

    def check_inputs(self, x: Image, z: Tensor | None, labels: Tensor | None) -> None:
        """ValueError for inputs that do not fit the model; does not wait for a GPU."""
        check_channels(x.shape[1], self.spec.image_channels, f"{FLOW_KEY}.image_channels")
        check_grid(self.spec.levels, self.spec.patch_size, x.shape[-2], x.shape[-1], key=FLOW_KEY)
        check_latent(z, self.spec.latent_shape, batch=len(x))
        check_classes(labels, self.spec.num_classes, batch=len(x), key=FLOW_KEY)

    def with_latent_channels(self, x: Image, z: Image | None) -> Image:
        """x, with the channels of z appended if conditioning is "concat"."""
        if z is None or self.spec.conditioning != "concat":
            return x
        return torch.cat((x, resized(z, *x.shape[-2:]).to(x.dtype)), dim=1)

    def latent_tokens(self, x: Image, z: Image | None) -> Tokens | None:
        """The addition to the coarsest tokens if conditioning is "tokens", else None."""
        if z is None or self.latent_in is None:
            return None
        side = self.spec.patch_size * 2 ** (len(self.spec.levels) - 1)  # pixels per coarsest token
        # resizing first is cheaper than projecting and gives the same result
        on_grid = resized(z, x.shape[-2] // side, x.shape[-1] // side)
        return self.latent_in(tokens_of(on_grid))


class LatentSampler(nn.Module):
    """Velocity model of the latent sampler; an hourglass over latents."""

    def __init__(self, spec: LatentSamplerSpec, attention_route: str = "auto") -> None:
        super().__init__()
        self.spec = spec
        self.hourglass = Hourglass(sampler_hourglass(spec), attention_route)

    def forward(
        self,
        w: Latent,
        t: Float[Tensor, ""] | Float[Tensor, " batch"] | float,
        dropout: SampleKeys | None = None,
        augmentation: Float[Tensor, "batch 9"] | None = None,
        s: Float[Tensor, ""] | Float[Tensor, " batch"] | float | None = None,
        labels: Int[Tensor, " batch"] | None = None,
    ) -> Latent:
        """The velocity at w and t; with `s`, of a flow map only, the mean velocity from t to s.

        `dropout` is one key per sample, needed for training with dropout. `augmentation` is that of the latents'
        images; None means not augmented. `labels` None means "no class" for a class-conditional model.
        """
        self.check_inputs(w, labels)
        check_second_time(s, self.spec.is_flow_map)
        labels = with_no_class(labels, self.spec.num_classes, w)
        return self.hourglass(w, t, labels=labels, augmentation=augmentation, dropout=dropout, s=s)

    def condition(self, t: Float[Tensor, " batch"]) -> Condition:
        """The condition of all layers at times t, without class and augmentation; one row for each time."""
        return self.hourglass.condition(t)

    def conditioned(self, w: Latent, condition: Condition, later: Condition | None = None) -> Latent:
        """As `forward`, for conditions that were made of t, and of s, before; each has one row, for all samples."""
        self.check_inputs(w, None)
        return self.hourglass.conditioned(w, condition, later)

    def check_inputs(self, w: Latent, labels: Tensor | None) -> None:
        """ValueError for inputs that do not fit the model; does not wait for a GPU."""
        check_channels(w.shape[1], self.spec.latent_channels, f"{SAMPLER_KEY}.latent_channels")
        check_grid(self.spec.levels, 1, w.shape[-2], w.shape[-1], key=SAMPLER_KEY, subject="latent")
        check_classes(labels, self.spec.num_classes, batch=len(w), key=SAMPLER_KEY)


def resized(z: Image, height: int, width: int) -> Image:
    """z on another grid: pixels are repeated to enlarge it and averaged to reduce it."""
    return F.interpolate(z, size=(height, width), mode="area")


def check_latent(z: Tensor | None, latent_shape: Sequence[int], batch: int) -> None:
    """ValueError for a latent of a wrong shape or number, and for one that is missing or unexpected."""
    if z is None and latent_shape:
        raise ValueError(
            f"z: none given, but this flow model is conditioned on a latent of {shape_text(latent_shape)} "
            f"({LATENT_KEY}); give the latent of each image"
        )
    if z is not None and not latent_shape:
        raise ValueError(
            "z: given, but this flow model has no latent (the flow-matching baseline); leave z out, or build it "
            f"with {LATENT_KEY}"
        )
    if z is not None and tuple(z.shape[1:]) != tuple(latent_shape):
        raise ValueError(
            f"z: a latent of {shape_text(z.shape[1:])} per image, but this flow model was built for "
            f"{shape_text(latent_shape)} ({LATENT_KEY}); use the auxiliary model it was trained with"
        )
    if z is not None and len(z) != batch:
        raise ValueError(
            f"z: {len(z)} latents of {shape_text(latent_shape)} ({LATENT_KEY}) for {batch} images; give one per image"
        )


def check_second_time(s: object, is_flow_map: bool) -> None:
    """ValueError for a second time of a model that has one time only."""
    if s is not None and not is_flow_map:
        raise ValueError(
            "s: given, but this model is a velocity, with one time t; leave s out, or distil a flow map from it: "
            "stage.objective=flow_map"
        )


def with_no_class(labels: Tensor | None, num_classes: int, like: Tensor) -> Tensor | None:
    """The labels; where a class-conditional model got none, "no class" for each sample of `like`."""
    if labels is None and num_classes:
        return torch.full((len(like),), num_classes, device=like.device)
    return labels


def check_classes(labels: Tensor | None, num_classes: int, batch: int, key: str) -> None:
    """ValueError for labels of a model without classes, and for unknown classes."""
    if labels is None:
        return
    option = f"{key}.num_classes"
    if not num_classes:
        raise ValueError(
            f"labels: given, but this model was built without classes ({option}=0); leave them out, or set {option}"
        )
    known = f"the classes 0 to {num_classes - 1} ({option}={num_classes}) and {num_classes} for no class"
    check_labels(labels, num_classes + 1, batch, known)
