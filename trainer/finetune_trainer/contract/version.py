"""The version of both images, the chart and the wheel."""

__version__ = "0.1.0"
