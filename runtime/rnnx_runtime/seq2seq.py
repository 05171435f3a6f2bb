"""Seq2Seq: an encoder-decoder, two ONNX files beside one contract, decoded on the device."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rnnx_runtime.arguments import hold_count, hold_lengths
from rnnx_runtime.contract import Contract, Port
from rnnx_runtime.decoding import BeamSearch, GreedySearch, Scores, log_softmax
from rnnx_runtime.errors import ArtifactError, InputError
from rnnx_runtime.files import sha256_of_file
from rnnx_runtime.model import Model, fit

Array = npt.NDArray[Any]
Arrays = tuple[Array, ...]

ENCODER = "encoder.onnx"
STEP = "step.onnx"
CONTRACT = "contract.json"
VERSION = 1
_MAX_BYTES = 1 << 20
_MAX_TENSORS = 1000
_MAX_INTEGER = 1 << 31


@dataclass(frozen=True, slots=True)
class Seq2SeqContract:
    """What an encoder-decoder says of itself, the file `contract.json`.

    Every tensor of memory and state has the batch as its first axis.

    Attributes:
        memory: names of what the encoder gives and every step reads: outputs of the encoder,
            inputs of the step.
        states: names of what is carried from step to step: `s000` is an output of the encoder, the
            step's input `s000_in` and its output `s000_out`.
        start, end: the ids that begin and end a sequence.
        max_length: the most ids to generate.
        vocabulary_size: the number of ids.
        fingerprints: the SHA-256 of each file, in hex, by file name.
        checked: what the proof before writing measured.
    """

    memory: tuple[str, ...]
    states: tuple[str, ...]
    start: int
    end: int
    max_length: int
    vocabulary_size: int
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    checked: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION

    @property
    def step_inputs(self) -> tuple[str, ...]:
        """The inputs of the step: token, states, memory."""
        return ("token", *(f"{name}_in" for name in self.states), *self.memory)

    @property
    def step_outputs(self) -> tuple[str, ...]:
        """The outputs of the step: logits, states."""
        return ("logits", *(f"{name}_out" for name in self.states))

    def to_json(self) -> str:
        """This contract as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Seq2SeqContract:
        """Read a contract written by `to_json`.

        Raises:
            ArtifactError: it is not JSON, of another version, or a field does not fit.
        """
        try:
            return _parse(json.loads(text))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ArtifactError(
                f"{CONTRACT} is damaged: {type(error).__name__}: {error}",
                hint="Export the model again with this version of rnnx.",
            ) from error


class Generated(NamedTuple):
    """What `Seq2Seq.generate` found.

    Attributes:
        ids: for each source its best ids, int64 [length], without start and end.
        scores: the sum of the log probabilities of the ids, and of the end where it was reached;
            not normalised by length. float64 [batch].
    """

    ids: list[npt.NDArray[np.int64]]
    scores: Scores


