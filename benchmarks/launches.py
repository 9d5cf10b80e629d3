"""Counts the operations that an update launches on the device, by their origin.

python benchmarks/launches.py [--network tetrominoes] [--optimizer muon] [--device cuda]

An operation is one that torch dispatches below autograd. Views and empty tensors, which launch nothing, are left out.
Networks, likelihood and optimizer are counted in their forward computation. "inner gradient" is autograd inside the
forward pass, "final gradient" autograd after it. The nodes are those of the graph of the loss.
"""

import argparse
from collections import Counter
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from iodine_pl import IODINE

SIZES = {"tetrominoes": 35, "multi_dsprites": 64, "clevr6": 128}
MODES = {"full": {}, "stopped": {"input_gradients": "stopped"}}
PARTS = ("decoder", "likelihood", "refinement", "inner gradient", "final gradient", "optimizer", "others")
STARTS_NOTHING = {
    *("alias", "as_strided", "detach", "diagonal", "empty", "empty_like", "empty_strided", "expand", "new_empty"),
    *("_local_scalar_dense", "permute", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose"),
    *("unbind", "unsqueeze", "_unsafe_view", "view", "_record_function_enter_new", "_record_function_exit"),
}


class Launches(TorchDispatchMode):
    """Counts operations by the part of an update that launches them."""

    def __init__(self):
        super().__init__()
        self.of_part = Counter()
        self.part = "others"

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function._overloadpacket.__name__ not in STARTS_NOTHING:
            self.of_part[self.part] += 1
        return function(*args, **(kwargs or {}))

    @contextmanager
    def within(self, part):
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def named(self, owner, name, part):
        """Returns a patch that counts a function's operations for this part."""
        function = getattr(owner, name)

        def counted(*args, **kwargs):
            with self.within(part):
                return function(*args, **kwargs)

        return patch.object(owner, name, counted)


def nodes(loss):
    """Returns the size of a graph."""
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    return len(seen)


def count(model, images):
    """Returns the operations of each part of the model's second update, and the nodes of its graph."""
    optimizer = model.configure_optimizers()["optimizer"]
    model.loss(images)[0].backward()
    optimizer.step()
    optimizer.zero_grad()
    launches = Launches()
    with ExitStack() as stack:
        stack.enter_context(launches)
        for owner, name, part in (
            (model.decoder, "forward", "decoder"),
            (model.refinement, "forward", "refinement"),
            (torch.autograd, "grad", "inner gradient"),
            *((model.likelihood, name, "likelihood") for name in ("__init__", "nll_gradients", "leave_one_out")),
            (model.likelihood, "mask_posterior", "likelihood"),
        ):
            stack.enter_context(launches.named(owner, name, part))
        loss, _ = model.loss(images)
        with launches.within("final gradient"):
            loss.backward()
        with launches.within("optimizer"):
            optimizer.step()
    return launches.of_part, nodes(loss)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=SIZES, default="tetrominoes")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, help="side of the images, if not the network's own")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--optimizer", choices=("tf_adam", "adam", "muon"), default="tf_adam")
    given = parser.parse_args()
    size = given.size or SIZES[given.network]
    print(f"| | {' | '.join(PARTS)} | in all | nodes |\n|---|{'---:|' * (len(PARTS) + 2)}")
    for mode, arguments in MODES.items():
        model = getattr(IODINE, given.network)(optimizer=given.optimizer, **arguments).to(given.device)
        of_part, graph = count(model, torch.rand(given.batch, 3, size, size, device=given.device))
        counts = [*(of_part[part] for part in PARTS), of_part.total(), graph]
        print(f"| `{mode}` | {' | '.join(str(each) for each in counts)} |")


if __name__ == "__main__":
    main()
