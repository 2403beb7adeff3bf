"""Charts of the report: SVG from matplotlib, in the page's own fonts and colours.

Text stays text, so that the reader's fonts show it, Chinese too, and so that it can be searched. Colours come from a
small palette of names; every shape also has its colour's name as a class, through which the page changes it for its
dark theme. No identifiers, styles or links are left, so charts can stand beside each other in one page under a strict
content policy.
"""

from __future__ import annotations

import io
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Affine2D

from .text import CHINESE, LABEL_LIMIT, short

#: Name of a colour: its value in the light and in the dark theme.
PALETTE: Mapping[str, tuple[str, str]] = {
    "ink": ("#1d2733", "#e6eaef"),
    "muted": ("#5d6977", "#9aa7b5"),
    "grid": ("#dfe4ea", "#313b47"),
    "accent": ("#2f6690", "#6fa8d6"),
    "good": ("#2f7f6b", "#55b39c"),
    "near": ("#b5781e", "#dfb25c"),
    "extra": ("#b84a34", "#e08a75"),
    "missed": ("#6b7889", "#8f9cab"),
    "void": ("#6d597a", "#b09cc0"),
    "none": ("#39424d", "#5d6875"),
    # Text on any of the six before.
    "on": ("#ffffff", "#11161c"),
}

_WIDTH, _SIZE = 640, 12
_SVG = "http://www.w3.org/2000/svg"
_ROW = 22


class Row(NamedTuple):
    """A row of a bar chart.

    Attributes:
        label: what stands before the bar; with no value, a heading.
        value: length of the bar in 0..1, or None.
        note: what stands after it.
        colour: a name of `PALETTE`.
        between: an interval drawn over the bar, or None.
    """

    label: str
    value: float | None = None
    note: str = ""
    colour: str = "accent"
    between: tuple[float, float] | None = None


def text_width(text: str, size: float = _SIZE) -> float:
    """About how wide ``text`` is at most, in any sans-serif font."""
    return (
        sum(1.0 if unicodedata.east_asian_width(char) in "WF" else 0.76 if char.isupper() else 0.66 for char in text)
        * size
    )