class Seq2Seq:
    """An encoder-decoder that `rnnx.export_seq2seq` wrote. Threads may share it.

    Args:
        folder: the folder with `encoder.onnx`, `step.onnx` and `contract.json`.

    Attributes:
        contract: what the folder says of itself.

    Raises:
        ArtifactError: a file is missing or damaged, or the contract does not describe the files.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self.contract = load_seq2seq_contract(folder)
        for name in (ENCODER, STEP):
            _hold_fingerprint(Path(folder, name), self.contract.fingerprints[name])
        self._encoder = Model(Path(folder, ENCODER))
        self._step = Model(Path(folder, STEP))
        _hold_graphs(self.contract, self._encoder.contract, self._step.contract)
        self._step_inputs = self.contract.step_inputs

    def generate(
        self, src: Any, lengths: Any = None, *, beam: int = 1, max_length: int | None = None
    ) -> Generated:
        """The most probable ids for each source: greedily, or by beam search.

        Args:
            src: ids or features, [batch, time] or [batch, time, ...], as the encoder takes them.
            lengths: frames of each source, int64 [batch], 1 to time; all of them where left out.
            beam: hypotheses followed for each source; 1 is greedy.
            max_length: the most ids, and so the most steps; the contract's where left out. A
                source that has not ended by then gives what it has.

        Raises:
            InputError: an argument does not fit, or the network gave NaN.
        """
        beam = hold_count("beam", beam)
        steps = hold_count(
            "max_length", self.contract.max_length if max_length is None else max_length
        )
        memory, state = self.encode(src, lengths)
        if beam == 1:
            return self._search_greedily(memory, state, steps)
        return self._search_beams(memory, state, beam, steps)

    def encode(self, src: Any, lengths: Any = None) -> tuple[Arrays, Arrays]:
        """Run the encoder once.

        Args:
            src: ids or features, [batch, time] or [batch, time, ...].
            lengths: frames of each source, int64 [batch], 1 to time; all of them where left out.

        Returns:
            memory and state, in the contract's order, the batch first.

        Raises:
            InputError: an argument does not fit.
        """
        src = fit(self._encoder.contract.inputs[0], src)
        if lengths is None:
            lengths = np.full(src.shape[0], src.shape[1], np.int64)
        lengths = fit(self._encoder.contract.inputs[1], lengths)
        hold_lengths("src", lengths, src.shape[1])
        arrays = _run(self._encoder, {"src": src, "lengths": lengths})
        count = len(self.contract.memory)
        return arrays[:count], arrays[count:]

    def step(
        self, token: npt.NDArray[np.int64], state: Sequence[Array], memory: Sequence[Array]
    ) -> tuple[Array, Arrays]:
        """Run the decoder over one id of each sequence.

        Args:
            token: the ids before, int64 [batch].
            state, memory: from `encode`, or the state from the step before.

        Returns:
            logits [batch, vocabulary] and the next state.

        Raises:
            InputError: an array does not fit.
        """
        names, arrays = self._step_inputs, (token, *state, *memory)
        if len(arrays) != len(names):
            raise InputError(f"the step takes {len(names)} arrays ({', '.join(names)})")
        logits, *state = _run(self._step, dict(zip(names, arrays, strict=True)))
        return logits, tuple(state)

    def _search_greedily(self, memory: Arrays, state: Arrays, steps: int) -> Generated:
        batch = len((memory + state)[0])
        search = GreedySearch(batch, self.contract.end)
        token = np.full(batch, self.contract.start, np.int64)
        for position in range(steps):
            logits, state = self.step(token, state, memory)
            token = search.advance(_log_probs(logits, position))
            if search.done:
                break
        return Generated(*search.hypotheses())

    def _search_beams(self, memory: Arrays, state: Arrays, beam: int, steps: int) -> Generated:
        batch = len((memory + state)[0])
        search = BeamSearch(batch, beam, self.contract.end)
        # A beam's parent belongs to the same source, so that memory need never be reordered.
        memory = tuple(array.repeat(beam, axis=0) for array in memory)
        state = tuple(array.repeat(beam, axis=0) for array in state)
        token = np.full(batch * beam, self.contract.start, np.int64)
        for position in range(steps):
            logits, state = self.step(token, state, memory)
            token, parents = search.advance(_log_probs(logits, position))
            if search.done:
                break
            state = tuple(array[parents] for array in state)
        return Generated(*search.hypotheses())

    def __repr__(self) -> str:
        return f"Seq2Seq({self.folder!r})"


def load_seq2seq_contract(folder: str | os.PathLike[str]) -> Seq2SeqContract:
    """Read the contract of the encoder-decoder in `folder`.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    path = Path(folder, CONTRACT)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ArtifactError(
            f"{os.fspath(folder)!r} is no encoder-decoder: {CONTRACT} cannot be read"
            f" ({error.strerror})",
            hint="Give the folder that rnnx.export_seq2seq wrote.",
        ) from error
    if len(data) > _MAX_BYTES:
        raise ArtifactError(f"{str(path)!r} is larger than the {_MAX_BYTES} bytes allowed")
    return Seq2SeqContract.from_json(data.decode("utf-8", "replace"))


def _run(model: Model, feeds: Mapping[str, Array]) -> Arrays:
    results = model.run(feeds)
    return tuple(results.values()) if isinstance(results, dict) else (results,)


def _log_probs(logits: Array, position: int) -> Scores:
    log_probs = log_softmax(logits)
    if np.isnan(log_probs).any():
        raise InputError(
            f"the network gave logits that are no probabilities (NaN or infinite) at step"
            f" {position}",
            hint="Look for NaN and infinity in src.",
        )
    return log_probs


def _hold_fingerprint(path: Path, expected: str) -> None:
    if not path.is_file():
        raise ArtifactError(
            f"no file at {str(path)!r}", hint="Copy the whole folder that was exported."
        )
    if sha256_of_file(path) != expected:
        raise ArtifactError(
            f"{str(path)!r} is not the file that {CONTRACT} describes",
            hint="It was changed or belongs to another export; copy or export the folder again.",
        )


