"""Checks of data, client by client: what is wrong with whose rows, and what is done about it."""

from fljax.data.checks.policies import POLICIES, checked, policy_of
from fljax.data.checks.report import CLIENT_CHECKS, ROW_CHECKS, Report, check

__all__ = ["CLIENT_CHECKS", "POLICIES", "ROW_CHECKS", "Report", "check", "checked", "policy_of"]
