"""Networks as they come: other dtypes, computed weights, kept state, named outputs, projections."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnnx
from exportable import hold, operators, plain_run, torch_run
from rnnx_exporters.projection import scan_is_faster

AXES = {"x": {0: "batch", 1: "time"}}
SIZES = ((3, 7), (1, 1), (4, 23))


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 5, num_layers=2, batch_first=True, dropout=0.5)

    def forward(self, x: Tensor) -> Any:
        return self.rnn(x)[0]


@dataclasses.dataclass
class Result:
    logits: Tensor
    hidden: Tensor
    loss: Tensor | None = None


class Returns(Layers):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Any:
        y, (h, _) = self.rnn(x)
        if self.how == "dataclass":
            return Result(y, h)
        return {"logits": y, "hidden": h} if self.how == "dict" else (y, [h])


class Keeps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 5, batch_first=True)
        self.hidden: Tensor | None = None

    def forward(self, x: Tensor) -> Any:
        y, self.hidden = self.gru(x, self.hidden)
        return y


class KeepsBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 5, batch_first=True)
        self.register_buffer("memory", torch.zeros(1, 2, 5))

    def forward(self, x: Tensor) -> Any:
        y, final = self.gru(x, self.memory)
        self.memory.copy_(final)  # type: ignore[operator]
        return y


class KeepsInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Keeps()

    def forward(self, x: Tensor) -> Any:
        return self.encoder(x)


class Caches(Layers):
    """Keeps a tensor from the first call that changes nothing in the next."""

    scale: Tensor | None = None

    def forward(self, x: Tensor) -> Any:
        if self.scale is None:
            self.scale = torch.full((5,), 2.0)
        return self.rnn(x)[0] * self.scale


class Drops(nn.Module):
    """A recurrent weight that is dropped out anew at each call, as AWD-LSTM does."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 5, batch_first=True)
        self.raw = nn.Parameter(self.rnn.weight_hh_l0.detach().clone())
        del self.rnn._parameters["weight_hh_l0"]
        self.rnn.weight_hh_l0 = self.raw.detach().clone()  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Any:
        weight = nn.functional.dropout(self.raw, 0.5, self.training)
        self.rnn.weight_hh_l0 = weight  # type: ignore[assignment]
        return self.rnn(x)[0]


