"""A report as one HTML file that needs nothing else, and runs nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from ..names.base import printable
from .figures import HEAD, rows
from .plots import picture
from .readings import Reading

__all__ = ["page"]

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; }}
body {{ padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; }}
h2 {{ font-size: 1.1rem; margin-top: 2.5rem; }}
figure {{ margin: 1rem 0; background: white; border-radius: .5rem; padding: .5rem; }}
figure svg {{ width: 100%; height: auto; display: block; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .2rem .7rem; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; white-space: normal; overflow-wrap: anywhere; }}
tr:nth-child(even) td {{ background: color-mix(in srgb, currentColor 6%, transparent); }}
</style>
</head>
<body>
"""


def page(readings: Sequence[Reading]) -> str:
    """The file's text."""
    title = " against ".join(printable(reading.title) for reading in readings)
    parts = [_HEAD.format(title=escape(title)), f"<h1>{escape(title)}</h1>\n"]
    for reading in readings:
        parts += [f"<p>{escape(printable(fact))}</p>\n" for fact in reading.facts]
    for metric in dict.fromkeys(metric for reading in readings for metric in reading.metrics):
        parts.append(
            f"<h2>{escape(metric)}</h2>\n{_figure(readings, metric)}{_table(readings, metric)}"
        )
    return "".join([*parts, "</body>\n</html>\n"])


def _figure(readings: Sequence[Reading], metric: str) -> str:
    svg = picture(readings, metric, "svg").decode()
    svg = svg[svg.index("<svg") :]  # without the XML declaration, which HTML does not have
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    # Each picture has names of its own, since they are all in one document.
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{metric}-", svg)
    name = escape(f"Cumulative distribution and percentiles of {metric}; the table has the numbers")
    return f'<figure role="img" aria-label="{name}">\n{svg}</figure>\n'


def _table(readings: Sequence[Reading], metric: str) -> str:
    head = "".join(f'<th scope="col">{escape(name) or "backends"}</th>' for name in HEAD)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n"
        for row in rows(readings, metric)
    )
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}</table></div>\n'
