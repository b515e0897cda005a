"""Amounts as people write them, and the integers the meter keeps.

A metric's unit is an integer. ``--scale N`` says that the unit is the N-th
decimal: with ``--scale 2`` the text ``12.50`` is 1250 and 1250 is printed as
``12.50``. The SDK's ``scale(12.5)`` is ``--scale 6``.

Text becomes an integer through Decimal only. A decimal that does not fit the
scale is refused, not rounded: one of two digits is wrong, and only the person
who wrote it knows which.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation, localcontext

from unimeter.errors import InvalidInputError
from unimeter.limits import VALUE_MAX, VALUE_MIN

SCALE_DECIMALS_MAX = 18
"""More decimals leave no digit before the point in a signed 64-bit integer."""

DIGITS_MAX = 60
"""Digits of a number read from text; 128-bit sums have 39."""


def parse_amount(given: str | int | Decimal, decimals: int = 0) -> int:
    """The integer for `given` at `decimals`; InvalidInputError says what to mend."""
    assert not isinstance(given, bool)
    if decimals == 0 and isinstance(given, str) and len(given) < 19 and given.isascii():
        if given.isdigit():
            return int(given)  # nearly every line of a file; fits 64 bits
    number = given if isinstance(given, Decimal) else _decimal(given)
    if not number.is_finite() or number.adjusted() > DIGITS_MAX:
        raise InvalidInputError(f"value {given} is not a number the meter can keep")
    with localcontext() as context:
        context.prec = 2 * DIGITS_MAX
        scaled = number.scaleb(decimals)
        whole = scaled.to_integral_value()
        if whole != scaled:
            raise InvalidInputError(_too_fine(given, number, decimals))
    amount = int(whole)
    if not VALUE_MIN <= amount <= VALUE_MAX:
        raise InvalidInputError(
            f"value {given} does not fit a signed 64-bit integer; use a larger unit"
        )
    return amount


def format_amount(amount: int, decimals: int) -> int | Decimal:
    """`amount` as it is written: an int at scale 0, an exact Decimal otherwise."""
    if decimals == 0:
        return amount
    with localcontext() as context:
        context.prec = 2 * DIGITS_MAX
        return Decimal(amount).scaleb(-decimals)


def _decimal(given: str | int) -> Decimal:
    try:
        # Decimal accepts "1_000" and other scripts' digits; a file that holds
        # those was not made by a program that meant them.
        if isinstance(given, str) and ("_" in given or not given.strip().isascii()):
            raise InvalidOperation
        return Decimal(given)
    except InvalidOperation:
        raise InvalidInputError(
            f"value {given!r} is not a number; write digits only, such as 12 or 12.50"
        ) from None


def _too_fine(given: object, number: Decimal, decimals: int) -> str:
    exponent = number.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    if decimals == 0:
        return (
            f"value {given} has decimals and the meter keeps integers; "
            f"pass --scale {-exponent} to keep {-exponent} decimals exactly"
        )
    return (
        f"value {given} has {-exponent} decimals but --scale keeps {decimals}; "
        "it is not rounded: use a larger scale or mend the value"
    )
