"""The equations of traced programs, for tests of what programs are made of."""

from fljax.training.flops import jaxprs


def equations_of(jaxpr):
    """Yields every equation, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in jaxprs(value):
                yield from equations_of(inner)
