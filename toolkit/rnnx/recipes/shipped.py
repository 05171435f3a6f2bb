"""The trained artifacts inside the package: something real to run without torch and without data.

    python -m rnnx.recipes.shipped

trains the recipes forecast and charlm and makes them anew, from data in the public domain.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "artifacts"
FORECASTER, HOURS, WRITER = FOLDER / "forecast.onnx", FOLDER / "hours.csv", FOLDER / "writer.onnx"

_HOURS = 3 * 24


def make() -> None:
    """Train, quantize, and write the artifacts and the input of the first."""
    import tempfile

    import rnnx
    from rnnx.recipes import find, pipeline
    from rnnx_runtime.files import replacing

    with tempfile.TemporaryDirectory() as folder:
        for name in ("forecast", "charlm"):
            pipeline.run(find(name), folder, tell=print)
        with replacing(FORECASTER) as beside:
            beside.write_bytes(Path(folder, "forecast-int8.onnx").read_bytes())
        lines = Path(folder, "heldout.csv").read_text().splitlines(keepends=True)
        with replacing(HOURS) as beside:
            beside.write_text("".join(lines[: 1 + _HOURS]))
        writer = find("charlm")
        pieces = writer.calibration(writer.load())
        rnnx.quantize(Path(folder, "charlm.onnx"), WRITER, level="int4", calibration=pieces)


if __name__ == "__main__":
    make()
