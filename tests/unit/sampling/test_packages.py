"""Packages of compiled networks are used where they are whole and of the facts at hand, and built again elsewhere."""

import sys
import zipfile
from typing import ClassVar

import pytest
import torch
from harness.small_chains import SIZE, chain

from lediflow.errors import UserError
from lediflow.sampling.runtime import packages


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

    def test_has_a_key_for_each_processor(self, monkeypatch):
        part = chain().runtime.networks.prior
        inputs = (torch.ones(2, 2, 4, 4),)
        here = packages.facts_of("prior", part, inputs, "float32")
        monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: "AMX" not in here["processor"])
        there = packages.facts_of("prior", part, inputs, "float32")
        assert packages.key_of(there) != packages.key_of(here)

    def test_is_for_a_range_of_batch_sizes(self):
        assert [packages.batch_range(size) for size in (1, 2, 256, 257)] == [
            [1, 1],
            [2, 256],
            [2, 256],
            [257, 4096],
        ]
        with pytest.raises(UserError, match="batch of 5000 images: packages are for up to 4096"):
            packages.batch_range(5000)