class _Canvas:
    """A figure whose coordinates are pixels from the top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self._figure = Figure(figsize=(width / 72, height / 72))
        FigureCanvasSVG(self._figure)
        # Axes would bring ticks and spines of their own, at several times the cost of everything drawn here.
        self._pixels = Affine2D().scale(1 / 72, -1 / 72).translate(0, height / 72) + self._figure.dpi_scale_trans
        self._size = width, height

    def box(self, x: float, y: float, width: float, height: float, colour: str, opacity: float = 1) -> None:
        patch = Rectangle((x, y), width, height, color=PALETTE[colour][0], alpha=opacity, linewidth=0)
        self._add(patch, 1)

    def line(self, x: float, y: float, to_x: float, to_y: float, colour: str, width: float = 1) -> None:
        # The lines of the grid lie below the bars, any others above.
        order = 0 if colour == "grid" else 2
        self._add(Line2D([x, to_x], [y, to_y], color=PALETTE[colour][0], linewidth=width), order)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: str = "ink",
        size: float = _SIZE,
        anchor: Literal["left", "center", "right"] = "left",
        angle: int = 0,
    ) -> None:
        drawn = Text(
            x,
            y,
            text,
            color=PALETTE[colour][0],
            fontsize=size,
            horizontalalignment=anchor,
            verticalalignment="bottom" if angle else "center_baseline",
            rotation=angle,
            rotation_mode="anchor",
            parse_math=False,
        )
        self._add(drawn, 3)

    def _add(self, artist: Artist, order: int) -> None:
        artist.set_transform(self._pixels)
        artist.set_zorder(order)
        self._figure.add_artist(artist)

    def svg(self) -> str:
        stream = io.StringIO()
        # matplotlib's own fonts lack Chinese glyphs, which it would need only to draw them itself.
        with warnings.catch_warnings(), rc_context({"svg.fonttype": "none", "svg.hashsalt": "promptcblue"}):
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            self._figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return _for_page(stream.getvalue(), *self._size)


def _for_page(svg: str, width: float, height: float) -> str:
    """The shapes and texts of an SVG file with classes for colours, and texts in both languages."""
    by_value = {value: name for name, (value, _) in PALETTE.items()}
    page = ElementTree.Element("svg", viewBox=f"0 0 {width:g} {height:g}", width=f"{width:g}", height=f"{height:g}")
    page.set("aria-hidden", "true")
    for element in ElementTree.fromstring(svg).iter():
        kind = element.tag.removeprefix(f"{{{_SVG}}}")
        if kind not in ("path", "text"):
            continue
        style = dict(part.split(": ", 1) for part in element.get("style", "").split("; ") if ": " in part)
        kept: dict[str, str] = {name: style[name] for name in ("font-size", "text-anchor") if name in style}
        classes = []
        for what in ("fill", "stroke"):
            if what in style:
                kept[what] = style[what]
                if style[what] in by_value:
                    classes.append(f"{what}-{by_value[style[what]]}")
        for name in ("opacity", "stroke-width"):
            if name in style:
                kept[name] = style[name]
        if "d" in element.attrib:
            kept["d"] = " ".join(element.attrib["d"].split())
        for name in ("x", "y", "transform"):
            if name in element.attrib and not element.attrib[name].startswith("rotate(-0 "):
                kept[name] = element.attrib[name]
        for language, text in _languages(element.text or ""):
            drawn = ElementTree.SubElement(page, kind, kept)
            drawn.text = text or None
            if language:
                drawn.set("lang", language)
            if names := [*classes, *(["t"] if language else [])]:
                drawn.set("class", " ".join(names))
    return ElementTree.tostring(page, encoding="unicode")


def _languages(text: str) -> list[tuple[str, str]]:
    """A text in the two languages, or as it is where it belongs to neither."""
    return [("en", text), ("zh-CN", CHINESE[text])] if CHINESE.get(text, text) != text else [("", text)]


def bars(rows: Sequence[Row]) -> str:
    """Horizontal bars on a scale of 0 to 1."""
    left = max((_label_width(row.label) for row in rows if row.value is not None), default=0) + 10
    right = max(text_width(row.note) for row in rows) + 12
    canvas, bottom = _Canvas(_WIDTH, len(rows) * _ROW + 24), len(rows) * _ROW + 4
    scale = _WIDTH - left - right
    _grid(canvas, left, scale, bottom)
    for place, row in enumerate(rows):
        middle = place * _ROW + _ROW / 2 + 2
        if row.value is None:
            canvas.text(0, middle, row.label, "muted")
            continue
        canvas.text(left - 8, middle, short(row.label, LABEL_LIMIT), anchor="right")
        canvas.box(left, middle - 6, max(scale * row.value, 1), 12, row.colour, 0.85)
        end = row.value
        if row.between:
            low, high = row.between
            canvas.line(left + scale * low, middle, left + scale * high, middle, "ink", 1.4)
            for at in row.between:
                canvas.line(left + scale * at, middle - 3.5, left + scale * at, middle + 3.5, "ink", 1.4)
            end = max(end, high)
        canvas.text(left + scale * end + 7, middle, row.note, "muted")
    return canvas.svg()


def _label_width(label: str) -> float:
    shown = short(label, LABEL_LIMIT)
    return max(text_width(text) for _, text in _languages(shown))


def _grid(canvas: _Canvas, left: float, scale: float, bottom: float) -> None:
    for tick in (0, 0.25, 0.5, 0.75, 1):
        canvas.line(left + scale * tick, 2, left + scale * tick, bottom, "grid")
        canvas.text(left + scale * tick, bottom + 12, f"{tick:g}", "muted", 10.5, "center")


def stacked(rows: Mapping[str, Sequence[tuple[str, float]]]) -> str:
    """A bar of parts for each row; each part has a colour and a share, and the shares of a row add up to one."""
    left = max(_label_width(label) for label in rows) + 10
    canvas, bottom = _Canvas(_WIDTH, len(rows) * _ROW + 24), len(rows) * _ROW + 4
    scale = _WIDTH - left - 14
    _grid(canvas, left, scale, bottom)
    for place, (label, parts) in enumerate(rows.items()):
        middle, start = place * _ROW + _ROW / 2 + 2, left
        canvas.text(left - 8, middle, short(label, LABEL_LIMIT), anchor="right")
        for colour, share in parts:
            if share:
                canvas.box(start, middle - 7, scale * share, 14, colour)
                if scale * share > 34:
                    canvas.text(start + scale * share / 2, middle, f"{share:.0%}", "on", 10, "center")
            start += scale * share
    return canvas.svg()


def confusion(
    rows: Sequence[str], labels: Sequence[str], others: Sequence[str], matrix: Sequence[Sequence[int]]
) -> str:
    """A confusion matrix, its cells shaded by their share of the row.

    Args:
        rows: gold labels.
        labels: predicted labels, a column each.
        others: columns that are no label, which stand apart.
        matrix: numbers of samples, rows by columns.
    """
    columns = [*labels, *others]
    cell = 34 if len(columns) <= 12 else 26 if len(columns) <= 24 else 20
    size = _SIZE if cell > 20 else 10
    shown, heads = ([short(label, LABEL_LIMIT) for label in names] for names in (rows, columns))
    left = max(text_width(label, size) for label in shown) + 10
    top = max(text_width(text, size) for head in heads for _, text in _languages(head)) + 10

    def x_of(column: int) -> float:
        return left + column * cell + (cell / 2 if column >= len(labels) else 0)

    canvas = _Canvas(x_of(len(columns)) + cell, top + len(rows) * cell + 2)
    for column, head in enumerate(heads):
        colour = "ink" if column < len(labels) else "extra"
        canvas.text(x_of(column) + cell / 2 + size * 0.36, top - 6, head, colour, size, angle=90)
    for row, (label, counts) in enumerate(zip(shown, matrix, strict=True)):
        y = top + row * cell
        canvas.text(left - 8, y + cell / 2, label, "ink", size, "right")
        total = sum(counts) or 1
        for first, end in ((0, len(labels)), (len(labels), len(columns))):
            canvas.box(x_of(first), y + 1, (end - first) * cell, cell - 2, "grid", 0.4)
        for column, count in enumerate(counts):
            if count:
                x, colour = x_of(column), "accent" if column < len(labels) else "extra"
                canvas.box(x + 1, y + 1, cell - 2, cell - 2, colour, 0.12 + 0.88 * count / total)
                text_colour = "on" if count / total > 0.5 else "ink"
                canvas.text(x + cell / 2, y + cell / 2, str(count), text_colour, size - 1, "center")
    return canvas.svg()
