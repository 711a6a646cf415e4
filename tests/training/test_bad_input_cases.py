"""A thousand bad inputs of a generator: refused in plain words, or run as they were given."""

import bad_calls
import bad_configs
import pytest
from bad_inputs import fault

SEED = 2026


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(
    ("cases", "count"), [(bad_configs.cases, 400), (bad_calls.cases, 700)], ids=["configs", "calls"]
)
def test_bad_inputs_are_refused_or_run_as_given(cases, count, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some of them are names of directories
    faults = []
    for case in cases(SEED, count):
        told = fault(case)
        if told:
            faults.append(f"{case}: {told}")
    assert not faults, "\n".join(faults)
