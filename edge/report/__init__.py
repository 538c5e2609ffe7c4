"""Runs to one page that needs nothing else: no server, no network, no scripts."""

from edge.report.page import render

__all__ = ["render"]
