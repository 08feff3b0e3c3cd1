"""Inception by torch-fidelity and TorchScript modules: weights from files, checked before they are believed."""

from __future__ import annotations

import io
import json
import pickle

import pytest
import torch
from torch import Tensor, nn

from lediflow.compat import fix_torchvision
from lediflow.errors import UserError
from lediflow.evaluation.features import FeaturesConfig, build_features
from lediflow.evaluation.features.inputs import rgb_pixels
from lediflow.evaluation.metrics import metric_name


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.fixture(scope="module", autouse=True)
def tiny_clip(tmp_path_factory):
    """An architecture of open_clip that is built in no time."""
    fix_torchvision()
    import open_clip

    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 1, "layers": 1}
    path = tmp_path_factory.mktemp("architectures") / "odd-files.json"
    path.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(path)


@pytest.mark.parametrize("name", ["open_clip:odd-files", "inception", "efficientnet-lite0"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        saved([torch.zeros(2)]),
        saved(torch.zeros(2)),
        saved({1: torch.zeros(2)}),
        saved({}),
    ],
    ids=["empty", "text", "a list", "a tensor", "numbered tensors", "no tensors"],
)
def test_a_file_without_the_weights_is_named_and_refused(name, content, tmp_path):
    (tmp_path / "odd.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"odd\.pt does not hold the weights of"):
        build_features(FeaturesConfig(name=name, path=f"{tmp_path}/odd.pt"))


def test_invalid_safetensors_are_refused(tmp_path):
    (tmp_path / "odd.safetensors").write_bytes(b"no tensors, no header")
    with pytest.raises(UserError, match=r"odd\.safetensors does not hold the weights of"):
        build_features(FeaturesConfig(name="open_clip:odd-files", path=f"{tmp_path}/odd.safetensors"))


def images(count: int, size: int) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


class ChannelMeans(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class Maps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2]


def scripted(module: nn.Module, path) -> FeaturesConfig:
    torch.jit.script(module).save(path)
    return FeaturesConfig(
        name="torchscript", path=str(path), size=16, mean=[0.5, 0.25, 0.0], std=[0.5, 1.0, 2.0]
    )


class TestTorchScript:
    def test_a_module_receives_images_of_the_configured_size_mean_and_deviation(self, tmp_path):
        extractor = build_features(scripted(ChannelMeans(), tmp_path / "means.pt"))
        white = torch.ones(2, 1, 40, 40)
        torch.testing.assert_close(extractor(white), torch.tensor([[1.0, 0.75, 0.5]]).expand(2, -1))
        assert extractor.dim == 3

    def test_oblong_images_are_refused(self, tmp_path):
        extractor = build_features(scripted(ChannelMeans(), tmp_path / "means.pt"))
        with pytest.raises(UserError, match="crop them first"):
            extractor(torch.zeros(1, 3, 10, 30))

    def test_its_name_distinguishes_files(self, tmp_path):
        names = {
            build_features(scripted(module, tmp_path / folder / "net.pt")).name
            for folder, module in (("a", ChannelMeans()), ("b", nn.Sequential(ChannelMeans(), nn.ReLU())))
            if (tmp_path / folder).mkdir() is None
        }
        assert len(names) == 2
        assert all(name.startswith("torchscript:net-") for name in names)
        assert metric_name("mmd", min(names)) == f"MMD ({min(names)})"

    def test_an_output_other_than_one_vector_per_image_is_refused(self, tmp_path):
        with pytest.raises(UserError, match=r"gave \(1, 2, 16, 16\) for 1 images.*one vector each"):
            build_features(scripted(Maps(), tmp_path / "maps.pt"))

    @pytest.mark.parametrize("content", [None, b"no archive"])
    def test_a_file_that_is_not_a_module_is_refused(self, tmp_path, content):
        if content:
            (tmp_path / "net.pt").write_bytes(content)
        with pytest.raises(UserError, match=r"needs a TorchScript module.*torch\.jit\.script"):
            build_features(FeaturesConfig(name="torchscript", path=f"{tmp_path}/net.pt"))


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """torch-fidelity's network with weights of our own drawing, and their file."""
    fix_torchvision()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    with pytest.MonkeyPatch.context() as patch:  # it would have to be given weights to be built
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.save({}, path)
        torch.manual_seed(0)
        network = FeatureExtractorInceptionV3("oracle", ["2048"], feature_extractor_weights_path=str(path))
    torch.save(network.state_dict(), path)
    return network, path


class TestInception:
    def test_features_are_torch_fidelitys_of_the_bytes_of_a_png(self, oracle):
        network, path = oracle
        extractor = build_features(FeaturesConfig(name="inception", path=str(path)))
        pictures = images(2, 40)
        (expected,) = network(rgb_pixels(pictures).to(torch.uint8))
        torch.testing.assert_close(extractor(pictures), expected)
        assert (extractor.dim, metric_name("frechet", extractor.name)) == (2048, "FID")

    def test_oblong_images_are_refused(self, oracle):
        extractor = build_features(FeaturesConfig(name="inception", path=str(oracle[1])))
        with pytest.raises(UserError, match="crop them first"):
            extractor(torch.zeros(1, 3, 10, 30))

    def test_without_weights_the_message_says_where_to_get_them(self, monkeypatch):
        monkeypatch.delenv("LEDIFLOW_WEIGHTS", raising=False)
        with pytest.raises(
            UserError, match=r"https://\S+weights-inception-2015-12-05-6726825d\.pth.*features\.path"
        ):
            build_features(FeaturesConfig(name="inception"))

    def test_weights_of_something_else_are_refused(self, tmp_path):
        torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "weights.pth")
        with pytest.raises(UserError, match="does not hold the weights of Inception"):
            build_features(FeaturesConfig(name="inception", path=f"{tmp_path}/weights.pth"))

    def test_a_pickle_that_would_run_code_is_refused(self, tmp_path):
        (tmp_path / "weights.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
        with pytest.raises(UserError, match="does not hold the weights of Inception"):
            build_features(FeaturesConfig(name="inception", path=f"{tmp_path}/weights.pth"))
        assert not Trap.sprung


class Trap:
    """Says so when it is unpickled."""

    sprung = False

    def __reduce__(self):
        return spring, ()


def spring() -> None:
    Trap.sprung = True
