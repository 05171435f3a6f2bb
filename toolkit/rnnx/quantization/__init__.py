"""Makes artifacts smaller, and measures what that costs."""

from rnnx.quantization.quantizer import quantize
from rnnx.quantization.report import QuantizationReport

__all__ = ["QuantizationReport", "quantize"]
