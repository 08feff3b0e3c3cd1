"""A route that gives what are no numbers, where the oracle gives numbers, is reported and replaced."""

import logging

import pytest
import torch

from lediflow.nn.neighborhood import ROUTES, check, checked_routes, neighborhood_attention, routes, sdpa
from lediflow.nn.neighborhood.memory import Memory, Verdict
from lediflow.nn.neighborhood.protocol import Route


def heads(*, seed=0):
    return torch.randn(3, 2, 6, 5, 2, 16, generator=torch.Generator().manual_seed(seed))


def forward_breaks(q, k, v, kernel_size, *, scale):
    mixed = sdpa.attention(q, k, v, kernel_size, scale=scale)
    return torch.where(torch.arange(len(q)).view(-1, 1, 1, 1, 1) == 1, torch.nan, mixed)


def backward_breaks(q, k, v, kernel_size, *, scale):
    return sdpa.attention(q, k, v, kernel_size, scale=scale) + 0 * (q - q.detach()).sqrt()


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Put a function in the place of a route, Triton's unless another is named."""
    monkeypatch.setattr(check, "replacements", {})
    monkeypatch.setattr(routes, "memory", Memory(tmp_path / "routes.json"))

    def put(attention, name="triton"):
        monkeypatch.setitem(ROUTES, name, Route(attention, lambda problem: None))
        monkeypatch.setitem(routes.CANDIDATES, name, ROUTES[name])

    return put


@pytest.mark.parametrize("attention", [forward_breaks, backward_breaks])
def test_a_route_that_breaks_is_reported_and_replaced(serve, attention, caplog):
    serve(attention)
    q, k, v = heads().requires_grad_()
    with checked_routes(), caplog.at_level(logging.WARNING):
        found = neighborhood_attention(q, k, v, 3, route="triton")
    expected = neighborhood_attention(q, k, v, 3, route="dense")
    torch.testing.assert_close(found, expected)
    assert (
        "route 'triton' gives values that are not finite where the oracle's are; route 'sdpa'" in caplog.text
    )
    torch.testing.assert_close(neighborhood_attention(q, k, v, 3, route="triton"), expected)


def test_what_auto_had_chosen_is_replaced_in_the_file_too(serve):
    serve(forward_breaks)
    q, k, v = heads().requires_grad_()
    problem = routes.Problem(6, 5, 2, 16, 3, q.dtype, q.device, is_training=True)
    routes.memory.keep(problem, routes.measure(problem, {"triton": ROUTES["triton"]}))
    assert neighborhood_attention(q, k, v, 3).isnan().any()
    with checked_routes():
        neighborhood_attention(q, k, v, 3)
    assert neighborhood_attention(q, k, v, 3).isfinite().all()
    assert Memory(routes.memory.file).recall(problem).route == "sdpa"


@pytest.mark.parametrize("route", ["sdpa", "auto"])
def test_the_oracle_takes_the_place_of_the_one_route_that_a_cpu_can_train_by(serve, route):
    working = heads().requires_grad_()
    expected = neighborhood_attention(*working, 3, route="dense")
    serve(forward_breaks, "sdpa")
    with checked_routes():
        torch.testing.assert_close(neighborhood_attention(*working, 3, route=route), expected)
    torch.testing.assert_close(neighborhood_attention(*working, 3, route=route), expected)


@pytest.mark.parametrize("route", ["triton", "auto"])
@pytest.mark.parametrize("found_in_training", [True, False], ids=["found in training", "found in inference"])
def test_a_route_that_breaks_in_one_direction_is_replaced_in_both(serve, found_in_training, route):
    serve(forward_breaks)
    for is_training in (True, False):  # what "auto" had chosen before
        problem = routes.Problem(6, 5, 2, 16, 3, torch.float32, torch.device("cpu"), is_training)
        routes.memory.keep(problem, Verdict("triton"))
    q, k, v = heads()
    with torch.set_grad_enabled(found_in_training), checked_routes():
        neighborhood_attention(q, k, v, 3, route=route)
    assert neighborhood_attention(q, k, v, 3, route=route).isfinite().all()
    q.requires_grad_()
    assert neighborhood_attention(q, k, v, 3, route=route).isfinite().all()


def test_a_replacement_that_breaks_is_replaced_in_turn(serve):
    serve(forward_breaks)
    serve(forward_breaks, "sdpa")
    q, k, v = heads().requires_grad_()
    expected = neighborhood_attention(q, k, v, 3, route="dense")
    for route in ("triton", "sdpa"):
        with checked_routes():
            torch.testing.assert_close(neighborhood_attention(q, k, v, 3, route=route), expected)
        torch.testing.assert_close(neighborhood_attention(q, k, v, 3, route=route), expected)


@pytest.mark.parametrize("route", ["flex", "natten"])
def test_a_route_without_a_backward_pass_is_checked_where_none_is_asked_for(route):
    q, k, v = heads()
    with torch.no_grad(), checked_routes():
        found = neighborhood_attention(q, k, v, 3, route=route)
    torch.testing.assert_close(found, neighborhood_attention(q, k, v, 3, route="dense"))


def test_a_backward_pass_that_is_not_asked_for_is_not_looked_at(serve):
    serve(backward_breaks)
    with torch.no_grad(), checked_routes():
        neighborhood_attention(*heads(), 3, route="triton")
    assert not check.replacements


def test_inputs_that_are_no_numbers_are_not_the_routes_fault(serve, caplog):
    serve(sdpa.attention)
    q, k, v = heads()
    v[1, 0, 0] = torch.inf
    with checked_routes():
        found = neighborhood_attention(q, k, v, 3, route="triton")
    assert not found.isfinite().all()
    assert not check.replacements and not caplog.messages


def test_a_compiled_model_takes_the_replacement(serve):
    serve(forward_breaks)
    q, k, v = heads().requires_grad_()
    compiled = torch.compile(lambda *qkv: neighborhood_attention(*qkv, 3, route="triton"), backend="eager")
    assert compiled(q, k, v).isnan().any()
    with checked_routes():
        compiled(q, k, v)
    torch.testing.assert_close(compiled(q, k, v), neighborhood_attention(q, k, v, 3, route="dense"))


def test_without_the_check_nothing_is_looked_at(serve):
    serve(forward_breaks)
    assert neighborhood_attention(*heads(), 3, route="triton").isnan().any()
