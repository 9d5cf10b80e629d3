"""The installed command, as users type it: its exit status, its errors of one line, its help."""

import contextlib
import inspect
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from command import BAR, ROOT, TINY, environment, run, start
from pytorch_lightning.callbacks import EarlyStopping

import iodine_pl
from iodine_pl.checkpoints.classes import imported
from iodine_pl.cli import CommandError, run_command
from iodine_pl.cli.commands import TOOLS
from iodine_pl.cli.errors import sentence_of
from iodine_pl.pretrained import FOLDER

_SCRIPT = Path(sys.executable).with_name("iodine")
IODINE = [str(_SCRIPT)] if _SCRIPT.is_file() else [sys.executable, "-m", "iodine_pl"]


def iodine(*arguments, folder, **variables):
    """Runs the installed command, in a new interpreter."""
    return subprocess.run(
        [*IODINE, *map(str, arguments)],
        cwd=folder,
        env=environment() | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sentence(arguments):
    with pytest.raises(CommandError) as ended:
        run_command(arguments)
    said = str(ended.value)
    assert said.startswith("error: ")
    assert "\n" not in said
    return said


@pytest.mark.waits
def test_a_run_that_succeeds_exits_with_0_and_shows_no_object(tmp_path):
    done = iodine("fit", *TINY, BAR, "--trainer.max_steps=2", "--trainer.devices=2", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    for words in ("object at 0x", "LeafSpec", "litlogger", "Total FLOPs"):
        assert words not in said
    said = run("test", "--ckpt_path", "last", "--trainer.devices=1", folder=tmp_path)
    assert "it/s" not in said  # this is no terminal
    shown = dict(line.split() for line in said.splitlines() if line.startswith("test/"))
    assert {"test/ari_fg", "test/ari", "test/miou", "test/mbo", "test/mse", "test/elbo"} <= set(shown)
    assert "test_steps" not in said
    assert "data: those of" in said


def test_a_typo_is_one_line_and_exits_with_2(tmp_path):
    (tmp_path / "errors").touch()
    typo = start("fit", "--trainer.max_stepz", "3", folder=tmp_path, script=_SCRIPT, errors=tmp_path / "errors")
    assert (typo.communicate()[0], typo.returncode) == ("", 2)
    said = (tmp_path / "errors").read_text()
    assert said.startswith("error: there is no option --trainer.max_stepz. Did you mean --trainer.max_steps")
    assert said.endswith("? iodine fit --trainer.help lists the options\n")
    assert said.count("\n") == 1


def test_an_interrupt_while_it_starts_is_one_line(tmp_path):
    """To import torch takes seconds; this one stops in the middle of it."""
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    stopped = iodine("fit", folder=tmp_path, PYTHONPATH=str(tmp_path))
    assert (stopped.stdout, stopped.stderr, stopped.returncode) == ("stopped by SIGINT\n", "", 130)


def test_an_error_names_the_process_that_prints_it(tmp_path):
    script = tmp_path / "second.py"
    script.write_text(
        "from lightning_utilities.core.rank_zero import rank_zero_only\nfrom iodine_pl.cli.entry import main\n\n"
        "rank_zero_only.rank = 1\nraise SystemExit(main())\n"
    )
    second = start("tset", folder=tmp_path, script=script)
    assert second.communicate()[0].startswith("[rank: 1] error: there is no command tset")
    assert second.returncode == 2


def test_a_mistake_in_the_code_keeps_its_traceback(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import iodine_pl\n\nclass Mine(iodine_pl.IODINE):\n    def __init__(self, **arguments):\n"
        "        super().__init__(**arguments)\n        first, second = (1, 2, 3)\n"
    )
    failed = start("fit", "--model=mine.Mine", *TINY[:4], folder=tmp_path, module="iodine_pl")
    said, _ = failed.communicate()
    assert failed.returncode == 1
    assert "Traceback" in said
    assert "too many values to unpack" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "--model.num_slotz=3"], "iodine_pl.IODINE has no option num_slotz. Did you mean num_slots?"),
        (["fit", "--data.batchsize=3"], "TetrominoesDataModule has no option batchsize. Did you mean batch_size"),
        (["fit", "--num_slots=3"], "no option --num_slots. Did you mean --model.num_slots"),
        (["fit", "--model.num_slots=abc"], "num_slots must be int or null, got abc"),
        (["fit", "--model.pixel_likelihood=men"], "pixel_likelihood must be mixture or mean, got men"),
        (["fit", "--model.num_slots=0"], "num_slots must be at least 1, got 0"),
        (["fit", "--data.batch_size=0"], "batch_size must be at least 1, got 0"),
        (["fit", "--data=Tetrominos"], "there is no class Tetrominos. Did you mean TetrominoesDataModule?"),
        (["fit", "--model=Foo"], "there is no class Foo. Give IODINE, RNEM, VAE or the path of your own. "),
        (["fit", "--model=VEA"], "there is no class VEA. Did you mean VAE?"),
        (["fit", "--model=nowhere.Mine"], "model: nowhere.Mine cannot be made: No module named 'nowhere'"),
        (["fit", "--model=torch.nn.Linear"], "model: torch.nn.Linear is not a LightningModule"),
        (["fit", "--trainer.max_steps=x"], "trainer.max_steps must be int, got x"),
        (
            ["fit", "--trainer.logger=CSVLogger"],
            "pytorch_lightning.loggers.CSVLogger needs --trainer.logger.save_dir. ",
        ),
        (["fit", "--trainer.barebones=true"], "--trainer.barebones leaves out loggers"),
        (
            ["fit", "--trainer.accelerator=cpu", "--trainer.devices=x"],
            "`devices` selected with `CPUAccelerator` should",
        ),
        (["fit", "--process_timeout=0"], "process_timeout must be positive, got 0"),
        (["fit", "--seed_everything=-1"], "seed_everything must be true, false or from 0 to 4294967295, got -1"),
        (["fit", "--panels.num_images=0"], "num_images must be at least 1, got 0"),
        (["fit", "--last_checkpoint.every_n_train_steps=0"], "every_n_train_steps must be at least 1, got 0"),
        (["fit", "--data.num_workers=-1"], "num_workers must be at least 0, got -1"),
        (["fit", "--config=none.yaml"], "there is no configuration none.yaml"),
        (["fit", "--config=typo.yaml"], "iodine_pl.IODINE has no option num_slotz. Did you mean num_slots?"),
        (["fit", "--config=numbers.ckpt"], "numbers.ckpt is not a text file: give a configuration in YAML"),
        (["fit", "--config=cut.yaml"], "cut.yaml is not YAML (while parsing"),
        (["fit", "--config=list.yaml"], "list.yaml has no settings: give a configuration"),
        (["fit", "--config=class.yaml"], "model: os.system is not a LightningModule"),
        (["report", "tetrominoes", "--config=none.yaml"], "there is no configuration none.yaml"),
        (["fit", "--config=section.yaml"], "no option trainr.max_steps. Did you mean --trainer.max_steps"),
        (["tset"], "there is no command tset. Did you mean test?"),
        (["train"], "there is no command train. Did you mean fit?"),
        (["prepare", "clever"], "dataset must be tetrominoes, multi_dsprites or clevr, got clever"),
        (["prepare"], " prepare needs the argument dataset. "),
        (["convert"], " convert needs the arguments source and --out. "),
        (["generate"], " generate needs the argument dataset: tetrominoes, multi_dsprites or clevr. "),
        (["generate", "clever"], "dataset must be tetrominoes, multi_dsprites or clevr, got clever. "),
        (["prepare", "clevr", "--source=no.tfrecords"], "error: there is no file no.tfrecords"),
        (["prepare", "tetrominoes", "--limit=0"], "limit must be at least 1, got 0"),
        (["prepare", "clevr", "--size=0"], "size must be at least 1, got 0"),
        (["report", "tetrominoes", "--images=0"], "images must be at least 1, got 0"),
        (["generate", "clevr", "--count=1", "--processes=0"], "processes must be at least 1, got 0"),
        (["generate", "clevr", "--count=1", "--seed=-1"], "seed must not be negative, got -1"),
        (["fit", "--data.generated_seed=-1"], "generated_seed must be at least 0, got -1"),
        (["prepare", "tetrominoes", "--size=64"], "tetrominoes is never resized: leave out --size"),
        (["generate", "clevr"], " generate clevr needs the argument --count. "),
        (["fit", "quickstart"], "quickstart is not an option: options begin with --. "),
        (["fit", "--data=SceneDataModule", "--data.path=no.h5"], "there is no file no.h5. Give another path"),
        (["generate", "clevr", "--count=1", "--size=4"], "size must be at least 8 pixels, got 4"),
        (["generate", "clevr", "--count=0"], "count must be at least 1, got 0"),
        (["generate", "clevr", "--count=3", "--part=2/2"], "part must be I/N with I from 0 to N-1, got 2/2"),
        (["generate", "clevr", "--count=3", "--part=a"], "part must be I/N with I from 0 to N-1, got a"),
        (["decompose", "a.png", "--weights=words.ckpt", "--size=20"], "words.ckpt is not a checkpoint"),
        (["export", "tetrominoes"], "export needs either --out FILE or --to FOLDER"),
        (["test", "--ckpt_path=words.ckpt"], "words.ckpt is not a checkpoint"),
        (["export", "words.ckpt", "--out=a.ckpt"], "words.ckpt is not a checkpoint"),
        (["test", "--ckpt_path=numbers.ckpt"], "it has no state_dict and no hyper_parameters"),
    ],
)
@pytest.mark.filterwarnings(r"ignore:(.|\n)*Hit failing import")  # about a class whose module another test removed
def test_an_error_that_the_user_can_correct_is_one_line(folder, arguments, words):
    (folder / "typo.yaml").write_text("model:\n  class_path: iodine_pl.IODINE\n  init_args:\n    num_slotz: 3\n")
    (folder / "section.yaml").write_text("trainr:\n  max_steps: 3\n")
    (folder / "cut.yaml").write_text("model: [1, 2\n")
    (folder / "list.yaml").write_text("- model\n")
    (folder / "class.yaml").write_text("model: {class_path: os.system}\n")
    (folder / "words.ckpt").write_text("no checkpoint")
    torch.save({"step": 3}, folder / "numbers.ckpt")
    assert words in sentence(arguments)
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--trainer.precision=bf16-true", "IODINE has torch.bfloat16 parameters, too coarse for a likelihood"),
        ("--trainer.val_check_interval=100", "`val_check_interval` (100) must be less than or equal to the number"),
    ],
)
def test_an_option_that_does_not_fit_the_rest_is_an_error_of_one_line(folder, option, words):
    """It is found when training begins."""
    assert words in sentence(["fit", *TINY, BAR, option])


