"""Commands that change a running daemon: `pause`, `resume`, `retry` and the like; `acts`: what was changed."""

import argparse
import asyncio
import getpass
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from service import exit_codes
from service.commands.command import Command, Given, add_json
from service.commands.filters import up_to
from service.safe_text import escaped
from service.status import NOT_OURS, NoDaemon, ask
from trading.errors import TradentError

CONTROL = "/api/v1/control"
MOST_ACTS = 500
FOR_NOW = "until the next reload or restart; to keep it, write it into config.json"


def act_options(parser: argparse.ArgumentParser) -> None:
    """What every act can be given."""
    parser.add_argument("--reason", metavar="TEXT", help="why, for those who look later")
    add_json(parser, "the daemon's answer as JSON")


def asked(given: Given, path: str, *names: str, method: str = "POST", **body: Any) -> Any:
    """What the daemon answers; who asks and why go along.

    Raises TradentError with its words where it refuses, and where its answer lacks one of these names.
    """
    service = given.settings().service
    sent = None if method == "GET" else {"who": _user(), "reason": given.reason, **body}
    answer = asyncio.run(ask(service.host, service.port, path, method=method, body=sent))
    content = answer.content()
    if not isinstance(content, dict) or not content.keys() >= set(names):
        raise TradentError(f"what answers at {answer.url} {NOT_OURS}")
    return content


def show(given: Given, answer: Any, text: str) -> int:
    """Print the answer, as JSON where that is wanted; what others wrote is shown without its control characters."""
    out = orjson.dumps(answer).decode() if given.json else "\n".join(map(escaped, text.split("\n")))
    sys.stdout.write(f"{out}\n")
    return exit_codes.OK


def said_of(act: Mapping[str, Any]) -> str:
    """One act in a line."""
    before, after = (act[name] if isinstance(act[name], dict) else {} for name in ("before", "after"))
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    told = [f"{name} {_value(before.get(name))} → {_value(after.get(name))}" for name in changed]
    change = f": {', '.join(told)}" if told and act["act"] not in ("pause", "resume") else ""
    about = f" {act['signal']}" if act["signal"] else ""
    who = f"{act['via']}, {act['who']}" if act["who"] else act["via"]
    why = f" — {act['reason']}" if act["reason"] else ""
    return f"{act['at'][:19].replace('T', ' ')}  {act['act']}{about}{change} ({who}){why}"


def _value(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None


def _pause(given: Given) -> int:
    answer = asked(given, f"{CONTROL}/pause", "pause")
    since = str((answer["pause"] or {}).get("since", ""))[:19].replace("T", " ")
    return show(given, answer, f"paused since {since} UTC: no worker on this database rates; `tradent resume` goes on")


def _resume(given: Given) -> int:
    return show(given, asked(given, f"{CONTROL}/resume", "paused"), "signals are rated")


def _limits_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("backend", nargs="?", help="the backend whose limits to show or change; without one, show all")
    parser.add_argument("--requests", type=int, metavar="N", help="requests in any 60 s; 0 is no limit")
    parser.add_argument("--tokens", type=int, metavar="N", help="tokens in any 60 s; 0 is no limit")
    parser.set_defaults(refuse=parser.error)
    act_options(parser)


def _limits(given: Given) -> int:
    wanted = {"requests_per_minute": given.requests, "tokens_per_minute": given.tokens}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    if wanted and given.backend is None:
        given.refuse("name the backend whose limits these are to be")
    if wanted:
        answer = asked(given, f"{CONTROL}/limits", "limits", backend=given.backend, **wanted)
    else:
        answer = asked(given, CONTROL, "limits", method="GET")
    if given.backend not in (None, *answer["limits"]):
        raise TradentError(f"{given.backend!r} is not in use; expected one of {', '.join(answer['limits'])}")
    lines = [
        f"{name}: {_most(each['requests_per_minute'])} requests, {_most(each['tokens_per_minute'])} tokens a minute"
        for name, each in answer["limits"].items()
        if given.backend in (None, name)
    ]
    return show(given, answer, "\n".join(lines + ([FOR_NOW] if wanted else [])))


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="backend/model, to be asked first; without one, say which is")
    act_options(parser)


def _model(given: Given) -> int:
    if given.model is None:
        answer = asked(given, CONTROL, "model", method="GET")
        return show(given, answer, answer["model"])
    answer = asked(given, f"{CONTROL}/model", "model", model=given.model)
    return show(given, answer, f"{answer['model']} is asked first\n{FOR_NOW}")


def _reload(given: Given) -> int:
    answer = asked(given, f"{CONTROL}/reload", "before", "after", "needs_restart")
    lines = [
        f"{key}: {_value(answer['before'][key])} → {_value(after)}" for key, after in sorted(answer["after"].items())
    ]
    lines += [f"{key} needs a restart" for key in answer["needs_restart"]]
    return show(given, answer, "\n".join(lines) or "nothing differs from what holds")


def _most(limit: int) -> str:
    return f"{limit:,}" if limit else "any number of"


def _ids_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID", help="sig-…, as in llm_signals.csv")
    act_options(parser)


def _for_each(given: Given, act: str, said: str) -> int:
    """Do it to each signal; 1 where one was refused, whatever became of the others."""
    answers, status = [], exit_codes.OK
    for signal in given.ids:
        try:
            answers.append(asked(given, f"/api/v1/tasks/{quote(signal, safe='')}/{act}", "signal", "before"))
        except NoDaemon:
            raise
        except TradentError as error:
            status = exit_codes.FAILED
            sys.stderr.write(f"{escaped(str(error))}\n")
    text = "\n".join(f"{each['signal']} {said}; it was {each['before']}" for each in answers)
    if answers or given.json:
        show(given, answers, text)
    return status


def _retry(given: Given) -> int:
    return _for_each(given, "retry", "is rated again")


def _skip(given: Given) -> int:
    return _for_each(given, "skip", "is skipped")


def _acts_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-n", "--limit", type=up_to(MOST_ACTS, 1), default=20, metavar="N", help="how many; 20 unless given"
    )
    add_json(parser)


def _acts(given: Given) -> int:
    answer = asked(given, f"{CONTROL}/acts?limit={given.limit}", "acts", method="GET")
    lines = [said_of(act) for act in reversed(answer["acts"])]
    return show(given, answer, "\n".join(lines) or "nothing was changed by hand so far")


COMMANDS: dict[str, Command] = {
    "pause": Command(_pause, act_options),
    "resume": Command(_resume, act_options),
    "limits": Command(_limits, _limits_options),
    "model": Command(_model, _model_options),
    "reload": Command(_reload, act_options),
    "retry": Command(_retry, _ids_options),
    "skip": Command(_skip, _ids_options),
    "acts": Command(_acts, _acts_options),
}
