"""Opens an onnxruntime session with the settings an edge device wants."""

from __future__ import annotations

import os

import onnxruntime as ort

from rnnx_runtime.contract import METADATA_KEY, Contract, Dims, Port
from rnnx_runtime.errors import ArtifactError

_ORT_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}

_Described = dict[str, tuple[str, Dims]]


def open_session(
    path: str | os.PathLike[str], *, optimize: bool = True, threads: int = 1
) -> ort.InferenceSession:
    """Open `path` on the CPU with `threads` threads; one is best for a step of a small net.

    Raises:
        ArtifactError: the file is missing or onnxruntime cannot load it.
    """
    file = os.fspath(path)
    if not os.path.isfile(file):
        raise ArtifactError(
            f"no file at {file!r}", hint="Check the path; `rnnx export` writes artifacts."
        )
    try:
        return new_session(file, edge_options(optimize=optimize, threads=threads))
    except Exception as error:  # onnxruntime raises many unrelated classes, all meaning this
        raise ArtifactError(
            f"onnxruntime cannot load {file!r}: {_first_line(error)}",
            hint="The file is not ONNX, is damaged, or needs a newer onnxruntime.",
        ) from error


def read_contract(session: ort.InferenceSession, path: str | os.PathLike[str]) -> Contract:
    """The contract in the metadata of an open session, held against its inputs and outputs.

    Raises:
        ArtifactError: there is no contract, or it does not describe this graph.
    """
    try:
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is not None:
            return _held_against_graph(Contract.from_json(text), session)
    except UnicodeDecodeError as error:
        raise ArtifactError(
            f"{os.fspath(path)!r} holds text that is not UTF-8: {error}",
            hint="The file is damaged; copy or export it again.",
        ) from error
    raise ArtifactError(
        f"{os.fspath(path)!r} carries no rnnx contract",
        hint="Export it with `rnnx export`, or convert it with `rnnx.to_streaming`.",
    )


def new_session(source: str | bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session on the CPU; onnxruntime's own error where it cannot be made."""
    return ort.InferenceSession(
        source,
        options,
        providers=["CPUExecutionProvider"],
        enable_fallback=0,  # to the same provider, after a line on stdout, where data goes
    )


def edge_options(*, optimize: bool = True, threads: int = 1) -> ort.SessionOptions:
    """The settings of a session; one thread is best for a step of a small net."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4  # what matters is raised; the rest is not the user's concern
    settings.enable_mem_pattern = False  # lengths vary, and patterns kept for each would pile up
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimize:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return settings


def _held_against_graph(contract: Contract, session: ort.InferenceSession) -> Contract:
    states_in = {state.input_name: (state.dtype, state.dims) for state in contract.states}
    states_out = {state.output_name: (state.dtype, state.dims) for state in contract.states}
    taken = _described((*contract.inputs, *contract.masks)) | states_in
    _hold_ports("inputs", taken, session.get_inputs())
    _hold_ports("outputs", _described(contract.outputs) | states_out, session.get_outputs())
    return contract


def _described(ports: tuple[Port, ...]) -> _Described:
    return {port.name: (port.dtype, port.dims) for port in ports}


def _hold_ports(what: str, described: _Described, nodes: list[ort.NodeArg]) -> None:
    found = {node.name: (_ORT_TYPES.get(node.type, node.type), tuple(node.shape)) for node in nodes}
    wrong = sorted(
        name
        for name in found.keys() | described.keys()
        if name not in found or name not in described or _differ(found[name], described[name])
    )
    if wrong:
        raise ArtifactError(
            f"the contract does not describe this graph: its {what} differ in {', '.join(wrong)}",
            hint="The graph or its metadata was edited by hand; export it again.",
        )


def _differ(found: tuple[str, Dims], described: tuple[str, Dims]) -> bool:
    """Whether dtype, rank or a size that both fix differs; the names of free axes may."""
    if found[0] != described[0] or len(found[1]) != len(described[1]):
        return True
    pairs = zip(found[1], described[1], strict=True)
    return any(a != b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
