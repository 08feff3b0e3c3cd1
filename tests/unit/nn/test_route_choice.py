"""Which route "auto" takes: measured once, cached in a file, logged."""

import json
import logging
import time

import pytest
import torch

from lediflow.nn.neighborhood import neighborhood_attention, plain, routes
from lediflow.nn.neighborhood.protocol import Problem, Route
from lediflow.nn.neighborhood.route_cache import RouteCache, RouteChoice, default_file, key

PROBLEM = Problem(8, 8, 2, 16, 3, torch.float32, torch.device("cpu"), is_training=True)


def anything_goes(problem):
    return None


def slow(q, k, v, kernel_size, *, scale):
    time.sleep(0.02)
    return plain.sdpa_attention(q, k, v, kernel_size, scale=scale)


def broken(q, k, v, kernel_size, *, scale):
    raise RuntimeError("out of shared memory\nand more")


SLOW, QUICK = Route(slow, anything_goes), Route(plain.sdpa_attention, anything_goes)
BROKEN = Route(broken, anything_goes)
ABSENT = Route(broken, lambda problem: "not here")


@pytest.fixture
def cache(tmp_path):
    return RouteCache(tmp_path / "cache" / "routes.json", routes.ROUTES)


def test_the_faster_route_is_used_and_logged(cache, caplog):
    with caplog.at_level(logging.INFO):
        assert routes.fastest_route(PROBLEM, {"slow": SLOW, "quick": QUICK}, cache) == "quick"
    (message,) = caplog.messages
    assert "8x8 tokens, 2 heads x 16, kernel 3, float32, cpu, forward and backward: quick (quick" in message
    assert "slow" in message


def test_a_measured_route_is_reused_in_this_process_and_the_next(cache):
    routes.fastest_route(PROBLEM, {"slow": SLOW, "quick": QUICK}, cache)
    only_broken = {"broken": BROKEN, "quick": BROKEN}
    assert routes.fastest_route(PROBLEM, only_broken, cache) == "quick"
    assert routes.fastest_route(PROBLEM, only_broken, RouteCache(cache.file, routes.ROUTES)) == "quick"


def test_directions_are_measured_apart(cache):
    routes.fastest_route(PROBLEM, {"quick": QUICK, "slow": SLOW}, cache)
    routes.fastest_route(PROBLEM._replace(is_training=False), {"slow": SLOW, "absent": ABSENT}, cache)
    measured = {entry["route"] for entry in json.loads(cache.file.read_text()).values()}
    assert measured == {"quick", "slow"}


def test_a_route_that_fails_is_reported_and_omitted(cache, caplog):
    assert routes.fastest_route(PROBLEM, {"broken": BROKEN, "slow": SLOW, "absent": ABSENT}, cache) == "slow"
    assert any("route 'broken' failed: out of shared memory" in message for message in caplog.messages)


def test_it_is_an_error_if_no_route_works(cache):
    with pytest.raises(ValueError, match="no route works; tried broken, absent"):
        routes.fastest_route(PROBLEM, {"broken": BROKEN, "absent": ABSENT}, cache)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 3}', '{"a": {"route": 1}}', '{"a": null, "b": []}'])
def test_a_damaged_file_is_measured_again(cache, content):
    cache.file.parent.mkdir()
    cache.file.write_text(content)
    assert routes.fastest_route(PROBLEM, {"quick": QUICK}, cache) == "quick"
    assert RouteCache(cache.file, routes.ROUTES).recall(PROBLEM).route == "quick"


@pytest.mark.parametrize(
    "entry",
    [
        {"route": "gone", "milliseconds": {}},
        {"route": "triton", "milliseconds": {"triton": 0.1}},  # it has no kernels for CPUs
        {"route": "natten", "milliseconds": {}},  # nor a backward pass there
        {"route": 3, "milliseconds": 4},
        {"route": ["sdpa"], "milliseconds": {}},
        {"route": "sdpa", "milliseconds": {"sdpa": "quick"}},
        "sdpa",
    ],
    ids=str,
)
def test_a_cached_route_that_is_not_valid_here_is_measured_again(cache, monkeypatch, entry):
    monkeypatch.setattr(routes, "cache", cache)
    kept = {"another problem": {"route": "sdpa", "milliseconds": {"sdpa": 1.0}}}
    cache.file.parent.mkdir()
    cache.file.write_text(json.dumps({key(PROBLEM, tuple(routes.ROUTES)): entry} | kept))
    q, k, v = torch.randn(3, 1, 8, 8, 2, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = neighborhood_attention(q, k, v, 3)
    torch.testing.assert_close(found, neighborhood_attention(q, k, v, 3, route="sdpa"), rtol=0, atol=0)
    entries = json.loads(cache.file.read_text())
    assert entries[key(PROBLEM, tuple(routes.ROUTES))]["route"] == "sdpa" and entries.items() > kept.items()


def test_a_folder_that_cannot_be_written_is_ignored(tmp_path):
    (tmp_path / "file").write_text("")
    cache = RouteCache(tmp_path / "file" / "routes.json", routes.ROUTES)
    assert routes.fastest_route(PROBLEM, {"quick": QUICK}, cache) == "quick"
    assert cache.recall(PROBLEM).route == "quick"


def test_the_first_verdict_of_several_processes_counts(cache):
    other = RouteCache(cache.file, routes.ROUTES)
    other.keep(PROBLEM, RouteChoice("slow"))
    assert cache.keep(PROBLEM, RouteChoice("quick")).route == "slow"


def test_the_file_is_next_to_the_compile_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert default_file().parent == tmp_path


def test_measuring_does_not_change_the_random_state(cache):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    routes.fastest_route(PROBLEM, {"quick": QUICK, "slow": SLOW}, cache)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_auto_on_a_cpu_trains_by_sdpa(cache, monkeypatch):
    monkeypatch.setattr(routes, "cache", cache)
    q, k, v = torch.randn(3, 1, 8, 8, 2, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = neighborhood_attention(q, k, v, 3)
    torch.testing.assert_close(found, neighborhood_attention(q, k, v, 3, route="sdpa"), rtol=0, atol=0)
    assert cache.recall(PROBLEM).route == "sdpa"


def test_an_added_route_is_taken_by_its_name_and_measured_by_auto(cache, monkeypatch):
    monkeypatch.setattr(routes, "cache", cache)
    q, k, v = torch.randn(3, 1, 8, 8, 2, 16, generator=torch.Generator().manual_seed(0))
    neighborhood_attention(q, k, v, 3)  # a choice among the other routes, in the process and in the file
    monkeypatch.setitem(routes.ROUTES, "mine", Route(plain.sdpa_attention, anything_goes))
    found = neighborhood_attention(q, k, v, 3, route="mine")
    torch.testing.assert_close(found, neighborhood_attention(q, k, v, 3, route="dense"))
    neighborhood_attention(q, k, v, 3)
    measured = cache.recall(PROBLEM._replace(is_training=False)).milliseconds
    assert "mine" in measured and "dense" not in measured