def test_only_what_lightning_raises_on_purpose_is_said_in_one_line():
    with pytest.raises(RuntimeError) as refused:
        EarlyStopping("val/arifg")._validate_condition_metric({"val/ari_fg": 0.5})
    assert "conditioned on metric `val/arifg` which is not available" in sentence_of(refused.value)
    with pytest.raises(ValueError, match="invalid literal") as mistake:
        pl.seed_everything("a")
    assert sentence_of(mistake.value) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_images_that_do_not_fit_the_model_are_an_error_of_one_line(folder):
    """Only the first batch shows it."""
    options = ["--config", f"{ROOT}/configs/tetrominoes_vae.yaml", "--model.image_size=20"]
    said = sentence(["fit", *options, *(flag for flag in TINY if flag.startswith("--data.")), BAR])
    assert "VAE takes images (B, 3, 20, 20), got (4, 3, 12, 12): give the model their side, image_size=..." in said


def test_a_missing_accelerator_is_an_error_of_one_line(folder):
    assert "no GPU was found" in sentence(["fit", "--trainer.accelerator=gpu"])


def test_a_missing_extra_is_an_error_of_one_line(folder, monkeypatch):
    monkeypatch.setattr("iodine_pl.evaluation.extra.find_spec", lambda name: None)
    for name in [name for name in sys.modules if name.startswith("iodine_pl.callbacks.experiments")]:
        monkeypatch.delitem(sys.modules, name)  # they are imported again, which fails
    config = ROOT / "configs" / "experiments" / "factor_probe.yaml"
    assert "iodine-pl[experiments]" in sentence(["test", "--ckpt_path=tetrominoes", f"--config={config}"])
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not HDF5"])
def test_no_error_tells_users_to_delete_their_own_file(folder, content):
    (folder / "mine.h5").write_bytes(content)
    said = sentence(["fit", "--data=SceneDataModule", "--data.path=mine.h5", *TINY, BAR])
    assert "mine.h5" in said
    assert "elete" not in said


