"""Runs hostile bytes in a process of its own, so that an abort, a hang or greed is seen."""

from __future__ import annotations

import math
import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnnx.start_probe import peak_memory
from rnnx_runtime import Contract, Model, RnnxError, Seq2Seq, Stream, StreamPool, load_contract
from rnnx_runtime.samples import random_inputs

HANG = 60.0  # seconds; a case takes milliseconds
GREED = 1 << 30  # bytes that no case may add to the process
_MOST_NUMBERS = 1 << 20  # in one input; what a contract may ask of a caller is no fault


class Case(NamedTuple):
    """A call to make in the worker."""

    call: Callable[..., object]
    arguments: tuple[Any, ...]


class Worker:
    """A process that makes calls; a new one takes its place when it dies."""

    def __init__(self, hang: float = HANG) -> None:
        self._hang = hang
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def fault(self, case: Case) -> str | None:
        """What went wrong: None where the call ended, or raised an RnnxError."""
        self._connection.send(case)
        if not self._connection.poll(self._hang):
            self._process.kill()
            return self._renewed(f"it hangs: no answer after {self._hang:g} s")
        try:
            answer: str | None = self._connection.recv()
        except (EOFError, ConnectionResetError):
            return self._renewed("the process died")
        return answer and self._renewed(answer)  # its memory is no measure for the next

    def close(self) -> None:
        self._connection.close()
        self._process.join()

    def _start(self) -> None:
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._connection.recv()  # it is ready

    def _renewed(self, fault: str) -> str:
        self.close()
        code = self._process.exitcode
        self._start()
        return f"{fault}, exit code {code}"


def _serve(connection: Connection) -> None:
    connection.send(None)
    while True:
        try:
            case = connection.recv()
        except EOFError:
            return
        connection.send(_tried(case))


def _tried(case: Case) -> str | None:
    before = peak_memory()
    try:
        case.call(*case.arguments)
    except RnnxError:
        pass
    except BaseException:
        return traceback.format_exc()
    taken = peak_memory() - before
    return f"it took {taken >> 20} MB" if taken > GREED else None


def open_file(data: bytes) -> None:
    """Open and run the artifact that the bytes are."""
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(data)
        file.flush()
        contract = load_contract(file.name)
        model = Model(file.name)
    assert Contract.from_json(contract.to_json()).to_json() == contract.to_json()
    if contract.streaming:
        _stream(model.stream())
        _pool(StreamPool(model, max_streams=2))
    else:
        _feed(model.run, contract, 5)


def _stream(stream: Stream) -> None:
    contract = stream.model.contract
    for frames in (1, 0, 450, 8):
        _feed(stream.feed, contract, frames)
    twin = stream.clone()
    twin.restore(stream.snapshot())
    twin.flush()
    stream.reset()
    _feed(stream.feed, contract, 3)


def _pool(pool: StreamPool) -> None:
    """Two streams together, then a third, for which one is put aside and taken back."""
    streams = [pool.open(), pool.open()]
    for frames in (450, 1, 8):
        for stream in streams:
            _feed(stream.push, pool.model.contract, frames)
        pool.run()
        for stream in streams:
            stream.pull()
    for stream in (pool.open(), *streams):
        _feed(stream.push, pool.model.contract, 3)
        stream.flush()
        stream.close()


def _feed(run: Callable[..., object], contract: Contract, frames: int) -> None:
    shapes = [port.shape(batch=1, frames=port.here(frames)) for port in contract.inputs]
    if max(map(math.prod, shapes), default=0) <= _MOST_NUMBERS:
        run(random_inputs(contract, np.random.default_rng(0), batch=1, frames=frames))


def restore(data: bytes, path: Path) -> None:
    """Let a stream of the artifact at `path` go on from the snapshot that the bytes are."""
    stream = Model(path).stream()
    stream.restore(data)
    _feed(stream.feed, stream.model.contract, 7)
    stream.snapshot()
    stream.flush()


def open_folder(data: bytes, folder: Path) -> None:
    """Open and run the encoder-decoder whose contract the bytes are."""
    Path(folder, "contract.json").write_bytes(data)
    Seq2Seq(folder).generate([[0, 1, 2], [2, 1, 0]], max_length=3)
