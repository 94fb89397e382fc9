"""The Trainer of Hugging Face: its data loader is a feed, whose position is written before each of its checkpoints.

python examples/hf_trainer.py
"""

import json
from pathlib import Path

import datasets
import numpy as np
import torch
import transformers

import unbounded as ub

RUN = Path("runs/hf_trainer")


class FeedTrainer(transformers.Trainer):
    """A Trainer that trains on the batches of a feed."""

    def __init__(self, feed, **given):
        super().__init__(**given)
        self.feed = feed

    def get_train_dataloader(self):
        # A generator of its own, or else each loop would draw from the one that Dropout uses.
        return torch.utils.data.DataLoader(self.feed, batch_size=None, generator=torch.Generator())


class Position(transformers.TrainerCallback):
    """Confirms the batches of each step, and writes the feed's position before each checkpoint of the Trainer."""

    def __init__(self, feed):
        self.feed = feed

    def on_step_end(self, args, state, control, **given):
        self.feed.trained()
        if control.should_save:
            path = RUN / f"feed-{state.global_step}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.feed.state_dict()))


# Yours: a data set of the hub, and a tokenizer. These are sentences of 8 numbers, and whether they have a 7.
numbers = np.random.default_rng(0).integers(1, 20, (2000, 8))
sentences = datasets.Dataset.from_dict({"input_ids": numbers, "labels": (numbers == 7).any(axis=1).astype(int)})
stream = ub.from_dataset(sentences).batch(16)

# Yours: AutoModelForSequenceClassification.from_pretrained(…)
shape = transformers.BertConfig(
    vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=2
)
model = transformers.BertForSequenceClassification(shape)

options = transformers.TrainingArguments(
    output_dir=str(RUN),
    max_steps=100,
    save_steps=20,
    save_total_limit=3,
    learning_rate=1e-2,
    ignore_data_skip=True,  # the feed goes on at its own position
    use_cpu=True,
    report_to="none",
)
with ub.Feed(stream, epoch=ub.Epoch(steps=50), confirm="manual") as feed:
    trainer = FeedTrainer(feed, model=model, args=options, callbacks=[Position(feed)])
    last = transformers.trainer_utils.get_last_checkpoint(RUN) if RUN.exists() else None
    if last is not None:
        feed.load_state_dict(json.loads((RUN / f"feed-{last.rsplit('-', 1)[1]}.json").read_text()))
    trainer.train(resume_from_checkpoint=last)
    print(f"{trainer.state.global_step} steps")
