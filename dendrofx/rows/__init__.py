"""Rows of a graph: layouts, the analysis that proves ops row-wise, and the run time of live rows."""

from dendrofx.rows.analysis import RowAnalysis

__all__ = ["RowAnalysis"]
