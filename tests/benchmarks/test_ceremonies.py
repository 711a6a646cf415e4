"""Costs of ceremonies: by formula, and counted where they are held."""

from fljax.benchmarks import ceremonies


def test_ceremonies_are_held_and_cost_what_the_formulas_say():
    """`costs` itself compares sums with plain ones, and counts with formulas."""
    rows = ceremonies.costs(10, size=20, degree=6, dropout=0.1)
    assert [row.protocol for row in rows] == ["complete graph", "6 neighbours", "LightSecAgg"]
    complete, regular, light = rows
    # advert, 9 sealed shares of 110 bytes, words, signature, 9 revealed shares
    assert complete.sent == 132 + 9 * 110 + (4 + 80) + 68 + (4 + 9 * 38)
    assert regular.sent == complete.sent - 3 * (110 + 38)
    # pieces of 20 / (8 - 5) words
    assert light.sent == 36 + 9 * (36 + 28) + 84 + (4 + 28)
    assert all(row.seconds > 0 for row in rows)
    formulas = ceremonies.costs(10, size=20, degree=6, dropout=0.1, held=False)
    assert [row._replace(seconds=None) for row in rows] == formulas
    text = ceremonies.table(rows)
    assert "| complete graph | 10 | 20 | 1,620 B |" in text and len(text.splitlines()) == 5
