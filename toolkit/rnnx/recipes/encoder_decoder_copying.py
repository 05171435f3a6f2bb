"""An encoder-decoder that may copy words it does not know, and the ids that such words get."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, cat, nn

from rnnx.recipes.encoder_decoder import EncoderDecoder, Memory, State
from rnnx.recipes.encoder_decoder_data import PADDING, UNKNOWN, Corpus, Pair, Texts, Tokens

_LEAST = 1e-9  # a probability whose logarithm is finite


class PointerGenerator(EncoderDecoder):
    """A pointer-generator (See et al. 2017, arXiv:1704.04368): writes a word or copies one.

    Ids from `words` on stand for the words of the source that the vocabulary has not, numbered as
    they come. The encoder and the decoder read them as unknown; attention points at them. What
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
        """As in `EncoderDecoder`; the source itself, int64 `[batch, time]`, is memory too."""
        memory, state = super().encode(self._known(src), lengths)
        return (*memory, src), state

    def decode(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
        """Log probabilities `[batch, time, words + copied]` of the tokens after `tokens`."""
        written, weights, state = self._written(tokens, state, memory)
        probs = nn.functional.pad(written, (0, self.copied))
        src = memory[2][:, None].expand(weights.shape)
        return probs.scatter_add(2, src, weights).clamp(min=_LEAST).log(), state

    def loss(self, src: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """Mean negative log probability of the tokens that can be written or copied."""
        memory, state = self.encode(src, lengths)
        written, weights, _ = self._written(target[:, :-1], state, memory)
        after = target[:, 1:]
        probs = written.gather(2, self._known(after)[..., None])[..., 0] * (after < self.words)
        probs = probs + (weights * (src[:, None] == after[..., None])).sum(2)
        counted = (after != PADDING) & (after != UNKNOWN)
        return -probs[counted].clamp(min=_LEAST).log().mean()

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
    """A corpus of one language, in which ids beyond the vocabulary stand for words of the source.

    Each word of the source that the vocabulary has not gets the next such id, in the target too.
    """

    def pair(self, texts: Texts) -> Pair:
        """The ids of a source and its target."""
        new = self._new(texts[0])
        source, target = ([new.get(word, i) for word, i in self._ids(text)] for text in texts)
        return source, target

    def written(self, source: Tokens, ids: Iterable[int]) -> Tokens:
        """The words that the ids written for a source stand for; some ids stand for none."""
        words = (*self.target.tokens, *self._new(source))
        return tuple(words[i] for i in ids if i < len(words))

    def _new(self, source: Tokens) -> dict[str, int]:
        unknown = dict.fromkeys(word for word, i in self._ids(source) if i == UNKNOWN)
        return {word: i for i, word in enumerate(unknown, len(self.source))}

    def _ids(self, text: Tokens) -> Iterator[tuple[str, int]]:
        return zip(text, self.source.ids(text), strict=True)
