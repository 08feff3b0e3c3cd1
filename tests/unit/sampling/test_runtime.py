"""Every runtime makes the eager one's images, with the present weights, for any batch size, or says why it cannot."""

import tempfile
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from harness.small_chains import (
    CONFIG,
    JUMPS,
    NUMBERS,
    SIZE,
    SPECS,
    baseline,
    chain,
    drawn,
    jumping_chain,
    levels_apart,
    take_weights,
)
from torch._dynamo.testing import CompileCounterWithBackend
from torch._inductor.cpp_builder import get_cpp_compiler

from lediflow.errors import UserError
from lediflow.models import (
    LevelSpec,
)
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig
from lediflow.sampling.runtime import choose_runtime, packages
from lediflow.sampling.runtime.runtime import check_float8

pytestmark = pytest.mark.slow  # compiles models


def compile_by(backend):
    """torch.compile by another backend, which does not know the options of the usual one."""
    usual = torch.compile
    return lambda function, options=None, **more: usual(function, backend=backend, **more)


@pytest.fixture
def graphs(monkeypatch):
    """torch.compile traces as always, but generates no code, which takes most of the time; counts the graphs."""
    torch.compiler.reset()
    counter = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", compile_by(counter))
    yield counter
    torch.compiler.reset()


@contextmanager
def tracing_only():
    """Networks are traced and exported as always, and no code is generated for them, which takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", compile_by("eager"))
        patch.setattr(
            torch._inductor,
            "aoti_compile_and_package",
            lambda program, package_path, **settings: torch.export.save(program, package_path),
        )
        patch.setattr(packages, "loaded", lambda path: torch.export.load(path).module())
        yield


@contextmanager
def generating():
    """Code is generated, by a C++ compiler that links its own C++ library into everything, as some do."""
    with tempfile.TemporaryDirectory() as folder:
        usual = get_cpp_compiler()
        compiler = Path(folder) / "g++"
        compiler.write_text(
            f'#!/bin/sh\ncase " $* " in *" -shared "*) exec {usual} -static-libstdc++ "$@";; esac\nexec {usual} "$@"\n'
        )
        compiler.chmod(0o755)
        with torch._inductor.config.patch({"cpp.cxx": (None, str(compiler))}):
            yield


class TestEveryRuntime:
    """With generated code for one network, and traced for a whole chain whose latent sampler is a flow map."""

    CHAINS: ClassVar = {"generated": (generating, baseline), "traced": (tracing_only, jumping_chain)}

    @pytest.fixture(scope="class", params=CHAINS)
    def make(self, request):
        torch.compiler.reset()
        context, make = self.CHAINS[request.param]
        with context():
            yield make
        torch.compiler.reset()

    @pytest.fixture(scope="class", params=["compiled", "exported"])
    def runtime(self, request, make, tmp_path_factory):
        """Packages are built once, in the first test."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LEDIFLOW_CACHE", str(tmp_path_factory.mktemp("cache")))
            yield make().use(request.param, "float32")

    def test_makes_the_eager_images(self, runtime, make):
        found, expected = runtime(NUMBERS, JUMPS), make()(NUMBERS, JUMPS)
        assert levels_apart(found, expected) < 0.05
        assert torch.equal(found.start.labels, expected.start.labels)
        assert found.nfe == expected.nfe == 6

    def test_uses_the_present_weights(self, runtime, make):
        before = runtime(NUMBERS, JUMPS)
        take_weights(runtime, make(seed=9))
        after = runtime(NUMBERS, JUMPS)
        assert levels_apart(after, make(seed=9)(NUMBERS, JUMPS)) < 0.05
        assert levels_apart(after, before) > 1
        take_weights(runtime, make())
        assert torch.equal(runtime(NUMBERS, JUMPS).images, before.images)

    def test_of_another_chain_in_the_same_process_is_its_own(self, runtime, make, monkeypatch):
        other = make(seed=9).use(runtime.runtime.name, "float32")
        if (
            runtime.runtime.name == "exported"
        ):  # from the package, without PyTorch's programs that test the processor
            monkeypatch.setattr("torch._inductor.codecache.get_device_information", None)
        assert levels_apart(other(NUMBERS, JUMPS), make(seed=9)(NUMBERS, JUMPS)) < 0.05
        assert levels_apart(runtime(NUMBERS, JUMPS), make()(NUMBERS, JUMPS)) < 0.05


