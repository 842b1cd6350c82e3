# SPDX-License-Identifier: Apache-2.0
"""Line plots as SVG, with nothing but Python: panels one below the other, lines with dots or dashes, a legend."""
import math
from xml.sax.saxutils import escape

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, GAP = 760, 250, 80, 30, 34, 64
MOST_TICKS = 13


def decades(values):
    """Exponents around positive values, at least one decade."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


class Axis:
    """From the values on it: powers of `base`, or with base None a linear axis from 0. `text` names a tick."""

    def __init__(self, values, text, base=10):
        self.text, self.base = text, base
        if base is None:
            top = max([*values, 1e-300])
            step = 10.0 ** math.floor(math.log10(top))
            step = next(part * step for part in (0.1, 0.2, 0.25, 0.5, 1, 2) if top <= 6 * part * step)
            self.ends = (0.0, math.ceil(top / step - 1e-9) * step)
            self.ticks = [number * step for number in range(round(self.ends[1] / step) + 1)]
            return
        if base == 10:
            low, high = decades(values)
        else:
            low = math.floor(math.log(min(values), base) + 1e-9)
            high = max(math.ceil(math.log(max(values), base) - 1e-9), low + 1)
        self.ends = (low, high)
        every = math.ceil((high - low + 1) / MOST_TICKS)
        self.ticks = [float(base) ** exponent for exponent in range(low, high + 1, every)]

    def part(self, value):
        """Where on the axis a value is, 0 to 1."""
        if self.base is not None:
            value = math.log10(value) if self.base == 10 else math.log(value, self.base)
        return (value - self.ends[0]) / (self.ends[1] - self.ends[0])


class Panel:
    def __init__(self, top, title, x, y):
        self.top, self.title, self.x, self.y = top, title, x, y

    def place(self, x, y):
        return LEFT + self.x.part(x) * (WIDTH - LEFT - RIGHT), self.top + (1 - self.y.part(y)) * HEIGHT

    def frame(self):
        svg = [f'<text x="{LEFT}" y="{self.top - 12}" font-weight="bold">{escape(self.title)}</text>']
        for value in self.x.ticks:
            x, bottom = LEFT + self.x.part(value) * (WIDTH - LEFT - RIGHT), self.top + HEIGHT
            svg.append(f'<path d="M{x:.1f} {bottom:.1f}V{self.top}" stroke="#ddd"/>')
            svg.append(f'<text x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{escape(self.x.text(value))}</text>')
        for value in self.y.ticks:
            y = self.top + (1 - self.y.part(value)) * HEIGHT
            svg.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
            svg.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(self.y.text(value))}</text>')
        return svg

    def line(self, points, colour, dashed=False, dots=None, joined=True):
        """A line through points (x, y), by default with dots unless it is dashed."""
        places = [self.place(x, y) for x, y in points]
        svg = []
        if joined and len(places) > 1 or dashed:
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            svg.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"'
                       + (' stroke-dasharray="5 4"' if dashed else "") + "/>")
        if not dashed if dots is None else dots:
            svg += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        return svg


def legend(bottom, entries):
    """Lines of the legend from `bottom` on: (text, colour, dashed) each. Returns them and where the image ends."""
    svg = []
    for number, (text, colour, dashed) in enumerate(entries):
        y = bottom + 18 * number
        svg.append(f'<path d="M{LEFT} {y + 8}h24" stroke="{colour}" stroke-width="2"'
                   + (' stroke-dasharray="5 4"' if dashed else "") + "/>")
        svg.append(f'<text x="{LEFT + 32}" y="{y + 12}">{escape(text)}</text>')
    return svg, bottom + 18 * len(entries) + 12


def document(height, svg):
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
                      f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
                      f'<rect width="{WIDTH}" height="{height}" fill="white"/>', *svg, "</svg>", ""])
