"""Transforms between the clients and the server, composed in optax's manner.

A pipeline holds, in the order in which data meets them: downlink links (on the message), batch
links (on what a client trains on), uplink links (on what each job sends), cohort links (on the
stacked cohort), one aggregator, and server links (on the aggregate). It may say who of a cohort is
hostile, and by which rows a backdoor is judged. The empty pipeline is plain weighted averaging at
32 bits a coordinate. The links themselves: `fljax.core.links`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fljax.core.links import (
    UPDATE,
    Aggregator,
    Attackers,
    BatchLink,
    Cohort,
    CohortLink,
    DownlinkLink,
    Participants,
    ServerLink,
    Trigger,
    UplinkLink,
    dense_bits,
    weighted_mean,
)
from fljax.core.precision import widened
from fljax.core.values import wrong

__all__ = [
    "Aggregator",
    "Attackers",
    "BatchLink",
    "Cohort",
    "CohortLink",
    "DownlinkLink",
    "Participants",
    "Pipeline",
    "PipelineSpec",
    "PipelineState",
    "ServerLink",
    "Trigger",
    "UPDATE",
    "UplinkLink",
    "as_configured",
    "check_pipeline",
    "dense_bits",
    "hparams_of",
    "init_client",
    "init_server",
    "pipeline_at",
    "weighted_mean",
]

PyTree = Any


class Pipeline(NamedTuple):
    """All transforms of a run, who is hostile, and the trigger by which a backdoor is judged.

    The default changes nothing.

    Example:
      >>> pipeline = Pipeline(uplink=(compression.uplink(compression.top_k(0.1)),))
      >>> len(pipeline.uplink), pipeline.needs_stack
      (1, False)
    """

    downlink: tuple[DownlinkLink, ...] = ()
    uplink: tuple[UplinkLink, ...] = ()
    cohort: tuple[CohortLink, ...] = ()
    aggregator: Aggregator = weighted_mean
    server: tuple[ServerLink, ...] = ()
    batches: tuple[BatchLink, ...] = ()
    attackers: Attackers | None = None
    trigger: Trigger | None = None

    @property
    def needs_stack(self) -> bool:
        """Says whether the whole cohort's updates are held at once."""
        return bool(self.cohort) or self.aggregator.needs == "stack"

    def sums_payloads(self, name: str) -> bool:
        """Returns whether payloads of a name are summed, integers as integers, and then decoded."""
        return any(link.linear and link.meets([name]) for link in self.uplink)

    def shows_changes(self, name: str) -> bool:
        """Returns whether what is decoded of a name are changes of what a server remembers."""
        return any(link.decodes_changes and link.meets([name]) for link in self.uplink)

    def leaves_alone(self, name: str) -> bool:
        """Returns whether no link of the uplink covers a name."""
        return not any(link.meets([name]) for link in self.uplink)

    def weighs(self, name: str) -> bool:
        """Returns whether the payloads of a name hold their weights already."""
        return any(link.weighs and link.meets([name]) for link in self.uplink)

    @property
    def agrees(self) -> bool:
        """Says whether clients and server agree on something before anybody trains."""
        return any(link.agree is not None for link in self.uplink)

    @property
    def makes_finite(self) -> bool:
        """Says whether what is not finite is made so before it leaves a client."""
        return any(link.makes_finite for link in self.uplink)

    @property
    def decodes_sums(self) -> tuple[bool, ...]:
        """Says of each uplink link whether it decodes once a round, from sums, not job by job.

        A linear link does, and so do those before it that share a name with one that does.
        """
        late: list[str | None] = []
        found = []
        for link in reversed(self.uplink):
            found.append(link.linear or link.meets(late))
            if found[-1]:
                late.append(link.covers)
        return tuple(reversed(found))


class PipelineSpec(NamedTuple):
    """A pipeline whose links have hyperparameters that are traced, as an algorithm's are.

    Attributes:
      build: (hparams) -> Pipeline, called inside the trace; what hyperparameters may change of a
        pipeline is numbers, never its links or the shapes of their payloads and states.
      hparams: {name: number}, which join those of the algorithm.

    Example:
      >>> def build(hparams):
      ...     scaled = lambda message, state, key: (message * hparams["scale"], state)
      ...     return Pipeline(downlink=(DownlinkLink(scaled),))
      >>> spec = PipelineSpec(build, {"scale": 0.5})
      >>> spec.build(spec.hparams).downlink[0].apply(jnp.ones(2), (), None)[0].tolist()
      [0.5, 0.5]
    """

    build: Callable[[Mapping[str, Any]], Pipeline]
    hparams: Mapping[str, float]


