"""`guerdon replay-decision`: evaluate a recorded event again, and compare the result with the stored one."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from guerdon.cli.database import run_with_services
from guerdon.config import load
from guerdon.events.replay import Answer, Replay
from guerdon.permissions import ANY_SCOPE, Actor
from guerdon.wiring.services import Services

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

    async def work(services: Services) -> Replay:
        return await services.event_replays.replay(await services.events.get_event(ACTOR, event_id))

    replay = run_with_services(load(data_dir=data_dir), "guerdon replay-decision", work)
    typer.echo(msgspec.json.encode(replay).decode() if as_json else _text_of(replay))
    if replay.outcome != "equal":
        raise typer.Exit(EXIT_DIFFERENT if replay.outcome == "different" else EXIT_MISSING)


def _text_of(replay: Replay) -> str:
    lines = [
        f"{replay.event_id}: {replay.outcome}",
        f"recorded by   {replay.recorded_engine}",
        f"evaluated by  {replay.engine}",
    ]
    lines += [f"missing: {missing}" for missing in replay.missing]
    lines += _decision_lines("recorded", replay.recorded)
    if replay.judged is not None and replay.outcome != "equal":
        lines += _decision_lines("evaluated now", replay.judged)
    return "\n".join(lines)


def _decision_lines(title: str, answer: Answer) -> list[str]:
    lines = [f"{title}:"]
    for decision in answer.decisions:
        lines.append(f"  {decision.campaign} version {decision.version}: {decision.outcome} {decision.amount}")
        lines += [f"    {reason}" for reason in decision.reasons]
    return lines if answer.note is None else [*lines, f"  {answer.note}"]
