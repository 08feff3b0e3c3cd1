"""What the dataclasses promise once Hydra has merged YAML into them."""

from omegaconf import OmegaConf

from lediflow.models.specs import VelocitySpec


def test_the_feed_forward_width_follows_the_width_that_a_yaml_chooses():
    chosen = {"image_channels": 1, "patch_size": 4, "levels": [{"depth": 1, "width": 64, "head_dim": 32}]}
    merged = OmegaConf.merge(
        OmegaConf.structured(VelocitySpec), chosen | {"mapping": {"depth": 1, "width": 128}}
    )
    spec = OmegaConf.to_object(merged)
    assert spec.mapping.feedforward_width == 3 * 128
    assert spec.levels[0].feedforward_width == 3 * 64
