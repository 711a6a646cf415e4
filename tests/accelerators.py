"""Lets a CPU lay its rounds out as an accelerator does."""

import contextlib
from unittest import mock

from fljax.training import assembly


@contextlib.contextmanager
def exchanging(size: int):
    """Lets so many lanes exchange together in what is built inside; 1 changes nothing."""
    plan_execution = assembly.plan_execution

    def planned(*arguments, **options):
        execution = plan_execution(*arguments, **options)
        return execution._replace(wave=size, exchange_size=size)

    if size == 1:
        yield
    else:
        with mock.patch.object(assembly, "plan_execution", planned):
            yield
