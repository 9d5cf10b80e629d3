"""Numbers in README and docs are those of the files in docs/results that a command wrote.

A comment before a table names the file, and where each row and column is in it::

    <!-- numbers: results/learning_muon.csv
    row: run=rate 2e-3
    column: ari_fg
    column: mse
    -->

The path of a row, followed by that of a column (or with it in place of ``{}``), leads to the value: ``key`` of a dict
or position in a list, and ``key=value`` for those of a list of dicts that have this value. ``-`` is not checked. A
column may hold several values, as in ``ari_fg & mse``, and divide one, as in ``peak_bytes / 1e6``. Without ``row`` a
row is the one of ``table`` whose first value is the text in the first cell; without ``column`` the heads are the keys.
``*`` in the file stands for the first part of each path. A comment behind a number in a sentence,
``0.80<!-- number: FILE PATH -->``, names its value.
"""

import csv
import functools
import json
import re

import pytest
from command import ROOT

PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text() for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md"))
}
TABLE = re.compile(r"<!-- numbers: (\S+)\n?(.*?)-->\n((?:\|[^\n]*\n)+)", flags=re.DOTALL)
SINGLE = re.compile(r"(?<![\w.,-])(-?[\d,.]*\d)(?: %)?<!-- number: (\S+) (.+?) -->")
NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+|(?=\.\d))(?:\.\d+)?")


@functools.cache
def content(file):
    """Returns what a file of docs/results holds: JSON, or the rows of a CSV file."""
    if "*" in file:
        before, after = (ROOT / "docs" / file).name.split("*")
        found = (ROOT / "docs" / file).parent.glob(f"{before}*{after}")
        return {path.name[len(before) : -len(after)]: content(f"results/{path.name}") for path in found}
    text = (ROOT / "docs" / file).read_text()
    return json.loads(text) if file.endswith(".json") else list(csv.DictReader(text.splitlines()))


def value(file, path):
    """Returns the number at a path."""
    path, *divisor = path.split(" / ")
    found = content(file)
    for part in path.split("/"):
        key, _, wanted = part.partition("=")
        if wanted:
            found = [record for record in found if str(record[key]) == wanted]
        elif isinstance(found, list) and not key.isdigit():
            (record,) = found  # the path leads to one alone
            found = record[key]
        else:
            found = found[int(key) if isinstance(found, list) else key]
    return float(found) / float(divisor[0] if divisor else 1)


def shows(text, number):
    """Says whether a text is the number, rounded as the text is: 0.97, .0070, 2149, or 67,500 to three digits."""
    digits = text.replace(",", "")
    decimals = len(digits.partition(".")[2])
    zeros = len(digits) - len(digits.rstrip("0")) if "," in text and not decimals else 0
    return abs(float(digits) - number) <= 0.5001 * 10.0 ** (zeros - decimals)


def cells(line):
    return [cell.strip() for cell in line.strip()[1:-1].split("|")]


def wrong_numbers(page):
    """Yields a line for each number of a page that is not that of its file, or is not found in it."""
    for file, paths, table in TABLE.findall(page):
        head, _, *lines = table.splitlines()
        rows, columns = (re.findall(rf"^{kind}: (.*?) *$", paths, flags=re.MULTILINE) for kind in ("row", "column"))
        columns = columns or cells(head)[1:]
        if not rows:
            first = next(iter(content(file)["table"][0]))
            rows = [f"table/{first}={cells(line)[0]}" for line in lines]
        if len(rows) != len(lines) or len(columns) != len(cells(head)) - 1:
            yield f"{file}: {len(rows)} rows and {len(columns)} columns are named, the table has others: {head}"
            continue
        for line, row in zip(lines, rows, strict=True):
            for cell, column in zip(cells(line)[1:], columns, strict=True):
                numbers = NUMBER.findall(cell)
                if "-" in (row, column) or not numbers:
                    continue
                for text, path in zip(numbers, column.split(" & "), strict=True):
                    whole = row.replace("{}", path) if "{}" in row else f"{row}/{path}"
                    if not shows(text, found := value(file, whole)):
                        yield f"{file}, {whole}: {text} stands for {found}"
    for text, file, path in SINGLE.findall(page):
        if not shows(text, found := value(file, path)):
            yield f"{file}, {path}: {text} stands for {found}"


@pytest.mark.parametrize("name", PAGES)
def test_numbers_are_those_of_the_files(name):
    assert list(wrong_numbers(PAGES[name])) == []


def test_every_comment_is_read():
    assert len(PAGES) > 10
    for name, page in PAGES.items():
        assert page.count("<!-- number") == len(TABLE.findall(page)) + len(SINGLE.findall(page)), name


OF_TABLE = (
    "<!-- numbers: results/cpu.json\nrow: optimizers/8/Adam\ncolumn: update\n-->\n| | ms |\n|-|-|\n| Adam | {} |\n"
)
BY_LABEL = (
    "<!-- numbers: results/tetrominoes_segmentation.json -->\n"
    "| x | mean |\n|-|-|\n| MSE | .0018 |\n| KL (nats) | {} |\n"
)
OF_SENTENCE = "{}<!-- number: results/data.json rows/dataset=clevr/reader=ours/workers=0/images_per_second --> images/s"


@pytest.mark.parametrize(
    ("page", "right", "wrong"),
    [(OF_TABLE, "118.1", "118.2"), (BY_LABEL, "83", "82"), (OF_SENTENCE, "6,300", "6,200")],
)
def test_a_wrong_number_is_noticed(page, right, wrong):
    assert list(wrong_numbers(page.format(right))) == []
    assert len(list(wrong_numbers(page.format(wrong)))) == 1
