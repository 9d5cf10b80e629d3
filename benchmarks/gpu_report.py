"""Writes the results of gpu.py as a page of Markdown, and draws the curves of the trainings."""

from curves import line_style, save, subplots
from gpu_expected import expected
from gpu_recipes import NETWORKS, Settings
from gpu_slices import Record
from gpu_training import progress

from iodine_pl.files.atomic import written_beside


def write_report(record: Record, settings: Settings) -> None:
    """Writes ``report.md``, ``curves.png`` if there is a curve, and the progress of trainings into ``gpu.json``."""
    trainings = {}
    for network in NETWORKS:
        found = record.results.get(f"training/{network}") or progress(network, settings)
        if found is not None and "error" not in found:
            trainings[network] = found
    record.content["trainings"] = trainings
    record.save()
    drawn = any(each["rows"] for each in trainings.values())
    if drawn:
        _draw(trainings, settings)
    parts = (
        _head(record),
        _tests(record.results),
        _engine(record.results),
        _data(record.results),
        _training(trainings, record.results, settings),
        ["![Foreground ARI over GPU-hours and over updates](curves.png)"] if drawn else [],
        _failures(record),
    )
    with written_beside(settings.out / "report.md") as partial:
        partial.write_text("\n\n".join("\n".join(part) for part in parts if part) + "\n")


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    aligned = ["---", *["---:"] * (len(heads) - 1)]
    return [f"| {' | '.join(row)} |" for row in (heads, aligned, *rows)]


def _head(record: Record) -> list[str]:
    card, slices = record.results.get("card", {}), record.content["slices"]
    memory = f", {card['memory'] / 2**30:.0f} GiB" if card.get("memory") else ""
    spent = sum(each["seconds"] for each in slices)
    lines = ["# What the device gave", "", f"{card.get('name', 'a device that did not say')}{memory}; torch "]
    lines[-1] += f"{card.get('torch')}, CUDA {card.get('cuda')}, Python {card.get('python')}. "
    lines[-1] += f"{len(slices)} slice(s), {spent / 60:.1f} minutes."
    return lines


def _tests(results: dict) -> list[str]:
    found = results.get("tests", {})
    if "passed" not in found:
        return []
    lines = ["## Tests", "", f"{found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped."]
    return [*lines, "", *(f"* `{name}`: {said}" for name, said in found["failures"].items())]


def _engine(results: dict) -> list[str]:
    rows = []
    ceilings = {}
    for name, found in results.items():
        if not name.startswith("engine/") or "rows" not in found:
            continue
        _, network, way = name.split("/")
        ceilings[way] = found["ceilings"]["matmul"]
        for mode, row in found["rows"].items():
            rows.append([f"{network}, {way}, {mode}", *_cells(row)])
    if not rows:
        return []
    heads = ["network, way, gradient", "seconds", "images/s", "MB", "GFLOP", "of the convolution's rate"]
    heads += ["of the matrix product's", "largest batch", "error of likelihood", "error of gradient"]
    best = ", ".join(f"{way}: {rate / 1e12:.2f}" for way, rate in ceilings.items())
    return [
        "## Engine",
        "",
        f"An update. Matrix products reach, in TFLOP/s: {best}. Errors are against float64 on the CPU, and after the",
        "stroke those of plain autograd in the same precision. **Bold** ones are more than twice as much.",
        "",
        *_table(heads, rows),
    ]


def _cells(row: dict) -> list[str]:
    if row["seconds"] is None:
        numbers = ["out of memory", *[""] * 6]
    else:
        numbers = [f"{row['seconds']:.4f}", f"{row['images_per_second']:.1f}", f"{row['peak_bytes'] / 1e6:.0f}"]
        numbers += [f"{row['operations'] / 1e9:.1f}", f"{row['of the convolution']:.0%}", f"{row['of the matmul']:.0%}"]
        numbers.append(row["largest_batch"])
    for name in ("likelihood", "gradient"):
        error = row.get(f"error of the {name}")
        said = "" if error is None else f"{error['fast']:.1e} / {error['plain']:.1e}"
        numbers.append(said if error is None or error["holds"] else f"**{said}**")
    return numbers


def _data(results: dict) -> list[str]:
    rows = []
    for network in NETWORKS:
        found = results.get(f"data/{network}", {})
        if "images_per_second" in found:
            numbers = [f"{found['images_per_second']:,.0f}", f"{found['updates_per_second']:.2f}"]
            rows.append([network, *numbers, f"{found['share_waited']:.1%}", f"{found['preparing_seconds']:.0f}"])
    made = results.get("data/rendering", {})
    lines = ["## Data", ""] if rows or "scenes_per_second" in made else []
    if rows:
        heads = ["", "images/s into the device", "updates/s", "of the time waited", "seconds to prepare"]
        lines += [*_table(heads, rows), ""]
    if "scenes_per_second" in made:
        lines.append(
            f"CLEVR: {made['scenes_per_second']:.1f} scenes/s rendered on the device; the images are "
            f"{made['mean_levels_off']:.3f} levels of 255 off the CPU's in the mean, "
            f"{made['labels_that_differ']:.4%} of the labels differ."
        )
    return lines


def _training(trainings: dict, results: dict, settings: Settings) -> list[str]:
    chosen = results.get("data/choices", {})
    rows = []
    for network, found in trainings.items():
        last = found["rows"][-1] if found["rows"] else {}
        test = found.get("test", {})
        cells = [f"{found['updates']:,} of {settings.updates(network):,}", f"{found['seconds'] / 3600:.3f}"]
        cells += [f"{each['ari_fg']:.3f}" if "ari_fg" in each else "" for each in (last, test)]
        cells += [f"{each['mse']:.4f}" if "mse" in each else "" for each in (last, test)]
        rows.append([network, str(chosen.get(network, "")), *cells])
    if not rows:
        return []
    heads = ["", "precision", "updates", "GPU-hours", "ARI, validation", "ARI, test", "MSE, validation", "MSE, test"]
    return ["## Training", "", *_table(heads, rows), "", *expected(trainings, results)]


def _failures(record: Record) -> list[str]:
    failed = {name: found["error"] for name, found in record.results.items() if "error" in found}
    cut = {name: seconds for name, seconds in record.content["cut"].items() if name not in record.results}
    lines = [f"* `{name}`: {said}" for name, said in failed.items()]
    lines += [f"* `{name}` was cut off {len(seconds)} time(s), and is to be continued" for name, seconds in cut.items()]
    return ["## Not measured", "", *lines] if lines else []


def _draw(trainings: dict, settings: Settings) -> None:
    figure, axes = subplots(1, 2, figsize=(10, 4), sharey=True)
    for number, (network, found) in enumerate(trainings.items()):
        rows = [row for row in found["rows"] if "ari_fg" in row]
        scores = [row["ari_fg"] for row in rows]
        axes[0].plot([row["seconds"] / 3600 for row in rows], scores, label=network, **line_style(number))
        axes[1].plot([row["updates"] for row in rows], scores, label=network, **line_style(number))
    axes[0].set(xlabel="GPU-hours", ylabel="foreground ARI, validation")
    axes[1].set(xlabel="updates")
    save(figure, axes, settings.out / "curves.png", loc="outside lower center", ncols=3)
