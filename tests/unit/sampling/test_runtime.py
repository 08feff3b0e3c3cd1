"""Every runtime makes the eager one's images, with the present weights, for any batch size, or says why it cannot."""

import sys
import tempfile
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._inductor.cpp_builder import get_cpp_compiler

from lediflow.errors import UserError
from lediflow.models import (
    AuxiliarySpec,
    LatentSamplerSpec,
    LevelSpec,
    MappingSpec,
    VelocitySpec,
    build_model,
)
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig
from lediflow.sampling.runtime import choose_runtime, packages
from lediflow.sampling.runtime.runtime import check_float8

pytestmark = pytest.mark.slow  # compiles models
SIZE = 8
GLOBAL = LevelSpec(depth=1, width=16, head_dim=8)
LOCAL = LevelSpec(depth=1, width=16, head_dim=8, kernel_size=3)  # its mask is a constant of compiled code
MAPPING = MappingSpec(depth=1, width=16)
SPECS = (
    VelocitySpec(
        image_channels=3, patch_size=2, levels=[LOCAL], mapping=MAPPING, latent_shape=[2, 4, 4], num_classes=3
    ),
    AuxiliarySpec(image_channels=3, patch_size=2, levels=[GLOBAL], latent_channels=2),
    LatentSamplerSpec(latent_channels=2, levels=[GLOBAL], mapping=MAPPING),
)
NUMBERS = [0, 5, 7]
CONFIG = SamplingConfig(seed=3, solver="heun3", steps=2, latent_steps=2, labels=[0, 2])
TWO_LAYERS = LevelSpec(depth=2, width=16, head_dim=8)
MAP = LatentSamplerSpec(latent_channels=2, levels=[TWO_LAYERS], mapping=MAPPING, is_flow_map=True)
JUMPS = replace(CONFIG, latent_solver="jump")


def drawn(spec, seed):
    torch.manual_seed(seed)
    model = build_model(spec)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.15)
    return model


def chain(seed=0, specs=SPECS):
    models = [drawn(spec, seed + place) for place, spec in enumerate(specs)]
    return LeDiFlowPipeline(*models, image_size=SIZE, prior_widening=0.1)


def baseline(seed=0):
    """Its flow model alone, from Gaussian noise."""
    return LeDiFlowPipeline(drawn(replace(SPECS[0], latent_shape=[]), seed), None, None, image_size=SIZE)


def jumping_chain(seed=0):
    return chain(seed, (*SPECS[:2], MAP))


def take_weights(pipeline, other):
    """Give a pipeline the weights of another, in place."""
    for name, module in pipeline.modules().items():
        module.load_state_dict(other.modules()[name].state_dict())


def levels_apart(found, expected):
    """Largest difference, in levels of a byte."""
    return 127.5 * float((found.images - expected.images).abs().max())


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
        patch.setattr(
            torch._inductor, "aoti_load_package", lambda path, **options: torch.export.load(path).module()
        )
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

    def test_of_another_chain_in_the_same_process_is_its_own(self, runtime, make):
        other = make(seed=9).use(runtime.runtime.name, "float32")
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


def test_packages_compute_in_bfloat16_as_autocast_does(monkeypatch, tmp_path):
    monkeypatch.setenv("LEDIFLOW_CACHE", str(tmp_path))
    with tracing_only():
        found = baseline().use("exported", "bfloat16")(NUMBERS, CONFIG)
    torch.testing.assert_close(found.images, baseline().use("eager", "bfloat16")(NUMBERS, CONFIG).images)


