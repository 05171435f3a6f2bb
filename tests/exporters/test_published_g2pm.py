"""The published network of the package g2pM 0.1.2.5, exported: how a Chinese character is read.

An LSTM of two directions over sentences of any length. The reference is the package's own class in
numpy, one sentence at a time.
"""

# ruff: noqa: RUF001 - Chinese has commas of its own

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnnx
from exportable import operators
from published import module_at, published_file

pytestmark = pytest.mark.full

# Proverbs and everyday sentences; most hold characters that are read in more than one way.
SENTENCES = """
千里之行，始于足下。 塞翁失马，焉知非福。 三人行，必有我师焉。 己所不欲，勿施于人。 温故而知新。
学而不思则罔，思而不学则殆。 知之为知之，不知为不知，是知也。 路遥知马力，日久见人心。
失败是成功之母。 熟能生巧。 入乡随俗。 活到老，学到老。 水滴石穿。 近朱者赤，近墨者黑。
一寸光阴一寸金，寸金难买寸光阴。 不入虎穴，焉得虎子。 饮水思源。 种瓜得瓜，种豆得豆。
百闻不如一见。 天下无难事，只怕有心人。 有志者事竟成。 冰冻三尺，非一日之寒。
授人以鱼不如授人以渔。 欲速则不达。 亡羊补牢，为时未晚。 吃一堑，长一智。
良药苦口利于病，忠言逆耳利于行。 少壮不努力，老大徒伤悲。 书到用时方恨少。 万事开头难。 好事多磨。
满招损，谦受益。 他长得很高，头发也很长。 银行行长走得很快。 我觉得你应该好好睡一觉。
这种花很好种。 妈妈爱好音乐，尤其喜欢听快乐的歌。 请把门关好。 你还没把书还给图书馆吗？
重庆的重要性在于它的位置。 他为了朋友的事情忙得不得了。 我们都住在首都。 天气转暖，风车转得很快。
教师教学生数学，学生数着数。 空气里没有一点空隙。 大夫说他的病没有大问题。 处长到处找他的办事处。
把被子盖好，别着凉了。 这个地方的小吃便宜，出门也方便。 我差点儿出差错，因为我去出差了。
他一边弹琴，一边看着子弹壳。 老师的头发乱了，发现以后笑了。 曾经有一位姓曾的先生。
单先生一个人去了单位。 我假装放假，其实一直在工作。 石头的分量很重，要重新称一称才相称。
你的和我的不一样。 他用力地把地上的土扫干净，干活很认真。 音乐会上人人都很快乐。
参加考试的人参差不齐。 下降的敌人终于投降了。 他背着书包背课文。 那里的草丛中藏着西藏来的药。
模样像一个模型。 她没听见，所以没去，不过没收到信也没关系。 着急也没用，先睡着再说吧。
中奖的人中国人最多。 他似乎不明白，像一个孩子似的。 结果树上结果了。 大家应该答应他的要求。
调查以后再调整音调。 兴奋的人们高兴地谈论论语。 好。 行吗？
"""
AXES = {"characters": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
ADMITTED = {
    "_reconstruct": np.zeros(0).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}
SIZE = 128  # sentences in all


class _Arrays(pickle.Unpickler):
    """Reads numbers, strings, their lists and dicts, and numpy arrays: nothing that can run."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] != "numpy" or name not in ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is no array")
        return ADMITTED[name]


def _read(name: str) -> dict[Any, Any]:
    with published_file("g2pM", f"g2pM/{name}.pkl").open("rb") as file:
        content: dict[Any, Any] = _Arrays(file).load()
    return content


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return _read("np_ckpt")


@pytest.fixture(scope="module")
def reference(weights: dict[str, np.ndarray]) -> Any:
    """The package's class; its own start would unpickle whatever the files say."""
    package = module_at(published_file("g2pM", "g2pM/g2pM.py")).G2pM
    reference = package.__new__(package)
    reference.load_variable(weights)
    return reference


class _G2pm(nn.Module):
    """The package's network: the logits `[batch, characters, classes]` of every character."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(*weights["embedding.weight"].shape)
        features, hidden_size = (
            weights[f"lstm.weight_{side}_l0"].shape[1] for side in ("ih", "hh")
        )
        self.lstm = nn.LSTM(features, hidden_size, batch_first=True, bidirectional=True)
        inner, classes = (len(weights[f"logit_layer.{place}.bias"]) for place in (0, 2))
        self.logit_layer = nn.Sequential(
            nn.Linear(2 * hidden_size, inner), nn.ReLU(), nn.Linear(inner, classes)
        )
        self.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})

    def forward(self, characters: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(
            self.embedding(characters), lengths, batch_first=True, enforce_sorted=False
        )
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        logits: Tensor = self.logit_layer(y)
        return logits


def _sentences() -> list[list[int]]:
    """128 sentences of ids, as the package frames them: real ones, then any characters at all."""
    ids, readings = _read("char2idx"), _read("digest_cedict")
    known = [[ids.get(character, ids["<UNK>"]) for character in text] for text in SENTENCES.split()]
    several = [ids[c] for c in ids if len(readings.get(c, [])) > 1]
    rng = np.random.default_rng(2020)
    drawn = [rng.choice(several, rng.integers(1, 60)).tolist() for _ in range(SIZE - len(known))]
    return [[ids["시"], *sentence, ids["끝"]] for sentence in known + drawn]


def _logits(reference: Any, sentence: list[int]) -> np.ndarray:
    """The logits `[characters, classes]` of one sentence, from the package's `predict`."""
    with mock.patch("numpy.argmax", lambda logits, axis: logits):
        logits: np.ndarray = reference.predict(np.array([sentence]), range(len(sentence)))
    return logits


def test_every_character_is_read_as_the_package_reads_it(
    tmp_path: Path, weights: dict[str, np.ndarray], reference: Any
) -> None:
    rows = _sentences()
    assert len(rows) == SIZE
    lengths = np.array([len(row) for row in rows])
    characters = np.zeros((SIZE, lengths.max()), np.int64)
    for place, row in zip(characters, rows, strict=True):
        place[: len(row)] = row
    path = tmp_path / "g2pm.onnx"
    example = torch.from_numpy(characters[:4, : lengths[:4].max()]), torch.from_numpy(lengths[:4])
    rnnx.export(_G2pm(weights), example, path, dynamic_shapes=AXES)
    assert operators(path).count("LSTM") == 1
    found = rnnx.Model(path).run({"characters": characters, "lengths": lengths})
    assert isinstance(found, np.ndarray)
    for row, logits in zip(rows, found, strict=True):
        expected = _logits(reference, row)
        atol = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(logits[: len(row)], expected, rtol=0, atol=atol)
        np.testing.assert_array_equal(logits[: len(row)].argmax(-1), expected.argmax(-1))
