"""Refuses what a deployment cannot do as the simulation does, with the reason."""

from __future__ import annotations

from collections.abc import Iterator

from fljax.core.links import dense_bits
from fljax.core.transforms import Pipeline
from fljax.training.blueprint import Blueprint
from fljax.training.options import RoundOptions
from fljax.training.rehearsal import rehearsed
from fljax.training.timing import is_timed


def refuse(blueprint: Blueprint) -> None:
    """Raises ValueError with the first reason why a federation cannot be deployed.

    Example:
      >>> dataset = data.digits(partition='iid', num_clients=20)
      >>> task = tasks.classification(models.softmax_regression(64, 10), 10)
      >>> options = fljax.training.federation.RoundOptions(2, 5, batch_size=20)
      >>> draw = fljax.training.blueprint.draw_blueprint
      >>> refuse(draw(dataset, task, algorithms.fedavg(0.1), options))
    """
    for reason in reasons(blueprint):
        raise ValueError(f"This run cannot be deployed as it was simulated: {reason}")


def reasons(blueprint: Blueprint) -> Iterator[str]:
    """Yields why a federation cannot be deployed, each with what to do."""
    yield from _of_options(blueprint.options)
    yield from _of_data(blueprint)
    yield from _of_pipeline(blueprint.pipeline)
    yield from _of_algorithm(blueprint)


def _of_options(options: RoundOptions) -> Iterator[str]:
    if options.privacy is not None:
        yield (
            "its noise and its cohorts follow from the run's seed, which every machine of the app "
            "knows, so that nothing would be private. Export the run without privacy, and add "
            "Flower's own (flwr.clientapp.mod, flwr.serverapp.strategy), or keep the promise of "
            "the simulation for planning alone."
        )
    if options.secure_aggregation is not None:
        yield (
            "its masks follow from the run's seed, which every machine of the app knows. Export "
            "the run without secure_aggregation, and use Flower's SecAgg+, whose keys are the "
            "nodes' own."
        )
    if is_timed(options):
        yield (
            "its clock, devices and dropouts are simulated, and nodes bring their own. Export a "
            "run without profiles, availability, dropout and schedule; nodes that are lost or "
            "late are left out of a round by themselves."
        )


def _of_data(blueprint: Blueprint) -> Iterator[str]:
    if blueprint.dataset.moves:
        yield "what its clients own changes over the rounds. Leave concept_drift out."
    if blueprint.dataset.root is not None:
        yield (
            "the server trains on rows of its own (root_rows), and a Flower server has no node. "
            "Leave root_rows out, and take an aggregator without them, such as median."
        )
    if blueprint.cohorts.feedback != "none":
        yield (
            "its sampler chooses by what earlier rounds have shown. Take one that does not, such "
            "as sampler='uniform'."
        )


def _of_pipeline(pipeline: Pipeline) -> Iterator[str]:
    if pipeline.attackers is not None:
        yield "its hostile clients are simulated. Export the run without an attack."
    if pipeline.downlink:
        yield (
            "the server makes what clients decode, not what they would receive, so that Flower "
            "would carry it at full width. Leave downlink out."
        )
    for link in pipeline.uplink:
        if link.agree or link.sees_server or link.makes_finite or link.decode_sum or link.release:
            yield (
                "a link of the uplink agrees on secrets, adds noise or reads the server's state. "
                "Leave it out."
            )
        elif link.to_wire is None and link.bits is not dense_bits:
            yield (
                "a link of the uplink does not say how its messages are written as bytes (of ours "
                "that is marina). Take another uplink_memory, or give the link `to_wire`."
            )


def _of_algorithm(blueprint: Blueprint) -> Iterator[str]:
    algorithm, spec = blueprint.algorithm, blueprint.spec
    if any(each.repeats is not None for each in algorithm.passes):
        yield (
            f"clients of {spec.name} go over their rows until they are content, once more within "
            "a pass. Take another algorithm."
        )
    sent = rehearsed(blueprint.dataset, blueprint.task, spec).contributions
    if not any(sent):
        yield f"clients of {spec.name} send nothing. Take an algorithm that aggregates."
    if any(part.bits is not None for each in sent for part in each.values()):
        yield (
            f"clients of {spec.name} send parts of a model, which Flower would carry with zeros in "
            "place of the rest. Take another algorithm."
        )