def check_pipeline(pipeline: Any) -> None:
    """Raises ValueError for what is no pipeline, or has something else in place of a link.

    Example:
      >>> check_pipeline(Pipeline(aggregator=weighted_mean))
    """
    if isinstance(pipeline, PipelineSpec):
        return
    if not isinstance(pipeline, Pipeline):
        raise wrong(
            "pipeline",
            pipeline,
            "a fljax.core.transforms.Pipeline, such as "
            "Pipeline(uplink=(fljax.compression.uplink(...),))",
        )
    kinds = {
        "downlink": DownlinkLink,
        "uplink": UplinkLink,
        "cohort": CohortLink,
        "server": ServerLink,
        "batches": BatchLink,
    }
    for name, kind in kinds.items():
        links = getattr(pipeline, name)
        if type(links) not in (tuple, list):
            raise wrong(f"pipeline.{name}", links, f"a tuple of {kind.__name__}")
        for place, link in enumerate(links):
            if not isinstance(link, kind):
                raise wrong(f"pipeline.{name}[{place}]", link, f"a {kind.__name__}")
    if not isinstance(pipeline.aggregator, Aggregator):
        raise wrong("pipeline.aggregator", pipeline.aggregator, "an Aggregator")
    if not isinstance(pipeline.attackers, Attackers | None):
        raise wrong("pipeline.attackers", pipeline.attackers, "Attackers, or None")
    if not isinstance(pipeline.trigger, Trigger | None):
        raise wrong("pipeline.trigger", pipeline.trigger, "a Trigger, or None")


def pipeline_at(pipeline: Pipeline | PipelineSpec, hparams: Mapping[str, Any]) -> Pipeline:
    """Returns the pipeline of some hyperparameters.

    Example:
      >>> spec = PipelineSpec(lambda hparams: Pipeline(), {"scale": 0.5})
      >>> pipeline_at(spec, {"scale": 0.1}) == Pipeline()
      True
    """
    return pipeline.build(hparams) if isinstance(pipeline, PipelineSpec) else pipeline


def with_combine(pipeline: Pipeline, combine: Callable | None) -> Pipeline:
    """Returns the pipeline with the rule by which an algorithm combines updates, if it has one.

    Args:
      pipeline: Transforms between clients and server.
      combine: As in a `fljax.core.algorithm.Algorithm`.

    Raises:
      ValueError: If the pipeline has an aggregator of its own.

    Example:
      >>> first = lambda stack, cohort: stack[0]
      >>> with_combine(Pipeline(), first).needs_stack, with_combine(Pipeline(), None).needs_stack
      (True, False)
    """
    if combine is None:
        return pipeline
    if pipeline.aggregator is not weighted_mean:
        raise ValueError(
            "The algorithm combines the updates of a cohort by a rule of its own, and the pipeline "
            "has an aggregator, which would take its place. Leave the aggregator out, or choose "
            "an algorithm that averages, such as fedavg."
        )
    rule = Aggregator("stack", lambda stack, cohort, state: (combine(stack, cohort), state))
    return pipeline._replace(aggregator=rule)


def hparams_of(pipeline: Pipeline | PipelineSpec) -> Mapping[str, float]:
    """Returns {name: number} of the hyperparameters that a pipeline has.

    Example:
      >>> hparams_of(PipelineSpec(lambda hparams: Pipeline(), {"scale": 0.5}))
      {'scale': 0.5}
    """
    return pipeline.hparams if isinstance(pipeline, PipelineSpec) else {}


def as_configured(pipeline: Pipeline | PipelineSpec) -> Pipeline:
    """Returns the pipeline of its own numbers: for shapes, initial states and sizes.

    Example:
      >>> as_configured(PipelineSpec(lambda hparams: Pipeline(), {"scale": 0.5})) == Pipeline()
      True
    """
    return pipeline_at(pipeline, hparams_of(pipeline))


class PipelineState(NamedTuple):
    """Server-side state of every link.

    Example:
      >>> init_server(Pipeline(), {"w": jnp.zeros(3)})
      PipelineState(downlink=(), uplink=(), cohort=(), aggregator=(), server=())
    """

    downlink: tuple[PyTree, ...]
    uplink: tuple[PyTree, ...]
    cohort: tuple[PyTree, ...]
    aggregator: PyTree
    server: tuple[PyTree, ...]


def init_server(pipeline: Pipeline, params: PyTree) -> PipelineState:
    """Returns the initial server-side state of all links.

    Example:
      >>> step = lambda total, state, round, key: (total, state + 1)
      >>> counting = ServerLink(step, init=lambda params: 0)
      >>> init_server(Pipeline(server=(counting,)), {"w": jnp.zeros(3)}).server
      (0,)
    """
    params = widened(params)
    return PipelineState(
        downlink=tuple(link.init(params) for link in pipeline.downlink),
        uplink=tuple(link.init_server(params) for link in pipeline.uplink),
        cohort=tuple(link.init(params) for link in pipeline.cohort),
        aggregator=pipeline.aggregator.init(params),
        server=tuple(link.init(params) for link in pipeline.server),
    )


def init_client(pipeline: Pipeline, params: PyTree) -> tuple[PyTree, ...]:
    """Returns the uplink state of a client that never took part.

    Example:
      >>> memory = UplinkLink(None, None, init_client=lambda params: params)
      >>> init_client(Pipeline(uplink=(memory,)), {"w": jnp.zeros(3)})[0]["w"].tolist()
      [0.0, 0.0, 0.0]
    """
    params = widened(params)
    return tuple(link.init_client(params) for link in pipeline.uplink)
