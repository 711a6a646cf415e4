"""Makes the queries that texts name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fljax.analytics.clustering import k_means
from fljax.analytics.distinct import count_distinct, intersection_size, union_size
from fljax.analytics.hierarchy import hierarchical_histogram
from fljax.analytics.histograms import histogram
from fljax.analytics.moments import mean, variance
from fljax.analytics.order import quantile, quantiles
from fljax.analytics.query import Query
from fljax.analytics.sketches import count_sketch
from fljax.analytics.tries import heavy_hitters
from fljax.core import parts
from fljax.core.values import shown

# What a query may be named: functions that return a Query.
QUERIES: dict[str, Callable[..., Query]] = {
    "mean": mean,
    "variance": variance,
    "quantile": quantile,
    "quantiles": quantiles,
    "histogram": histogram,
    "hierarchical_histogram": hierarchical_histogram,
    "heavy_hitters": heavy_hitters,
    "count_sketch": count_sketch,
    "count_distinct": count_distinct,
    "union_size": union_size,
    "intersection_size": intersection_size,
    "k_means": k_means,
}


def make(text: str, known: Mapping[str, Any]) -> Query:
    """Returns the query that a text names.

    Args:
      text: A name of `QUERIES`, a call of one, or "module:function" of the user's own, which
        returns a Query.
      known: {parameter: value} of what is known of the data, passed where the function names it:
        `like`, the shape and type of a row; `num_clients`; `groups`, how many groups of clients
        there are; `noisy`, whether there will be noise in the sums.

    Raises:
      ValueError: For unknown names or arguments, and where a function returns something else.

    Example:
      >>> make("quantile(0.5, low=0, high=1)", {}).name
      'quantile'
    """
    call = parts.read_one("query", text, QUERIES)
    query = parts.make(call, offered=known)
    if not isinstance(query, Query):
        raise ValueError(
            f"{call.where}: {call.name} returned {shown(query)} ({type(query).__name__}), and a "
            "query is a fljax.analytics.query.Query."
        )
    return query
