"""Says what every key of a configuration means: for the command line, and as a page.

python -m fljax.config.reference > docs/configuration.md
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from fljax.core.contradictions import ONLY_WITH
from fljax.core.settings import ALGORITHM, GROUPS
from fljax.core.values import Field, Interval

_AFFECTS = {
    "results": "what a round computes; must stay as it is when a run is resumed",
    "record": "which rounds and evaluations there are",
    "speed": "how fast they come, beyond rounding in another order",
    "files": "what is read and written where",
}


def help_text(width: int = 100) -> str:
    """Returns all keys by group, for a terminal."""
    lines = ["Keys of a configuration: --config.KEY=VALUE; =None unsets those that may be unset."]
    for group in GROUPS:
        lines += ["", f"{group}:"]
        for key, field in _keys(group):
            text = f"{field.meaning} [{'; '.join(_facts(key, field))}]"
            lines += [
                f"  {key} = {_default(group, field)}",
                textwrap.indent(textwrap.fill(text, width - 6), " " * 6),
            ]
    return "\n".join(lines)


def page() -> str:
    """Returns the page of all keys, in Markdown."""
    lines = [
        "# Configuration",
        "",
        "Every key of a configuration, from the table in `fljax/core/settings.py`; the command",
        "`python -m fljax.config.reference > docs/configuration.md` writes this page. What",
        "`fljax.simulate`, `fljax.algorithms` and `fljax.data` have under these names means the",
        "same and is checked alike. On the command line `--config.KEY=VALUE` sets a key,",
        "`--config.KEY=None` unsets one that may be unset, and `--config_help` prints all of them.",
        "",
        "A key affects",
        "",
        *(
            f"- **{name}**: {text}{'.' if name == 'files' else ';'}"
            for name, text in _AFFECTS.items()
        ),
    ]
    for group in GROUPS:
        lines += ["", f"## {group.capitalize()}", "", "| Key | Default | Meaning | Affects |"]
        lines += ["| --- | --- | --- | --- |"]
        for key, field in _keys(group):
            facts = "; ".join(_facts(key, field)[:-1])
            text = field.meaning + (f" ({facts})" if facts else "")
            lines.append(f"| `{key}` | {_default(group, field)} | {text} | {field.affects} |")
        if group == "algorithm":
            lines += ["", *_own_defaults()]
    return "\n".join(lines) + "\n"


def _own_defaults() -> Iterator[str]:
    """Yields a table of the algorithms' own defaults."""
    from fljax.algorithms import ALGORITHMS  # it imports JAX, which the keys do without
    from fljax.config import resolve

    kinds = [{"algorithm": name} for name in ALGORITHMS if name != "fedopt"]
    kinds += [
        {"algorithm": "fedopt", "server_optimizer": name}
        for name in ALGORITHM["server_optimizer"].allowed
        if name != "sgd"
    ]
    names = [name for name in ALGORITHM if name not in ("algorithm", "server_optimizer")]
    yield "The algorithms' own defaults, which Python has in the signatures of their functions:"
    yield ""
    yield "| algorithm | its hyperparameters |"
    yield "| --- | --- |"
    for kind in kinds:
        values = resolve(kind)
        own = [f"`{name}` = {values[name]}" for name in names if values[name] is not None]
        yield f"| {' / '.join(kind.values())} | {', '.join(own)} |"


def _keys(group: str) -> Iterator[tuple[str, Field]]:
    for name, field in GROUPS[group].items():
        if isinstance(field, Field):
            yield name, field
        else:
            yield from ((f"{name}.{inner}", option) for inner, option in field.items())


def _default(group: str, field: Field) -> str:
    if field.default is None:
        return (
            "the algorithm's" if group == "algorithm" and "unset" not in field.meaning else "unset"
        )
    return repr(field.default)


def _facts(key: str, field: Field) -> list[str]:
    """Returns what values there may be, where they count, and what they affect."""
    facts = []
    if isinstance(field.allowed, Interval):
        facts.append(f"{field.allowed} {field.unit}".rstrip())
    elif field.allowed:
        facts.append(", ".join(field.allowed))
    elif field.kind is bool:
        facts.append("True, False")
    other, values = ONLY_WITH.get(key, ("algorithm", ()))
    if other != "algorithm":  # which algorithm has which stands in a table of its own
        facts.append(f"with {other} = {', '.join(values)}")
    return [*facts, f"affects {field.affects}"]


if __name__ == "__main__":
    print(page(), end="")
