# SPDX-License-Identifier: Apache-2.0
"""The convex hull of a path, which keeps its extremes whatever line is taken off in the end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["UpperHull"]


class UpperHull:
    """The upper convex hull of points whose x ascend, a few dozen of them for a random walk.

    A point is above all others, once a line is subtracted, only if it is a vertex of the hull. So
    the largest deviation of a path from the line to its end can be found at the end, from the
    vertices alone. (The hull of a random walk of n steps has about 2 log n vertices: Sparre
    Andersen, On the fluctuations of sums of random variables, 1954.)
    """

    def __init__(self) -> None:
        self.x = np.empty(0)
        self.y = np.empty(0)

    def add(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """Adds points to the right of all earlier ones.

        Args:
            x: Ascending. Shape ``(B,)``.
            y: Shape ``(B,)``.
        """
        new = _vertices(x, y)
        x, y = np.append(self.x, x[new]), np.append(self.y, y[new])
        both = _vertices(x, y)
        self.x, self.y = x[both], y[both]

    def highest(self, slope: float) -> tuple[float, float]:
        """Returns the largest ``y - slope * x`` and its x."""
        above = self.y - slope * self.x
        top = int(np.argmax(above))
        return float(above[top]), float(self.x[top])


def _vertices(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.intp]:
    """Returns the indices of the vertices in ascending order, by halving (quickhull).

    The point farthest above a chord is a vertex and splits it into two; a chord with no point above
    it is an edge.
    """
    if x.size < 3:
        return np.arange(x.size)
    vertices = [0, x.size - 1]
    chords = [(0, x.size - 1)]
    while chords:
        left, right = chords.pop()
        slope = (y[right] - y[left]) / (x[right] - x[left])
        between = slice(left + 1, right)
        above = y[between] - y[left] - slope * (x[between] - x[left])
        if above.size and above.max() > 0.0:
            middle = left + 1 + int(np.argmax(above))
            vertices.append(middle)
            chords += [(left, middle), (middle, right)]
    return np.sort(np.array(vertices))
