"""The order of reading: a function of (seed, epoch), divided among processes, resumable at any batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler, SequentialSampler

__all__ = ["BatchSampler", "FileOrderSampler", "block_shuffled"]


def block_shuffled(
    indices: NDArray[np.int64], blocks: NDArray[np.int64], window: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Returns the indices of an epoch in random order: blocks are shuffled, then the images of every few blocks.

    Each block is therefore read and unpacked only once per epoch. The order depends only on the arguments.

    Args:
        indices: (N,) positions.
        blocks: (N,) block of each position.
        window: number of blocks whose images are mixed.
        seed, epoch: determine the order.
    """
    rng = np.random.default_rng([seed, epoch])
    numbers, block_of = np.unique(blocks, return_inverse=True)
    group = rng.permutation(len(numbers))[block_of] // window
    return indices[np.lexsort((rng.random(len(indices)), group))]


class BatchSampler(DistributedSampler[Any]):
    """Yields the batches of this process, each a list of indices.

    In training every process gets one contiguous part of the shuffled order. The parts have equal lengths and only full
    batches. No image occurs twice in an epoch. Fewer than ``batch_size * processes`` images are left out, others in
    each epoch. In evaluation each image occurs exactly once, on one of the processes, whose numbers of images differ
    by at most one.

    It derives from DistributedSampler so that Lightning does not replace it.

    Args:
        indices: positions in the file, increasing.
        batch_size: images in a batch, per process.
        blocks: block of each index; None: each is its own block.
        window: number of blocks that are mixed in training.
        shuffle: training order; False: order of the file, with a smaller last batch.
        seed: of the order.
        rank: number of this process.
        processes: number of processes.
        resume: (epoch, batches): skip this number of batches in this epoch, which a stopped run has already seen.
    """

    def __init__(
        self,
        indices: Sequence[int] | NDArray[np.int64],
        batch_size: int,
        blocks: NDArray[np.int64] | None = None,
        window: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
        resume: tuple[int, int] = (0, 0),
    ) -> None:
        self.indices = np.asarray(indices, dtype=np.int64)
        super().__init__(self.indices, num_replicas=processes, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.batch_size = batch_size
        self.blocks = self.indices if blocks is None else blocks
        self.window = window
        self.resume = resume
        self.epoch = resume[0]

    def __len__(self) -> int:
        """Returns the number of batches of a whole epoch on this process."""
        if self.shuffle:
            return len(self.indices) // (self.batch_size * self.num_replicas)
        return -(-len(self._share(self.indices)) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        if self.shuffle:
            order = block_shuffled(self.indices, self.blocks, self.window, self.seed, self.epoch)
            size = len(self) * self.batch_size
            order = order[self.rank * size : (self.rank + 1) * size]
        else:
            order = self._share(self.indices)
        first = self.resume[1] if self.epoch == self.resume[0] else 0
        for start in range(first * self.batch_size, len(order), self.batch_size):
            yield order[start : start + self.batch_size].tolist()

    def _share(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array_split(indices, self.num_replicas)[self.rank]


class FileOrderSampler(BatchSampler, SequentialSampler):  # type: ignore[misc]
    """Yields batches in the order of the file, as ``BatchSampler(shuffle=False)`` does.

    ``Trainer(overfit_batches=...)`` replaces every sampler by one of single images, except a SequentialSampler.
    """