def export_and_hold(path: Path, module: nn.Module, reference: nn.Module | None = None) -> None:
    rnnx.export(module, (torch.randn(2, 5, 4),), path, dynamic_shapes=AXES)
    for batch, frames in SIZES:
        x = torch.randn(batch, frames, 4)
        hold(plain_run(path, x), torch_run(reference or module, x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_dtypes_run_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    module = Layers().to(dtype)
    path = tmp_path / "m.onnx"
    contract = rnnx.export(module, (torch.randn(2, 5, 4, dtype=dtype),), path)
    assert contract.inputs[0].dtype == "float32"
    assert next(module.parameters()).dtype == dtype
    x = torch.randn(3, 7, 4)
    widened = Layers()
    widened.load_state_dict(module.state_dict())
    hold(plain_run(path, x), torch_run(widened, x))


class Scales(Layers):
    """Makes a tensor without naming its dtype, after changing the default where told to."""

    def __init__(self, default: torch.dtype | None) -> None:
        super().__init__()
        self.default = default

    def forward(self, x: Tensor) -> Any:
        if self.default is not None:
            torch.set_default_dtype(self.default)
        return self.rnn(x)[0] * torch.linspace(0.5, 2.0, 5)


@pytest.fixture
def default_dtype() -> Iterator[torch.dtype]:
    """The default dtype, which is given back after the test."""
    default = torch.get_default_dtype()
    yield default
    torch.set_default_dtype(default)


def test_the_callers_default_dtype_is_no_matter(tmp_path: Path, default_dtype: torch.dtype) -> None:
    torch.set_default_dtype(torch.float64)
    path, module = tmp_path / "m.onnx", Scales(None)
    contract = rnnx.export(module, (torch.randn(2, 5, 4),), path)
    assert contract.outputs[0].dtype == "float32"
    assert rnnx.check(path, module).passed
    assert torch.get_default_dtype() == torch.float64


def test_a_model_that_changes_the_default_dtype_is_refused(
    tmp_path: Path, default_dtype: torch.dtype
) -> None:
    with pytest.raises(rnnx.ExportError, match=r"differs .* dtype float32 instead of float64"):
        rnnx.export(Scales(torch.float64), (torch.randn(2, 5, 4),), tmp_path / "m.onnx")
    assert torch.get_default_dtype() == default_dtype
    assert not list(tmp_path.iterdir())


def test_parametrized_recurrent_weights(tmp_path: Path) -> None:
    module = Layers()
    nn.utils.parametrizations.weight_norm(module.rnn, "weight_hh_l0")
    before = module.rnn.weight_hh_l0.detach().clone()
    export_and_hold(tmp_path / "m.onnx", module)
    assert nn.utils.parametrize.is_parametrized(module.rnn, "weight_hh_l0")
    assert torch.equal(module.rnn.weight_hh_l0, before)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_the_older_weight_norm_after_training(tmp_path: Path) -> None:
    module = Layers()
    nn.utils.weight_norm(module.rnn, "weight_hh_l0")
    module.train()(torch.randn(2, 5, 4))  # leaves a computed tensor, which deepcopy refuses
    export_and_hold(tmp_path / "m.onnx", module)


def test_weight_dropped_layers_after_training(tmp_path: Path) -> None:
    module = Drops()
    module.train()(torch.randn(2, 5, 4))
    export_and_hold(tmp_path / "m.onnx", module)


@pytest.mark.parametrize(
    ("how", "names"),
    [("dict", ["logits", "hidden"]), ("dataclass", ["logits", "hidden"]), ("list", ["y0", "y1"])],
)
def test_outputs_are_named_as_the_model_names_them(
    tmp_path: Path, how: str, names: list[str]
) -> None:
    path = tmp_path / "m.onnx"
    contract = rnnx.export(Returns(how), (torch.randn(2, 5, 4),), path)
    assert [port.name for port in contract.outputs] == names


@pytest.mark.parametrize(
    ("module", "attribute"),
    [(Keeps(), "hidden"), (KeepsBuffer(), "memory"), (KeepsInside(), "encoder.hidden")],
    ids=["attribute", "buffer", "inside"],
)
def test_kept_state_is_refused_by_its_name(
    tmp_path: Path, module: nn.Module, attribute: str
) -> None:
    with pytest.raises(rnnx.ExportError, match=f"state in its attribute '{attribute}'") as caught:
        rnnx.export(module, (torch.randn(2, 5, 4),), tmp_path / "m.onnx", dynamic_shapes=AXES)
    assert "argument" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())
    if isinstance(module, Keeps):
        assert module.hidden is None


def test_a_cache_is_no_state(tmp_path: Path) -> None:
    export_and_hold(tmp_path / "m.onnx", Caches())


def test_weights_shared_between_directions(tmp_path: Path) -> None:
    class Shares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(4, 5, batch_first=True, bidirectional=True)
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                setattr(self.rnn, f"{name}_reverse", getattr(self.rnn, name))

        def forward(self, x: Tensor) -> Any:
            return self.rnn(x)[0]

    export_and_hold(tmp_path / "m.onnx", Shares())


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch's own, about its speed
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_projections_are_exact(tmp_path: Path, bidirectional: bool, bias: bool) -> None:
    module = nn.LSTM(
        4, 6, num_layers=2, proj_size=3, batch_first=True, bias=bias, bidirectional=bidirectional
    )
    directions = 4 if bidirectional else 2
    path = tmp_path / "m.onnx"

    def args(batch: int, frames: int) -> tuple[Any, ...]:
        h = torch.randn(directions, batch, 3)
        return torch.randn(batch, frames, 4), (h, torch.randn(directions, batch, 6))

    rnnx.export(module, args(2, 5), path)
    assert operators(path).count("LSTM") == 2
    for batch, frames in SIZES:
        example = args(batch, frames)
        hold(plain_run(path, *example), torch_run(module, *example))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("layers", "bidirectional", "bias"),
    [(2, True, True), pytest.param(1, False, False, marks=pytest.mark.full)],
)
def test_a_projection_far_narrower_than_the_layer_is_a_scan(
    tmp_path: Path, layers: int, bidirectional: bool, bias: bool
) -> None:
    module = nn.LSTM(
        4, 256, layers, proj_size=2, batch_first=True, bias=bias, bidirectional=bidirectional
    )
    states = layers * (2 if bidirectional else 1)
    path = tmp_path / "m.onnx"

    def args(batch: int, frames: int) -> tuple[Any, ...]:
        h = torch.randn(states, batch, 2)
        return torch.randn(batch, frames, 4), (h, torch.randn(states, batch, 256))

    rnnx.export(module, args(2, 5), path)
    assert operators(path).count("Scan") == states
    assert "LSTM" not in operators(path)
    for batch, frames in SIZES:
        example = args(batch, frames)
        hold(plain_run(path, *example), torch_run(module, *example))


