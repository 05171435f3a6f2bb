"""Proves that an artifact and its reference are the same network, within a stated tolerance."""

from rnnx.parity.check import check
from rnnx.parity.metric import Metric
from rnnx.parity.report import Finding, Report

__all__ = ["Finding", "Metric", "Report", "check"]
