"""An encoder-decoder with attention in plain PyTorch, and its training, for the recipes."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnnx.recipes.encoder_decoder_data import END, PADDING, START, Batch, Ids, Pair, batches, padded
from rnnx.recipes.recipe import Array, Generation, Tell, best_device, descend, recurrent

_LEARNING_RATE = 0.003

State = Tensor | tuple[Tensor, Tensor]
Memory = tuple[Tensor, ...]


class EncoderDecoder(nn.Module):
    """Reads the source in both directions, then writes, looking at the source before each token.

    The encoder's last states, of both directions, are the decoder's first; attention is Luong's,
    with a matrix between the decoder's output and the encoder's (arXiv:1508.04025).

    Args:
        sources, targets: tokens of either vocabulary.
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        hidden_size: units of the decoder, half of them for each direction of the encoder.
        dropout: part of the embeddings and of the decoder's outputs that training leaves out.
    """

    def __init__(
        self, sources: int, targets: int, cell: str, hidden_size: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.source = nn.Embedding(sources, hidden_size)
        self.target = nn.Embedding(targets, hidden_size)
        self.encoder = recurrent(cell, hidden_size, hidden_size // 2, bidirectional=True)
        self.decoder = recurrent(cell, hidden_size, hidden_size)
        self.attention = nn.Linear(hidden_size, hidden_size, bias=False)
        self.mix = nn.Linear(2 * hidden_size, hidden_size)
        self.head = nn.Linear(hidden_size, targets)
        self.dropout = nn.Dropout(dropout)

    def encode(self, src: Tensor, lengths: Tensor) -> tuple[Memory, State]:
        """Read whole sources.

        Args:
            src: ids, int64 `[batch, time]`.
            lengths: tokens of each source, int64 `[batch]`.

        Returns:
            What attention reads: float32 `[batch, time, hidden]`, and which of it is no padding,
            bool `[batch, time]`; then the decoder's first state, `[1, batch, hidden]` each.
        """
        embedded = self.dropout(self.read(src))
        packed = pack_padded_sequence(embedded, lengths.cpu(), True, enforce_sorted=False)
        outputs, state = self.encoder(packed)
        values, _ = pad_packed_sequence(outputs, batch_first=True, total_length=src.shape[1])
        values = values + embedded  # what a token is stands beside where it stands
        inside = torch.arange(src.shape[1], device=src.device) < lengths.to(src.device)[:, None]
        return (values, inside), _joined(state)

    def read(self, src: Tensor) -> Tensor:
        """What stands for each token of the sources, float32 `[batch, time, hidden]`."""
        embedded: Tensor = self.source(src)
        return embedded

    def step(self, token: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
        """Logits `[batch, targets]` of the token after `token`, int64 `[batch]`, and the state."""
        logits, state = self.decode(token[:, None], state, memory)
        return logits[:, 0], state

    def decode(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
        """The same for whole targets, int64 `[batch, time]`: logits `[batch, time, targets]`."""
        y, state = self.decoder(self.dropout(self.target(tokens)), state)
        context, _ = self.attend(y, memory)
        return self.head(self.mixed(y, context)), state

    def attend(self, y: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Context `[batch, time, hidden]` for each output, and weights `[batch, time, source]`."""
        values, inside, *_ = memory
        energies = self.attention(y) @ values.transpose(1, 2)
        weights = energies.masked_fill(~inside[:, None], -1e9).softmax(-1)
        return weights @ values, weights

    def mixed(self, y: Tensor, context: Tensor) -> Tensor:
        """What the head reads, `[batch, time, hidden]`."""
        mixed: Tensor = self.dropout(self.mix(torch.cat([y, context], -1)).tanh())
        return mixed

    def loss(self, src: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """Mean cross entropy of each target's tokens after those that stand before them."""
        memory, state = self.encode(src, lengths)
        logits, _ = self.decode(target[:, :-1], state, memory)
        return nn.functional.cross_entropy(
            logits.transpose(1, 2), target[:, 1:], ignore_index=PADDING
        )


def train(
    model: EncoderDecoder,
    training: Sequence[Pair],
    validation: Sequence[Pair],
    *,
    epochs: int,
    tell: Tell,
) -> EncoderDecoder:
    """Train with the true token before each token (teacher forcing); keep the best epoch's weights.

    Args:
        model: the network; a GPU trains it if there is one.
        training, validation: ids of sources and targets.
        epochs: passes over the training part; the learning rate rises, then falls to nothing.
        tell: told the validation part's loss after each epoch.
    """
    device = best_device()
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    parts = [[_moved(batch, device) for batch in batches(part)] for part in (training, validation)]
    steps = epochs * len(parts[0])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, steps)
    best, weights = float("inf"), model.state_dict()
    for epoch in range(1, epochs + 1):
        for i in torch.randperm(len(parts[0])):
            descend(model, optimizer, model.train().loss(*parts[0][i]))
            schedule.step()
        loss = _mean_loss(model.eval(), parts[1])
        tell(f"epoch {epoch} of {epochs}: validation loss {loss:.3f} for each token")
        if loss < best:
            best, weights = loss, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return model.cpu().eval()


def generation(max_length: int) -> Generation:
    """How the pipeline has these networks generate, greedily, at most so many ids."""

    def generate(model: nn.Module, sources: Sequence[Array]) -> list[Ids]:
        assert isinstance(model, EncoderDecoder)
        return greedy(model, sources, max_length)

    return Generation(START, END, max_length, generate)


def greedy(model: EncoderDecoder, sources: Sequence[Array], max_length: int) -> list[Ids]:
    """The ids that torch generates for each source, always the most probable, without the end."""
    with torch.inference_mode():
        src, lengths = padded(sources)
        memory, state = model.encode(src, lengths)
        token, columns = torch.full((len(src),), START), []
        for _ in range(max_length):
            logits, state = model.step(token, state, memory)
            token = logits.argmax(-1)
            columns.append(token)
    return [_until_end(ids) for ids in torch.stack(columns, 1).tolist()]


def _joined(state: State) -> State:
    """The last states of both directions, `[2, batch, half]`, as one `[1, batch, hidden]`."""
    if isinstance(state, tuple):
        h, c = state
        return torch.cat([h[:1], h[1:]], -1), torch.cat([c[:1], c[1:]], -1)
    return torch.cat([state[:1], state[1:]], -1)


def _mean_loss(model: EncoderDecoder, parts: Sequence[Batch]) -> float:
    """Of the batches, each as heavy as it has tokens to write."""
    weights = [float((target[:, 1:] != PADDING).sum()) for _, _, target in parts]
    with torch.inference_mode():
        losses = [float(model.loss(*batch)) for batch in parts]
    return sum(loss * weight for loss, weight in zip(losses, weights, strict=True)) / sum(weights)


def _until_end(ids: Ids) -> Ids:
    return ids[: ids.index(END)] if END in ids else ids


def _moved(batch: Batch, device: torch.device) -> Batch:
    src, lengths, target = batch
    return src.to(device), lengths, target.to(device)  # lengths are read on the CPU
