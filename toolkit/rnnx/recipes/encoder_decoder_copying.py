"""An encoder-decoder that may copy words it does not know, and the ids that such words get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, cat, nn

from rnnx.recipes.encoder_decoder import EncoderDecoder, Memory, State
from rnnx.recipes.encoder_decoder_data import PADDING, UNKNOWN, Corpus, Pair, Texts, Tokens

_LEAST = 1e-9  # a probability whose logarithm is finite


class PointerGenerator(EncoderDecoder):
    """A pointer-generator (See et al. 2017, arXiv:1704.04368): writes a word or copies one.

    Each word of the source is two ids: the one to read, and the one that copying it writes. Ids
    from `words` on stand for words that the vocabulary has not; they are read as unknown. What
    reads a word and what writes it share one matrix (Press and Wolf 2017, arXiv:1608.05859).

    Args:
        words: size of the vocabulary.
        copied: ids for words that the vocabulary has not.
        cell, hidden_size, dropout: as in `EncoderDecoder`.
    """

    def __init__(
        self, words: int, copied: int, cell: str, hidden_size: int, dropout: float = 0.0
    ) -> None:
        super().__init__(words, words, cell, hidden_size, dropout)
        nn.init.normal_(self.source.weight, std=0.1)
        self.target, self.head.weight = self.source, self.source.weight
        self.words, self.copied = words, copied
        self.switch = nn.Linear(2 * hidden_size, 1)

    def encode(self, src: Tensor, lengths: Tensor) -> tuple[Memory, State]:
        """As in `EncoderDecoder`, of src int64 `[batch, time, 2]`; what is copied is memory too."""
        memory, state = super().encode(src, lengths)
        return (*memory, src[..., 1]), state

    def read(self, src: Tensor) -> Tensor:
        """Both ids of each word as one vector, float32 `[batch, time, hidden]`."""
        embedded: Tensor = self.source(self._known(src)).sum(2)
        return embedded

    def decode(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
        """Log probabilities `[batch, time, words + copied]` of the tokens after `tokens`."""
        written, weights, state = self._written(tokens, state, memory)
        probs = nn.functional.pad(written, (0, self.copied))
        copies = memory[2][:, None].expand(weights.shape)
        return probs.scatter_add(2, copies, weights).clamp(min=_LEAST).log(), state

    def loss(self, src: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """Mean negative log probability of each target's tokens, be they written or copied.

        A token that can be neither counts as copied from anywhere: so rare a word is hardly one
        that the network should write.
        """
        memory, state = self.encode(src, lengths)
        written, weights, _ = self._written(target[:, :-1], state, memory)
        after = target[:, 1:]
        known = (after < self.words) & (after != UNKNOWN)
        probs = written.gather(2, self._known(after)[..., None])[..., 0] * known
        copied = (memory[2][:, None] == after[..., None]) | (after == UNKNOWN)[..., None]
        probs = probs + (weights * copied).sum(2)
        return -probs[after != PADDING].clamp(min=_LEAST).log().mean()

    def _written(
        self, tokens: Tensor, state: State, memory: Memory
    ) -> tuple[Tensor, Tensor, State]:
        """Probabilities of writing each word, of copying each place of the source; the state."""
        y, state = self.decoder(self.dropout(self.target(self._known(tokens))), state)
        context, weights = self.attend(y, memory)
        writes = self.switch(cat([y, context], -1)).sigmoid()
        return self.head(self.mixed(y, context)).softmax(-1) * writes, weights * (1 - writes), state

    def _known(self, ids: Tensor) -> Tensor:
        return ids.masked_fill(ids >= self.words, UNKNOWN)


@dataclass(frozen=True, slots=True)
class CopyCorpus(Corpus):
    """A corpus for a network that copies: one vocabulary, and ids beyond it for other words.

    Attributes:
        copies: what copying a word writes, where that is another word.
    """

    copies: Mapping[str, str]

    def pair(self, texts: Texts) -> Pair:
        """The ids to read and to copy of each word of a source, and those of its target."""
        source, target = texts
        copied, other = self._copied(source), self._other(source)
        ids = [
            [other.get(word, i) for word, i in zip(text, self.target.ids(text), strict=True)]
            for text in (copied, target)
        ]
        return list(zip(self.source.ids(source), ids[0], strict=True)), ids[1]

    def written(self, source: Tokens, ids: Iterable[int]) -> Tokens:
        """The words that the ids written for a source stand for; some ids stand for none."""
        words = (*self.target.tokens, *self._other(source))
        return tuple(words[i] for i in ids if i < len(words))

    def _copied(self, source: Tokens) -> Tokens:
        return tuple(self.copies.get(word, word) for word in source)

    def _other(self, source: Tokens) -> dict[str, int]:
        """The ids of the words that copying writes and the vocabulary has not."""
        copied = self._copied(source)
        ids = zip(copied, self.target.ids(copied), strict=True)
        other = dict.fromkeys(word for word, i in ids if i == UNKNOWN)
        return {word: i for i, word in enumerate(other, len(self.target))}
