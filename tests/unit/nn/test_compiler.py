"""The package's mark of constant functions is the one that PyTorch's compiler reads."""

import torch

from lediflow.nn.compiler import constant_in_graphs


def test_a_marked_function_carries_what_pytorch_sets():
    def ours(): ...

    def theirs(): ...

    assert constant_in_graphs(ours) is ours
    torch.compiler.assume_constant_result(theirs)
    assert vars(ours) == vars(theirs) != {}


def test_a_compiled_graph_holds_the_result_and_calls_no_marked_function_again():
    calls = []

    @constant_in_graphs
    def factor(size):
        calls.append(size)
        return 2.0 * size

    compiled = torch.compile(lambda x: x * factor(x.shape[0]), fullgraph=True, backend="eager")
    ones = torch.ones(3)
    for _ in range(2):
        assert torch.equal(compiled(ones), 6 * ones)
    assert calls == [3]
