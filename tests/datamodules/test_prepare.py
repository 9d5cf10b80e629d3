"""The command that downloads and converts, as it is typed."""

import pytest
from command import start
from reference import DATA

from iodine_pl.cli import run_command
from iodine_pl.datamodules import SceneDataset


def main(arguments):
    run_command(["prepare", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "name", "shape", "count"),
    [
        (("tetrominoes", "--source", DATA / "tetrominoes_mini.tfrecords"), "tetrominoes.h5", (35, 35, 3), 10),
        (
            ("multi_dsprites", "--source", DATA / "multi_dsprites_synth.tfrecords", "--limit", 4),
            "multi_dsprites_colored_on_grayscale.h5",
            (64, 64, 3),
            4,
        ),
        (("clevr", "--source", DATA / "clevr_synth.tfrecords"), "clevr_128px.h5", (128, 128, 3), 7),
        (("clevr", "--source", DATA / "clevr_synth.tfrecords", "--size", 64), "clevr_64px.h5", (64, 64, 3), 7),
    ],
)
def test_each_dataset(tmp_path, monkeypatch, capsys, arguments, name, shape, count):
    monkeypatch.chdir(tmp_path)
    main([str(word) for word in arguments])
    printed = capsys.readouterr()
    assert f"{count} records in data/{name}. Train on them by --data.path data/{name}" in printed.out
    assert "records" in printed.err  # the progress bar
    scenes = SceneDataset(tmp_path / "data" / name)
    assert (len(scenes), scenes.image_shape) == (count, shape)
    with pytest.raises(SystemExit, match=f"error: data/{name} is there already: delete it, or name another .*--out"):
        main([str(word) for word in arguments])


def test_another_dataset_is_recognized(tmp_path):
    arguments = ["multi_dsprites", "--variant", "binarized", "--source", DATA / "multi_dsprites_synth.tfrecords"]
    ran = start(*arguments, folder=tmp_path, module="iodine_pl.datamodules.prepare")
    said, _ = ran.communicate()
    assert ran.returncode == 2
    assert "record 0: feature mask has 24576 elements, not 16384" in said
    assert "Is this the multi_dsprites_binarized file" in said
    assert "Traceback" not in said


def test_a_missing_source_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*nowhere.tfrecords"):
        main(["clevr", "--source", "nowhere.tfrecords", "--out", str(tmp_path / "a.h5")])


def test_fewer_records_than_requested_are_refused(tmp_path):
    source = DATA / "tetrominoes_mini.tfrecords"
    with pytest.raises(
        SystemExit, match=r"tetrominoes_mini.tfrecords has 10 records, but 11 were asked for. Ask for 10"
    ):
        main(["tetrominoes", "--source", source, "--limit", 11, "--out", tmp_path / "a.h5"])
    assert list(tmp_path.iterdir()) == []
    main(["tetrominoes", "--source", source, "--limit", 10, "--out", tmp_path / "a.h5"])
