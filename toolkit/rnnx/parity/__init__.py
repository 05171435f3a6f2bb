"""Proves that an artifact and its torch model are the same network, within a stated tolerance."""

from rnnx.parity.check import check
from rnnx.parity.report import Finding, Report

__all__ = ["Finding", "Report", "check"]
