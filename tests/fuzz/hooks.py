"""What Schemathesis is told about this service. It loads this file into its own process; `FUZZ_PLAN` names the plan that the test has written.

Nothing is left out but what stands in `BEYOND_THE_DOCUMENT`: requests that fit the document and are refused for what JSON Schema cannot say.
"""

import atexit
import itertools
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import requests
import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation import GenerationMode

PLAN: dict[str, Any] = json.loads(Path(os.environ["FUZZ_PLAN"]).read_text(encoding="utf-8"))
SECONDS = 20
BEYOND_THE_DOCUMENT = {
    r"must be (text, )?a whole number": "1.0 is an integer to JSON Schema, and not to us: amounts are written in one way",
    r"cursor (that this list has given out|of this list)|not (the position|a position) of a (page|sheet)|not a place that a sheet has named": "a cursor is opaque",
    r"must be a time such as|the time does not exist|a time (must|needs)|not a valid e-mail address":
        "formats are hints in JSON Schema, and tried at lengths that nothing of the kind has",
    r"this password is too common|the password must not be the e-mail address": "the list is longer than a document",
    r"not the current password|not the current code of the authenticator|changed the password at the same time": "a secret",
    r"a scope does not exist": "scopes are those of the routes",
    r"two different wallets|have the same asset|an external_id, an email, or both|exactly one of external_id and id|needs? (a|its|an) "
    r"(period|currency|amount|group)|has no period|the hours are empty|must be after|refund itself|would (lapse|have lapsed)|only a refund|"
    r"at least one category or one sku|needs more points than|is there twice|only a discount has|takes a value of type|the currency must be|leave it out|omit the field|"
    r"needs (its currency|a cap)|cannot evaluate refunds|cannot confirm|confirm itself|can wait for an event|"
    r"cannot count towards an achievement|needs a wallet or a system account, and not both|is required for a system account|is not the asset of the wallet|"
    r"occurs twice; send one|system accounts move value with wallets only|they must add up to 0|must not be below minimum":
        "two fields are compared, or one needs another",
    r"there is no asset|the wallet does not exist|the asset \S+ does not exist|another member|only a purchase can be (refunded|confirmed)": "what is named is looked up",
    r"can import codes|external codes are|can have a shared code|the code exists already|cannot change; create another|name the member who|"
    r"say (who|into whose wallet)|has (at most \d+|\d+ at most)|needs the (currency|amount) of the basket":
        "it depends on the offer, on who asks, or on what there is",
    r"pattern needs|a secret code needs|a pattern (has|is)|check character|the file has no code": "a pattern is counted, and a file is read",
    r"(it|the time) has passed|must (not )?be in the future|reserved for value that awaits|more than ten years ahead": "the clock is looked at",
    r"the URL must|a URL may have|not a valid URL|not an IPv6 address|an IPv4 address must|the port must be|has an address that is not public|"
    r"a (host )?name must|the host name (must|is)":
        "an address is taken apart, and its name resolved",
    r"not a CEL expression|the expression is of type|does not exist; (event|member) has|a condition can(not| use)|beside a list macro|could take too long":
        "an expression is a program",
}  # fmt: skip
"""Details of refusals of requests that fit the document, with the reason for which that is right."""
DOCUMENTED_MEMBER = "mem_019a7f3c2d1e4b5a69788796a5b4c3d2"
"""Member of the examples of the document."""
COMPARED = {"idempotency-key-reused", "event-id-reused", "lines-refused"}
"""Codes of refusals that compare a request with an earlier one, or the lines of a file with the rules for codes and with each other."""
KEY, EXAMPLE, OLD_KEYS_EVERY = "Idempotency-Key", "c0ffee-0001", 4
ENDS_SESSIONS = {
    "logOut", "logOutEverywhere", "endMySession", "changeMyPassword", "resetPassword", "disableMember", "setRole", "refresh", "eraseMe",
    "eraseMember",
}  # fmt: skip
"""After one of them has been done, the token may be nobody's any more; the next call is made with a new one."""


