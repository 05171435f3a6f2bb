"""Runs the command line in this process."""

from __future__ import annotations

import pytest

from rnnx.cli import main


def exit_code(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)
