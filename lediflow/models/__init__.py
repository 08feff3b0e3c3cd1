"""The three models of LeDiFlow and their export folders. Needs torch, einops, jaxtyping and safetensors only.

auxiliary model   image -> latent z -> Gaussian prior over images
flow model        draw from that prior -> image, given z
latent sampler    Gaussian noise w -> latent z
"""

from lediflow.models.auxiliary import AuxiliaryModel, AuxiliaryOutput, Latent, Posterior, Prior
from lediflow.models.export import Model, Spec, build_model, load_as, load_model, read_config, save_model
from lediflow.models.parameters import count_parameters, describe_model, parameter_groups
from lediflow.models.specs import AuxiliarySpec, LatentSamplerSpec, VelocitySpec, latent_shape
from lediflow.models.velocity import LatentSampler, VelocityModel
from lediflow.nn.hourglass import Hourglass
from lediflow.nn.specs import HourglassSpec, LevelSpec, MappingSpec

__all__ = [
    "AuxiliaryModel",
    "AuxiliaryOutput",
    "AuxiliarySpec",
    "Hourglass",
    "HourglassSpec",
    "Latent",
    "LatentSampler",
    "LatentSamplerSpec",
    "LevelSpec",
    "MappingSpec",
    "Model",
    "Posterior",
    "Prior",
    "Spec",
    "VelocityModel",
    "VelocitySpec",
    "build_model",
    "count_parameters",
    "describe_model",
    "latent_shape",
    "load_as",
    "load_model",
    "parameter_groups",
    "read_config",
    "save_model",
]
