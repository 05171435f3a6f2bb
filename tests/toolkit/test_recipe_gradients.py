"""Gradients by distance, held against differences and against what backpropagation cannot reach."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from command_line import run as run_command
from rnnx.recipes import gradients
from rnnx.recipes.gradients import (
    NETWORKS,
    TRUNCATED,
    Network,
    Trace,
    gradient_norms,
    run,
    train,
)
from rnnx.recipes.gradients_tasks import FRAMES, TASKS, Task

BATCHES = 22  # a mean is drawn of twenty


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More cost time at this size, above all where other tests run beside."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Trace]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "_STEPS", BATCHES)
        folder = tmp_path_factory.mktemp("gradients") / "here"
        return folder, run(folder)


def made(name: str, task: Task) -> Network:
    cell, bias = NETWORKS[name]
    torch.manual_seed(0)
    return Network(cell, task.inputs, task.outputs, bias)


def chance() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", TASKS)
def test_the_naive_loss_is_that_of_the_best_constant_answer(name: str) -> None:
    task = TASKS[name]
    rng = chance()
    answer = torch.ones(1, 1) if name == "adding" else torch.zeros(1, task.outputs)
    losses = []
    for _ in range(50):
        _, target = task.draw(rng)
        losses.append(task.loss(answer.expand(len(target), -1), target).item())
    assert np.mean(losses) == pytest.approx(task.naive, rel=0.05)


def test_the_sum_is_of_one_number_in_each_half() -> None:
    x, target = TASKS["adding"].draw(chance())
    for numbers, sum_of_marked in zip(x.tolist(), target, strict=True):
        marked = [i for i, (_, mark) in enumerate(numbers) if mark]
        assert len(marked) == 2
        assert marked[0] < FRAMES // 2 <= marked[1]
        assert sum_of_marked.item() == pytest.approx(sum(numbers[i][0] for i in marked))


def test_what_is_copied_lies_further_back_than_the_truncated_gradient_goes() -> None:
    x, target = TASKS["copying"].draw(chance())
    assert x[:, : target.shape[1]].argmax(2).equal(target)
    assert not x[:, target.shape[1] :].any()
    assert FRAMES - target.shape[1] > TRUNCATED


@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_norm_is_that_of_differences(name: str) -> None:
    """The gradient by the state before the last frame, by moving that state a little."""
    task = TASKS["adding"]
    network = made(name, task).double()
    x, target = (tensor.double() for tensor in task.draw(chance()))
    exact = Task(lambda rng: (x, target), task.loss, 2, 1, task.naive)
    found = gradient_norms(network, exact, chance())[1]
    with torch.no_grad():
        _, state = network.recurrent(x[:, :-1])
    lstm = isinstance(state, tuple)
    h, c = state if lstm else (state, torch.zeros_like(state))

    def loss(h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        hidden, _ = network.recurrent(x[:, -1:], (h, c) if lstm else h)
        return task.loss(network.head(hidden[:, -1]), target)

    rows, units, step = 4, h.shape[2], 1e-4  # the batch's other rows are alike
    slopes = torch.zeros(rows, (2 if lstm else 1) * units, dtype=torch.float64)
    for row, unit in np.ndindex(*slopes.shape):
        moved = torch.zeros(1, len(x), 2 * units, dtype=torch.float64)
        moved[0, row, unit] = step
        by_h, by_c = moved.chunk(2, dim=2)
        with torch.no_grad():
            slopes[row, unit] = (loss(h + by_h, c + by_c) - loss(h - by_h, c - by_c)) / step / 2
    states, answer = network.states(x)
    task.loss(answer, target).backward()  # type: ignore[no-untyped-call]
    parts = states[-2] if isinstance(states[-2], tuple) else (states[-2],)
    grads = torch.cat([part.grad for part in parts if part.grad is not None], 2)[0]
    torch.testing.assert_close(slopes, grads[:rows], atol=1e-7, rtol=1e-3)
    assert found == pytest.approx(grads.norm(dim=1).mean().item())


def test_truncated_training_gets_no_gradient_from_further_back() -> None:
    task = TASKS["copying"]
    x, target = task.draw(chance())
    for back, reaches in ((TRUNCATED, False), (FRAMES, True)):
        network = made("LSTM", task)
        x = x.detach().requires_grad_()
        task.loss(network(x, back), target).backward()
        assert bool(x.grad[:, : FRAMES - TRUNCATED].any()) is reaches  # type: ignore[index]
        x.grad = None


def test_truncated_and_full_give_the_same_answer() -> None:
    task = TASKS["copying"]
    x, _ = task.draw(chance())
    network = made("GRU", task)
    torch.testing.assert_close(network(x, TRUNCATED), network(x, FRAMES))
    torch.testing.assert_close(network(x, FRAMES), network.states(x)[1])


def test_gradients_vanish_but_through_an_open_forget_gate() -> None:
    task, reach = TASKS["adding"], {}
    for name in NETWORKS:
        norms = gradient_norms(made(name, task), task, chance())
        reach[name] = norms[-1] / norms[0]
    open_gate = reach.pop("LSTM, forget bias +3")
    assert max(reach.values()) < 1e-3
    assert open_gate > 0.05


def test_training_solves_the_adding_problem_with_gates() -> None:
    task = TASKS["adding"]
    network = made("LSTM, forget bias +3", task)
    losses = train(network, task, 300, chance(), FRAMES)
    assert losses.shape == (300,)
    assert losses[-20:].mean() < task.naive / 4


def test_each_network_on_each_task_is_traced(traces: tuple[Path, list[Trace]]) -> None:
    found = [(trace.task, trace.network) for trace in traces[1]]
    assert found == [(task, network) for task in TASKS for network in NETWORKS]
    for trace in traces[1]:
        assert trace.initial.shape == trace.trained.shape == (FRAMES,)
        assert trace.full.shape == trace.truncated.shape == (BATCHES,)
        assert trace.full[0] == trace.truncated[0]  # they differ in their gradient alone
        assert not np.array_equal(trace.full, trace.truncated)


@pytest.mark.parametrize("name", ["gradients.png", "learning.png"])
def test_the_pictures_have_a_line_for_each_network(
    name: str, traces: tuple[Path, list[Trace]]
) -> None:
    pixels = matplotlib.image.imread(traces[0] / name)[..., :3]
    for color in ("1f77b4", "ff7f0e", "2ca02c", "d62728"):
        wanted = np.frombuffer(bytes.fromhex(color), np.uint8) / 255
        assert (np.abs(pixels - wanted).max(axis=-1) < 0.02).sum() > 100


def test_the_command_prints_a_row_for_each(
    tmp_path: Path,
    traces: tuple[Path, list[Trace]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(gradients, "run", lambda folder, **options: traces[1])
    ended = run_command(capsys, "demo", "gradients", "-o", str(tmp_path))
    assert ended.code == 0
    rows = ended.out.splitlines()[2:]
    assert [row.split("  ")[0] for row in rows] == [f"{t.task}: {t.network}" for t in traces[1]]
    ended = run_command(capsys, "demo", "gradients", "--json")
    records = json.loads(ended.out)
    assert records[0]["full"] == traces[1][0].full.tolist()
    assert records[0]["naive"] == traces[1][0].naive
    assert records[0]["initial"] == traces[1][0].initial.tolist()