class Person:
    """Whoever calls: one of the people of the plan, with a session that is new whenever the old one has ended."""

    def __init__(self) -> None:
        self.token: str | None = None
        self.log_ins = 0
        self.refused = 0
        """How often a call with the person's own token was answered 401."""
        self._people: list[str] = PLAN["people"]

    def authorization(self) -> str:
        while self.token is None:
            assert self._people, "nobody is left to call as: let the plan name more people"
            email = self._people[0]
            body = {"email": email, "password": PLAN["password"]}
            answer = requests.post(f"{PLAN['url']}/v1/auth/login", json=body, timeout=SECONDS)
            self.log_ins += 1
            if answer.status_code == 200 and answer.json()["access_token"]:
                self.token = answer.json()["access_token"]
            else:
                self._people.pop(0)
        return f"Bearer {self.token}"


PERSON = Person()
_numbers = itertools.count(1)
ANSWERS: Counter[tuple[str, int]] = Counter()
EXCUSED: Counter[str] = Counter()

if PLAN["people"]:

    @schemathesis.auth(refresh_interval=None)
    class Session:
        """Hands each case the token of the person who calls."""

        def get(self, case: Any, context: Any) -> str:
            return PERSON.authorization()

        def set(self, case: Any, data: str, context: Any) -> None:
            case.headers = {**(case.headers or {}), "Authorization": data}
            if case.headers.get(KEY) == EXAMPLE and (number := next(_numbers)) % OLD_KEYS_EVERY:
                case.headers[KEY] = f"fuzz-{number}"  # With one key for everything, nearly everything would be a replay.


def _with_known_member(value: Any) -> Any:
    """Return an example with the id of a member that exists in place of the document's member, in the ids of wallets too."""
    if isinstance(value, str):
        return value.replace(DOCUMENTED_MEMBER, PLAN["examples"]["member_id"])
    if isinstance(value, list):
        return [_with_known_member(each) for each in value]
    return {name: _with_known_member(each) for name, each in value.items()} if isinstance(value, dict) else value


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """Use ids that exist in the examples of parameters and bodies, from which many cases are derived."""
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                content.update({"example": _with_known_member(content["example"])} if "example" in content else {})
    for path, operations in raw_schema["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path" and parameter["name"] in PLAN["examples"] and not path.startswith("/problems"):
                    parameter["example"] = PLAN["examples"][parameter["name"]]


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    operation = case.operation.definition.raw["operationId"]
    if response.request.method == case.operation.method.upper():  # Other methods are tried too, and are not the operation.
        ANSWERS[operation, response.status_code] += 1
    ours = PERSON.token is not None and response.request.headers.get("Authorization") == f"Bearer {PERSON.token}"
    PERSON.refused += ours and response.status_code == 401
    if ours and (response.status_code == 401 or (operation in ENDS_SESSIONS and response.status_code < 300)):
        PERSON.token = None


@schemathesis.hook
def filter_failure(context: Any, failure: Failure, case: Any, response: Any) -> bool:
    """Drop a failure that is none: a refusal for a reason that the document cannot state, or text taken for another type."""
    if type(failure).__name__ == "AcceptedNegativeData" and _only_the_type_of_a_text_is_wrong(case):
        EXCUSED["every text is a string"] += 1
        return False
    if type(failure).__name__ != "RejectedPositiveData" or response.status_code != 422:
        return True
    told = response.json()
    if told["code"] in COMPARED:
        EXCUSED[told["code"]] += 1
        return False
    details = [error["detail"] for error in told.get("errors", [])]
    excuses = [next((each for each in BEYOND_THE_DOCUMENT if re.search(each, detail)), None) for detail in details]
    if not excuses or None in excuses:
        return True
    EXCUSED.update(each for each in excuses if each is not None)
    return False


def _only_the_type_of_a_text_is_wrong(case: Any) -> bool:
    """Return True for a text body that was generated as a number, a list, …: sent as text, it is a string after all."""
    wrong = {place for place, component in case.meta.components.items() if component.mode is GenerationMode.NEGATIVE}
    return wrong == {ParameterLocation.BODY} and case.media_type == "text/csv"


@atexit.register
def write_report() -> None:
    answers: dict[str, dict[str, int]] = {}
    for (operation, status), count in sorted(ANSWERS.items()):
        answers.setdefault(operation, {})[str(status)] = count
    report = {"answers": answers, "excused": dict(EXCUSED), "log_ins": PERSON.log_ins, "refused": PERSON.refused}
    Path(PLAN["report"]).write_text(json.dumps(report), encoding="utf-8")
