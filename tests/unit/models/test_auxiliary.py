import pytest
import torch

from lediflow.flow.gaussians import sample
from lediflow.flow.losses import gaussian_kl, variance_guided_loss
from lediflow.models import AuxiliaryModel


def images(count=3):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


def test_latent_and_prior_have_their_shapes(auxiliary_spec):
    posterior, z, prior = AuxiliaryModel(auxiliary_spec)(images(), torch.randn(3, 4, 4, 4))
    assert posterior.mean.shape == posterior.logvar.shape == z.shape == (3, 4, 4, 4)
    assert prior.mean.shape == prior.logvar.shape == (3, 3, 16, 16)


def test_a_fresh_prior_is_standard_normal_and_the_posterior_has_unit_variance(auxiliary_spec):
    posterior, _, prior = AuxiliaryModel(auxiliary_spec)(images(), torch.zeros(3, 4, 4, 4))
    assert posterior.logvar.abs().max() == 0
    assert prior.mean.abs().max() == 0
    assert prior.logvar.abs().max() < 1e-3  # softplus above a floor of -7 adds e^-7


def test_forward_is_encode_draw_decode(auxiliary_spec, drawn):
    model, noise = drawn(AuxiliaryModel(auxiliary_spec)), torch.randn(3, 4, 4, 4)
    _, z, prior = model(images(), noise)
    torch.testing.assert_close(z, sample(*model.encode(images()), noise))
    torch.testing.assert_close(prior, model.decode(z))


def test_the_prior_never_falls_below_its_floor(auxiliary_spec, drawn):
    auxiliary_spec.logvar_floor = -1.0
    prior = drawn(AuxiliaryModel(auxiliary_spec)).decode(10 * torch.randn(8, 4, 4, 4))
    assert prior.logvar.min() >= -1.0


def test_the_prior_never_rises_above_its_ceiling(auxiliary_spec, drawn):
    auxiliary_spec.logvar_floor, auxiliary_spec.logvar_ceiling = -1.0, 0.5
    logvar = drawn(AuxiliaryModel(auxiliary_spec)).decode(10 * torch.randn(8, 4, 4, 4)).logvar
    assert logvar.min() >= -1.0 and logvar.max() <= 0.5
    assert logvar.std() > 0.1  # between its bounds it still tells pixels apart


def test_the_prior_is_float32_under_autocast(auxiliary_spec):
    with torch.autocast("cpu", torch.bfloat16):
        posterior, _, prior = AuxiliaryModel(auxiliary_spec)(images(), torch.zeros(3, 4, 4, 4))
    assert {x.dtype for x in (*posterior, *prior)} == {torch.float32}


def test_fewer_halvings_work_in_both_directions(auxiliary_spec):
    auxiliary_spec.halvings = 0
    model = AuxiliaryModel(auxiliary_spec)
    assert model.encode(images()).mean.shape == (3, 4, 8, 8)
    assert model.decode(torch.zeros(3, 4, 8, 8)).mean.shape == (3, 3, 16, 16)


def test_it_learns_to_reconstruct(auxiliary_spec):
    """Eq. 5 on four images, for some tens of steps: the prior's mean must come to explain them."""
    torch.manual_seed(0)
    model, y = AuxiliaryModel(auxiliary_spec), images(4)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        posterior, _, prior = model(y, torch.randn(4, 4, 4, 4))
        loss = (variance_guided_loss(y, *prior) + 1e-5 * gaussian_kl(*posterior)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    blind = 0.5 * (1 + y.var().log()).item()  # the best that a constant Gaussian can do
    assert sum(losses[-5:]) / 5 < blind - 0.05


@pytest.mark.parametrize("shape", [(3, 3, 4, 4), (3, 64), (4, 4, 4)])
def test_a_latent_that_cannot_be_decoded_is_refused_with_both_shapes(shape, auxiliary_spec):
    with pytest.raises(
        ValueError, match=r"takes batch x 4 x height x width, for images 4 times as high"
    ) as said:
        AuxiliaryModel(auxiliary_spec).decode(torch.zeros(shape))
    assert str(shape) in str(said.value)


def test_a_latent_too_small_for_a_kernel_is_refused_by_the_setting(auxiliary_spec):
    with pytest.raises(ValueError, match=r"kernel 3 .*2x2 token grid.*model\.auxiliary\.levels\[0\]"):
        AuxiliaryModel(auxiliary_spec).decode(torch.zeros(1, 4, 1, 1))


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (3, 3, 4, 4), (1, 4, 4, 4)], ids=str)
def test_noise_of_another_shape_than_the_latent_is_refused_with_both_shapes(shape, auxiliary_spec):
    with pytest.raises(
        ValueError, match=r"noise of shape .*has shape \(3, 4, 4, 4\).*model\.auxiliary\.latent_channels"
    ) as said:
        AuxiliaryModel(auxiliary_spec)(images(), torch.zeros(shape))
    assert str(shape) in str(said.value)


def test_an_image_of_other_channels_is_refused_by_the_setting(auxiliary_spec):
    with pytest.raises(ValueError, match=r"1 channels: .* built for 3 \(model\.auxiliary\.image_channels\)"):
        AuxiliaryModel(auxiliary_spec).encode(torch.zeros(1, 1, 16, 16))
