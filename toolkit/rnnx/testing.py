"""Assertions for a test suite: an artifact against its model, and its outputs against a file.

    assert_parity("model.onnx", model)
    assert_golden("model.onnx", x, "golden/model.npz")

`assert_golden` needs no torch. Importing this module loads neither torch nor onnxruntime.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from rnnx.parity import Report
    from rnnx_runtime import Stream

    Array = npt.NDArray[Any]
    Arrays = dict[str, Array]

# What a golden file holds: the hash of what was fed, and each output and state under its name.
_INPUTS, _RESULT = "inputs_sha256", "result/"
_HOW_TO_UPDATE = "if that is meant, write it anew: pytest --rnnx-update, or update=True"
_HOW_TO_MAKE = "make it with pytest --rnnx-update, or update=True, and commit it"


def assert_parity(
    path: str | os.PathLike[str],
    model: torch.nn.Module | str | os.PathLike[str],
    args: tuple[Any, ...] | None = None,
    **options: Any,
) -> Report:
    """Hold an artifact against its torch model, or against another artifact.

    Args:
        path: the artifact.
        model: the network it was exported from, or the path of another artifact of it.
        args: example arguments, where the artifact does not record how to call it.
        options: as `rnnx.check` takes them.

    Returns:
        What the check found.

    Raises:
        AssertionError: they are not equal; says where.
    """
    __tracebackhide__ = True
    from rnnx.parity import check

    report = check(path, model, args, **options)
    assert_passed(report)
    return report


def assert_passed(report: Report) -> None:
    """Raise what failed as an AssertionError: its table alone, and how to have it again."""
    __tracebackhide__ = True
    if report.passed:
        return
    failed = [group for group in report.groups if not group.passed]
    findings = tuple(finding for group in failed for finding in group.findings)
    raise AssertionError(
        f"{report.artifact} is not equal to its model:"
        f" {len(failed)} of {len(report.groups)} rows fail (seed {report.seed})\n\n"
        + replace(report, findings=findings, skipped={}).to_text()
    )


def assert_golden(
    artifact: Stream | str | os.PathLike[str],
    inputs: Array | Mapping[str, Array],
    golden: str | os.PathLike[str],
    *,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    update: bool = False,
) -> None:
    """Hold an artifact's outputs, and a stream's last states, against those stored in a file.

    Args:
        artifact: a stream at its beginning, or the path of an artifact, streaming or not.
        inputs: a whole sequence, `[batch, time, features]` where the artifact takes that; arrays
            by name where it has more inputs than one.
        golden: the file, .npz.
        rtol, atol: pass where |output - stored| <= atol + rtol * |stored|, element by element.
        update: write the file instead, with its folder.

    Raises:
        AssertionError: there is no file, or an output is not what it holds; says where.
        InputError: the inputs do not fit the artifact, or the file is no golden file.
    """
    __tracebackhide__ = True
    fed, results = _run(artifact, inputs)
    if update:
        _write(Path(golden), fed, results)
        return
    fed_then, stored = _read(golden)
    if fed_then != fed:
        raise AssertionError(f"{golden} was made of other inputs; {_HOW_TO_UPDATE}")
    if stored.keys() != results.keys():
        held, given = ", ".join(stored), ", ".join(results)
        raise AssertionError(f"{golden} holds {held}, not {given}; {_HOW_TO_UPDATE}")
    _assert_near(results, stored, os.fspath(golden), rtol, atol)


def _run(
    artifact: Stream | str | os.PathLike[str], inputs: Array | Mapping[str, Array]
) -> tuple[str, Arrays]:
    """The hash of what is fed; the outputs and, of a stream, its states."""
    from rnnx.hashing import sha256_of_arrays
    from rnnx_runtime import Model, Stream
    from rnnx_runtime.model import fit_inputs, named, size_along
    from rnnx_runtime.stream import feed_whole

    model = artifact.model if isinstance(artifact, Stream) else Model(artifact)
    feeds = fit_inputs(model.contract, inputs)
    digest = sha256_of_arrays(feeds)
    if not model.contract.streaming:
        return digest, named(model.contract, model.run(feeds))
    batch = size_along(model.contract, feeds, "batch") or 1
    stream = artifact if isinstance(artifact, Stream) else model.stream(batch=batch)
    frames = size_along(model.contract, feeds, "time") or 0
    return digest, feed_whole(stream, feeds, [frames]) | stream.states()


def _write(golden: Path, fed: str, results: Arrays) -> None:
    import numpy as np

    from rnnx_runtime.files import replacing

    golden.parent.mkdir(parents=True, exist_ok=True)
    arrays: Any = {_INPUTS: np.array(fed)} | {f"{_RESULT}{n}": a for n, a in results.items()}
    with replacing(golden) as beside, open(beside, "wb") as file:
        np.savez_compressed(file, **arrays)


def _read(golden: str | os.PathLike[str]) -> tuple[str, Arrays]:
    """The hash of what was fed when the file was made, and the outputs and states."""
    import numpy as np

    from rnnx_runtime.errors import InputError

    path = os.fspath(golden)
    if not os.path.exists(path):
        raise AssertionError(f"there is no golden file {path}: {_HOW_TO_MAKE}")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        return str(arrays.pop(_INPUTS)), {n.removeprefix(_RESULT): a for n, a in arrays.items()}
    except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path!r} is no golden file", hint=f"Remove it, and {_HOW_TO_MAKE}."
        ) from error


def _assert_near(actual: Arrays, stored: Arrays, golden: str, rtol: float, atol: float) -> None:
    __tracebackhide__ = True
    from rnnx_exporters.compare import compare

    lines = []
    for name, value in actual.items():
        found = compare(value, stored[name], rtol=rtol, atol=atol)
        if not found.passed:
            place = "" if found.index is None else f" at index {list(found.index)}"
            far = found.reason or f"off by {found.max_abs:.1e}, atol {found.required_atol:.1e}"
            lines.append(f"  {name}: {far}{place}")
    if lines:
        held_to = f"rtol {rtol:g}, atol {atol:g}"
        raise AssertionError(
            "\n".join([f"not what {golden} holds, at {held_to}; {_HOW_TO_UPDATE}", *lines])
        )
