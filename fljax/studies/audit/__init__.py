"""An audit: what a configuration's federation releases, attacked, and the report of it."""

from fljax.studies.audit.launch import audit
from fljax.studies.audit.report import findings
from fljax.studies.audit.settings import Audit, load_audit, make_audit, parse_defences

__all__ = [
    "Audit",
    "audit",
    "findings",
    "load_audit",
    "make_audit",
    "parse_defences",
]
