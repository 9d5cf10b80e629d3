import numpy as np
import pytest

from iodine_pl.datamodules.sampler import BatchSampler, block_shuffled


def epoch_of(processes, batch_size=8, count=1000, **arguments):
    samplers = [
        BatchSampler(range(count), batch_size, np.arange(count) // 64, 16, True, 5, rank, processes, **arguments)
        for rank in range(processes)
    ]
    return [list(sampler) for sampler in samplers]


def test_order_is_a_function_of_seed_and_epoch():
    indices = np.arange(3000)
    blocks = indices // 64
    orders = {
        (seed, epoch): tuple(block_shuffled(indices, blocks, 16, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    for order in orders.values():
        assert sorted(order) == list(range(3000))
    assert tuple(block_shuffled(indices, blocks, 16, 1, 1)) == orders[1, 1]


def test_a_batch_comes_from_few_blocks_and_an_epoch_mixes_widely():
    order = block_shuffled(np.arange(60_000), np.arange(60_000) // 64, 16, 0, 0)
    batches = order[: 468 * 128].reshape(468, 128)
    assert max(len(np.unique(batch // 64)) for batch in batches) <= 32
    assert np.mean([len(np.unique(batch // 64)) for batch in batches]) > 14
    assert abs(np.corrcoef(order, np.arange(60_000))[0, 1]) < 0.1


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_training_is_disjoint_equal_and_complete_up_to_the_remainder(processes):
    parts = epoch_of(processes)
    assert len({len(part) for part in parts}) == 1
    seen = [index for part in parts for batch in part for index in batch]
    assert len(seen) == len(set(seen)) == 1000 // (8 * processes) * 8 * processes
    assert all(len(batch) == 8 for part in parts for batch in part)


@pytest.mark.parametrize("count", [31, 32, 1])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_evaluation_counts_each_image_once(count, processes):
    samplers = [BatchSampler(range(100, 100 + count), 4, rank=rank, processes=processes) for rank in range(processes)]
    assert all(len(sampler) == len(list(sampler)) for sampler in samplers)
    assert [index for sampler in samplers for batch in sampler for index in batch] == list(range(100, 100 + count))


def test_resumes_in_its_epoch_only():
    whole = BatchSampler(range(1000), 8, shuffle=True, seed=5)
    resumed = BatchSampler(range(1000), 8, shuffle=True, seed=5, resume=(3, 40))
    for epoch in (3, 4):
        whole.set_epoch(epoch)
        resumed.set_epoch(epoch)
        assert list(resumed) == list(whole)[40 if epoch == 3 else 0 :]
        assert len(resumed) == len(whole) == 125