def test_help_fits_on_two_screens_and_says_where_the_rest_is(folder, capsys):
    for arguments, words in (
        (["--help"], ["fit", "test", *TOOLS]),
        (["help"], ["fit", "test", *TOOLS]),
        (["fit", "--help"], ["--ckpt_path", "--panels.num_images", "--model.help", "--data.help", "--trainer.help"]),
        (["fit", "--model.help"], ["--model.num_slots"]),
        (["fit", "--data.help", "ClevrDataModule"], ["--data.max_objects"]),
        (["fit", "--trainer.help"], ["--trainer.accumulate_grad_batches"]),
        (["prepare", "--help"], ["--source", "a local file"]),
        (["report", "--help"], ["--images"]),
    ):
        with contextlib.suppress(SystemExit):
            run_command(arguments)
        said = capsys.readouterr().out
        assert all(word in said for word in words), said
        if arguments[-1] == "--help":
            assert said.count("\n") <= 100
            assert max(map(len, said.split("\n"))) <= 120


@pytest.mark.parametrize("tool", TOOLS.values(), ids=list(TOOLS))
def test_a_command_and_its_function_say_that_they_do_the_same(tool):
    assert inspect.getdoc(imported(tool.function)).split("\n")[0] == tool.summary


def test_the_version_is_that_of_the_package(folder, capsys):
    run_command(["--version"])
    assert capsys.readouterr().out == f"iodine-pl {version('iodine-pl')}\n"
    assert iodine_pl.__version__ == version("iodine-pl")


