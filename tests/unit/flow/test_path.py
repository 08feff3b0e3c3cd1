import torch
from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

from lediflow.flow.path import align, path_velocity, point_on_path


def ends():
    torch.manual_seed(0)
    return torch.randn(2, 3, 4, 5, 5, dtype=torch.float64)


def test_the_path_runs_from_the_prior_to_the_data():
    x_0, x_1 = ends()
    torch.testing.assert_close(point_on_path(x_0, x_1, torch.zeros(3)), x_0)
    torch.testing.assert_close(point_on_path(x_0, x_1, torch.ones(3)), x_1)


def test_path_and_velocity_are_torchcfms_rectified_flow():
    x_0, x_1 = ends()
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    matcher = ConditionalFlowMatcher(sigma=0.0)
    _, expected_point, expected_velocity = matcher.sample_location_and_conditional_flow(x_0, x_1, t=t)
    torch.testing.assert_close(point_on_path(x_0, x_1, t), expected_point)
    torch.testing.assert_close(path_velocity(x_0, x_1), expected_velocity)


def test_times_are_aligned_sample_by_sample():
    aligned = align(torch.tensor([0.0, 0.5]), torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16))
    assert aligned.shape == (2, 1, 1, 1)
    assert aligned.dtype == torch.bfloat16
