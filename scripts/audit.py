"""Audits a configuration: attacks what its federation releases, and writes down what was found.

    python scripts/audit.py --config=configs/hospitals_heart.py --workdir=runs/audit

The config file names what is attacked, `get_config()`, and, if the usual audit does not do, what
attackers try and which defences are compared, `get_audit()`; see docs/audits.md. Flags replace
parts of the latter:

    --shadows=32 --targets=500 --unit=client --defence="plain: privacy=None"

The workdir receives audit.json, audit.html (one page that needs no other file), audit.md, pictures,
and a folder a defence with its run. The same command goes on where it was stopped. --run names
a finished run that kept its model in place of a configuration: what was trained is attacked, too.
"""

from fljax import commands  # isort: skip, it answers for what the others do

import sys

from absl import flags

import fljax
from fljax.config.command_line import config_of, define_config

_CONFIG = define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for everything the audit leaves behind.")
_SHADOWS = flags.DEFINE_integer("shadows", None, "Federations that are trained.", lower_bound=5)
_TARGETS = flags.DEFINE_integer("targets", None, "Rows that are audited; -1 for all.")
_UNIT = flags.DEFINE_enum("unit", None, ["row", "client"], "Whose membership is asked of.")
_DEFENCES = flags.DEFINE_multi_string(
    "defence", [], "Name of a defence, or 'NAME: KEY=VALUE, ...'; instead of the file's."
)


def main(argv):
    from ml_collections import config_flags

    from fljax.studies import audit

    fljax.use_all_cores()
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    settings = audit.load_audit(path)
    given = {"shadows": _SHADOWS.value, "targets": _TARGETS.value, "unit": _UNIT.value}
    given = {name: value for name, value in given.items() if value is not None}
    if _DEFENCES.value:
        given["defences"] = audit.parse_defences(_DEFENCES.value, settings)
    settings = audit.make_audit(settings._asdict() | given)
    found = audit.audit(config_of(_CONFIG), _WORKDIR.value, settings, ["python", *sys.argv])
    commands.show(audit.findings(found))
    return 0


if __name__ == "__main__":
    commands.run(main, required=["config", "workdir"], overrides=True)