@pytest.mark.parametrize("module", ["official", "report", "pretrained", "datamodules.prepare", "datamodules.generate"])
def test_modules_run_as_commands(tmp_path, module):
    assert run("--help", folder=tmp_path, module=f"iodine_pl.{module}").startswith("usage: ")


def test_shipped_weights_know_their_data(folder, capsys):
    found = []

    class Stop(Exception):
        pass

    def note(cli):
        found.append(cli.config.test.data)
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iodine_pl.cli.IodineCLI.before_instantiate_classes", note)
        clevr = f"--ckpt_path={FOLDER / 'clevr6_32px.ckpt'}"
        for arguments in (
            ["--ckpt_path=clevr6_32px"],
            ["--ckpt", "clevr6_32px", "--data.num_test=8"],
            ["--data=TetrominoesDataModule", clevr],
            ["--config=named.yaml"],
            ["--data.num_test=4", "--config=named.yaml", "--data=ClevrDataModule"],
        ):
            (folder / "named.yaml").write_text("ckpt_path: clevr6_32px\ndata:\n  init_args:\n    max_objects: 3\n")
            with pytest.raises(Stop):
                run_command(["test", *arguments])
    kinds = [data.class_path.rsplit(".", 1)[-1] for data in found]
    assert kinds == ["ClevrDataModule"] * 2 + ["TetrominoesDataModule"] + ["ClevrDataModule"] * 2
    given = [(data.init_args.num_train, data.init_args.num_test, data.init_args.get("max_objects")) for data in found]
    assert given[0] == (8000, 320, 6)
    assert given[1] == (8000, 8, 6)
    assert given[2] == (None, 320, None)
    assert given[3] == (8000, 320, 3)
    assert found[2].init_args.batch_size == 128
