"""Example inputs from declarations and from .npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnnx import InputError
from rnnx.examples import from_arrays, from_declarations
from rnnx_runtime.contract import DTYPES

NAMES = ("x", "lengths", "h0", "scale")


class Net(nn.Module):
    """Takes what NAMES says; all but `x` optional."""

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        h0: Tensor | None = None,
        scale: float = 2.5,
    ) -> Tensor:
        return x


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x


class Open(nn.Module):
    def forward(self, x: Tensor, *rest: Tensor, bias: Tensor | None = None) -> Tensor:
        return x


class Optional(nn.Module):
    def forward(self, x: Tensor | None = None) -> Tensor:
        return torch.zeros(1)


spaces = st.sampled_from(["", " ", "  "])
axis_names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)
dims_lists = st.lists(
    st.integers(1, 4) | st.sampled_from(["batch", "time"]) | axis_names, max_size=4
)


@st.composite
def declarations(draw: st.DrawFn) -> tuple[str, str, str, list[int | str]]:
    """A declaration, and the name, dtype and dims it declares."""
    name, dtype = draw(st.sampled_from(NAMES)), draw(st.sampled_from(DTYPES))
    dims = draw(dims_lists)
    inner = ",".join(f"{draw(spaces)}{dim}{draw(spaces)}" for dim in dims)
    text = f"{draw(spaces)}{name}{draw(spaces)}={draw(spaces)}{dtype}{draw(spaces)}[{inner}]"
    return text, name, dtype, dims


@given(declarations())
def test_what_is_declared_is_made(declared: tuple[str, str, str, list[int | str]]) -> None:
    text, name, dtype, dims = declared
    given_x = ["x=float32[2]"] if name != "x" else []
    args, free = from_declarations(Net(), [*given_x, text])
    made = args[NAMES.index(name)]
    assert made.dtype == getattr(torch, dtype)
    assert [type(size) is int and size for size in made.shape] == [
        dim if isinstance(dim, int) else {"batch": 2, "time": 11}.get(dim, 7) for dim in dims
    ]
    assert free[name] == {axis: dim for axis, dim in enumerate(dims) if isinstance(dim, str)}


@given(st.text(max_size=30))
@example("x=float32[²]")
@example("x=float32[٣]")
@example("x=float32[" + "9" * 5000 + "]")
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        args, _ = from_declarations(Net(), [text])
    except InputError:
        return
    assert isinstance(args[0], Tensor)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "x=float32",
        "float32[batch,time,3]",
        "=float32[2]",
        "x=[2]",
        "x=float32[2",
        "x=float32 2]",
        "x=float32(2)",
        "x:float32[2]",
        "x=float32[2][3]",
        "x=float32[[2]]",
        "x=float32[0]",
        "x=float32[-1]",
        "x=float32[2.5]",
        "x=float32[²]",
        "x=float32[batch time]",
        "x=float32[2*batch]",
        "x=float32[batch,,3]",
        "x=float32[batch,time,]",
        "x=float32[,]",
        "x=float[2]",
        "x=float33[2]",
        "x=complex64[2]",
        "x=quint8[2]",
        "x=bfloat16[2]",
        "x=nn[2]",
        "x=Tensor[2]",
        "x=FLOAT32[2]",
        "x=float32[99999999999,99999999999]",
        "two words=float32[2]",
    ],
)
def test_a_malformed_declaration_is_refused_and_shown(text: str) -> None:
    with pytest.raises(InputError) as caught:
        from_declarations(Net(), [text])
    assert repr(text) in str(caught.value)
    assert "x=float32[batch,time,40]" in str(caught.value.hint)


def test_declared_values_are_varied_and_ids_are_ones_that_any_table_has() -> None:
    (x, lengths), _ = from_declarations(
        Net(), ["x=float32[batch,time,3]", "lengths=int64[batch,9]"]
    )
    assert x.shape == (2, 11, 3)
    assert x.unique().numel() == x.numel()
    assert set(lengths.unique().tolist()) == {0, 1}


def test_arguments_come_in_the_models_order_with_defaults_between() -> None:
    args, free = from_declarations(Net(), ["h0=float32[1,batch,4]", "x=float32[batch,time,3]"])
    assert [None if arg is None else tuple(arg.shape) for arg in args] == [
        (2, 11, 3),
        None,
        (1, 2, 4),
    ]
    assert free == {"h0": {1: "batch"}, "x": {0: "batch", 1: "time"}}


@pytest.mark.parametrize(
    ("model", "texts", "says"),
    [
        (Net(), ["y=float32[2]"], "takes x, lengths, h0, scale; missing: ['x'], unknown: ['y']"),
        (Net(), ["lengths=int64[2]"], "missing: ['x'], unknown: []"),
        (TwoInputs(), ["x=float32[2]"], "takes x, mask; missing: ['mask'], unknown: []"),
        (Net(), ["x=float32[2]", "x=float32[3]"], "'x' is declared twice"),
        (Open(), ["x=float32[2]", "rest=float32[2]"], "unknown: ['rest']"),
        (Open(), ["x=float32[2]", "bias=float32[2]"], "unknown: ['bias']"),
    ],
)
def test_names_that_are_not_the_models_arguments(
    model: nn.Module, texts: list[str], says: str
) -> None:
    with pytest.raises(InputError) as caught:
        from_declarations(model, texts)
    assert says in str(caught.value)
    assert caught.value.hint


# --- .npz files


def test_arrays_come_from_a_file_in_the_models_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    h0, x = rng.normal(size=(1, 2, 4)).astype(np.float32), rng.normal(size=(2, 5, 3))
    np.savez(tmp_path / "data.npz", h0=h0, x=x)
    args = from_arrays(Net(), str(tmp_path / "data.npz"))
    assert args[1] is None
    assert args[0].dtype == torch.float64
    np.testing.assert_array_equal(args[0].numpy(), x)
    np.testing.assert_array_equal(args[2].numpy(), h0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no file at"),
        (b"", "is not an .npz archive of plain arrays"),
        (b"some text\n", "is not an .npz archive of plain arrays"),
        (b"PK\x03\x04 and then nothing", "is not an .npz archive of plain arrays"),
        ({"y": np.zeros(3)}, "takes x, lengths, h0, scale; missing: ['x'], unknown: ['y']"),
        ({}, "missing: ['x']"),
        ({"x": np.array(["text"])}, "'x' is of dtype <U4"),
        ({"x": np.array([{}], dtype=object)}, "is not an .npz archive of plain arrays"),
        ({"x": np.zeros(3, np.complex64)}, "'x' is of dtype complex64"),
        ({"x": np.zeros(3, "M8[s]")}, "'x' is of dtype datetime64[s]"),
    ],
)
def test_what_is_no_archive_of_the_models_arguments(
    tmp_path: Path, content: bytes | dict[str, np.ndarray] | None, says: str
) -> None:
    path = tmp_path / "data.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    with pytest.raises(InputError) as caught:
        from_arrays(Net(), str(path))
    assert says in str(caught.value)
    assert caught.value.hint


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.zeros((2, 3)))
    with pytest.raises(InputError, match=r"is not an \.npz archive"):
        from_arrays(Net(), str(tmp_path / "data.npy"))


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros((2, 300)))
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF  # inside the array: its checksum is wrong now
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"is not an \.npz archive"):
        from_arrays(Net(), str(path))


def test_an_empty_archive_gives_a_model_of_optional_arguments_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz")
    assert from_arrays(Optional(), str(tmp_path / "data.npz")) == ()


def test_big_endian_arrays_are_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.arange(4, dtype=">f4"))
    (x,) = from_arrays(Net(), str(tmp_path / "data.npz"))
    assert x.tolist() == [0, 1, 2, 3]


class Demanding(torch.nn.Module):
    """Takes lengths of a multiple, from a least on."""

    def __init__(self, multiple: int, least: int) -> None:
        super().__init__()
        self.multiple, self.least = multiple, least

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] % self.multiple or x.shape[1] < self.least:
            raise ValueError(f"{x.shape[1]} frames")
        return x


@pytest.mark.parametrize(
    ("multiple", "least", "frames"),
    [(1, 1, 11), (4, 1, 64), (1, 400, 1024), (1024, 2000, 16384), (1, 20000, 163840), (7, 1, 11)],
)
def test_longer_examples_are_tried_until_the_model_runs(
    multiple: int, least: int, frames: int
) -> None:
    """None runs at a multiple of 7: the export tells it of the shortest."""
    (x,), free = from_declarations(Demanding(multiple, least), ["x=float32[batch,time]"])
    assert tuple(x.shape) == (2, frames)
    assert free == {"x": {0: "batch", 1: "time"}}


def test_no_longer_example_is_made_without_time() -> None:
    (x,), _ = from_declarations(Demanding(64, 64), ["x=float32[batch,11]"])
    assert tuple(x.shape) == (2, 11)
