"""The options of what protects clients."""

from __future__ import annotations

from fljax.core.values import NON_NEGATIVE, POSITIVE, RECORD, Field, Interval

PRIVACY: dict[str, Field] = {
    "privacy": Field(
        None, str, optional=True,
        meaning="Names what protects clients: a call such as 'gaussian(0.3)', named in "
        "fljax.privacy.names; unset: nothing.",
    ),
    "clip_norm": Field(
        None, float, POSITIVE, optional=True,
        meaning="Bounds the norm of what a client, or an example, contributes.",
    ),
    "noise_multiplier": Field(
        None, float, NON_NEGATIVE, optional=True,
        meaning="Sets the standard deviation of the noise, in sensitivities; unset beside "
        "target_epsilon: the smallest one that keeps to it.",
    ),
    "delta": Field(
        None, float, Interval(0, 1, low_open=True, high_open=True), optional=True,
        meaning="Sets the probability at which epsilon may be exceeded; below 1 / num_clients.",
    ),
    "target_epsilon": Field(
        None, float, POSITIVE, optional=True, affects=RECORD,
        meaning="Sets the privacy budget: of an unset noise_multiplier it decides the value, with "
        "a set one the run ends before it is exceeded.",
    ),
    "secure_aggregation": Field(
        None, str, optional=True,
        meaning="Lets the server see nothing but sums of updates: a call, named in "
        "fljax.privacy.names; unset: it sees each.",
    ),
}  # fmt: skip
