import itertools
import sys

import pytest
from tqdm import tqdm

from iodine_pl.files.progress import progress_bar


@pytest.mark.parametrize(("terminal", "least", "most"), [(True, 95, 110), (False, 5, 15)])
def test_a_log_has_few_lines(monkeypatch, capsys, terminal, least, most):
    seconds = itertools.count()
    monkeypatch.setattr("tqdm.std.time", lambda: float(next(seconds)))
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # no thread of its own
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    bar = progress_bar(total=100, miniters=1)
    for _ in range(100):
        bar.update()
    bar.close()
    assert least < capsys.readouterr().err.count("\r") < most
