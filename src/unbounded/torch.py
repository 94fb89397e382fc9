"""Support for PyTorch's DataLoader; torch is used only if the program has imported it."""

from __future__ import annotations

import sys

from unbounded.core.node import StreamError


def register(feed: type) -> None:
    """Register feeds as IterableDatasets: DataLoader(feed, batch_size=None) then iterates instead of indexing."""
    data = sys.modules.get("torch.utils.data")
    if data is not None and not issubclass(feed, data.IterableDataset):
        data.IterableDataset.register(feed)


def refuse_collation() -> None:
    """Raise TypeError if the caller is a DataLoader without `batch_size=None`, which would make batches of batches.
    Called by the feed's `__iter__`, so that its caller's caller is the DataLoader's fetcher."""
    if "torch.utils.data" not in sys.modules:
        return
    caller = sys._getframe(2)
    if caller.f_globals.get("__name__") == "torch.utils.data._utils.fetch" and caller.f_locals.get("auto_collation"):
        raise TypeError(
            "DataLoader(feed) would put the feed's batches into batches of its own. Write "
            "DataLoader(feed, batch_size=None): the stream's .batch(n) says how many rows a batch has."
        )


def refuse_worker() -> None:
    """Raise StreamError in a DataLoader's worker process: each worker would train on the same batches."""
    data = sys.modules.get("torch.utils.data")
    info = None if data is None else data.get_worker_info()
    if info is not None:
        raise StreamError(
            f"DataLoader(num_workers={info.num_workers}) gives each worker process a copy of the feed: each batch "
            "would come once from each, and no position would be known. Use num_workers=0; .prefetch(n) and "
            ".map(fn, workers=n) work ahead in threads."
        )
