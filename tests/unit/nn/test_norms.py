import torch

from lediflow.nn.norms import AdaRMSNorm, RMSNorm, rms_norm


def test_output_has_unit_root_mean_square():
    x = 7 * torch.randn(5, 64)
    torch.testing.assert_close(RMSNorm(64)(x).square().mean(dim=-1), torch.ones(5))


def test_a_conditioned_norm_starts_as_the_plain_one():
    x, condition = torch.randn(2, 3, 4, 8), torch.randn(2, 6)
    torch.testing.assert_close(AdaRMSNorm(8, 6)(x, condition), RMSNorm(8)(x))


def test_each_sample_is_scaled_by_its_own_condition():
    norm = AdaRMSNorm(8, 6)
    torch.nn.init.normal_(norm.linear.weight)
    x, condition = torch.randn(2, 3, 4, 8), torch.randn(2, 6)
    scale = 1 + condition[1] @ norm.linear.weight.T
    torch.testing.assert_close(norm(x, condition)[1], RMSNorm(8)(x[1]) * scale)


def test_statistics_of_bfloat16_are_taken_in_float32():
    x = torch.full((1, 4096), 0.1, dtype=torch.bfloat16)  # a bfloat16 sum of 4096 squares would stall
    found = rms_norm(x, torch.ones(4096))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), torch.ones(1, 4096), atol=8e-3, rtol=0)  # one bfloat16 step
