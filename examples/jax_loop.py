"""A training loop of JAX: parameters are a tree, and the tree is what a checkpoint has.

python examples/jax_loop.py
"""

import jax
import jax.numpy as jnp
import numpy as np

import unbounded as ub

x = np.random.default_rng(0).random((5000, 10), dtype=np.float32)
stream = ub.from_arrays((x, x.sum(axis=1))).batch(32)


def loss_of(parameters, x, y):
    return jnp.mean((x @ parameters["w"] + parameters["b"] - y) ** 2)


@jax.jit
def train_step(parameters, x, y):
    loss, gradients = jax.value_and_grad(loss_of)(parameters, x, y)
    return jax.tree.map(lambda p, g: p - 0.05 * g, parameters, gradients), loss


parameters = {"w": jnp.zeros(10), "b": jnp.zeros(())}
with ub.Feed(stream, epoch=ub.Epoch(steps=100)) as feed:
    state = feed.load("runs/jax")  # None the first time
    if state is not None:
        parameters = state
    for epoch in feed.epochs(5):
        for x, y in epoch:
            parameters, loss = train_step(parameters, x, y)
        feed.save("runs/jax", state=parameters)
        print(f"epoch {epoch.number}: {epoch.stats}, loss {loss:.4f}")
