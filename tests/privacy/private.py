"""What tests of mechanisms share: settings, and rounds behind a mechanism's link."""

import numpy as np

from fljax.core.transforms import Pipeline, PipelineSpec
from fljax.privacy.mechanism import Setting


def setting(num_clients=1000, clients_per_round=100.0, sampler="poisson", num_rounds=100, **facts):
    nothing = np.zeros(num_clients, np.int64)
    return Setting(
        num_clients, clients_per_round, sampler, num_rounds, 0, nothing, nothing, nothing
    )._replace(**facts)


def pipeline(mechanism, members, *links, behind="nothing", wrap=lambda link: link):
    """Returns the pipeline of a mechanism and of links behind it.

    Args:
      mechanism: The mechanism.
      members: Clients of a round, on average.
      *links: Behind it.
      behind: As in a Setting.
      wrap: Changes the mechanism's link.
    """
    run = setting(clients_per_round=members, behind=behind)
    return PipelineSpec(
        lambda hp: Pipeline(uplink=(wrap(mechanism.link(hp, run)), *links)), mechanism.hparams
    )
