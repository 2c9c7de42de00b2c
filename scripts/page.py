# SPDX-License-Identifier: GPL-2.0
"""A self-contained HTML page, light or dark as the reader likes it."""

import html

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto;
       padding: 0 1rem; color: CanvasText; background: Canvas; }
table { border-collapse: collapse; }
td, th { padding: .15rem .6rem; border-bottom: 1px solid #8884; }
"""


def page(title, style, body):
    return ("<!DOCTYPE html><html lang=en><meta charset=utf-8>"
            "<meta name=viewport content='width=device-width, initial-scale=1'>"
            f"<title>{html.escape(title)}</title><style>{STYLE}{style}</style>"
            f"<h1>{html.escape(title)}</h1>{body}</html>\n")
