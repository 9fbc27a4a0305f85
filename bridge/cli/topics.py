"""``binance-bridge topics``: compare the cluster's topics with the catalogue, and make them so."""

import asyncio
from typing import Annotated, TypeAlias

import typer

from bridge.catalogue import catalogue
from bridge.cli.options import ConfigOption, EnvironmentOption, JsonOption, settings_from
from bridge.config import Settings, kafka_settings
from bridge.kafka import topics as kafka_topics
from bridge.topics import topic_specs

app = typer.Typer(no_args_is_help=True)

MorePartitions: TypeAlias = Annotated[
    bool, typer.Option("--allow-more-partitions", help="Add partitions: keys then move away from their past.")
]
KeepingLess: TypeAlias = Annotated[
    bool, typer.Option("--allow-keeping-less", help="Shorten retention: Kafka then deletes records.")
]


@app.command(epilog="Example: binance-bridge topics plan --config bridge.yaml")
def plan(
    config: ConfigOption = None,
    environment: EnvironmentOption = None,
    *,
    allow_more_partitions: MorePartitions = False,
    allow_keeping_less: KeepingLess = False,
    json: JsonOption = False,
) -> None:
    """Show how the cluster differs from the catalogue; exit status 1 where it does."""
    settings = settings_from(config, environment)
    found = asyncio.run(_planned(settings, allow_more_partitions, allow_keeping_less, act=False))
    print(found.as_json() if json else found)
    if not found.clean:
        raise typer.Exit(1)


@app.command(epilog="Example: binance-bridge topics apply --config bridge.yaml")
def apply(
    config: ConfigOption = None,
    environment: EnvironmentOption = None,
    *,
    allow_more_partitions: MorePartitions = False,
    allow_keeping_less: KeepingLess = False,
    json: JsonOption = False,
) -> None:
    """Create and alter topics; never delete one, nor shrink it.

    Prints what was done. Exit status 1 where a difference is left that this command does not touch.
    """
    settings = settings_from(config, environment)
    done = asyncio.run(_planned(settings, allow_more_partitions, allow_keeping_less, act=True))
    print(done.as_json() if json else done)
    if done.refused:
        raise typer.Exit(1)


@app.command(
    epilog="Example: binance-bridge topics render --config bridge.yaml --cluster kafka > topics.yaml"
)
def render(
    config: ConfigOption = None,
    environment: EnvironmentOption = None,
    cluster: Annotated[str, typer.Option(metavar="NAME", help="Name of the Kafka resource.")] = "kafka",
    api_version: Annotated[
        str, typer.Option(metavar="VERSION", help="v1, or v1beta2 for Strimzi before 0.49.")
    ] = "v1",
) -> None:
    """Print the topics as Strimzi `KafkaTopic` resources, without asking the cluster."""
    specs = topic_specs(catalogue(), settings_from(config, environment))
    print(kafka_topics.render(specs, cluster, api_version=api_version), end="")


async def _planned(
    settings: Settings, allow_more_partitions: bool, allow_keeping_less: bool, *, act: bool
) -> kafka_topics.Plan:
    specs = topic_specs(catalogue(), settings)
    async with kafka_topics.Cluster(kafka_settings(settings)) as cluster:
        found = await kafka_topics.plan(
            specs,
            cluster,
            allow_more_partitions=allow_more_partitions,
            allow_keeping_less=allow_keeping_less,
        )
        if act:
            await kafka_topics.apply(found, cluster)
        return found
