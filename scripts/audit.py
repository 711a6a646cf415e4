"""Audits a configuration: attacks what its federation releases, and writes down what was found.

    python scripts/audit.py --config=configs/hospitals_heart.py --workdir=runs/audit

The config file names what is attacked, `get_config()`, and, if the usual audit does not do, what
attackers try and which defences are compared, `get_audit()`; see docs/audits.md. Flags replace
parts of the latter:

    --shadows=32 --targets=500 --unit=client --defence="plain: privacy=None"

The workdir receives audit.json, audit.html (one page that needs no other file), audit.md, pictures,
and a folder a defence with its run. The same command goes on where it was stopped. In place of a
config file, --run names a finished run, whose configuration and model are attacked:

    python scripts/audit.py --run=runs/first --workdir=runs/audit
"""

from fljax import commands  # isort: skip, it answers for what the others do

import sys

from absl import flags

import fljax
from fljax.config import ConfigError, resolve
from fljax.config.command_line import config_of, define_config
from fljax.config.prediction import config_of_run

_CONFIG = define_config()
_RUN = flags.DEFINE_string("run", None, "Directory of a finished run, in place of --config.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for everything the audit leaves behind.")
_SHADOWS = flags.DEFINE_integer("shadows", None, "Federations that are trained.", lower_bound=5)
_TARGETS = flags.DEFINE_integer("targets", None, "Rows, or clients, that are audited; -1 for all.")
_UNIT = flags.DEFINE_enum("unit", None, ["row", "client"], "Whose membership is asked of.")
_DEFENCES = flags.DEFINE_multi_string(
    "defence", [], "Name of a defence, or 'NAME: KEY=VALUE, ...'; instead of the file's."
)


def main(argv):
    from ml_collections import config_flags

    from fljax.studies import audit

    fljax.use_all_cores()
    if (_RUN.value is None) == (_CONFIG.value is None):
        raise ConfigError("Give either --config, a config file, or --run, a finished run.")
    if _RUN.value is None:
        settings = audit.load_audit(config_flags.get_config_filename(flags.FLAGS["config"]))
        config = config_of(_CONFIG)
    else:
        settings, config = audit.Audit(), resolve(config_of_run(fljax.load_run(_RUN.value)))
    given = {"shadows": _SHADOWS.value, "targets": _TARGETS.value, "unit": _UNIT.value}
    given = {name: value for name, value in given.items() if value is not None}
    if _DEFENCES.value:
        given["defences"] = audit.parse_defences(_DEFENCES.value, settings)
    settings = audit.make_audit(settings._asdict() | given)
    command = ["python", *sys.argv]
    found = audit.audit(config, _WORKDIR.value, settings, command, run=_RUN.value)
    commands.show(audit.findings(found))
    return 0


if __name__ == "__main__":
    commands.run(main, required=["workdir"], overrides=True)
