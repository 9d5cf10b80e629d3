"""Measures time, memory and operations of an update and an evaluation of IODINE on any device, for the benchmarks.

A mode is a way to differentiate (see engine.py). A way is a precision, with or without the compiler.
"""

import contextlib
import gc
import sys
import time
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from plain import PlainIODINE

from iodine_pl import IODINE

MODES = {
    "plain": (PlainIODINE, {}),
    "full": (IODINE, {}),
    "recompute": (IODINE, {"recompute": True}),
    "stopped": (IODINE, {"input_gradients": "stopped"}),
}
SIZES = {"tetrominoes": 35, "multi_dsprites": 64, "clevr6": 128}
PHASES = ("train", "evaluate")


@dataclass(frozen=True)
class Way:
    """Describes the arithmetic of a measurement.

    Args:
        precision: ``fp32``; ``TF32``: float32 with products rounded to 10 bits by a GPU, torch's default for
            convolutions; ``bf16``: autocast, as with ``--trainer.precision bf16-mixed``.
        compiled, graphs: ``compile_networks`` and ``cuda_graphs`` of the model.
    """

    precision: str = "fp32"
    compiled: bool = False
    graphs: bool = False

    @property
    def transformed(self):
        """Returns whether an update is compiled or recorded instead of run operation by operation."""
        return self.compiled or self.graphs

    @contextlib.contextmanager
    def chosen(self):
        """Turns the rounding of products on a GPU on or off within the block."""
        settings = (torch.backends.cuda.matmul, torch.backends.cudnn)
        before = [each.allow_tf32 for each in settings]
        for each in settings:
            each.allow_tf32 = self.precision == "TF32"
        try:
            yield
        finally:
            for each, value in zip(settings, before, strict=True):
                each.allow_tf32 = value

    def autocast(self, device):
        return torch.autocast(
            torch.device(device).type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False
        )

    @property
    def dtype(self):
        """Returns the dtype of the convolutions."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


class Operations(TorchDispatchMode):
    """Counts floating-point operations; torch's FlopCounterMode fails at an autograd.grad to a leaf."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


class Measured:
    """Runs one mode of one network.

    Args:
        network: name of an official one.
        batch, size: number and side of the images.
        device: of the measurement.
        way: its arithmetic; plain autograd is neither compiled nor recorded.
        mode: one of ``MODES``.
        arguments: further arguments of the model.
    """

    def __init__(self, network, batch, size, device, way, mode, **arguments):
        kind, own = MODES[mode]
        if mode != "plain":
            own = own | {"compile_networks": way.compiled, "cuda_graphs": way.graphs}
        torch.manual_seed(0)
        self.device = torch.device(device)
        self.way = way
        self.reserved = torch.cuda.memory_reserved() if self.device.type == "cuda" else 0
        self.model = getattr(kind, network)(**own, **arguments).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.images = torch.rand(batch, 3, size, size, device=self.device)

    def run(self, phase, steps, slots):
        self.model.num_iterations, self.model.num_slots = steps, slots
        with self.way.chosen():
            if phase == "evaluate":
                with torch.no_grad(), self.way.autocast(self.device):
                    self.model(self.images)
            else:
                self.optimizer.zero_grad()
                with self.way.autocast(self.device):
                    loss, _ = self.model.loss(self.images)
                loss.backward()
                self.optimizer.step()
            synchronize(self.device)

    def seconds(self, *how):
        """Returns the times of two runs after a first one, which is slower after a pause."""
        times = []
        for _ in range(3):
            start = time.perf_counter()
            self.run(*how)
            times.append(time.perf_counter() - start)
        return times[1:]

    def peak_bytes(self, *how):
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self.run(*how)
            if self.way.graphs:  # they keep all of their memory
                return torch.cuda.memory_reserved() - self.reserved
            return torch.cuda.max_memory_allocated() - before
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            self.run(*how)
        events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
        return max(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))

    def operations(self, *how):
        with Operations() as counter:
            self.run(*how)
        return counter.total

    def release(self):
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def synchronize(device):
    """Waits until a GPU has finished its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def rates_of_the_machine(network, batch, size, device, way=Way(), side=None):
    """Returns the best operations per second of the decoder's convolution, and of a matrix product."""
    model = getattr(IODINE, network)()
    convolution = model.decoder.hidden[2].to(device, way.dtype)
    n = batch * model.num_slots
    x = torch.rand(n, convolution.in_channels, size, size, device=device, dtype=way.dtype).to(
        memory_format=torch.channels_last
    )
    x.requires_grad_()
    y = convolution(x)
    gradient = torch.rand_like(y)
    operations = 2 * y.numel() * convolution.weight[0].numel()
    side = side or (1024 if device == "cpu" else 8192)
    a = torch.rand(side, side, device=device, dtype=way.dtype)

    def best(function, count):
        times = []
        for _ in range(10):
            start = time.perf_counter()
            function()
            synchronize(device)
            times.append(time.perf_counter() - start)
        return count / min(times[2:])

    backward = [x, convolution.weight]
    with way.chosen():
        convolutions = (
            best(lambda: convolution(x), operations),
            best(lambda: torch.autograd.grad(y, backward, gradient, retain_graph=True), 2 * operations),
        )
        return {"convolution": max(convolutions), "matmul": best(lambda: a @ a, 2 * side**3)}