def _hold_graphs(contract: Seq2SeqContract, encoder: Contract, step: Contract) -> None:
    """Hold the contract against the two graphs, and the graphs against each other."""
    given = contract.memory + contract.states
    _hold(bool(given), "memory", "and states are empty")
    _hold_names("inputs of the encoder", encoder.inputs, ("src", "lengths"))
    _hold_names("outputs of the encoder", encoder.outputs, given)
    _hold_names("inputs of the step", step.inputs, contract.step_inputs)
    _hold_names("outputs of the step", step.outputs, contract.step_outputs)
    src, lengths = encoder.inputs
    token, logits = step.inputs[0], step.outputs[0]
    _hold((src.batch_axis, src.time_axis) == (0, 1), "src", "is not [batch, time, ...]")
    _hold(_is_vector_of_ids(lengths), "lengths", "is not int64 [batch]")
    _hold(_is_vector_of_ids(token), "token", "is not int64 [batch]")
    _hold(logits.dtype.startswith("float") and len(logits.dims) == 2, "logits", "is no matrix")
    size = logits.dims[-1]
    _hold(size == contract.vocabulary_size, "vocabulary_size", f"is not {size}, the logits' width")
    _hold_states(contract, encoder, step)


def _hold_states(contract: Seq2SeqContract, encoder: Contract, step: Contract) -> None:
    """What the encoder and the step give must fit what the step takes."""
    taken = {port.name: port for port in step.inputs}
    given = {port.name: port for port in encoder.outputs}
    carried = {port.name: port for port in step.outputs}
    pairs = [(given[name], taken[name]) for name in contract.memory]
    pairs += [(given[name], taken[f"{name}_in"]) for name in contract.states]
    pairs += [(carried[f"{name}_out"], taken[f"{name}_in"]) for name in contract.states]
    for source, target in pairs:
        _hold(_fits(source, target), source.name, f"does not fit the step's input {target}")


def _fits(source: Port, target: Port) -> bool:
    sizes = zip(source.dims, target.dims, strict=False)
    same = all(a == b for a, b in sizes if isinstance(a, int) and isinstance(b, int))
    return same and source.dtype == target.dtype and len(source.dims) == len(target.dims)


def _is_vector_of_ids(port: Port) -> bool:
    return port.dtype == "int64" and len(port.dims) == 1


def _hold_names(what: str, ports: Sequence[Port], names: Sequence[str]) -> None:
    found = [port.name for port in ports]
    _hold(found == list(names), f"the {what}", f"are {found}, not {list(names)}")


def _hold(condition: bool, what: str, fault: str) -> None:
    if not condition:
        raise ArtifactError(
            f"{CONTRACT} does not describe the files beside it: {what} {fault}",
            hint="The folder was edited by hand; export the model again.",
        )


def _parse(record: Any) -> Seq2SeqContract:
    if not isinstance(record, dict) or record["version"] != VERSION:
        raise ValueError(f"it is not an encoder-decoder's contract of version {VERSION}")
    vocabulary_size = _integer(record, "vocabulary_size", 1, _MAX_INTEGER)
    fingerprints = record["fingerprints"]
    return Seq2SeqContract(
        memory=_names(record["memory"], "m"),
        states=_names(record["states"], "s"),
        start=_integer(record, "start", 0, _MAX_INTEGER),
        end=_integer(record, "end", 0, vocabulary_size - 1),
        max_length=_integer(record, "max_length", 1, _MAX_INTEGER),
        vocabulary_size=vocabulary_size,
        fingerprints={name: str(fingerprints[name]) for name in (ENCODER, STEP)},
        checked=dict(record["checked"]),
    )


def _names(names: Any, letter: str) -> tuple[str, ...]:
    if not isinstance(names, list) or len(names) > _MAX_TENSORS:
        raise ValueError(f"the names {letter}000, ... are not a list, or too many")
    if tuple(names) != tensor_names(letter, len(names)):
        raise ValueError(f"the names {names[:3]}, ... are not {letter}000, {letter}001, ...")
    return tuple(names)


def tensor_names(letter: str, count: int) -> tuple[str, ...]:
    """`m000`, `m001`, ... for memory, `s000`, ... for states."""
    return tuple(f"{letter}{index:03d}" for index in range(count))


def _integer(record: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = record[name]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r}, not an integer from {least} to {most}")
    return value
