"""What the settings of compressors must be."""

from __future__ import annotations


def check_fraction(name: str, value: float) -> None:
    """Raises ValueError unless 0 < value <= 1."""
    if not 0 < value <= 1:
        raise ValueError(f"{name} must lie above 0 and be at most 1, not {value!r}")


def check_range(name: str, value: int, least: int, most: int) -> None:
    """Raises ValueError unless the value is an integer from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} must be an integer from {least} to {most}, not {value!r}")


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raises ValueError unless the value is one of the known ones."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
