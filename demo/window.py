"""The page in a window of its own: `python -m demo.window URL`.

Run as a process by itself, because a toolkit that finds no screen ends its process at once.
"""

from __future__ import annotations

import logging
import sys

NO_WINDOW = 3  # exit code


def show(url: str) -> int:
    """Show a page until its window is closed; returns the exit code."""
    try:
        import webview  # optional: pip install "pywebview[qt]"
    except ImportError:
        return NO_WINDOW
    logging.getLogger("pywebview").setLevel(logging.CRITICAL)  # about toolkits that are not there
    webview.settings["ALLOW_DOWNLOADS"] = True  # through the system's own dialog
    try:
        webview.create_window("MixCut", url, width=1360, height=900)
        webview.start()
    except webview.errors.WebViewException:
        return NO_WINDOW
    return 0


if __name__ == "__main__":
    sys.exit(show(sys.argv[1]))
