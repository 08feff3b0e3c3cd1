"""Chains that CUDA graphs replay make the eager runtime's images."""

import pytest
import torch
from harness.small_chains import CONFIG, NUMBERS, chain, levels_apart, take_weights

from lediflow.sampling import SamplingConfig

pytestmark = pytest.mark.slow  # compiles models


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestCudaGraphs:
    """A chain is recorded at the second batch of a kind, and replayed from the third on."""

    @pytest.fixture(scope="class", params=["compiled", "exported"])
    def recorded(self, request, tmp_path_factory):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LEDIFLOW_CACHE", str(tmp_path_factory.mktemp("cache")))
            pipeline = chain().to("cuda").use(request.param, "float32")
            for _ in range(2):
                pipeline(NUMBERS, CONFIG)
            yield pipeline

    @pytest.fixture(scope="class")
    def eager(self):
        return chain().to("cuda")

    @pytest.mark.parametrize("seed", [3, 4])
    @pytest.mark.parametrize("labels", [[0, 2], [1]])
    def test_replay_with_any_seed_and_classes(self, recorded, eager, seed, labels):
        config = SamplingConfig(seed=seed, solver="heun3", steps=2, latent_steps=2, labels=labels)
        for numbers in (NUMBERS, [9, 1, 4]):
            assert levels_apart(recorded(numbers, config), eager(numbers, config)) < 0.05
        assert len(recorded.runtime.recordings.known) == 1

    def test_start_from_the_eager_noise_bit_for_bit(self, recorded, eager):
        config = SamplingConfig(seed=3, steps=0, latent_steps=2, temperature=1.0, labels=[1])
        for _ in range(3):
            found = recorded(NUMBERS, config).start
        expected = eager(NUMBERS, config).start
        torch.testing.assert_close(found.z, expected.z, rtol=1e-4, atol=1e-5)
        noises = [(one.x - one.prior.mean) / (0.5 * one.prior.logvar).exp() for one in (found, expected)]
        torch.testing.assert_close(*noises, rtol=1e-4, atol=1e-4)

    def test_results_that_are_kept_do_not_change(self, recorded):
        kept = [recorded([number, number + 1, number + 2], CONFIG) for number in range(3)]
        copies = [one.images.clone() for one in kept]
        recorded([8, 9, 10], CONFIG)
        assert all(torch.equal(one.images, copy) for one, copy in zip(kept, copies, strict=True))

    def test_weights_that_change_are_used(self, recorded, eager):
        before = recorded(NUMBERS, CONFIG)
        take_weights(recorded, chain(seed=9))
        assert levels_apart(recorded(NUMBERS, CONFIG), chain(seed=9).to("cuda")(NUMBERS, CONFIG)) < 0.05
        take_weights(recorded, eager)
        assert torch.equal(recorded(NUMBERS, CONFIG).images, before.images)

    def test_65_images_in_batches_of_64_are_the_images_alone(self, recorded, eager):
        batches = [recorded(range(first, min(first + 64, 65)), CONFIG).images for first in (0, 64)]
        alone = torch.cat([eager([number], CONFIG).images for number in range(65)])
        assert 127.5 * float((torch.cat(batches) - alone).abs().max()) < 1

    def test_a_nan_is_refused_after_a_replay(self, recorded, eager):
        with torch.no_grad():
            next(recorded.velocity.parameters()).fill_(float("nan"))
        with pytest.raises(ValueError, match="no longer finite after step 1 of 2"):
            recorded(NUMBERS, CONFIG)
        take_weights(recorded, eager)
        assert recorded(NUMBERS, CONFIG).images.isfinite().all()

    def test_bfloat16_is_no_farther_from_float32_than_the_eager_runtime(self, eager):
        compiled, rounded = (chain().to("cuda").use(name, "bfloat16") for name in ("compiled", "eager"))
        for _ in range(3):
            found = compiled(NUMBERS, CONFIG)
        exact = eager(NUMBERS, CONFIG)
        assert levels_apart(found, exact) < 1.5 * levels_apart(rounded(NUMBERS, CONFIG), exact) + 0.5
