"""Every award type is one registered unit: amount, refund rule, example and documentation."""

import re
from typing import Any, get_args

import msgspec
import pytest

from guerdon.campaigns.award_types import AWARD_TYPES, REFUND_SHARES, AwardType, formula_of
from guerdon.campaigns.cel import compile_formula, require_bounded
from guerdon.campaigns.models import Award, RefundRule
from tests.tidy.award_types import REFUNDS, amount_of

every_type = pytest.mark.parametrize("award_type", AWARD_TYPES.values(), ids=lambda each: each.name)


def test_every_struct_of_the_union_is_registered() -> None:
    assert set(AWARD_TYPES) == set(get_args(Award))
    assert len({each.name for each in AWARD_TYPES.values()}) == len(AWARD_TYPES)


def test_every_refund_rule_is_defined_and_documented() -> None:
    assert set(REFUND_SHARES) == set(REFUNDS) == set(get_args(RefundRule))


@every_type
def test_an_award_type_has_a_refund_rule(award_type: AwardType[Any]) -> None:
    assert award_type.refund_rule in REFUND_SHARES


@every_type
def test_an_award_type_has_an_example_that_is_valid_and_pays(award_type: AwardType[Any]) -> None:
    assert type(award_type.example) is award_type.struct
    assert msgspec.json.decode(msgspec.json.encode(award_type.example), type=Award) == award_type.example
    expression = formula_of(award_type.example)
    if expression is not None:
        require_bounded(expression, "/award/expression")
        compile_formula(expression, "/award/expression")
    assert (amount_of(award_type) or 0) > 0


@every_type
def test_an_award_type_is_documented(award_type: AwardType[Any]) -> None:
    assert re.fullmatch(r"[A-Z`].+\.", award_type.documentation, re.DOTALL)
