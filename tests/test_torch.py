"""A feed as a data loader for DataLoader, StatefulDataLoader, Lightning and Accelerate."""

from __future__ import annotations

import copy
import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import installed

pytestmark = [
    pytest.mark.usefixtures("no_threads_left"),
    pytest.mark.filterwarnings("ignore"),  # what these libraries warn of is theirs
    installed("torch", "lightning", "torchdata", "accelerate"),
]

ROWS = 1000


def rows() -> Any:
    return {"id": np.arange(ROWS), "x": np.ones((ROWS, 3), np.float32)}


STREAM = ub.from_arrays(rows(), shuffle=False).batch(10)
UNKNOWN = ub.from_arrays(rows(), shuffle=False).filter(lambda r: r["id"] < ROWS).batch(10)


def feed(stream: ub.Stream = STREAM, **given: Any) -> ub.Feed:
    return ub.Feed(stream, **{"epoch": ub.Epoch(steps=6), **given})


def data_loader(data: ub.Feed, **given: Any) -> Any:
    from torch.utils.data import DataLoader

    return DataLoader(data, batch_size=None, **given)


def stateful_data_loader(data: ub.Feed) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(data, batch_size=None)


def first_ids(batches: Any) -> list[int]:
    return [int(batch["id"][0]) for batch in batches]


@pytest.mark.parametrize("make", [data_loader, stateful_data_loader])
def test_a_dataloader_gives_an_epoch_after_the_other_as_tensors(make: Any) -> None:
    import torch

    with feed() as data:
        loader = make(data)
        assert len(loader) == 6
        assert first_ids(loader) == [0, 10, 20, 30, 40, 50]
        batches = list(loader)
        assert first_ids(batches) == [60, 70, 80, 90, 100, 110]
        assert isinstance(batches[0]["x"], torch.Tensor)
        assert (data.steps, data.stats.in_doubt) == (12, 0)


def test_a_dataloader_of_a_feed_without_a_length_ends_where_the_epoch_does() -> None:
    with feed(UNKNOWN, epoch=ub.Epoch(passes=1)) as data:
        loader = data_loader(data)
        with pytest.raises(TypeError, match="no length"):
            len(loader)
        assert [len(list(loader)) for _ in range(2)] == [100, 100]


def test_a_resume_through_a_dataloader_goes_on_after_the_batch_at_hand() -> None:
    with feed() as data:
        for i, _ in enumerate(data_loader(data)):
            if i == 2:
                state = data.state_dict()
                break
    with feed() as data:
        data.load_state_dict(state)
        loader = data_loader(data)
        assert first_ids(loader) == [30, 40, 50]
        assert first_ids(loader) == [60, 70, 80, 90, 100, 110]


@pytest.mark.parametrize("at", [0, 2, 5])
def test_a_stateful_dataloader_carries_the_feeds_position(at: int) -> None:
    with feed() as data:
        loader = stateful_data_loader(data)
        for i, _ in enumerate(loader):
            if i == at:
                state = loader.state_dict()
                break
    with feed() as data:
        loader = stateful_data_loader(data)
        loader.load_state_dict(state)
        assert (first_ids(loader) + first_ids(loader))[:7] == list(range(10 * at + 10, 10 * at + 80, 10))


def test_worker_processes_are_refused_with_what_to_use_instead() -> None:
    with feed() as data, pytest.raises(ub.StreamError, match=r"(?s)num_workers=1.*\.prefetch\(n\)"):
        next(iter(data_loader(data, num_workers=1, multiprocessing_context="fork")))


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_feed_that_is_sent_or_copied_says_why_not(send: Any) -> None:
    with feed() as data, pytest.raises(TypeError, match=r"other process.*num_workers=0"):
        send(data)


def test_grain_s_names_are_there_too() -> None:
    with feed() as data:
        next(loop := iter(data))
        state = data.get_state()
        del loop
    with feed() as data:
        data.set_state(state)
        assert first_ids(data) == [10, 20, 30, 40, 50]