def test_twelve_batch_sizes_take_three_graphs_of_a_network_at_most(graphs):
    compiled, eager = chain().use("compiled", "float32"), chain()
    for count in (4, 9, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12):
        found, expected = (pipeline.latents(torch.arange(count), CONFIG) for pipeline in (compiled, eager))
        torch.testing.assert_close(found, expected)
    assert graphs.frame_count <= 3


def test_graphs_do_not_enter_autocast_because_pytorch_caches_none_that_does(graphs):
    pipeline = chain().use("compiled", "float32")
    pipeline.runtime.networks.prior(torch.zeros(2, 2, 4, 4))
    [graph] = graphs.graphs
    assert not [node for node in graph.graph.nodes if "autocast" in str(node.target)]


def test_bfloat16_weights_round_as_autocast_does(graphs):
    compiled, eager = (chain().use(runtime, "bfloat16") for runtime in ("compiled", "eager"))
    found = eager(NUMBERS, CONFIG).images
    assert torch.equal(compiled(NUMBERS, CONFIG).images, found)
    # single pixels of random weights may go anywhere
    assert 0 < 127.5 * float((found - chain()(NUMBERS, CONFIG).images).square().mean().sqrt()) < 15


@pytest.mark.parametrize("count", [1, len(NUMBERS)])
def test_packages_compute_in_bfloat16_as_autocast_does(monkeypatch, tmp_path, count):
    monkeypatch.setenv("LEDIFLOW_CACHE", str(tmp_path))
    with tracing_only():
        found = baseline().use("exported", "bfloat16")(NUMBERS[:count], CONFIG)
    expected = baseline().use("eager", "bfloat16")(NUMBERS[:count], CONFIG)
    torch.testing.assert_close(found.images, expected.images)


class TestFloat8:
    """Layers 256 wide, the smallest in 8 bits; one evaluation of one image, as a CPU takes long for it."""

    ONCE = replace(CONFIG, solver="euler", steps=1)
    WIDE = LevelSpec(depth=1, width=256, head_dim=32)
    SPEC = replace(SPECS[0], levels=[WIDE], latent_shape=[])

    def chain(self, seed=0):
        flow = drawn(self.SPEC, seed)
        for parameter in flow.parameters():
            parameter.data.mul_(0.3)  # the images of `drawn` are noise at this width
        return LeDiFlowPipeline(flow, None, None, image_size=SIZE)

    def test_changes_images_by_the_rounding(self, graphs):
        exact, found = (
            self.chain().use(*how)([5], self.ONCE).images for how in (("eager",), ("auto", "float8"))
        )
        error = float((found - exact).norm() / exact.norm())
        assert 0.003 < error < 0.1

    def test_follows_the_weights(self, graphs):
        pipeline = self.chain().use("compiled", "float8")
        before = pipeline([5], self.ONCE).images
        take_weights(pipeline, self.chain(seed=9))
        fresh = self.chain(seed=9).use("compiled", "float8")
        assert torch.equal(pipeline([5], self.ONCE).images, fresh([5], self.ONCE).images)
        take_weights(pipeline, self.chain())
        assert torch.equal(pipeline([5], self.ONCE).images, before)

    def test_is_refused_where_the_models_themselves_are_run(self):
        with pytest.raises(UserError, match=r"precision=float8 with runtime=eager.*use runtime=compiled"):
            self.chain().use("eager", "float8")

    def test_is_refused_where_no_layer_would_be_rounded(self):
        with pytest.raises(UserError, match=r"256 channels or more, and these models \(velocity\) have none"):
            baseline().use("compiled", "float8")

    def test_is_refused_by_a_gpu_without_such_products(self, monkeypatch):
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (8, 6))
        monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "NVIDIA GeForce RTX 3090")
        with pytest.raises(UserError, match=r"float8 needs a GPU .* not NVIDIA GeForce RTX 3090"):
            check_float8("compiled", torch.device("cuda"))


