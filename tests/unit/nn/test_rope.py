import math

import pytest
import torch

from lediflow.nn.rope import centres, frequencies, rotate, rotation

CPU = torch.device("cpu")


def rotated_everywhere(vector, height, width):
    """The same vector placed at every token of the grid, rotated to its position."""
    x = vector.expand(1, height, width, *vector.shape)
    return rotate(x, rotation(height, width, *vector.shape, like=x))[0]


def test_products_depend_on_the_difference_of_positions_alone():
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 16)
    q, k = rotated_everywhere(query, 6, 6), rotated_everywhere(key, 6, 6)
    product = torch.einsum("ijnd,klnd->ijkln", q, k)
    shifted_by_one = product[1:, 1:, 1:, 1:]
    # float32 angles
    torch.testing.assert_close(product[:-1, :-1, :-1, :-1], shifted_by_one, atol=1e-4, rtol=0)


def test_rotation_keeps_lengths_and_leaves_half_the_head_alone():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 3, 16)
    turned = rotate(x, rotation(4, 6, 3, 16, like=x))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned[..., 8:], x[..., 8:], atol=0, rtol=0)


def test_compiled_graphs_hold_the_rotations_of_each_grid():
    def both(x):
        fine, coarse = rotation(4, 6, 1, 8, like=x), rotation(2, 3, 2, 8, like=x, merges=1)
        return [x * part for part in (*fine, *coarse)]

    operations = []

    def note(graph, _):
        operations.extend(node.name for node in graph.graph.nodes if node.op.startswith("call_"))
        return graph

    x = torch.ones(1)
    compiled = torch.compile(both, backend=note, fullgraph=True)
    for found, expected in zip(compiled(x), both(x), strict=True):
        assert torch.equal(found, expected)
    assert operations == ["mul", "mul_1", "mul_2", "mul_3"]


def test_a_coarser_grids_centres_are_the_means_of_the_four_it_merged():
    fine, coarse = centres(12, 0.6, CPU), centres(6, 0.6, CPU)
    torch.testing.assert_close(fine.view(6, 2).mean(dim=1), coarse)


def test_the_longer_side_spans_minus_one_to_one():
    tall = rotation(8, 4, 1, 8, like=torch.empty(0))  # one head of 8: frequency pi, one pair an axis
    last_row, last_column = tall.cos[-1, 0, 0, 0], tall.cos[0, -1, 0, 1]
    assert last_row == pytest.approx(math.cos(math.pi * 7 / 8), abs=1e-6)
    assert last_column == pytest.approx(math.cos(math.pi * 3 / 8), abs=1e-6)


def test_frequencies_are_log_spaced_from_pi_and_distributed_over_the_heads():
    omega = frequencies(num_heads=3, head_dim=32, device=CPU)
    series = [math.pi * 10 ** (k / 12) for k in range(12)]
    torch.testing.assert_close(omega[1], torch.tensor(series[1::3]))


def test_bfloat16_tokens_are_rotated_by_float32_angles():
    table = rotation(4, 4, 2, 16, like=torch.empty(0, dtype=torch.bfloat16))
    assert table.cos.dtype == torch.float32
    assert rotate(torch.ones(1, 4, 4, 2, 16, dtype=torch.bfloat16), table).dtype == torch.bfloat16
