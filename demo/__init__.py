"""MixCut: click a thing in a video, then follow it, cut it out, or paint it away.

Read `demo/pipeline.py` first.
"""

__version__ = "0.1.0"