class TestFloat8:
    """Layers 256 wide, which are the smallest in 8 bits."""

    WIDE = LevelSpec(depth=1, width=256, head_dim=32)
    SPEC = replace(SPECS[0], levels=[WIDE], latent_shape=[])

    def chain(self, seed=0):
        flow = drawn(self.SPEC, seed)
        for parameter in flow.parameters():
            parameter.data.mul_(0.3)  # the images of `drawn` are noise at this width
        return LeDiFlowPipeline(flow, None, None, image_size=SIZE)

    def test_changes_images_by_the_rounding(self, graphs):
        exact, found = (
            self.chain().use(*how)(NUMBERS, CONFIG).images for how in (("eager",), ("auto", "float8"))
        )
        error = float((found - exact).norm() / exact.norm())
        assert 0.003 < error < 0.1

    def test_follows_the_weights(self, graphs):
        pipeline = self.chain().use("compiled", "float8")
        before = pipeline(NUMBERS, CONFIG).images
        take_weights(pipeline, self.chain(seed=9))
        fresh = self.chain(seed=9).use("compiled", "float8")
        assert torch.equal(pipeline(NUMBERS, CONFIG).images, fresh(NUMBERS, CONFIG).images)
        take_weights(pipeline, self.chain())
        assert torch.equal(pipeline(NUMBERS, CONFIG).images, before)

    def test_is_refused_where_the_models_themselves_are_run(self):
        with pytest.raises(UserError, match=r"precision=float8 with runtime=eager.*use runtime=compiled"):
            self.chain().use("eager", "float8")

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


class TestPackage:
    FACTS: ClassVar = {"part": "velocity", "torch": "2.13.0", "batch": [2, 4096]}

    @pytest.fixture
    def place(self, tmp_path):
        self.write(tmp_path, b"code that needs libstdc++.so.6")
        return tmp_path

    def write(self, place, code):
        with zipfile.ZipFile(place / packages.NETWORK, "w") as archive:
            archive.writestr("data/wrapper.so", code)
        packages.write_record(place, self.FACTS)

    def test_that_is_whole_is_used(self, place):
        assert packages.why_unusable(place, self.FACTS) is None

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda place: (place / packages.NETWORK).write_bytes(b"c0de"), "damaged network.pt2"),
            (lambda place: (place / packages.NETWORK).unlink(), "damaged network.pt2"),
            (lambda place: (place / packages.RECORD).write_text("{"), "unreadable package.json"),
            (lambda place: (place / packages.RECORD).unlink(), "does not exist"),
        ],
        ids=["code changed", "code lost", "record torn", "record lost"],
    )
    def test_that_is_damaged_is_built_again(self, place, change, reason):
        change(place)
        assert reason in packages.why_unusable(place, self.FACTS)

    @pytest.mark.skipif(sys.platform != "linux", reason="names the C++ library of Linux")
    def test_with_a_cpp_library_of_its_own_is_built_again_and_never_loaded(self, place):
        self.write(place, b"code with everything linked statically")
        assert "C++ library of its own" in packages.why_unusable(place, self.FACTS)
        with pytest.raises(
            UserError, match=r"network.pt2 was built with a C\+\+ library of its own.*set CXX"
        ):
            packages.check_cpp_library(place / packages.NETWORK)

    def test_of_other_facts_is_named_by_what_differs(self, place):
        assert "another torch" in packages.why_unusable(place, self.FACTS | {"torch": "2.14.0"})

    def test_has_a_key_for_each_combination_of_facts(self):
        part = chain().runtime.networks.velocity
        x, t, z, labels = (
            torch.ones(2, 3, SIZE, SIZE),
            torch.ones(()),
            torch.ones(2, 2, 4, 4),
            torch.ones(2).long(),
        )
        per_sample = torch.ones(2)
        kinds = [
            (x, t, z, labels),
            (x, t, z, None),
            (x[:1], t, z[:1], labels[:1]),
            (x, per_sample, z, labels),
        ]
        facts = [packages.facts_of("velocity", part, one, "float32") for one in kinds]
        facts.append(packages.facts_of("velocity", part, kinds[0], "bfloat16"))
        assert len({packages.key_of(one) for one in facts}) == 5
        larger = packages.facts_of(
            "velocity", part, (x.repeat(3, 1, 1, 1), t, z.repeat(3, 1, 1, 1), labels.repeat(3)), "float32"
        )
        assert packages.key_of(larger) == packages.key_of(facts[0])

    def test_is_for_a_range_of_batch_sizes(self):
        assert [packages.batch_range(size) for size in (1, 2, 256, 257)] == [
            [1, 1],
            [2, 256],
            [2, 256],
            [257, 4096],
        ]
        with pytest.raises(UserError, match="batch of 5000 images: packages are for up to 4096"):
            packages.batch_range(5000)


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
