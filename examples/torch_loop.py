"""A training loop of PyTorch that is saved after each epoch: kill it, run it again, and it goes on.

python examples/torch_loop.py
"""

import numpy as np
import torch

import unbounded as ub

x = np.random.default_rng(0).random((5000, 10), dtype=np.float32)
stream = ub.from_arrays((x, x.sum(axis=1, keepdims=True))).batch(32)

model = torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

with ub.Feed(stream, epoch=ub.Epoch(steps=100)) as feed:
    state = feed.load("runs/torch")  # None the first time
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    for epoch in feed.epochs(5):
        for x, y in epoch:
            loss = torch.nn.functional.mse_loss(model(torch.from_numpy(x)), torch.from_numpy(y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        feed.save("runs/torch", state={"model": model.state_dict(), "optimizer": optimizer.state_dict()})
        print(f"epoch {epoch.number}: {epoch.stats}, loss {loss.item():.4f}")