# -- Lightning ---------------------------------------------------------------------------------------------------------


class Kill(Exception):
    """In the middle of a step."""


@functools.cache
def module_class() -> Any:
    """A module of Lightning's, which takes seconds to import."""
    import lightning
    import torch

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, kill: int | None) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)
            self.seen: list[int] = []
            self._kill = kill

        def training_step(self, batch: Any, index: int) -> Any:
            if self._kill is not None and len(self.seen) == self._kill:
                raise Kill
            self.seen.append(int(batch["id"][0]))
            return self.layer(torch.as_tensor(batch["x"])).sum()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.01)

    return Module


def fit(data: Any, folder: Path, kill: int | None = None, resume: Path | None = None) -> list[int]:
    import lightning

    saving = lightning.pytorch.callbacks.ModelCheckpoint(
        folder, filename="{step}", every_n_train_steps=4, save_top_k=-1
    )
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[saving],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = module_class()(kill)
    try:
        trainer.fit(module, data, ckpt_path=resume)
    except Kill:
        assert kill is not None
    return module.seen


LOADERS = {"the feed": lambda data: data, "a DataLoader": data_loader}


@pytest.mark.parametrize("name", LOADERS)
def test_lightning_trains_each_batch_once(name: str, tmp_path: Path) -> None:
    with feed() as data:
        assert fit(LOADERS[name](data), tmp_path) == list(range(0, 180, 10))
        assert data.stats.in_doubt == 0


@pytest.mark.parametrize("epoch", [ub.Epoch(steps=6), ub.Epoch(rows=60)])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kill", [4, 5, 7, 8, 11, 13, 16, 17])
def test_lightning_resumes_with_the_first_batch_that_was_not_trained_when_it_saved(
    epoch: ub.Epoch, known: bool, kill: int, tmp_path: Path
) -> None:
    # Without a length Lightning takes a batch ahead.
    stream = STREAM if known else UNKNOWN
    epoch = epoch if known else ub.Epoch(rows=60, passes=100)
    with feed(stream, epoch=epoch) as data:
        assert (data.length is None) is not known
        assert fit(data, tmp_path, kill) == list(range(0, 10 * kill, 10))
    saved = kill // 4 * 4
    with feed(stream, epoch=epoch) as data:
        assert fit(data, tmp_path, resume=tmp_path / f"step={saved}.ckpt") == list(range(10 * saved, 180, 10))


# -- Accelerate --------------------------------------------------------------------------------------------------------


def accelerator() -> Any:
    import accelerate

    configuration = accelerate.utils.DataLoaderConfiguration(use_stateful_dataloader=True)
    return accelerate.Accelerator(cpu=True, dataloader_config=configuration)


@pytest.mark.parametrize("at", [0, 2, 4])
def test_accelerate_saves_and_loads_the_feeds_position(at: int, tmp_path: Path) -> None:
    with feed() as data:
        helper = accelerator()
        loader = helper.prepare(data_loader(data))
        assert first_ids(loader) == [0, 10, 20, 30, 40, 50]
        for i, batch in enumerate(loader):
            assert int(batch["id"][0]) == 60 + 10 * i
            if i == at:
                helper.save_state(tmp_path)
                break
    with feed() as data:
        helper = accelerator()
        loader = helper.prepare(data_loader(data))
        helper.load_state(tmp_path)
        assert first_ids(loader) == list(range(70 + 10 * at, 120, 10))
        assert first_ids(loader) == [120, 130, 140, 150, 160, 170]


def test_a_loader_that_would_put_batches_into_batches_is_told_what_to_write() -> None:
    from torch.utils.data import DataLoader

    with (
        ub.Feed(ub.from_arrays(np.arange(8)).batch(4), epoch=ub.Epoch(steps=2)) as feed,
        pytest.raises(TypeError, match=r"DataLoader\(feed, batch_size=None\)"),
    ):
        next(iter(DataLoader(feed)))
