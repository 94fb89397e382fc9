"""Lightning: a callback puts the feed's position into each of Lightning's checkpoints.

python examples/lightning_loop.py
"""

from pathlib import Path

import lightning
import numpy as np
import torch

import unbounded as ub


class Regression(lightning.LightningModule):
    """A sum of ten numbers."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(10, 1)

    def training_step(self, batch, index):
        x, y = batch
        return torch.nn.functional.mse_loss(self.layer(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class Position(lightning.Callback):
    """The position of a feed. Lightning restores the state of a loader in the middle of an epoch alone."""

    def __init__(self, feed):
        self.feed = feed

    def state_dict(self):
        return self.feed.state_dict()

    def load_state_dict(self, state):
        self.feed.load_state_dict(state)


x = np.random.default_rng(0).random((5000, 10), dtype=np.float32)
stream = ub.from_arrays((x, x.sum(axis=1, keepdims=True))).batch(32)

model = Regression()
saving = lightning.pytorch.callbacks.ModelCheckpoint("runs/lightning", save_last=True)  # after each epoch
with ub.Feed(stream, epoch=ub.Epoch(steps=100)) as feed:
    trainer = lightning.Trainer(max_epochs=5, accelerator="cpu", logger=False, callbacks=[saving, Position(feed)])
    last = Path("runs/lightning/last.ckpt")
    loader = torch.utils.data.DataLoader(feed, batch_size=None)  # NumPy arrays into tensors
    trainer.fit(model, loader, ckpt_path=last if last.exists() else None)
    print(f"{trainer.global_step} steps")