class Packs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 256, proj_size=2, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_narrow_projection_of_packed_sequences_stays_native(tmp_path: Path) -> None:
    path, module = tmp_path / "m.onnx", Packs()
    axes = {"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    example = torch.randn(2, 5, 4), torch.tensor([3, 5])
    rnnx.export(module, example, path, dynamic_shapes=axes)
    assert operators(path).count("LSTM") == 1
    example = torch.randn(3, 7, 4), torch.tensor([4, 1, 7])
    hold(plain_run(path, *example), torch_run(module, *example))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_narrow_projection_streams_as_a_scan(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    module = nn.LSTM(4, 256, proj_size=2, batch_first=True)
    axes = {"input": {0: "batch", 1: "time"}}
    rnnx.export(
        module,
        (torch.randn(2, 5, 4),),
        path,
        dynamic_shapes=axes,
        output_names=("y", "h", "c"),
        streaming=True,
    )
    assert operators(path).count("Scan") == 1
    stream, x = rnnx.Stream(path, batch=2), torch.randn(2, 9, 4)
    found = [stream.feed(part.numpy()) for part in x.split((1, 3, 5), 1)]
    y, (h, c) = module(x)
    np.testing.assert_allclose(np.concatenate([f["y"] for f in found], 1), y.detach(), atol=1e-6)
    np.testing.assert_allclose(found[-1]["h"], h.detach(), atol=1e-6)
    np.testing.assert_allclose(found[-1]["c"], c.detach(), atol=1e-6)


@pytest.mark.parametrize(
    ("hidden_size", "proj_size", "is_scan"),
    [(64, 1, False), (256, 64, False), (512, 128, True), (512, 384, False), (1024, 256, True)],
)
def test_a_scan_is_written_where_it_saves_more_than_its_steps_take(
    hidden_size: int, proj_size: int, is_scan: bool
) -> None:
    assert scan_is_faster(hidden_size, proj_size) == is_scan


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_projections_stream(tmp_path: Path) -> None:
    class Projects(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(4, 6, num_layers=2, proj_size=3, batch_first=True)

        def forward(self, x: Tensor) -> Any:
            return self.rnn(x)[0]

    path, module = tmp_path / "m.onnx", Projects()
    rnnx.export(module, (torch.randn(2, 5, 4),), path, streaming=True)
    assert rnnx.check(path, module).passed


def test_large_weights_stand_in_a_file_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnnx_exporters.artifact.MOST_BYTES", 100)
    path, module = tmp_path / "m.onnx", Layers()
    rnnx.export(module, (torch.randn(2, 5, 4),), path, streaming=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert rnnx.check(path, module).passed
    x = torch.randn(1, 6, 4)
    stream = rnnx.Stream(path)
    parts = [stream.feed(x[:, :2].numpy()), stream.feed(x[:, 2:].numpy())]
    np.testing.assert_allclose(np.concatenate(parts, 1), torch_run(module, x)[0], atol=1e-5)
