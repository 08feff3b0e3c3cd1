import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from lediflow.data.shards.reader import ShardIndex, ShardReader
from lediflow.data.storage import folders
from lediflow.errors import UserError


def copied(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_read_at_an_offset_gives_what_tarfile_gives(shards, reader):
    keys, sample = reader.keys(np.arange(50)), 0
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            for name in [name for name in tar.getnames() if name.endswith(".png")]:
                assert f"{keys[sample]}.png" == name
                assert bytes(reader.payload(sample)) == tar.extractfile(name).read()
                sample += 1
    assert sample == len(reader) == 50


def test_signals_are_the_pictures_between_minus_one_and_one(pictures, reader):
    signals = reader.signals(np.array([0, 3])).mean
    source = pictures / reader.metadata(0)[3]["source"]
    pixels = np.asarray(Image.open(source)).transpose(2, 0, 1)
    np.testing.assert_allclose(signals[1], pixels / 127.5 - 1, atol=1e-6)


def test_labels_name_the_class_folder(reader):
    labels = reader.labels(np.arange(8)).tolist()
    classes = [reader.index.contents.classes[label] for label in labels]
    assert classes == [about["class"] for about in reader.metadata(0)]


def test_more_shards_than_are_kept_open_can_be_read(shards, reader, monkeypatch):
    monkeypatch.setattr(folders, "OPEN_FILES", 2)
    few = ShardReader.open(shards)
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(few.signals(order).mean, reader.signals(order).mean)


def test_a_folder_without_an_index_is_reported_with_its_contents_and_the_command(tmp_path):
    (tmp_path / "a.jpg").write_text("")
    with pytest.raises(UserError, match=r"found a.jpg\); make them: python -m lediflow.prepare"):
        ShardIndex.load(tmp_path)
    with pytest.raises(UserError, match="the folder does not exist"):
        ShardIndex.load(tmp_path / "nowhere")


def test_an_incomplete_copy_is_named_with_both_sizes(shards, tmp_path):
    folder = copied(shards, tmp_path)
    (folder / "images-000003.tar").write_bytes(b"half")
    with pytest.raises(UserError, match=r"images-000003.tar has 4 bytes, the index says \d+"):
        ShardIndex.load(folder)


def test_a_table_of_another_set_is_refused(shards, tmp_path):
    folder = copied(shards, tmp_path)
    np.save(folder / "index.offsets.npy", np.load(folder / "index.offsets.npy")[:-1])
    with pytest.raises(UserError, match=r"index\.json of 50, index\.offsets\.npy of 49 samples"):
        ShardIndex.load(folder)


def test_an_index_of_a_later_version_is_refused(shards, tmp_path):
    folder = copied(shards, tmp_path)
    document = json.loads((folder / "index.json").read_text()) | {"schema_version": 99}
    (folder / "index.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="has schema version 99, this code reads 2"):
        ShardIndex.load(folder)
