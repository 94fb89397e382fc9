"""Training on data that never ends."""

from __future__ import annotations

from unbounded._sources import arrays, generate, samples
from unbounded._epoch import Epoch
from unbounded._stream import Stream
