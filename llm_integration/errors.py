"""What can go wrong with a model call, translated once, at each backend's edge.

TradentError
└── BackendError             a call to a model did not give a reply
    ├── Unreachable          no connection was made: nothing was sent, nothing is charged        retry
    ├── NotUsable            known beforehand not to work: no key, model gone; nothing was sent  retry, after a while
    ├── TimedOut             no full reply in time: it may have been served                      retry
    ├── ConnectionBroken     the connection ended in mid-reply: it may have been served          retry
    ├── RateLimited          429, or its like                                                    retry, after a while
    ├── ServerFailed         5xx, overloaded, or an error inside a 200                           retry
    ├── BadReply             a 200 whose body is no chat reply                                   retry
    ├── ParameterRefused     the model takes no such parameter: it is left out from now on       retry
    ├── BudgetUnknown        what has been spent cannot be looked up: nothing was sent           retry
    ├── Unauthorized         401, 403: the key is missing, wrong or not allowed                  no
    ├── PaymentRequired      402: no credit left                                                 no
    ├── BudgetExceeded       a limit of what may be spent: nothing was sent, nothing is charged  no
    ├── ModelNotFound        the model is unknown or has been shut down                          no
    ├── ContextExceeded      the prompt is longer than the model reads                           no
    ├── DeadlinePassed       it cannot be started before its deadline: nothing was sent          no
    ├── Unaskable            the signal cannot be shown to a model: nothing was sent             no
    └── RequestRejected      any other 4xx                                                       no
"""

import math
from datetime import datetime
from decimal import Decimal
from typing import ClassVar, Self

from trading.errors import TradentError

_DAY_S = 86_400.0


class BackendError(TradentError):
    """A call to a model did not give a reply.

    `retryable` is the class's, and so is `charged`: whether the server may have counted it against a quota;
    `retry_after_s` is what the server asked for, of which at most a day is kept: one absurd header must not shut a
    backend out for ever; `status` the HTTP status; `headers_at` the monotonic time the response headers arrived (None:
    they never did); `reply` the raw body, for the audit trail.
    """

    retryable: ClassVar[bool] = False
    charged: ClassVar[bool] = True

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        headers_at: float | None = None,
        reply: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = _bounded(retry_after_s)
        self.headers_at = headers_at
        self.reply = reply

    def reworded(self, message: str) -> Self:
        """The same failure in other words: its class and all that it carries stay."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.args = (message,)
        return other


class Unreachable(BackendError):
    """No connection was made: nothing was sent, nothing is charged."""

    retryable = True
    charged = False


class NotUsable(BackendError):
    """The backend was found unusable before anything was sent: no key, no such model, nobody there."""

    retryable = True
    charged = False


class TimedOut(BackendError):
    """No full reply in time; the server may have served it all the same."""

    retryable = True


class ConnectionBroken(BackendError):
    """The connection ended in mid-reply; the server may have served it all the same."""

    retryable = True


class RateLimited(BackendError):
    """The server refused for now: too many requests or tokens."""

    retryable = True


class ServerFailed(BackendError):
    """The server or the provider behind it failed."""

    retryable = True


class BadReply(BackendError):
    """The server answered 200 with a body that is no chat reply."""

    retryable = True


class ParameterRefused(BackendError):
    """The model does not take an optional part of the request, which is left out from the next one on."""

    retryable = True


class Unauthorized(BackendError):
    """The key is missing, wrong or not allowed to do this."""


class PaymentRequired(BackendError):
    """The account has no credit left."""


class BudgetExceeded(BackendError):
    """The call may cost more than is left to be spent: it was not made.

    `limit` is the setting that says so, `used` and `allowed` how much of it is spent or reserved, in USD (Decimal) or
    tokens (int), `resets_at` when it starts anew; each None where that is not known or does not apply. `skip`: no
    other model is to be asked instead.
    """

    charged = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        headers_at: float | None = None,
        reply: str | None = None,
        limit: str | None = None,
        used: Decimal | int | None = None,
        allowed: Decimal | int | None = None,
        resets_at: datetime | None = None,
        skip: bool = False,
    ) -> None:
        super().__init__(message, status=status, retry_after_s=retry_after_s, headers_at=headers_at, reply=reply)
        self.limit = limit
        self.used = used
        self.allowed = allowed
        self.resets_at = resets_at
        self.skip = skip


class BudgetUnknown(BackendError):
    """What has been spent cannot be looked up, so that no call that costs money may be made."""

    retryable = True
    charged = False


class ModelNotFound(BackendError):
    """The model is unknown or has been shut down."""


class ContextExceeded(BackendError):
    """The prompt is longer than the model reads."""


class DeadlinePassed(BackendError):
    """The request's deadline passed, or is sure to pass, before it could be started; nothing was sent."""

    charged = False


class Unaskable(BackendError):
    """The signal cannot be shown to a model, or the way there is broken: another try would change nothing."""

    charged = False


class RequestRejected(BackendError):
    """The server found fault with the request itself."""


def _bounded(asked_s: float | None) -> float | None:
    return None if asked_s is None or math.isnan(asked_s) else min(max(0.0, asked_s), _DAY_S)
