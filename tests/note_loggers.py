"""Loggers with the interfaces of packages that are not installed; each notes what it was given."""

from types import SimpleNamespace

from pytorch_lightning.loggers import Logger


class Silent(Logger):
    """Takes only numbers, and has no folder."""

    name = version = None

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass


class Pictures(Silent):
    """Takes pictures and tables as WandbLogger does."""

    def __init__(self):
        super().__init__()
        self.noted = []

    def log_image(self, key, images, step=None, **kwargs):
        self.noted += [("image", key, image, step) for image in images]

    def log_table(self, key, columns=None, data=None, dataframe=None, step=None):
        self.noted.append(("table", key, [columns, *data], step))


class Artifacts(Silent):
    """Takes pictures and texts as MLFlowLogger does: its client writes files for a run."""

    run_id = "7"

    def __init__(self):
        super().__init__()
        self.noted = []
        self.experiment = SimpleNamespace(log_image=self._image, log_text=self._text, log_metric=None)

    def _image(self, run_id, image, artifact_file=None, **kwargs):
        self.noted.append(("image", run_id, image, artifact_file))

    def _text(self, run_id, text, artifact_file):
        self.noted.append(("text", run_id, text, artifact_file))
