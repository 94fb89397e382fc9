"""Accelerate: a feed registered with it, whose position is then in its checkpoints, beside the model and the optimizer.

python examples/accelerate_loop.py
"""

from pathlib import Path

import accelerate
import numpy as np
import torch

import unbounded as ub

RUN = Path("runs/accelerate")

x = np.random.default_rng(0).random((5000, 10), dtype=np.float32)
stream = ub.from_arrays((x, x.sum(axis=1, keepdims=True))).batch(32)
model = torch.nn.Linear(10, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

accelerator = accelerate.Accelerator()
model, optimizer = accelerator.prepare(model, optimizer)
with ub.Feed(stream, epoch=ub.Epoch(steps=100)) as feed:
    accelerator.register_for_checkpointing(feed)
    saved = sorted(RUN.glob("step-*"))
    if saved:
        accelerator.load_state(saved[-1])
    for epoch in feed.epochs(5):
        for batch in epoch:
            x, y = (torch.from_numpy(column).to(accelerator.device) for column in batch)
            loss = torch.nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
        accelerator.save_state(RUN / "new")
        (RUN / "new").rename(RUN / f"step-{feed.steps:08}")  # whole, or not there at all
        print(f"epoch {epoch.number}: {epoch.stats}, loss {loss.item():.4f}")
