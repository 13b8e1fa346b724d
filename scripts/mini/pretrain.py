"""Pretrains data/mini/model by masked language modelling on generated text.

    python scripts/mini/pretrain.py [--output data/mini] [--steps 3000] [--work target/mini-pretrain]

RoBERTa's recipe: dynamic masking of 15 % of the tokens (80 % <mask>, 10 % a random token, 10 % left; words that
carry a meaning more often, see `telling`), `<s> A </s></s> B </s>` for two
sentences, AdamW, linear warm-up and decay. Batch, masks and dropout of a step depend on the seed and the
step alone, so a run that was stopped goes on from its last saved state (in --work) as if it had never been.
One thread: the same bytes on the same machine.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import RobertaConfig, RobertaForMaskedLM

import grammar as g
import words as w
from corpus import pretraining_item
from make_data import evaluation_texts
from make_tokenizer import POSITIONS

SEED = 41
INIT = 0.05  # of the weights; with RoBERTa's .02 words of one class become alike in a model this narrow
CHUNK = 4096  # items that are generated, and sorted by length into batches, together
DECAY = 800  # last steps, in which the learning rate goes down to 0
PAD, MASK_FROM = 1, 4  # ids below 4 are special and never masked


def configuration(vocabulary: int, dropout: float) -> RobertaConfig:
    return RobertaConfig(
        vocab_size=vocabulary,
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=POSITIONS + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        initializer_range=INIT,
        tie_word_embeddings=False,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        bos_token_id=0,
        pad_token_id=PAD,
        eos_token_id=2,
    )


class Batches:
    """Batch number `step` of the endless text, as a padded tensor of ids."""

    def __init__(self, tokenizer: Tokenizer, batch: int):
        self.tokenizer, self.batch = tokenizer, batch
        self.held_out = evaluation_texts()
        self.chunk, self.items = None, []

    def load(self, chunk: int):
        d = g.Dice(SEED * 1_000_003 + chunk)
        items = []
        while len(items) < CHUNK:
            first, word, second = pretraining_item(d)
            if (first,) not in self.held_out and (first, second) not in self.held_out:
                items.append((first, word + second))
        encodings = self.tokenizer.encode_batch(items)
        ids = sorted((e.ids for e in encodings), key=len)
        self.items = [ids[i : i + self.batch] for i in range(0, CHUNK, self.batch)]
        d.shuffle(self.items)
        self.chunk = chunk

    def get(self, step: int) -> torch.Tensor:
        chunk, i = divmod(step, CHUNK // self.batch)
        if chunk != self.chunk:
            self.load(chunk)
        rows = self.items[i]
        ids = torch.full((len(rows), max(map(len, rows))), PAD)
        for row, values in zip(ids, rows):
            row[: len(values)] = torch.tensor(values)
        return ids


def telling(tokenizer: Tokenizer) -> torch.Tensor:
    """The chance of each id to be masked. Words that carry a meaning (good or bad, up or down) or say how
    two sentences hang together need the rest of the text to be predicted, so a short training learns
    more from masking them more often than the others."""
    chances = torch.full((tokenizer.get_vocab_size(),), 0.15)
    chances[:MASK_FROM] = 0.0
    meanings = [*w.GOOD, *w.BAD, *w.LIKED, *w.DISLIKED, *w.UP, *w.DOWN]
    for word in meanings:
        chances[tokenizer.encode(" " + word.split()[0], add_special_tokens=False).ids] = 0.3
    for word in w.SAME + w.OTHER:
        chances[tokenizer.encode(word, add_special_tokens=False).ids] = 0.4
    return chances


def mask(ids: torch.Tensor, chances: torch.Tensor, generator: torch.Generator):
    """Input ids after masking, and which positions are to be predicted."""
    vocabulary = len(chances)
    chosen = torch.rand(ids.shape, generator=generator) < chances[ids]
    way = torch.rand(ids.shape, generator=generator)
    noise = torch.randint(MASK_FROM, vocabulary - 1, ids.shape, generator=generator)
    masked = torch.where(chosen & (way < 0.8), vocabulary - 1, ids)
    return torch.where(chosen & (way >= 0.9), noise, masked), chosen


def factor(step: int, steps: int, warmup: int) -> float:
    return min((step + 1) / warmup, 1.0, (steps - step) / DECAY)


def save_model(model, folder: Path, dropout: float):
    """Half precision, as transformers saves it, with the dropout that fine-tuning is to use."""
    out = RobertaForMaskedLM(configuration(model.config.vocab_size, dropout))
    out.config.initializer_range = 0.02  # of new heads
    out.load_state_dict(model.state_dict())
    out.half().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)
    for name in ("config.json", "model.safetensors"):
        data = (folder / name).read_bytes()
        print(hashlib.sha256(data).hexdigest(), f" model/{name}  {len(data)} bytes")


def arguments():
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=root / "data/mini")
    parser.add_argument("--work", type=Path, default=root / "target/mini-pretrain")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--dropout", type=float, default=0.0, help="in pretraining; config.json says .1")
    return parser.parse_args()


def main():
    args = arguments()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(args.output / "model/tokenizer.json"))
    vocabulary = tokenizer.get_vocab_size()
    torch.manual_seed(SEED)
    model = RobertaForMaskedLM(configuration(vocabulary, args.dropout)).train()
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), eps=1e-6)
    state_file = args.work / "state.pt"
    start = 0
    if state_file.exists():
        state = torch.load(state_file)
        start = state["step"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    chances = telling(tokenizer)
    telling_ids = chances == 0.4
    batches, began = Batches(tokenizer, args.batch), time.time()
    total, hard = 0.0, []
    for step in range(start, args.steps):
        generator = torch.Generator().manual_seed(SEED * 1_000_003 + step)
        torch.manual_seed(step)
        ids = batches.get(step)
        inputs, chosen = mask(ids, chances, generator)
        hidden = model.roberta(inputs, attention_mask=(ids != PAD).long())[0]
        losses = torch.nn.functional.cross_entropy(model.lm_head(hidden[chosen]), ids[chosen], reduction="none")
        loss = losses.mean()
        hard.append(losses.detach()[telling_ids[ids[chosen]]])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = args.lr * factor(step, args.steps, 100)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
        done = step + 1
        if done % 100 == 0:
            line = {"step": done, "loss": total / 100, "seconds": time.time() - began}
            line["telling"] = torch.cat(hard).mean().item()
            print(json.dumps({name: round(value, 3) for name, value in line.items()}), flush=True)
            total, hard = 0.0, []
        if done % 250 == 0 or done == args.steps:
            state = {"step": done, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, state_file.with_suffix(".new"))
            state_file.with_suffix(".new").rename(state_file)
    save_model(model, args.output / "model", 0.1)


if __name__ == "__main__":
    main()