def test_times_that_bfloat16_cannot_tell_apart_differ():
    velocity = chain().use("eager", "bfloat16").runtime.networks.velocity
    x, z = torch.ones(1, 3, SIZE, SIZE), torch.ones(1, 2, 4, 4)
    early, late = (velocity(x, torch.tensor(t), z, None) for t in (0.750, 0.751))
    assert not torch.equal(early, late)


def test_averages_swapped_in_place_are_used_and_writes_through_data_after_a_refresh(graphs):
    compiled = baseline().use("compiled", "bfloat16")
    before = compiled(NUMBERS, CONFIG)
    with torch.no_grad():
        for parameter in compiled.velocity.parameters():
            parameter.mul_(0.5)
    swapped = compiled(NUMBERS, CONFIG)
    assert levels_apart(swapped, before) > 1
    for parameter in compiled.velocity.parameters():
        parameter.data.mul_(2.0)
    compiled.runtime.refresh(force=True)
    assert torch.equal(compiled(NUMBERS, CONFIG).images, before.images)


def test_weights_can_change_outside_of_the_inference_mode_in_which_images_were_made(graphs):
    compiled = baseline()
    with torch.inference_mode():
        compiled.use("compiled", "float32")
        compiled(NUMBERS, CONFIG)
    take_weights(compiled, baseline(seed=9))
    assert levels_apart(compiled(NUMBERS, CONFIG), baseline(seed=9)(NUMBERS, CONFIG)) < 0.05


def test_threads_that_sample_at_once_get_what_each_gets_alone(graphs):
    compiled = chain().use("compiled", "float32")
    configs = [SamplingConfig(seed=seed, labels=[1]) for seed in (1, 2)]
    alone = [compiled(NUMBERS, config).images for config in configs]
    together = {}

    def sample(number):
        together[number] = [compiled(NUMBERS, configs[number]).images for _ in range(3)]

    threads = [threading.Thread(target=sample, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, expected in enumerate(alone):
        assert all(torch.equal(found, expected) for found in together[number])


def test_results_that_are_kept_do_not_change(graphs):
    compiled = baseline().use("compiled", "float32")
    kept = [compiled([number, number + 1], CONFIG) for number in range(3)]
    copies = [one.images.clone() for one in kept]
    compiled([8, 9], CONFIG)
    assert all(torch.equal(one.images, copy) for one, copy in zip(kept, copies, strict=True))


class TestWhatCannotBeCompiled:
    @pytest.fixture(autouse=True)
    def broken(self, monkeypatch):
        def no_compiler(graph, inputs):
            raise RuntimeError("no C++ compiler")

        torch.compiler.reset()
        monkeypatch.setattr(torch, "compile", compile_by(no_compiler))
        yield
        torch.compiler.reset()

    def test_is_an_error_where_compiling_was_asked_for(self):
        with pytest.raises(UserError, match=r"runtime=compiled.*no C\+\+ compiler.*runtime=eager"):
            chain().use("compiled", "float32")(NUMBERS, CONFIG)

    def test_is_one_warning_and_eager_images_where_it_was_not(self, monkeypatch, caplog):
        expected = chain()(NUMBERS, CONFIG)
        monkeypatch.setattr("lediflow.sampling.pipeline.choose_runtime", lambda *asked: "compiled")
        pipeline = chain().use("auto", "float32")
        assert torch.equal(pipeline(NUMBERS, CONFIG).images, expected.images)
        assert pipeline.runtime.name == "eager"  # what results record
        assert [record.levelname for record in caplog.records if record.name.startswith("lediflow")] == [
            "WARNING"
        ]


@pytest.mark.parametrize(
    ("device", "images", "runtime"),
    [("cpu", 10**6, "eager"), ("cuda", 10**6, "compiled"), ("cuda", 64, "eager")],
)
def test_auto_compiles_on_gpus_for_many_images(device, images, runtime):
    assert choose_runtime("auto", torch.device(device), images) == runtime
    assert choose_runtime("exported", torch.device(device), images) == "exported"
