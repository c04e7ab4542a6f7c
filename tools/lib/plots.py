# SPDX-License-Identifier: BSD-3-Clause
"""Line plots as SVG, without a library."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 780, 440
LEFT, RIGHT, TOP_EDGE, BOTTOM = 80, 260, 46, 56
COLOURS = ["#0b6fb8", "#d1495b", "#2e8b57", "#b07d12", "#6a4c93", "#3b3b3b", "#00a6a6", "#c1666b"]


def short(value):
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g} {letter}"
    return f"{value:g}"


class Axis:
    """Maps values to places, by their logarithms. ticks: [(value, label)], or None: the powers of ten and what is between."""

    def __init__(self, label, values, begin, end, ticks=None):
        self.label = label
        self.begin, self.end = begin, end
        self.low, self.high = min(values), max(values)
        if ticks is None:
            powers = [factor * 10.0 ** power for power in range(-3, 9) for factor in (1, 2, 5)]
            self.low = max([power for power in powers if power <= self.low] or [self.low])
            self.high = min([power for power in powers if power >= self.high] or [self.high])
            ticks = [(power, short(power)) for power in powers if self.low <= power <= self.high]
        self.ticks = ticks
        if self.high <= self.low:
            self.high = self.low * 2

    def place(self, value):
        share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return self.begin + share * (self.end - self.begin)


def text(x, y, words, anchor="middle", size=12, turn=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#222"{turn}>{escape(words)}</text>')


def frame(title, across, up):
    """Title, axes, and their lines and labels."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [text((LEFT + right) / 2, 24, title, size=15)]
    for value, label in across.ticks:
        x = across.place(value)
        parts += [f'<line x1="{x:.1f}" y1="{TOP_EDGE}" x2="{x:.1f}" y2="{bottom}" stroke="#ddd"/>', text(x, bottom + 18, label)]
    for value, label in up.ticks:
        y = up.place(value)
        parts += [f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>', text(LEFT - 8, y + 4, label, "end")]
    parts.append(f'<rect x="{LEFT}" y="{TOP_EDGE}" width="{right - LEFT}" height="{bottom - TOP_EDGE}" fill="none" stroke="#888"/>')
    parts.append(text((LEFT + right) / 2, HEIGHT - 14, across.label))
    middle = (TOP_EDGE + bottom) / 2
    parts.append(text(20, middle, up.label, turn=f' transform="rotate(-90 20 {middle:.1f})"'))
    return parts


def lines(title, x_label, y_label, series, x_ticks=None):
    """An SVG document. series: {name: [(x, y), ...]}, all above 0."""
    points = [point for line in series.values() for point in line]
    across = Axis(x_label, [x for x, _ in points], LEFT, WIDTH - RIGHT, x_ticks)
    up = Axis(y_label, [y for _, y in points], HEIGHT - BOTTOM, TOP_EDGE)
    parts = frame(title, across, up)
    for number, (name, line) in enumerate(series.items()):
        colour, y = COLOURS[number % len(COLOURS)], TOP_EDGE + 10 + number * 20
        dashes = "" if number < len(COLOURS) else ' stroke-dasharray="5 3"'
        places = [(across.place(a), up.place(b)) for a, b in line]
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2"{dashes} points="'
                     + " ".join(f"{x:.1f},{v:.1f}" for x, v in places) + '"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{v:.1f}" r="3" fill="{colour}"/>' for x, v in places]
        x = WIDTH - RIGHT + 14
        parts.append(f'<line x1="{x}" y1="{y}" x2="{x + 22}" y2="{y}" stroke="{colour}" stroke-width="2"{dashes}/>')
        parts.append(text(x + 28, y + 4, name, "start"))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            f'font-family="sans-serif"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n")
