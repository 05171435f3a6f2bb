"""What torch.export would freeze or lose in silence is refused, and the user's own line named."""

from __future__ import annotations

import inspect
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.overrides import _get_current_function_mode_stack

import rnnx
from exportable import hold, plain_run, torch_run

AXES = {"x": {0: "batch", 1: "time"}}
X = torch.ones(2, 5, 4)


class Base(nn.Module):
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 4)
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.register_buffer("window", torch.hann_window(5))


class LoopOverFrames(Base):
    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(x.shape[0], 4), []
        for frame in range(x.shape[1]):  # here
            h = self.cell(x[:, frame], h)
            outputs.append(h)
        return torch.stack(outputs, 1)


class Unbind(Base):
    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(x.shape[0], 4), []
        for frame in x.unbind(1):  # here
            h = self.cell(frame, h)
            outputs.append(h)
        return torch.stack(outputs, 1)


class BufferOfOneLength(Base):
    def forward(self, x: Tensor) -> Any:
        return self.gru(x)[0] * self.window[:, None]  # here


class TensorOfOneLength(Base):
    def forward(self, x: Tensor) -> Any:
        y = self.gru(x)[0]
        return y + torch.linspace(0, 1, 5)[:, None]  # here


class StateOfOneBatch(Base):
    def forward(self, x: Tensor) -> Any:
        h = torch.zeros(1, 2, 4)
        return self.gru(x, h)[0]  # here


class DecideByLength(Base):
    def forward(self, x: Tensor) -> Any:
        y = self.gru(x)[0]
        if x.shape[1] > 5:  # here
            y = y[:, :5]
        return y


class IntOfLength(Base):
    def forward(self, x: Tensor) -> Any:
        frames = int(x.shape[1])  # here
        return self.gru(x)[0] / frames


class AssertOfLength(Base):
    def forward(self, x: Tensor) -> Any:
        assert x.shape[1] == 5  # here
        return self.gru(x)[0]


FREEZING = (
    LoopOverFrames,
    Unbind,
    BufferOfOneLength,
    TensorOfOneLength,
    StateOfOneBatch,
    DecideByLength,
    IntOfLength,
    AssertOfLength,
)


class DecideByValue(Base):
    def forward(self, x: Tensor) -> Any:
        y = self.gru(x)[0]
        if y.sum() > 0:  # here
            y = y * 2
        return y


class IntOfValue(Base):
    def forward(self, x: Tensor) -> Any:
        scale = int(x.max())  # here
        return self.gru(x)[0] * scale


class ThroughNumpy(Base):
    def forward(self, x: Tensor) -> Any:
        y = self.gru(x)[0]
        return torch.from_numpy(y.numpy() * 2)  # here


UNTRACEABLE = (DecideByValue, IntOfValue, ThroughNumpy)


def marked_line(case: type[nn.Module]) -> str:
    """`file:line: code` of the line of its forward that ends in `# here`."""
    lines, first = inspect.getsourcelines(case.forward)
    offset = next(i for i, line in enumerate(lines) if line.endswith("# here\n"))
    return f"{__file__}:{first + offset}: {lines[offset].strip()}"


def global_state() -> list[Any]:
    """What an export touches in torch and in the process while it runs."""
    return [
        ShapeEnv._set_replacement,
        ShapeEnv._log_guard,
        nn.GRU.forward,
        torch.gru,
        len(_get_current_function_mode_stack()),  # type: ignore[no-untyped-call]
        [logging.getLogger(name).level for name in ("torch.onnx", "torch.export", "onnxscript")],
        warnings.filters,
    ]


def refused(path: Path, case: type[nn.Module]) -> rnnx.ExportError:
    """The error of exporting it, which must leave nothing behind."""
    before = global_state()
    with pytest.raises(rnnx.ExportError) as caught:
        rnnx.export(case(), (X,), path, dynamic_shapes=AXES)
    assert global_state() == before
    assert not path.exists()
    return caught.value


@pytest.mark.parametrize("case", FREEZING)
def test_a_frozen_axis_is_refused_at_its_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], case: type[nn.Module]
) -> None:
    error = refused(tmp_path / "m.onnx", case)
    assert f"freezes a free axis at {marked_line(case)}" in str(error)
    assert "Keep sizes symbolic" in str(error.hint)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("case", UNTRACEABLE)
def test_what_depends_on_values_is_refused_at_its_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], case: type[nn.Module]
) -> None:
    error = refused(tmp_path / "m.onnx", case)
    assert str(error).startswith("torch.export cannot capture the model: ")
    assert str(error).endswith(f" at {marked_line(case)}")
    assert "\n" not in str(error)
    assert "must not depend on tensor values" in str(error.hint)
    assert capfd.readouterr() == ("", "")


class WithoutForm(Base):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.airy_ai(self.gru(x)[0])


def test_an_operator_without_an_onnx_form_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    error = refused(tmp_path / "m.onnx", WithoutForm)
    assert str(error).startswith("torch.onnx cannot translate the model: ")
    assert "aten.special_airy_ai" in str(error)
    assert "\n" not in str(error)
    assert "Replace the operator" in str(error.hint)
    assert capfd.readouterr() == ("", "")


class Interrupted(Base):
    """Breaks off while torch traces it, not before."""

    def forward(self, x: Tensor) -> Any:
        if torch.compiler.is_exporting():
            raise KeyboardInterrupt
        return self.gru(x)[0]


def test_the_export_after_failed_ones_is_right(tmp_path: Path) -> None:
    """They fail before, while and after torch traces the model."""
    path, before = tmp_path / "m.onnx", global_state()
    for case in (LoopOverFrames, DecideByValue):
        refused(path, case)
    with pytest.raises(rnnx.InputError, match="does not run"):
        rnnx.export(nn.GRU(5, 5), (X,), path)
    with pytest.raises(KeyboardInterrupt):
        rnnx.export(Interrupted(), (X,), path, dynamic_shapes=AXES)
    with pytest.raises(rnnx.ExportError, match="has opset 18, not 99"):
        rnnx.export(nn.GRU(4, 5), (X,), path, opset_version=99)
    assert global_state() == before
    assert not path.exists()
    module = nn.GRU(4, 5, num_layers=2, batch_first=True)
    rnnx.export(module, (X,), path)
    x = torch.randn(3, 9, 4)
    hold(plain_run(path, x), torch_run(module, x))


def test_torch_still_exports_its_own_way_after_ours(tmp_path: Path) -> None:
    """Only within our export do our operators stand in for torch's."""
    refused(tmp_path / "m.onnx", LoopOverFrames)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own attributes
        program = torch.export.export(nn.GRU(4, 4), (torch.randn(5, 2, 4),))
    assert "rnnx" not in str(program.graph)


def test_training_code_runs_as_before(tmp_path: Path) -> None:
    module = nn.GRU(4, 4, batch_first=True)
    rnnx.export(module, (X,), tmp_path / "m.onnx")
    module.train()(X)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
