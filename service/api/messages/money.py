"""Money of the contract, and nano-dollars."""

from broadcast.v1 import cost_pb2 as pb
from service.domain.cost.money import CURRENCY, DOLLAR


def money_message(nanos: int) -> pb.Money:
    units, rest = divmod(nanos, DOLLAR)
    return pb.Money(currency_code=CURRENCY, units=units, nanos=rest)


def given_money(message: pb.Money) -> int:
    """Nano-dollars. The rules of the contract let in no other currency."""
    return message.units * DOLLAR + message.nanos
