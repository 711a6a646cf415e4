"""Audits a configuration: attacks what its federation releases, and writes down what was found.

    fljax audit hospitals_heart
    fljax audit mine.py --workdir=runs/audit

The config file names what is attacked, `get_config()`, and, if the usual audit does not do, what
attackers try and which defences are compared, `get_audit()`; see docs/audits.md. Flags replace
parts of the latter:

    --shadows=32 --targets=500 --unit=client --defence="plain: privacy=None"

The workdir receives audit.json, audit.html (one page that needs no other file), audit.md, pictures,
and a folder a defence with its run. The same command with the same `--workdir` goes on where it was
stopped. In place of a config file, --run names a finished run, whose configuration and model are
attacked:

    fljax audit --run=runs/first --workdir=runs/audit
"""

from __future__ import annotations

from absl import flags

import fljax
from fljax import commands
from fljax.config import ConfigError, resolve
from fljax.config.command_line import config_file, config_given, define_config

_FLAGS = flags.FLAGS


def define() -> None:
    """Defines the flags of an audit."""
    define_config()
    flags.DEFINE_string("run", None, "Directory of a finished run, in place of --config.")
    flags.DEFINE_string("workdir", None, "Directory for everything the audit leaves behind.")
    flags.DEFINE_integer("shadows", None, "Federations that are trained.", lower_bound=5)
    flags.DEFINE_integer("targets", None, "Rows, or clients, that are audited; -1 for all.")
    flags.DEFINE_enum("unit", None, ["row", "client"], "Whose membership is asked of.")
    flags.DEFINE_multi_string(
        "defence", [], "Name of a defence, or 'NAME: KEY=VALUE, ...'; instead of the file's."
    )
    flags.mark_flag_as_required("workdir")


def main(argv: list[str]) -> int:
    """Audits the configuration, and prints what was found."""
    from fljax.config.prediction import config_of_run
    from fljax.studies import audit

    fljax.use_all_cores()
    if (_FLAGS.run is None) == (_FLAGS.config is None):
        raise ConfigError("Give either --config, a config file, or --run, a finished run.")
    if _FLAGS.run is None:
        settings, config = audit.load_audit(config_file()), config_given()
    else:
        settings, config = audit.Audit(), resolve(config_of_run(fljax.load_run(_FLAGS.run)))
    given = {name: _FLAGS[name].value for name in ("shadows", "targets", "unit")}
    given = {name: value for name, value in given.items() if value is not None}
    if _FLAGS.defence:
        given["defences"] = audit.parse_defences(_FLAGS.defence, settings)
    settings = audit.make_audit(settings._asdict() | given)
    command = commands.command_line()
    found = audit.audit(config, _FLAGS.workdir, settings, command, run=_FLAGS.run)
    commands.show(audit.findings(found))
    return 0
