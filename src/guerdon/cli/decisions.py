"""`guerdon replay-decision`: judge a recorded event again, and see whether the same comes out."""

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from guerdon.cli.local import local_database, local_services
from guerdon.config import load
from guerdon.events.replay import Answer, Replay
from guerdon.permissions import ANY_SCOPE, Actor

EXIT_DIFFERENT, EXIT_MISSING = 1, 3
ACTOR = Actor("system:terminal", "system", frozenset({ANY_SCOPE}))

EventId = Annotated[str, typer.Argument(help="Id of the event, as it was sent.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]


def replay_decision(event_id: EventId, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Evaluate a recorded event again with its stored inputs and versions, and compare the result. Nothing is written.

    Exit code 1: the result differs from what is stored.

    Exit code 3: something that the evaluation needs is missing.
    """
    with local_database(load(data_dir=data_dir), "guerdon replay-decision") as settings:

        async def within() -> Replay:
            async with local_services(settings) as services:
                return await services.event_replays.replay(await services.events.get_event(ACTOR, event_id))

        replay = asyncio.run(within())
    typer.echo(msgspec.json.encode(replay).decode() if as_json else _prose(replay))
    if replay.outcome != "equal":
        raise typer.Exit(EXIT_DIFFERENT if replay.outcome == "different" else EXIT_MISSING)


def _prose(replay: Replay) -> str:
    lines = [f"{replay.event_id}: {replay.outcome}", f"recorded by  {replay.recorded_engine}", f"judged by    {replay.engine}"]
    lines += [f"missing: {what}" for what in replay.missing]
    lines += _lines("recorded", replay.recorded)
    if replay.judged is not None and replay.outcome != "equal":
        lines += _lines("judged now", replay.judged)
    return "\n".join(lines)


def _lines(title: str, answer: Answer) -> list[str]:
    lines = [f"{title}:"]
    for each in answer.decisions:
        lines.append(f"  {each.campaign} version {each.version}: {each.outcome} {each.amount}")
        lines += [f"    {reason}" for reason in each.reasons]
    return lines if answer.note is None else [*lines, f"  {answer.note}"]
